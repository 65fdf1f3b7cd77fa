"""Lines on their way into a log file: gathered, written together, never waited for.

A regular file takes what it is given. A pipe, a terminal or a socket may have a reader that is stuck: then
lines wait here up to `MOST` bytes, and after that they are dropped and counted. A request is never
delayed, and never fails, because of its log line. What was lost is reported when lines get through again.

Runs in the application's interpreter too.
"""

from __future__ import annotations

import stat
from typing import Optional

from stardust.base import files, system
from stardust.base.pristine import select
from stardust.logs.log import Log

MOST = 1024 * 1024  # bytes that may wait

# PIPE_BUF: so much a pipe takes at once when poll(2) says that it is writable, and "atomically: the output
# data is written to the pipe as a contiguous sequence" (pipe(7)), whoever else writes into it.
_PIECE = 4096


class LogFile:
    """A log that is open already. `dropped` counts the lines that were lost since the last report."""

    __slots__ = ("_broken", "_descriptor", "_lines", "_log", "_poll", "_waiting", "dropped")

    def __init__(self, descriptor: int, log: Log) -> None:
        self._log = log
        self._lines: list[bytes] = []
        self._waiting = 0
        self._broken = False  # the last attempt to write failed, and that was said
        self.dropped = 0
        self._use(descriptor)

    def reopened(self, descriptor: int) -> None:
        """Go on in another file: the old one was renamed away. What waits still goes into the old one."""
        self.flush()
        system.close(self._descriptor)
        self._use(descriptor)

    def add(self, line: str) -> None:
        """Take one line, without its end; it is written by the next `flush`."""
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        if self._waiting + len(data) > MOST:
            self.dropped += 1
            return
        self._lines.append(data)
        self._waiting += len(data)

    def flush(self) -> None:
        """Write what waits, as far as that is possible now."""
        if not self._lines:
            return
        lines, self._lines, self._waiting = self._lines, [], 0
        try:
            if self._poll is None:
                files.write_all(self._descriptor, b"".join(lines))
            else:
                self._write_pieces(_pieces(lines))
        except OSError as fault:
            self.dropped += sum(line.count(b"\n") for line in lines)
            if not self._broken:
                self._log.warning(f"access log: cannot write, lines are lost: {fault.strerror}")
            self._broken = True
            return
        if self.dropped and not self._lines:
            why = "it could not be written" if self._broken else "its reader was too slow"
            self._log.warning(f"access log: {self.dropped} lines were lost: {why}")
            self._broken, self.dropped = False, 0

    def close(self) -> None:
        self.flush()
        system.close(self._descriptor)

    def forsake(self) -> None:
        """In a forked child: what waits here is written by its parent."""
        self._lines, self._waiting = [], 0
        system.close(self._descriptor)

    def _use(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._poll: Optional[select.poll] = None
        if not stat.S_ISREG(system.fstat(descriptor).st_mode):
            self._poll = system.poll()
            self._poll.register(descriptor, select.POLLOUT)

    def _write_pieces(self, pieces: list[bytes]) -> None:
        assert self._poll is not None
        for position, piece in enumerate(pieces):
            if not self._poll.poll(0):
                self._lines = pieces[position:]
                self._waiting = sum(map(len, self._lines))
                return
            system.write(self._descriptor, piece)


def _pieces(lines: list[bytes]) -> list[bytes]:
    """Whole lines joined as long as they fit into a piece; a line that is longer than one is cut."""
    pieces = [b""]
    for line in lines:
        if len(pieces[-1]) + len(line) <= _PIECE:
            pieces[-1] += line
        else:
            pieces += [line[start : start + _PIECE] for start in range(0, len(line), _PIECE)]
    return [piece for piece in pieces if piece]
