"""What a client sees of the rules of framing and responses, and of protocols that are not spoken here.

A real loop and real sockets, as in harness.py; the application on the loop's own thread, and on threads.
"""

from __future__ import annotations

import gzip
import socket
import threading
from collections.abc import Iterable
from pathlib import Path

import h11
import pytest

from stardust.settings.table import Config
from tests.http1.conversations import every_byte
from tests.worker.harness import (
    INLINE,
    PATIENCE,
    PATTERN,
    THREADS,
    Client,
    Environ,
    Server,
    StartResponse,
    answering,
    chunked,
    echo,
    request,
    tcp_door,
    unix_door,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
H2C = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")
WEBSOCKET = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


@pytest.fixture(params=[INLINE, THREADS], ids=["inline", "threads"])
def kept(request: pytest.FixtureRequest) -> Config:
    """Connections and workers go on for ever."""
    config: Config = request.param
    return config


def silent(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Reads no body."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["RAW_URI"].encode()]


# --- where a request ends ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(request("POST", "/", "Content-Length: 5") + b"hell", id="F9-length"),
        pytest.param(
            request("POST", "/", "Transfer-Encoding: chunked") + b"5\r\nhello\r\n", id="F9-last-chunk"
        ),
        pytest.param(
            request("POST", "/", "Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n", id="F9-last-line-end"
        ),
        pytest.param(
            request("POST", "/", "Transfer-Encoding: chunked") + b"0\r\nX-Sum: 1\r\n", id="F9-trailers"
        ),
    ],
)
def test_f9_no_application_hears_of_a_body_that_was_cut(kept: Config, stream: bytes) -> None:
    with Server(echo, kept) as server, Client(server.address) as client:
        client.send(request("GET", "/first") + stream)
        assert client.receive().body == b"GET /first\n"
        client.socket.shutdown(socket.SHUT_WR)
        server.until(lambda loop: not loop.book.connections)
        assert [(each.target, each.status) for each in server.records] == [("/first", 200), ("/", 0)]


def test_f9_s9_an_answer_outlives_the_request_behind_it(kept: Config) -> None:
    """What was answered in full must arrive in full, however the client breaks off what it sends next."""
    with Server(answering([PATTERN]), kept) as server, Client(server.address, 4096) as client:
        client.send(request("GET", "/") + request("POST", "/", "Content-Length: 5") + b"hell")
        client.socket.shutdown(socket.SHUT_WR)
        server.until(lambda loop: [each.status for each in server.records] == [200, 0])
        assert client.receive().body == PATTERN
        client.ended()


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", id="F10-head"),
        pytest.param(request("POST", "/", "Transfer-Encoding: chunked") + b"x\r\n", id="F10-body"),
        pytest.param(
            request("POST", "/", "Content-Length: 5", "Transfer-Encoding: chunked"), id="F10-framing"
        ),
        pytest.param(request("GET", "/", "Expect: a miracle"), id="F10-expectation"),
    ],
)
def test_f10_nothing_behind_a_refusal_is_served(kept: Config, bad: bytes) -> None:
    """CVE-2024-49768."""
    with Server(echo, kept) as server, Client(server.address) as client:
        client.send(bad + request("GET", "/smuggled") * 3)
        assert client.receive().closes
        client.send(request("GET", "/late"))
        client.ended()
        server.settled()
        assert [each.target for each in server.records if each.status < 400] == []


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_f11_a_body_that_nobody_reads_is_no_request(kept: Config, framing: str) -> None:
    """CVE-2022-29361."""
    body = request("GET", "/smuggled")
    first = request("POST", "/1", body=body)
    if framing == "chunked":
        first = request("POST", "/1", "Transfer-Encoding: chunked") + chunked(body)
    with Server(silent, kept) as server, Client(server.address) as client:
        client.send(first + request("GET", "/2"))
        assert [client.receive().body, client.receive().body] == [b"/1", b"/2"]
        server.settled()
        assert [each.target for each in server.records] == ["/1", "/2"]


def test_f12_responses_come_in_the_order_of_the_requests(kept: Config) -> None:
    """CVE-2023-46137, CVE-2024-41671: also when a later one would be ready sooner."""
    turns = threading.Semaphore(0)

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/slow":
            assert turns.acquire(timeout=PATIENCE)
        return echo(environ, start_response)

    with Server(app, kept) as server, Client(server.address) as client:
        client.send(request("GET", "/slow") + request("POST", "/2", body=b"two") + request("GET", "/3"))
        turns.release()
        bodies = [client.receive().body for _ in range(3)]
    assert bodies == [b"GET /slow\n", b"POST /2\ntwo", b"GET /3\n"]


def test_f13_nothing_behind_close_is_served(kept: Config) -> None:
    with Server(echo, kept) as server, Client(server.address) as client:
        client.send(request("GET", "/last", "Connection: close") + request("GET", "/more") * 3)
        assert client.receive().closes
        client.ended()
        server.settled()
        assert [each.target for each in server.records] == ["/last"]


@pytest.mark.parametrize(
    ("head", "interim", "status"),
    [
        pytest.param(
            request("POST", "/", "Expect: 100-continue", "Content-Length: 2"), 1, 200, id="F14-body"
        ),
        pytest.param(request("GET", "/", "Expect: 100-continue"), 0, 200, id="F14-no-body"),
        pytest.param(
            request("POST", "/", "Expect: 100-continue", "Content-Length: 0"), 0, 200, id="F14-empty-body"
        ),
        pytest.param(
            b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n", 0, 200, id="F14-1.0"
        ),
        pytest.param(request("POST", "/", "Expect: 200-ok", "Content-Length: 2"), 0, 417, id="F14-other"),
        pytest.param(
            request("POST", "/", "Expect: 100-continue", f"Content-Length: {1 << 40}"), 0, 413, id="F14-413"
        ),
    ],
)
def test_f14_continue(kept: Config, head: bytes, interim: int, status: int) -> None:
    with Server(echo, kept) as server, Client(server.address) as client:
        client.send(head)
        if interim:
            assert client.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        if status == 200:
            client.send(b"ok" if b"Content-Length: 2" in head else b"")
        answer = client.receive()
        assert (answer.status, answer.interim) == (status, [])
        # What was announced and not asked for may come all the same: it must not be read as a request.
        assert answer.closes is (status != 200 or b"HTTP/1.0" in head)


# --- other protocols ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", ["no body", "length", "chunked"])
@pytest.mark.parametrize("lines", [WEBSOCKET, H2C], ids=["R7.8-websocket", "R7.8-h2c"])
def test_upgrade_is_ignored(kept: Config, lines: tuple[str, ...], framing: str) -> None:
    """RFC 9110 7.8: "A server MAY ignore a received Upgrade header field"; RFC 9113 3.1: h2c is obsolete."""
    requests = {
        "no body": request("GET", "/chat", *lines),
        "length": request("POST", "/chat", *lines, body=b"body"),
        "chunked": request("POST", "/chat", *lines, "Transfer-Encoding: chunked") + chunked(b"body"),
    }
    with Server(echo, kept) as server, Client(server.address) as client:
        client.send(requests[framing] + request("GET", "/next"))
        answer = client.receive()
        assert answer.status == 200
        assert answer.body.endswith(b"/chat\n" if framing == "no body" else b"/chat\nbody")
        assert not answer.headers.keys() & {"upgrade", "connection"}
        assert client.receive().body == b"GET /next\n"


def test_w4_no_application_switches_protocols(kept: Config) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("101 Switching Protocols", [("Upgrade", "websocket"), ("Connection", "Upgrade")])
        return [b""]

    with Server(app, kept) as server, Client(server.address) as client:
        assert client.get("/chat", *WEBSOCKET).status == 500


@pytest.mark.parametrize("cut", ["whole", "byte by byte", "without its end"])
@pytest.mark.parametrize("before", [0, 1, 3], ids=["L4-first", "L4-second", "L4-behind-a-pipeline"])
def test_l4_the_preface_of_http_2_is_answered_and_closed(kept: Config, cut: str, before: int) -> None:
    """RFC 9113 3.4: it was made so that who speaks HTTP/1.1 goes no further."""
    stream = request("GET", "/") * before + (PREFACE[:18] if cut == "without its end" else PREFACE)
    with Server(echo, kept) as server, Client(server.address) as client:
        for piece in every_byte(stream) if cut == "byte by byte" else [stream]:
            client.send(piece)
        for _ in range(before):
            assert client.receive().status == 200
        answer = client.receive()
        assert (answer.status, answer.closes) == (505, True)
        client.ended()
        server.settled()
        assert [each.status for each in server.records] == [200] * before + [505]


def test_compressed_bodies_are_the_applications(kept: Config) -> None:
    """RFC 9110 8.4: the coding is a property of the representation, which passes as it is."""
    seen: list[Environ] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        seen.append(environ)
        start_response("200 OK", [("Content-Encoding", "gzip")])
        return [environ["wsgi.input"].read()]

    packed = gzip.compress(b"x" * 100_000)
    with Server(app, kept) as server, Client(server.address) as client:
        client.send(request("POST", "/", "Content-Encoding: gzip", body=packed))
        answer = client.receive()
    assert answer.body == packed
    assert answer.headers["content-encoding"] == "gzip"
    assert (seen[0]["HTTP_CONTENT_ENCODING"], seen[0]["CONTENT_LENGTH"]) == ("gzip", str(len(packed)))


def test_f8_te_and_trailer_mean_nothing(kept: Config) -> None:
    """RFC 9110 10.1.4, 6.6.2: no transfer coding but chunked is sent, and trailers are dropped."""
    seen: list[Environ] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        seen.append(environ)
        start_response("200 OK", [])
        return iter([b"in ", b"chunks"])

    head = request("POST", "/", "TE: trailers, gzip", "Trailer: X-Sum", "Transfer-Encoding: chunked")
    with Server(app, kept) as server, Client(server.address) as client:
        client.send(head + b"2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n" + request("GET", "/"))
        for _ in range(2):
            answer = client.receive()
            assert answer.headers["transfer-encoding"] == "chunked"
            assert answer.body == b"in chunks"
    assert not any("X_SUM" in key for environ in seen for key in environ)


# --- responses ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize(
    "headers", [[], [("Content-Length", "9")]], ids=["W5-no-last-chunk", "W5-length-not-reached"]
)
@pytest.mark.parametrize("how", ["raises", "ends"])
def test_w5_a_cut_response_is_seen_to_be_one(
    kept: Config, kind: str, headers: list[tuple[str, str]], how: str, tmp_path: Path
) -> None:
    """Also where there is no reset: over a UNIX socket."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", headers)
        yield b"part"
        if how == "raises" or not headers:
            raise RuntimeError("on purpose")

    door = tcp_door() if kind == "tcp" else unix_door(str(tmp_path / "socket"))
    with Server(app, kept, [door]) as server, Client(server.address) as client:
        client.send(request("GET", "/") + request("GET", "/next"))
        with pytest.raises((h11.RemoteProtocolError, ConnectionResetError)):
            client.receive()
        server.settled()
        assert [each.target for each in server.records] == ["/"]


@pytest.mark.parametrize("size", [1, 20], ids=["W5-sent-at-once", "W5-read-slowly"])
def test_w5_a_cut_response_that_the_end_would_end_is_reset(kept: Config, size: int) -> None:
    """HTTP/1.0: nothing but the end of the connection tells where the body ends."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        yield PATTERN[:9] if size == 1 else PATTERN * size
        raise RuntimeError("on purpose")

    with Server(app, kept) as server, Client(server.address, 4096) as client:
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            client.receive()


def test_w6_close_is_called_when_the_client_is_gone(kept: Config) -> None:
    closed = threading.Semaphore(0)

    class Endless:
        def __iter__(self) -> Endless:
            return self

        def __next__(self) -> bytes:
            return bytes(1 << 16)

        def close(self) -> None:
            closed.release()

    with Server(answering(Endless()), kept) as server, Client(server.address) as client:
        client.send(request("GET", "/"))
        assert client.socket.recv(100)
        client.reset()
        assert closed.acquire(timeout=PATIENCE)
        server.until(lambda loop: not loop.book.connections)


@pytest.mark.parametrize(
    "fault", [SystemExit, KeyboardInterrupt, GeneratorExit], ids=lambda kind: kind.__name__
)
def test_w9_no_application_ends_its_worker(kept: Config, fault: type[BaseException]) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/bad":
            raise fault(1)
        return echo(environ, start_response)

    with Server(app, kept) as server, Client(server.address) as client:
        assert client.get("/bad").status == 500
        assert client.get("/good").body == b"GET /good\n"


@pytest.mark.parametrize(
    "stream",
    [
        request("GET", "/<script>", "X : <script>"),
        b"GET /<script> HTTP/1.1\r\nHost: <script>\r\n\r\n",
        b"<script> / HTTP/1.1\r\n\r\n",
        request("GET", "/", "Expect: <script>"),
        request("POST", "/<script>", "Transfer-Encoding: <script>, chunked"),
        b"GET /" + b"<script>" * 2000,
    ],
    ids=["W10-name", "W10-host", "W10-method", "W10-expectation", "W10-coding", "W10-target"],
)
def test_w10_w12_a_refusal_reflects_nothing_and_has_a_date(kept: Config, stream: bytes) -> None:
    """CVE-2022-39348."""
    with Server(echo, kept) as server, Client(server.address) as client:
        client.send(stream)
        answer = client.receive()
        assert answer.status >= 400
        assert b"script" not in answer.body
        assert not any("script" in value for value in answer.headers.values())
        assert answer.headers["date"] == "Fri, 15 Jan 2027 08:16:40 GMT"
