"""A restart with `store-connections`: idle connections wait in systemd's store, and no client loses one."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from stardust.systemd.store import CONNECTION, TABLE
from tests.live.apps.versions import BROKEN, install, serving, waiting
from tests.live.client import Address, BrokenError, Connection, request
from tests.live.harness import Gate, Server, Store, gated, listening
from tests.live.kept import ask, connected
from tests.live.load import Load

STORING = "store-connections = true\n"
OFF = 'max-workers = 2\nmax-keepalive-reqs = 0\nkeepalive-timeout = "1h"\n'
ON = OFF + STORING

Run = Callable[..., Server]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Makes one run after another, each in a place of its own."""
    places = (tmp_path / str(number) for number in range(100))

    def make(settings: str = ON, **more: object) -> Server:
        place = next(places)
        place.mkdir()
        return Server(place, settings, **more)  # type: ignore[arg-type]

    return make


def stop(server: Server) -> None:
    server.signal(signal.SIGTERM)
    assert server.wait() == 0


def stored(store: Store) -> int:
    """How many connections are stored."""
    assert (CONNECTION in store.sockets) <= (TABLE in store.sockets)
    return len(store.sockets.get(CONNECTION, []))


def taken_back(server: Server, store: Store) -> None:
    """Waits until nothing is stored any more: what systemd has too does not end when the server closes it."""
    while CONNECTION in store.sockets or TABLE in store.sockets:
        server.expect("FDSTOREREMOVE", "1")


def where(listener: socket.socket) -> Address:
    found: Address = listener.getsockname()
    return found


# --- who goes on -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_parked_connection(tmp_path: Path, run: Run, kind: str) -> None:
    """Three times in a row. What its client has asked meanwhile is answered, and nothing else has changed."""
    place: Address = ("127.0.0.1", 0) if kind == "tcp" else str(tmp_path / "http.sock")
    with listening(place) as listener, Store() as store, Connection(where(listener)) as client:
        known = []
        for number in range(3):
            with run(sockets={"http": listener}, store=store) as server:
                server.ready()
                if number:
                    assert client.receive().text == "hello\n"
                    taken_back(server, store)
                    assert "connections taken back after the restart: 1" in server.log
                known.append(json.loads(ask(client, "/variables")))
                assert not server.manager.said("FDSTORE")
                stop(server)
                assert "idle connections stored for the next start: 1" in server.log
            assert stored(store) == 1
            client.send(request("GET", "/"))
        assert known[0] == known[1] == known[2]


def test_one_that_has_asked_nothing_yet(run: Run, listener: socket.socket) -> None:
    settings = ON.replace("workers = 2", "workers = 1")
    with Store() as store, connected(where(listener), 2) as (fresh, other):
        with run(settings, sockets={"http": listener}, store=store) as server:
            server.ready()
            ask(other)  # it was accepted after the first
            stop(server)
        assert stored(store) == 2
        with run(sockets={"http": listener}, store=store) as server:
            server.ready()
            assert ask(fresh) == ask(other) == "hello\n"


def test_of_a_listener_that_is_stored_too(run: Run) -> None:
    settings = ON + '[listen.http]\naddress = "127.0.0.1:0"\n'
    with Store() as store:
        with run(settings, store=store) as server:
            server.ready()
            [listener] = server.status()["listeners"]
            host, _, port = listener["address"].partition(":")
            client = Connection((host, int(port)))
            ask(client)
            stop(server)
        with client, run(settings, store=store) as server:
            server.ready()
            assert ask(client) == "hello\n"


def test_requests_are_counted_on(run: Run, listener: socket.socket) -> None:
    settings = ON.replace("reqs = 0", "reqs = 3")
    with Store() as store, Connection(where(listener)) as client:
        for _ in range(2):
            with run(settings, sockets={"http": listener}, store=store) as server:
                server.ready()
                ask(client)
                stop(server)
        with run(settings, sockets={"http": listener}, store=store) as server:
            server.ready()
            taken_back(server, store)
            client.send(request("GET", "/"))
            assert client.receive().closes
            client.ended()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("more", [b"", request("GET", "/pid"), request("GET", "/pid")[:9]], ids=len)
def test_with_a_request(run: Run, listener: socket.socket, gate: Gate, threads: int, more: bytes) -> None:
    """It is answered first, without a word about closing, and so is what has come behind it."""
    settings = ON + f"threads = {threads}\n"
    with Store() as store, connected(where(listener), 2) as (client, other):
        with run(settings, sockets={"http": listener}, store=store) as server:
            server.ready()
            client.send(request("GET", gated(gate.path)) + more)
            held = gate.arrival()
            ask(other)
            server.signal(signal.SIGTERM)
            server.expect("STOPPING", "1")
            held.release()
            response = client.receive()
            assert (response.text, response.closes) == ("let go\n", False)
            if more:
                client.send(request("GET", "/pid")[len(more) :])
                assert not client.receive().closes
            assert server.wait() == 0
        assert stored(store) == 2
        with run(settings, sockets={"http": listener}, store=store) as server:
            server.ready()
            assert ask(client) == ask(other) == "hello\n"


def test_behind_a_request_that_never_ends(run: Run, listener: socket.socket, gate: Gate) -> None:
    """Of the only worker: who waits beside it is stored all the same, and it alone is lost."""
    settings = ON.replace("workers = 2", "workers = 1")
    with Store() as store, connected(where(listener), 3) as clients:
        with (
            run(settings, sockets={"http": listener}, store=store, trouble="kill") as server,
            Connection(where(listener)) as stuck,
        ):
            server.ready()
            for client in clients:
                ask(client)
            stuck.send(request("GET", gated(gate.path)))
            held = gate.arrival()
            server.signal(signal.SIGTERM)
            for _ in [TABLE, *clients]:
                server.expect("FDSTORE", "1")
            stop(server)
            held.lost()
        with run(settings, sockets={"http": listener}, store=store) as server:
            server.ready()
            for client in clients:
                assert ask(client) == "hello\n"


@pytest.mark.parametrize("threads", [1, 4])
def test_under_load(run: Run, listener: socket.socket, threads: int) -> None:
    """Requests of every kind: nobody is reset, and nobody is told to go."""
    settings = ON + f"threads = {threads}\n"
    with Store() as store, Load(where(listener), keeping=16, varied=True) as load:
        for _ in range(3):
            with run(settings, sockets={"http": listener}, store=store) as server:
                server.ready()
                load.await_answers(200)
                stop(server)
        with run(settings, sockets={"http": listener}, store=store) as server:
            server.ready()
            load.await_answers(200)
            load.end()
    assert (load.failures, load.closes) == ([], 0)


def test_hundreds(run: Run, listener: socket.socket) -> None:
    """More than the workers' link holds, or the socket to systemd."""
    with Store() as store, connected(where(listener), 400) as clients:
        with run(sockets={"http": listener}, store=store) as server:
            server.ready()
            for client in clients:
                ask(client)
            stop(server)
        assert stored(store) == len(clients)
        with run(sockets={"http": listener}, store=store) as server:
            server.ready()
            for client in clients:
                client.send(request("GET", "/"))
            for client in clients:
                assert not client.receive().closes


def test_beside_busy_workers(run: Run, listener: socket.socket, gate: Gate) -> None:
    """They wait until the workers have room, and a second restart meanwhile finds them where they are."""
    with Store() as store, connected(where(listener), 400) as clients:
        with run(sockets={"http": listener}, store=store) as server:
            server.ready()
            for client in clients:
                ask(client)
            stop(server)
        with (
            connected(where(listener), 2) as busy,
            run(sockets={"http": listener}, store=store) as server,
        ):
            for client in busy:
                client.send(request("GET", gated(gate.path)))
            held = [gate.arrival() for _ in busy]
            server.ready()
            taken_back(server, store)
            server.signal(signal.SIGTERM)
            server.expect("STOPPING", "1")
            for each in held:
                each.release()
            for client in busy:
                assert client.receive().text == "let go\n"
            assert server.wait() == 0
        assert stored(store) == len(clients) + len(busy)
        with run(sockets={"http": listener}, store=store) as server:
            server.ready()
            for client in clients:
                assert ask(client) == "hello\n"


# --- starts that fail --------------------------------------------------------------------------------------


def test_a_broken_application(tmp_path: Path, run: Run, listener: socket.socket) -> None:
    """Nothing is taken back until requests would be answered."""
    app = tmp_path / "shop.py"
    install(app, serving("one"))
    with Store() as store, Connection(where(listener)) as client:
        with run(app=app, sockets={"http": listener}, store=store) as server:
            server.ready()
            assert ask(client) == "one"
            stop(server)
        install(app, BROKEN["ImportError"][0])
        client.send(request("GET", "/"))
        for _ in range(2):
            with run(app=app, sockets={"http": listener}, store=store, trouble=".") as server:
                assert server.wait() == 3
            assert stored(store) == 1
        install(app, serving("two"))
        with run(app=app, sockets={"http": listener}, store=store) as server:
            server.ready()
            assert client.receive().text == "two"


def test_a_stop_while_the_application_loads(
    tmp_path: Path, run: Run, listener: socket.socket, gate: Gate
) -> None:
    app = tmp_path / "shop.py"
    install(app, serving("one"))
    with Store() as store, Connection(where(listener)) as client:
        with run(app=app, sockets={"http": listener}, store=store) as server:
            server.ready()
            ask(client)
            stop(server)
        install(app, waiting("two", gate.path))
        with run(app=app, sockets={"http": listener}, store=store) as server:
            held = gate.arrival()
            stop(server)
            held.lost()
        assert stored(store) == 1
        install(app, serving("three"))
        with run(app=app, sockets={"http": listener}, store=store) as server:
            server.ready()
            assert ask(client) == "three"


# --- who does not ------------------------------------------------------------------------------------------


def test_off(run: Run, listener: socket.socket) -> None:
    """As it was: an idle client is waited for, and told that its next request is the last."""
    with Store() as store, Connection(where(listener)) as client:
        with run(OFF, sockets={"http": listener}, store=store) as server:
            server.ready()
            ask(client)
            server.signal(signal.SIGTERM)
            server.expect("STOPPING", "1")
            closes = False
            while not closes:  # the worker may hear of it a request later
                client.send(request("GET", "/"))
                closes = client.receive().closes
            client.ended()
            assert server.wait() == 0
        assert not store.sockets


@pytest.mark.parametrize(
    ("settings", "arguments"),
    [
        pytest.param(OFF, [], id="off"),
        pytest.param(ON, ["--max-workers=0"], id="alone"),
        pytest.param(ON + '[listen.http]\naddress = "127.0.0.1:0"\n', [], id="another listener"),
    ],
)
def test_the_next_start_does_not_want_them(
    run: Run, listener: socket.socket, settings: str, arguments: list[str]
) -> None:
    """It ends them, and systemd gets nothing to keep."""
    sockets = {} if "listen" in settings else {"http": listener}
    with Store() as store, Connection(where(listener)) as client:
        with run(sockets={"http": listener}, store=store) as server:
            server.ready()
            ask(client)
            stop(server)
        assert stored(store) == 1
        with run(settings, arguments=arguments, sockets=sockets, store=store) as server:
            server.ready()
            taken_back(server, store)
            client.ended()
            if sockets:
                server.get()  # alone, it is ready before it can be stopped


def test_more_than_fit(run: Run, listener: socket.socket) -> None:
    """systemd closes the rest, whose clients see the end of their connection."""
    with Store(room=4) as store, connected(where(listener), 6) as clients:
        with run(sockets={"http": listener}, store=store) as server:
            server.ready()
            for client in clients:
                ask(client)
            stop(server)
        assert stored(store) == 3
        with run(sockets={"http": listener}, store=store) as server:
            server.ready()
            server.await_log("connections taken back after the restart: 3")
            taken_back(server, store)
            answers = 0
            for client in clients:
                try:
                    ask(client)
                except (OSError, BrokenError):
                    continue
                answers += 1
            assert answers == 3


def test_a_client_that_has_gone(run: Run, listener: socket.socket) -> None:
    """One has closed its end, which systemd leaves to us; one is gone, and systemd has dropped it."""
    with Store() as store, connected(where(listener), 3) as clients:
        with run(sockets={"http": listener}, store=store) as server:
            server.ready()
            for client in clients:
                ask(client)
            stop(server)
        here, closed, gone = clients
        closed.socket.close()
        store.sockets[CONNECTION] = [fd for fd in store.sockets[CONNECTION] if not dropped(fd, gone)]
        assert stored(store) == 2
        with run(sockets={"http": listener}, store=store) as server:
            server.ready()
            assert ask(here) == "hello\n"
            taken_back(server, store)


def dropped(descriptor: int, client: Connection) -> bool:
    """Close a descriptor that is stored, if it is the connection of this client."""
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        same: bool = sock.getpeername() == client.socket.getsockname()
    if same:
        os.close(descriptor)
    return same


def test_a_fast_stop_stores_nothing(run: Run, listener: socket.socket) -> None:
    with Store() as store, Connection(where(listener)) as client:
        with run(sockets={"http": listener}, store=store, trouble="kill") as server:
            server.ready()
            ask(client)
            server.signal(signal.SIGQUIT)
            assert server.wait() == 0
        assert not store.sockets
        client.ended()


def test_without_systemd(run: Run, listener: socket.socket) -> None:
    """The setting means nothing there."""
    settings = ON.replace('"1h"', '"50ms"')
    with (
        Connection(where(listener)) as client,
        run(settings, sockets={"http": listener}, environ={"NOTIFY_SOCKET": ""}) as server,
    ):
        ask(client)
        server.signal(signal.SIGTERM)
        client.ended()
        assert server.wait() == 0
