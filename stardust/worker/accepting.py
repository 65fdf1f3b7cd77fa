"""Whether newcomers are watched for: at listeners, and at the link from siblings.

They are, unless there is a reason why not, and each reason is taken back by the room that gave it. New
connections are accepted only when the application could be called at once, so that the kernel gives them to
whichever worker is free: hence EPOLLEXCLUSIVE, and no backlog of our own.

Runs in the application's interpreter too.
"""

from __future__ import annotations

from stardust.base import system
from stardust.base.pristine import select
from stardust.worker.clock import Alarm, Clock
from stardust.worker.telling import Telling

_SHORTAGE_LASTS = 0.1  # s; without accepting, when there is no room for one more and none is idle

BEGINNING, PAUSED, LEAVING, BUSY, SHORTAGE = "beginning", "paused", "leaving", "busy threads", "shortage"


class Accepting:
    """`on`: whether newcomers are watched for; `reasons`: why not; `sources`: the descriptors that bring
    them; `resume_at`: when a shortage is to be over."""

    __slots__ = ("_epoll", "_telling", "on", "reasons", "resume_at", "sources")

    def __init__(self, epoll: select.epoll, clock: Clock, telling: Telling) -> None:
        self._epoll = epoll
        self._telling = telling
        self.resume_at = Alarm(clock)
        self.on = False
        self.reasons = {BEGINNING}
        self.sources: list[int] = []

    def resume(self, reason: str) -> None:
        """The reason is gone. Registering a listener reports what waits there already (epoll(7))."""
        self.reasons.discard(reason)
        if not self.reasons and not self.on:
            self.on = True
            for descriptor in self.sources:
                self._epoll.register(descriptor, select.EPOLLIN | system.EPOLLEXCLUSIVE)

    def stop(self, reason: str) -> None:
        self.reasons.add(reason)
        if self.on:
            self.on = False
            for descriptor in self.sources:
                try:
                    self._epoll.unregister(descriptor)
                except OSError:
                    pass  # the application has closed it (vitals.py)

    def suspend(self, why: str) -> None:
        """For a moment. Connections that come meanwhile wait in the kernel, or go to a sibling."""
        self._telling.complain(
            "warning", "shortage", f"accepts no connections for {_SHORTAGE_LASTS:g} s: {why}"
        )
        self.stop(SHORTAGE)
        self.resume_at.within(_SHORTAGE_LASTS)

    def step_back(self, descriptor: int) -> None:
        """Let siblings be woken first: the kernel wakes workers in the order in which they began to wait."""
        if self.on:
            self._epoll.unregister(descriptor)
            self._epoll.register(descriptor, select.EPOLLIN | system.EPOLLEXCLUSIVE)
