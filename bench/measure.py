"""One measurement of a load of wrk: what the server used for it, on its core, asked from the other core.

    measure(server, load, seconds) -> Measurement

Rules:
- CPU time (processes.py) hardly depends on what else runs on the machine; requests a second and latencies do.
- The warm-up is not counted: it is the same load, for WARM_UP seconds.
- `foreign` says how busy the server's core was with anything but the server: above a few per cent, trust CPU
  time alone.
"""

from __future__ import annotations

import json
import subprocess
import time
from typing import NamedTuple

from loads import Load
from processes import (
    CLIENT_CORE,
    HERE,
    SERVER_CORE,
    BenchError,
    busy_time,
    cpu_time,
    family,
    memory,
    pinned,
    serving,
)
from servers import Server

WARM_UP = 1  # s; wrk knows whole seconds


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


def measure(server: Server, load: Load, seconds: int) -> Measurement:
    """Raises BenchError if the server does not start, or wrk does not run."""
    with serving(server, load.app) as (root, port, _):
        _wrk(load, port, WARM_UP)
        began, before, busy = time.monotonic(), cpu_time(root), busy_time(SERVER_CORE)
        result = _wrk(load, port, seconds)
        elapsed, after, busy = time.monotonic() - began, cpu_time(root), busy_time(SERVER_CORE) - busy
        tree = family(root)
        rss, pss = memory(tree, "Rss"), memory(tree, "Pss")
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
    run = subprocess.run(pinned(CLIENT_CORE, command), capture_output=True, text=True, check=False)
    for line in run.stdout.splitlines():
        if line.startswith("result "):
            result: dict[str, float] = json.loads(line.removeprefix("result "))
            return result
    raise BenchError(f"wrk gives no result: {' '.join(command)}\n{run.stdout}{run.stderr}")
