"""The guard looks after the other connections of a worker while the application holds its loop.

A thread, for `threads = 1`. When one turn of the loop lasts longer than PATIENCE because the application
does not return, the guard calls `relieve`, again and again until it does: what has become readable is handed
over to workers that are free, and slow readers go on getting their responses.

How the two keep out of each other's way: the loop holds the lock `turn`, except inside the application.

    loop     turn.release()   the application runs   turn.acquire()
    guard                  └─ tries the lock now and then: it has it only here

So a request costs the loop a release and an acquire, some 0.1 µs; nothing that the guard does is seen half
done; and the connection that is being served belongs to the application's caller, not to the guard.

The guard looks once in PATIENCE while requests come, and sleeps without any wake-up when they do not:
`asleep` then has the next request ring for it. A guard that wakes up late does so because there are more busy
processes than cores: then turns last long for want of a core, siblings are no better off, and to look less
often is what helps. Twice as late, four times as seldom: with 100 busy workers on one core, looks at a steady
pace had doubled the CPU time of a request.

An application that computes holds the interpreter (the GIL), and gives it away every `sys.getswitchinterval`
seconds at most: 5 ms for each system call of the guard. So while it is at work, that is made shorter.

Runs in the application's interpreter too.
"""

from __future__ import annotations

from collections.abc import Callable
from sys import getswitchinterval, setswitchinterval

from stardust.base.pristine import _thread, queue, time

PATIENCE = 0.02  # s; how long a turn of the loop may last before others are looked after
TICK = 0.01  # s; between two looks at least
_SELDOM = 0.25  # s; between two looks at most
_HURRY = 0.0001  # s; the switch interval while the guard is at work


def until_next(lasted: float, late: float) -> float:
    """Seconds until the next look, in a turn that has `lasted` so long: not before it can be too long, for
    each look costs the loop the interpreter. `late`: by how much the last look was. Pure."""
    return max(TICK, PATIENCE - lasted, min(late * late / TICK, _SELDOM))


class Guard:
    """`began()` says when this turn of the loop did, in seconds of the monotonic clock; `relieve(seconds)` is
    called on the guard's thread, with how long the turn has lasted. `turn` is the lock: the loop releases it
    before the application runs, wakes the guard if that is `asleep`, and acquires it afterwards, which waits
    for what the guard is doing just then."""

    __slots__ = ("_began", "_bell", "_interval", "_relieve", "asleep", "turn")

    def __init__(self, began: Callable[[], float], relieve: Callable[[float], object]) -> None:
        self._began = began
        self._relieve = relieve
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.turn = _thread.allocate_lock()
        self.turn.acquire()
        self.asleep = True
        self._interval = 0.0  # the switch interval that it is going to restore

    def start(self) -> None:
        """In the process that it is to guard: threads do not survive fork(2)."""
        _thread.start_new_thread(self._run, ())

    def wake(self) -> None:
        """The loop's, when it has released `turn` and the guard is asleep."""
        self.asleep = False
        self._bell.put(None)

    def _run(self) -> None:
        seen = late = 0.0
        while True:
            if self.asleep:
                self._bell.get()
                late = 0.0
            wait = until_next(time.monotonic() - self._began(), late)
            due = time.monotonic() + wait
            time.sleep(wait)
            late = max(time.monotonic() - due, late / 2)
            began = self._began()
            if self.turn.acquire(False):
                try:
                    self._look_after()
                finally:
                    self.turn.release()
            elif began == seen:
                self._rest()
            seen = began

    def _rest(self) -> None:
        """Nothing has happened since the last look. If something begins just now, one of the two sees it:
        the loop sees `asleep`, or the guard that the lock is free."""
        self.asleep = True
        if self.turn.acquire(False):
            self.turn.release()
            self.asleep = False

    def _look_after(self) -> None:
        lasted = time.monotonic() - self._began()
        if lasted < PATIENCE:
            return
        self._interval = getswitchinterval()
        setswitchinterval(_HURRY)
        try:
            self._relieve(lasted)
        finally:
            self.forsake()

    def forsake(self) -> None:
        """End the hurry. A forked child has to, for it may come into being in the middle of one, and has no
        guard."""
        if self._interval:
            setswitchinterval(self._interval)
            self._interval = 0.0
