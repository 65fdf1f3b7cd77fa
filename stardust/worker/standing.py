"""How a worker stands: whether it serves, pauses or leaves, and for good; and how the whole server does.

Flags that several rooms read. Only `Parting` changes them. Runs in the application's interpreter too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from stardust.ipc import messages
from stardust.worker.clock import FOREVER


class Standing:
    """`paused`: nothing is accepted for a moment; `leaving`: nothing new is taken, and the loop ends when
    nothing is left, or at `leave_by`, in seconds of the monotonic clock; `final`: no worker follows;
    `handing`: what waits here goes to siblings or onto the shelf; `due`: some wait since."""

    __slots__ = ("due", "final", "handing", "leave_by", "leaving", "paused")

    def __init__(self) -> None:
        self.paused = False
        self.leaving = False
        self.final = False
        self.handing = False
        self.due = False
        self.leave_by = FOREVER


class Surroundings(NamedTuple):
    """The rest of the server. `served(since)` says by slot how many requests each sibling has served that is
    free, or was then; `replaceable()` whether a successor could be forked for a worker that reached its limit
    of requests; `stopping()` whether the whole server stops, and `storing()` whether idle connections then go
    onto the shelf; `announce(message)` tells the supervisor."""

    served: Callable[[float], Mapping[int, int]] = lambda since: {}
    replaceable: Callable[[], bool] = lambda: True
    stopping: Callable[[], bool] = lambda: False
    storing: Callable[[], bool] = lambda: False
    announce: Callable[[messages.Leaving], object] = lambda message: None


ALONE = Surroundings()
