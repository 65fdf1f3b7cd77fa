"""How a worker ended, as far as that can be known: above all, whether it was for want of memory.

When the kernel kills a process for want of memory, the parent learns only "SIGKILL", which others send too.
But the kernel counts, before it kills: `oom_kill` in memory.events of the control group, cgroup v2 only
(Documentation/admin-guide/cgroup-v2.rst). The unit's sandbox lets that file be read. So a SIGKILL that is not
ours counts as such a kill, if the counter has gone up and no other death explains that. This is wrong if
SIGKILL is sent by hand after the kernel killed another process of the unit. Where there is no such file, it
is a guess, and the message says "perhaps".
"""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import NamedTuple

from stardust.base import process, system
from stardust.logs.events import OUT_OF_MEMORY, WORKER_DIED, Event


class Death(NamedTuple):
    """`how` is for people."""

    how: str
    event: Event


UNKNOWN = Death("nobody knows how, for the application has waited for it", WORKER_DIED)


class Kills:
    """What the kernel killed in a control group, counted in the file `events` (None: not counted)."""

    def __init__(self, events: Path | None) -> None:
        self._events = events
        self._explained = self._count() or 0

    def explain(self, status: int, *, ours: bool) -> Death:
        """How a worker ended, by its wait status. `ours`: we sent SIGKILL ourselves."""
        count = self._count()
        if not killed(status) or ours:
            # What was killed before, and was no worker, explains no later death.
            self._explained = count or 0
            return Death(process.described(status), WORKER_DIED)
        if count is None:
            return Death(f"{process.described(status)}, perhaps out of memory", WORKER_DIED)
        if count <= self._explained:
            return Death(process.described(status), WORKER_DIED)
        self._explained += 1
        return Death(f"{process.described(status)}: out of memory", OUT_OF_MEMORY)

    def _count(self) -> int | None:
        try:
            return None if self._events is None else oom_kills(_read(self._events))
        except OSError:
            return None


def own_kills() -> Kills:
    """For the control group of this process."""
    try:
        return Kills(events_file(_read(Path("/proc/self/cgroup"))))
    except OSError:
        return Kills(None)


def _read(path: Path) -> str:
    return os.fsdecode(system.read_file(str(path)))


def killed(status: int) -> bool:
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def events_file(groups: str) -> Path | None:
    """memory.events by the text of /proc/self/cgroup: the line of cgroup v2 is "0::/path" (cgroups(7))."""
    match = re.search(r"^0::/(.*)$", groups, re.MULTILINE)
    return Path("/sys/fs/cgroup", match[1], "memory.events") if match else None


def oom_kills(events: str) -> int | None:
    """The count in the text of memory.events."""
    match = re.search(r"^oom_kill (\d+)$", events, re.MULTILINE)
    return int(match[1]) if match else None
