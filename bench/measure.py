"""One measurement: start a server on its core, load it from the other core, read what it used, stop it.

    measure(server, load, seconds) -> Measurement

Rules:
- CPU time is the kernel's count (proc(5), utime + stime) for the whole process tree, children that have ended
  included. It hardly depends on what else runs on the machine; requests a second and latencies do.
- The warm-up is not counted: it is the same load, for WARM_UP seconds.
- `foreign` says how busy the server's core was with anything but the server: above a few per cent, trust CPU
  time alone.
- Whatever is started here is stopped here, also on errors and Ctrl-C.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from loads import Load
from servers import Server

SERVER_CORE = 0
CLIENT_CORE = 1

WARM_UP = 1  # s; wrk knows whole seconds
START_LIMIT = 20.0  # s
STOP_LIMIT = 10.0  # s

HERE = Path(__file__).parent
PROC = Path("/proc")
TICK = 1 / os.sysconf("SC_CLK_TCK")  # s; the unit of proc(5)

# The commands of servers.py mean those of this interpreter's environment first.
ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


class BenchError(Exception):
    """A measurement that could not be made. The text says which, and what the server printed."""


class Measurement(NamedTuple):
    """What one server did under one load. Times without a unit in the name are seconds, memory is bytes.

    `cpu` is user and system time, `system` the part of it in the kernel. Memory is what is held at the end:
    `rss` counts pages that processes of the tree share once for each of them, `pss` once. `failed` counts
    answers of status 400 and above, timeouts, and connections that broke. `foreign` is a share of the time,
    0 to 1.
    """

    server: str
    load: str
    requests: int
    failed: int
    seconds: float
    cpu: float
    system: float
    p50_ms: float
    p99_ms: float
    rss: int
    pss: int
    foreign: float


class Cpu(NamedTuple):
    """Seconds."""

    user: float
    system: float


class _Process(NamedTuple):
    """One line of /proc/PID/stat: the parent, and CPU time with that of children that were waited for."""

    parent: int
    cpu: Cpu


def measure(server: Server, load: Load, seconds: int) -> Measurement:
    """Raises BenchError if the server does not start, or wrk does not run."""
    with _serving(server, load) as (root, port):
        _wrk(load, port, WARM_UP)
        began, before, busy = time.monotonic(), _cpu(root), _busy(SERVER_CORE)
        result = _wrk(load, port, seconds)
        elapsed, after, busy = time.monotonic() - began, _cpu(root), _busy(SERVER_CORE) - busy
        rss, pss = _memory(root)
    cpu = sum(after) - sum(before)
    return Measurement(
        server=server.name,
        load=load.name,
        requests=int(result["requests"]),
        failed=int(result["failed"]),
        seconds=result["seconds"],
        cpu=round(cpu, 3),
        system=round(after.system - before.system, 3),
        p50_ms=result["p50_ms"],
        p99_ms=result["p99_ms"],
        rss=rss,
        pss=pss,
        foreign=round(max(0.0, busy - cpu) / elapsed, 3),
    )


@contextlib.contextmanager
def _serving(server: Server, load: Load) -> Iterator[tuple[int, int]]:
    """The server, answering: its first process and its port."""
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch, open(f"{scratch}/output", "w+") as output:
        port = _free_port()
        command = [part.format(app=load.app, port=port, scratch=scratch) for part in server.command]
        process = subprocess.Popen(
            _pinned(SERVER_CORE, command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=HERE,
            env=ENVIRONMENT,
            start_new_session=True,  # Ctrl-C is ours; we then stop the server
        )
        try:
            if not _answers(port, process):
                output.seek(0)
                raise BenchError(f"{server.name} does not answer: {' '.join(command)}\n{output.read()}")
            yield process.pid, port
        finally:
            _stop(process)


def _answers(port: int, process: subprocess.Popen[bytes]) -> bool:
    """Waits for the first answer; False if the server ends or START_LIMIT passes before."""
    deadline = time.monotonic() + START_LIMIT
    while time.monotonic() < deadline and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_LIMIT)
        try:
            connection.request("GET", "/", headers={"Connection": "close"})
            return connection.getresponse().status == 200
        except ConnectionError:
            time.sleep(0.02)
        finally:
            connection.close()
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM; after STOP_LIMIT SIGKILL for what is left of the tree."""
    family = [process.pid, *_descendants(process.pid)]
    process.terminate()
    try:
        process.wait(STOP_LIMIT)
    except subprocess.TimeoutExpired:
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        process.wait()


def _wrk(load: Load, port: int, seconds: int) -> dict[str, float]:
    """Runs wrk; the object that `done` of load.lua prints."""
    command = [
        "wrk",
        *load.wrk,
        "--duration",
        f"{seconds}s",
        "--timeout",
        "10s",
        "--script",
        str(HERE / "load.lua"),
    ]
    command += [f"http://127.0.0.1:{port}/", "--", load.shape]
    run = subprocess.run(_pinned(CLIENT_CORE, command), capture_output=True, text=True, check=False)
    for line in run.stdout.splitlines():
        if line.startswith("result "):
            result: dict[str, float] = json.loads(line.removeprefix("result "))
            return result
    raise BenchError(f"wrk gives no result: {' '.join(command)}\n{run.stdout}{run.stderr}")


def _pinned(core: int, command: list[str]) -> list[str]:
    return ["taskset", "--cpu-list", str(core), *command]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _processes() -> dict[int, _Process]:
    """Every process of the machine by its number."""
    found = {}
    for folder in PROC.iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                # proc(5): the command's name, in parentheses, may hold anything, ")" too.
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                user, system, ended_user, ended_system = (int(field) * TICK for field in fields[11:15])
                cpu = Cpu(user + ended_user, system + ended_system)
                found[int(folder.name)] = _Process(int(fields[1]), cpu)
    return found


def _descendants(root: int) -> list[int]:
    processes = _processes()
    family = [root]
    for pid in family:  # it grows on the way
        family += [child for child, process in processes.items() if process.parent == pid]
    return family[1:]


def _cpu(root: int) -> Cpu:
    """CPU time the tree below `root` has used until now, with its children that have ended."""
    family = [root, *_descendants(root)]
    processes = _processes()
    used = [processes[pid].cpu for pid in family if pid in processes]
    return Cpu(sum(cpu.user for cpu in used), sum(cpu.system for cpu in used))


def _busy(core: int) -> float:
    """Seconds the core has not been idle until now.

    proc(5), cpuN of /proc/stat: the 4th and 5th number are idle time; those after the 8th are in others too.
    """
    for line in (PROC / "stat").read_text().splitlines():
        name, *fields = line.split()
        if name == f"cpu{core}":
            ticks = [int(field) for field in fields[:8]]
            return (sum(ticks) - ticks[3] - ticks[4]) * TICK
    raise BenchError(
        f"/proc/stat knows no core {core}: the benchmark needs cores {SERVER_CORE} and {CLIENT_CORE}"
    )


def _memory(root: int) -> tuple[int, int]:
    """Bytes of RSS and PSS of the tree below `root`."""
    totals = {"Rss:": 0, "Pss:": 0}
    for pid in (root, *_descendants(root)):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
                key, value, *_ = line.split()
                if key in totals:
                    totals[key] += int(value) * 1024
    return totals["Rss:"], totals["Pss:"]
