"""The server's own log: one object, passed to whoever has something to say.

Not the standard library's `logging`: applications configure that as they like, and many silence every
logger that they do not know. Lines go to standard error; under systemd that is the journal, which adds
time, process and unit itself. Every line of a message is written in one write(2), so that processes do
not interleave. Writing never raises: a server whose log is full goes on serving.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

LEVELS = {"debug": 0, "info": 1, "warning": 2, "error": 3, "critical": 4}


class Log:
    """`who` names the process in each line: "supervisor", "worker 3". `threshold` is a name of LEVELS."""

    __slots__ = ("_descriptor", "_least", "_stamped", "who")

    def __init__(
        self, who: str, threshold: str = "info", *, stamped: bool = True, descriptor: int = 2
    ) -> None:
        self.who = who
        self._least = LEVELS[threshold]
        self._stamped = stamped
        self._descriptor = descriptor

    def named(self, who: str) -> Log:
        """The same log under another name, for another process."""
        level = next(name for name, rank in LEVELS.items() if rank == self._least)
        return Log(who, level, stamped=self._stamped, descriptor=self._descriptor)

    def debug(self, text: str) -> None:
        self._write("debug", text)

    def info(self, text: str) -> None:
        self._write("info", text)

    def warning(self, text: str) -> None:
        self._write("warning", text)

    def error(self, text: str) -> None:
        self._write("error", text)

    def critical(self, text: str) -> None:
        self._write("critical", text)

    def _write(self, level: str, text: str) -> None:
        if LEVELS[level] < self._least:
            return
        stamp = time.strftime("%Y-%m-%d %H:%M:%S ") if self._stamped else ""
        lines = text.rstrip("\n").replace("\n", "\n    ")
        data = f"{stamp}stardust[{os.getpid()}] {self.who}: {level}: {lines}\n"
        try:
            os.write(self._descriptor, data.encode("utf-8", "backslashreplace"))
        except OSError:
            pass  # there is no better place to say so


def goes_to_journal(environ: Mapping[str, str]) -> bool:
    """Whether standard error is a stream of the journal: $JOURNAL_STREAM names it (systemd.exec(5))."""
    try:
        device, inode = environ["JOURNAL_STREAM"].split(":")
        status = os.fstat(2)
        return (status.st_dev, status.st_ino) == (int(device), int(inode))
    except (KeyError, ValueError, OSError):
        return False
