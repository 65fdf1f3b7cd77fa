"""Instructions per request of a worker, as callgrind counts them: what a change of the code costs.

    python bench/instructions.py [--against CHECKOUT] [--rounds N] [--case NAME]…

Needs valgrind, setarch, taskset, and for TLS openssl. Prints a table of Markdown: the figures of this
checkout, and with --against those of another one beside them, and whether the ratio keeps to MOST. Exit 1 if
something could not be measured. A round takes a minute for each checkout, if nobody else wants the core.

A figure is the difference between a long and a short run of the same worker, so starting, warming up and
stopping are not in it, divided by the requests between them. Nor are the clients: they are in this process.

Rules:
- Nothing of the server is imported. It is started by its command, with one worker, and the setting `python`
  names a script that runs the application's interpreter under callgrind. So what is counted is a worker as
  any other, with guard, link and scoreboard, forked from a zygote. The supervisor is not counted.
- The clients ask in waves, one request each, and the worker is stopped while they do: all requests of a wave
  are there when it goes on. Otherwise it would depend on the machine how many a turn of its loop finds.
- The worker's clock is that of CLOCK: under callgrind a request takes some thirty times as long, and by the
  real clock turns of the loop would be too long for the guard, the more of them the busier the machine is.
- The package of a checkout is copied, to a place whose name is as long for all, and compiled there. The
  application, the interpreter and the environment are those of this checkout for both.
- What is left to chance is in which order the kernel lets threads run. They have one core, as any server of
  this folder, and the same as without callgrind: one runs at a time. Of the rounds the median counts, which
  differ by 0.1 % (with threads by 0.2 %), whatever else the machine does.

Instructions are not time: caches, and what the kernel does, are not in them (docs/performance.md).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from clients import whole
from processes import ENVIRONMENT, HERE, PROC, BenchError, Running, family, serving
from report import bar, table
from servers import CERTIFICATE, KEY, Server

APP = "hello:application"
CLIENTS = 32
SHORT, LONG = 20, 220  # waves
LIMIT = 60.0  # s; for one answer
MOST = 1.01  # now by before

# A look takes as long as a request does natively, for the loop looks once a request. Who sleeps, sleeps
# longer, and threads have the interpreter for longer, by at least as much as callgrind makes the rest slower.
CLOCK = """\
import itertools
import sys
import time

sleep = time.sleep
time.monotonic = itertools.count(time.monotonic(), 2e-5).__next__
time.sleep = lambda seconds: sleep(seconds * 100)
sys.setswitchinterval(0.5)
"""

# VALGRIND_OPTS, because valgrind does not copy its arguments, and the server writes its title over them.
SCRIPT = """\
#!/bin/sh
export PYTHONPATH={lab}/clock PYTHONHASHSEED=0 VALGRIND_OPTS="--vgdb=no --callgrind-out-file={lab}/counted.%p"
exec setarch --addr-no-randomize valgrind --tool=callgrind {python} "$@"
"""


class Case(NamedTuple):
    """`kept`: whether connections are; `way`: "plain" or "tls"; `options`: of the server."""

    title: str
    kept: bool = True
    way: str = "plain"
    options: tuple[str, ...] = ()


CASES = {
    "kept": Case("kept connections"),
    "each": Case("a connection for each request", kept=False),
    "tls": Case("kept connections over TLS", way="tls"),
    "threads": Case("kept connections, threads = 4", options=("--threads=4",)),
}

Figures = Mapping[str, Sequence[float]]  # by case, one for each round


def main() -> int:
    given = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a long run is ended by timeout(1) too
    checkouts = [*given.against, HERE.parent]
    try:
        found = measured(checkouts, given.case or [*CASES], given.rounds)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(compared(*found) if given.against else alone(*found)))
    return 0


def measured(checkouts: Sequence[Path], cases: Sequence[str], rounds: int) -> list[Figures]:
    """The figures of each checkout. Raises BenchError."""
    figures: list[dict[str, list[float]]] = [{case: [] for case in cases} for _ in checkouts]
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        labs = [_lab(checkout, Path(folder, str(number))) for number, checkout in enumerate(checkouts)]
        for number in range(rounds):
            for case in cases:
                for lab, checkout, found in zip(labs, checkouts, figures, strict=True):
                    found[case].append(_measure(lab, CASES[case]))
                    told = f"round {number + 1} {case:8} {found[case][-1]:11,.1f} instructions/request"
                    print(told, checkout, file=sys.stderr)
    return [*figures]


# ── Lines ─────────────────────────────────────────────────────────────────────────────────────────────


def alone(now: Figures) -> Iterator[str]:
    lines = ([case, f"{median(now[case]):,.0f}", _spread(now[case])] for case in now)
    yield from table(("case", "instructions/request", "spread"), lines)


def compared(before: Figures, now: Figures) -> Iterator[str]:
    """The table, and a line for each case, met or MISSED."""
    ratios = {case: median(now[case]) / median(before[case]) for case in now}
    lines = (
        [
            case,
            *(f"{median(found[case]):,.0f}" for found in (before, now)),
            f"{ratios[case]:.4f}",
            *(_spread(found[case]) for found in (before, now)),
        ]
        for case in now
    )
    yield from table(("case", "before", "now", "ratio", "spread before", "spread now"), lines)
    for case, ratio in ratios.items():
        yield bar(f"{CASES[case].title}: now at most {MOST:g} × before", f"{ratio:.4f} ×", ratio <= MOST)


def _spread(rounds: Sequence[float]) -> str:
    """From the least to the most."""
    return f"{(max(rounds) - min(rounds)) / median(rounds):.2%}"


# ── A worker under callgrind ──────────────────────────────────────────────────────────────────────────


def _lab(checkout: Path, lab: Path) -> Path:
    """What a measurement of the checkout needs, in the new folder `lab`. Raises BenchError."""
    package = checkout / "stardust"
    if not (package / "__main__.py").is_file():
        raise BenchError(f"{checkout}: no checkout of stardust")
    shutil.copytree(package, lab / "server" / "stardust", ignore=shutil.ignore_patterns("__pycache__"))
    # Or the first run would compile, and no other.
    compileall = [sys.executable, "-m", "compileall", "-q", str(lab / "server")]
    if subprocess.run(compileall, env=ENVIRONMENT, check=False).returncode:
        raise BenchError(f"{checkout}: does not compile")
    (lab / "clock").mkdir()
    (lab / "clock" / "sitecustomize.py").write_text(CLOCK)
    script = lab / "python"
    script.write_text(SCRIPT.format(lab=shlex.quote(str(lab)), python=shlex.quote(sys.executable)))
    script.chmod(0o755)
    return lab


def _server(lab: Path, options: Iterable[str]) -> Server:
    """One whose worker serves for ever, and is asked by nobody else whether it lives."""
    plain = (
        *("env", f"PYTHONPATH={lab}/server", sys.executable, "-m", "stardust", "{app}"),
        *("--python", f"{lab}/python", "--boot-timeout=60", "--control-socket", "{scratch}/control"),
        *("--listen", "127.0.0.1:{port}", "--max-workers=1", "--max-keepalive-reqs=0"),
        *("--max-reqs-per-child=0", "--heartbeat-timeout=0", "--request-timeout=0", *options),
    )
    tls = (*plain, "--ssl=1", f"--ssl-cert-file={CERTIFICATE}", f"--ssl-key-file={KEY}")
    return Server("stardust", "under callgrind", (), plain, (), {"tls": tls})


def _measure(lab: Path, case: Case) -> float:
    """Instructions per request. Raises BenchError."""
    short, long = (_run(lab, case, waves) for waves in (SHORT, LONG))
    return (long - short) / (CLIENTS * (LONG - SHORT))


def _run(lab: Path, case: Case, waves: int) -> int:
    """The instructions of a worker that has answered so many waves, from its zygote's first one on."""
    with serving(_server(lab, case.options), APP, way=case.way) as running:
        members = family(running.root)
        if len(members) != 3:
            raise BenchError(f"{len(members)} processes, and not a supervisor, a zygote and a worker")
        worker = members[-1]
        try:
            _ask(running, worker, case, waves)
        except (OSError, ValueError) as fault:
            raise BenchError(f"{case.title}: {fault!r}") from fault
    written = lab / f"counted.{worker}"
    if not written.exists():
        raise BenchError(f"callgrind has counted nothing in {worker}: it did not end by itself")
    return counted(written.read_text())


def counted(text: str) -> int:
    """All instructions in a file of callgrind's, which are one process. Raises BenchError."""
    for line in text.splitlines():
        if line.startswith("totals: "):
            return int(line.removeprefix("totals: "))
    raise BenchError("callgrind's file has no totals")


# ── The clients ───────────────────────────────────────────────────────────────────────────────────────

AGENT = "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/"
SAME = (
    *('sec-ch-ua: "Chromium";v="142", "Not_A Brand";v="99"', "sec-ch-ua-mobile: ?0"),
    *('sec-ch-ua-platform: "Linux"', "Upgrade-Insecure-Requests: 1"),
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    *("Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"),
    *("Accept-Encoding: gzip, deflate, br, zstd", "Accept-Language: en-GB,en;q=0.9,de;q=0.8"),
)


def browser(number: int, connection: str) -> bytes:
    """The request of load.lua, but for the port in it, which would differ from run to run."""
    lines = (
        f"GET /articles/{number}?page={number % 7} HTTP/1.1",
        "Host: 127.0.0.1:5000",
        f"{AGENT}{number % 200 + 1}.0.0.0 Safari/537.36",
        *SAME,
        f"Referer: http://127.0.0.1:5000/articles/{number - 1}",
        f"Cookie: theme=dark; session=6f1ed002ab5595859014ebf0951522d9.{number}",
        f"Connection: {connection}",
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


def _ask(running: Running, worker: int, case: Case, waves: int) -> None:
    """Raises OSError, ValueError, BenchError."""
    with contextlib.ExitStack() as open_ones:
        # TLS greets each other, which a stopped worker cannot.
        clients = [_secure(running) for _ in range(CLIENTS)] if case.way == "tls" else []
        for wave in range(waves):
            with _stopped(worker):
                clients = clients or [_connected(running) for _ in range(CLIENTS)]
                for client, each in enumerate(clients):
                    open_ones.enter_context(each)
                    number = wave * CLIENTS + client + 1
                    each.sendall(browser(number, "keep-alive" if case.kept else "close"))
            for each in clients:
                _hear(each, case.kept)
            if not case.kept:
                open_ones.close()
                clients = []


def _connected(running: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", running.port), LIMIT)


def _secure(running: Running) -> socket.socket:
    context = ssl.create_default_context(cafile=running.scratch / "certificate.pem")
    return context.wrap_socket(_connected(running), server_hostname="localhost")


def _hear(client: socket.socket, kept: bool) -> None:
    """Take the answer, and the end if nothing is kept."""
    received = b""
    while data := client.recv(65536):
        received += data
        if kept and whole(received):
            return
    if kept or not whole(received):
        raise ConnectionResetError(f"the connection ended after {received!r}")


@contextlib.contextmanager
def _stopped(pid: int) -> Iterator[None]:
    """What happens meanwhile, the process sees all at once. Raises BenchError if it does not stop."""
    os.kill(pid, signal.SIGSTOP)
    try:
        deadline = time.monotonic() + LIMIT
        while (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "T":
            if time.monotonic() > deadline:
                raise BenchError(f"process {pid} does not stop")
            time.sleep(0.0005)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Instructions per request of a worker.")
    parser.add_argument(
        "--against", type=Path, nargs=1, default=[], metavar="CHECKOUT", help="another state of the server"
    )
    parser.add_argument(
        "--rounds", type=int, choices=range(1, 100), default=3, metavar="N", help="measurements of each (3)"
    )
    parser.add_argument("--case", action="append", choices=CASES, help="one case; may be repeated")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
