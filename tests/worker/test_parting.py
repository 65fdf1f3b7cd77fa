"""How a worker rests and ends: pause, retire, stop, and what goes onto the shelf."""

from __future__ import annotations

import contextlib
import functools
import random
import select
from collections.abc import Callable, Iterator

import pytest

from stardust.base.records import replace
from stardust.settings.table import Config
from stardust.worker.connection import Connection
from stardust.worker.loop import Loop
from stardust.worker.serving import draw_limit
from tests.worker.harness import (
    HALF,
    HALF_BODY,
    HALF_HEAD,
    INLINE,
    LARGE_BODY,
    PATIENCE,
    PATTERN,
    THREADS,
    WHOLE,
    Client,
    Gate,
    Server,
    Shared,
    Sibling,
    Word,
    asking,
    echo,
    gated,
    passage,
    pause,
    request,
    resume,
    tcp_door,
    with_large,
)


class TestLeaving:
    def test_after_so_many_requests(self, kept: Config) -> None:
        with (
            Server(echo, replace(kept, max_reqs_per_child=3)) as server,
            Client(server.address) as client,
            Client(server.address) as late,
        ):
            assert not client.get("/1").closes
            assert not client.get("/2").closes
            assert server.announced == []
            assert client.get("/3").closes
            client.ended()
            # Connected before, without a request: its own is served yet.
            assert late.get("/4").closes
            late.ended()
            server.ended()
            assert server.announced == ["leaving"]

    def test_new_connections_are_left_to_others(self, kept: Config) -> None:
        with Server(echo, kept) as server, Client(server.address) as client:
            client.get()
            server.leave()
            with Client(server.address) as new:
                new.send(request("GET", "/new"))
                assert client.get().closes
                server.ended()
            assert server.loop.serving.requests == 2

    def test_retired_it_accepts_nothing_even_before_it_is_told(self, kept: Config) -> None:
        with Server(echo, kept) as server, Client(server.address) as client:
            client.get()
            server.board.retire(0)
            with Client(server.address) as new:
                new.send(request("GET", "/new"))
                client.get()
                client.get()
                assert server.loop.serving.requests == 3

    def test_told_to_look_it_takes_what_a_sibling_left_behind(self, kept: Config) -> None:
        """The wake-up went to another worker: this one hears nothing of the connection by itself."""
        with Server(echo, kept) as server:
            [descriptor] = server.loop.entrance.doors
            server.ask(lambda loop: loop.epoll.unregister(descriptor))
            with Client(server.address) as client:
                client.send(request("GET", "/"))

                def told(loop: Loop) -> int:
                    loop.epoll.register(descriptor, 0)
                    loop.entrance.look()
                    return len(loop.book.connections)

                assert server.ask(told) == 1
                assert client.receive().status == 200

    def test_not_while_nobody_could_follow(self, kept: Config) -> None:
        follows: list[bool] = []
        with (
            Server(echo, replace(kept, max_reqs_per_child=2), replaceable=lambda: bool(follows)) as server,
            Client(server.address) as client,
        ):
            for _ in range(5):
                assert not client.get().closes
            follows.append(True)
            assert client.get().closes
            server.ended()
            assert server.announced == ["leaving"]

    def test_each_worker_draws_its_limit(self) -> None:
        """Evenly, both ends included."""
        random.seed(1)
        drawn = [draw_limit(10, 5) for _ in range(600)]
        assert set(drawn) == {5, 6, 7, 8, 9, 10}
        assert min(drawn.count(value) for value in range(5, 11)) > 60
        assert draw_limit(10, 0) == 10
        assert draw_limit(0, 0) == draw_limit(0, 5) > 10**9

    def test_what_was_begun_is_finished(self, kept: Config) -> None:
        with (
            Server(with_large(), kept) as server,
            Client(server.address, 4096) as slow,
            Client(server.address) as head,
            Client(server.address) as fresh,
            Client(server.address) as parked,
        ):
            parked.get()
            slow.send(request("GET", "/large"))
            head.send(b"GET /head HTTP/1.1\r\nHo")
            server.until(lambda loop: loop.book.sending.members and loop.book.reading_heads.members)
            server.until(lambda loop: len(loop.book.connections) == 4)
            server.leave()
            server.advance(1.9)
            head.send(b"st: test\r\n\r\n")
            for client in (head, fresh, parked):
                if client is not head:
                    client.send(request("GET", "/a"))
                assert client.receive().closes
                client.ended()
            assert slow.receive().body == PATTERN * 20
            server.advance(2)
            slow.ended()
            server.ended()

    def test_who_begins_nothing_is_not_waited_for(self, kept: Config) -> None:
        with Server(echo, kept) as server, Client(server.address) as fresh, Client(server.address) as parked:
            parked.get()
            server.until(lambda loop: len(loop.book.connections) == 2)
            server.settled()
            server.leave()
            server.advance(2)
            fresh.ended()
            parked.ended()
            server.ended()

    def test_nobody_is_waited_for_beyond_the_limit(self, kept: Config) -> None:
        with Server(with_large(), kept) as server, Client(server.address, 4096) as slow:
            slow.send(request("GET", "/large"))
            server.until(lambda loop: loop.book.sending.members)
            server.leave()
            server.advance(29.9)
            assert not server._over.is_set()
            server.advance(0.1)
            server.ended()

    @pytest.mark.parametrize("own", [True, False], ids=["our own listener", "systemd's"])
    def test_for_good(self, kept: Config, own: bool) -> None:
        """Who queues at a listener that closes would be reset; at one that stays, the next process comes."""
        gate = Gate()
        with (
            Server(gated(gate), replace(kept, threads=1), [tcp_door(own)]) as server,
            Client(server.address) as busy,
            contextlib.ExitStack() as stack,
        ):
            busy.get()
            server.ask(lambda loop: loop.accepting.stop("a test"))  # else it might see them before it leaves
            busy.send(request("GET", "/wait", "Connection: close"))
            gate.reached()
            queued = [stack.enter_context(Client(server.address)) for _ in range(10)]
            for client in queued[1:]:
                client.send(request("GET", "/queued"))
            server.order(lambda: server.loop.parting.leave(final=True))
            gate.open()
            busy.receive()
            if own:
                for client in queued[1:]:
                    assert client.receive().closes
                    client.ended()
                assert queued[0].get("/queued-too").closes
            server.ended()
            assert server.loop.serving.requests == (12 if own else 2)

    def test_for_good_under_load(self) -> None:
        """Each connection that is let in brings the next: the queue never becomes empty."""
        clients: list[Client] = []
        servers: list[Server] = []

        def another(connection: Connection) -> Word:
            if len(clients) < 200:
                clients.append(Client(servers[0].address))
                clients[-1].send(b"you" + request("GET", "/"))
            return Word(connection)

        with Server(echo, replace(INLINE, backlog=10), [asking(another)]) as server:
            servers.append(server)
            server.ask(lambda loop: loop.accepting.stop("a test"))
            with Client(server.address) as first:
                first.send(b"you" + request("GET", "/"))
                server.leave(final=True)
                server.ended()
                assert first.receive().closes
            assert server.loop.serving.requests == 11
            for client in clients:
                client.socket.close()

    def test_twice_is_once(self, kept: Config) -> None:
        with Server(echo, kept) as server, Client(server.address) as client:
            client.get()
            server.leave()
            server.leave()
            server.leave(final=True)
            assert client.get().closes
            server.ended()

    def test_at_once_when_nothing_is_held(self, kept: Config) -> None:
        with Server(echo, kept) as server:
            server.leave(final=True)
            server.ended()


class TestStoring:
    """What goes onto the shelf when the server stops, and may start again."""

    @pytest.fixture
    def shelf(self) -> Iterator[Sibling]:
        with Sibling() as shelf:
            yield shelf

    @pytest.fixture
    def stopping(self) -> list[bool]:
        """Not empty: the server stops."""
        return []

    @pytest.fixture
    def storing(self, sibling: Sibling, shelf: Sibling, stopping: list[bool]) -> Shared:
        stops = functools.partial(bool, stopping)
        return functools.partial(Server, link=sibling.link, stopping=stops, shelf=shelf.link, storing=stops)

    @pytest.fixture
    def stop(self, stopping: list[bool]) -> Callable[[Loop], None]:
        def stop(loop: Loop) -> None:
            stopping.append(True)
            loop.parting.leave(final=True)

        return stop

    def test_who_has_sent_nothing(
        self, kept: Config, storing: Shared, sibling: Sibling, shelf: Sibling, stop: Callable[[Loop], None]
    ) -> None:
        with (
            storing(echo, kept) as server,
            Client(server.address) as parked,
            Client(server.address) as fresh,
        ):
            parked.get()
            server.settled()
            server.until(lambda loop: loop.book.fresh.members)
            server.ask(stop)
            server.ended()
            given = {shelf.taken().passage for _ in range(2)}
            assert {(int(each.port), each.requests, each.data) for each in given} == {
                (parked.socket.getsockname()[1], 1, b""),
                (fresh.socket.getsockname()[1], 0, b""),
            }
            sibling.nothing()

    def test_a_request_that_comes_is_left_in_its_socket(
        self, kept: Config, storing: Shared, shelf: Sibling, stop: Callable[[Loop], None]
    ) -> None:
        with storing(echo, kept) as server, Client(server.address) as client:
            client.get()
            server.settled()

            def come(loop: Loop) -> None:
                client.send(request("GET", "/late"))
                stop(loop)

            server.ask(come)
            server.ended()
            given = shelf.taken()
            assert given.passage.data == b""
            assert given.socket.recv(100) == request("GET", "/late")

    @pytest.mark.parametrize(
        "begun", [HALF_HEAD, HALF_BODY, LARGE_BODY[:-9]], ids=["head", "body", "large body"]
    )
    def test_what_was_begun_is_answered_first(
        self,
        kept: Config,
        storing: Shared,
        shelf: Sibling,
        stop: Callable[[Loop], None],
        begun: bytes,
    ) -> None:
        whole = next(each for each in (HALF, WHOLE, LARGE_BODY) if each.startswith(begun))
        with storing(echo, kept) as server, Client(server.address) as client:
            client.get()
            client.send(begun)
            server.until(lambda loop: loop.book.reading_heads.members or loop.book.reading_bodies.members)
            server.ask(stop)
            shelf.nothing()
            client.send(whole[len(begun) :])
            answer = client.receive()
            assert (answer.status, answer.closes) == (200, False)
            server.ended()
            assert shelf.taken().passage.requests == 2

    def test_two_requests_at_once(
        self, kept: Config, storing: Shared, shelf: Sibling, stop: Callable[[Loop], None]
    ) -> None:
        """Both have been read."""
        gate = Gate()
        with storing(gated(gate), kept) as server, Client(server.address) as client:
            client.send(request("GET", "/wait") + request("GET", "/2"))
            gate.reached()
            server.order(lambda: stop(server.loop))
            gate.open()
            assert [client.receive().body for _ in range(2)] == [b"GET /wait\n", b"GET /2\n"]
            server.ended()
            assert shelf.taken().passage.requests == 2

    def test_a_worker_that_leaves_already(
        self, kept: Config, storing: Shared, sibling: Sibling, shelf: Sibling, stopping: list[bool]
    ) -> None:
        """It learns of the stop by the scoreboard; what is on its way to a sibling is served here."""
        with storing(echo, kept) as server, Client(server.address) as client:
            client.get()
            server.settled()
            server.ask(sibling.have_it_leave)
            stopping.append(True)
            while select.select([sibling.link], [], [], 0)[0]:
                sibling.taken().socket.close()
            server.advance(0.01)
            server.ended()
            assert shelf.taken().passage.requests == 1
            sibling.nothing()

    def test_who_finds_no_room_is_served_here(
        self, kept: Config, storing: Shared, shelf: Sibling, stop: Callable[[Loop], None]
    ) -> None:
        with storing(echo, kept) as server, Client(server.address) as client:
            client.get()
            while shelf.link.give(client.socket.fileno(), passage(b"")):
                pass
            server.ask(stop)
            assert not client.get("/2").closes
            shelf.taken().socket.close()
            server.settled()
            server.advance(0.01)
            server.ended()

    def test_while_the_application_works(
        self, storing: Shared, sibling: Sibling, shelf: Sibling, stopping: list[bool]
    ) -> None:
        """The guard does it, before the worker has heard of the stop."""
        gate = Gate()
        with (
            storing(gated(gate), INLINE) as server,
            Client(server.address) as busy,
            Client(server.address) as waiting,
        ):
            waiting.get()
            busy.send(request("GET", "/wait"))
            gate.reached()
            stopping.append(True)
            server.loop.relief.relieve(0.02)
            shelf.nothing()
            server.loop.relief.relieve(1.0)
            assert shelf.taken().passage.port == str(waiting.socket.getsockname()[1])
            gate.open()
            assert busy.receive().status == 200
            sibling.nothing()

    def test_without_a_supervisor(
        self, kept: Config, storing: Shared, shelf: Sibling, stopping: list[bool]
    ) -> None:
        """Nobody would take anything from the shelf: it is a stop as any other."""
        with storing(echo, kept) as server, Client(server.address) as client:
            client.get()
            server.settled()
            stopping.append(True)
            server.ask(lambda loop: loop.parting.abandon())
            assert client.get().closes
            server.ended()
            shelf.nothing()


class TestPausing:
    def test_what_comes_meanwhile_waits(self, kept: Config) -> None:
        """And is served when it goes on, though nothing announces it a second time."""
        with Server(echo, kept) as server, Client(server.address) as here:
            here.get()
            server.ask(pause)
            with Client(server.address) as new:
                new.send(request("GET", "/new"))
                server.ask(lambda loop: loop.entrance.look())
                for _ in range(3):
                    assert here.get("/here").body == b"GET /here\n"
                assert len(server.loop.book.connections) == 1
                server.ask(resume)
                assert new.receive().body == b"GET /new\n"

    def test_in_the_round_in_which_it_comes(self, kept: Config) -> None:
        """The order is read first, the connection is reported in the same breath: it is not accepted."""
        with Server(echo, kept) as server:
            clients: list[Client] = []

            def pause_and_connect(loop: Loop) -> None:
                clients.append(Client(server.address))
                poll = select.poll()
                poll.register(server.doors[0].socket, select.POLLIN)
                assert poll.poll(PATIENCE * 1000)
                loop.parting.pause()

            server.ask(pause_and_connect)
            server.ask(bool)
            assert not server.loop.book.connections
            server.ask(resume)
            assert clients[0].get().status == 200
            clients[0].socket.close()

    @pytest.mark.parametrize("order", [pause, resume], ids=["pause", "resume"])
    def test_twice_is_once(self, kept: Config, order: Callable[[Loop], None]) -> None:
        with Server(echo, kept) as server:
            server.ask(order)
            server.ask(order)
            server.ask(resume)
            with Client(server.address) as client:
                assert client.get().status == 200

    def test_a_thread_that_becomes_free_does_not_end_it(self) -> None:
        gate = Gate()
        with Server(gated(gate), replace(THREADS, threads=2)) as server, Client(server.address) as first:
            with Client(server.address) as second:
                for client in (first, second):
                    client.send(request("GET", "/wait"))
                gate.reached(2)
                server.ask(pause)
                gate.open()
                assert first.receive().status == second.receive().status == 200
                server.settled()
            assert not server.ask(lambda loop: loop.accepting.on)
            server.ask(resume)
            assert server.ask(lambda loop: loop.accepting.on)

    def test_a_worker_that_leaves_never_goes_on(self, kept: Config) -> None:
        with Server(echo, kept) as server, Client(server.address) as client:
            client.get()
            server.ask(pause)
            server.leave()
            server.ask(resume)
            assert not server.ask(lambda loop: loop.accepting.on)

    def test_since_when_nobody_is_connected(self, kept: Config) -> None:
        with Server(echo, kept) as server:
            began = server.clock.now
            assert server.ask(lambda loop: loop.book.empty_since) == began
            with Client(server.address) as first, Client(server.address) as second:
                for client in (first, second):
                    assert client.get().status == 200
                server.settled()
                server.advance(1.0)
                first.socket.close()
                server.until(lambda loop: len(loop.book.connections) == 1)
                server.advance(0.5)
            server.until(lambda loop: not loop.book.connections)
            assert server.loop.book.empty_since == began + 1.5
