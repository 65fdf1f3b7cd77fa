"""Applications run by an Exchange: the rules of PEP 3333, one test or row each. W1…W9 are those of http.md.

`run` calls an application with a list in the client's place; what it returns is read as a client would.
"""

from __future__ import annotations

import gc
import gzip
import io
import os
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, Optional, TextIO
from wsgiref.validate import validator

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stardust.base.address import Address
from stardust.base.errors import ApplicationError, ClientGone
from stardust.http1.head import Head, HeadReader, Limits
from stardust.http1.response import LAST_CHUNK, ResponseWriter
from stardust.wsgi import environ as environs
from stardust.wsgi import gateway
from stardust.wsgi.environ import Environ
from stardust.wsgi.gateway import FAILED, GONE, JOINED, LONG, SHORT, TAKEN, Exchange, FileWrapper, Report

DATE = b"Sun, 22 Nov 2026 16:50:00 GMT"
PLAIN = [("Content-Type", "text/plain")]

StartResponse = Callable[..., Callable[[bytes], object]]
App = Callable[[Environ, StartResponse], Any]


def head(line: str = "GET / HTTP/1.1") -> Head:
    read = HeadReader(Limits(8190, 100, 32768)).read(f"{line}\r\nHost: example.org\r\n\r\n".encode())
    assert read is not None
    return read[0]


def environ(request: Head, errors: TextIO) -> Environ:
    base = environs.server(multithread=False, multiprocess=True, errors=errors, file_wrapper=FileWrapper)
    listening = environs.listener(base, Address("tcp", "127.0.0.1", 5000), "")
    connected = environs.connection(listening, "192.0.2.1", "4711")
    return {**connected, **environs.environ(request), "wsgi.input": io.BytesIO()}


class Client:
    """Takes what is sent; leaves after `patience` calls. Files are read from where they are sent from."""

    def __init__(self, patience: int = 1 << 30) -> None:
        self.pieces: list[bytes] = []
        self.files: list[tuple[int, int]] = []
        self.patience = patience

    def send(self, data: bytes) -> None:
        if len(self.pieces) >= self.patience:
            raise ClientGone
        self.pieces.append(data)

    def send_file(self, descriptor: int, offset: int, count: int) -> None:
        self.files.append((offset, count))
        self.send(os.pread(descriptor, count, offset))

    @property
    def wire(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def body(self) -> bytes:
        """What follows the head, framing included."""
        return self.wire.partition(b"\r\n\r\n")[2]

    def fields(self) -> dict[bytes, bytes]:
        lines = self.wire.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
        return {name.lower(): value for name, value in (line.split(b": ", 1) for line in lines)}


@dataclass
class Outcome:
    """What became of one exchange."""

    exchange: Exchange
    client: Client
    errors: str

    @property
    def summary(self) -> tuple[int, bytes, bool, bool, str]:
        exchange = self.exchange
        return exchange.status, self.client.body, exchange.complete, exchange.persistent, exchange.note


def run(
    app: App,
    line: str = "GET / HTTP/1.1",
    *,
    patience: int = 1 << 30,
    persistent: bool = True,
    files: bool = True,
) -> Outcome:
    client, errors, request = Client(patience), io.StringIO(), head(line)
    send_file = client.send_file if files else None
    exchange = Exchange(request, ResponseWriter(), client.send, send_file, persistent, DATE)
    exchange.run(app, environ(request, errors))
    return Outcome(exchange, client, errors.getvalue())


class Body:
    """An iterable that knows how often it was closed and how far it was read."""

    def __init__(self, *pieces: Any) -> None:
        self.pieces = pieces
        self.read = 0
        self.closed = 0

    def __iter__(self) -> Iterator[Any]:
        for piece in self.pieces:
            self.read += 1
            if isinstance(piece, BaseException):
                raise piece
            yield piece

    def close(self) -> None:
        self.closed += 1


def answering(body: Any, headers: Iterable[tuple[str, str]] = PLAIN, status: str = "200 OK") -> App:
    def app(environ: Environ, start_response: StartResponse) -> Any:
        start_response(status, list(headers))
        return body

    return app


def length(number: int) -> list[tuple[str, str]]:
    return [("Content-Length", str(number))]


# What goes over the wire.


@pytest.mark.parametrize("body", [[b"hello"], (b"hello",), [b"he", b"", b"llo"], [b"", b"hello"]])
def test_a_list_goes_with_its_head_in_one_send(body: Any) -> None:
    """PEP 3333, "Handling the Content-Length Header"."""
    outcome = run(answering(body))
    assert len(outcome.client.pieces) == 1
    assert outcome.client.fields()[b"content-length"] == b"5"
    assert outcome.summary == (200, b"hello", True, True, "")
    assert outcome.exchange.sent == 5


@pytest.mark.parametrize("body", [[], (), [b""], [b"", b""], Body(), Body(b""), iter(())])
def test_an_empty_body_has_length_0(body: Any) -> None:
    outcome = run(answering(body))
    assert outcome.client.fields()[b"content-length"] == b"0"
    assert outcome.summary == (200, b"", True, True, "")


def test_a_large_body_is_not_copied() -> None:
    body = b"x" * (JOINED + 1)
    outcome = run(answering([body]))
    assert outcome.client.pieces[1] is body
    assert outcome.client.fields()[b"content-length"] == str(len(body)).encode()


def test_a_large_list_is_sent_piece_by_piece() -> None:
    pieces = [b"x" * (JOINED + 1), b"", b"y"]
    outcome = run(answering(pieces))
    assert outcome.client.pieces[1] is pieces[0]
    assert outcome.client.fields()[b"content-length"] == str(JOINED + 2).encode()
    assert outcome.summary == (200, b"".join(pieces), True, True, "")


def test_an_iterable_goes_in_chunks() -> None:
    outcome = run(answering(Body(b"hello", b"world!")))
    assert outcome.client.fields()[b"transfer-encoding"] == b"chunked"
    assert outcome.summary == (200, b"5\r\nhello\r\n6\r\nworld!\r\n0\r\n\r\n", True, True, "")
    assert outcome.exchange.sent == 11


def test_w8_empty_strings_never_end_a_chunked_body() -> None:
    outcome = run(answering(Body(b"", b"a", b"", b"b", b"")))
    assert outcome.client.body == b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n"


def test_each_block_is_sent_before_the_next_is_asked_for() -> None:
    """PEP 3333: "must not delay the transmission of any block"; the head waits for one that is not empty."""
    seen = []

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        for piece in (b"", b"a", b"", b"b"):
            yield piece
            seen.append(len(client.pieces))

    client, request = Client(), head()
    Exchange(request, ResponseWriter(), client.send, None, True, DATE).run(app, environ(request, sys.stderr))
    assert seen == [1, 2, 3, 4]
    assert client.pieces[0] == client.pieces[2] == b""  # a look whether it is there


def test_http_1_0_gets_no_chunks() -> None:
    outcome = run(answering(Body(b"a", b"b")), "GET / HTTP/1.0")
    assert outcome.summary == (200, b"ab", True, False, "")


def test_a_declared_length_needs_no_chunks() -> None:
    outcome = run(answering(Body(b"a", b"b"), length(2)))
    assert outcome.summary == (200, b"ab", True, True, "")


def test_the_server_may_end_the_connection() -> None:
    outcome = run(answering([b"x"]), persistent=False)
    assert outcome.client.fields()[b"connection"] == b"close"
    assert outcome.summary == (200, b"x", True, False, "")


@given(pieces=st.lists(st.binary(max_size=9)), kind=st.sampled_from([list, tuple, iter]), write=st.booleans())
def test_a_client_reads_what_the_application_gave(pieces: list[bytes], kind: Any, write: bool) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Any:
        send = start_response("200 OK", [])
        if write:
            for piece in pieces:
                send(piece)
            return []
        return kind(pieces)

    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "example.org")]))
    client.send(h11.EndOfMessage())
    client.receive_data(run(app).client.wire)
    body = b""
    while not isinstance(event := client.next_event(), h11.EndOfMessage):
        body += bytes(event.data) if isinstance(event, h11.Data) else b""
    assert body == b"".join(pieces)
    client.start_next_cycle()


# Responses without a body.


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("HEAD / HTTP/1.1", "200 OK"),
        ("GET / HTTP/1.1", "204 No Content"),
        ("GET / HTTP/1.1", "304 Not Modified"),
    ],
    ids=["HEAD", "204", "304"],
)
class TestW4NoBody:
    @pytest.mark.parametrize("headers", [[], length(5)], ids=["", "declared"])
    @pytest.mark.parametrize("body", [[b"hello"], Body(b"he", b"llo"), [], Body()])
    def test_nothing_is_sent(self, line: str, status: str, headers: Any, body: Any) -> None:
        outcome = run(answering(body, headers, status), line)
        assert outcome.summary == (int(status[:3]), b"", True, True, "")
        assert (outcome.exchange.sent, outcome.errors) == (0, "")

    def test_the_iterable_is_closed_and_not_read_on(self, line: str, status: str) -> None:
        body = Body(b"a", b"b")
        run(answering(body, [], status), line)
        assert (body.read, body.closed) == (1, 1)

    def test_write_is_in_vain(self, line: str, status: str) -> None:
        def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
            write = start_response(status, [])
            write(b"a")
            write(b"b")
            return [b"c"]

        assert run(app, line).summary == (int(status[:3]), b"", True, True, "")


def test_head_says_what_get_would() -> None:
    assert run(answering([b"hello"]), "HEAD / HTTP/1.1").client.fields()[b"content-length"] == b"5"
    assert b"content-length" not in run(answering([]), "HEAD / HTTP/1.1").client.fields()


# Content-Length of the application.


@pytest.mark.parametrize("body", [[b"hello"], [b"he", b"llo"], Body(b"he", b"llo"), Body(b"hello", b"x")])
def test_w3_a_longer_body_is_cut(body: Any) -> None:
    outcome = run(answering(body, length(4)))
    assert outcome.summary == (200, b"hell", True, True, LONG)
    assert outcome.errors == f"GET /: {LONG}\n"
    assert outcome.exchange.sent == 4


def test_w3_nothing_is_asked_for_after_the_cut() -> None:
    body = Body(b"1234", b"5", b"6")
    run(answering(body, length(4)))
    assert (body.read, body.closed) == (2, 1)


def test_a_generator_may_work_on_after_its_last_block() -> None:
    done = []

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", length(1))
        yield b"x"
        done.append(True)

    run(app)
    assert done


@pytest.mark.parametrize("body", [[b"hel"], [], Body(b"h", b"el"), Body()])
def test_w3_a_shorter_body_ends_the_connection(body: Any) -> None:
    outcome = run(answering(body, length(4)))
    assert outcome.exchange.complete is False
    assert outcome.exchange.persistent is False
    assert outcome.exchange.note == SHORT
    assert outcome.errors == f"GET /: {SHORT}\n"


def test_w3_write_beyond_the_length_is_cut() -> None:
    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        write = start_response("200 OK", length(4))
        write(b"123")
        write(b"456")
        write(b"7")
        return [b"8"]

    assert run(app).summary == (200, b"1234", True, True, LONG)


# start_response().


def test_it_may_be_called_by_the_first_iteration() -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"x"

    assert run(app).exchange.status == 200


def misusing(call: Callable[[StartResponse], object]) -> App:
    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        call(start_response)
        return [b"x"]

    return app


def swallowing(start_response: StartResponse) -> None:
    with pytest.raises(ApplicationError):
        start_response(None, [])
    start_response("200 OK", [])


@pytest.mark.parametrize(
    ("call", "rule"),
    [
        (lambda start: None, "start_response() was not called"),
        (lambda start: (start("200 OK", []), start("200 OK", [])), "called twice"),
        (swallowing, "called twice"),
        (lambda start: start(200, []), "the status must be a str"),
        (lambda start: start(b"200 OK", []), "the status must be a str"),
        (lambda start: start("200 OK", None), "the headers must be a list"),
        (lambda start: start("200 OK", {"A": "b"}), "not a dict: pass its items()"),
        (lambda start: start("200 OK", {}), "not a dict: pass its items()"),
        (lambda start: start("200", [])("x"), "the body must consist of bytes"),
        (lambda start: start("OK", []), "ApplicationError"),
        (lambda start: start("200 OK\r\nX: y", []), "ApplicationError"),
        (lambda start: start("100 Continue", []), "ApplicationError"),
        (lambda start: start("200 OK", [("X\r\n", "y")]), "ApplicationError"),
        (lambda start: start("200 OK", [("X", "y\r\nZ: a")]), "ApplicationError"),
        (lambda start: start("200 OK", [("X", 1)]), "ApplicationError"),
        (lambda start: start("200 OK", [("X", "\u20ac")]), "ApplicationError"),
        (lambda start: start("200 OK", [*length(1), *length(2)]), "ApplicationError"),
        (lambda start: start("200 OK", [("Content-Length", "-1")]), "ApplicationError"),
        (lambda start: start(), "TypeError"),
    ],
)
def test_w1_w2_w7_a_broken_rule_is_a_500(call: Callable[[StartResponse], object], rule: str) -> None:
    outcome = run(misusing(call))
    assert outcome.exchange.status == 500
    assert outcome.client.wire.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert (outcome.exchange.complete, outcome.exchange.persistent) == (True, True)
    assert outcome.exchange.note == FAILED
    assert rule in outcome.errors


@pytest.mark.parametrize(
    "body",
    [None, 5, "text", b"bytes", ["text"], [None], [b"x", "y"], Body("x"), Body(None), [bytearray(b"x")]],
)
def test_a_body_of_another_type_is_a_500(body: Any) -> None:
    outcome = run(answering(body))
    assert outcome.exchange.status == 500
    assert outcome.exchange.note == FAILED


def failing_with(exc_info_after: Optional[bytes]) -> App:
    """Starts, writes perhaps, fails, and starts again with exc_info, as PEP 3333's example does."""

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        try:
            write = start_response("200 Froody", PLAIN)
            if exc_info_after is not None:
                write(exc_info_after)
            raise LookupError("oops")
        except LookupError:
            start_response("500 Oops", [("X-Error", "1")], sys.exc_info())
            return [b"error body"]

    return app


def test_exc_info_before_the_head_replaces_it() -> None:
    outcome = run(failing_with(None))
    assert outcome.client.wire.startswith(b"HTTP/1.1 500 Oops\r\n")
    assert b"content-type" not in outcome.client.fields()
    assert outcome.summary == (500, b"error body", True, True, "")


def test_exc_info_after_the_head_is_raised() -> None:
    outcome = run(failing_with(b"part"))
    assert outcome.summary == (200, b"4\r\npart\r\n", False, False, FAILED)
    assert "LookupError: oops" in outcome.errors


@pytest.mark.parametrize("started", [False, True], ids=["before the head", "after the head"])
def test_no_reference_to_the_exception_is_kept(started: bool) -> None:
    """PEP 3333: "ensure that no reference is held to the exc_info parameter"."""

    class WatchedError(Exception):
        pass

    alive = []

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        if started:
            start_response("200 OK", [])(b"x")
        try:
            raise WatchedError
        except WatchedError as error:
            alive.append(weakref.ref(error))
            start_response("500 Oops", [], sys.exc_info())
        return [b"x"]

    gc.disable()
    try:
        run(app)
        assert sys.implementation.name != "cpython" or alive[0]() is None
    finally:
        gc.enable()


# write().


def test_write_sends_at_once() -> None:
    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        write = start_response("200 OK", [])
        write(b"")
        assert (
            len(client.pieces) == 1
        )  # the head: "upon the application's first invocation of the write() callable"
        write(b"a")
        assert len(client.pieces) == 2
        return [b"b", b"c"]

    client, request = Client(), head()
    exchange = Exchange(request, ResponseWriter(), client.send, None, True, DATE)
    exchange.run(app, environ(request, sys.stderr))
    assert client.body == b"1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n"
    assert exchange.sent == 3


def test_write_after_the_end_reaches_no_one() -> None:
    kept: list[Callable[[bytes], object]] = []

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        kept.append(start_response("200 OK", []))
        return [b"x"]

    outcome = run(app)
    with pytest.raises(ApplicationError, match="after the end"):
        kept[0](b"late")
    assert outcome.client.body == b"x"


# Failures, and close().

FAILURES = [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, MemoryError, RecursionError]


@pytest.mark.parametrize("kind", FAILURES)
class TestW5W9Failures:
    def test_when_called(self, kind: type[BaseException]) -> None:
        def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
            start_response("200 OK", length(3))
            raise kind("bad")

        outcome = run(app, "GET /target HTTP/1.1")
        assert outcome.exchange.status == 500
        assert (outcome.exchange.complete, outcome.exchange.persistent) == (True, True)
        assert outcome.errors.startswith("GET /target: application error\nTraceback")
        assert kind.__name__ in outcome.errors
        assert "gateway.py" not in outcome.errors.replace("test_gateway.py", "")
        assert b"bad" not in outcome.client.wire

    def test_before_the_first_block(self, kind: type[BaseException]) -> None:
        body = Body(b"", kind())
        outcome = run(answering(body))
        assert (outcome.exchange.status, body.closed) == (500, 1)

    def test_after_the_first_block(self, kind: type[BaseException]) -> None:
        body = Body(b"a", kind())
        outcome = run(answering(body))
        assert outcome.summary == (200, b"1\r\na\r\n", False, False, FAILED)
        assert body.closed == 1
        assert LAST_CHUNK not in outcome.client.wire

    def test_after_all_that_was_declared(self, kind: type[BaseException]) -> None:
        outcome = run(answering(Body(b"a", kind()), length(1)))
        assert outcome.summary == (200, b"a", True, False, FAILED)

    def test_until_close(self, kind: type[BaseException]) -> None:
        outcome = run(answering(Body(b"a", kind())), "GET / HTTP/1.0")
        assert outcome.summary == (200, b"a", False, False, FAILED)

    def test_in_close(self, kind: type[BaseException]) -> None:
        class Failing(Body):
            def close(self) -> None:
                super().close()
                raise kind("bad")

        body = Failing(b"a")
        outcome = run(answering(body))
        assert outcome.summary == (200, b"1\r\na\r\n0\r\n\r\n", True, True, FAILED)
        assert body.closed == 1
        assert "application error in close()" in outcome.errors


@pytest.mark.parametrize("kind", [OSError, SystemExit])
def test_a_failing_error_stream_costs_no_response(kind: type[BaseException]) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise kind("disk full")

    client, request = Client(), head()
    exchange = Exchange(request, ResponseWriter(), client.send, None, True, DATE)
    exchange.run(answering(None), environ(request, Closed()))
    assert exchange.status == 500


def test_w9_an_exception_that_cannot_be_told() -> None:
    class SpeechlessError(Exception):
        def __str__(self) -> str:
            raise SystemExit("said nothing")

    assert run(answering(Body(SpeechlessError()))).exchange.status == 500


def test_w6_a_close_that_cannot_be_looked_up() -> None:
    class Awkward(Body):
        @property
        def close(self) -> Callable[[], None]:
            raise RuntimeError("no close")

    outcome = run(answering(Awkward(b"x")))
    assert outcome.summary == (200, b"1\r\nx\r\n0\r\n\r\n", True, True, FAILED)
    assert "application error in close()" in outcome.errors


# Subclasses that say one thing when they are asked, and are another.


class LyingText(str):
    def encode(self, *_: object) -> bytes:
        return b"x\r\nX: smuggled"

    def lower(self) -> str:
        return "x-innocent"

    def __getitem__(self, _: object) -> str:
        return "204"


class LyingBytes(bytes):
    def __len__(self) -> int:
        return 1


class WritingList(list[Any]):
    """Sends a head of its own while it is read for another."""

    write: Callable[[bytes], object]

    def __iter__(self) -> Iterator[Any]:
        self.write(b"too early")
        return super().__iter__()


def test_w1_text_is_taken_by_its_characters() -> None:
    headers = [(LyingText("X-A"), LyingText("b")), (LyingText("Content-Length"), LyingText("1"))]
    outcome = run(answering([b"x"], headers, LyingText("200 OK")))
    assert outcome.client.wire.startswith(b"HTTP/1.1 200 OK\r\n")
    assert outcome.client.fields()[b"x-a"] == b"b"
    assert b"smuggled" not in outcome.client.wire
    assert outcome.summary == (200, b"x", True, True, "")


def test_w2_a_hop_by_hop_name_cannot_hide() -> None:
    outcome = run(answering([b"x"], [(LyingText("Transfer-Encoding"), "chunked")]))
    assert b"transfer-encoding" not in outcome.client.fields()
    assert outcome.summary == (200, b"x", True, True, "")


@pytest.mark.parametrize(
    ("body", "wire"),
    [
        ([LyingBytes(b"hello")], b"hello"),
        ([LyingBytes(b"he"), LyingBytes(b"llo")], b"hello"),
        (Body(LyingBytes(b"hello"), b"!"), b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"),
    ],
    ids=["W3-one", "W3-several", "W3-chunks"],
)
def test_bytes_are_counted_here(body: Any, wire: bytes) -> None:
    assert run(answering(body)).summary == (200, wire, True, True, "")


def test_w1_a_list_does_nothing_while_it_is_read() -> None:
    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        headers = WritingList(PLAIN)
        headers.write = start_response("200 OK", headers)
        return [b"x"]

    outcome = run(app)
    assert outcome.client.wire.count(b"HTTP/1.1") == 1
    assert outcome.summary == (200, b"x", True, True, "")


def test_w1_a_header_does_nothing_while_it_is_read() -> None:
    class WritingPair(tuple[str, str]):
        __slots__ = ()

        def __hash__(self) -> int:
            if writes:
                writes.pop()(b"too early")
            return 0

    writes: list[Callable[[bytes], object]] = []

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        writes.append(start_response("200 OK", [WritingPair(("X", "y"))]))
        return [b"x"]

    outcome = run(app)
    assert outcome.client.wire.count(b"HTTP/1.1") == 1
    assert (outcome.exchange.complete, outcome.exchange.note) == (False, FAILED)


def test_w1_headers_may_change_until_they_are_sent() -> None:
    """But not into what may not be sent."""

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        headers = list(PLAIN)
        start_response("200 OK", headers)
        headers.append(("X-Late", "a\r\nX: smuggled"))
        yield b"x"

    outcome = run(app)
    assert outcome.exchange.status == 500
    assert b"smuggled" not in outcome.client.wire


@pytest.mark.parametrize("pieces", [[b"a", b"b"], [], [b""]])
def test_w6_close_is_called_once(pieces: list[bytes]) -> None:
    body = Body(*pieces)
    run(answering(body))
    assert body.closed == 1


def test_w6_close_of_a_subclass_of_list() -> None:
    class Closing(list[bytes]):
        closed = 0

        def close(self) -> None:
            self.closed += 1

    body = Closing([b"x"])
    assert run(answering(body)).client.body == b"1\r\nx\r\n0\r\n\r\n"
    assert body.closed == 1


def test_w6_a_generator_is_closed() -> None:
    closed = []

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        try:
            yield b"a"
            yield b"b"
        finally:
            closed.append(True)

    run(app, patience=1)
    assert closed == [True]


# A client that leaves.


@pytest.mark.parametrize("patience", [0, 1, 2])
def test_w6_client_gone(patience: int) -> None:
    body = Body(b"a", b"b")
    outcome = run(answering(body), patience=patience)
    assert (outcome.exchange.complete, outcome.exchange.persistent, outcome.exchange.note) == (
        False,
        False,
        GONE,
    )
    assert outcome.errors == ""
    assert body.closed == 1
    assert outcome.exchange.status == 200
    assert outcome.exchange.sent == patience


@pytest.mark.parametrize("reaction", ["raise", "other", "return"])
def test_client_gone_in_write(reaction: str) -> None:
    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        write = start_response("200 OK", [])
        try:
            write(b"x")
        except ClientGone:
            if reaction == "raise":
                raise
            if reaction == "other":
                raise RuntimeError("wrapped") from None
        return []

    outcome = run(app, patience=0)
    assert (outcome.exchange.complete, outcome.exchange.persistent, outcome.exchange.note) == (
        False,
        False,
        GONE,
    )
    assert outcome.errors == ""


def test_client_gone_before_the_500() -> None:
    outcome = run(answering(None), patience=0)
    assert (outcome.exchange.complete, outcome.exchange.persistent) == (False, False)
    assert "returned None" in outcome.errors


# wsgi.file_wrapper.


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    path = tmp_path / "digits"
    path.write_bytes(b"0123456789")
    return path


def sending(
    open_file: Callable[[], Any], headers: Iterable[tuple[str, str]] = (), status: str = "200 OK"
) -> App:
    def app(environ: Environ, start_response: StartResponse) -> Any:
        start_response(status, list(headers))
        return environ["wsgi.file_wrapper"](open_file())

    return app


def at(path: Path, position: int, buffering: int = -1) -> Any:
    file = path.open("rb", buffering)
    file.seek(position)
    return file


@pytest.mark.parametrize("buffering", [-1, 0], ids=["buffered", "raw"])
@pytest.mark.parametrize(
    ("position", "headers", "files", "summary"),
    [
        (0, [], [(0, 10)], (200, b"0123456789", True, True, "")),
        (4, [], [(4, 6)], (200, b"456789", True, True, "")),
        (4, length(3), [(4, 3)], (200, b"456", True, True, "")),
        (4, length(7), [(4, 6)], (200, b"456789", False, False, SHORT)),
        (10, [], [], (200, b"", True, True, "")),
        (99, [], [], (200, b"", True, True, "")),
    ],
    ids=[
        "whole",
        "from its position",
        "as far as declared",
        "shorter than declared",
        "at its end",
        "behind its end",
    ],
)
def test_a_file_is_sent_by_the_kernel(
    digits: Path, buffering: int, position: int, headers: Any, files: Any, summary: Any
) -> None:
    outcome = run(sending(lambda: at(digits, position, buffering), headers))
    assert outcome.client.files == files
    assert outcome.summary == summary
    assert outcome.exchange.sent == len(outcome.client.body)


def test_a_file_that_was_read_from_is_sent_from_there(digits: Path) -> None:
    file = digits.open("rb")
    assert file.read(2) == b"01"
    assert run(sending(lambda: file)).client.body == b"23456789"
    assert file.closed


def test_a_temporary_file_is_sent_by_the_kernel() -> None:
    file = tempfile.TemporaryFile()  # noqa: SIM115
    file.write(b"0123456789")
    file.seek(1)
    outcome = run(sending(lambda: file))
    assert outcome.client.files == [(1, 9)]
    assert outcome.client.body == b"123456789"


@pytest.mark.parametrize(
    ("line", "status"), [("HEAD / HTTP/1.1", "200 OK"), ("GET / HTTP/1.1", "304 Not Modified")]
)
def test_no_file_where_no_body_may_be(digits: Path, line: str, status: str) -> None:
    outcome = run(sending(lambda: digits.open("rb"), [], status), line)
    assert outcome.client.files == []
    assert outcome.summary == (int(status[:3]), b"", True, True, "")


def piped() -> BinaryIO:
    reader, writer = os.pipe()
    os.write(writer, b"piped")
    os.close(writer)
    return open(reader, "rb")


def compressed(path: Path) -> gzip.GzipFile:
    packed = path.with_suffix(".gz")
    packed.write_bytes(gzip.compress(b"unpacked"))
    return gzip.open(packed, "rb")


class NoClose:
    def read(self, size: int) -> bytes:
        return b""


@pytest.mark.parametrize(
    ("open_file", "body"),
    [
        (lambda path: io.BytesIO(b"memory"), b"memory"),
        (lambda path: piped(), b"piped"),
        (compressed, b"unpacked"),
        (lambda path: io.BufferedReader(compressed(path)), b"unpacked"),
        (lambda path: NoClose(), b""),
    ],
    ids=["BytesIO", "pipe", "gzip", "buffered gzip", "bare read()"],
)
def test_any_other_file_is_read(tmp_path: Path, open_file: Callable[[Path], Any], body: bytes) -> None:
    outcome = run(sending(lambda: open_file(tmp_path / "file")))
    assert outcome.client.files == []
    expected = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b""
    assert outcome.summary == (200, expected, True, True, "")


def test_a_file_is_read_if_the_kernel_cannot_send(digits: Path) -> None:
    outcome = run(sending(lambda: digits.open("rb"), length(10)), files=False)
    assert outcome.client.body == b"0123456789"


def test_a_device_is_read() -> None:
    device = Path("/dev/zero")
    outcome = run(sending(lambda: device.open("rb"), length(3)))
    assert outcome.client.files == []
    assert outcome.summary == (200, bytes(3), True, True, LONG)


def test_a_file_is_read_after_write(digits: Path) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Any:
        start_response("200 OK", length(12))(b"> ")
        return environ["wsgi.file_wrapper"](digits.open("rb"), 3)

    outcome = run(app)
    assert outcome.client.files == []
    assert outcome.summary == (200, b"> 0123456789", True, True, "")


def test_a_closed_file_is_a_500(digits: Path) -> None:
    def closed() -> BinaryIO:
        with digits.open("rb") as file:
            return file

    assert run(sending(closed)).exchange.status == 500


def test_a_text_file_is_a_500(digits: Path) -> None:
    assert run(sending(digits.open)).exchange.status == 500


@pytest.mark.parametrize("patience", [0, 1], ids=["before the head", "in the file"])
def test_a_file_is_closed_when_the_client_is_gone(digits: Path, patience: int) -> None:
    file = digits.open("rb")
    outcome = run(sending(lambda: file), patience=patience)
    assert file.closed
    assert (outcome.exchange.complete, outcome.exchange.note, outcome.errors) == (False, GONE, "")


def test_a_file_that_fails_half_way_ends_the_connection(digits: Path) -> None:
    def send_file(descriptor: int, offset: int, count: int) -> None:
        raise OSError("input/output error")

    client, request, errors = Client(), head(), io.StringIO()
    exchange = Exchange(request, ResponseWriter(), client.send, send_file, True, DATE)
    exchange.run(sending(lambda: digits.open("rb")), environ(request, errors))
    assert (exchange.complete, exchange.persistent, exchange.note) == (False, False, FAILED)
    assert "input/output error" in errors.getvalue()


# 1xx.


def hinting(method: str) -> tuple[Client, Exchange]:
    client, request = Client(), head(method)
    exchange = Exchange(request, ResponseWriter(), client.send, None, True, DATE)

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        exchange.early_hints([("Link", "</style.css>; rel=preload")])
        exchange.informational("102 Processing", [])
        start_response("200 OK", [])
        return [b"x"]

    exchange.run(app, environ(request, sys.stderr))
    return client, exchange


def test_early_hints_go_before_the_response() -> None:
    client, exchange = hinting("GET / HTTP/1.1")
    hints, processing, final, _ = client.wire.split(b"\r\n\r\n")
    assert hints == b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload"
    assert processing == b"HTTP/1.1 102 Processing"
    assert final.startswith(b"HTTP/1.1 200 OK\r\n")
    assert (exchange.status, exchange.sent, exchange.persistent) == (200, 1, True)


def test_http_1_0_gets_no_informational_response() -> None:
    assert hinting("GET / HTTP/1.0")[0].wire.startswith(b"HTTP/1.1 200")


def test_informational_too_late_or_wrong() -> None:
    client, exchange = hinting("GET / HTTP/1.1")
    with pytest.raises(ApplicationError, match="cannot follow"):
        exchange.early_hints([])
    fresh = Exchange(head(), ResponseWriter(), client.send, None, True, DATE)
    with pytest.raises(ApplicationError):
        fresh.informational("200 OK", [])
    with pytest.raises(ApplicationError):
        fresh.early_hints([("X", "a\r\nb")])


def test_client_gone_at_an_early_hint() -> None:
    client, request, errors = Client(0), head(), io.StringIO()
    exchange = Exchange(request, ResponseWriter(), client.send, None, True, DATE)

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        exchange.early_hints([])
        raise AssertionError("not reached")

    exchange.run(app, environ(request, errors))
    assert (exchange.status, exchange.note, errors.getvalue()) == (0, GONE, "")


# Another protocol.


class Silent:
    """Raises what ends an iteration, out of the application, and has never called start_response()."""

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        raise StopIteration


def upgrading(app: App) -> tuple[Client, Exchange, str]:
    client, request, errors = Client(), head("GET /a HTTP/1.1"), io.StringIO()
    exchange = Exchange(request, ResponseWriter(), client.send, client.send_file, True, DATE)
    exchange.run(app, {**environ(request, errors), "HTTP_UPGRADE": "websocket"})
    return client, exchange, errors.getvalue()


NOTHING_SAID: list[App] = [
    Silent(),
    lambda environ, start_response: [],
    lambda environ, start_response: (),
    lambda environ, start_response: [b""],
    lambda environ, start_response: iter(()),
]


@pytest.mark.parametrize("app", NOTHING_SAID)
def test_who_asked_for_another_protocol_may_have_got_it(app: App) -> None:
    """gunicorn's convention, and what simple-websocket's users do: the server says nothing, and ends it."""
    client, exchange, said = upgrading(app)
    assert (client.wire, said) == (b"", "")
    assert (exchange.status, exchange.note) == (101, TAKEN)
    assert (exchange.complete, exchange.persistent, exchange.sent) == (False, False, 0)


@pytest.mark.parametrize("app", NOTHING_SAID)
def test_who_did_not_ask_gets_an_error(app: App) -> None:
    outcome = run(app)
    assert (outcome.exchange.status, outcome.exchange.note) == (500, FAILED)


def raising(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    raise LookupError("oops")


def stopping(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [])
    raise StopIteration


def speaking(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    return [b"x"]


@pytest.mark.parametrize("app", [raising, stopping, speaking])
def test_what_fails_is_an_error_all_the_same(app: App) -> None:
    _, exchange, said = upgrading(app)
    assert (exchange.status, exchange.note) == (500, FAILED)
    assert said.startswith("GET /a: application error\n")


def test_who_refuses_another_protocol_answers() -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("403 Forbidden", [])
        return [b"no"]

    client, exchange, _ = upgrading(app)
    assert client.wire.startswith(b"HTTP/1.1 403 ")
    assert (exchange.status, exchange.persistent) == (403, True)


# Who is told.


def reported_to(report: Report, app: App) -> tuple[Exchange, str]:
    """The exchange, and what `wsgi.errors` got beside `report`."""
    client, errors, request = Client(), io.StringIO(), head("GET /a HTTP/1.1")
    exchange = Exchange(request, ResponseWriter(), client.send, None, True, DATE, report)
    exchange.run(app, environ(request, errors))
    return exchange, errors.getvalue()


def test_a_report_takes_the_place_of_wsgi_errors() -> None:
    reports: list[tuple[Head | None, Environ, str, BaseException | None]] = []
    fault = LookupError("oops")
    exchange, errors = reported_to(lambda *report: reports.append(report), answering(Body(fault)))
    assert (exchange.status, errors) == (500, "")
    [(request, asked, text, error)] = reports
    assert asked["PATH_INFO"] == "/a"
    assert request is not None
    assert request.target == "/a"
    assert text.startswith("GET /a: application error\nTraceback")
    assert error is fault


def test_a_report_of_a_broken_promise() -> None:
    reports: list[tuple[str, BaseException | None]] = []
    reported_to(lambda _, __, text, error: reports.append((text, error)), answering(Body(b"a"), length(2)))
    assert reports == [(f"GET /a: {SHORT}\n", None)]


def test_a_report_that_fails_costs_no_response() -> None:
    def fail(*_: object) -> None:
        raise OSError("no journal")

    exchange, _ = reported_to(fail, answering(Body(LookupError())))
    assert (exchange.status, exchange.complete) == (500, True)


# The server's own answers.


@pytest.mark.parametrize("status", [400, 408, 411, 413, 414, 417, 431, 500, 501, 503, 504, 505, 507])
def test_w12_error_responses(status: int) -> None:
    client = Client()
    exchange = Exchange(None, ResponseWriter(), client.send, None, True, DATE)
    exchange.respond(status)
    assert client.wire.startswith(f"HTTP/1.1 {status} ".encode())
    assert client.fields()[b"date"] == DATE
    assert (exchange.status, exchange.complete, exchange.persistent, exchange.note) == (
        status,
        True,
        False,
        "",
    )
    assert exchange.sent == len(client.body) > 0


def test_an_error_response_to_a_request_that_was_read() -> None:
    client = Client()
    exchange = Exchange(head("HEAD / HTTP/1.1"), ResponseWriter(), client.send, None, True, DATE)
    exchange.respond(413)
    assert (exchange.status, exchange.complete, exchange.persistent, exchange.sent) == (413, True, True, 0)
    assert client.body == b""


def test_an_error_response_to_a_client_that_left() -> None:
    exchange = Exchange(None, ResponseWriter(), Client(0).send, None, False, DATE)
    exchange.respond(408)
    assert (exchange.complete, exchange.persistent, exchange.note) == (False, False, GONE)


# Everything at once.


def test_no_cycle_is_left() -> None:
    """An exchange is freed when it is over, without the collector."""
    body = Body(b"a", b"b")
    request, client = head(), Client()
    gc.collect()
    gc.disable()
    try:
        exchange = Exchange(request, ResponseWriter(), client.send, None, True, DATE)
        whole = environ(request, sys.stderr)
        whole["wsgi.early_hints"] = exchange.early_hints
        exchange.run(answering(body), whole)
        alive = weakref.ref(body)
        del exchange, whole, body
        assert sys.implementation.name != "cpython" or alive() is None
    finally:
        gc.enable()


def writing(environ: Environ, start_response: StartResponse) -> list[bytes]:
    write = start_response("200 OK", list(PLAIN))
    write(b"hello")
    return [b" world"]


def generating(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
    start_response("200 OK", list(PLAIN))
    yield b"hello"
    yield b" world"


def reading(environ: Environ, start_response: StartResponse) -> list[bytes]:
    stream = environ["wsgi.input"]
    read = stream.read(1) + stream.readline() + b"".join(stream.readlines()) + b"".join(stream)
    start_response("200 OK", list(PLAIN))
    environ["wsgi.errors"].writelines(["read\n"])
    return [read + b"hello world"]


def wrapping(environ: Environ, start_response: StartResponse) -> Any:
    start_response("200 OK", list(PLAIN))
    return environ["wsgi.file_wrapper"](io.BytesIO(b"hello world"), 4)


def recovering(environ: Environ, start_response: StartResponse) -> list[bytes]:
    try:
        start_response("404 Not Found", list(PLAIN))
        raise LookupError
    except LookupError:
        start_response("200 OK", list(PLAIN), sys.exc_info())
    return [b"hello world"]


@pytest.mark.parametrize("line", ["GET /a?b HTTP/1.1", "GET / HTTP/1.0", "HEAD / HTTP/1.1"])
@pytest.mark.parametrize(
    "app", [answering([b"hello world"]), writing, generating, reading, wrapping, recovering]
)
def test_the_validator_finds_no_fault(app: App, line: str) -> None:
    outcome = run(validator(app), line)
    assert outcome.exchange.note == "", outcome.errors
    assert outcome.exchange.complete
    assert outcome.exchange.status == 200


class TestAway:
    """The application has forked, and this is the child: it ends when control comes back, as a program."""

    @pytest.fixture
    def ends(self, monkeypatch: pytest.MonkeyPatch) -> list[BaseException | None]:
        """How it ended. `fork()` of the applications below is the moment at which this becomes the child."""
        self.ended: list[BaseException | None] = []
        self.patch = monkeypatch
        return self.ended

    def fork(self) -> None:
        def away(error: BaseException | None) -> NoReturn:
            self.ended.append(error)
            raise EndedError

        self.patch.setattr(gateway, "away", away)

    def after(self, app: App, patience: int = 1 << 30) -> Client:
        client, errors = Client(patience), io.StringIO()
        exchange = Exchange(head(), ResponseWriter(), client.send, None, True, DATE)
        with pytest.raises(EndedError):
            exchange.run(app, environ(head(), errors))
        assert errors.getvalue() == ""
        return client

    @pytest.mark.parametrize("result", [[b"body"], None, b"", iter([b"a"])])
    def test_it_returns(self, ends: list[BaseException | None], result: Any) -> None:
        def app(environ: Environ, start_response: StartResponse) -> Any:
            self.fork()
            return result

        assert self.after(app).pieces == []
        assert ends[0] is None

    @pytest.mark.parametrize("error", [LookupError(), SystemExit(3), ClientGone()])
    def test_it_raises(self, ends: list[BaseException | None], error: BaseException) -> None:
        def app(environ: Environ, start_response: StartResponse) -> Any:
            self.fork()
            raise error

        assert self.after(app).pieces == []
        if not isinstance(error, ClientGone):
            assert ends[0] is error

    def test_it_writes(self, ends: list[BaseException | None]) -> None:
        """Refused, and then it is as if any program had failed in that."""

        def app(environ: Environ, start_response: StartResponse) -> Any:
            write = start_response("200 OK", [])
            self.fork()
            write(b"x")

        assert self.after(app, patience=0).pieces == []
        assert isinstance(ends[0], ClientGone)

    def test_a_generator_that_yields_once_more(self, ends: list[BaseException | None]) -> None:
        """What is refused then is ours to say, and nothing of its doing."""

        def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
            start_response("200 OK", [])
            yield b"x"
            self.fork()
            yield b"y"

        assert b"y" not in self.after(app, patience=1).body
        assert ends[0] is None

    def test_a_generator_that_ends(self, ends: list[BaseException | None]) -> None:
        def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
            start_response("200 OK", [("Content-Length", "1")])
            yield b"x"
            self.fork()

        self.after(app)
        assert ends[0] is None

    @pytest.mark.parametrize("error", [None, SystemExit(3)])
    def test_close(self, ends: list[BaseException | None], error: BaseException | None) -> None:
        def close() -> None:
            self.fork()
            if error is not None:
                raise error

        body = Body(b"x")
        body.close = close  # type: ignore[method-assign]
        self.after(answering(body))
        assert ends[0] is error


class EndedError(BaseException):
    """In the place of os._exit()."""
