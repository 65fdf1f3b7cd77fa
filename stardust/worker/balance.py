"""How evenly the work is spread over the workers, from one worker's point of view. Pure.

The kernel spreads connections when they come, and knows nothing of how many requests will come on each. So a
worker looks, after some requests of its own, how many its siblings have served meanwhile, and gives them some
of its connections if it has served more than most. Connections that are used move; those that are not
stay where they are, for they are no work.

A difference of up to a quarter does not count: chance makes as much, and connections would move for ever.

Runs in the application's interpreter too.
"""

from __future__ import annotations

from collections.abc import Mapping

AFTER = 64  # requests of one's own until the next look
INTERVAL = 0.05  # s; between two looks at least
_TOLERANCE = 1.25


class Balance:
    """What one worker knows of its siblings. It has served as many requests as `requests` says."""

    __slots__ = ("_own", "_served", "after", "again")

    def __init__(self) -> None:
        self._own = 0
        self._served: Mapping[int, int] = {}
        self.after = AFTER  # look when so many requests have been served,
        self.again = 0.0  # and this moment has come

    def excess(self, requests: int, served: Mapping[int, int], now: float) -> float:
        """The share of its work, 0 to 1, that a worker should give away.

        `served` is how many requests each sibling has served that could take more work, by slot; a slot that
        was not there before, or has served less than before, has a new worker, and says nothing yet.
        """
        own, before = requests - self._own, self._served
        self._own, self._served = requests, served
        self.after, self.again = requests + AFTER, now + INTERVAL
        others = [served[slot] - before[slot] for slot in served if 0 <= before.get(slot, -1) <= served[slot]]
        if not others:
            return 0.0
        fair = (own + sum(others)) / (1 + len(others))
        return 1 - fair / own if own > fair * _TOLERANCE else 0.0
