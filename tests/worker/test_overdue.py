"""Whose time is over: limits of time, and of pace."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable

import h11
import pytest

from stardust.base.records import replace
from stardust.settings.table import Config
from stardust.worker.loop import Loop
from tests.worker.harness import (
    INLINE,
    PATTERN,
    THREADS,
    Client,
    Environ,
    Gate,
    Server,
    StartResponse,
    echo,
    gated,
    queued,
    request,
    with_large,
)


class TestTimeLimits:
    def test_s1_a_connection_without_a_byte(self, kept: Config) -> None:
        """Nobody is told of a request that was never begun."""
        with Server(echo, kept) as server, Client(server.address) as client:
            server.until(lambda loop: loop.book.connections)
            server.advance(29.9)
            assert server.ask(lambda loop: len(loop.book.connections)) == 1
            server.advance(0.1)
            client.ended()
            assert server.records == []

    def test_s1_a_head_that_never_ends(self, kept: Config) -> None:
        """Bytes on the way do not extend it: the limit is for the whole head."""
        with Server(echo, kept) as server, Client(server.address) as client:
            client.send(b"GET / HTTP/1.1\r\n")
            server.until(lambda loop: loop.book.reading_heads.members)
            server.advance(20)
            client.send(b"Host: test\r\n")
            server.advance(9.9)
            client.send(b"X: y\r\n")
            server.advance(0.1)
            answer = client.receive()
            assert (answer.status, answer.closes) == (408, True)
            client.ended()
            assert [(each.status, each.note) for each in server.records] == [(408, "header-timeout")]

    def test_s2_a_body_that_stops(self, kept: Config) -> None:
        """Each byte extends it."""
        with Server(echo, replace(kept, min_body_rate=0)) as server, Client(server.address) as client:
            client.send(request("POST", "/", "Content-Length: 5"))
            server.until(lambda loop: loop.book.reading_bodies.members)
            for _ in range(3):
                server.advance(299)
                client.send(b"x")
                server.until(lambda loop: loop.book.reading_bodies.next() == server.clock.now + 300)
            server.advance(300)
            answer = client.receive()
            assert (answer.status, answer.closes) == (408, True)
            client.ended()
            assert [(each.status, each.note) for each in server.records] == [(408, "timeout")]

    def test_s1_a_connection_without_a_next_request(self, kept: Config) -> None:
        with Server(echo, kept) as server, Client(server.address) as client:
            for _ in range(2):
                client.get()
                server.settled()
                server.advance(1.9)
            assert server.ask(lambda loop: len(loop.book.connections)) == 1
            server.advance(0.1)
            client.ended()
            assert len(server.records) == 2

    def test_s1_the_head_of_a_next_request_has_its_own_time(self, kept: Config) -> None:
        with Server(echo, kept) as server, Client(server.address) as client:
            client.get()
            client.send(b"GET /slow HTTP/1.1\r\n")
            server.until(lambda loop: loop.book.reading_heads.members)
            server.advance(29)
            client.send(b"Host: test\r\n\r\n")
            assert client.receive().body == b"GET /slow\n"

    @pytest.mark.parametrize(
        ("begun", "wait"), [(b"", 10.0), (b"GET /b HTTP/1.1\r\n", 60.0)], ids=["parked", "in the head"]
    )
    def test_s1_what_came_while_the_application_worked_is_not_late(self, begun: bytes, wait: float) -> None:
        gate = Gate()
        whole = request("GET", "/b")
        with Server(gated(gate), INLINE) as server, Client(server.address) as a, Client(server.address) as b:
            b.get()
            b.send(begun)
            server.until(lambda loop: not begun or loop.book.reading_heads.members)
            a.send(request("GET", "/wait"))
            gate.reached()
            b.send(whole[len(begun) :])
            server.clock.now += wait
            gate.open()
            assert b.receive().body == b"GET /b\n"

    def test_s1_what_came_is_not_late_behind_many_others(self) -> None:
        """One poll reports so many events at most, and the application takes its time for each."""
        gate = Gate()
        servers: list[Server] = []

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            if environ["PATH_INFO"] == "/slow":
                servers[0].clock.now += 1.0
            return gated(gate)(environ, start_response)

        with Server(app, INLINE) as server, contextlib.ExitStack() as stack:
            servers.append(server)
            clients = [stack.enter_context(Client(server.address)) for _ in range(150)]
            for client in clients:
                client.get()
            with Client(server.address) as first:
                first.send(request("GET", "/wait"))
                gate.reached()
                for client in clients:
                    client.send(request("GET", "/slow"))
                gate.open()
                for client in clients:
                    assert client.receive().body == b"GET /slow\n"


class TestPace:
    """The clock goes in steps of no more than a second here: what the loop looks at too late is forgiven."""

    def test_s2_a_body_that_drips(self, kept: Config) -> None:
        """Bytes on the way do not help who sends too few: a limit on silence would never end this."""
        with Server(echo, kept) as server, Client(server.address) as client:
            client.send(request("POST", "/", "Content-Length: 9999"))
            server.until(lambda loop: loop.book.reading_bodies.members)
            for _ in range(10):
                client.send(b"x" * 100)
                server.advance(1)
            answer = client.receive()
            assert (answer.status, answer.closes) == (408, True)
            client.ended()
            assert [(each.status, each.note) for each in server.records] == [(408, "min-body-rate")]
            assert "refused a request of 127.0.0.1: 408, min-body-rate" in server.said

    @pytest.mark.parametrize("framing", ["Content-Length: 9999", "Transfer-Encoding: chunked"])
    def test_s2_a_body_that_never_begins(self, kept: Config, framing: str) -> None:
        with Server(echo, kept) as server, Client(server.address) as client:
            client.send(request("POST", "/", framing))
            server.until(lambda loop: loop.book.reading_bodies.members)
            for _ in range(5):
                server.advance(1)
            assert server.records == []
            for _ in range(5):
                server.advance(1)
            assert client.receive().status == 408

    def test_s2_who_is_just_fast_enough(self, kept: Config) -> None:
        with Server(echo, kept) as server, Client(server.address) as client:
            client.send(request("POST", "/", "Content-Length: 14400"))
            server.until(lambda loop: loop.book.reading_bodies.members)
            for second in range(1, 61):
                client.send(b"x" * 240)
                server.until(functools.partial(has_received, second * 240))
                server.advance(1)
            assert client.receive().body == b"POST /\n" + b"x" * 14400

    def test_s2_who_was_fast_may_pause(self, kept: Config) -> None:
        with Server(echo, kept) as server, Client(server.address) as client:
            client.send(request("POST", "/", "Content-Length: 24001") + b"x" * 24000)
            server.until(lambda loop: received(loop) == 24000)
            for _ in range(100):
                server.advance(1)
            client.send(b"x")
            assert client.receive().status == 200

    def test_s2_time_in_which_the_worker_reads_nothing_is_forgiven(self) -> None:
        """The application had the loop; what came meanwhile waited in the kernel."""
        gate = Gate()
        with Server(gated(gate), INLINE) as server, Client(server.address) as a, Client(server.address) as b:
            b.send(request("POST", "/b", "Content-Length: 2") + b"x")
            server.until(lambda loop: loop.book.reading_bodies.members)
            a.send(request("GET", "/wait"))
            gate.reached()
            server.clock.now += 60
            gate.open()
            assert a.receive().status == 200
            server.advance(1)
            b.send(b"y")
            assert b.receive().body == b"POST /b\nxy"

    def test_s2_time_in_the_queue_for_a_thread_counts_for_nobody(self) -> None:
        gate = Gate()
        with Server(gated(gate), replace(THREADS, threads=2)) as server, contextlib.ExitStack() as stack:
            busy = [stack.enter_context(Client(server.address)) for _ in range(2)]
            waiting = stack.enter_context(Client(server.address))
            waiting.send(request("POST", "/", "Content-Length: 2") + b"x")
            server.until(lambda loop: loop.book.reading_bodies.members)
            for client in busy:
                client.send(request("GET", "/wait"))
            gate.reached(2)
            waiting.send(b"y")
            server.until(queued)
            for _ in range(60):
                server.advance(1)
            gate.open()
            assert waiting.receive().body == b"POST /\nxy"

    def test_s2_without_a_limit(self, kept: Config) -> None:
        config = replace(kept, min_body_rate=0, min_response_rate=0)
        with Server(with_large(), config) as server, Client(server.address, 4096) as client:
            client.send(request("POST", "/", "Content-Length: 2") + b"x")
            server.until(lambda loop: loop.book.reading_bodies.members)
            for _ in range(60):
                server.advance(1)
            client.send(b"y" + request("GET", "/large"))
            assert client.receive().body == b"POST /\nxy"
            server.until(lambda loop: loop.book.sending.members)
            for _ in range(60):
                server.advance(1)
            assert client.receive().body == PATTERN * 20

    def test_s2_nobody_is_looked_at_who_is_through(self, kept: Config) -> None:
        with Server(with_large(), kept) as server, Client(server.address, 4096) as client:
            client.send(request("POST", "/", "Content-Length: 2") + b"x")
            server.until(lambda loop: loop.book.paced.members)
            client.send(b"y")
            client.receive()
            server.until(lambda loop: not loop.book.paced.members)
            client.send(request("GET", "/large"))
            server.until(lambda loop: loop.book.paced.members)
            client.receive()
            server.until(lambda loop: not loop.book.paced.members)
            client.send(request("POST", "/", "Content-Length: 2") + b"x")
            server.until(lambda loop: loop.book.paced.members)
            client.reset()
            server.until(lambda loop: not loop.book.paced.members)

    def test_s2_a_thousand_are_looked_at_together(self) -> None:
        """At whole seconds: what is slow may not wake the worker once for each of them."""
        with Server(echo, INLINE) as server, contextlib.ExitStack() as stack:
            server.advance(0.01)
            for _ in range(50):
                client = stack.enter_context(Client(server.address))
                client.send(request("POST", "/", "Content-Length: 2"))
                server.until(lambda loop: not loop.book.fresh.members)
                server.advance(0.019)
            assert len(server.ask(lambda loop: set(loop.book.paced.members.values()))) == 1

    def test_s3_a_reader_that_drips(self, kept: Config) -> None:
        with Server(with_large(), kept) as server, Client(server.address, 4096) as slow:
            slow.send(request("GET", "/large"))
            server.until(lambda loop: loop.book.sending.members)
            for _ in range(30):
                slow._rest += slow.socket.recv(10)
                server.advance(1)
            assert [(each.status, each.note) for each in server.records] == [(200, "min-response-rate")]
            with pytest.raises((h11.RemoteProtocolError, ConnectionResetError)):
                slow.receive()

    def test_s3_a_reader_that_is_fast_enough(self, kept: Config) -> None:
        with Server(with_large(), kept) as server, Client(server.address, 4096) as slow:
            slow.send(request("GET", "/large"))
            server.until(lambda loop: loop.book.sending.members)
            for _ in range(40):
                slow._rest += slow.socket.recv(1 << 16)
                server.advance(1)
            assert slow.receive().body == PATTERN * 20

    def test_s3_a_stream_whose_application_is_slow(self) -> None:
        """What has gone as far as there is anything is not slow, whatever the clock says."""
        gates = [Gate(), Gate()]

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", [("Content-Type", "text/event-stream")])
            for gate in gates:
                yield b"data: x\n\n"
                gate.wait()

        with Server(app, THREADS) as server, Client(server.address) as client:
            client.send(request("GET", "/events"))
            for gate in gates:
                gate.reached()
                for _ in range(60):
                    server.advance(1)
                gate.open()
            assert client.receive().body == b"data: x\n\n" * 2


def received(loop: Loop) -> int:
    """Bytes of the body that is on its way, 0 without one."""
    return sum(each.body.received for each in loop.book.reading_bodies.members if each.body is not None)


def has_received(size: int, loop: Loop) -> bool:
    """Whether so many bytes have come, or all."""
    return received(loop) in (size, 0)
