"""How a test ends the threads of a worker's pool, which in a real worker end with their process."""

from __future__ import annotations

import os
import threading
from typing import Any
from unittest import mock

from stardust.worker.threads import Pool

PATIENCE = 20.0  # s; far beyond what anything takes


def end(pool: Pool[Any]) -> None:
    """Give back the threads of `pool`, which must have nothing to do, and its pipe.

    In this order: a thread wakes the loop up after a task is done, so its write may be still to come when the
    client has its answer and the loop is over. Into a closed pipe it would raise; into whatever has the
    number then, it would put a byte. And a thread that waited for ever would keep the whole loop alive.
    """
    threads = [each for each in threading.enumerate() if getattr(each, "_target", None) == pool._run]
    pool._work = _leave
    with mock.patch("threading.excepthook"):  # pytest's takes SystemExit for a failure
        for _ in threads:
            pool._tasks.put(None)
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "an application goes on"
    os.close(pool._reader)
    os.close(pool._writer)


def _leave(_: object) -> None:
    raise SystemExit  # which ends this thread alone
