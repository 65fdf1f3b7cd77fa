"""What many tests of the supervisor need."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.journald import Journal
from tests.supervisor.stage import Stage


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Stage]]:
    made: list[Stage] = []

    def make(**values: Any) -> Stage:
        made.append(Stage(tmp_path, monkeypatch, **{"max_workers": 2, "heartbeat_timeout": 0, **values}))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[Journal]:
    journald = Journal(tmp_path / "journal")
    yield journald
    journald.close()
