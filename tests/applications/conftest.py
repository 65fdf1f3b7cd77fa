"""Whole servers with applications that do what applications do: marked as live, with what live tests have."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.live.conftest import gate, listener

__all__ = ["gate", "listener"]

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.live)
