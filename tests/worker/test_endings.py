"""Connections that do not end with their last response: clients that leave, requests that are refused."""

from __future__ import annotations

import socket
from collections.abc import Iterable

import pytest

from stardust.settings.table import Config
from tests.worker.harness import (
    INLINE,
    PATTERN,
    Client,
    Environ,
    Gate,
    Server,
    StartResponse,
    echo,
    gated,
    request,
    with_large,
)


class TestClientsThatLeave:
    @pytest.mark.parametrize("requests", [1, 3])
    def test_s9_half_close(self, kept: Config, requests: int) -> None:
        """A client may say that it has nothing more to ask; it still gets its answers."""
        with Server(echo, kept) as server, Client(server.address) as client:
            client.send(request("GET", "/a") * requests)
            client.socket.shutdown(socket.SHUT_WR)
            for _ in range(requests):
                assert client.receive().body == b"GET /a\n"
            client.ended()

    @pytest.mark.parametrize("how", ["end", "reset"])
    @pytest.mark.parametrize(
        ("stream", "logged"),
        [
            (b"", 0),
            (b"GET / HT", 0),
            (request("POST", "/", "Content-Length: 9") + b"bod", 1),
            (request("POST", "/", "Transfer-Encoding: chunked") + b"5\r\nbod", 1),
        ],
        ids=["before the head", "in the head", "in the body", "in a chunk"],
    )
    def test_s9_before_the_request_is_whole(self, kept: Config, how: str, stream: bytes, logged: int) -> None:
        """RFC 9112 8: an incomplete request is none, and the application never hears of it."""
        calls: list[Environ] = []

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            calls.append(environ)
            return echo(environ, start_response)

        with Server(app, kept) as server, Client(server.address) as client:
            client.send(stream)
            server.until(lambda loop: loop.book.connections)
            server.until(
                lambda loop: not stream or loop.book.reading_heads.members or loop.book.reading_bodies.members
            )
            if how == "reset":
                client.reset()
            else:
                client.socket.close()
            server.until(lambda loop: not loop.book.connections)
            assert calls == []
            assert [(each.status, each.note) for each in server.records] == [(0, "client gone")] * logged

    def test_s9_reset_while_parked(self, kept: Config) -> None:
        with Server(echo, kept) as server, Client(server.address) as client:
            client.get()
            client.reset()
            server.until(lambda loop: not loop.book.connections)

    def test_s9_reset_while_the_application_works(self, kept: Config) -> None:
        gate = Gate()
        with Server(gated(gate), kept) as server, Client(server.address) as client:
            client.send(request("GET", "/wait"))
            gate.reached()
            client.reset()
            gate.open()
            server.until(lambda loop: not loop.book.connections)
            assert [each.note for each in server.records] == ["client gone"]
            with Client(server.address) as other:
                assert other.get().status == 200

    def test_s9_reset_with_requests_waiting(self) -> None:
        gate = Gate()
        with Server(gated(gate), INLINE) as server, Client(server.address) as client:
            client.send(request("GET", "/wait") + request("GET", "/next") * 3)
            gate.reached()
            client.reset()
            gate.open()
            server.until(lambda loop: not loop.book.connections and not loop.serving.ready)

    @pytest.mark.parametrize("how", ["end", "reset"])
    def test_s9_while_the_response_waits(self, kept: Config, how: str) -> None:
        with Server(with_large(), kept) as server, Client(server.address, 4096) as client:
            client.send(request("GET", "/large"))
            server.until(lambda loop: loop.book.sending.members)
            if how == "reset":
                client.reset()
            else:
                client.socket.close()
            server.until(lambda loop: not loop.book.connections)
            assert [(each.status, each.note) for each in server.records] == [(200, "client gone")]

    def test_an_application_that_closed_the_socket(self, kept: Config) -> None:
        """As after an upgrade to a protocol of its own, spoken over `stardust.socket`."""

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            if environ["PATH_INFO"] == "/own":
                environ["stardust.socket"].send(b"hello")
                environ["stardust.socket"].close()
            return echo(environ, start_response)

        with Server(app, kept) as server, Client(server.address) as client:
            client.get()
            client.send(request("GET", "/own"))
            assert client.socket.recv(100) == b"hello"
            client.ended()
            with Client(server.address) as other:
                assert other.get().status == 200


class TestRefusals:
    @pytest.mark.parametrize(
        ("stream", "status"),
        [
            (b"nonsense\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\n\r\n", 400),
            (b"GET / HTTP/2.0\r\n\r\n", 505),
            (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 501),
            (b"GET /" + b"a" * 9000, 414),
            (request("GET", "/", *["X: y"] * 101), 431),
            (request("GET", "/", "Expect: the unexpected"), 417),
            (request("POST", "/", "Transfer-Encoding: chunked") + b"no size\r\n", 400),
        ],
        ids=["nonsense", "no host", "2.0", "connect", "long", "many", "expect", "chunk"],
    )
    def test_the_client_reads_why(self, kept: Config, stream: bytes, status: int) -> None:
        """RFC 9112 9.6: closing with unread bytes resets the connection, and what the client has not read
        yet would be lost. So what it goes on sending is taken, for a while."""
        with Server(echo, kept) as server, Client(server.address) as client:
            client.send(stream)
            server.until(lambda loop: loop.book.lingering.members)
            client.send(PATTERN)
            server.until(lambda loop: loop.book.lingering.members)
            client.send(PATTERN)
            answer = client.receive()
            assert (answer.status, answer.closes) == (status, True)
            client.ended()
            client.socket.close()
            server.until(lambda loop: not loop.book.connections)
            assert [each.status for each in server.records] == [status]

    def test_not_for_ever(self, kept: Config) -> None:
        with Server(echo, kept) as server, Client(server.address) as client:
            client.send(b"nonsense\r\n\r\n")
            assert client.receive().status == 400
            server.until(lambda loop: loop.book.lingering.members)
            server.advance(1.9)
            client.send(b"still here")
            server.settled()
            server.advance(0.1)
            assert server.ask(lambda loop: len(loop.book.connections)) == 0

    def test_behind_a_good_request(self, kept: Config) -> None:
        with Server(echo, kept) as server, Client(server.address) as client:
            client.send(request("GET", "/good") + b"nonsense\r\n\r\n")
            assert client.receive().body == b"GET /good\n"
            assert client.receive().status == 400
            client.ended()
