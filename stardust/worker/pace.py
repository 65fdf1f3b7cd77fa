"""Whether a client's bytes move fast enough, while it is the client's turn to move them. Pure.

The rate is an average from the beginning: each byte buys 1/rate seconds, on top of a grace that is free. So a
client that was fast before may stall for a while, and one byte now and then is not enough. A limit on the
time without a byte could not tell these two apart.

A deadline that moves with every byte cannot be in a queue in order of arrival (deadlines.py). So the loop
looks at all such connections every LOOK seconds. If it looks late, they get that time for free: then it was
the loop that neither read nor sent.

Runs in the application's interpreter too.
"""

from __future__ import annotations

LOOK = 5.0  # s; between two looks at one client

BODY_GRACE = 5.0  # s

# A receiver tells of room only when it has read as much as fits a packet (RFC 9293 3.8.6.2.2), or half of its
# buffer: at 240 bytes a second it takes 1460 every 6 s at best.
RESPONSE_GRACE = 20.0  # s


class Pace:
    """Of one body, or one response. `rate`: bytes a second; `grace`: seconds that are free; `left`: bytes
    that had not moved when it began, where these are counted."""

    __slots__ = ("_free_until", "_rate", "left")

    def __init__(self, rate: int, grace: float, now: float, left: int = 0) -> None:
        self._rate = rate
        self._free_until = now + grace
        self.left = left

    def late(self, moved: int, now: float) -> bool:
        """Whether `moved` bytes, all until now, are too few."""
        return now > self._free_until + moved / self._rate

    def forgive(self, seconds: float) -> None:
        """Somebody else was the slow one for so long."""
        self._free_until += seconds
