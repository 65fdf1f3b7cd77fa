"""Memory for all that waits in a worker: bodies for the application, responses for their readers.

What gets none waits in a temporary file instead. So a crowd of slow clients costs disk, and no more memory
than is configured. A few bytes of each are free: a small body needs no file, however many others wait.

Runs in the application's interpreter too.
"""

from __future__ import annotations

import sys
from collections.abc import MutableSequence
from typing import Any

from stardust.base.pristine import _thread

FREE = 8192  # bytes of each body, and of each response
JOINED = 16384  # bytes up to which a piece of memory takes more at its end


def gather(pieces: MutableSequence[Any], data: bytes, large: int = JOINED) -> None:
    """Put `data` behind the `pieces` that wait, by itself from `large` bytes on. Small ones are joined, so
    that what is counted is what is held: an object for each byte would be a hundred times as much."""
    last = pieces[-1] if pieces else None
    if len(data) >= large:
        pieces.append(data)
    elif isinstance(last, bytearray) and len(last) < JOINED:
        last += data
    else:
        pieces.append(bytearray(data))


class Budget:
    """`size` bytes. Application threads take from it too."""

    __slots__ = ("_left", "_lock")

    def __init__(self, size: int) -> None:
        self._left = size
        self._lock = _thread.allocate_lock()

    def take(self, size: int) -> bool:
        """Whether there are so many left; then they are taken."""
        with self._lock:
            if size > self._left:
                return False
            self._left -= size
            return True

    def give(self, size: int) -> None:
        with self._lock:
            self._left += size


class Share:
    """What one body or response holds in memory: at most `most` bytes, of which FREE are not counted."""

    __slots__ = ("_budget", "_taken", "held", "most")

    def __init__(self, budget: Budget, most: int) -> None:
        self._budget = budget
        self._taken = 0
        self.most = most
        self.held = 0

    def add(self, size: int) -> bool:
        """Whether so many bytes more may be held; then they are."""
        held = self.held + size
        if held > self.most:
            return False
        over = max(0, held - FREE) - self._taken
        if over > 0:
            if not self._budget.take(over):
                return False
            self._taken += over
        self.held = held
        return True

    def drop(self, size: int) -> None:
        """So many bytes less are held."""
        self.held -= size
        over = self._taken - max(0, self.held - FREE)
        if over > 0:
            self._taken -= over
            self._budget.give(over)


UNLIMITED = Budget(sys.maxsize)
"""For a connection that shares with no other."""
