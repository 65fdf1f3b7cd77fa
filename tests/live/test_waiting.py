"""Nobody waits behind somebody else's request, and nobody is lost with it.

No time is measured: the long request stands at a gate that opens only when all others have their answers.
"""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.client import MS, Address, BrokenError, Connection, get, request
from tests.live.harness import APPS, Gate, Server
from tests.live.load import Load

KEPT = "max-workers = 2\nmax-keepalive-reqs = 0\nkeepalive-timeout = 300\n"
CLIENTS = 32
LONG = b"0123456789" * 600_000  # more than a socket takes: tcp_wmem, tcp_rmem


@contextlib.contextmanager
def connected(address: Address, count: int = CLIENTS) -> Iterator[list[Connection]]:
    """Connections that have had an answer each; both workers have some of them."""
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(Connection(address)) for _ in range(count)]
        ask_all(connections)
        yield connections


def ask_all(connections: list[Connection]) -> set[str]:
    """One request on each, all at once; which workers answered."""
    for connection in connections:
        connection.send(request("GET", "/pid"))
    responses = [connection.receive() for connection in connections]
    assert not any(response.closes for response in responses)
    return {response.text for response in responses}


@pytest.mark.parametrize("how", ["hold", "spin"], ids=["sleeps", "computes"])
def test_behind_a_long_request(tmp_path: Path, listener: socket.socket, gate: Gate, how: str) -> None:
    with Server(tmp_path, KEPT, sockets={"http": listener}) as server:
        server.ready()
        with connected(server.address) as connections, Connection(server.address) as long:
            long.send(request("GET", f"/{how}?gate={gate.path}"))
            held = gate.arrival()
            for _ in range(3):
                assert str(held.pid) not in ask_all(connections)
            held.release()
            assert long.receive().text == "let go\n"
            ask_all(connections)


def test_behind_busy_threads(tmp_path: Path, listener: socket.socket, gate: Gate) -> None:
    """Three of four threads are held, so both of one worker."""
    with Server(tmp_path, KEPT + "threads = 2\n", sockets={"http": listener}) as server:
        server.ready()
        with contextlib.ExitStack() as stack:
            connections = stack.enter_context(connected(server.address))
            for _ in range(3):
                stack.enter_context(Connection(server.address)).send(
                    request("GET", f"/hold?gate={gate.path}")
                )
                stack.callback(gate.arrival().release)
            for _ in range(3):
                ask_all(connections)


@pytest.mark.parametrize("threads", [1, 2], ids=["inline", "threads"])
@pytest.mark.parametrize("cut", [10, 100], ids=["half a head", "half a body"])
def test_with_a_part_of_its_request_there(
    tmp_path: Path, listener: socket.socket, gate: Gate, threads: int, cut: int
) -> None:
    """It came before the long request did."""
    whole = request("POST", "/echo", body=b"x" * 1000)
    with Server(tmp_path, KEPT + f"threads = {threads}\n", sockets={"http": listener}) as server:
        server.ready()
        with contextlib.ExitStack() as stack:
            connections = stack.enter_context(connected(server.address))
            for connection in connections:
                connection.send(whole[:cut])
            get(server.address)  # so they have been read, by this worker or the next
            for _ in range(2 * threads - 1):
                stack.enter_context(Connection(server.address)).send(
                    request("GET", f"/hold?gate={gate.path}")
                )
                stack.callback(gate.arrival().release)
            for connection in connections:
                connection.send(whole[cut:])
            assert {connection.receive().body for connection in connections} == {b"x" * 1000}


def test_new_connections(tmp_path: Path, listener: socket.socket, gate: Gate) -> None:
    with Server(tmp_path, KEPT, sockets={"http": listener}) as server:
        server.ready()
        with Connection(server.address) as long:
            long.send(request("GET", f"/hold?gate={gate.path}"))
            held = gate.arrival()
            for _ in range(100):
                assert get(server.address).status == 200
            held.release()


def test_readers_of_long_responses(tmp_path: Path, listener: socket.socket, gate: Gate) -> None:
    """What they get is buffered by the held worker, and goes on coming."""
    with Server(tmp_path, KEPT, sockets={"http": listener}) as server:
        server.ready()
        with connected(server.address, 4) as connections, Connection(server.address) as long:
            for connection in connections:
                connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
                connection.send(request("GET", "/long?20"))
            get(server.address)
            long.send(request("GET", f"/hold?gate={gate.path}"))
            held = gate.arrival()
            assert {connection.receive().body for connection in connections} == {LONG}
            held.release()


def test_killed_for_its_request_a_worker_is_alone(
    tmp_path: Path, listener: socket.socket, gate: Gate
) -> None:
    """Connections that idle beside a request that takes too long have gone to others before."""
    settings = f"{KEPT}request-timeout = {3000 * MS}\nmain-process-delay = 0.01\n"
    with Server(tmp_path, settings, sockets={"http": listener}, trouble=".") as server:
        server.ready()
        with connected(server.address) as connections, Connection(server.address) as long:
            long.send(request("GET", f"/hold?gate={gate.path}"))
            gate.arrival().lost()
            with pytest.raises((BrokenError, ConnectionError)):
                long.receive()
            ask_all(connections)


def test_killed_by_somebody_a_worker_leaves_all_that_asked(
    tmp_path: Path, listener: socket.socket, gate: Gate
) -> None:
    """`kill -9` inside a long request: all whose answers came meanwhile are elsewhere."""
    with Server(tmp_path, KEPT, sockets={"http": listener}, trouble="kill|died|signal 9") as server:
        server.ready()
        with connected(server.address) as connections, Connection(server.address) as long:
            long.send(request("GET", f"/hold?gate={gate.path}"))
            held = gate.arrival()
            ask_all(connections)
            server.kill(held.pid)
            held.lost()
            ask_all(connections)


def test_the_work_is_shared(tmp_path: Path, listener: socket.socket) -> None:
    """By kept connections and others, however long requests have scattered them: nobody has more than twice
    his share."""
    settings = "max-workers = 4\nmax-keepalive-reqs = 0\nmax-reqs-per-child = 0\n"
    with Server(tmp_path, settings, sockets={"http": listener}) as server:
        server.ready()
        with Load(server.address, "/pid", clients=4, keeping=24) as load:
            with Load(server.address, "/nap", clients=0, keeping=2) as naps:
                naps.await_answers(20)
            load.await_answers(4000)
            before = load.answers.copy()
            load.await_answers(4000)
            shares = load.answers - before
        assert not load.failures
        assert set(shares) == {str(pid) for pid in server.workers()}
        assert max(shares.values()) <= 2 * shares.total() / len(shares)


def test_a_worker_that_was_taken_over(tmp_path: Path, listener: socket.socket) -> None:
    """It sends its siblings nonsense, with descriptors of all kinds: they close it, say so, and go on."""
    settings = KEPT + "max-reqs-per-child = 0\n"
    app = APPS / "hostile.py"
    with Server(
        tmp_path, settings, app=app, sockets={"http": listener}, trouble="invalid connection"
    ) as server:
        server.ready()
        before = server.workers().keys()
        with Load(server.address, clients=4) as load, connected(server.address, 8) as connections:
            for number in range(10):
                assert get(server.address, f"/attack?{number}").status == 200
                ask_all(connections)
            load.await_answers(100)
        assert not load.failures
        assert server.workers().keys() == before
        assert "a worker sent an invalid connection" in server.log


def test_stopping_while_connections_are_on_their_way(
    tmp_path: Path, listener: socket.socket, gate: Gate
) -> None:
    """All workers are held, so what asks now waits between them: it is answered before the server ends."""
    with Server(tmp_path, KEPT, sockets={"http": listener}) as server:
        server.ready()
        with contextlib.ExitStack() as stack:
            asking = stack.enter_context(connected(server.address))
            long, held = [], []
            for _ in range(2):
                long.append(stack.enter_context(Connection(server.address)))
                long[-1].send(request("GET", f"/hold?gate={gate.path}", "Connection: close"))
                held.append(gate.arrival())
            for connection in asking:
                connection.send(request("GET", "/"))
            server.signal(signal.SIGTERM)
            server.expect("STOPPING", "1")
            for each in held:
                each.release()
            assert {connection.receive().text for connection in asking} == {"hello\n"}
            assert {connection.receive().text for connection in long} == {"let go\n"}
            assert server.wait() == 0
