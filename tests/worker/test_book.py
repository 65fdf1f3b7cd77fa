"""Who is here: how many there may be, and who makes room."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from stardust.base.records import replace
from stardust.settings.table import Config
from tests.worker.harness import (
    INLINE,
    PATIENCE,
    Client,
    Gate,
    Server,
    Shared,
    Sibling,
    Word,
    echo,
    gated,
    passage,
    request,
    tcp_door,
    unix_door,
)


class TestAdmission:
    def test_s6_the_longest_idle_makes_room(self, kept: Config) -> None:
        config = replace(kept, max_connections=3)
        with Server(echo, config) as server, contextlib.ExitStack() as stack:
            clients = [stack.enter_context(Client(server.address)) for _ in range(3)]
            for client in (clients[1], clients[0], clients[2]):
                client.get()
                server.settled()
                server.advance(0.1)
            with Client(server.address) as late:
                assert late.get("/late").body == b"GET /late\n"
                clients[1].ended()
                assert clients[0].get().status == 200
                assert clients[2].get().status == 200
            assert server.said == ""

    def test_s6_silent_ones_are_idle_too(self, kept: Config) -> None:
        config = replace(kept, max_connections=3)
        with Server(echo, config) as server, contextlib.ExitStack() as stack:
            silent = [stack.enter_context(Client(server.address)) for _ in range(30)]
            for client in silent[:27]:
                client.ended()
            with Client(server.address) as good:
                assert good.get().status == 200

    def test_s6_whose_request_has_come_is_not_idle(self) -> None:
        gate = Gate()
        config = replace(INLINE, max_connections=2)
        with (
            Server(gated(gate), config) as server,
            Client(server.address) as idle,
            Client(server.address) as busy,
        ):
            idle.get()
            busy.send(request("GET", "/wait"))
            gate.reached()
            with Client(server.address) as late:
                late.send(request("GET", "/late"))
                idle.send(request("GET", "/idle"))
                gate.open()
                assert idle.receive().body == b"GET /idle\n"
                assert busy.receive().body == b"GET /wait\n"
                assert late.receive().body == b"GET /late\n"

    def test_s6_while_none_is_idle_new_ones_wait(self, kept: Config) -> None:
        config = replace(kept, max_connections=2)
        with Server(echo, config) as server, contextlib.ExitStack() as stack:
            slow = [stack.enter_context(Client(server.address)) for _ in range(2)]
            for client in slow:
                client.send(b"GET / HTTP/1.1\r\n")
            server.until(lambda loop: len(loop.book.reading_heads.members) == 2)
            late = stack.enter_context(Client(server.address))
            late.send(request("GET", "/late"))
            server.until(lambda loop: not loop.accepting.on)
            assert "accepts no connections for 0.1 s: 2 connections, none of them idle" in server.said
            server.advance(0.1)
            server.until(lambda loop: not loop.accepting.on)
            slow[0].send(b"Host: test\r\n\r\n")
            assert slow[0].receive().status == 200
            server.settled()
            server.advance(0.1)
            assert late.receive().body == b"GET /late\n"

    def test_s6_a_connection_that_was_given_is_taken_when_there_is_room(
        self, kept: Config, shared: Shared, sibling: Sibling
    ) -> None:
        with (
            shared(echo, replace(kept, max_connections=1)) as server,
            Client(server.address) as slow,
        ):
            slow.send(b"GET / HTTP/1.1\r\n")
            server.until(lambda loop: loop.book.reading_heads.members)
            ours, theirs = socket.socketpair()
            with ours:
                sibling.link.give(theirs.fileno(), passage(request("GET", "/given")))
                theirs.close()
                server.until(lambda loop: not loop.accepting.on)
                slow.send(b"Host: test\r\n\r\n")
                assert slow.receive().status == 200
                server.settled()
                server.advance(0.1)
                ours.settimeout(PATIENCE)
                assert b"GET /given" in ours.recv(4096)

    def test_s6_one_too_many_of_a_peer(self, kept: Config) -> None:
        config = replace(kept, max_connections_per_peer=2)
        with Server(echo, config) as server, contextlib.ExitStack() as stack:
            two = [stack.enter_context(Client(server.address)) for _ in range(2)]
            for client in two:
                client.get()
            for _ in range(3):
                third = stack.enter_context(Client(server.address))
                answer = third.receive()
                assert (answer.status, answer.closes) == (503, True)
                third.ended()
            assert server.said.count("refused 127.0.0.1: max-connections-per-peer") == 1
            server.advance(1)
            assert "(2 like this within a second)" in server.said
            server.settled()
            assert len(server.records) == 2
            two[0].socket.close()
            server.until(lambda loop: len(loop.book.connections) == 1)
            with Client(server.address) as again:
                assert again.get().status == 200

    def test_s6_who_has_not_come_to_http_counts_too(self, kept: Config) -> None:
        """And is told nothing: there is no HTTP on that connection yet."""
        config = replace(kept, max_connections_per_peer=1)
        with (
            Server(echo, config, [tcp_door()._replace(greetings=(Word,))]) as server,
            Client(server.address) as first,
            Client(server.address) as second,
        ):
            server.until(lambda loop: loop.book.greeting.members)
            second.ended()
            first.send(b"::1")
            assert first.get().status == 200
            assert server.ask(lambda loop: len(loop.book.connections)) == 1

    def test_s6_who_comes_by_a_unix_socket_is_nobodys_peer(self, kept: Config, tmp_path: Path) -> None:
        config = replace(kept, max_connections_per_peer=1)
        with (
            Server(echo, config, [unix_door(str(tmp_path / "socket"))]) as server,
            contextlib.ExitStack() as stack,
        ):
            for _ in range(3):
                assert stack.enter_context(Client(server.address)).get().status == 200

    def test_s6_who_was_given_away_is_counted_and_stays(
        self, kept: Config, shared: Shared, sibling: Sibling
    ) -> None:
        with (
            shared(echo, replace(kept, max_connections_per_peer=1)) as server,
            contextlib.ExitStack() as stack,
        ):
            for _ in range(2):
                ours, theirs = map(stack.enter_context, socket.socketpair())
                ours.settimeout(PATIENCE)
                sibling.link.give(theirs.fileno(), passage(request("GET", "/given")))
                assert b"200 OK" in ours.recv(4096)
            server.settled()
            assert sum(server.ask(lambda loop: [*loop.book.admission._counts.values()])) == 2
