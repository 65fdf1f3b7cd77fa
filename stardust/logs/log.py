"""The server's own log: one object, passed to all code that has something to say.

Not the standard library's `logging`: applications configure that as they like, and many silence every
logger that they do not know. Under systemd a message is one record of the journal (`journal.py`), with its
level and what it is about as fields. Elsewhere, and where the journal takes no records, it is text on
standard error: all lines in one write(2), so that processes do not interleave. Writing never raises: a
server whose log is full goes on serving.

Runs in the application's interpreter too.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, Optional

from stardust.base import system
from stardust.base.pristine import os, time
from stardust.logs import journal
from stardust.logs.events import Event

# Heavier ones have lower numbers: those of syslog(3), which the journal calls PRIORITY.
LEVELS = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}

Fields = Mapping[str, object]
"""Fields of a record, beside those that every record has: what it is about. Text does not show them."""

NO_FIELDS: Fields = MappingProxyType({})

_SECOND = 1.0


class Sink(NamedTuple):
    """Where messages go. `journal`: the path of its native socket, "" for text; `stamped`: text has times."""

    journal: str = ""
    stamped: bool = True


TEXT = Sink()


class Log:
    """`who` names the process in each message: "supervisor", "worker 3". `threshold` is a name of LEVELS;
    `fields` are those of every record; `descriptor` is where text goes.

    Each level is a method: the text, of as many lines as it likes; the event that it tells of, if it is one;
    fields of this record, which win. CODE_FILE and its like are the caller's, unless they are among them.
    """

    __slots__ = ("_descriptor", "_fields", "_threshold", "sink", "who")

    def __init__(
        self,
        who: str,
        threshold: str = "info",
        *,
        sink: Sink = TEXT,
        fields: Fields = NO_FIELDS,
        descriptor: int = 2,
    ) -> None:
        self.who = who
        self.sink = sink
        self._threshold = threshold
        self._fields = fields
        self._descriptor = descriptor

    def named(self, who: str, fields: Fields) -> Log:
        """The same log under another name, for another process; its records have `fields` as well."""
        return Log(
            who,
            self._threshold,
            sink=self.sink,
            fields={**self._fields, **fields},
            descriptor=self._descriptor,
        )

    def debug(self, text: str, event: Optional[Event] = None, fields: Fields = NO_FIELDS) -> None:
        self._write("debug", text, event, fields)

    def info(self, text: str, event: Optional[Event] = None, fields: Fields = NO_FIELDS) -> None:
        self._write("info", text, event, fields)

    def warning(self, text: str, event: Optional[Event] = None, fields: Fields = NO_FIELDS) -> None:
        self._write("warning", text, event, fields)

    def error(self, text: str, event: Optional[Event] = None, fields: Fields = NO_FIELDS) -> None:
        self._write("error", text, event, fields)

    def critical(self, text: str, event: Optional[Event] = None, fields: Fields = NO_FIELDS) -> None:
        self._write("critical", text, event, fields)

    def _write(self, level: str, text: str, event: Optional[Event], fields: Fields) -> None:
        if LEVELS[level] > LEVELS[self._threshold]:
            return
        text = text.rstrip("\n")
        if self.sink.journal and journal.send(self.sink.journal, self._record(level, text, event, fields)):
            return
        stamp = time.strftime("%Y-%m-%d %H:%M:%S ") if self.sink.stamped else ""
        lines = text.replace("\n", "\n    ")
        data = f"{stamp}stardust[{os.getpid()}] {self.who}: {level}: {lines}\n"
        try:
            system.write(self._descriptor, data.encode("utf-8", "backslashreplace"))
        except OSError:
            pass  # there is no better place to say so

    def _record(self, level: str, text: str, event: Optional[Event], fields: Fields) -> bytes:
        caller = sys._getframe(3)  # beyond this, `_write`, and the level's method
        record = {
            "MESSAGE": f"{self.who}: {text}",
            "PRIORITY": LEVELS[level],
            "SYSLOG_IDENTIFIER": "stardust",
            "CODE_FILE": caller.f_code.co_filename,
            "CODE_LINE": caller.f_lineno,
            "CODE_FUNC": caller.f_code.co_name,
            **self._fields,
            **fields,
        }
        if event is not None:
            record["MESSAGE_ID"] = event.id
        return journal.encode(record)


class Seldom:
    """For what clients can cause as often as they like: of each kind, one message a second.

    What is held back is counted. When the second is over, the last text is logged with the count: the owner
    calls `catch_up` at the moment that `next` says, so nothing is forgotten and nothing polls.
    """

    __slots__ = ("_kinds", "_log")

    def __init__(self, log: Log) -> None:
        self._log = log
        self._kinds: dict[str, Silence] = {}

    def say(self, level: str, kind: str, text: str, now: float) -> None:
        silence = self._kinds.get(kind)
        if silence is not None and now < silence.end:
            self._kinds[kind] = Silence(silence.end, level, text, silence.held + 1)
        else:
            self._kinds[kind] = Silence(now + _SECOND, level, "", 0)
            self._log._write(level, text, None, NO_FIELDS)

    def next(self) -> float:
        """When something held back is due; infinity if there is nothing."""
        return min((silence.end for silence in self._kinds.values() if silence.held), default=math.inf)

    def catch_up(self, now: float) -> None:
        for kind, (end, level, text, held) in [*self._kinds.items()]:
            if held and now >= end:
                self._kinds[kind] = Silence(now + _SECOND, level, "", 0)
                self._log._write(level, f"{text} ({held} like this within a second)", None, NO_FIELDS)


class Silence(NamedTuple):
    """Until when one kind of message is held back, the last of them, and how many there are."""

    end: float
    level: str
    text: str
    held: int


def find_sink(environ: Mapping[str, str], native: str = journal.SOCKET) -> Sink:
    """Where the log goes with this environment; `native` is the place of the journal's socket."""
    if not goes_to_journal(environ):
        return TEXT
    return Sink(native if os.path.exists(native) else "", stamped=False)


def goes_to_journal(environ: Mapping[str, str]) -> bool:
    """Whether standard error is a stream of the journal: $JOURNAL_STREAM names it (systemd.exec(5))."""
    try:
        device, inode = environ["JOURNAL_STREAM"].split(":")
        status = system.fstat(2)
        return (status.st_dev, status.st_ino) == (int(device), int(inode))
    except (KeyError, ValueError, OSError):
        return False


def instance(source: str) -> Fields:
    """The field of a server that was configured by the file `source`, "" for none: "myapp" for
    /etc/stardust/myapp.toml, as in the name of its unit."""
    return {"STARDUST_INSTANCE": os.path.splitext(os.path.basename(source))[0]} if source else NO_FIELDS
