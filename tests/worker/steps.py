"""Sees every step in the life of a connection that is taken while tests run: from which stage to which, and
by which function of the worker. What it costs, only tests pay."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from stardust.worker import connection as connections
from stardust.worker.connection import Connection
from stardust.worker.life import LIFE, NEW

WORKER = str(Path(connections.__file__).parent)

Taken = tuple[int, int, str]
"""A stage, the next one, and who has taken the step, as in a row of LIFE."""

KNOWN: set[Taken] = {(step.stage, step.next, step.by) for step in LIFE}


class Steps:
    """Stands in the place of `Connection.stage`. `taken` are all steps so far, `unknown` those that LIFE is
    without."""

    def __init__(self) -> None:
        self._plain: Any = vars(Connection)["stage"]
        self.taken: set[Taken] = set()
        self.unknown: set[Taken] = set()

    def __get__(self, connection: Connection, owner: type[Connection]) -> int:
        stage: int = self._plain.__get__(connection, owner)
        return stage

    def __set__(self, connection: Connection, stage: int) -> None:
        code = sys._getframe(1).f_code
        if code.co_filename.startswith(WORKER):  # not by a test itself
            try:
                before = self._plain.__get__(connection, Connection)
            except AttributeError:
                before = NEW
            step = (before, stage, code.co_qualname)
            self.taken.add(step)
            if step not in KNOWN:
                self.unknown.add(step)
        self._plain.__set__(connection, stage)
