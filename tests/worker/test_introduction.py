"""The PROXY header at the beginning of a connection: what is taken of it, and what is left."""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from unittest import mock

import pytest

from stardust.base.address import Address, Peers
from stardust.base.errors import ClientGone
from stardust.base.records import replace
from stardust.ipc.handoff import Link
from stardust.settings.table import Config
from stardust.worker import introduction
from stardust.worker.connection import Connection, Terms
from stardust.worker.entrance import Door
from stardust.worker.introduction import greeting
from tests.worker.harness import (
    INLINE,
    PATIENCE,
    App,
    Client,
    Environ,
    Gate,
    Server,
    Shared,
    Sibling,
    StartResponse,
    echo,
    gated,
    passage,
    request,
    tcp_door,
    unix_door,
)

LINE = b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 80\r\n"
BLOCK = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x13\xcb\0\x71\x09\xc0\0\x02\x01\x12\x67\0\x50\x04\0\x04test"
REST = b"\x16\x03\x01 anything, and PROXY UNKNOWN\r\n"

Making = Callable[..., Connection]


@pytest.fixture
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Making, socket.socket]]:
    ours, theirs = socket.socketpair()

    def make(host: str = "192.0.2.7") -> Connection:
        number = ours.detach()
        sock = socket.SocketType(socket.AF_UNIX, socket.SOCK_STREAM, 0, number)
        environ = {"REMOTE_ADDR": host, "REMOTE_PORT": "5", "wsgi.url_scheme": "http"}
        connection = Connection(sock, number, Terms(Address("tcp", "", 80), 0, 1.0), environ)
        request.addfinalizer(connection.close)
        return connection

    yield make, theirs
    ours.close()
    theirs.close()


def proxies(*texts: str) -> Peers:
    return Peers(texts or ["192.0.2.0/24"])


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(LINE, id="L14-v1"),
        pytest.param(BLOCK, id="L14-v2"),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 13, 1000])
def test_the_client_is_who_is_named(pair: tuple[Making, socket.socket], header: bytes, size: int) -> None:
    """However it comes; and what is behind it is left for whoever comes next."""
    make, client = pair
    connection = make()
    going = greeting(proxies())(connection)
    sent = header + REST
    waits = [going.go_on()]
    for start in range(0, len(sent), size):
        client.send(sent[start : start + size])
        if waits[-1]:
            waits.append(going.go_on())
            # Or else epoll would report it again and again.
            assert not waits[-1] or not select.select([connection.socket], [], [], 0)[0]
    assert waits == [select.EPOLLIN] * (len(waits) - 1) + [0]
    assert connection.environ == {
        "REMOTE_ADDR": "203.0.113.9",
        "REMOTE_PORT": "4711",
        "wsgi.url_scheme": "http",
    }
    assert connection.peer == b"203.0.113.9 "
    assert connection.socket.recv(1000) == REST


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(b"PROXY UNKNOWN\r\n", id="L14-v1-unknown"),
        pytest.param(BLOCK[:12] + b"\x20\0\0\0", id="L14-v2-local"),
    ],
)
def test_the_proxy_s_own_connection(pair: tuple[Making, socket.socket], header: bytes) -> None:
    make, client = pair
    connection = make()
    client.send(header)
    assert greeting(proxies())(connection).go_on() == 0
    assert connection.environ["REMOTE_ADDR"] == "192.0.2.7"


@pytest.mark.parametrize("host", ["198.51.100.1", ""], ids=["L14-stranger", "L14-unix"])
def test_of_a_stranger_nothing_is_taken(pair: tuple[Making, socket.socket], host: str) -> None:
    make, client = pair
    connection = make(host)
    client.send(LINE)
    assert greeting(proxies())(connection).go_on() == 0
    assert connection.environ["REMOTE_ADDR"] == host
    assert connection.socket.recv(1000) == LINE


def test_l14_a_proxy_on_a_unix_socket(pair: tuple[Making, socket.socket]) -> None:
    make, client = pair
    connection = make("")
    client.send(LINE)
    assert greeting(proxies("unix:"))(connection).go_on() == 0
    assert connection.environ["REMOTE_ADDR"] == "203.0.113.9"


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        pytest.param(b"", "it closed the connection within its PROXY header", id="L14-nothing"),
        pytest.param(LINE[:20], "it closed the connection within its PROXY header", id="L14-half"),
        pytest.param(b"GET / HTTP/1.1\r\n", "does not begin with a PROXY header", id="L14-http"),
        pytest.param(b"PROXY " + b"x" * 200, "longer than 107 bytes", id="L14-endless"),
    ],
)
def test_who_is_not_let_in(pair: tuple[Making, socket.socket], sent: bytes, reason: str) -> None:
    make, client = pair
    going = greeting(proxies())(make())
    client.send(sent)
    client.close()

    def until_it_is_over() -> None:
        while going.go_on():
            pass

    with pytest.raises(ClientGone, match=reason):
        until_it_is_over()


def test_a_connection_that_is_reset(pair: tuple[Making, socket.socket]) -> None:
    make, _ = pair
    going = greeting(proxies())(make())
    going._connection.socket.close()  # type: ignore[attr-defined]
    with pytest.raises(ClientGone, match="Bad file descriptor"):
        going.go_on()


def trusting(config: Config) -> Config:
    return replace(
        config,
        trusted_proxies=("127.0.0.1", "unix:", "192.0.2.2"),
        forwarded_headers=("x-forwarded-for", "x-forwarded-proto", "x-forwarded-prefix"),
    )


LIES = (
    "X-Forwarded-For: 6.6.6.6",
    "X-Forwarded-Proto: https",
    "X-Real-IP: 6.6.6.6",
    "Forwarded: for=6.6.6.6",
)


def seen(names: Iterable[str]) -> App:
    """Answers what these variables are."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps({name: environ[name] for name in names if name in environ}).encode()]

    return app


def introduced(door: Door, *trusted: str) -> Door:
    return door._replace(greetings=[introduction.greeting(Peers(trusted))])


LINE = b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 80\r\n"


WHO = ("REMOTE_ADDR", "REMOTE_PORT", "wsgi.url_scheme", "HTTPS", "SCRIPT_NAME", "PATH_INFO")


CLAIMED = ("HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_X_REAL_IP", "HTTP_FORWARDED")


class TestForwarded:
    """What a proxy says of its clients, if it is trusted."""

    def test_l14_of_a_stranger_nothing(self, kept: Config) -> None:
        with Server(seen([*WHO, *CLAIMED]), kept) as server, Client(server.address) as client:
            for _ in range(2):
                assert json.loads(client.get("/a", *LIES).body) == {
                    "REMOTE_ADDR": "127.0.0.1",
                    "REMOTE_PORT": str(client.socket.getsockname()[1]),
                    "wsgi.url_scheme": "http",
                    "SCRIPT_NAME": "",
                    "PATH_INFO": "/a",
                }
            server.settled()
            assert {record.peer for record in server.records} == {"127.0.0.1"}
            assert server.said.count("removed X-") == 1
            told = "removed X-Forwarded-For of 127.0.0.1: 127.0.0.1 is not in trusted-proxies"
            assert told in server.said

    def test_nobody_is_told_of_what_is_believed(self, kept: Config) -> None:
        with Server(echo, trusting(kept)) as server, Client(server.address) as proxy:
            assert proxy.get("/", *LIES[:2]).status == 200
            server.settled()
            assert server.said == ""

    @pytest.mark.parametrize("kind", ["tcp", "unix"])
    def test_l14_of_a_proxy_what_it_added(self, kept: Config, kind: str, tmp_path: Path) -> None:
        door = tcp_door() if kind == "tcp" else unix_door(str(tmp_path / "socket"))
        with (
            Server(seen([*WHO, *CLAIMED]), trusting(kept), [door]) as server,
            Client(server.address) as proxy,
        ):
            for number in (1, 2):
                client = f"203.0.113.{number}"
                lines = [
                    f"X-Forwarded-For: 6.6.6.6, {client}, 127.0.0.1",
                    *LIES[1:],
                    "X-Forwarded-Prefix: /a",
                ]
                assert json.loads(proxy.get("/a/b", *lines).body) == {
                    "REMOTE_ADDR": client,
                    "REMOTE_PORT": "0",
                    "wsgi.url_scheme": "https",
                    "HTTPS": "on",
                    "SCRIPT_NAME": "/a",
                    "PATH_INFO": "/b",
                    "HTTP_X_FORWARDED_FOR": f"{client}, 127.0.0.1",
                    "HTTP_X_FORWARDED_PROTO": "https",
                }
            own = json.loads(proxy.get("/c").body)
            assert (own["REMOTE_ADDR"], own["wsgi.url_scheme"]) == (
                "127.0.0.1" if kind == "tcp" else "",
                "http",
            )
            server.settled()
            peers = [record.peer for record in server.records]
            assert peers == ["203.0.113.1", "203.0.113.2", own["REMOTE_ADDR"]]

    def test_s6_a_proxy_has_the_connections_of_all_its_clients(self, kept: Config) -> None:
        config = replace(trusting(kept), max_connections_per_peer=1)
        with Server(echo, config) as server, Client(server.address) as one, Client(server.address) as other:
            assert one.get("/a").status == 200
            assert other.get("/b").status == 200

    def test_l14_what_nobody_understands(self, kept: Config) -> None:
        with Server(echo, trusting(kept)) as server, Client(server.address) as proxy:
            answer = proxy.get("/", "X-Forwarded-For: 203.0.113.9, somebody")
            assert (answer.status, answer.closes) == (400, True)
            proxy.ended()
            server.settled()
            assert [record.peer for record in server.records] == ["127.0.0.1"]
            assert "somebody" in server.records[0].note

    def test_the_label_names_the_client(self, kept: Config) -> None:
        gate = Gate()
        with Server(gated(gate), trusting(kept)) as server, Client(server.address) as proxy:
            proxy.send(request("GET", "/wait", "X-Forwarded-For: 203.0.113.9"))
            gate.reached()
            assert server.entry.text == "203.0.113.9 GET /wait HTTP/1.1"
            gate.open()
            assert proxy.receive().status == 200

    @pytest.mark.parametrize(
        ("host", "client"),
        [("192.0.2.2", "203.0.113.9"), ("192.0.2.3", "192.0.2.3")],
        ids=["proxy", "stranger"],
    )
    def test_l14_of_who_came_by_a_sibling(
        self, kept: Config, shared: Shared, sibling: Sibling, host: str, client: str
    ) -> None:
        """Trust is in the peer that the message names: the same here as there."""
        ours, theirs = socket.socketpair()
        with shared(seen(WHO), trusting(kept)) as server, ours, theirs:
            theirs.settimeout(PATIENCE)
            data = request("GET", "/", "X-Forwarded-For: 203.0.113.9", "Connection: close")
            assert sibling.link.give(ours.fileno(), passage(data, host=host))
            answer = theirs.recv(1 << 16)
            while not answer.endswith(b"}"):
                answer += theirs.recv(1 << 16)
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["REMOTE_ADDR"] == client
            server.settled()


class TestIntroduction:
    """PROXY headers before HTTP."""

    @pytest.mark.parametrize("size", [1, 50, 1000], ids=str)
    def test_l14_the_client_of_a_proxy(self, kept: Config, size: int) -> None:
        """For all requests of the connection; and what he says of himself is no word of the proxy."""
        door = introduced(tcp_door(), "127.0.0.1")
        with (
            Server(seen([*WHO, *CLAIMED]), trusting(kept), [door]) as server,
            Client(server.address) as client,
        ):
            stream = LINE + request("GET", "/a", *LIES)
            for start in range(0, len(stream), size):
                client.send(stream[start : start + size])
                server.until(lambda loop: loop.book.connections)
            for path in ("/a", "/b"):
                assert json.loads(client.receive().body) == {
                    "REMOTE_ADDR": "203.0.113.9",
                    "REMOTE_PORT": "4711",
                    "wsgi.url_scheme": "http",
                    "SCRIPT_NAME": "",
                    "PATH_INFO": path,
                }
                client.send(request("GET", "/b", *LIES))
            client.receive()
            server.settled()
            assert {record.peer for record in server.records} == {"203.0.113.9"}

    def test_l14_once_on_a_connection(self, kept: Config) -> None:
        """CVE-2026-47737."""
        door = introduced(tcp_door(), "127.0.0.1")
        with Server(echo, trusting(kept), [door]) as server, Client(server.address) as client:
            client.send(LINE)
            assert client.get("/a").status == 200
            client.send(LINE + request("GET", "/b"))
            assert client.receive().status == 400
            client.ended()

    def test_l14_a_header_that_names_a_proxy(self, kept: Config) -> None:
        """One that a proxy of bytes stands before: the fields of that one are believed."""
        door = introduced(tcp_door(), "127.0.0.1")
        with Server(seen(WHO), trusting(kept), [door]) as server, Client(server.address) as client:
            client.send(LINE.replace(b"203.0.113.9", b"192.0.2.2"))
            answer = client.get("/", "X-Forwarded-For: 203.0.113.1")
            assert json.loads(answer.body)["REMOTE_ADDR"] == "203.0.113.1"

    @pytest.mark.parametrize(
        "header", [LINE, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12)], ids=["L14-v1", "L14-v2"]
    )
    def test_of_a_stranger_it_is_no_request(self, kept: Config, header: bytes) -> None:
        door = introduced(tcp_door(), "192.0.2.7")
        with Server(echo, kept, [door]) as server, Client(server.address) as client:
            client.send(header + request("GET", "/a"))
            assert client.receive().status == 400
            client.ended()
            server.settled()
            assert [record.peer for record in server.records] == ["127.0.0.1"]

    def test_l14_a_proxy_without_one_is_turned_away(self, kept: Config) -> None:
        """And the log says so: once, for it would go on and on."""
        door = introduced(tcp_door(), "127.0.0.1")
        with Server(echo, trusting(kept), [door]) as server:
            for _ in range(2):
                with Client(server.address) as client:
                    client.send(request("GET", "/a"))
                    with pytest.raises(ConnectionResetError):
                        client.ended()
            server.until(lambda loop: not loop.book.connections)
            assert server.records == []
            why = "closed a connection of a trusted proxy, 127.0.0.1: it does not begin with a PROXY header"
            assert server.said.count(why) == 1

    def test_s1_its_time_is_limited(self, kept: Config) -> None:
        door = introduced(tcp_door(), "127.0.0.1")
        with Server(echo, trusting(kept), [door]) as server, Client(server.address) as client:
            client.send(LINE[:-1])
            server.until(lambda loop: loop.book.greeting.members)
            server.advance(kept.handshake_timeout)
            client.ended()

    def test_who_is_introduced_while_the_application_is_busy_goes(self, sibling: Sibling) -> None:
        gate = Gate()
        door = introduced(tcp_door(), "127.0.0.1")
        with (
            Server(gated(gate), trusting(INLINE), [tcp_door(), door], link=sibling.link) as server,
            Client(door.socket.getsockname()) as client,
            Client(server.address) as busy,
        ):
            client.send(LINE[:5])
            server.until(lambda loop: loop.book.greeting.members)
            busy.send(request("GET", "/wait"))
            gate.reached()
            server.loop.relief.relieve(0.02)
            sibling.nothing()
            client.send(LINE[5:] + request("GET", "/a"))
            server.loop.relief.relieve(0.02)
            given = sibling.taken()
            assert (given.passage.host, given.passage.port, given.passage.data) == (
                "203.0.113.9",
                "4711",
                b"",
            )
            assert given.socket.recv(1000) == request("GET", "/a")
            gate.open()
            assert busy.receive().status == 200

    def test_it_stays_if_nobody_takes_it(self, sibling: Sibling) -> None:
        gate = Gate()
        door = introduced(tcp_door(), "127.0.0.1")
        with (
            Server(gated(gate), trusting(INLINE), [tcp_door(), door], link=sibling.link) as server,
            Client(door.socket.getsockname()) as client,
            Client(server.address) as busy,
        ):
            server.until(lambda loop: loop.book.greeting.members)
            busy.send(request("GET", "/wait"))
            gate.reached()
            client.send(LINE + request("GET", "/a"))
            with mock.patch.object(Link, "give", return_value=False):
                server.loop.relief.relieve(0.02)
            gate.open()
            assert busy.receive().status == 200
            assert client.receive().body == b"GET /a\n"
