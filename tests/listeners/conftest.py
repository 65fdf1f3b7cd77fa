"""What tests of listeners start with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stardust.listeners import listeners as listener
from stardust.listeners.listeners import Listener


@pytest.fixture
def opened() -> Iterator[list[Listener]]:
    """Listeners to close after the test."""
    listeners: list[Listener] = []
    yield listeners
    for one in listeners:
        listener.close(one)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "app.sock")
