"""What happens to the others while the application has the loop for long."""

from __future__ import annotations

import select

from tests.worker.harness import (
    INLINE,
    PATIENCE,
    PATTERN,
    Client,
    Gate,
    Server,
    Shared,
    Sibling,
    Word,
    asking,
    echo,
    gated,
    request,
    tcp_door,
    with_large,
)


class TestRelief:
    """While the application has the loop for long: the guard's work, done here by the test's own thread."""

    def held(self, server: Server, client: Client, gate: Gate) -> None:
        client.send(request("GET", "/wait"))
        gate.reached()

    def test_who_asks_goes_and_who_waits_stays(self, shared: Shared, sibling: Sibling) -> None:
        gate = Gate()
        with (
            shared(gated(gate), INLINE) as server,
            Client(server.address) as busy,
            Client(server.address) as asking,
            Client(server.address) as waiting,
        ):
            waiting.get()
            asking.get()
            self.held(server, busy, gate)
            asking.send(request("GET", "/a"))
            busy.send(request("GET", "/more"))
            server.loop.relief.relieve(0.02)
            given = sibling.taken()
            assert given.passage.port == str(asking.socket.getsockname()[1])
            given.answer()
            assert asking.receive().status == 204
            sibling.nothing()
            gate.open()
            assert busy.receive().body == b"GET /wait\n"
            assert busy.receive().body == b"GET /more\n"
            assert waiting.get().status == 200

    def test_nobody_goes_while_all_are_as_busy(self, shared: Shared, sibling: Sibling) -> None:
        """Nobody has taken what was given before."""
        gate = Gate()
        with (
            shared(gated(gate), INLINE) as server,
            Client(server.address) as busy,
            Client(server.address) as first,
            Client(server.address) as second,
        ):
            first.get()
            second.get()
            self.held(server, busy, gate)
            first.send(request("GET", "/a"))
            server.loop.relief.relieve(0.02)
            second.send(request("GET", "/b"))
            server.loop.relief.relieve(0.03)
            assert sibling.taken().passage.port == str(first.socket.getsockname()[1])
            assert sibling.link.take() is None  # for what waits in the link
            sibling.nothing()
            server.loop.relief.relieve(0.04)
            assert sibling.taken().passage.port == str(second.socket.getsockname()[1])
            gate.open()
            assert busy.receive().status == 200

    def test_after_a_while_all_go(self, shared: Shared, sibling: Sibling) -> None:
        """A worker that is killed for its long request takes nobody with it."""
        gate = Gate()
        with (
            shared(gated(gate), INLINE) as server,
            Client(server.address) as busy,
            Client(server.address) as waiting,
        ):
            waiting.get()
            self.held(server, busy, gate)
            server.loop.relief.relieve(1.0)
            assert sibling.taken().passage.requests == 1
            gate.open()
            assert busy.receive().status == 200

    def test_requests_that_follow_each_other_go_too(self, shared: Shared, sibling: Sibling) -> None:
        """The next of them is here already, and the kernel says nothing about it."""
        bell, gate = Gate(), Gate()
        with (
            shared(gated(gate), INLINE) as server,
            Client(server.address) as eager,
            Client(server.address) as busy,
        ):
            eager.get()
            server.until(lambda loop: len(loop.book.connections) == 2)
            server.order(bell.wait)
            bell.reached()
            eager.send(request("GET", "/1") + request("GET", "/2"))
            ours = [connection.socket for connection in server.loop.book.connections.values()]
            assert select.select(ours, [], [], PATIENCE)[0]  # its turn comes first
            busy.send(request("GET", "/wait"))
            bell.open()
            gate.reached()
            assert eager.receive().body == b"GET /1\n"
            server.loop.relief.relieve(0.02)
            assert sibling.taken().passage.data == request("GET", "/2")
            gate.open()
            assert busy.receive().status == 200

    def test_who_has_not_come_to_http_stays(self, sibling: Sibling) -> None:
        gate = Gate()
        with (
            Server(gated(gate), INLINE, [tcp_door(), asking(Word)], link=sibling.link) as server,
            Client(server.doors[1].socket.getsockname()) as greeting,
            Client(server.address) as busy,
        ):
            server.until(lambda loop: loop.book.greeting.members)
            self.held(server, busy, gate)
            greeting.send(b"one" + request("GET", "/a"))
            server.loop.relief.relieve(1.0)
            sibling.nothing()
            gate.open()
            assert busy.receive().status == 200
            assert greeting.receive().body == b"GET /a\n"

    def test_a_slow_reader_goes_on_reading(self, shared: Shared) -> None:
        gate = Gate()
        with (
            shared(with_large(gated(gate)), INLINE) as server,
            Client(server.address) as busy,
            Client(server.address, 4096) as slow,
        ):
            slow.send(request("GET", "/large"))
            server.until(lambda loop: loop.book.sending.members)
            self.held(server, busy, gate)
            received = 0
            while received < 20 * len(PATTERN):
                received += len(slow.socket.recv(1 << 20))
                server.loop.relief.relieve(0.02)
            gate.open()
            assert busy.receive().status == 200

    def test_somebody_is_sent_to_the_listener(self, shared: Shared, sibling: Sibling) -> None:
        """This worker may have been the one that was woken for it; once is enough."""
        gate = Gate()
        with shared(gated(gate), INLINE) as server, Client(server.address) as busy:
            self.held(server, busy, gate)
            with Client(server.address) as new:
                new.send(request("GET", "/new"))
                server.loop.relief.relieve(0.02)
                server.loop.relief.relieve(0.03)
                assert sibling.link.take() is None
                sibling.nothing()
                gate.open()
                assert busy.receive().status == 200
                assert new.receive().status == 200

    def test_a_nudged_worker_looks(self, shared: Shared, sibling: Sibling) -> None:
        with shared(echo, INLINE) as server:
            [descriptor] = server.loop.entrance.doors
            server.ask(lambda loop: loop.epoll.unregister(descriptor))
            with Client(server.address) as client:
                client.send(request("GET", "/"))
                server.order(lambda: server.loop.epoll.register(descriptor, 0))
                sibling.link.nudge()
                assert client.receive().status == 200

    def test_nothing_goes_when_the_server_stops(self, sibling: Sibling) -> None:
        gate = Gate()
        with (
            Server(gated(gate), INLINE, link=sibling.link, stopping=lambda: True) as server,
            Client(server.address) as busy,
            Client(server.address) as asking,
        ):
            asking.get()
            self.held(server, busy, gate)
            asking.send(request("GET", "/a"))
            server.loop.relief.relieve(5.0)
            gate.open()
            assert asking.receive().body == b"GET /a\n"
