"""A socket on loan: what is lent to whom, and that the connection's own comes to no harm."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterable
from typing import Any

import pytest

from stardust.settings.table import Config
from stardust.worker.loan import KEY, Loan, lend
from tests.worker.harness import PATIENCE, Client, Environ, Server, StartResponse, echo, request
from tests.worker.test_secure import NOW, PATTERN, Wire
from tests.worker.test_secure import realm as realm
from tests.worker.test_secure import wire as wire

ASKING = ("Connection: Upgrade", "Upgrade: websocket")
TAKEN = (101, "taken over")


def asking(upgrade: str = "websocket", version: str = "HTTP/1.1") -> Environ:
    return {"HTTP_UPGRADE": upgrade, "SERVER_PROTOCOL": version}


@pytest.mark.parametrize("upgrade", ["websocket", "WebSocket", " websocket "])
def test_lent_is_a_duplicate(upgrade: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        environ = asking(upgrade)
        lent = lend(ours, environ)
        assert environ[KEY] is lent
        assert lent.fileno() != ours.fileno()
        assert not os.get_inheritable(lent.fileno())
        assert not lent.used
        lent.close()
        theirs.send(b"x")
        assert ours.recv(1) == b"x"


@pytest.mark.parametrize(
    "environ", [asking("h2c"), asking(""), asking("websocket, x"), asking(version="HTTP/1.0")]
)
def test_nothing_is_lent(environ: Environ) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert lend(ours, environ) is None
        assert KEY not in environ


def test_no_descriptor_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(number: int) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("stardust.base.system.dup", full)
    environ = asking()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert lend(ours, environ) is None
        assert KEY not in environ


def test_it_waits_whatever_the_default_is(monkeypatch: pytest.MonkeyPatch) -> None:
    socket.setdefaulttimeout(0.001)
    try:
        ours, theirs = socket.socketpair()
        with ours, theirs, Loan(ours) as lent:
            assert lent.gettimeout() is None
            assert os.get_blocking(lent.fileno())
    finally:
        socket.setdefaulttimeout(None)


@pytest.mark.parametrize("dup", [False, True])
@pytest.mark.parametrize("how", ["send", "sendall", "sendmsg", "makefile"])
def test_whoever_sends_has_used_it(how: str, dup: bool) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, Loan(ours) as lent:
        said = lent.dup() if dup else lent
        if how == "makefile":
            with said.makefile("wb") as file:
                file.write(b"x")
        elif how == "sendmsg":
            said.sendmsg([b"x"])
        else:
            getattr(said, how)(b"x")
        assert lent.used
        assert theirs.recv(2) == b"x"
        said.close()


def taking(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """As its path says."""
    path = environ["PATH_INFO"]
    lent: Any = environ.get(KEY)
    if lent is None:
        return echo(environ, start_response)
    if path != "/unused":
        lent.sendall(b"own words")
    if path == "/closed":
        lent.close()
    if path == "/read":
        lent.sendall(lent.recv(100))
    if path == "/answer":
        return echo(environ, start_response)
    if path == "/late":
        write = start_response("200 OK", [])
        write(b"no more")
    if path == "/fail":
        raise LookupError("oops")
    if path == "/unused":
        start_response("400 Bad Request", [])
        return [b"no"]
    raise StopIteration


class TestServer:
    @pytest.mark.parametrize("path", ["/", "/closed", "/answer", "/late", "/fail"])
    def test_the_server_says_nothing_more(self, kept: Config, path: str) -> None:
        """Whatever the application does when it has spoken; and no request is read from what comes behind."""
        with Server(taking, kept) as server, Client(server.address) as client:
            assert client.get().status == 200
            client.send(request("GET", path, *ASKING) + request("GET", "/behind"))
            assert client.socket.recv(100) == b"own words"
            client.ended()
            client.socket.close()
            server.until(lambda loop: not loop.book.connections)
            assert [(each.status, each.note) for each in server.records][1:] == [TAKEN]

    def test_it_reads_what_the_client_says(self, kept: Config) -> None:
        with Server(taking, kept) as server, Client(server.address) as client:
            client.send(request("GET", "/read", *ASKING))
            assert client.socket.recv(100) == b"own words"
            client.send(b"hello")
            assert client.socket.recv(100) == b"hello"
            client.ended()

    def test_who_has_not_used_it_answers(self, kept: Config) -> None:
        """As to any request, and the connection goes on (RFC 9110 7.8)."""
        with Server(taking, kept) as server, Client(server.address) as client:
            answer = client.get("/unused", *ASKING)
            assert (answer.status, answer.closes) == (400, False)
            assert client.get("/unused", *ASKING, "Connection: close").closes
            client.ended()
            assert [(each.status, each.note) for each in server.records] == [(400, ""), (400, "")]

    def test_other_protocols_are_not_asked_about(self, kept: Config) -> None:
        """Clients in Java ask for h2c with their first request, and go on."""
        with Server(taking, kept) as server, Client(server.address) as client:
            assert not client.get("/", "Connection: Upgrade", "Upgrade: h2c").closes
            assert client.get().status == 200

    def test_a_thread_that_still_reads_hears_of_the_end(self, kept: Config) -> None:
        """flask-sock returns while simple-websocket's thread waits for the client's last frame. A client that
        does not leave is left; and no thread stays for it."""
        heard: list[bytes] = []
        threads: list[threading.Thread] = []

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            lent = environ[KEY].dup()  # nobody recalls this one
            environ[KEY].sendall(b"own words")

            def read() -> None:
                with lent:
                    heard.append(lent.recv(1))

            threads.append(threading.Thread(target=read))
            threads[0].start()
            raise StopIteration

        with Server(app, kept) as server, Client(server.address) as client:
            client.send(request("GET", "/", *ASKING))
            assert client.socket.recv(100) == b"own words"
            client.ended()
            server.until(lambda loop: loop.book.lingering.members)
            server.advance(2.1)
            threads[0].join(PATIENCE)
            assert heard == [b""]

    def test_a_number_that_was_closed_is_nobody_elses(self, kept: Config) -> None:
        """Others come while the application goes on: the library's close() has freed no number of ours."""
        reached, go_on = threading.Event(), threading.Event()

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            if KEY not in environ:
                return echo(environ, start_response)
            environ[KEY].sendall(b"own words")
            environ[KEY].close()
            reached.set()
            assert go_on.wait(PATIENCE)
            raise StopIteration

        with Server(app, kept) as server, Client(server.address) as client:
            client.send(request("GET", "/", *ASKING))
            assert reached.wait(PATIENCE)
            with Client(server.address) as one, Client(server.address) as two:
                if kept.threads > 1:
                    assert one.get().status == two.get().status == 200
                go_on.set()
                assert client.socket.recv(100) == b"own words"
                client.ended()
                assert one.get().status == two.get().status == 200


class TestSecure:
    """What a library for WebSocket has of it, in threads of its own."""

    def test_it_waits_and_takes_piece_by_piece(self, wire: Wire) -> None:
        wire.shake()
        lent = wire.secure.lend()
        assert lent.fileno() == wire.connection.number
        with pytest.raises(BlockingIOError):
            lent.recv(10, NOW)
        lent.settimeout(0.001)
        with pytest.raises(TimeoutError):
            lent.recv(10)
        lent.settimeout(None)
        wire.say(b"hello there")
        assert (lent.recv(5), lent.recv(100)) == (b"hello", b" there")
        assert not lent.used

    def test_it_sends_all_while_another_thread_reads(self, wire: Wire) -> None:
        """The session bears one call at a time, and a call that waits must not have it."""
        wire.shake()
        lent = wire.secure.lend()
        heard: list[bytes] = []
        reader = threading.Thread(target=lambda: heard.append(lent.recv(100)))
        writer = threading.Thread(target=lambda: lent.send(PATTERN))
        reader.start()
        writer.start()
        assert wire.hear(len(PATTERN)) == PATTERN
        writer.join(PATIENCE)
        wire.say(b"hello")
        reader.join(PATIENCE)
        assert heard == [b"hello"]
        assert lent.used

    def test_words_of_several_threads_stay_whole(self, wire: Wire) -> None:
        wire.shake()
        lent = wire.secure.lend()
        words = [bytes([letter]) * 200_000 for letter in b"abcd"]
        threads = [threading.Thread(target=lent.sendall, args=(word,)) for word in words]
        for thread in threads:
            thread.start()
        heard = wire.hear(800_000)
        for thread in threads:
            thread.join(PATIENCE)
        assert sorted(heard[each : each + 200_000] for each in range(0, 800_000, 200_000)) == words

    @pytest.mark.parametrize("how", ["recall", "close"])
    def test_when_it_is_over(self, wire: Wire, how: str) -> None:
        """The connection goes on without it."""
        wire.shake()
        lent = wire.secure.lend()
        getattr(lent, how)()
        assert (lent.fileno(), lent.recv(10)) == (-1, b"")
        with pytest.raises(BrokenPipeError):
            lent.send(b"x")
        lent.shutdown(socket.SHUT_RDWR)
        wire.say(b"hello")
        assert wire.secure.recv(100, NOW) == b"hello"

    def test_the_end_of_the_client(self, wire: Wire) -> None:
        wire.shake()
        lent = wire.secure.lend()
        wire.socket.shutdown(socket.SHUT_WR)
        assert lent.recv(10) == b""

    def test_it_ends_the_connection_with_a_word(self, wire: Wire) -> None:
        wire.shake()
        lent = wire.secure.lend()
        assert lent.getsockname() == wire.secure.getsockname()
        assert lent.getpeername() == wire.secure.getpeername()
        lent.shutdown(socket.SHUT_WR)
        wire.arrive()
        assert wire.client.read(10) == b""
