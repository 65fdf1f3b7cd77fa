"""Runs wrk, the client of all loads over TCP: a closed loop on CLIENT_CORE, with the bytes of load.lua.

ask(url, load, seconds) -> Answers
"""

from __future__ import annotations

import json
import subprocess
from typing import NamedTuple

from loads import Load
from processes import CLIENT_CORE, HERE, BenchError, pinned

GRACE = 30.0  # s

VERSION = ("wrk", "--version")


class Answers(NamedTuple):
    """What a client got in `seconds`. `failed`: answers of status 400 and above, timeouts, and connections
    that broke."""

    requests: int
    failed: int
    seconds: float
    p50_ms: float
    p99_ms: float


def ask(url: str, load: Load, seconds: int) -> Answers:
    """Raises BenchError if wrk does not run, or does not end."""
    command = [
        *("wrk", "--threads", "1", "--connections", str(load.connections), "--duration", f"{seconds}s"),
        *("--timeout", "10s", "--script", str(HERE / "load.lua"), url, "--", load.shape),
    ]
    try:
        run = subprocess.run(
            pinned(CLIENT_CORE, command), capture_output=True, text=True, check=False, timeout=seconds + GRACE
        )
    except subprocess.TimeoutExpired:
        raise BenchError(f"wrk does not end: {' '.join(command)}") from None
    for line in run.stdout.splitlines():
        if line.startswith("result "):
            return Answers(**json.loads(line.removeprefix("result ")))
    raise BenchError(f"wrk gives no result: {' '.join(command)}\n{run.stdout}{run.stderr}")
