"""Who is let in: what comes before HTTP, and how many at once."""

from __future__ import annotations

import contextlib
import select
from collections.abc import Iterable

import pytest

from stardust.settings.table import Config
from tests.worker.harness import (
    INLINE,
    PATIENCE,
    PATTERN,
    Client,
    Environ,
    Gate,
    Server,
    StartResponse,
    Word,
    asking,
    echo,
    gated,
    request,
)


class TestGreeting:
    @pytest.mark.parametrize("size", [1, 3, 4, 1000], ids=str)
    def test_http_comes_behind_it(self, kept: Config, size: int) -> None:
        """However the bytes are cut: what is behind the greetings is HTTP, and they do not come again."""
        with Server(echo, kept, [asking(Word, Word)]) as server, Client(server.address) as client:
            stream = b"onetwo" + request("GET", "/a")
            for start in range(0, len(stream), size):
                client.send(stream[start : start + size])
                server.until(lambda loop: loop.book.connections)
            assert client.receive().body == b"GET /a\n"
            assert client.get("/b").body == b"GET /b\n"
        assert [record.peer for record in server.records] == ["two", "two"]

    def test_until_the_client_reads(self, kept: Config) -> None:
        door = asking(lambda connection: Word(connection, PATTERN * 20))
        with Server(echo, kept, [door]) as server, Client(server.address, 4096) as client:
            client.send(b"one")
            server.until(
                lambda loop: [each.interest for each in loop.book.greeting.members] == [select.EPOLLOUT]
            )
            left = 20 * len(PATTERN)
            while left:
                left -= len(client.socket.recv(min(left, 1 << 20)))
            assert client.get("/a").body == b"GET /a\n"

    @pytest.mark.parametrize("begun", [b"", b"o"], ids=["nothing", "a part"])
    def test_it_has_its_time(self, kept: Config, begun: bytes) -> None:
        """One deadline for all of it; who has come to HTTP in time has its other limits."""
        with (
            Server(echo, kept, [asking(Word)]) as server,
            Client(server.address) as late,
            Client(server.address) as timely,
        ):
            server.until(lambda loop: len(loop.book.greeting.members) == 2)
            server.advance(5)
            late.send(begun)
            timely.send(b"one")
            server.until(lambda loop: loop.book.fresh.members)
            server.advance(5)
            late.ended()
            server.advance(20)
            assert timely.get("/a").body == b"GET /a\n"
        assert len(server.records) == 1

    def test_who_is_done_is_not_late(self, kept: Config) -> None:
        """The worker was busy: the client's word has come in time, and waited for somebody to look."""
        bell = Gate()
        with Server(echo, kept, [asking(Word)]) as server, Client(server.address) as client:
            server.until(lambda loop: loop.book.greeting.members)
            server.order(bell.wait)
            bell.reached()
            client.send(b"one" + request("GET", "/a"))
            ours = [connection.socket for connection in server.loop.book.connections.values()]
            assert select.select(ours, [], [], PATIENCE)[0]
            server.order(lambda: server.loop.sweep(server.clock.now))
            server.clock.now += 11
            bell.open()
            assert client.receive().body == b"GET /a\n"

    @pytest.mark.parametrize("how", ["bad", "gone", "reset"])
    def test_who_does_not_come_to_http(self, kept: Config, how: str) -> None:
        with Server(echo, kept, [asking(Word)]) as server, Client(server.address) as client:
            server.until(lambda loop: loop.book.greeting.members)
            if how == "bad":
                client.send(b"badGET / HTTP/1.1")
                with pytest.raises(ConnectionResetError):
                    client.ended()
            elif how == "gone":
                client.socket.close()
            else:
                client.reset()
            server.until(lambda loop: not loop.book.connections)
        assert server.records == []

    def test_a_stop_does_not_wait_for_it(self, kept: Config) -> None:
        with Server(echo, kept, [asking(Word)]) as server, Client(server.address) as client:
            server.until(lambda loop: loop.book.greeting.members)
            server.leave(final=True)
            server.advance(2)
            client.ended()
            server.ended()


class TestAtOnce:
    """How many connections are let in before the first of them is served."""

    @pytest.mark.parametrize(("seconds", "most"), [(0.0, 16), (0.0005, 2), (0.01, 1)])
    def test_what_can_be_served_within_a_millisecond(self, seconds: float, most: int) -> None:
        gate = Gate()
        servers: list[Server] = []
        held: list[int] = []

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            servers[0].clock.now += seconds
            held.append(len(servers[0].loop.book.connections))
            return gated(gate)(environ, start_response)

        with Server(app, INLINE) as server, contextlib.ExitStack() as stack:
            servers.append(server)
            first = stack.enter_context(Client(server.address))
            for _ in range(20):
                first.get()
            first.send(request("GET", "/wait"))
            gate.reached()
            held.clear()
            clients = [stack.enter_context(Client(server.address)) for _ in range(16)]
            for client in clients:
                client.send(request("GET", "/"))
            gate.open()
            for client in (first, *clients):
                assert client.receive().status == 200
            assert held[0] == 1 + most
