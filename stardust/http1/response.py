"""Status and headers of a response to bytes, and how its body is delimited (RFC 9112 4, 6; RFC 9110 6.4).

How it works:

- `ResponseWriter.opening` makes all bytes before the body in one piece: status line, Date, Server, the fields
  of the application in their order, one framing field, Connection. With them it says what body must follow.
- A field is validated and encoded by `encoded`, alone and completely. Applications repeat themselves, so the
  writer remembers whole (name, value) pairs; one that is in its table is valid. Within a second, which the
  date is the same for, it remembers whole openings: a quarter of the time that making one takes.
- The connection is the server's: fields of the application that speak of it are left out, and its
  Content-Length is moved to where framing stands. So there is never more than one framing (RFC 9112 6.1).
- `informational`, `error`, `chunk` and `date` are what else goes over the wire.

No clock: the date comes from the caller. The module runs in the application's interpreter: Python 3.9.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Optional

from stardust.base.errors import ApplicationError
from stardust.http1 import grammar
from stardust.http1.head import CHUNKED, Head

# `Opening.body` of a body that ends with the connection. In chunks it is CHUNKED, as of a request.
UNTIL_CLOSE = -2

# last-chunk and an empty trailer section (RFC 9112 7.1)
LAST_CHUNK = b"0\r\n\r\n"

SERVER = b"Server: stardust\r\n"

# Longer pairs, or more of them, are not worth remembering. All together they take less than 1 MiB.
KEPT_CHARACTERS = 256
KEPT_PAIRS = 1024
KEPT_STATUSES = 64
KEPT_OPENINGS = 64
KEPT_OPENING_BYTES = 4096

# What a field means to the server: nothing, or that it must not add its own, or how the connection goes on.
_PLAIN, _DATE, _SERVER, _LENGTH, _CLOSE, _LEFT_OUT, _HOP = range(7)

_MEANINGS: Mapping[str, int] = {
    "connection": _LEFT_OUT,
    "content-length": _LENGTH,
    "date": _DATE,
    "keep-alive": _LEFT_OUT,
    "server": _SERVER,
}

# "Applications are forbidden from using HTTP/1.1 "hop-by-hop" features or headers, any equivalent features in
# HTTP/1.0, or any headers that would affect the persistence of the client's connection to the web server"
# PEP 3333, "Other HTTP Features". The list is that of RFC 2616 13.5.1, without Connection and Keep-Alive,
# which are common enough to be left out silently. Applications pass these on from another server's response:
# they are left out too, and a log line says so.
HOP_BY_HOP = frozenset(
    (
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
    )
)

# The status that a field must go with: the challenge of a proxy (RFC 9110 15.5.8), and the protocol that a
# client has to change to (15.5.22).
KEPT_WITH: Mapping[str, int] = {"proxy-authenticate": 407, "upgrade": 426}

# Fields that differ with every response, or that no table may outlive the response with.
UNKEPT = frozenset(("location", "set-cookie"))


class Opening(NamedTuple):
    """The bytes before the body, and what they promise.

    `code`: the status. `body`: exactly so many bytes must follow (none for HEAD, 204, 205 and 304, whatever
    the fields say), or CHUNKED, or UNTIL_CLOSE. `persistent`: another request may follow on this connection.
    """

    head: bytes
    code: int
    body: int
    persistent: bool


class Line(NamedTuple):
    """One field. `encoded` is empty if its place is elsewhere; `number` is the value of a Content-Length, or
    the only status that a hop-by-hop field goes with; `kept`: it is worth remembering."""

    encoded: bytes
    meaning: int
    number: int
    kept: bool


class Second:
    """What holds for one date: the line that says it, and openings by status, length and headers, those of
    connections that persist and of others. All of HTTP/1.1, none of HEAD. Bounded, and gone with its second.
    """

    __slots__ = ("closing", "date", "line", "staying")

    def __init__(self, date: bytes) -> None:
        self.date = date
        self.line = b"Date: %b\r\n" % date
        self.staying: dict[object, Opening] = {}
        self.closing: dict[object, Opening] = {}


class ResponseWriter:
    """Makes openings, those of all connections. Owns the tables of known pairs.

    `tell` gets the name of a hop-by-hop field that was left out, each name once. Threads may share a writer:
    whatever it remembers is put in its place in one step.
    """

    __slots__ = ("_left_out", "_line", "_second", "_status", "_tell")

    def __init__(self, tell: Callable[[str], object] = lambda name: None) -> None:
        self._tell = tell
        self._left_out: set[str] = set()
        self._line = LineTable().__getitem__
        self._status = StatusTable().__getitem__
        self._second = Second(b"")

    def opening(
        self,
        status: str,
        headers: Sequence[tuple[str, str]],
        request: Optional[Head],
        length: Optional[int],
        persistent: bool,
        date: bytes,
    ) -> Opening:
        """The opening of the response to `request`, which is None if its head could not be read.

        `status` and `headers` are what the application gave to start_response (PEP 3333). `length` is the
        size of the whole body in bytes, if it is known by now. `persistent` is whether the server is willing
        to go on with this connection. `date` comes from `date()`, one object for as long as its second lasts.

        Raises ApplicationError, naming the rule, if the status or a header cannot be sent.
        """
        second = self._second
        if date is not second.date:
            second = self._second = Second(date)
        if request is None or request.version != "HTTP/1.1" or request.method == "HEAD":
            return self._made(second, status, headers, request, length, persistent)[0]
        known = second.staying if persistent and request.persistent else second.closing
        try:
            return known[(status, length, *headers)]
        except (KeyError, TypeError):  # TypeError: headers that are none, which `_made` refuses
            pass
        opening, kept = self._made(second, status, headers, request, length, persistent)
        if kept and len(known) < KEPT_OPENINGS and len(opening.head) <= KEPT_OPENING_BYTES:
            known[(status, length, *headers)] = opening
        return opening

    def _made(
        self,
        second: Second,
        status: str,
        headers: Sequence[tuple[str, str]],
        request: Optional[Head],
        length: Optional[int],
        persistent: bool,
    ) -> tuple[Opening, bool]:
        """An opening, and whether the next response may have the same."""
        declared = None
        kept = type(status) is str
        try:
            code, line = self._status(status)
            lines = [line, second.line, SERVER]
            for line, meaning, number, worth in map(self._line, headers):
                lines.append(line)
                kept = kept and worth
                if meaning == _PLAIN:
                    continue
                if meaning == _LENGTH:
                    if declared is not None:
                        raise ApplicationError("Content-Length more than once")
                    declared = number
                elif meaning == _DATE:
                    lines[1] = b""
                elif meaning == _SERVER:
                    lines[2] = b""
                elif meaning == _CLOSE:
                    persistent = False
                elif meaning == _HOP and code != number:
                    lines.pop()
                    self._leave_out(headers)
        except TypeError as error:
            pairs = _tuples(headers)
            if pairs is not None:
                return self._made(second, status, pairs, request, length, persistent)[0], False
            raise ApplicationError(
                f"headers are not a list of (str, str) tuples (PEP 3333): {error}"
            ) from error

        field, body = framing(code, request, declared, length)
        lines.append(field)
        # A body that no framing ends, or that will miss promised bytes, is ended by closing the connection.
        short = length is not None and length < body
        asked = request is not None and request.persistent
        persistent = persistent and asked and not short and body != UNTIL_CLOSE
        lines.append(_connection(request, persistent))
        return Opening(b"".join(lines), code, body, persistent), kept

    def _leave_out(self, headers: Sequence[tuple[str, str]]) -> None:
        """Warn once of those that are left out."""
        for name in sorted({characters(pair[0]).lower() for pair in headers} & HOP_BY_HOP - self._left_out):
            self._left_out.add(name)
            self._tell(name)


def _connection(request: Optional[Head], persistent: bool) -> bytes:
    """The last field, if it is needed, and the end of the head."""
    if not persistent:
        # "A server that does not support persistent connections MUST send the "close" connection option in
        # every response message that does not have a 1xx (Informational) status code"  RFC 9112 9.3
        return b"Connection: close\r\n\r\n"
    if request is not None and request.version == "HTTP/1.0":
        # What an HTTP/1.0 client asked for and waits to read before it sends more.  RFC 9112 C.2.2
        return b"Connection: keep-alive\r\n\r\n"
    return b"\r\n"


def framing(
    code: int, request: Optional[Head], declared: Optional[int], length: Optional[int]
) -> tuple[bytes, int]:
    """The framing field and `Opening.body`, in the order of RFC 9112 6.3.

    `declared`: the Content-Length of the application; `length`: the size of the whole body; None if unknown.
    """
    # "A server MUST NOT send a Content-Length header field in any response with a status code of 1xx
    # (Informational) or 204 (No Content)"  RFC 9110 8.6; nor a Transfer-Encoding  RFC 9112 6.1
    # "a server MUST NOT generate content in a 205 response"  RFC 9110 15.3.6
    if code in (204, 205):
        return b"" if code == 204 else b"Content-Length: 0\r\n", 0
    # "A server MUST NOT send Content-Length in such a response [to HEAD] unless its field value equals the
    # decimal number of octets that would have been sent in the content of a response if the same request had
    # used the GET method"  RFC 9110 8.6; 304 likewise. An application that answers HEAD with an empty body
    # has not said that GET would have one.
    if code == 304 or (request is not None and request.method == "HEAD"):
        if declared is None and length and code != 304:
            declared = length
        return b"" if declared is None else b"Content-Length: %d\r\n" % declared, 0
    if declared is not None:
        return b"Content-Length: %d\r\n" % declared, declared
    if length is not None:
        return b"Content-Length: %d\r\n" % length, length
    # "A server MUST NOT send a response containing Transfer-Encoding unless the corresponding request
    # indicates HTTP/1.1 (or later minor revisions)"  RFC 9112 6.1
    if request is not None and request.version == "HTTP/1.1":
        return b"Transfer-Encoding: chunked\r\n", CHUNKED
    return b"", UNTIL_CLOSE


class StatusTable(dict[str, tuple[int, bytes]]):
    """From the status of an application to (code, status line). Bounded, and emptied when full."""

    __slots__ = ()

    def __missing__(self, status: str) -> tuple[int, bytes]:
        known = status_line(status)
        if known[0] < 200:
            raise ApplicationError(
                f"status {status[:64]!a}: an informational status cannot be that of the final response"
            )
        if type(status) is str and len(status) <= KEPT_CHARACTERS:
            if len(self) >= KEPT_STATUSES:
                self.clear()
            self[status] = known
        return known


class LineTable(dict[tuple[str, str], Line]):
    """From (name, value) to the encoded field. Bounded, and emptied when full."""

    __slots__ = ()

    def __missing__(self, pair: tuple[str, str]) -> Line:
        line = encoded(pair)
        if line.kept:
            if len(self) >= KEPT_PAIRS:
                self.clear()
            self[pair] = line
        return line


def _tuples(headers: Iterable[Any]) -> Optional[list[Any]]:
    """Headers with tuples in the place of pairs that are lists; None if no pair is. A list cannot be looked
    up in a table. Other servers take it, and so applications give it."""
    try:
        pairs = [*headers]
    except TypeError:
        return None
    if not any(isinstance(pair, list) for pair in pairs):
        return None
    return [tuple(pair) if isinstance(pair, list) else pair for pair in pairs]


def characters(text: str) -> str:
    """What `text` consists of. The methods of a subclass are the application's: what they say when a text is
    checked need not be what they say when it is sent."""
    return text if type(text) is str else str.__str__(text)


def status_line(status: str) -> tuple[int, bytes]:
    """(code, status line) of a status such as "200 OK", or "200". Raises ApplicationError for other forms."""
    # "a status string of the form "999 Message here" […] and must not contain control characters"  PEP 3333
    if not isinstance(status, str) or not grammar.STATUS.fullmatch(status):
        raise ApplicationError(f'status {status!a:.64}: not of the form "200 OK" (PEP 3333)')
    status = characters(status)
    # "A server MUST send the space that separates the status-code from the reason-phrase even when the
    # reason-phrase is absent"  RFC 9112 4
    return int(status[:3]), b"HTTP/1.1 %b %b\r\n" % (status[:3].encode(), status[4:].encode("latin-1"))


def encoded(pair: tuple[str, str]) -> Line:
    """One header of an application. Raises ApplicationError if HTTP or PEP 3333 does not allow it."""
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise ApplicationError(f"header is a {type(pair).__name__}, not a (name, value) tuple (PEP 3333)")
    name, value = pair
    if not isinstance(name, str) or not isinstance(value, str):
        raise ApplicationError(f"header {name!a:.64}: name and value must be str (PEP 3333)")
    name, value = characters(name), characters(value)
    if not grammar.TOKEN.fullmatch(name):
        raise ApplicationError(f"header {name[:64]!a}: the name is not a token (RFC 9110 5.1)")
    # "must not include any control characters, including carriage returns or linefeeds"  PEP 3333
    if not grammar.FIELD_VALUE.fullmatch(value):
        raise ApplicationError(
            f"header {name[:64]}: its value has a control character, or one outside latin-1"
        )
    lower = name.lower()
    # A subclass could be equal to anything.
    plain = type(pair) is tuple and type(pair[0]) is type(pair[1]) is str
    kept = plain and len(name) + len(value) <= KEPT_CHARACTERS and lower not in UNKEPT
    line = b"%b: %b\r\n" % (name.encode("latin-1"), value.encode("latin-1"))
    if lower in HOP_BY_HOP:
        # "A sender of Upgrade MUST also send an "Upgrade" connection option"  RFC 9110 7.8
        option = b"Connection: upgrade\r\n" if lower == "upgrade" else b""
        return Line(line + option, _HOP, KEPT_WITH.get(lower, 0), kept)
    meaning = _MEANINGS.get(lower, _PLAIN)
    if meaning == _PLAIN or meaning in (_DATE, _SERVER):
        return Line(line, meaning, 0, kept)
    if meaning == _LENGTH:
        if not grammar.CONTENT_LENGTH.fullmatch(value):
            raise ApplicationError(
                f"header Content-Length: {value[:64]!a} is not a number of at most 18 digits"
            )
        return Line(b"", _LENGTH, int(value), kept)
    options = [option.strip(grammar.BLANKS) for option in value.lower().split(",")]
    return Line(b"", _CLOSE if lower == "connection" and "close" in options else _LEFT_OUT, 0, kept)


def informational(status: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """An interim response, complete: "100 Continue", "103 Early Hints" (RFC 9110 15.2).

    Raises ApplicationError for other statuses, for 101, and for headers that belong to a final response.
    """
    code, line = status_line(status)
    # 101 would hand the connection to another protocol (RFC 9110 7.8).
    if not 100 <= code < 200 or code == 101:
        raise ApplicationError(f"status {status[:64]!a}: not informational (100, 102 to 199)")
    lines = [line]
    for pair in headers:
        field, meaning, _, _ = encoded(pair)
        if meaning not in (_PLAIN, _DATE, _SERVER):
            raise ApplicationError(
                f"header {pair[0]}: not allowed in an informational response (RFC 9110 8.6)"
            )
        lines.append(field)
    lines.append(b"\r\n")
    return b"".join(lines)


def chunk(data: bytes) -> bytes:
    """`data` as one chunk; nothing for no data, because an empty chunk ends the body (RFC 9112 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


# Texts for those who see them in a browser. Nothing of the request is in them (CVE-2022-39348).
ERRORS: Mapping[int, tuple[str, str]] = {
    400: ("Bad Request", "The request is not valid HTTP."),
    408: ("Request Timeout", "The request did not arrive in time."),
    411: ("Length Required", "The request must say how long its body is."),
    413: ("Content Too Large", "The body of the request is larger than this server accepts."),
    414: ("URI Too Long", "The address is longer than this server accepts."),
    417: ("Expectation Failed", "This server does not support what the request expects."),
    431: (
        "Request Header Fields Too Large",
        "The headers of the request are larger than this server accepts.",
    ),
    500: ("Internal Server Error", "The application failed. The failure was logged."),
    501: ("Not Implemented", "The request asks for something that this server does not support."),
    503: ("Service Unavailable", "The service cannot answer now. Try again later."),
    504: ("Gateway Timeout", "The application did not answer in time."),
    505: ("HTTP Version Not Supported", "This server speaks HTTP/1.1 and HTTP/1.0."),
    507: ("Insufficient Storage", "There is no room to receive the request."),
}


def error(status: int) -> tuple[str, list[tuple[str, str]], bytes]:
    """Status, headers and body of an answer of the server's own. `status` is one of ERRORS."""
    phrase, text = ERRORS[status]
    headers = [("Content-Type", "text/plain; charset=utf-8")]
    return f"{status} {phrase}", headers, f"{status} {phrase}\n\n{text}\n".encode()


_EPOCH = datetime(1970, 1, 1)
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def date(seconds: float) -> bytes:
    """IMF-fixdate, "Sun, 06 Nov 1994 08:49:37 GMT", of seconds since 1970-01-01 UTC (RFC 9110 5.6.7).

    In English, whatever the locale is; `%a` and `%b` of `strftime` follow it, and `time.strftime` may be the
    application's.
    """
    when = _EPOCH + timedelta(seconds=int(seconds))
    day, month = _DAYS[when.weekday()], _MONTHS[when.month - 1]
    clock = f"{when.hour:02}:{when.minute:02}:{when.second:02}"
    return f"{day}, {when.day:02} {month} {when.year:04} {clock} GMT".encode()
