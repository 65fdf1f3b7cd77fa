"""One finished exchange to one line of the access log: common, combined, or JSON.

Rules:
- A record is one line, whatever a client sent: what could end a line, steer a terminal or leave a quoted
  field is escaped, as Apache does it in the text formats and as JSON does it there.
- Every request has a record: refused ones (method, target and version may be "" then), those that nothing
  was sent to (status 0), those whose client left. JSON says more about them in `note`.
- The text formats show the time in the zone of the machine, as every log reader expects; JSON shows it in
  UTC.

Adding a field means: `Record`, and `_json`. The text formats are not ours to change.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import NamedTuple

from stardust.base.pristine import time

FORMATS = ("common", "combined", "json")

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

# Apache's T_ESCAPE_LOGITEM (server/gen_test_char.c): all but printable ASCII, and the two characters that
# would end or continue a quoted field.
_UNSAFE = re.compile(r"[^ !#-\[\]-~]")
_SHORT = {"\b": r"\b", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v", "\\": r"\\", '"': r"\""}


class Record(NamedTuple):
    """What is worth a line about one exchange. Text is latin-1, as it came; "" is what is not known.

    `when`: seconds since the epoch at the request's first byte. `duration`: seconds from there to the
    response's end. `peer`: the client's address, "" on a UNIX socket. `status`: 0 if no response was sent.
    `sent`: bytes of its body.
    """

    when: float
    duration: float
    peer: str
    user: str
    method: str
    target: str
    version: str
    status: int
    sent: int
    referer: str
    agent: str
    host: str
    note: str
    pid: int


def formatter(name: str) -> Callable[[Record], str]:
    """What makes lines of the format `name`, one of FORMATS, without "\\n". Keep it: it has a cache."""
    apache, utc = _Clock(_apache), _Clock(_rfc3339)
    makers: dict[str, Callable[[Record], str]] = {
        "common": lambda record: _common(record, apache),
        "combined": lambda record: _combined(record, apache),
        "json": lambda record: _json(record, utc),
    }
    return makers[name]


class _Clock:
    """Seconds since the epoch as text. Keeps the last answer: a busy second is formatted once."""

    __slots__ = ("_format", "_kept")

    def __init__(self, form: Callable[[int], str]) -> None:
        self._format = form
        self._kept = (-1, "")

    def text(self, second: int) -> str:
        kept, text = self._kept
        if kept != second:
            text = self._format(second)
            self._kept = (second, text)  # one assignment: threads may share a clock
        return text


def _apache(second: int) -> str:
    """ "[22/Nov/2026:16:50:00 +0000]", in the zone of the machine and in English whatever the locale."""
    now = time.localtime(second)
    sign = "-" if now.tm_gmtoff < 0 else "+"
    hours, minutes = divmod(abs(now.tm_gmtoff) // 60, 60)
    return (
        f"[{now.tm_mday:02}/{_MONTHS[now.tm_mon - 1]}/{now.tm_year}:"
        f"{now.tm_hour:02}:{now.tm_min:02}:{now.tm_sec:02} {sign}{hours:02}{minutes:02}]"
    )


def _rfc3339(second: int) -> str:
    """ "2026-11-22T16:50:00", UTC (RFC 3339 5.6, the part before the fraction)."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def _common(record: Record, clock: _Clock) -> str:
    # Apache: LogFormat "%h %l %u %t \"%r\" %>s %b" common
    request = "-"
    if record.method:
        request = escaped(f"{record.method} {record.target} {record.version}")
    # %h and %u stand between blanks, so a blank in them would shift all fields behind.
    user = escaped(record.user).replace(" ", r"\x20") or "-"
    return (
        f"{record.peer or '-'} - {user} {clock.text(int(record.when))}"
        f' "{request}" {record.status or "-"} {record.sent or "-"}'
    )


def _combined(record: Record, clock: _Clock) -> str:
    # Apache: LogFormat "%h %l %u %t \"%r\" %>s %b \"%{Referer}i\" \"%{User-agent}i\"" combined
    referer, agent = escaped(record.referer) or "-", escaped(record.agent) or "-"
    return f'{_common(record, clock)} "{referer}" "{agent}"'


# Made once: json.dumps() would make one for each line.
_encode = json.JSONEncoder(check_circular=False, separators=(",", ":")).encode


def _json(record: Record, clock: _Clock) -> str:
    second, micros = divmod(round(record.when * 1e6), 1_000_000)
    return _encode(
        {
            "time": f"{clock.text(second)}.{micros:06}Z",
            "remote_addr": record.peer,
            "remote_user": record.user,
            "method": record.method,
            "target": record.target,
            "protocol": record.version,
            "status": record.status or None,
            "bytes": record.sent,
            "duration_us": round(record.duration * 1e6),
            "referer": record.referer,
            "user_agent": record.agent,
            "host": record.host,
            "pid": record.pid,
            "note": record.note,
        }
    )


def escaped(text: str) -> str:
    r"""`text` for a log line, as Apache's ap_escape_logitem() has it: \" \\ \n …, \xhh for other bytes."""
    if text.isprintable() and text.isascii() and '"' not in text and "\\" not in text:
        return text  # half of the time that a search takes
    return _UNSAFE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    if character in _SHORT:
        return _SHORT[character]
    # A client's text is latin-1. Anything else can only be ours, and is shown as the bytes of its UTF-8.
    codec = "latin-1" if character <= "\xff" else "utf-8"
    return "".join(f"\\x{byte:02x}" for byte in character.encode(codec, "surrogatepass"))
