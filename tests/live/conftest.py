"""Marks every test here as live, and lends the sockets they hand over."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.harness import Gate, listening

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.live)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A TCP socket that listens on a free port of 127.0.0.1."""
    with listening() as bound:
        yield bound


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    with Gate(tmp_path / "gate") as bound:
        yield bound
