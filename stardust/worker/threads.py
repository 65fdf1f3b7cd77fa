"""Application threads, for `threads` above 1: which has which request, and which requests wait.

Each runs one request at a time, the loop does all else. A task is handed over with `submit`; when it is done
it appears in `done`, and `fileno` becomes readable. Between the two the task belongs to its thread alone, so
nothing in it needs a lock. While all are busy, nothing is accepted, and a request that has come waits: for
one of them, and after PATIENCE for a sibling's too.

Runs in the application's interpreter too.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple, Optional, TypeVar

from stardust.base import system
from stardust.base.pristine import _thread, queue
from stardust.ipc.scoreboard import Slot
from stardust.settings.table import Config
from stardust.worker.accepting import BUSY, Accepting
from stardust.worker.book import Book
from stardust.worker.clock import Alarm, Clock
from stardust.worker.connection import Connection
from stardust.worker.guard import PATIENCE
from stardust.wsgi.environ import Environ
from stardust.wsgi.gateway import Exchange

Work = TypeVar("Work")

_THREADING = {name: value for name, value in vars(threading).items() if callable(value)}
"""What is in there before the application is loaded."""


class Pool(Generic[Work]):
    """`size` daemon threads that call `work(task)`, which must not raise; `free` of them idle."""

    __slots__ = ("_done", "_reader", "_tasks", "_work", "_writer", "free")

    def __init__(self, size: int, work: Callable[[Work], None]) -> None:
        self.free = size
        self._work = work
        self._tasks: queue.SimpleQueue[Work] = queue.SimpleQueue()
        self._done: deque[Work] = deque()
        self._reader, self._writer = system.pipe()
        system.set_blocking(self._reader, False)
        system.set_blocking(self._writer, False)
        for number in range(size):
            _start(self._run, f"stardust-{number}")

    def fileno(self) -> int:
        return self._reader

    @property
    def descriptors(self) -> tuple[int, int]:
        return self._reader, self._writer

    def submit(self, task: Work) -> None:
        """Give `task` to a free thread; call only while `free` > 0."""
        self.free -= 1
        self._tasks.put(task)

    def done(self) -> list[Work]:
        """The tasks that were done since the last call."""
        try:
            system.read(self._reader, 4096)
        except BlockingIOError:
            pass
        finished = []
        while self._done:
            finished.append(self._done.popleft())
        self.free += len(finished)
        return finished

    def forsake(self) -> None:
        """In a forked child: the parent's loop is not to be woken from here."""
        system.close(self._reader)
        system.close(self._writer)

    def _run(self) -> None:
        while True:
            task = self._tasks.get()
            self._work(task)
            self._done.append(task)
            del task  # or an idle thread would keep its last request alive
            try:
                system.write(self._writer, b"\0")
            except OSError:
                pass  # the loop has more wake-ups waiting than it will read


def _start(run: Callable[[], None], name: str) -> None:
    """Have a thread of the system run it: one that `threading` knows by its name, tells tracers and profilers
    of, and so on; or a bare one if the application has put something else there, threads that are none.

    Green threads need a hub in each thread that has some, which their `sleep` makes. Made by several at once,
    gevent's wait for each other's imports for ever: so they come one after the other.
    """
    if all(vars(threading).get(known) is value for known, value in _THREADING.items()):
        threading.Thread(target=run, name=name, daemon=True).start()
        return
    begun: queue.SimpleQueue[None] = queue.SimpleQueue()

    def begin() -> None:
        try:
            sys.modules["time"].sleep(0)
        except BaseException:
            pass  # a stranger's: requests will tell
        begun.put(None)
        run()

    _thread.start_new_thread(begin, ())
    begun.get()


class Task(NamedTuple):
    """A request on its way through an application thread."""

    connection: Connection
    exchange: Exchange
    environ: Environ


class Threads:
    """`pool.free` threads have nothing to do; `running` and `queued` have the connections whose request is
    with a thread, or waits for one, each since when, oldest first. `give_at` is when those that wait are to
    be offered to siblings, None if there are none."""

    __slots__ = (
        "_accepting",
        "_app",
        "_book",
        "_clock",
        "_give_at",
        "_limit",
        "_slot",
        "pool",
        "queued",
        "running",
    )

    def __init__(
        self,
        config: Config,
        app: Callable[..., Any],
        slot: Slot,
        clock: Clock,
        book: Book,
        accepting: Accepting,
        give_at: Optional[Alarm],
    ) -> None:
        self._app = app
        self._slot = slot
        self._clock = clock
        self._book = book
        self._accepting = accepting
        self._give_at = give_at
        self._limit = config.request_timeout
        self.running: dict[Connection, float] = {}
        self.queued: dict[Connection, float] = {}
        self.pool: Pool[Task] = Pool(config.threads, self._run)

    def enqueue(self, connection: Connection) -> None:
        """All threads are busy: wait for one of them, or for a sibling."""
        self._book.unwatch(connection)
        self.queued[connection] = self._clock.now
        if self._give_at is not None:
            self._give_at.within(PATIENCE)

    def late(self) -> list[Connection]:
        """Those that have waited for so long that a sibling may have them."""
        now = self._clock.now
        return [each for each, since in self.queued.items() if now >= since + PATIENCE]

    def submit(self, task: Task, requests: int) -> None:
        """Have a free thread run it, the worker's request number `requests`; call only while one is free."""
        self.running[task.connection] = self._clock.now
        self._publish(requests)
        self.pool.submit(task)
        if not self.pool.free:
            self._accepting.stop(BUSY)

    def done(self) -> Iterator[Task]:
        """What has been done since the last call."""
        for task in self.pool.done():
            del self.running[task.connection]
            yield task

    def next(self) -> Iterator[Connection]:
        """Those that waited, as long as a thread is free."""
        while self.queued and self.pool.free:
            connection = next(iter(self.queued))
            del self.queued[connection]
            yield connection

    def settle(self, requests: int) -> None:
        """All that was done is taken back."""
        self._publish(requests)
        if self.pool.free:
            self._accepting.resume(BUSY)

    def _publish(self, requests: int) -> None:
        """Say on the scoreboard what the threads are doing: the oldest request stands for all."""
        slot, connections = self._slot, len(self._book.connections)
        for connection, began in self.running.items():
            slot.count(requests, connections)
            deadline = began + self._limit if self._limit else 0.0
            slot.busy(len(self.running), began, deadline, connection.label)
            return
        slot.idle(requests, connections, self._clock.now)

    def _run(self, task: Task) -> None:
        task.exchange.run(self._app, task.environ)
