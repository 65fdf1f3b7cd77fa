"""A worker's time: the moment, when its turn of the loop began, and by when it has to wake up.

The moment is looked up when a turn begins and when the application has returned; between the two nothing
takes long. Runs in the application's interpreter too.
"""

from __future__ import annotations

from stardust.base.pristine import time
from stardust.http1 import response

FOREVER = float("inf")


class Clock:
    """`now` and `looked` (when this turn of the loop began; what came later was not seen yet) are seconds
    of the monotonic clock; `wall` is what to add for seconds since the epoch; `date` is the value of a Date
    that holds until `date_until`; `wake_at` is never later than the earliest deadline."""

    __slots__ = ("date", "date_until", "looked", "now", "wake_at", "wall")

    def __init__(self) -> None:
        self.wake_at = FOREVER
        self.now = self.looked = time.monotonic()
        self.begin_second()

    def tick(self) -> float:
        """Look at the clock; returns what it says."""
        now = self.now = time.monotonic()
        if now >= self.date_until:
            self.begin_second()
        return now

    def begin_second(self) -> None:
        wall = time.time()
        self.date = response.date(wall)
        self.date_until = self.now + 1.0 - wall % 1.0
        self.wall = wall - self.now

    def wake_by(self, moment: float) -> None:
        if moment < self.wake_at:
            self.wake_at = moment


class Alarm:
    """One moment at which something is due: `at`, or never."""

    __slots__ = ("_clock", "at")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.at = FOREVER

    def within(self, seconds: float) -> None:
        """In so many seconds, or earlier if it was to be earlier."""
        self.at = min(self.at, self._clock.now + seconds)
        self._clock.wake_by(self.at)

    def rings(self, moment: float) -> bool:
        """Whether it is due at `moment`; if so, it is over with that."""
        if moment < self.at:
            return False
        self.at = FOREVER
        return True
