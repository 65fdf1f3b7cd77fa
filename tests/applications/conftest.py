"""Whole servers with applications that do what applications do: marked as live, with an interpreter that has
the packages of such applications."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.live.conftest import gate, listener

__all__ = ["gate", "listener", "packages"]

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.live)


@pytest.fixture(scope="session")
def packages() -> Path:
    """The interpreter that has what stands in requirements.txt."""
    interpreter = HERE.parents[1] / ".venv" / "applications" / "bin" / "python"
    assert interpreter.exists(), "the packages of applications are missing: make .venv/applications.stamp"
    return interpreter
