"""Bytes of a connection to the head of one request: request line, fields, and what they say about the body.

How it works:

- `HeadReader.read` looks for the empty line that ends a head, decodes what is before it as latin-1, splits it
  into lines, and looks every field line up in a table: from a whole line, "Accept: */*", to what becomes of
  it, ("HTTP_ACCEPT", "*/*"). Browsers repeat their lines, so the loop over the fields runs inside `dict` and
  `map`. A line that is not in the table is validated by `field`, alone and completely; one that is, is valid.
- What concerns several lines at once (a name repeated, Host missing, Content-Length beside Transfer-Encoding)
  is looked at afterwards, in `combined` and `framing`.
- Any cut of the same bytes gives the same answer, the status of a refusal included. Hence two kinds of
  refusal. *Early* ones belong to a position in the bytes, and the first position wins, however much arrived
  at once (`early_refusal`). All others wait for the complete head and follow the order of its lines.
- Work is linear in the bytes: every search resumes where the last one stopped.

`CHECKS`, `SECRETS` and `SINGLETONS` have the names that `field` makes, those of RFC 3875.
The module runs in the application's interpreter: Python 3.9.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Optional, Union

from stardust.base.errors import ProtocolError
from stardust.base.records import dataclass
from stardust.http1 import grammar

# `Head.length` of a body that says itself where it ends (RFC 9112 7.1).
CHUNKED = -1

# "A server that is expecting to receive and parse a request-line SHOULD ignore at least one empty line (CRLF)
# received prior to the request-line"  RFC 9112 2.2. Two are ignored.
LEADING_BYTES = 4

# Longer lines, or more of them, are not worth remembering. All together they take less than 1 MiB.
KEPT_LINE_BYTES = 256
KEPT_LINES = 1024

_NOTHING: Mapping[str, Any] = {}

_SPACE = 0x20


@dataclass(frozen=True)
class Limits:
    """How large a head may be.

    `line`: bytes of the request line without its CRLF. `count`: field lines. `size`: bytes of the whole head,
    from the method to the empty line, CRLFs included.
    """

    line: int
    count: int
    size: int


class Head:
    """One request without its body.

    `target`            what the client sent
    `path`, `query`     its parts before and after "?", percent-encoded as they came; `path` is "" for "*" and
                        never includes the authority of an absolute-form
    `version`           "HTTP/1.0" or "HTTP/1.1"
    `fields`            from RFC 3875 meta-variables ("HTTP_HOST", "CONTENT_TYPE") to values, latin-1 text,
                        beside what the caller of `HeadReader.read` wants to be there
    `length`            size of the body in bytes, or CHUNKED
    `expects_continue`  the client holds its body back until it reads "100 Continue"
    `persistent`        the client allows another request after this one
    """

    __slots__ = (
        "expects_continue",
        "fields",
        "length",
        "method",
        "path",
        "persistent",
        "query",
        "target",
        "version",
    )

    def __init__(
        self,
        method: str,
        target: str,
        path: str,
        query: str,
        version: str,
        fields: dict[str, Any],
        length: int,
        expects_continue: bool,
        persistent: bool,
    ) -> None:
        self.method = method
        self.target = target
        self.path = path
        self.query = query
        self.version = version
        self.fields = fields
        self.length = length
        self.expects_continue = expects_continue
        self.persistent = persistent

    def __repr__(self) -> str:
        return f"<Head {self.method} {self.target} {self.version} length={self.length} {self.fields}>"


class RequestLine(NamedTuple):
    """The parts of a request line; `authority` is that of an absolute-form, else ""."""

    method: str
    target: str
    path: str
    query: str
    version: str
    authority: str


_new: Callable[[type[Head]], Head] = Head.__new__


def _nothing(key: str) -> bool:
    return False


class HeadReader:
    """Reads heads, those of all connections. Owns the table of known field lines; one for each thread.

    `unheard(key)` says which fields are dropped besides those that no client may send (see `field`); it is
    asked only about lines that the table does not have.
    """

    __slots__ = ("_field", "_limits")

    def __init__(
        self,
        limits: Limits,
        unheard: Callable[[str], bool] = _nothing,
        *,
        refuse_underscores: bool = False,
    ) -> None:
        """`refuse_underscores`: a name with one is a 400, where it else is dropped."""
        self._limits = limits
        self._field = (StrictFieldTable if refuse_underscores else FieldTable)(unheard).__getitem__

    def read(
        self,
        buffer: Union[bytes, bytearray],
        searched: int = 0,
        base: Mapping[str, Any] = _NOTHING,
    ) -> Optional[tuple[Head, int]]:
        """The head that `buffer` begins with, and the bytes it takes up; None if it has not ended yet.

        After None, call again with the same bytes and more behind them, and with `searched` the number that
        was there before. What follows the head is not looked at. The `fields` of the head begin as a copy of
        `base`, which has none that a client can send.

        Raises ProtocolError (400, 414, 417, 431, 501, 505) for a head that is not valid, and for the
        beginning of one that `early_refusal` has an answer to.
        """
        if not searched and buffer.endswith(b"\r\n\r\n"):
            # Nearly always one head and nothing else. If there is an empty line before, it is no field line,
            # nothing behind it is looked at, and the search below finds it.
            try:
                return self._head(buffer[:-4].decode("latin-1"), base), len(buffer)
            except ProtocolError:
                pass
        start = leading_empty_lines(buffer) if buffer.startswith(b"\r") else 0
        end = buffer.find(b"\r\n\r\n", searched - 3 if searched > 7 else start)
        if end < 0:
            refusal = early_refusal(buffer, start, searched, self._limits)
            if refusal:
                raise refusal
            return None
        try:
            return self._head(buffer[start:end].decode("latin-1"), base), end + 4
        except ProtocolError:
            refusal = early_refusal(buffer[: end + 4], start, 0, self._limits)
            if refusal:
                raise refusal from None
            raise

    def _head(self, text: str, base: Mapping[str, Any]) -> Head:
        """The head whose lines are `text`. Hot, and therefore written flat (docs/performance.md)."""
        limits = self._limits
        lines = text.split("\r\n")
        line = lines.pop(0)
        if len(text) + 4 > limits.size or len(lines) > limits.count or len(line) > limits.line:
            raise ProtocolError(431, "over a limit")  # `early_refusal` knows which, and says so instead

        match = grammar.ORIGIN_LINE.fullmatch(line)
        if match:
            method, target, path, query, minor = match.groups("")
            recent = minor == "1"
            version = "HTTP/1.1" if recent else "HTTP/1.0"
            authority = ""
        else:
            method, target, path, query, version, authority = rare_request_line(line)
            recent = version == "HTTP/1.1"

        fields = dict(base)
        fields.update(map(self._field, lines))
        if len(fields) != len(base) + len(lines):
            fields = {**base, **combined(map(self._field, lines))}
        if "" in fields:
            del fields[""]  # what `field` says to drop

        # "A server MUST respond with a 400 (Bad Request) status code to any HTTP/1.1 request message that
        # lacks a Host header field"  RFC 9112 3.2
        if recent and "HTTP_HOST" not in fields:
            raise ProtocolError(400, "HTTP/1.1 without Host")
        # "When an origin server receives a request with an absolute-form of request-target, the origin server
        # MUST ignore the received Host header field (if any) and instead use the host information of the
        # request-target"  RFC 9112 3.2.2
        if authority:
            fields["HTTP_HOST"] = authority
        length = 0
        if "CONTENT_LENGTH" in fields or "HTTP_TRANSFER_ENCODING" in fields:
            length = framing(fields, recent)
        connection = fields.get("HTTP_CONNECTION")

        # Without __init__, which would cost as much again as the assignments (until CPython 3.13).
        head = _new(Head)
        head.method = method
        head.target = target
        head.path = path
        head.query = query
        head.version = version
        head.fields = fields
        head.length = length
        # "A server that receives a 100-continue expectation in an HTTP/1.0 request MUST ignore that
        # expectation"  RFC 9110 10.1.1. Without a body there is nothing to continue with.
        head.expects_continue = length != 0 and recent and "HTTP_EXPECT" in fields
        # These two alone are what nearly all clients say.
        if connection == "keep-alive":
            head.persistent = True
        elif connection == "close":
            head.persistent = False
        else:
            head.persistent = persists(connection, recent) if connection else recent
        return head


class FieldTable(dict[str, tuple[str, str]]):
    """From field lines to (meta-variable, value). What is missing is validated and, if worth it, remembered.

    Bounded, and emptied when full: a client that sends ever new lines costs others a few misses, no more.

    Some lines are new with every request (Cookie, Referer), but their names are not. A known name before a
    value of printable ASCII leaves no rule to break, unless the name has a check of its own: a third of the
    time that `field` takes.
    """

    __slots__ = ("_names", "_unheard")

    def __init__(self, unheard: Callable[[str], bool] = _nothing) -> None:
        super().__init__()
        self._names: dict[str, str] = {}
        self._unheard = unheard

    def __missing__(self, line: str) -> tuple[str, str]:
        name, _, value = line.partition(": ")
        key = self._names.get(name)
        if key and value.isprintable() and value.isascii() and value[:1] > " " and value[-1] != " ":
            if key in UNKEPT:
                return key, value
            pair = key, value
        else:
            pair = field(line)
            if self._unheard(pair[0]):
                pair = "", ""
            key = pair[0]
            # A colon in `name` means that the line's first one had no blank behind it.
            if key and key not in CHECKS and len(name) < KEPT_LINE_BYTES and ":" not in name:
                if len(self._names) >= KEPT_LINES:
                    self._names.clear()
                self._names[name] = key
        if len(line) <= KEPT_LINE_BYTES and key not in UNKEPT:
            if len(self) >= KEPT_LINES:
                self.clear()
            self[line] = pair
        return pair


class StrictFieldTable(FieldTable):
    """Refuses what `field` drops because of a "_" in its name."""

    __slots__ = ()

    def __missing__(self, line: str) -> tuple[str, str]:
        pair = super().__missing__(line)
        name = "" if pair[0] else line.partition(":")[0]
        if "_" in name:
            self.pop(line, None)  # it was remembered as one to drop
            raise ProtocolError(400, f"underscore in a field name: {name[:64]!a}")
        return pair


def field(line: str) -> tuple[str, str]:
    """One field line as (meta-variable, value); ("", "") for a name that must not reach an environ.

    Raises ProtocolError if the line is not valid, or its value not valid under its name.
    """
    match = grammar.FIELD_LINE.fullmatch(line)
    if match is None:
        raise ProtocolError(400, field_fault(line))
    name, value = match.groups()
    # In an environ A_B could not be told from A-B, which a proxy in front may vouch for (CVE-2024-45614); and
    # many libraries take HTTP_PROXY for configuration (httpoxy, CVE-2016-1000110).
    key = name.upper().replace("-", "_")
    if key == "PROXY" or "_" in name:
        return "", ""
    # RFC 3875 4.1.2, 4.1.3, 4.1.18
    if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        key = "HTTP_" + key
    value = value.strip(grammar.BLANKS)
    if key in CHECKS:
        CHECKS[key](value)
    return key, value


def field_fault(line: str) -> str:
    """The rule of RFC 9112 5 that a line breaks which is no field line. Quotes no value: it may be secret."""
    name, colon, _ = line.partition(":")
    # "A server that receives an obs-fold in a request message […] MUST either reject the message by sending a
    # 400 (Bad Request) […] or replace"  RFC 9112 5.2
    if line.startswith((" ", "\t")):
        return "field line begins with a blank (obsolete line folding)"
    if not colon:
        return "field line without a colon"
    if grammar.TOKEN.fullmatch(name):
        return f"control character in the value of {name[:64]}"
    # "A server MUST reject, with a response status code of 400 (Bad Request), any received request message
    # that contains whitespace between a header field name and colon"  RFC 9112 5.1
    return f"field name is not a token: {name[:64]!a}"


def combined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The fields of a head that repeats names: all values of a name in one, in their order.

    Raises ProtocolError if the values of a repeated name make no list.
    """
    values: dict[str, list[str]] = {}
    for key, value in pairs:
        values.setdefault(key, []).append(value)
    for key, several in values.items():
        if len(several) > 1 and key in SINGLETONS:
            raise ProtocolError(400, f"{key} more than once")
    # "A recipient MAY combine multiple field lines within a field section that have the same field name into
    # one field line […] separated by a comma"  RFC 9110 5.3. Cookies go by semicolons  RFC 9113 8.2.3
    return {key: ("; " if key == "HTTP_COOKIE" else ", ").join(several) for key, several in values.items()}


def framing(fields: Mapping[str, str], recent: bool) -> int:
    """The size of the body in bytes, or CHUNKED (RFC 9112 6.3). `recent`: the request speaks HTTP/1.1.

    At least one of the two fields is there, and each was checked; here they meet.
    """
    if "HTTP_TRANSFER_ENCODING" not in fields:
        return int(fields["CONTENT_LENGTH"])
    # "A server MAY reject a request that contains both Content-Length and Transfer-Encoding"  RFC 9112 6.1.
    # No client means it; only an attacker who smuggles requests does.
    if "CONTENT_LENGTH" in fields:
        raise ProtocolError(400, "Content-Length beside Transfer-Encoding")
    # "A server or client that receives an HTTP/1.0 message containing a Transfer-Encoding header field MUST
    # treat the message as if the framing is faulty"  RFC 9112 6.1
    if not recent:
        raise ProtocolError(400, "Transfer-Encoding in HTTP/1.0")
    return CHUNKED


def persists(connection: str, recent: bool) -> bool:
    """Whether the client allows another request: RFC 9112 9.3, in its order. `recent`: it speaks HTTP/1.1."""
    options = [option.strip(grammar.BLANKS) for option in connection.lower().split(",")]
    if "close" in options:
        return False
    return recent or "keep-alive" in options


def rare_request_line(line: str) -> RequestLine:
    """The request lines that browsers do not send: absolute-form, asterisk-form, and all that is refused."""
    words = line.split(" ")
    if len(words) != 3:
        raise ProtocolError(400, "request line is not method, target and version with one space between each")
    method, target, version = words
    if not grammar.METHOD.fullmatch(method):
        raise ProtocolError(400, "method is not a token of at most 32 characters")
    if not grammar.VERSION.fullmatch(version):
        raise ProtocolError(400, "no HTTP version at the end of the request line")
    # Also the preface of HTTP/2, "PRI * HTTP/2.0" (RFC 9113 3.4), which was made to end here.
    if version not in ("HTTP/1.0", "HTTP/1.1"):
        raise ProtocolError(505, f"{version}: only HTTP/1.0 and HTTP/1.1 are supported")
    if method == "CONNECT":
        raise ProtocolError(501, "CONNECT: this is not a proxy")
    # asterisk-form = "*" ; "only used for a server-wide OPTIONS request"  RFC 9112 3.2.4
    if target == "*" and method == "OPTIONS":
        return RequestLine(method, target, "", "", version, "")
    match = grammar.ABSOLUTE_TARGET.fullmatch(target)
    if match is None:
        raise ProtocolError(400, "target is neither /path nor http://host/path")
    authority, path, query = match.groups("")
    check_host(authority)
    return RequestLine(method, target, path or "/", query, version, authority)


def check_host(value: str) -> None:
    """Refuses what is not `uri-host [ ":" port ]` (RFC 9110 7.2); userinfo, lists and paths are not."""
    match = grammar.HOST.fullmatch(value)
    if match is None or int(match[2] or "0") > 65535:
        raise ProtocolError(400, f"host is not name, name:port, [address] or [address]:port: {value[:64]!a}")


def check_content_length(value: str) -> None:
    """Refuses all but digits; lists of equal numbers too, a choice that RFC 9112 6.3 leaves."""
    if not grammar.CONTENT_LENGTH.fullmatch(value):
        raise ProtocolError(400, f"Content-Length is not a number of at most 18 digits: {value[:64]!a}")


def check_transfer_encoding(value: str) -> None:
    """Refuses all but "chunked", once: WSGI has no way to tell an application of another coding."""
    if value.lower() == "chunked":
        return
    # "A server that receives a request message with a transfer coding it does not understand SHOULD respond
    # with 501 (Not Implemented)"  RFC 9112 6.1
    if grammar.CODINGS_THEN_CHUNKED.fullmatch(value):
        raise ProtocolError(501, f"Transfer-Encoding has a coding other than chunked: {value[:64]!a}")
    # "If a Transfer-Encoding header field is present in a request and the chunked transfer coding is not the
    # final encoding, the message body length cannot be determined reliably; the server MUST respond with the
    # 400 (Bad Request) status code and then close the connection"  RFC 9112 6.3
    raise ProtocolError(400, f"Transfer-Encoding is not chunked: {value[:64]!a}")


def check_connection(value: str) -> None:
    """Refuses what is not a list of tokens (RFC 9110 7.6.1); empty elements may be in it (5.6.1.2)."""
    for option in value.split(","):
        option = option.strip(grammar.BLANKS)
        if option and not grammar.TOKEN.fullmatch(option):
            raise ProtocolError(400, f"Connection is not a list of tokens: {value[:64]!a}")


def check_expect(value: str) -> None:
    """Refuses every expectation but the one that is defined (RFC 9110 10.1.1)."""
    if value.lower() != "100-continue":
        raise ProtocolError(417, f"Expect is not 100-continue: {value[:64]!a}")


# The fields whose value decides about framing or routing, checked where their line is.
CHECKS: Mapping[str, Callable[[str], None]] = {
    "CONTENT_LENGTH": check_content_length,
    "HTTP_CONNECTION": check_connection,
    "HTTP_EXPECT": check_expect,
    "HTTP_HOST": check_host,
    "HTTP_TRANSFER_ENCODING": check_transfer_encoding,
}

# Lines that no table may outlive the request with.
SECRETS = frozenset(("HTTP_AUTHORIZATION", "HTTP_COOKIE", "HTTP_PROXY_AUTHORIZATION"))

# Those, and lines that will hardly come again: they would only push others out of the table.
UNKEPT = SECRETS | {
    "HTTP_IF_MODIFIED_SINCE",
    "HTTP_IF_NONE_MATCH",
    "HTTP_REFERER",
    "HTTP_TRACEPARENT",
    "HTTP_X_REQUEST_ID",
}

# Fields that are no lists (RFC 9110 5.3): of two, one server believes the first and another the last.
SINGLETONS = frozenset(
    (
        "CONTENT_LENGTH",
        "CONTENT_TYPE",
        "HTTP_AUTHORIZATION",
        "HTTP_CONTENT_RANGE",
        "HTTP_DATE",
        "HTTP_EXPECT",
        "HTTP_FROM",
        "HTTP_HOST",
        "HTTP_IF_MODIFIED_SINCE",
        "HTTP_IF_RANGE",
        "HTTP_IF_UNMODIFIED_SINCE",
        "HTTP_MAX_FORWARDS",
        "HTTP_ORIGIN",
        "HTTP_PROXY_AUTHORIZATION",
        "HTTP_RANGE",
        "HTTP_REFERER",
        "HTTP_TRANSFER_ENCODING",
        "HTTP_USER_AGENT",
    )
)


def leading_empty_lines(buffer: Union[bytes, bytearray]) -> int:
    """The bytes of the empty lines before a request line, at most LEADING_BYTES (RFC 9112 2.2)."""
    start = 0
    while start < LEADING_BYTES and buffer.startswith(b"\r\n", start):
        start += 2
    return start


def early_refusal(
    buffer: Union[bytes, bytearray], start: int, searched: int, limits: Limits
) -> Optional[ProtocolError]:
    """The refusal that the fewest bytes of `buffer` justify, whatever follows them; None if there is none.

    `buffer` holds a head or the beginning of one from `start` on, and nothing behind it. For its first
    `searched` bytes the answer was None.
    """
    arrived = len(buffer)
    if start < LEADING_BYTES and buffer[start:] in (b"", b"\r"):
        return None
    refusals: list[tuple[int, int, str]] = []

    stop = method_end(buffer, start)
    if stop < arrived and (stop == start or buffer[stop] != _SPACE):
        refusals.append((stop + 1, 400, "does not begin with a method of at most 32 characters"))

    bare = grammar.BARE_LINE_END.search(buffer, max(searched - 1, 0))
    if bare:
        refusals.append((bare.end(), 400, "CR or LF that is not part of CRLF"))

    line_end = start + limits.line + 1
    if arrived >= line_end and buffer.find(b"\r", start, line_end) < 0:
        refusals.append((line_end, 414, f"request line longer than {limits.line} bytes"))

    # Lines are counted only when one has just ended, so at most limits.count + 3 times a head.
    if buffer.find(b"\r\n", max(searched - 1, start)) >= 0:
        ended = buffer.count(b"\r\n", start) - buffer.endswith(b"\r\n\r\n")
        if ended > limits.count + 1:
            position = nth_line_end(buffer, start, limits.count + 2)
            refusals.append((position, 431, f"more than {limits.count} fields"))

    head_end = start + limits.size
    if arrived >= head_end and buffer.find(b"\r\n\r\n", start, head_end) < 0:
        refusals.append((head_end, 431, f"head larger than {limits.size} bytes"))

    if not refusals:
        return None
    _, status, reason = min(refusals)
    return ProtocolError(status, reason)


def method_end(buffer: Union[bytes, bytearray], start: int) -> int:
    """The position behind what can be a method at `start`."""
    match = grammar.METHOD_BEGUN.match(buffer, start)
    return match.end() if match else start


def nth_line_end(buffer: Union[bytes, bytearray], start: int, count: int) -> int:
    """The position behind the `count`th CRLF from `start` on; there are as many."""
    for _ in range(count):
        start = buffer.find(b"\r\n", start) + 2
    return start
