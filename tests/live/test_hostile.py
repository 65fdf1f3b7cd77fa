"""Clients that are slow, many, or gone at the wrong moment, beside good ones; and machines that run short.

Each: the hostile one gets the right status or a clean end, the log says what happened, nothing is left of it,
and nobody else notices. How long the good ones wait is the benchmark's affair (bench/hostile.py).
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.live.client import PATIENCE, Address, BrokenError, Connection, exchange, request
from tests.live.harness import APPS, Gate, Server, gated

WORKERS = 2
SETTINGS = f"""
max-workers = {WORKERS}
max-reqs-per-child = 0
max-keepalive-reqs = 0
keepalive-timeout = "1h"
"""
SCARCE = APPS / "scarce.py"
COUNTS = {"heads": 300, "bodies": 300, "readers": 150}
GOOD = 16
ROUNDS = 20

BUFFERS = 4 << 20  # bytes; max-buffer-memory of the servers here
EACH = 32768 + 8192 + 4096  # what a connection may hold: a head, what is free of the budget, and itself
OWN = (
    16 << 20
)  # bytes; what a worker may grow by anyway, when it meets so many connections for the first time

HALF_HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n"
HALF_BODY = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n" + b"x" * 10000
BAD = b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n"
LARGE = b"GET /long?10 HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """As many as may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def until(true: Callable[[], bool]) -> None:
    """Waits for what a file of proc(5) tells, or a log: they can only be asked again and again."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        select.select([], [], [], 0.01)


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def memory(pid: int) -> int:
    """What a process has to itself."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Private_Dirty"))


def reader(address: Address, asks: bytes) -> Connection:
    """One that asks, and has the kernel keep very little for it."""
    connection = Connection.__new__(Connection)
    connection.socket = socket.socket()
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.socket.settimeout(PATIENCE)
    connection._buffer = b""
    connection.socket.connect(address)
    connection.send(asks)
    return connection


def reset(connection: Connection) -> None:
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.socket.close()


@pytest.mark.usefixtures("many_descriptors")
@pytest.mark.parametrize(
    "kinds",
    [
        pytest.param(["heads"], id="S1-S4-S5-heads"),
        pytest.param(["bodies"], id="S2-S4-bodies"),
        pytest.param(["readers"], id="S3-S4-readers"),
        pytest.param([*COUNTS], id="S1-S2-S3-S4-all"),
    ],
)
def test_good_ones_beside(tmp_path: Path, listener: socket.socket, kinds: list[str]) -> None:
    """They hang, the good ones are answered, and memory stays below what the settings allow."""
    settings = f"{SETTINGS}max-buffer-memory = {BUFFERS}\nmin-body-rate = 0\nmin-response-rate = 0\n"
    with Server(tmp_path, settings, sockets={"http": listener}) as server, contextlib.ExitStack() as stack:
        server.ready()
        workers = [*server.workers()]
        before = {pid: (descriptors(pid), memory(pid)) for pid in workers}
        with contextlib.ExitStack() as hostile:
            for kind in kinds:
                for _ in range(COUNTS[kind]):
                    if kind == "readers":
                        each = reader(server.address, LARGE)
                    else:
                        each = Connection(server.address)
                        each.send(HALF_HEAD if kind == "heads" else HALF_BODY)
                    hostile.enter_context(each)
            good = [stack.enter_context(Connection(server.address)) for _ in range(GOOD)]
            for number in range(ROUNDS):
                for each in good:
                    each.send(request("GET", "/pid"))
                for each in good:
                    assert int(each.receive().body) in workers, number
            held = sum(COUNTS[kind] for kind in kinds)
            until(lambda: sum(map(descriptors, workers)) >= held)
            for pid in workers:
                assert memory(pid) - before[pid][1] < BUFFERS + held * EACH + OWN
            assert server.workers().keys() == {*workers}
        until(lambda: sum(map(descriptors, workers)) <= sum(each[0] for each in before.values()) + GOOD)


def lingering(address: Address, gate: Gate) -> Connection:
    connection = Connection(address)
    connection.send(BAD + b"x" * 1000)
    assert connection.receive().status == 400
    return connection


def parked(address: Address, gate: Gate) -> Connection:
    connection = Connection(address)
    connection.send(request("GET", "/"))
    connection.receive()
    return connection


def sent(data: bytes) -> Callable[[Address, Gate], Connection]:
    def come(address: Address, gate: Gate) -> Connection:
        connection = Connection(address)
        connection.send(data)
        return connection

    return come


def running(address: Address, gate: Gate) -> Connection:
    connection = Connection(address)
    connection.send(request("GET", gated(gate.path)))
    return connection


def reading(address: Address, gate: Gate) -> Connection:
    connection = reader(address, LARGE)
    assert connection.socket.recv(100)
    return connection


@pytest.mark.parametrize("how", ["reset", "end"])
@pytest.mark.parametrize(
    "come",
    [
        pytest.param(sent(b""), id="S9-before-the-head"),
        pytest.param(sent(HALF_HEAD), id="S9-in-the-head"),
        pytest.param(sent(HALF_BODY), id="S9-in-the-body"),
        pytest.param(running, id="S9-while-the-application-runs"),
        pytest.param(reading, id="S9-in-the-response"),
        pytest.param(lingering, id="S9-lingering"),
        pytest.param(parked, id="S9-parked"),
    ],
)
def test_gone_at_any_point(
    tmp_path: Path,
    listener: socket.socket,
    gate: Gate,
    come: Callable[[Address, Gate], Connection],
    how: str,
) -> None:
    """Ten times each; nothing is left, and nothing is said but in the access log."""
    settings = f"{SETTINGS}threads = 2\n".replace(f"max-workers = {WORKERS}", "max-workers = 1")
    with Server(tmp_path, settings, sockets={"http": listener}) as server:
        server.ready()
        [worker] = server.workers()
        with Connection(server.address) as good:
            good.send(request("GET", "/"))
            good.receive()
            before = descriptors(worker)
            for _ in range(10):
                gone = come(server.address, gate)
                held = gate.arrival() if come is running else None
                if how == "reset":
                    reset(gone)
                else:
                    gone.socket.close()
                if held is not None:
                    held.release()
                good.send(request("GET", "/pid"))
                assert int(good.receive().body) == worker
            until(lambda: descriptors(worker) <= before)


ABUSE = [
    pytest.param(b"fffffffffffffffff\r\n", 400, id="F5-size-too-long"),
    pytest.param(b"7fffffffffffffff\r\n", 413, id="F5-size-too-large"),
    pytest.param(b"-1\r\n", 400, id="F5-size-negative"),
    pytest.param(b"5\nhello\r\n0\r\n\r\n", 400, id="F5-bare-lf"),
    pytest.param(b"5;" + b"a" * 5000 + b"\r\n", 400, id="F6-extension-too-long"),
    pytest.param(b"1;a=b\r\nx\r\n" * 1500, 400, id="F6-F7-extensions-without-end"),
    pytest.param(b"1\r\nx\r\n" * 20_000, 400, id="F7-single-bytes-without-end"),
    pytest.param(b"0\r\n" + b"A: b\r\n" * 100, 400, id="F8-too-many-trailers"),
    pytest.param(b"0\r\nA: " + b"b" * 9000, 400, id="F8-a-trailer-too-long"),
    pytest.param(b"0\r\nContent-Length: 5\r\n\r\n", 400, id="F8-forbidden-trailer"),
]


@pytest.mark.parametrize(("body", "status"), ABUSE)
def test_chunks(abused: Server, body: bytes, status: int) -> None:
    """Refused, closed, and nothing behind it is served; the worker goes on."""
    head = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = exchange(abused.address, head + body)
    assert (answer.status, answer.closes) == (status, True)
    assert abused.get("/").status == 200


def test_s8_a_thousand_requests_in_one_go(abused: Server) -> None:
    with Connection(abused.address) as connection:
        connection.send(request("GET", "/pid") * 1000)
        assert len({connection.receive().body for _ in range(1000)}) >= 1


@pytest.fixture(scope="module")
def abused(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as sock:
        place = tmp_path_factory.mktemp("abused")
        with Server(place, SETTINGS, sockets={"http": sock}) as server:
            server.ready()
            yield server


def scarce(place: Path, listener: socket.socket, what: str, more: str = "", **environ: str) -> Server:
    """A server with one worker where that is scarce."""
    settings = SETTINGS.replace(f"max-workers = {WORKERS}", "max-workers = 1") + more
    return Server(
        place,
        settings,
        app=SCARCE,
        sockets={"http": listener},
        environ={"SCARCE": what, **environ},
        trouble="cannot buffer a request's body|cannot fork|MemoryError|Traceback|application error|killed",
    )


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        pytest.param("disk", "No space left on device", id="P7-ENOSPC"),
        pytest.param("file", "File too large", id="P7-EFBIG"),
    ],
)
def test_no_room_for_a_body(tmp_path: Path, listener: socket.socket, what: str, reason: str) -> None:
    """507 for who sends too much; a body that fits, and all that need none, are served meanwhile."""
    with scarce(tmp_path, listener, what, "max-buffer-memory = 0\n") as server:
        server.ready()
        before = int(server.get("/descriptors").body)
        for _ in range(3):
            answer = exchange(server.address, request("POST", "/", body=bytes(1 << 20)))
            assert (answer.status, answer.closes) == (507, True)
            answer = exchange(server.address, request("POST", "/", "Connection: close", body=bytes(100_000)))
            assert (answer.status, answer.body) == (200, b"100000")
        assert "cannot buffer a request's body: [Errno" in server.log
        assert reason in server.log
        until(lambda: int(server.get("/descriptors").body) == before)


def test_p7_no_room_for_a_response(tmp_path: Path, listener: socket.socket) -> None:
    """Who does not read it is cut off; nobody takes a part for the whole."""
    with scarce(tmp_path, listener, "disk", "max-buffer-memory = 0\n") as server:
        server.ready()
        with reader(server.address, request("GET", "/large")) as slow:
            until(lambda: server.get("/").status == 200)
            with pytest.raises((BrokenError, ConnectionResetError)):
                slow.receive()
        with Connection(server.address) as quick:
            quick.send(request("GET", "/"))
            assert quick.receive().status == 200


def test_s6_more_than_the_descriptors_allow(tmp_path: Path, listener: socket.socket) -> None:
    """64, less an eighth and 32: so many connections. Who has been idle longest goes; all are served."""
    with scarce(tmp_path, listener, "descriptors") as server, contextlib.ExitStack() as stack:
        server.ready()
        idle = []
        for _ in range(60):
            idle.append(stack.enter_context(Connection(server.address)))
            idle[-1].send(request("GET", "/"))
            assert idle[-1].receive().status == 200
        for each in idle[: 60 - 24]:
            each.ended()
        for each in idle[60 - 24 :]:
            each.send(request("GET", "/"))
            assert each.receive().status == 200


def test_s10_the_application_has_all_descriptors(tmp_path: Path, listener: socket.socket) -> None:
    """Idle connections go, then nobody is taken, with a line a second; and then all is as before."""
    with scarce(tmp_path, listener, "descriptors") as server, contextlib.ExitStack() as stack:
        server.ready()
        idle = [stack.enter_context(Connection(server.address)) for _ in range(3)]
        for each in idle:
            each.send(request("GET", "/"))
            each.receive()
        greedy = stack.enter_context(Connection(server.address))
        greedy.send(request("GET", "/take"))
        greedy.receive()
        greedy.send(HALF_HEAD)  # and so is not idle
        waiting: list[Connection] = []

        def exhausted() -> bool:
            """One more takes an idle one's place, and may lose it while it has sent nothing itself."""
            waiting.append(stack.enter_context(Connection(server.address)))
            waiting[-1].send(HALF_HEAD)
            return "accepts no connections for 0.1 s: Too many open files" in server.log

        until(exhausted)
        for each in idle:
            each.ended()
        greedy.send(b"\r\n")
        assert greedy.receive().status == 200
        greedy.send(request("GET", "/give"))
        assert greedy.receive().status == 200
        waiting[-1].send(b"\r\n")
        assert waiting[-1].receive().status == 200


def test_p9_nowhere_to_put_a_body(tmp_path: Path, listener: socket.socket) -> None:
    """Without a place for temporary files the server starts, and serves all that need none."""
    with scarce(tmp_path, listener, "place", "max-buffer-memory = 0\n") as server:
        server.ready()
        answer = exchange(server.address, request("POST", "/", "Connection: close", body=b"small"))
        assert (answer.status, answer.body) == (200, b"5")
        answer = exchange(server.address, request("POST", "/", body=bytes(100_000)))
        assert (answer.status, answer.closes) == (507, True)
        assert "cannot buffer a request's body: [Errno 2] No such file or directory" in server.log


def test_p2_no_process_for_a_worker(tmp_path: Path, listener: socket.socket) -> None:
    """The server lives, tries again, later and later, and has its worker when there is one to be had."""
    fail = tmp_path / "fail"
    with scarce(
        tmp_path, listener, "processes", 'main-process-delay = "10ms"\n', FAIL_FORK=str(fail)
    ) as server:
        server.ready()
        [worker] = server.workers()
        fail.touch()
        server.kill(worker)
        server.await_log("cannot fork worker 3: Resource temporarily unavailable")
        with Connection(server.address) as waiting:
            waiting.send(request("GET", "/"))
            fail.unlink()
            assert waiting.receive().status == 200


@pytest.mark.parametrize("hours", [pytest.param(1, id="P6-forward"), pytest.param(-1, id="P6-backward")])
def test_the_clock_on_the_wall_jumps(tmp_path: Path, listener: socket.socket, hours: int) -> None:
    """Nobody is late because of it, no worker is replaced; only Date follows."""
    offset = tmp_path / "offset"
    offset.write_text("0")
    with scarce(tmp_path, listener, "clock", OFFSET=str(offset)) as server, contextlib.ExitStack() as stack:
        server.ready()
        workers = server.workers().keys()
        idle, head, body = (stack.enter_context(Connection(server.address)) for _ in range(3))
        idle.send(request("GET", "/"))
        before = idle.receive().header("Date")
        head.send(HALF_HEAD)
        body.send(HALF_BODY)
        temporary = tmp_path / "new"
        temporary.write_text(str(3600 * hours))
        temporary.rename(offset)

        def hour() -> str:
            idle.send(request("GET", "/"))
            date = idle.receive().header("Date")
            assert date is not None
            return date[17:19]

        assert before is not None
        until(lambda: hour() != before[17:19])
        head.send(b"\r\n")
        assert head.receive().status == 200
        body.send(b"x" * 10000)
        assert body.receive().status == 200
        assert server.workers().keys() == workers


def test_w9_no_memory_for_the_application(tmp_path: Path, listener: socket.socket) -> None:
    """MemoryError is an exception of the application like any other, and the worker goes on."""
    with scarce(tmp_path, listener, "memory") as server:
        server.ready()
        workers = server.workers().keys()
        answer = exchange(server.address, request("GET", "/take"))
        assert answer.status == 500
        assert server.get("/").status == 200
        assert server.workers().keys() == workers
        assert "MemoryError" in server.log
