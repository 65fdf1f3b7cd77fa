"""What h11 and llhttp (through httptools) read in the same bytes, beside what stardust does.

One request at a time: `read_by_…(data)` gives what stands at the beginning of `data`, a `Reading`; or a
`Refused`; or None, if it is not complete. What a reader says of bytes behind the first request is never
asked, so one that frames it otherwise is found out by `size`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import h11
import httptools

from stardust.base.errors import ProtocolError
from stardust.http1 import body, grammar
from stardust.http1.head import HeadReader, combined
from tests.http1.conversations import LIMITS, MAX_BODY


class Reading(NamedTuple):
    """One request: all that decides what an application is told, and where the next one begins."""

    method: str
    target: str
    version: str
    fields: dict[str, str]  # as an environ has them, Host aside
    body: bytes
    size: int  # bytes it takes up, with empty lines before it
    persistent: bool


class Refused(NamedTuple):
    reason: str


Verdict = Reading | Refused | None
Read = Callable[[bytes, Verdict], Verdict]


def read_by_stardust(data: bytes) -> Verdict:
    parts: list[bytes] = []
    try:
        found = HeadReader(LIMITS).read(data)
        if found is None:
            return None
        head, size = found
        rest = body.reader(head, MAX_BODY)
        size += rest.feed(data[size:], parts.append)
    except ProtocolError as refusal:
        return Refused(refusal.reason)
    if not rest.complete:
        return None
    fields = comparable(head.fields)
    return Reading(head.method, head.target, head.version, fields, b"".join(parts), size, head.persistent)


def read_by_h11(data: bytes, _: Verdict = None) -> Verdict:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(data)
    request, content = None, b""
    try:
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                content += event.data
            else:
                return None
    except h11.RemoteProtocolError as refusal:
        return Refused(str(refusal))
    assert request is not None
    connection.send(h11.Response(status_code=404, headers=[("Content-Length", "0")]))
    connection.send(h11.EndOfMessage())
    return Reading(
        request.method.decode(),
        request.target.decode(),
        f"HTTP/{request.http_version.decode()}",
        meta_variables(request.headers),
        content,
        len(data) - len(connection.trailing_data[0]),
        connection.our_state is h11.DONE,
    )


class Events:
    """What llhttp tells about the first request it reads."""

    def __init__(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.target = b""
        self.body = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.head_ended = False
        self.persistent = False
        self.ended = False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.head_ended:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.head_ended = True
        self.persistent = self.parser.should_keep_alive()  # only now does it know

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.ended = True


def read_by_llhttp(data: bytes, expected: Verdict = None) -> Verdict:
    """llhttp does not say where a request ended. Where one is expected to, it is tried first; then the bytes
    go in one by one."""
    if isinstance(expected, Reading):
        reading = _fed_to_llhttp([data[: expected.size - 1], data[expected.size - 1 : expected.size]])
        if isinstance(reading, Reading) and reading.size == expected.size:
            return reading
    return _fed_to_llhttp(data[i : i + 1] for i in range(len(data)))


def _fed_to_llhttp(pieces: Iterable[bytes]) -> Verdict:
    events = Events()
    parser = events.parser
    size = 0
    for piece in pieces:
        size += len(piece)
        try:
            parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            return Refused("another protocol follows the head")
        except httptools.HttpParserError as refusal:
            if not events.ended:
                return Refused(str(refusal))
        if events.ended:
            return Reading(
                parser.get_method().decode(),
                events.target.decode("latin-1"),
                f"HTTP/{parser.get_http_version()}",
                meta_variables(events.headers),
                events.body,
                size,
                events.persistent,
            )
    return None


def meta_variables(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Fields as an oracle tells them, under the names and in the form in which an environ has them."""
    pairs = []
    for name, value in headers:
        key = name.decode("latin-1").upper().replace("-", "_")
        if b"_" not in name and key != "PROXY":
            prefix = "" if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else "HTTP_"
            pairs.append((prefix + key, value.decode("latin-1").strip(grammar.BLANKS)))
    try:
        return comparable(combined(pairs))
    except ProtocolError:
        return comparable(dict(pairs))


def comparable(fields: dict[str, str]) -> dict[str, str]:
    """Without what h11 writes in another way, and Host, which an absolute target rules."""
    return {
        name: value.lower() if name == "HTTP_TRANSFER_ENCODING" else value
        for name, value in fields.items()
        if name != "HTTP_HOST"
    }


ORACLES: dict[str, Read] = {"h11": read_by_h11, "llhttp": read_by_llhttp}


def alike(mine: Reading, verdict: Verdict, skipped: int = 0) -> bool:
    """Whether an oracle reads the same, whatever it says of what follows; `skipped` bytes it had less."""
    return isinstance(verdict, Reading) and mine == verdict._replace(
        size=verdict.size + skipped, persistent=mine.persistent
    )


class Difference(NamedTuple):
    """stardust and an oracle disagree about the request at the beginning of `data`."""

    oracle: str
    mine: Verdict
    theirs: Verdict
    data: bytes

    @property
    def kind(self) -> str:
        """What it is about, without what varies: the key of a row in docs/http.md."""
        mine, theirs = self.mine, self.theirs
        if isinstance(mine, Reading) and isinstance(theirs, Reading):
            named = [name for name in Reading._fields if getattr(mine, name) != getattr(theirs, name)]
            return f"read differently: {', '.join(named)}"
        refused = theirs if isinstance(mine, Reading) else mine
        reason = refused.reason if isinstance(refused, Refused) else "incomplete"
        return f"not taken: {reason}" if isinstance(mine, Reading) else f"taken: {reason}"


def compared(data: bytes) -> tuple[int, list[Difference]]:
    """How many requests stardust takes from `data`, and where oracles disagree about them or what follows.

    Fails if none agrees to one that was taken.
    """
    taken, found = 0, []
    while data:
        mine = read_by_stardust(data)
        theirs = {name: read(data, mine) for name, read in ORACLES.items()}
        if isinstance(mine, Reading):
            taken += 1
            # h11 does not ignore empty lines before a request line, as RFC 9112 2.2 advises; llhttp does, but
            # knows only registered methods. Without this, a request with both would have no oracle.
            empty = len(data) - len(data.lstrip(b"\r\n"))
            again = read_by_h11(data[empty:]) if empty else None
            framed_alike = [alike(mine, verdict) for verdict in theirs.values()]
            assert any(framed_alike) or alike(mine, again, empty), (data, mine, theirs)
        for name, verdict in theirs.items():
            if verdict != mine and (isinstance(mine, Reading) or isinstance(verdict, Reading)):
                found.append(Difference(name, mine, verdict, data))
        if not isinstance(mine, Reading) or not mine.persistent:
            break
        data = data[mine.size :]
    return taken, found
