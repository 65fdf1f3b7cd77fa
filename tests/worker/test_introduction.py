"""The PROXY header at the beginning of a connection: what is taken of it, and what is left."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterator

import pytest

from stardust.base.address import Address, Peers
from stardust.base.errors import ClientGone
from stardust.worker.connection import Connection
from stardust.worker.introduction import greeting

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
        connection = Connection(sock, number, Address("tcp", "", 80), environ, 0, 1.0)
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
        pytest.param(b"", "it ended before", id="L14-nothing"),
        pytest.param(LINE[:20], "it ended before", id="L14-half"),
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
