"""Real proxies before the server. They keep their connections to it and never retry: no request is lost; and
the application sees the client, whatever that one says of itself."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.certificates import Authority
from tests.live.apps.giant import pieces
from tests.live.client import Address, Connection, request
from tests.live.harness import APPS, PROBE, Server, listening
from tests.live.load import Load
from tests.live.proxies import guided, proxy
from tests.live.secure import SecureConnection, trusting
from tests.live.sockdiag import peers

GIANT = APPS / "giant.py"
WORKERS = 4
RELOADS = 20
SETTINGS = f"""
max-workers = {WORKERS}
max-keepalive-reqs = 0
keepalive-timeout = "1h"
graceful-timeout = "1h"
max-reqs-per-child = 100
"""


@pytest.mark.parametrize("title", ["HAProxy", "nginx"])
def test_reloads(tmp_path: Path, listener: socket.socket, title: str) -> None:
    with Server(tmp_path, SETTINGS, sockets={"http": listener}) as server:
        server.ready()
        with proxy(tmp_path, guided(title), server.address) as address:
            with Load(address, "/pid", 16, keeping=16, varied=True) as load:
                for _ in range(RELOADS):
                    assert server.control("reload").code == 0
                    load.await_answers(100)
            assert any(map(peers, server.workers())), "the proxy has kept no connection"
    assert load.failures == []
    assert load.closes == 0


# --- whom the application sees -----------------------------------------------------------------------------

GIB = 1024  # pieces of 1 MiB

LIES = [
    "X-Forwarded-For: 6.6.6.6",
    "Forwarded: for=6.6.6.6;proto=https",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: evil.example",
    "X-Real-IP: 6.6.6.6",
]
CLIENTS = ["127.0.0.8", "127.0.0.9"]


class Way(NamedTuple):
    """A proxy of the guide, how it reaches the server, with what in place of some word of the guide, and with
    what settings of the server besides."""

    title: str
    unix: bool
    words: tuple[str, str] = ("", "")
    settings: str = ""

    @contextlib.contextmanager
    def taken(self, place: Path, app: Path) -> Iterator[tuple[Server, Address]]:
        """A server of one worker and the proxy before it; where that one listens."""
        told = guided(self.title)
        told = told._replace(proxy=told.proxy.replace(*self.words))
        settings = told.settings + self.settings + "max-workers = 1\nmax-reqs-per-child = 0\n"
        if not self.unix:
            settings = settings.replace('"unix:"', '"127.0.0.1"')
        with (
            listening(str(place / "s") if self.unix else ("127.0.0.1", 0)) as listener,
            Server(place, settings, app=app, sockets={"http": listener}) as server,
        ):
            server.ready()
            with proxy(place, told, server.address) as address:
                yield server, address


HTTP = [
    pytest.param(Way("nginx", unix=True), id="L14-nginx-unix"),
    pytest.param(Way("nginx", unix=False), id="L14-nginx-tcp"),
    pytest.param(Way("nginx, RFC 7239", unix=True), id="L14-nginx-forwarded"),
    pytest.param(Way("HAProxy", unix=True), id="L14-haproxy-unix"),
    pytest.param(Way("HAProxy", unix=False), id="L14-haproxy-tcp"),
    pytest.param(Way("HAProxy, RFC 7239", unix=False), id="L14-haproxy-forwarded"),
]
V1, V2 = ("send-proxy-v2", "send-proxy"), ("", "")
TLVS = ("send-proxy-v2", "send-proxy-v2 proxy-v2-options unique-id,crc32c")
STREAMS = [
    pytest.param(Way("nginx, PROXY protocol", unix=True), id="L14-nginx-unix"),
    pytest.param(Way("nginx, PROXY protocol", unix=False), id="L14-nginx-tcp"),
    pytest.param(Way("HAProxy, PROXY protocol", unix=True, words=V1), id="L14-haproxy-v1"),
    pytest.param(Way("HAProxy, PROXY protocol", unix=False, words=V2), id="L14-haproxy-v2"),
    pytest.param(Way("HAProxy, PROXY protocol", unix=True, words=TLVS), id="L14-haproxy-v2-tlvs"),
]


def variables(connection: Connection) -> dict[str, str]:
    """What the application sees of a client that lies."""
    connection.send(request("GET", "/variables", *LIES))
    response = connection.receive()
    assert response.status == 200
    environ: dict[str, str] = json.loads(response.text)
    return environ


@pytest.mark.parametrize("way", HTTP)
def test_fields_of_a_proxy(tmp_path: Path, way: Way) -> None:
    used = set()
    with way.taken(tmp_path, PROBE) as (_, address):
        for source in CLIENTS * 5:
            with Connection(address, source) as client:
                for _ in range(2):
                    environ = variables(client)
                    assert environ["REMOTE_ADDR"] == source
                    assert (environ["wsgi.url_scheme"], environ["HTTP_HOST"]) == ("http", "test")
                    chain = environ.get("HTTP_X_FORWARDED_FOR", environ.get("HTTP_FORWARDED", ""))
                    assert chain in (source, f"for={source};proto=http")
                    assert "6.6.6.6" not in environ.values()
                    assert "HTTP_X_FORWARDED_HOST" not in environ
                    client.send(request("GET", "/connection"))
                    used.add(client.receive().text)
    assert len(used) <= len(CLIENTS), "the proxy has not kept its connections"


@pytest.mark.parametrize("way", STREAMS)
def test_proxy_protocol(tmp_path: Path, way: Way) -> None:
    """The client is who it is, also for the next generation, to which its connection moves."""
    with way.taken(tmp_path, PROBE) as (server, address), contextlib.ExitStack() as stack:
        clients = [(source, stack.enter_context(Connection(address, source))) for source in CLIENTS]
        for number in (1, 2):
            for source, client in clients:
                environ = variables(client)
                assert environ["REMOTE_ADDR"] == source
                assert environ["REMOTE_PORT"] == str(client.socket.getsockname()[1])
                assert environ["wsgi.url_scheme"] == "http"
                assert not {"6.6.6.6", "evil.example"} & set(environ.values())
            if number == 1:
                assert server.control("reload").code == 0
        for _, client in clients:
            # CVE-2026-47737: once on a connection
            client.send(b"PROXY TCP4 6.6.6.6 6.6.6.6 1 1\r\n\r\n")
            assert client.receive().status == 400


def test_l14_proxy_protocol_before_tls(tmp_path: Path) -> None:
    """The proxy passes bytes on that it cannot read: who the client is comes before its handshake."""
    root = Authority(tmp_path, "root")
    localhost = root.issue("localhost", sans=["DNS:localhost"])
    tls = f'ssl = true\nssl-cert-file = "{localhost.both}"\n'
    way = Way("HAProxy, PROXY protocol", unix=True, settings=tls)
    with (
        way.taken(tmp_path, PROBE) as (_, address),
        SecureConnection(address, trusting(root.certificate)) as client,
    ):
        host, port = client.socket.getsockname()
        for _ in range(2):
            environ = client.variables()
            assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"]) == (host, str(port))
            assert (environ["wsgi.url_scheme"], environ["HTTPS"]) == ("https", "on")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("way", [HTTP[0], HTTP[4], STREAMS[1], STREAMS[4]])
def test_a_gibibyte_each_way(tmp_path: Path, way: Way) -> None:
    """A body and a response of 1 GiB; nobody holds one in memory, and the sums are right."""
    sent = hashlib.sha256()
    came = hashlib.sha256()
    with way.taken(tmp_path, GIANT) as (_, address), Connection(address, CLIENTS[0]) as client:
        client.send(request("POST", "/", f"Content-Length: {GIB << 20}"))
        for piece in pieces(GIB):
            sent.update(piece)
            client.send(piece)
        assert client.receive().text == f"{CLIENTS[0]} {sent.hexdigest()}"
        client.send(request("GET", f"/?{GIB}"))
        size = client.receive_into(came.update)
    assert size == GIB << 20
    assert came.digest() == sent.digest()
