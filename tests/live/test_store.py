"""systemd's descriptor store: without a socket unit, what connects between two runs waits for the next."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest

from stardust.base.address import ABSTRACT, TCP, parse
from tests.live.apps.versions import BROKEN, install, serving
from tests.live.client import Address, Connection, get, request
from tests.live.harness import Server, Store, listening
from tests.live.load import Load

SETTINGS = "max-workers = 2\n"


def place(tmp_path: Path, run: int) -> Path:
    """Where a run has its files."""
    found = tmp_path / str(run)
    found.mkdir()
    return found


def http(address: str) -> str:
    return f'{SETTINGS}[listen.http]\naddress = "{address}"\n'


def reached(server: Server) -> Address:
    """Where clients reach the only listener of a server."""
    [listener] = server.status()["listeners"]
    found = parse(listener["address"])
    if found.kind == TCP:
        return (found.host or "127.0.0.1", found.port)
    return "\0" + found.path if found.kind == ABSTRACT else found.path


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("kind", ["tcp", "unix", "abstract"])
def test_connections_wait_for_the_next_start(tmp_path: Path, kind: str, end: signal.Signals) -> None:
    name = "stardust" + str(tmp_path).replace("/", "-")
    settings = http({"tcp": "127.0.0.1:0", "unix": f"{tmp_path}/http.sock", "abstract": f"@{name}"}[kind])
    with Store() as store:
        with Server(place(tmp_path, 1), settings, store=store) as server:
            server.ready()
            address = reached(server)
            server.signal(end)
            server.wait()
        with Connection(address) as waiting:
            waiting.send(request("GET", "/", "Connection: close"))
            with Server(place(tmp_path, 2), settings, store=store) as server:
                server.ready()
                assert waiting.receive().text == "hello\n"
                assert get(address).text == "hello\n"
                assert not server.manager.said("FDSTORE"), "it is stored already"


def test_a_restart_loses_nothing_without_a_socket_unit(tmp_path: Path) -> None:
    """As with a socket of systemd's: 0 refused, 0 reset."""
    settings = http("127.0.0.1:0")
    with Store() as store:
        with Server(place(tmp_path, 0), settings, store=store) as server:
            server.ready()
            address = reached(server)
        with Load(address) as load:
            for run in (1, 2, 3):
                with Server(place(tmp_path, run), settings, store=store) as server:
                    server.ready()
                    load.await_answers(50)
            with Server(place(tmp_path, 4), settings, store=store) as server:
                server.ready()
                load.await_answers(50)
                load.end()
    assert not load.failures


def test_an_address_that_changed_while_the_server_was_down(tmp_path: Path) -> None:
    """The stored socket is in the way of the new address, and systemd has not closed it yet: no matter."""
    with Store() as store:
        with Server(place(tmp_path, 1), http(":0"), store=store) as server:
            server.ready()
            address = reached(server)
        [old] = store.sockets
        with Server(place(tmp_path, 2), http("{}:{}".format(*address)), store=store) as server:
            server.ready()
            assert get(address).text == "hello\n"
            assert server.manager.said("FDSTOREREMOVE") == ["1"]
        assert len(store.sockets) == 1
        assert old not in store.sockets


def test_a_reload_that_drops_an_address(tmp_path: Path) -> None:
    both = http("127.0.0.1:0") + f'[listen.side]\naddress = "{tmp_path}/side.sock"\n'
    with Store() as store, Server(place(tmp_path, 1), both, store=store) as server:
        server.ready()
        assert len(store.sockets) == 2
        server.configure(http("127.0.0.1:0"))
        assert server.control("reload").code == 0
        gone = server.expect("FDSTOREREMOVE", "1").fields["FDNAME"]
        assert "side.sock" in gone
        assert not (tmp_path / "side.sock").exists()
        assert get(reached(server)).text == "hello\n"
        assert len(store.sockets) == 1


def test_a_reload_that_fails_takes_back_what_it_stored(tmp_path: Path) -> None:
    app = tmp_path / "shop.py"
    install(app, serving("one"))
    with (
        Store() as store,
        Server(place(tmp_path, 1), http("127.0.0.1:0"), app=app, store=store, trouble=".") as server,
    ):
        server.ready()
        [kept] = store.sockets
        install(app, BROKEN["ImportError"][0])
        server.configure(http("127.0.0.2:0"))
        assert server.control("reload").code == 1
        server.expect("FDSTOREREMOVE", "1")
        assert [*store.sockets] == [kept]


def test_an_unknown_name_is_an_error_still(tmp_path: Path, listener: socket.socket) -> None:
    settings = http(f"{tmp_path}/http.sock")
    with Store() as store:
        with Server(place(tmp_path, 1), settings, store=store) as server:
            server.ready()
        sockets = {"htpp": listener}
        with Server(place(tmp_path, 2), settings, sockets=sockets, store=store, trouble=".") as server:
            assert server.wait() == 6
            assert 'did you mean "http"?' in server.log
        assert len(store.sockets) == 1


def test_a_socket_unit_takes_the_place_of_a_stored_socket(tmp_path: Path, listener: socket.socket) -> None:
    """What nobody would accept from must not go on listening."""
    settings = http("127.0.0.1:0")
    with Store() as store:
        with Server(place(tmp_path, 1), settings, store=store) as server:
            server.ready()
            address = reached(server)
        with Server(place(tmp_path, 2), settings, sockets={"http": listener}, store=store) as server:
            server.ready()
            assert server.get().text == "hello\n"
            with pytest.raises(ConnectionRefusedError):
                get(address)
        assert not store.sockets


def test_one_process_takes_up_what_was_stored(tmp_path: Path) -> None:
    settings = http("127.0.0.1:0")
    with Store() as store:
        with Server(place(tmp_path, 1), settings, store=store) as server:
            server.ready()
            address = reached(server)
        with (
            Connection(address) as waiting,
            Server(place(tmp_path, 2), settings, arguments=["--max-workers=0"], store=store) as server,
        ):
            waiting.send(request("GET", "/", "Connection: close"))
            assert waiting.receive().text == "hello\n"


def test_no_store(tmp_path: Path) -> None:
    """A unit without one gets the descriptors and closes them: all is as it was, but for a stale file."""
    path = tmp_path / "http.sock"
    for run in (1, 2):
        with Server(place(tmp_path, run), http(str(path))) as server:
            server.ready()
            assert get(str(path)).text == "hello\n"
        assert path.is_socket()
        with pytest.raises(ConnectionRefusedError):
            get(str(path))


def test_a_stored_socket_and_a_socket_unit_side_by_side(tmp_path: Path) -> None:
    settings = SETTINGS + '[listen.http]\n[listen.admin]\naddress = "127.0.0.1:0"\n'
    with Store() as store, listening() as front:
        for run in (1, 2):
            with Server(place(tmp_path, run), settings, sockets={"http": front}, store=store) as server:
                server.ready()
                names = [each["name"] for each in server.status()["listeners"]]
                assert names == ["http", "admin"]
                assert server.get().text == "hello\n"
            assert len(store.sockets) == 1
