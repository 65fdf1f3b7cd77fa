"""Head and body together: whole conversations, from a corpus, mutated, and beside h11 and llhttp.

`corpus/accept/NAME.http` holds the bytes of a client, `NAME.json` the requests in them; in `corpus/reject`
the JSON says with which status the bytes are refused, and how many requests come before that. A name begins
with the rule it is about. A new smuggling report is two new files.

h11 and llhttp (through httptools) are oracles: what stardust accepts, one of them accepts, and reads alike.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Optional

import h11
import httptools
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stardust.errors import ProtocolError
from stardust.http1 import body
from stardust.http1.head import Head, HeadReader, Limits

CORPUS = Path(__file__).parent / "corpus"
ACCEPT = sorted((CORPUS / "accept").glob("*.http"))
REJECT = sorted((CORPUS / "reject").glob("*.http"))

LIMITS = Limits(line=8190, count=100, size=32768)
MAX_BODY = 1 << 20


class Request(NamedTuple):
    head: Head
    body: bytes
    raw: bytes  # all bytes of the request, from its first leading empty line to the end of its body


class Conversation(NamedTuple):
    requests: list[Request]
    status: Optional[int]  # of the refusal, None if there was none


def conversation(pieces: Iterable[bytes]) -> Conversation:
    """What a connection makes of bytes that arrive in these pieces. Catches nothing but ProtocolError."""
    reader = HeadReader(LIMITS)
    requests: list[Request] = []
    buffer, searched, raw = bytearray(), 0, b""
    head: Optional[Head] = None
    rest: body.BodyReader = body.LengthReader(0)
    parts: list[bytes] = []
    try:
        for piece in pieces:
            buffer += piece
            while True:
                if head is None:
                    found = reader.read(buffer, searched)
                    if found is None:
                        searched = len(buffer)
                        break
                    head, taken = found
                    searched, parts, rest = 0, [], body.reader(head, MAX_BODY)
                else:
                    taken = rest.feed(bytes(buffer), parts.append)
                raw += buffer[:taken]
                del buffer[:taken]
                if rest.complete:
                    requests.append(Request(head, b"".join(parts), raw))
                    head, raw = None, b""
                elif not buffer:
                    break
    except ProtocolError as error:
        return Conversation(requests, error.status)
    return Conversation(requests, None)


def summary(talk: Conversation) -> tuple[Any, ...]:
    """Everything about a conversation that must not depend on how its bytes were cut."""
    heads = [[*(getattr(r.head, name) for name in Head.__slots__), r.body, r.raw] for r in talk.requests]
    return heads, talk.status


def cut(data: bytes, positions: Sequence[int]) -> list[bytes]:
    """`data` in pieces, cut at these positions."""
    edges = [0, *sorted(position % (len(data) + 1) for position in positions), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def every_byte(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def lines(data: bytes) -> list[bytes]:
    return data.splitlines(keepends=True)


@pytest.mark.parametrize("path", ACCEPT, ids=lambda path: path.stem)
def test_corpus_accept(path: Path) -> None:
    talk = conversation([path.read_bytes()])
    assert talk.status is None
    assert [
        {
            "method": head.method,
            "target": head.target,
            "path": head.path,
            "query": head.query,
            "version": head.version,
            "fields": head.fields,
            "persistent": head.persistent,
            "expects_continue": head.expects_continue,
            "body": content.decode("latin-1"),
        }
        for head, content, _ in talk.requests
    ] == json.loads(path.with_suffix(".json").read_text())
    assert b"".join(request.raw for request in talk.requests) == path.read_bytes()


@pytest.mark.parametrize("path", REJECT, ids=lambda path: path.stem)
def test_corpus_reject(path: Path) -> None:
    talk = conversation([path.read_bytes()])
    assert {"status": talk.status, "before": len(talk.requests)} == json.loads(
        path.with_suffix(".json").read_text()
    )


@pytest.mark.parametrize("path", ACCEPT + REJECT, ids=lambda path: path.stem)
def test_l13_cut_anywhere(path: Path) -> None:
    """L13: whole, byte by byte, by line, and in two at every position, or at twenty of a long one."""
    data = path.read_bytes()
    whole = summary(conversation([data]))
    assert summary(conversation(every_byte(data))) == whole
    assert summary(conversation(lines(data))) == whole
    for position in range(0, len(data), 1 if len(data) < 1000 else len(data) // 20):
        assert summary(conversation([data[:position], data[position:]])) == whole


FRAGMENTS = [
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b" ",
        b"\t",
        b"\x00",
        b"\x0b",
        b"\x7f",
        b"\xa0",
        b"\xff",
        b":",
        b",",
        b";",
        b"=",
    ),
    *(b"0", b"5", b"f", b"-", b"+", b"_", b"0x", b"#", b"\\", b"@", b"[", b"]", b'"', b"%", b"*", b"/", b"?"),
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"Connection: close\r\n",
    b"Expect: 100-continue\r\n",
    b"Host: b.example\r\n",
    b"X_Y: z\r\n",
    b" HTTP/1.0",
    b"GET / HTTP/1.1\r\nHost: c\r\n\r\n",
    b"0\r\n\r\n",
    b"3;a=b\r\nabc\r\n",
]
SEEDS = [path.read_bytes() for path in (*ACCEPT, *REJECT) if path.stat().st_size < 1000]


@st.composite
def mutants(draw: st.DrawFn) -> bytes:
    """Bytes of the corpus with a few pieces removed, doubled, or put between."""
    data = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = start + draw(st.integers(0, 6))
        middle = draw(
            st.one_of(st.sampled_from(FRAGMENTS), st.just(data[start:end] * 2), st.binary(max_size=2))
        )
        data = data[:start] + middle + data[draw(st.sampled_from((start, end))) :]
    return data


@given(
    data=st.one_of(mutants(), st.binary(max_size=200)), positions=st.lists(st.integers(0, 2000), max_size=8)
)
@settings(max_examples=200, deadline=None)
def test_l13_no_cut_changes_the_outcome(data: bytes, positions: list[int]) -> None:
    """Nothing but ProtocolError is ever raised, and however the bytes are cut, the outcome is the same."""
    whole = summary(conversation([data]))
    assert summary(conversation(cut(data, positions))) == whole
    assert summary(conversation(every_byte(data))) == whole


class Reading(NamedTuple):
    """One request as an oracle reads it."""

    method: bytes
    target: bytes
    body: bytes
    ended: bool


def read_by_h11(raw: bytes) -> Optional[Reading]:
    """What h11 makes of the bytes of one request, None if it refuses them, or sees more than one."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    # h11 does not ignore empty lines before a request line, as RFC 9112 2.2 advises. llhttp does, but knows
    # only registered methods: without this, a request with both would have no oracle.
    connection.receive_data(raw.lstrip(b"\r\n"))
    method, target, content = b"", b"", b""
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                method, target = event.method, event.target
            elif isinstance(event, h11.Data):
                content += event.data
            elif event in (h11.NEED_DATA, h11.PAUSED) or isinstance(event, h11.EndOfMessage):
                break
    except h11.RemoteProtocolError:
        return None
    if connection.trailing_data[0] and isinstance(event, h11.EndOfMessage):
        return None
    return Reading(method, target, content, isinstance(event, h11.EndOfMessage))


class Events:
    """What llhttp tells about the requests it reads."""

    def __init__(self) -> None:
        self.target = b""
        self.body = b""
        self.begun = 0
        self.ended = 0

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.ended += 1


def read_by_llhttp(raw: bytes) -> Optional[Reading]:
    """What llhttp makes of the bytes of one request, None if it refuses them, or sees more than one."""
    events = Events()
    parser = httptools.HttpRequestParser(events)
    try:
        parser.feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError:
        return None
    if events.begun > 1:
        return None
    method = parser.get_method() if events.ended else b""
    return Reading(method, events.target, events.body, events.ended == 1)


def assert_read_alike(talk: Conversation) -> None:
    """At least one oracle reads each request as stardust did, and sees its end at the same byte."""
    for head, content, raw in talk.requests:
        mine = Reading(head.method.encode(), head.target.encode(), content, True)
        agreeing = [read for read in (read_by_h11, read_by_llhttp) if read(raw) == mine]
        assert agreeing, raw
        for read in agreeing:
            shorter = read(raw[:-1])
            assert shorter is None or not shorter.ended


@pytest.mark.parametrize("path", ACCEPT, ids=lambda path: path.stem)
def test_oracles_accept_the_corpus(path: Path) -> None:
    assert_read_alike(conversation([path.read_bytes()]))


@given(data=mutants())
@example(data=b"\r\nGGGET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
@settings(max_examples=300, deadline=None)
def test_oracles_accept_what_stardust_accepts(data: bytes) -> None:
    assert_read_alike(conversation([data]))
