"""Who waits for whom: a pool of two workers, 32 clients that ask for little, and one that asks for a second.

    measure(server, beside, seconds) -> Wait

The same clients are asked for their waits without the long request, beside one that sleeps, and beside one
that computes. The server's processes share a core and the clients have the other one (clients.py): what is
left of a wait is the server's, and a worker that computes takes no more than its share of the core.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import NamedTuple

from clients import CLIENTS, PERIOD
from processes import CLIENT_CORE, HERE, SERVER_CORE, BenchError, busy_time, cpu_time, pinned, serving
from servers import Server

NAME = "waits"
APP = "long:application"
TITLES = {
    "": f"{CLIENTS} keep-alive clients, {CLIENTS / PERIOD:.0f} requests a second in all, two workers",
    "/sleep": "the same beside one client that asks, in a loop, for a request that sleeps for 1 s",
    "/spin": "the same beside one that asks for a request that computes for 1 s of CPU time, holding its GIL",
}
BESIDE = tuple(TITLES)
"""What the long client asks for; "": there is none."""


class Wait(NamedTuple):
    """What the clients of one server met beside one kind of request: see clients.Answers. `foreign` is the
    share of the server's core, 0 to 1, that others had."""

    server: str
    beside: str
    answers: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    long: int
    took_ms: float
    failed: int
    late_ms: float
    foreign: float


def measure(server: Server, beside: str, seconds: int) -> Wait:
    """Raises BenchError if the server does not start, or the clients do not end."""
    with serving(server, APP) as running:
        command = [sys.executable, str(HERE / "clients.py"), str(running.port), str(seconds), beside]
        began, cpu, busy = time.monotonic(), sum(cpu_time(running.root)), busy_time(SERVER_CORE)
        run = subprocess.run(pinned(CLIENT_CORE, command), capture_output=True, text=True, check=False)
        elapsed, cpu = time.monotonic() - began, sum(cpu_time(running.root)) - cpu
        foreign = max(0.0, busy_time(SERVER_CORE) - busy - cpu) / elapsed
    if run.returncode:
        raise BenchError(f"no result from the clients of {server.name}: {' '.join(command)}\n{run.stderr}")
    return Wait(server.name, beside, **json.loads(run.stdout), foreign=round(foreign, 3))
