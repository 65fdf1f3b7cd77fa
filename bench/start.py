"""How long a server takes to start: until all its workers have loaded the application, and to a first byte.

    measure(server, load, seconds) -> [Start]; it takes as long as it takes

TIMES times each, and the median: exec → READY=1 and the first answer; under socket activation, first
connection → first byte; a worker more. Beside them, on the same core, what the interpreter and the
application cost alone.

Rules:
- READY=1 and STATUS= come by NOTIFY_SOCKET, as systemd would hear them. Who says READY=1 before its workers
  have loaded anything (gunicorn) is measured by its first answer only.
- A worker more: SIGTTIN until STATUS= counts it as ready.
- systemd-socket-activate(1) stands for systemd: it listens, and becomes the server when the first connection
  comes. The connection sends its request at once.
- All files were read once before, and compiled: what is measured is no disk.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Any, NamedTuple

from processes import ENVIRONMENT, HERE, SERVER_CORE, BenchError, free_port, pinned, stop
from report import bar, grouped, in_order, table
from servers import Server

TIMES = 5
LIMIT = 20.0  # s; for anything that is waited for
AGAIN = 0.0005  # s; until the next attempt to connect
TRUTHFUL = "stardust"  # whose READY=1 and STATUS= are true: its command
MOST_FORK_MS = 20.0
"""Of a worker more, where it is forked from an application that is there already."""

APPS = {"start-hello": "hello:application", "start-django": "django_page:application"}
LOADS = {
    "start-hello": "a start with an application that costs nothing",
    "start-django": "a start with Django",
}

REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
_READY_WORKERS = re.compile(r"(\d+)/\d+ workers ready")


class Start(NamedTuple):
    """Milliseconds, medians of TIMES: of a bare interpreter and of one that imports the application; from
    exec until `ready`, None if the server does not say it truly, and until its `first` answer; `activated`:
    from the connection that starts it to the first byte; `forked`: a worker more, None if nobody sees it."""

    server: str
    load: str
    python_ms: float
    import_ms: float
    ready_ms: float | None
    first_ms: float
    activated_ms: float
    forked_ms: float | None


RESULT = Start


def measure(server: Server, load: str, seconds: int) -> list[Start]:
    """Raises BenchError if the server does not start, or does not answer."""
    app = APPS[load]
    module = app.partition(":")[0]
    _run(f"import {module}")  # compiled, and its database made
    starts = [_started(server, app) for _ in range(TIMES)]
    one = Start(
        server=server.name,
        load=load,
        python_ms=_median(lambda: _run("pass")),
        import_ms=_median(lambda: _run(f"import {module}")),
        ready_ms=_rounded([ready for ready, _, _ in starts]),
        first_ms=_rounded([first for _, first, _ in starts]) or 0.0,
        activated_ms=_median(lambda: _activated(server, app)),
        forked_ms=_rounded([forked for _, _, forked in starts]),
    )
    return [one]


def _median(act: Callable[[], float]) -> float:
    return _rounded([act() for _ in range(TIMES)]) or 0.0


def _rounded(seconds: Sequence[float | None]) -> float | None:
    known = [each for each in seconds if each is not None]
    return round(median(known) * 1000, 1) if known else None


def _run(program: str) -> float:
    """How long an interpreter takes for it, in seconds."""
    began = time.monotonic()
    run = subprocess.run(
        pinned(SERVER_CORE, ["python", "-c", program]),
        cwd=HERE,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        raise BenchError(f"python -c {program!r}: {run.stderr}")
    return time.monotonic() - began


class Ears:
    """Somebody in the place of systemd: a socket for what a server tells it. `workers`: so many are ready."""

    def __init__(self, directory: str) -> None:
        self.path = f"{directory}/notify"
        self.workers = 0
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(LIMIT)
        self.socket.bind(self.path)

    def await_that(self, heard: Callable[[str], bool]) -> None:
        """Listen until a line is that."""
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                lines = self.socket.recv(65536).decode().splitlines()
                for line in lines:
                    workers = _READY_WORKERS.search(line)
                    self.workers = int(workers[1]) if workers else self.workers
                if any([*map(heard, lines)]):
                    return
        raise BenchError(f"the server has not said what it should have within {LIMIT:g} s")


def _started(server: Server, app: str) -> tuple[float | None, float, float | None]:
    """Seconds from exec to READY=1, and to the first answer; and of a worker more."""
    ready = forked = None
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch, _ears(scratch) as ears:
        port = free_port()
        command = _command(server, app, port, scratch)
        began = time.monotonic()
        with _running(command, NOTIFY_SOCKET=ears.path) as root:
            if server.command[0] == TRUTHFUL:
                ears.await_that(lambda line: line == "READY=1")
                ready = time.monotonic() - began
            _until(lambda: _answered(port))
            first = time.monotonic() - began
            if server.command[0] == TRUTHFUL:
                workers = ears.workers
                before = time.monotonic()
                os.kill(root, signal.SIGTTIN)
                ears.await_that(lambda line: ears.workers > workers)
                forked = time.monotonic() - before
    return ready, first, forked


def _activated(server: Server, app: str) -> float:
    """Seconds from the connection that starts the server to the first byte of its answer."""
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        port = free_port()
        # The name is the one that --listen gives; gunicorn takes any.
        listen = ["systemd-socket-activate", f"--listen=127.0.0.1:{port}", "--fdname=listen-1"]
        with _running([*listen, *_command(server, app, port, scratch)]):
            return _until(lambda: _answered(port))


def _command(server: Server, app: str, port: int, scratch: str) -> list[str]:
    return [part.format(app=app, port=port, scratch=scratch) for part in server.command]


@contextlib.contextmanager
def _ears(directory: str) -> Iterator[Ears]:
    ears = Ears(directory)
    with ears.socket:
        yield ears


@contextlib.contextmanager
def _running(command: list[str], **environment: str) -> Iterator[int]:
    """The process id of `command`, which is stopped at the end."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            pinned(SERVER_CORE, command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=HERE,
            env={**ENVIRONMENT, **environment},
            start_new_session=True,
        )
        try:
            yield process.pid
        except BenchError as error:
            output.seek(0)
            raise BenchError(f"{error}: {' '.join(command)}\n{output.read().decode()}") from None
        finally:
            stop(process)


def _until(attempt: Callable[[], bool]) -> float:
    """How long the attempt took that succeeded, in seconds."""
    deadline = time.monotonic() + LIMIT
    while (began := time.monotonic()) < deadline:
        if attempt():
            return time.monotonic() - began
        time.sleep(AGAIN)
    raise BenchError(f"no answer within {LIMIT:g} s")


def _answered(port: int) -> bool:
    """Whether somebody listens, and answers."""
    with socket.socket() as connection:
        connection.settimeout(LIMIT)
        try:
            connection.connect(("127.0.0.1", port))
            connection.sendall(REQUEST)
            return connection.recv(1) != b""
        except (ConnectionError, TimeoutError):
            return False


def told(measured: Sequence[Start]) -> str:
    [one] = measured
    return f"first answer {one.first_ms:.0f} ms, activated {one.activated_ms:.0f} ms"


HEAD = (
    *("server", "python ms", "import ms", "READY=1 ms", "beyond the import ms"),
    *("first answer ms", "activated ms", "a worker more ms"),
)


def tables(measured: Sequence[Start]) -> Iterator[str]:
    found = {name: _row(rounds) for name, rounds in grouped(measured, lambda one: one.server).items()}
    yield from table(HEAD, (_line(found[name]) for name in in_order(found)))
    for name in in_order(found):
        row = found[name]
        if row.forked_ms is not None and _preloads(name):
            what = f"{row.load}: {name}, a worker from the zygote at most {MOST_FORK_MS:g} ms"
            yield bar(what, f"{row.forked_ms:.1f}", row.forked_ms <= MOST_FORK_MS)


def _preloads(server: str) -> bool:
    return not server.endswith("no-preload")


def _row(rounds: Sequence[Start]) -> Start:
    """The medians of the rounds."""
    name, load, *times = zip(*rounds, strict=True)
    return Start(name[0], load[0], *map(_middle, times))


def _middle(values: Sequence[Any]) -> Any:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _line(row: Start) -> tuple[str, ...]:
    beyond = None if row.ready_ms is None else row.ready_ms - row.import_ms
    times = (row.python_ms, row.import_ms, row.ready_ms, beyond)
    return (row.server, *map(_told, (*times, row.first_ms, row.activated_ms, row.forked_ms)))


def _told(milliseconds: float | None) -> str:
    return "–" if milliseconds is None else f"{milliseconds:.{0 if milliseconds >= 100 else 1}f}"
