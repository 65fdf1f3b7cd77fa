"""Good clients beside hostile ones: slow heads, slow bodies, slow readers, each kind and all at once.

    measure(server, load, seconds) -> [Hostile]: one of each kind, and of all at once

GOOD keep-alive clients ask at a steady pace (clients.py). Twice, at one server: before the hostile ones
(crowd.py) come, and beside them. So a slow minute of the machine meets both. The server's processes share a
core, all clients have the other one.

Rules:
- The good ones are measured by what they wait, the server by the CPU time that it uses: beside a crowd the
  difference is what the crowd costs, for the good ones ask for as much as before.
- Memory is that of the server's processes (proc(5), Pss: a shared page counts once), before and at the end.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from crowd import COUNTS, GIVE_UP
from processes import (
    CLIENT_CORE,
    HERE,
    SERVER_CORE,
    BenchError,
    Running,
    busy_time,
    cpu_time,
    family,
    memory,
    pinned,
    serving,
)
from report import MIB, REFERENCE, bar, grouped, in_order, table
from servers import Server

APP = "large:application"
GOOD = 16
LOADS = {"hostile": f"what {GOOD} good clients notice of slow ones"}
KINDS: dict[str, tuple[str, ...]] = {**{kind: (kind,) for kind in COUNTS}, "all": tuple(COUNTS)}
TITLES = {
    "heads": f"{COUNTS['heads']:,} clients whose head never ends",
    "bodies": f"{COUNTS['bodies']:,} clients whose body comes in drips",
    "readers": f"{COUNTS['readers']:,} clients that take a response in drips",
    "all": f"all {sum(COUNTS.values()):,} of them at once",
}
SETTLE = 1.0  # s; from their last connection to the first measured answer
SLOWER = 1.5
"""By how much the p99 of good clients of a stardust may grow beside hostile ones."""


class Hostile(NamedTuple):
    """What the good clients of one server met without (`alone`) and beside hostile ones: p50 and p99 of waits
    in ms, answers, failed requests, CPU ms of the server per second. Memory in bytes. `held` hostile
    connections were open at the end, `ended` were ended by the server. `foreign` as in waits.Wait."""

    server: str
    kind: str
    alone_p50_ms: float
    alone_p99_ms: float
    alone_answers: int
    alone_failed: int
    alone_cpu_ms: float
    p50_ms: float
    p99_ms: float
    answers: int
    failed: int
    cpu_ms: float
    memory_alone: int
    memory: int
    held: int
    ended: int
    foreign: float


RESULT = Hostile


class _Look(NamedTuple):
    answers: dict[str, Any]
    cpu_ms: float
    foreign: float


def measure(server: Server, load: str, seconds: int) -> list[Hostile]:
    """Raises BenchError if the server does not start, or the clients do not end."""
    return [_measure(server, kind, seconds) for kind in KINDS]


def _measure(server: Server, kind: str, seconds: int) -> Hostile:
    with serving(server, APP) as running:
        _look(running, server, 1)  # warms up
        alone, memory_alone = _look(running, server, seconds), memory(family(running.root), "Pss")
        command = [sys.executable, str(HERE / "crowd.py"), str(running.port), *KINDS[kind]]
        with subprocess.Popen(
            pinned(CLIENT_CORE, command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as crowd:
            assert crowd.stdin is not None
            assert crowd.stdout is not None
            if crowd.stdout.readline() != "ready\n":
                raise BenchError(f"the hostile clients did not come within {GIVE_UP:g} s: {command}")
            time.sleep(SETTLE)
            beside, held = _look(running, server, seconds), memory(family(running.root), "Pss")
            crowd.stdin.close()
            told = json.loads(crowd.stdout.read())
    return Hostile(
        server=server.name,
        kind=kind,
        alone_p50_ms=alone.answers["p50_ms"],
        alone_p99_ms=alone.answers["p99_ms"],
        alone_answers=alone.answers["answers"],
        alone_failed=alone.answers["failed"],
        alone_cpu_ms=alone.cpu_ms,
        p50_ms=beside.answers["p50_ms"],
        p99_ms=beside.answers["p99_ms"],
        answers=beside.answers["answers"],
        failed=beside.answers["failed"],
        cpu_ms=beside.cpu_ms,
        memory_alone=memory_alone,
        memory=held,
        held=told["held"],
        ended=told["ended"],
        foreign=max(alone.foreign, beside.foreign),
    )


def _look(running: Running, server: Server, seconds: int) -> _Look:
    """The good clients, for so long."""
    command = [sys.executable, str(HERE / "clients.py"), str(running.port), str(seconds), "", str(GOOD)]
    began, cpu, busy = time.monotonic(), sum(cpu_time(running.root)), busy_time(SERVER_CORE)
    run = subprocess.run(pinned(CLIENT_CORE, command), capture_output=True, text=True, check=False)
    elapsed, cpu = time.monotonic() - began, sum(cpu_time(running.root)) - cpu
    foreign = max(0.0, busy_time(SERVER_CORE) - busy - cpu) / elapsed
    if run.returncode:
        raise BenchError(f"no result from the clients of {server.name}: {' '.join(command)}\n{run.stderr}")
    return _Look(json.loads(run.stdout), round(cpu / elapsed * 1000, 1), round(foreign, 3))


def told(measured: Sequence[Hostile]) -> str:
    p99 = ", ".join(f"{one.kind} {one.alone_p99_ms:.1f} → {one.p99_ms:.1f}" for one in measured)
    return f"p99 ms {p99}  foreign {max(one.foreign for one in measured):.0%}"


class Row(NamedTuple):
    """What good clients of one server met: medians over the rounds, requests that failed in all of them."""

    alone_p99_ms: float
    p50_ms: float
    p99_ms: float
    times: float
    answers: int
    failed: int
    alone_cpu_ms: float
    cpu_ms: float
    memory_alone: float
    memory: float
    held: float


Rows = Mapping[tuple[str, str], Row]  # (kind, server)


def rows(measured: Sequence[Hostile]) -> Rows:
    """One row for every kind and server. The ratio is that of each round, whose two parts were neighbours."""
    return {
        key: _row(rounds) for key, rounds in grouped(measured, lambda one: (one.kind, one.server)).items()
    }


def _row(rounds: Sequence[Hostile]) -> Row:
    return Row(
        alone_p99_ms=median(one.alone_p99_ms for one in rounds),
        p50_ms=median(one.p50_ms for one in rounds),
        p99_ms=median(one.p99_ms for one in rounds),
        times=median(one.p99_ms / max(0.001, one.alone_p99_ms) for one in rounds),
        answers=sum(one.answers for one in rounds),
        failed=sum(one.failed for one in rounds),
        alone_cpu_ms=median(one.alone_cpu_ms for one in rounds),
        cpu_ms=median(one.cpu_ms for one in rounds),
        memory_alone=median(one.memory_alone for one in rounds),
        memory=median(one.memory for one in rounds),
        held=median(one.held for one in rounds),
    )


HEAD = (
    *("server", "p99 ms alone", "p50 ms", "p99 ms", "× alone", "answers", "failed"),
    *("CPU ms/s alone", "CPU ms/s", "MiB alone", "MiB", "held"),
)


def tables(measured: Sequence[Hostile]) -> Iterator[str]:
    """A table for each kind of hostile clients."""
    found = rows(measured)
    for kind in KINDS:
        shown = in_order(name for other, name in found if other == kind)
        if shown:
            yield from (f"**{GOOD} good clients beside {TITLES[kind]}**", "")
            yield from table(HEAD, (_line(name, found[kind, name]) for name in shown))
    yield from _verdicts(found)


def _line(name: str, row: Row) -> tuple[str, ...]:
    waited = (f"{row.p50_ms:,.2f}", f"{row.p99_ms:,.2f}", f"{row.times:,.2f}")
    return (
        name,
        f"{row.alone_p99_ms:.2f}",
        *(waited if row.answers else ("–", "–", "–")),
        f"{row.answers:,}",
        f"{row.failed:,}",
        f"{row.alone_cpu_ms:.0f}",
        f"{row.cpu_ms:.0f}",
        f"{row.memory_alone / MIB:.0f}",
        f"{row.memory / MIB:.0f}",
        f"{row.held:,.0f}",
    )


def _verdicts(rows: Rows) -> Iterator[str]:
    for (kind, name), row in rows.items():
        if name.startswith(REFERENCE):
            what = f"hostile: {name} beside {kind}, p99 at most {SLOWER:g} × alone, nobody fails"
            met = row.times <= SLOWER and not row.failed
            yield bar(what, f"{row.times:.2f} ×, {row.failed} failed", met)
