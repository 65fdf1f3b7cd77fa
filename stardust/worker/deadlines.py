"""Which connections wait, and until when.

All connections that wait for the same thing wait equally long. So a queue in order of arrival is in
order of expiry too: the next deadline is the first member's, and adding, moving and removing are one
dictionary operation each, whatever the number of connections.
"""

from __future__ import annotations

import math
from typing import Generic, TypeVar

Member = TypeVar("Member")


class Waiting(Generic[Member]):
    """Members that wait `seconds` each; `what` names the limit, for logs."""

    __slots__ = ("members", "seconds", "what")

    def __init__(self, what: str, seconds: float) -> None:
        self.what = what
        self.seconds = seconds
        self.members: dict[Member, float] = {}

    def add(self, member: Member, now: float) -> None:
        """`member` waits from now on, also if it waited already."""
        self.members.pop(member, None)
        self.members[member] = now + self.seconds

    def since(self, member: Member) -> float:
        """When the wait of a member began."""
        return self.members[member] - self.seconds

    def discard(self, member: Member) -> None:
        self.members.pop(member, None)

    def next(self) -> float:
        """When the first deadline passes; infinity if none waits."""
        for deadline in self.members.values():
            return deadline
        return math.inf

    def expired(self, now: float) -> list[Member]:
        """Those whose deadline has passed, in order. They go on waiting until discarded."""
        late: list[Member] = []
        for member, deadline in self.members.items():
            if deadline > now:
                break
            late.append(member)
        return late
