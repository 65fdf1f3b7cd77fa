"""No connection is lost when workers come and go: kept ones, half-sent requests, pipelined ones.

What happens to a connection whose worker leaves is nothing that its client could see, not even a
`Connection: close`.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.live.client import Address, Connection, request
from tests.live.harness import Gate, Server, listening
from tests.live.load import Load

WORKERS = 10
CLIENTS = 64  # of each kind
RELOADS = 200
# Longer than any test: a worker that leaves cannot have waited for this to end.
SETTINGS = f"""
max-workers = {WORKERS}
max-keepalive-reqs = 0
keepalive-timeout = "1h"
graceful-timeout = "1h"
"""
RECYCLED = "max-reqs-per-child = 100\n"


@pytest.fixture(params=["tcp", "unix"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    address: Address = ("127.0.0.1", 0) if request.param == "tcp" else str(tmp_path / "http.sock")
    with listening(address) as bound:
        yield bound


def unharmed(load: Load) -> None:
    assert load.failures == []
    assert load.closes == 0


def test_s5_idle_connections_hold_no_worker(tmp_path: Path, listener: socket.socket) -> None:
    """The old workers are gone though nobody has asked them anything, and all their clients are served."""
    with Server(tmp_path, SETTINGS, sockets={"http": listener}) as server, ExitStack() as stack:
        server.ready()
        clients = [stack.enter_context(Connection(server.address)) for _ in range(CLIENTS)]
        for client in clients[: CLIENTS // 2]:
            client.send(request("GET", "/pid"))
            assert not client.receive().closes
        for _ in range(2):
            old = server.workers()
            assert server.control("reload").code == 0
            for pid in old:
                server.ended(pid)
        for client in clients:
            client.send(request("GET", "/pid"))
            response = client.receive()
            assert not response.closes
            assert int(response.text) not in old


@pytest.mark.timeout(900)
@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("listener", ["tcp"], indirect=True)
def test_reloads_in_a_row(tmp_path: Path, listener: socket.socket, threads: int) -> None:
    """Each fortieth time the workers stay for long enough to be recycled, too."""
    settings = SETTINGS + RECYCLED + f"threads = {threads}\n"
    with Server(tmp_path, settings, sockets={"http": listener}) as server:
        server.ready()
        load = Load(server.address, "/pid", CLIENTS, keeping=CLIENTS, varied=True, limit=1_000_000)
        with load:
            for number in range(RELOADS):
                assert server.control("reload").code == 0
                load.await_answers(2 * 100 * WORKERS if number % 40 == 0 else 10)
        unharmed(load)
        assert server.status()["generation"] == RELOADS + 1


@pytest.mark.parametrize("preload", ["true", "false"])
def test_reloads(tmp_path: Path, listener: socket.socket, preload: str) -> None:
    """The same with workers that load the application by themselves, and through a UNIX socket."""
    settings = SETTINGS + RECYCLED + f"preload = {preload}\n"
    with Server(tmp_path, settings, sockets={"http": listener}) as server:
        server.ready()
        with Load(server.address, "/pid", CLIENTS // 4, keeping=CLIENTS // 4, varied=True) as load:
            for _ in range(3):
                assert server.control("reload").code == 0
                load.await_answers(2 * 100 * WORKERS // 4)
        unharmed(load)


def test_workers_one_by_one(tmp_path: Path, listener: socket.socket) -> None:
    """TTOU down to a single worker, which serves them all, and TTIN up again."""
    with Server(tmp_path, SETTINGS + "max-reqs-per-child = 0\n", sockets={"http": listener}) as server:
        server.ready()
        with Load(server.address, "/pid", CLIENTS, keeping=CLIENTS, varied=True) as load:
            old = server.workers()
            for left in range(WORKERS - 1, 0, -1):
                server.signal(signal.SIGTTOU)
                while len(server.workers()) > left:
                    server.expect("STATUS")
            [last] = server.workers()
            for pid in old.keys() - {last}:
                server.ended(pid)
            load.await_answers(10 * CLIENTS)
            for ready in range(2, WORKERS + 1):
                server.signal(signal.SIGTTIN)
                while server.status()["ready"] < ready:
                    server.expect("STATUS")
            load.await_answers(10 * CLIENTS)
        unharmed(load)


def test_harakiri(tmp_path: Path, listener: socket.socket) -> None:
    """Each worker that makes an end of itself leaves its connections to the others."""
    with Server(tmp_path, SETTINGS, sockets={"http": listener}) as server:
        server.ready()
        with (
            Load(server.address, "/pid", CLIENTS, keeping=CLIENTS, varied=True) as load,
            Load(server.address, "/harakiri", clients=1) as deadly,
        ):
            deadly.await_answers(10 * WORKERS)
        assert deadly.failures == []
        assert max(deadly.answers.values()) == 1
        unharmed(load)


def test_what_queues_at_a_listener_that_goes(tmp_path: Path, listener: socket.socket, gate: Gate) -> None:
    """Nobody accepts there any more, but it is open as long as an old worker has it."""
    side = str(tmp_path / "side.sock")
    settings = "max-workers = 1\n[listen.http]\n"
    both = settings + f'[listen.side]\naddress = "{side}"\n'
    with Server(tmp_path, both, sockets={"http": listener}) as server, ExitStack() as stack:
        server.ready()
        long = stack.enter_context(Connection(server.address))
        long.send(request("GET", f"/hold?gate={gate.path}"))
        held = gate.arrival()
        server.configure(settings)
        assert server.control("reload").code == 0
        clients = [stack.enter_context(Connection(side)) for _ in range(CLIENTS)]
        for client in clients[1:]:
            client.send(request("GET", "/pid"))
        held.release()
        assert long.receive().text == "let go\n"
        server.ended(held.pid)
        clients[0].send(request("GET", "/pid"))
        assert {int(client.receive().text) for client in clients} == server.workers().keys()


def test_a_listener_that_goes(tmp_path: Path, listener: socket.socket) -> None:
    """Connections that came by it go on being served, in this reload and after later ones."""
    side = str(tmp_path / "side.sock")
    settings = SETTINGS + "[listen.http]\n"
    both = settings + f'[listen.side]\naddress = "{side}"\n'
    with Server(tmp_path, both, sockets={"http": listener}) as server:
        server.ready()
        with Load(side, "/pid", 0, keeping=CLIENTS) as load:
            load.await_answers(2 * CLIENTS)
            server.configure(settings)
            for _ in range(3):
                old = server.processes() - {server.pid}
                assert server.control("reload").code == 0
                for pid in old:
                    server.ended(pid)
                load.await_answers(2 * CLIENTS)
        unharmed(load)
        assert server.get().text == "hello\n"
    assert not Path(side).exists()
