"""Application threads, for `threads` above 1: each runs one request at a time, the loop does all else.

A task is handed over with `submit`; when it is done it appears in `done`, and `fileno` becomes readable.
Between the two the task belongs to its thread alone, so nothing in it needs a lock.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar

Task = TypeVar("Task")


class Pool(Generic[Task]):
    """`size` daemon threads that call `work(task)`, which must not raise; `free` of them idle."""

    __slots__ = ("_done", "_reader", "_tasks", "_work", "_writer", "free")

    def __init__(self, size: int, work: Callable[[Task], None]) -> None:
        self.free = size
        self._work = work
        self._tasks: SimpleQueue[Task] = SimpleQueue()
        self._done: deque[Task] = deque()
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        for number in range(size):
            threading.Thread(target=self._run, name=f"stardust-{number}", daemon=True).start()

    def fileno(self) -> int:
        return self._reader

    def submit(self, task: Task) -> None:
        """Give `task` to a free thread; call only while `free` > 0."""
        self.free -= 1
        self._tasks.put(task)

    def done(self) -> list[Task]:
        """The tasks that were done since the last call."""
        try:
            os.read(self._reader, 4096)
        except BlockingIOError:
            pass
        finished = []
        while self._done:
            finished.append(self._done.popleft())
        self.free += len(finished)
        return finished

    def _run(self) -> None:
        while True:
            task = self._tasks.get()
            self._work(task)
            self._done.append(task)
            del task  # or an idle thread would keep its last request alive
            try:
                os.write(self._writer, b"\0")
            except BlockingIOError:
                pass  # the loop has more wake-ups waiting than it will read
