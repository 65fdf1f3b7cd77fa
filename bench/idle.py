"""Idle connections: what COUNT of them cost while nobody asks for anything, and a reload that moves them all.

    measure(server, load, seconds) -> [Idle]; it takes as long as it takes

Each connection has had one answer before it idles. Then, in this order: memory; wake-ups for WATCH seconds;
`stardustctl reload`; one more request on each connection.

Rules:
- Memory is what the workers have to themselves (proc(5), Private_Dirty) beyond what they had after a warm-up:
  the kernel's own buffers and the pages shared with the zygote are not in it.
- A wake-up is a context switch of any thread of a worker, voluntary or not.
- Connections are opened CROWD at a time, so that all workers get some. Their source addresses differ, so that
  no pair of addresses runs out of ports.
"""

from __future__ import annotations

import contextlib
import json
import resource
import socket
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from processes import PROC, BenchError, Running, control, memory, serving
from report import bar, table
from servers import Server

APP = "hello:application"

COUNT = 10_000
CROWD = 100
WARM_UP = 400  # connections
SETTLE = 2.0  # s; longer than --header-timeout of the server's row, whose timers end by themselves
WATCH = 5.0  # s
LIMIT = 20.0  # s; for an answer, and for the old workers to end
DESCRIPTORS = COUNT + 1000  # that we need, and so does a worker that gets all connections

LOADS = {"idle": f"{COUNT:,} connections that wait for their next request"}
MOST_BYTES = 4096
"""Of memory for an idle connection. The other bars: no wake-ups, no connection lost."""

REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
BODY = b"Hello, world!\n"


class Idle(NamedTuple):
    """`bytes_each`: memory of a connection; `wakeups` of all workers in `watched` seconds; the command took
    `reload_s`, and after `moved_s` the last old worker had ended; `moved_bytes_each`: memory of a connection
    at its new worker; `survived`: connections that were answered once more."""

    server: str
    connections: int
    bytes_each: int
    wakeups: int
    watched: float
    reload_s: float
    moved_s: float
    moved_bytes_each: int
    survived: int


RESULT = Idle


def measure(server: Server, load: str, seconds: int) -> list[Idle]:
    """Raises BenchError if the server does not start, does not reload, or an answer fails before."""
    with _descriptors(), serving(server, APP) as running:
        with _connections(running.port, WARM_UP):
            pass
        workers = _workers(running)
        alone = memory(workers, "Private_Dirty")
        with _connections(running.port, COUNT) as connections:
            held = memory(workers, "Private_Dirty") - alone
            time.sleep(SETTLE)
            before = _switches(workers)
            time.sleep(WATCH)
            wakeups = _switches(workers) - before
            began = time.monotonic()
            control(running, "reload")
            reloaded = time.monotonic() - began
            _await_end(workers)
            moved = time.monotonic() - began
            survived = sum(_asked(crowd) for crowd in _crowds(connections))
            moved_held = memory(_workers(running), "Private_Dirty") - alone
    one = Idle(
        server=server.name,
        connections=COUNT,
        bytes_each=round(held / COUNT),
        wakeups=wakeups,
        watched=WATCH,
        reload_s=round(reloaded, 3),
        moved_s=round(moved, 3),
        moved_bytes_each=round(moved_held / COUNT),
        survived=survived,
    )
    return [one]


@contextlib.contextmanager
def _descriptors() -> Iterator[None]:
    """DESCRIPTORS of them for us and the server that we start."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, DESCRIPTORS), max(hard, DESCRIPTORS)))
    except (ValueError, PermissionError):
        raise BenchError(
            f"{COUNT} connections need {DESCRIPTORS} descriptors; ulimit -Hn allows {hard}"
        ) from None
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def _connections(port: int, count: int) -> Iterator[list[socket.socket]]:
    """So many, each of which has had one answer."""
    connections: list[socket.socket] = []
    try:
        while len(connections) < count:
            crowd = [_connected(port, len(connections) + number) for number in range(CROWD)]
            connections += crowd
            if _asked(crowd) < len(crowd):
                raise BenchError(f"a connection of the first {len(connections)} was not answered")
        yield connections
    finally:
        for connection in connections:
            connection.close()


def _connected(port: int, number: int) -> socket.socket:
    source = f"127.0.2.{number % 250 + 1}"
    return socket.create_connection(("127.0.0.1", port), LIMIT, source_address=(source, 0))


def _crowds(connections: Sequence[socket.socket]) -> Iterator[Sequence[socket.socket]]:
    for first in range(0, len(connections), CROWD):
        yield connections[first : first + CROWD]


def _asked(crowd: Sequence[socket.socket]) -> int:
    """One request on each; how many were answered, and stay open as far as the answer says."""
    for connection in crowd:
        with contextlib.suppress(OSError):  # the missing answer counts
            connection.sendall(REQUEST)
    return sum(map(_answered, crowd))


def _answered(connection: socket.socket) -> bool:
    received = b""
    try:
        while not received.endswith(BODY):
            data = connection.recv(65536)
            if not data:
                return False
            received += data
    except OSError:
        return False
    return received.startswith(b"HTTP/1.1 200 ") and b"Connection: close" not in received


def _workers(running: Running) -> list[int]:
    """Their pids."""
    return [worker["pid"] for worker in json.loads(control(running, "status"))["workers"]]


def _switches(pids: Sequence[int]) -> int:
    """Context switches of all threads until now (proc(5))."""
    total = 0
    for pid in pids:
        for task in (PROC / str(pid) / "task").iterdir():
            for line in (task / "status").read_text().splitlines():
                if "voluntary_ctxt_switches:" in line:  # and nonvoluntary_
                    total += int(line.split()[1])
    return total


def _await_end(pids: Sequence[int]) -> None:
    deadline = time.monotonic() + LIMIT
    while any((PROC / str(pid)).exists() for pid in pids):
        if time.monotonic() > deadline:
            raise BenchError(f"old workers that do not end within {LIMIT:g} s of a reload")
        time.sleep(0.01)


def told(measured: Sequence[Idle]) -> str:
    [one] = measured
    return f"{one.bytes_each} bytes each, {one.survived} survived a reload"


HEAD = (
    *("server", "bytes each", "wake-ups", "in s", "reload s"),
    *("moved after s", "bytes moved", "survived"),
)


def tables(measured: Sequence[Idle]) -> Iterator[str]:
    """A row for every time it was measured."""
    yield from table(HEAD, map(_line, measured))
    most = max(max(one.bytes_each, one.moved_bytes_each) for one in measured)
    yield bar(f"idle: at most {MOST_BYTES:,} bytes each", f"{most:,}", most <= MOST_BYTES)
    wakeups = sum(one.wakeups for one in measured)
    yield bar("idle: no wake-ups", f"{wakeups}", not wakeups)
    lost = sum(one.connections - one.survived for one in measured)
    yield bar("idle: no connection lost by a reload", f"{lost:,}", not lost)


def _line(one: Idle) -> tuple[str, ...]:
    return (
        one.server,
        f"{one.bytes_each:,}",
        f"{one.wakeups}",
        f"{one.watched:g}",
        f"{one.reload_s:.2f}",
        f"{one.moved_s:.2f}",
        f"{one.moved_bytes_each:,}",
        f"{one.survived:,}",
    )
