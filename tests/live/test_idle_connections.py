"""Ten thousand connections that wait for their next request: what they cost, and a reload that moves them."""

from __future__ import annotations

import contextlib
import resource
import socket
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import pytest

from tests.live.client import PATIENCE, Connection, request
from tests.live.harness import Server

COUNT = 10_000
WORKERS = 4
BYTES = 4096  # of memory for each, beyond the kernel's

CROWD = 100  # connections opened at once, so that all workers get some
WARM_UP = 4 * CROWD
SPARE = 200  # descriptors for anything but the connections
LOOKS = 10  # at idle workers in a row

# The timers of connections and the heartbeats of idle workers wake them for good reasons.
SETTINGS = f"""
max-workers = {WORKERS}
max-keepalive-reqs = 0
max-reqs-per-child = 0
keepalive-timeout = "1h"
header-timeout = "1h"
heartbeat-timeout = 0
"""


@pytest.fixture
def room() -> Iterator[int]:
    """How many connections we may hold, and a worker: COUNT, or less where RLIMIT_NOFILE cannot be raised."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = COUNT + SPARE
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), max(hard, wanted)))
    except (ValueError, PermissionError):  # we are not root
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield min(COUNT, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def opened(server: Server, count: int) -> Iterator[list[Connection]]:
    """So many connections, each of which has had one answer."""
    with contextlib.ExitStack() as stack:
        connections: list[Connection] = []
        while len(connections) < count:
            # A source address for each of a crowd: none runs out of ports.
            sources = [f"127.0.2.{number + 1}" for number in range(min(CROWD, count - len(connections)))]
            crowd = [stack.enter_context(Connection(server.address, source)) for source in sources]
            ask(crowd)
            connections += crowd
        yield connections


def ask(connections: Iterable[Connection]) -> None:
    """One request on each, CROWD at a time, and an answer after which the connection stays."""
    rest = iter(connections)
    while crowd := [*islice(rest, CROWD)]:
        for connection in crowd:
            connection.send(request("GET", "/"))
        for connection in crowd:
            response = connection.receive()
            assert response.text == "hello\n"
            assert not response.closes


def memory(pids: Iterable[int]) -> int:
    """Bytes that processes have to themselves: proc(5), smaps_rollup."""
    lines = [line for pid in pids for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()]
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_Dirty:"))


def switches(pids: Iterable[int]) -> int:
    """How often any thread of these processes has been woken, or more: proc(5), status."""
    tasks = [task for pid in pids for task in Path(f"/proc/{pid}/task").iterdir()]
    lines = [line for task in tasks for line in (task / "status").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if "voluntary_ctxt_switches:" in line)


def rests(server: Server, pids: Iterable[int]) -> None:
    """Waits until nothing in these workers runs for as long as LOOKS commands take that ask others."""
    deadline = time.monotonic() + PATIENCE
    quiet, before = 0, switches(pids)
    while quiet < LOOKS:
        assert time.monotonic() < deadline, "the workers do not rest"
        server.status()
        now = switches(pids)
        quiet, before = quiet + 1 if now == before else 0, now


def test_idle_connections(tmp_path: Path, listener: socket.socket, room: int) -> None:
    with Server(tmp_path, SETTINGS, sockets={"http": listener}) as server:
        server.ready()
        with opened(server, WARM_UP):
            pass
        old = server.workers()
        alone = memory(old)
        with opened(server, room) as connections:
            assert memory(old) - alone <= room * BYTES
            rests(server, old)
            assert server.control("reload").code == 0
            for pid in old:
                server.ended(pid)
            ask(connections)
            new = server.workers()
            assert not new.keys() & old.keys()
            assert memory(new) - alone <= room * BYTES
            rests(server, new)
