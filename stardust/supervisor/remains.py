"""What the application leaves behind: processes whose worker was killed, or whose generation is over.

The supervisor is the subreaper, so whoever loses its parent becomes its child; and each worker and each
zygote leads a process group, which what it starts is in as well. So of a child that is neither worker nor
zygote it is known where it comes from:

    the group of one that lives       a job in the background, which its parent has let go: left alone
    the group of one that has ended   ended too, if that did not end in peace, or its generation is over
    a group of its own                ended too, when such a death makes us look
    a session of its own              left alone: it has asked to outlive us (setsid(2))

When the server leaves, whoever is there is ended, but for the last. SIGTERM first, SIGKILL after a moment;
what these leave behind follows them. A process id is its process's for as long as we have not waited for it,
and nobody else could: so no signal hits a stranger.
"""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Collection

from stardust.base import system
from stardust.base.records import dataclass
from stardust.supervisor import processes
from stardust.supervisor.host import Host

MOMENT = 1.0  # s; from SIGTERM to SIGKILL, and from that to giving up


@dataclass(slots=True)
class Group:
    """Of a worker or a zygote, called `name`. `condemned`: what it leaves behind is to end."""

    generation: int
    name: str
    condemned: bool = False


class Remains:
    """`own()`: the process ids of workers and zygotes."""

    def __init__(self, host: Host, own: Callable[[], Collection[int]]) -> None:
        self._host = host
        self._own = own
        self._groups: dict[int, Group] = {}
        self._ending: dict[int, float] = {}  # who has got SIGTERM, and when SIGKILL follows
        self._killed: dict[int, float] = {}  # who has got SIGKILL, and until when we wait for its end
        self._look = False
        self._all = False

    def expect(self, pid: int, generation: int, name: str) -> None:
        """A worker or a zygote has begun, and leads a group."""
        self._groups[pid] = Group(generation, name)

    def gone(self, pid: int, *, in_peace: bool) -> None:
        """A worker was waited for."""
        group = self._groups.get(pid)
        if group is not None:
            group.condemned = group.condemned or not in_peace
            self._look = self._look or group.condemned
            if _is_empty(pid):
                del self._groups[pid]

    def over(self, number: int) -> None:
        """A generation is: its zygote has ended."""
        self._look = True
        for group in self._groups.values():
            if group.generation == number:
                group.condemned = True

    def leave(self) -> None:
        """The server is about to end."""
        self._all = self._look = True

    def ended(self, pid: int) -> None:
        """One that was neither worker nor zygote. What it leaves behind is ours now."""
        told = self._ending.pop(pid, None), self._killed.pop(pid, None)
        self._look = self._look or told != (None, None)

    def some_left(self) -> bool:
        """Whether there may be somebody yet who is to end, and will."""
        waiting = any(deadline > self._host.now for deadline in self._killed.values())
        return self._look or bool(self._ending) or waiting

    def turn(self) -> float:
        """Look for who is to end, and kill those who took too long; when to look again."""
        now = self._host.now
        if self._look:
            self._look = False
            self._search()
        for pid, deadline in [*self._ending.items()]:
            if deadline <= now:
                del self._ending[pid]
                self._killed[pid] = now + MOMENT
                _send(pid, signal.SIGKILL)
        deadlines = [*self._ending.values(), *self._killed.values()]
        return min((each for each in deadlines if each > now), default=math.inf)

    def _search(self) -> None:
        own, ours, session = self._own(), os.getpgrp(), system.getsid(0)
        for pid in processes.own_children():
            if pid in own or pid in self._ending or pid in self._killed or processes.has_ended(pid):
                continue
            try:
                number, stranger = system.getpgid(pid), system.getsid(pid) != session
            except OSError:
                continue
            # Nobody of the application's is in our own group: it was there before us.
            if stranger or number == ours:
                continue
            group = self._groups.get(number)
            if self._all or group is None or (group.condemned and number not in own):
                self._end(pid, group)
        for number in [*self._groups]:
            if number not in own and _is_empty(number):
                del self._groups[number]

    def _end(self, pid: int, group: Group | None) -> None:
        by = "" if group is None else f" by {group.name}"
        text = f"ending process {pid} ({processes.command_of(pid)}), which was left behind{by}"
        self._host.log.warning(text)
        self._ending[pid] = self._host.now + MOMENT
        _send(pid, signal.SIGTERM)


def _is_empty(group: int) -> bool:
    """Whether nobody is in it any more. Until then no process gets its number."""
    try:
        system.kill(-group, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def _send(pid: int, number: int) -> None:
    try:
        system.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass  # it has ended; or it has changed its user, and we may not
