"""Sockets: handed over and matched by name, or bound by the server."""

from __future__ import annotations

import json
import os
import socket
import stat
from pathlib import Path

import pytest

from tests.live.client import Connection, exchange, get, request
from tests.live.harness import KINDS, Server, activation, listening

SETTINGS = "max-workers = 1\n"


@pytest.mark.parametrize("kind", KINDS)
def test_activated_by_the_first_connection(tmp_path: Path, kind: str) -> None:
    """systemd-socket-activate(1) starts the server when the first client comes; that client is served."""
    settings = SETTINGS + "[listen.http]\n"
    with (
        activation(kind, tmp_path) as (launcher, address),
        Server(tmp_path, settings, launcher=launcher) as server,
    ):
        server.await_log("Listening on")
        with Connection(address) as first:
            first.send(request("GET", "/variables", "Connection: close"))
            variables = json.loads(first.receive().body)
            server.ready()
            if isinstance(address, tuple):
                local = first.socket.getsockname()
                assert (variables["REMOTE_ADDR"], variables["REMOTE_PORT"]) == (local[0], str(local[1]))
                assert variables["SERVER_PORT"] == str(address[1])
            else:
                assert (variables["REMOTE_ADDR"], variables["REMOTE_PORT"]) == ("", "0")
        assert get(address).text == "hello\n"


def test_names_find_their_tables(tmp_path: Path) -> None:
    """Starlet t/11multi-sockets.t: several listeners of both kinds, and each knows where it is."""
    path = str(tmp_path / "http.sock")
    with listening() as front, listening() as admin, listening(path) as local:
        sockets = {"http": front, "admin": admin, "local": local}
        tables = "[listen.admin]\n[listen.local]\n[listen.http]\n"
        with Server(tmp_path, "max-workers = 2\n" + tables, sockets=sockets) as server:
            server.ready()
            for listener in (front, admin):
                variables = json.loads(get(listener.getsockname(), "/variables").body)
                assert variables["SERVER_PORT"] == str(listener.getsockname()[1])
            assert get(path).text == "hello\n"
            names = {each["name"] for each in server.status()["listeners"]}
            assert names == {"http", "admin", "local"}


def test_descriptors_need_no_tables(tmp_path: Path) -> None:
    with (
        listening() as one,
        listening() as other,
        Server(tmp_path, SETTINGS, sockets={"one": one, "other": other}) as server,
    ):
        server.ready()
        assert get(one.getsockname()).text == "hello\n"
        assert get(other.getsockname()).text == "hello\n"


def test_a_descriptor_takes_the_place_of_an_address(tmp_path: Path, listener: socket.socket) -> None:
    """The same file serves under systemd and without: the address is what holds without."""
    path = tmp_path / "unused.sock"
    settings = SETTINGS + f'[listen.http]\naddress = "{path}"\n'
    with Server(tmp_path, settings, sockets={"http": listener}) as server:
        server.ready()
        assert server.get().text == "hello\n"
        assert not path.exists()


def test_a_descriptor_without_its_table(tmp_path: Path, listener: socket.socket) -> None:
    """A leftover would be a port that never answers: an error that names it and the nearest table."""
    settings = SETTINGS + '[listen.http]\naddress = "127.0.0.1:0"\n'
    with Server(tmp_path, settings, sockets={"htpp": listener}, trouble=".") as server:
        assert server.wait() == 6
        assert "htpp" in server.log
        assert "[listen.http]" in server.log


def test_a_table_that_nothing_serves(tmp_path: Path) -> None:
    with Server(tmp_path, SETTINGS + "[listen.http]\n", trouble=".") as server:
        assert server.wait() == 6
        assert "http" in server.log


def test_a_descriptor_that_does_not_listen(tmp_path: Path) -> None:
    left, right = socket.socketpair()
    with left, right, Server(tmp_path, SETTINGS, sockets={"http": left}, trouble=".") as server:
        assert server.wait() == 6
        assert "http" in server.log


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    listening(str(path)).close()
    settings = SETTINGS + f'[listen.http]\naddress = "{path}"\nmode = "0600"\n'
    with Server(tmp_path, settings) as server:
        server.ready()
        assert get(str(path)).text == "hello\n"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_live_socket_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    settings = SETTINGS + f'[listen.http]\naddress = "{path}"\n'
    with listening(str(path)) as owner, Server(tmp_path, settings, trouble=".") as server:
        assert server.wait() == 1
        assert str(path) in server.log
        with Connection(str(path)):
            owner.accept()[0].close()


def test_a_file_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    path.write_text("precious")
    settings = SETTINGS + f'[listen.http]\naddress = "{path}"\n'
    with Server(tmp_path, settings, trouble=".") as server:
        assert server.wait() == 1
        assert path.read_text() == "precious"


def test_a_taken_port(tmp_path: Path, listener: socket.socket) -> None:
    host, port = listener.getsockname()
    settings = SETTINGS + f'[listen.http]\naddress = "{host}:{port}"\n'
    with Server(tmp_path, settings, trouble=".") as server:
        assert server.wait() == 1
        assert f"{host}:{port}" in server.log


def test_an_abstract_socket(tmp_path: Path) -> None:
    name = f"stardust-test-{os.getpid()}"
    with Server(tmp_path, SETTINGS + f'[listen.http]\naddress = "@{name}"\n') as server:
        server.ready()
        assert get("\0" + name).text == "hello\n"


@pytest.mark.parametrize("ipv6", [True, False])
def test_the_wildcard(tmp_path: Path, ipv6: bool) -> None:
    """`--ipv6=1`: one dual-stack socket, and IPv4 clients keep their plain addresses; `0` is really off."""
    arguments = ["--listen", ":0", f"--ipv6={int(ipv6)}"]
    with Server(tmp_path, SETTINGS, arguments=arguments) as server:
        server.ready()
        [listener] = server.status()["listeners"]
        port = int(listener["address"].rpartition(":")[2])
        variables = json.loads(get(("127.0.0.1", port), "/variables").body)
        assert variables["REMOTE_ADDR"] == "127.0.0.1"
        if ipv6:
            variables = json.loads(get(("::1", port), "/variables").body)
            assert variables["REMOTE_ADDR"] == "::1"
        else:
            with pytest.raises(ConnectionRefusedError):
                get(("::1", port))


def test_a_unix_socket_serves_http_10(tmp_path: Path) -> None:
    """Starlight t/10unix_domain_socket.t."""
    path = str(tmp_path / "http.sock")
    with Server(tmp_path, SETTINGS, arguments=["--socket", path]) as server:
        server.ready()
        response = exchange(path, b"GET / HTTP/1.0\r\n\r\n")
        assert response.text == "hello\n"
        assert response.closes
        assert response.header("Server") == "stardust"
