"""A server as processes: start it on its core, know its tree, read what the tree uses, stop it.

Rules:
- CPU time is the kernel's count (proc(5), utime + stime) for the whole process tree, children that have ended
  included. It hardly depends on what else runs on the machine.
- Whatever is started here is stopped here, also on errors and Ctrl-C.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from servers import Server

SERVER_CORE = 0
CLIENT_CORE = 1

START_LIMIT = 60.0  # s; under callgrind, on a machine that does other things, it was 25
STOP_LIMIT = 10.0  # s

HERE = Path(__file__).parent
PROC = Path("/proc")
TICK = 1 / os.sysconf("SC_CLK_TCK")  # s; the unit of proc(5)

# The commands of servers.py mean those of this interpreter's environment first. Python keeps its bytecode, as
# any installation does: without, each start compiles everything anew.
ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
ENVIRONMENT.pop("PYTHONDONTWRITEBYTECODE", None)


class BenchError(Exception):
    """A measurement that could not be made. The text says which, and what the server printed."""


class Running(NamedTuple):
    """A server that answers: its first process, its port of 127.0.0.1, the {scratch} of its command."""

    root: int
    port: int
    scratch: Path


class Cpu(NamedTuple):
    """Seconds."""

    user: float
    system: float


class _Process(NamedTuple):
    """One line of /proc/PID/stat: the parent, and CPU time with that of children that were waited for."""

    parent: int
    cpu: Cpu


@contextlib.contextmanager
def serving(
    server: Server, app: str, *, cores: Sequence[int] = (SERVER_CORE,), way: str = "plain"
) -> Iterator[Running]:
    """The server with an application of this folder, answering. `way`: how it is asked, a key of its `ways`.
    Raises BenchError if it does not start."""
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch, open(f"{scratch}/output", "w+") as output:
        if way == "tls":
            _certify(scratch)
        port = free_port()
        command = [
            part.format(app=app, module=app.partition(":")[0], port=port, scratch=scratch)
            for part in server.asked(way)
        ]
        process = subprocess.Popen(
            pinned_to(cores, command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=HERE,
            env={**ENVIRONMENT, "BENCH_SCRATCH": scratch},
            start_new_session=True,  # Ctrl-C is ours; we then stop the server
        )
        try:
            running = Running(process.pid, port, Path(scratch))
            if not _answers(running, way, process):
                output.seek(0)
                raise BenchError(f"{server.name} does not answer: {' '.join(command)}\n{output.read()}")
            yield running
        finally:
            stop(process)


def _certify(scratch: str) -> None:
    """A certificate for localhost, signed by itself, and its key, as servers of servers.py name them."""
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc"),
            *("-subj", "/CN=localhost", "-days", "2", "-addext", "basicConstraints=critical,CA:FALSE"),
            *("-keyout", f"{scratch}/key.pem", "-out", f"{scratch}/certificate.pem"),
        ],
        check=True,
        capture_output=True,
    )


def _answers(running: Running, way: str, process: subprocess.Popen[bytes]) -> bool:
    """Waits for the first answer; False if the server ends or START_LIMIT passes before."""
    deadline = time.monotonic() + START_LIMIT
    while time.monotonic() < deadline and process.poll() is None:
        connection = _client(running, way)
        try:
            connection.request("GET", "/", headers={"Connection": "close"})
            return connection.getresponse().status == 200
        except OSError:  # not there yet
            time.sleep(0.02)
        finally:
            connection.close()
    return False


def _client(running: Running, way: str) -> http.client.HTTPConnection:
    if way == "tls":
        context = ssl.create_default_context(cafile=running.scratch / "certificate.pem")
        context.check_hostname = False
        return http.client.HTTPSConnection("127.0.0.1", running.port, timeout=START_LIMIT, context=context)
    if way == "unix":
        return _UnixConnection(running.scratch / "socket")
    return http.client.HTTPConnection("127.0.0.1", running.port, timeout=START_LIMIT)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=START_LIMIT)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


def stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM; after STOP_LIMIT SIGKILL for what is left of the tree."""
    members = family(process.pid)
    process.terminate()
    try:
        process.wait(STOP_LIMIT)
    except subprocess.TimeoutExpired:
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        process.wait()


def pinned(core: int, command: list[str]) -> list[str]:
    return pinned_to((core,), command)


def pinned_to(cores: Sequence[int], command: list[str]) -> list[str]:
    return ["taskset", "--cpu-list", ",".join(map(str, cores)), *command]


def control(running: Running, command: str) -> str:
    """What stardustctl answers, as JSON. Raises BenchError."""
    run = subprocess.run(
        ["stardustctl", "--socket", str(running.scratch / "control"), "--json", command],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        check=False,
    )
    if run.returncode:
        raise BenchError(f"stardustctl {command}: {run.stderr}")
    return run.stdout


def free_port() -> int:
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


def family(root: int) -> list[int]:
    """The tree below `root`, itself included."""
    processes = _processes()
    members = [root]
    for pid in members:  # it grows on the way
        members += [child for child, process in processes.items() if process.parent == pid]
    return members


def children(parent: int) -> list[int]:
    return [pid for pid, process in _processes().items() if process.parent == parent]


def cpu_time(root: int) -> Cpu:
    """CPU time the tree below `root` has used until now, with its children that have ended."""
    members = family(root)
    processes = _processes()
    used = [processes[pid].cpu for pid in members if pid in processes]
    return Cpu(sum(cpu.user for cpu in used), sum(cpu.system for cpu in used))


def busy_time(core: int) -> float:
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


def memory(pids: Iterable[int], what: str) -> int:
    """Bytes of one line of proc(5)'s smaps_rollup ("Pss", "Private_Dirty"), summed over processes."""
    total = 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
                key, value, *_ = line.split()
                if key == f"{what}:":
                    total += int(value) * 1024
    return total
