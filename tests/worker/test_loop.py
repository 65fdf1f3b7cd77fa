"""The turns of the loop: everybody has one, and the scoreboard knows."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable

from stardust.base.records import replace
from stardust.ipc.scoreboard import BUSY, IDLE
from stardust.settings.table import Config
from tests.worker.harness import (
    INLINE,
    PATIENCE,
    THREADS,
    Client,
    Environ,
    Gate,
    Server,
    StartResponse,
    echo,
    gated,
    request,
)


class TestPipelining:
    def test_s8_a_thousand_in_one_go(self, kept: Config) -> None:
        """Far more bytes than are read at once: heads are cut anywhere."""
        stream = b"".join(request("GET", f"/{number}", f"X: {'x' * 200}") for number in range(1000))
        with Server(echo, kept) as server, Client(server.address) as client:
            sender = threading.Thread(target=client.send, args=[stream])
            sender.start()
            for number in range(1000):
                assert client.receive().body == b"GET /%d\n" % number
            sender.join(PATIENCE)

    def test_s7_others_have_their_turn(self) -> None:
        """RFC 9112 9.3.2 lets a client send many; it does not let it come first with all of them."""
        gate, order = Gate(), []

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            order.append(environ["PATH_INFO"])
            return gated(gate)(environ, start_response)

        with Server(app, INLINE) as server, Client(server.address) as greedy, Client(server.address) as other:
            other.get("/first")
            greedy.send(request("GET", "/wait") + request("GET", "/greedy") * 100)
            gate.reached()
            other.send(request("GET", "/other"))
            gate.open()
            assert other.receive().body == b"GET /other\n"
            for _ in range(101):
                greedy.receive()
        assert order.index("/other") <= 3

    def test_s8_reading_stops_while_requests_wait(self) -> None:
        """Else a client could have its requests gathered in our memory without limit."""
        held: list[int] = []
        servers: list[Server] = []

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            held.extend(len(each.buffer) for each in servers[0].loop.book.connections.values())
            return echo(environ, start_response)

        stream = request("GET", "/", f"X: {'x' * 2000}") * 1000
        with Server(app, INLINE) as server, Client(server.address) as client:
            servers.append(server)
            sender = threading.Thread(target=client.send, args=[stream])
            sender.start()
            for _ in range(1000):
                client.receive()
            sender.join(PATIENCE)
        assert max(held) < 2 * 65536

    def test_f13_what_nobody_reads_takes_no_answer_along(self, kept: Config) -> None:
        """Closed with bytes unread, a connection is reset, and a response may be lost that is on its way."""
        gate = Gate()
        config = replace(kept, max_keepalive_reqs=1)
        with Server(gated(gate), config) as server, Client(server.address) as client:
            client.send(request("GET", "/wait"))
            gate.reached()
            client.send(request("GET", "/never"))
            gate.open()
            answer = client.receive()
            assert (answer.body, answer.closes) == (b"GET /wait\n", True)
            client.ended()
            assert len(server.records) == 1

    def test_behind_the_last_request_nothing_is_served(self, kept: Config) -> None:
        """RFC 9112 9.6; and the response is not lost by a reset although bytes were left unread."""
        with (
            Server(echo, replace(kept, max_keepalive_reqs=2)) as server,
            Client(server.address) as client,
        ):
            client.send(request("GET", "/a") * 5)
            assert not client.receive().closes
            assert client.receive().closes
            client.ended()
            server.settled()
            assert len(server.records) == 2


class TestScoreboard:
    def test_busy_and_idle(self, kept: Config) -> None:
        gate = Gate()
        with (
            Server(gated(gate), replace(kept, request_timeout=60)) as server,
            Client(server.address) as client,
        ):
            server.settled()
            assert server.entry[2:8] == (IDLE, 0, 0, 0, 1000.0, 0.0)
            server.advance(5)
            client.send(request("GET", "/wait?a"))
            gate.reached()
            entry = server.entry
            assert (entry.state, entry.running, entry.since, entry.deadline) == (BUSY, 1, 1005.0, 1065.0)
            assert entry.text == "127.0.0.1 GET /wait?a HTTP/1.1"
            server.clock.now += 5
            gate.open()
            client.receive()
            server.settled()
            entry = server.entry
            assert (entry.state, entry.requests, entry.connections, entry.running) == (IDLE, 1, 1, 0)
            assert (entry.since, entry.deadline) == (1010.0, 0.0)

    def test_without_a_limit_there_is_no_deadline(self, kept: Config) -> None:
        gate = Gate()
        with Server(gated(gate), kept) as server, Client(server.address) as client:
            client.send(request("GET", "/wait"))
            gate.reached()
            assert server.entry.deadline == 0.0
            gate.open()
            client.receive()

    def test_the_oldest_stands_for_all(self) -> None:
        gates = {"/1": Gate(), "/2": Gate(), "/3": Gate()}

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            gates[environ["PATH_INFO"]].wait()
            return echo(environ, start_response)

        with Server(app, replace(THREADS, request_timeout=60)) as server, contextlib.ExitStack() as stack:
            clients = []
            for target, gate in gates.items():
                clients.append(stack.enter_context(Client(server.address)))
                clients[-1].send(request("GET", target))
                gate.reached()
                server.advance(1)
            for count, target, began in ((3, "/1", 1000.0), (2, "/2", 1001.0), (1, "/3", 1002.0)):
                entry = server.entry
                assert (entry.state, entry.running, entry.since, entry.deadline) == (
                    BUSY,
                    count,
                    began,
                    began + 60,
                )
                assert entry.text == f"127.0.0.1 GET {target} HTTP/1.1"
                gates[target].open()
                clients.pop(0).receive()
                server.settled(count=count - 1)
            assert server.entry.state == IDLE
