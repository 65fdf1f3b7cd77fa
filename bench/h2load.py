"""Runs h2load, the client of loads over a UNIX socket: a closed loop on CLIENT_CORE that speaks HTTP/1.1.

    ask(socket, load, seconds) -> Answers

Targets differ on every request, header fields do not: h2load knows one set of them.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from statistics import quantiles

from loads import Load
from processes import CLIENT_CORE, BenchError, pinned
from wrk import Answers

VERSION = ("h2load", "--version")

TARGETS = 10_000
GRACE = 3.0  # s; h2load does not always end by itself
# Those of load.lua's `browser`; h2load adds Host.
FIELDS = (
    *('sec-ch-ua: "Chromium";v="142", "Not_A Brand";v="99"', "sec-ch-ua-mobile: ?0"),
    *('sec-ch-ua-platform: "Linux"', "Upgrade-Insecure-Requests: 1"),
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 "
    "Safari/537.36",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    *("Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"),
    *("Accept-Encoding: gzip, deflate, br, zstd", "Accept-Language: en-GB,en;q=0.9,de;q=0.8"),
    "Referer: http://localhost/articles/41",
    "Cookie: theme=dark; session=6f1ed002ab5595859014ebf0951522d9.42",
)


def ask(socket: Path, load: Load, seconds: int) -> Answers:
    """Raises BenchError if h2load does not run."""
    targets, log = socket.with_name("targets"), socket.with_name("latencies")
    targets.write_text("".join(f"http://localhost/articles/{n}?page={n % 7}\n" for n in range(TARGETS)))
    log.unlink(missing_ok=True)
    command = [
        *("h2load", "--h1", "--threads=1", f"--clients={load.connections}", f"--duration={seconds}"),
        *(f"--base-uri=unix:{socket}", f"--input-file={targets}", f"--log-file={log}"),
        *(f"--header={field}" for field in FIELDS),
    ]
    try:
        run = subprocess.run(
            pinned(CLIENT_CORE, command), capture_output=True, text=True, check=False, timeout=seconds + GRACE
        )
    except subprocess.TimeoutExpired:  # it has stopped its clients, and waits for one that the server closed
        return answers(log.read_text(), seconds)
    if run.returncode:
        raise BenchError(f"h2load gives no result: {' '.join(command)}\n{run.stdout}{run.stderr}")
    return answers(log.read_text(), seconds)


def answers(log: str, seconds: float) -> Answers:
    """From its log: a line of each answer with the time, the status, -1 for none, and microseconds."""
    lines = [line.split("\t") for line in log.splitlines()]
    waits = [int(wait) / 1000 for _, _, wait in lines]
    hundredths = quantiles(waits, n=100) if len(waits) > 1 else [*waits, 0.0][:1] * 99
    return Answers(
        requests=len(lines),
        failed=sum(not 200 <= int(status) < 400 for _, status, _ in lines),
        seconds=seconds,
        p50_ms=round(hundredths[49], 3),
        p99_ms=round(hundredths[98], 3),
    )
