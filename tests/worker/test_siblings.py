"""Connections on their way between workers: given, taken, and bound to one."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterable, Iterator

import pytest

from stardust.base.address import Address
from stardust.base.records import replace
from stardust.settings.table import Config
from stardust.worker.connection import Connection
from tests.worker.harness import (
    EPOCH,
    HALF,
    HALF_BODY,
    HALF_HEAD,
    INLINE,
    PATTERN,
    THREADS,
    Client,
    Environ,
    Gate,
    Server,
    Shared,
    Sibling,
    StartResponse,
    Word,
    asking,
    chunked,
    echo,
    gated,
    passage,
    queued,
    request,
    tcp_door,
    with_large,
)


class TestGiving:
    """What a sibling gets from this worker."""

    def test_whoever_waits_goes_when_it_leaves(self, kept: Config, shared: Shared, sibling: Sibling) -> None:
        with (
            shared(echo, replace(kept, keepalive_timeout=10.0)) as server,
            Client(server.address) as parked,
            Client(server.address) as fresh,
            Client(server.address) as head,
            Client(server.address) as body,
        ):
            parked.get()
            parked.get()
            server.settled()
            server.until(lambda loop: len(loop.book.fresh.members) == 3)
            server.advance(1)
            head.send(HALF_HEAD)
            body.send(HALF_BODY)
            server.until(lambda loop: loop.book.reading_heads.members and loop.book.reading_bodies.members)
            server.advance(1)
            server.leave()
            server.ended()
            given = {client.socket.getsockname()[1]: client for client in (parked, fresh, head, body)}
            passages = {}
            for _ in given:
                sock, what = sibling.taken()
                assert what.listener == server.doors[0].address
                passages[given[int(what.port)]] = (what.requests, what.began, what.since, what.data)
                sock.close()
            assert passages == {
                parked: (2, 0.0, 1000.0, b""),
                fresh: (0, 0.0, 1000.0, b""),
                head: (0, 1001.0, 1001.0, HALF_HEAD),
                body: (0, 1001.0, 1001.0, HALF_BODY),
            }
            assert server.announced == ["leaving"]

    def test_who_comes_to_http_when_it_leaves_goes(self, kept: Config, sibling: Sibling) -> None:
        with (
            Server(echo, kept, [asking(Word)], link=sibling.link) as server,
            Client(server.address) as client,
        ):
            server.until(lambda loop: loop.book.greeting.members)
            server.leave()
            sibling.nothing()
            client.send(b"::1")
            assert sibling.taken().passage.host == "::1"
            server.ended()

    def test_a_request_is_finished_and_its_connection_goes(
        self, kept: Config, shared: Shared, sibling: Sibling
    ) -> None:
        """No response says that the connection ends, for it does not."""
        gate = Gate()
        with shared(gated(gate), kept) as server, Client(server.address) as client:
            client.send(request("GET", "/wait"))
            gate.reached()
            server.order(server.loop.parting.leave)
            gate.open()
            answer = client.receive()
            assert (answer.body, answer.closes) == (b"GET /wait\n", False)
            client.send(request("GET", "/next"))
            assert sibling.taken().passage.requests == 1
            server.ended()

    def test_a_response_that_is_read_slowly_comes_first(
        self, kept: Config, shared: Shared, sibling: Sibling
    ) -> None:
        with shared(with_large(), kept) as server, Client(server.address, 4096) as client:
            client.send(request("GET", "/large") + request("GET", "/next"))
            server.until(lambda loop: loop.book.sending.members)
            server.leave()
            assert len(client.receive().body) == 20 * len(PATTERN)
            assert sibling.taken().passage.data == request("GET", "/next")
            server.ended()

    @pytest.mark.parametrize("coding", ["length", "chunked"])
    def test_a_larger_body_is_read_here(
        self, kept: Config, shared: Shared, sibling: Sibling, coding: str
    ) -> None:
        content = bytes(100_000)
        sent = request("POST", "/", body=content)
        if coding == "chunked":
            sent = request("POST", "/", "Transfer-Encoding: chunked") + chunked(content)
        with shared(echo, kept) as server, Client(server.address) as client:
            client.send(sent[:-1])
            server.until(lambda loop: [c for c in loop.book.reading_bodies.members if c.received is None])
            server.leave()
            client.send(sent[-1:])
            assert client.receive().body == b"POST /\n" + content
            sibling.taken()
            server.ended()

    @pytest.mark.parametrize("size", [1, 7, 1000, 100_000])
    def test_a_body_in_pieces_goes_as_it_came(
        self, kept: Config, shared: Shared, sibling: Sibling, size: int
    ) -> None:
        sent = request("POST", "/", "Transfer-Encoding: chunked") + chunked(b"abc" * 100, b"def" * 100)
        with shared(echo, kept) as server, Client(server.address) as client:
            for start in range(0, len(sent) - 1, size):
                client.send(sent[start : min(start + size, len(sent) - 1)])
            server.until(
                lambda loop: [c for c in loop.book.reading_bodies.members if c.received == sent[:-1]]
            )
            server.leave()
            assert sibling.taken().passage.data == sent[:-1]
            server.ended()

    def test_who_finds_no_room_is_served_here(self, kept: Config, shared: Shared, sibling: Sibling) -> None:
        with shared(echo, kept) as server, Client(server.address) as client:
            client.get()
            server.ask(sibling.have_it_leave)
            assert not client.get("/2").closes
            server.advance(0.01)
            assert not client.get("/3").closes
            for _ in range(2):
                sibling.taken().socket.close()
            server.settled()
            server.advance(0.01)
            server.ended()
            given = sibling.taken()
            while given.passage.host != "127.0.0.1":
                given.socket.close()
                given = sibling.taken()
            assert given.passage.requests == 3
            given.socket.close()

    @pytest.mark.parametrize("first", ["server stops", "worker leaves"])
    def test_nothing_goes_when_the_server_stops(self, kept: Config, sibling: Sibling, first: str) -> None:
        stopping: list[bool] = []
        with (
            Server(echo, kept, link=sibling.link, stopping=lambda: bool(stopping)) as server,
            Client(server.address) as client,
        ):
            client.get()
            server.settled()
            if first == "worker leaves":
                server.ask(sibling.have_it_leave)
            stopping.append(True)
            while select.select([sibling.link], [], [], 0)[0]:
                sibling.taken().socket.close()
            if first == "worker leaves":
                server.advance(0.01)
            else:
                server.leave(final=True)
            assert client.get().closes
            server.ended()
            sibling.nothing()


class TestTaking:
    """What this worker gets from a sibling."""

    @pytest.fixture
    def guest(self) -> Iterator[tuple[Client, socket.socket]]:
        """A client and its connection, of which some sibling knew."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = Client(listener.getsockname())
            sock = listener.accept()[0]
        with client, sock:
            yield client, sock

    @pytest.mark.parametrize("here", [0, 3, 10, None], ids=lambda here: f"{here} bytes here")
    def test_a_request_goes_on(
        self,
        kept: Config,
        shared: Shared,
        sibling: Sibling,
        guest: tuple[Client, socket.socket],
        here: int | None,
    ) -> None:
        """Some of it came to the sibling, some waits in the socket, some is still to come."""
        client, sock = guest
        whole = request("POST", "/a", body=b"content")
        with shared(echo, kept) as server:
            client.send(whole[:20][here:] if here is not None else b"")
            sibling.link.give(sock.fileno(), passage(whole[:20][:here], began=999.0))
            sock.close()
            client.send(whole[20:])
            assert client.receive().body == b"POST /a\ncontent"
            assert client.get("/b").status == 200
            server.settled()
            assert server.records[0].when == EPOCH + 999.0

    @pytest.mark.parametrize("known", [False, True], ids=["unknown listener", "known listener"])
    def test_the_environ(
        self, kept: Config, shared: Shared, sibling: Sibling, guest: tuple[Client, socket.socket], known: bool
    ) -> None:
        """A listener that this generation is without still says what SERVER_NAME is."""
        seen: list[Environ] = []

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            seen.append(environ)
            return echo(environ, start_response)

        client, sock = guest
        with shared(app, kept) as server:
            where = server.doors[0].address if known else Address("tcp", "192.0.2.1", 8000)
            sibling.link.give(sock.fileno(), passage(request("GET", "/"), listener=where))
            assert client.receive().status == 200
        told = [seen[0][key] for key in ("SERVER_NAME", "SERVER_PORT", "REMOTE_ADDR", "REMOTE_PORT")]
        assert told == [where.host, str(where.port), "192.0.2.2", "4711"]
        assert seen[0]["wsgi.url_scheme"] == "http"

    def test_its_requests_count(
        self, kept: Config, shared: Shared, sibling: Sibling, guest: tuple[Client, socket.socket]
    ) -> None:
        client, sock = guest
        with shared(echo, replace(kept, max_keepalive_reqs=4)):
            sibling.link.give(sock.fileno(), passage(b"", requests=2))
            assert not client.get("/3").closes
            assert client.get("/4").closes

    def test_who_is_answered_waits_anew(
        self, kept: Config, shared: Shared, sibling: Sibling, guest: tuple[Client, socket.socket]
    ) -> None:
        """However long it had waited for this request, before it came here."""
        client, sock = guest
        with shared(echo, kept) as server:
            sibling.link.give(sock.fileno(), passage(request("GET", "/late"), since=1.0))
            assert not client.receive().closes
            server.settled()
            assert client.get().status == 200

    @pytest.mark.parametrize("came", ["nothing", "half a head"])
    def test_no_limit_begins_anew(
        self, kept: Config, shared: Shared, sibling: Sibling, guest: tuple[Client, socket.socket], came: str
    ) -> None:
        client, sock = guest
        config = replace(kept, keepalive_timeout=10.0, header_timeout=10.0)
        with shared(echo, config):
            if came == "nothing":
                sibling.link.give(sock.fileno(), passage(b"", since=990.0))
            else:
                sibling.link.give(sock.fileno(), passage(HALF_HEAD, began=990.0, since=1000.0))
            sock.close()
            if came == "half a head":
                assert client.receive().status == 408
            client.ended()

    def test_what_came_in_time_is_served(
        self, kept: Config, shared: Shared, sibling: Sibling, guest: tuple[Client, socket.socket]
    ) -> None:
        client, sock = guest
        with shared(echo, kept):
            client.send(request("GET", "/"))
            sibling.link.give(sock.fileno(), passage(b"", since=1.0))
            assert client.receive().status == 200

    def test_a_client_that_has_gone(
        self, kept: Config, shared: Shared, sibling: Sibling, guest: tuple[Client, socket.socket]
    ) -> None:
        client, sock = guest
        client.reset()
        with shared(echo, kept) as server:
            sibling.link.give(sock.fileno(), passage(b""))
            sock.close()
            server.until(lambda loop: not select.select([sibling.link], [], [], 0)[0])
            with Client(server.address) as other:
                assert other.get().status == 200
                assert len(server.loop.book.connections) == 1

    def test_what_is_no_connection(self, kept: Config, shared: Shared, sibling: Sibling) -> None:
        with shared(echo, kept) as server, Client(server.address) as client, open(os.devnull) as file:
            sibling.link.give(file.fileno(), passage(b""))
            sibling.link._writer.send(b"hello")
            sibling.link.nudge()
            server.until(lambda loop: not select.select([sibling.link], [], [], 0)[0])
            assert client.get().status == 200
            assert len(server.loop.book.connections) == 1

    def test_it_leaves_with_nothing_untaken(
        self, kept: Config, shared: Shared, sibling: Sibling, guest: tuple[Client, socket.socket]
    ) -> None:
        """Nobody follows who could: at the end of the server the last worker takes what is in between."""
        client, sock = guest
        with shared(echo, kept) as server:
            server.ask(lambda loop: loop.parting.pause())
            sibling.link.give(sock.fileno(), passage(request("GET", "/")))
            sock.close()
            server.leave(final=True)
            assert client.receive().closes
            server.ended()

    def test_a_pause_counts_it(
        self, kept: Config, shared: Shared, sibling: Sibling, guest: tuple[Client, socket.socket]
    ) -> None:
        _, sock = guest
        with shared(echo, kept) as server:
            sibling.link.give(sock.fileno(), passage(b""))
            server.ask(lambda loop: loop.parting.pause())
            assert len(server.loop.book.connections) == 1

    def test_nobody_leaves_it_in_a_pause(
        self, kept: Config, shared: Shared, sibling: Sibling, guest: tuple[Client, socket.socket]
    ) -> None:
        client, sock = guest
        with shared(echo, kept) as server:
            server.ask(lambda loop: loop.parting.pause())
            sibling.link.give(sock.fileno(), passage(request("GET", "/")))
            assert server.ask(lambda loop: len(loop.book.connections)) == 0
            server.ask(lambda loop: loop.parting.resume())
            assert client.receive().status == 200


def bound(connection: Connection) -> Word:
    """A greeting that ties the connection to its worker, as TLS does."""
    connection.movable = False
    return Word(connection)


class TestBound:
    """Connections that cannot move: those of TLS."""

    def test_they_end_with_their_next_response(self, kept: Config, sibling: Sibling) -> None:
        """Nobody gets them, and nobody is cut off: only what is idle for too long ends without a response."""
        kept = replace(kept, keepalive_timeout=10.0)
        with (
            Server(echo, kept, [asking(bound)], link=sibling.link) as server,
            Client(server.address) as parked,
            Client(server.address) as fresh,
            Client(server.address) as head,
            Client(server.address) as idle,
        ):
            for client in (parked, idle):
                client.send(b"one")
                assert not client.get().closes
            fresh.send(b"one")
            head.send(b"one" + HALF_HEAD)
            server.settled()
            server.until(lambda loop: loop.book.fresh.members and loop.book.reading_heads.members)
            server.leave()
            sibling.nothing()
            server.advance(9)
            assert parked.get().closes
            parked.ended()
            head.send(HALF[20:])
            assert head.receive().closes
            fresh.send(request("GET", "/a"))
            assert fresh.receive().closes
            server.until(lambda loop: len(loop.book.connections) == 1)
            server.advance(1)
            idle.ended()
            server.ended()
            sibling.nothing()

    def test_others_go_as_ever(self, kept: Config, sibling: Sibling) -> None:
        with (
            Server(echo, kept, [tcp_door(), asking(bound)], link=sibling.link) as server,
            Client(server.address) as free,
            Client(server.doors[1].socket.getsockname()) as tied,
        ):
            tied.send(b"one")
            tied.get()
            free.get()
            server.settled()
            server.leave()
            assert sibling.taken().passage.requests == 1
            server.until(lambda loop: len(loop.book.connections) == 1)
            assert tied.get().closes

    def test_the_guard_leaves_them_alone(self, sibling: Sibling) -> None:
        gate = Gate()
        with (
            Server(gated(gate), INLINE, [tcp_door(), asking(bound)], link=sibling.link) as server,
            Client(server.address) as busy,
            Client(server.doors[1].socket.getsockname()) as tied,
        ):
            tied.send(b"one")
            tied.get()
            busy.send(request("GET", "/wait"))
            gate.reached()
            tied.send(request("GET", "/a"))
            server.loop.relief.relieve(0.02)
            server.loop.relief.relieve(1.0)
            sibling.nothing()
            gate.open()
            assert busy.receive().status == 200
            assert tied.receive().body == b"GET /a\n"

    def test_they_wait_for_a_thread_of_their_own_worker(self, sibling: Sibling) -> None:
        gate = Gate()
        with (
            Server(
                gated(gate), replace(THREADS, threads=2), [tcp_door(), asking(bound)], link=sibling.link
            ) as server,
            Client(server.doors[1].socket.getsockname()) as tied,
            Client(server.address) as one,
            Client(server.address) as two,
        ):
            tied.send(b"one")
            tied.get()
            server.settled()  # else a thread is busy as far as the loop knows, and it would nudge
            for client in (one, two):
                client.send(request("GET", "/wait"))
            gate.reached(2)
            tied.send(request("GET", "/a"))
            server.until(queued)
            server.advance(1)
            sibling.nothing()
            gate.open()
            assert tied.receive().body == b"GET /a\n"
            assert {one.receive().status, two.receive().status} == {200}

    def test_nothing_of_them_is_stored(self, kept: Config, sibling: Sibling) -> None:
        """They have the time that idle connections have when nothing is: the others are stored at once."""
        kept = replace(kept, keepalive_timeout=10.0)
        with (
            Sibling() as shelf,
            Server(
                echo,
                kept,
                [tcp_door(), asking(bound)],
                link=sibling.link,
                shelf=shelf.link,
                stopping=lambda: True,
                storing=lambda: True,
            ) as server,
            Client(server.address) as free,
            Client(server.doors[1].socket.getsockname()) as tied,
            Client(server.doors[1].socket.getsockname()) as idle,
        ):
            for client in (tied, idle):
                client.send(b"one")
                client.get()
            free.get()
            server.settled()
            server.leave(final=True)
            assert shelf.taken().passage.requests == 1
            shelf.nothing()
            assert tied.get().closes
            server.advance(2)
            idle.ended()
            server.ended()
