"""What belongs to one generation: settings and listeners, access log, zygote, and what that is told first.

Whatever is opened here is closed here. Nothing is decided here: that is `plan.py`'s.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Sequence

from stardust.base.records import dataclass, field
from stardust.ipc.channel import Channel
from stardust.ipc.handoff import Link
from stardust.ipc.scoreboard import Entry, Scoreboard
from stardust.listeners.listeners import Listener
from stardust.logs import accesslog
from stardust.logs.accesslog import Record
from stardust.logs.log import Log, Sink
from stardust.logs.logfile import LogFile
from stardust.settings import table as settings
from stardust.settings.table import Config
from stardust.supervisor.state import Policy


class RequestLog:
    """A generation's access log as the supervisor has it.

    Workers write to it, and are given its descriptor; here is written about requests whose worker was killed.
    """

    def __init__(self, config: Config, log: Log) -> None:
        self._config = config
        self._line: Callable[[Record], str] = accesslog.formatter(config.access_log_format)
        self.descriptor = open_request_log(config.access_log)
        self._file = LogFile(os.dup(self.descriptor), log)

    def reopen(self) -> None:
        """Go on in a new file of the old name. Raises OSError; then the old one stays in use."""
        fresh = open_request_log(self._config.access_log)
        os.close(self.descriptor)
        self.descriptor = fresh
        self._file.reopened(os.dup(fresh))

    def killed(self, entry: Entry, why: str, *, now: float, wall: float) -> None:
        """A request that ended with its worker. `wall` + monotonic seconds = seconds since the epoch."""
        peer, method, target, version = (entry.text.split(" ") + [""] * 4)[:4]
        record = Record(
            when=entry.since + wall,
            duration=now - entry.since,
            peer="" if peer == "-" else peer,
            user="",
            method=method,
            target=target,
            version=version,
            status=0,
            sent=0,
            referer="",
            agent="",
            host="",
            note=why,
            pid=entry.pid,
        )
        self._file.add(self._line(record))
        self._file.flush()

    def close(self) -> None:
        os.close(self.descriptor)
        self._file.close()


@dataclass(slots=True)
class Generation:
    """`pid` and `channel` are its zygote's: 0 and None before it was started and after it ended."""

    number: int
    config: Config
    listeners: list[Listener]
    pid: int = 0
    channel: Channel | None = None
    requests: RequestLog | None = None
    owes: dict[int, float] = field(default_factory=dict)
    """By worker, since when its zygote owes an answer: that it was forked, or how it ended."""

    @property
    def deaf_at(self) -> float:
        """When a zygote that goes on owing an answer is to be given up."""
        return min(self.owes.values(), default=math.inf) + self.config.boot_timeout

    @property
    def interpreter(self) -> str:
        """The application's own, or the one that runs the server."""
        return self.config.python or sys.executable

    @property
    def policy(self) -> Policy:
        """What decisions depend on."""
        return Policy(
            workers=self.config.max_workers,
            spawn_interval=self.config.spawn_interval,
            respawn_pause=self.config.main_process_delay,
            boot_timeout=self.config.boot_timeout,
            graceful_timeout=self.config.graceful_timeout,
            idle_timeout=0.0 if self.own_listeners else self.config.idle_timeout,
        )

    @property
    def own_listeners(self) -> list[Listener]:
        """Those that close with the server: nothing would start it again for a connection there."""
        return [each for each in self.listeners if not each.inherited]

    def open_request_log(self, log: Log) -> None:
        """Raises OSError, with the path in it."""
        if self.config.access_log:
            self.requests = RequestLog(self.config, log)

    def first_message(self, scoreboard: Scoreboard, sink: Sink, links: Sequence[Link]) -> FirstMessage:
        """What `zygote.py` is told first. `sink` is that of its log, `links` the one between workers and the
        shelf; without them it is to serve by itself, alone."""
        content = {
            "generation": self.number,
            "config": settings.dump(self.config),
            "listeners": [
                {"name": each.name, "address": list(each.address), "own": not each.inherited}
                for each in self.listeners
            ],
            "links": bool(links),
            "access_log": self.requests is not None,
            "sink": sink,
        }
        ends = [end for link in links for end in link.descriptors]
        logs = [] if self.requests is None else [self.requests.descriptor]
        listeners = [each.socket.fileno() for each in self.listeners]
        return content, [scoreboard.descriptor, *ends, *logs, *listeners]


FirstMessage = tuple[dict[str, object], Sequence[int]]
"""The content of a "generation" message, and the descriptors that go with it."""


def open_request_log(path: str) -> int:
    """A descriptor to append to; "-" is standard output. Raises OSError, with the path in it."""
    if path == "-":
        return os.dup(1)
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
