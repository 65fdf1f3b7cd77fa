"""A generation's access log as the supervisor has it: open, reopen, and the lines of killed requests."""

from __future__ import annotations

import os
from collections.abc import Callable

from stardust.base import system
from stardust.ipc.scoreboard import Entry
from stardust.logs import accesslog
from stardust.logs.accesslog import Record
from stardust.logs.log import Log
from stardust.logs.logfile import LogFile
from stardust.settings.table import Config


class RequestLog:
    """Workers write to it, and are given its descriptor; here is written about requests whose worker was
    killed."""

    def __init__(self, config: Config, log: Log) -> None:
        self._config = config
        self._line: Callable[[Record], str] = accesslog.formatter(config.access_log_format)
        self.descriptor = open_request_log(config.access_log)
        self._file = LogFile(system.dup(self.descriptor), log)

    def reopen(self) -> None:
        """Go on in a new file of the old name. Raises OSError; then the old one stays in use."""
        fresh = open_request_log(self._config.access_log)
        system.close(self.descriptor)
        self.descriptor = fresh
        self._file.reopened(system.dup(fresh))

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
        system.close(self.descriptor)
        self._file.close()


def open_request_log(path: str) -> int:
    """A descriptor to append to; "-" is standard output. Raises OSError, with the path in it."""
    if path == "-":
        return system.dup(1)
    return system.open_descriptor(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
