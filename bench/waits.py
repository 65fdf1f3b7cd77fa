"""Who waits for whom: a pool of two workers, 32 clients that ask for little, and one that asks for a second.

    measure(server, load, seconds) -> [Wait]: one of each kind of long request

The same clients are asked for their waits without the long request, beside one that sleeps, and beside one
that computes. The server's processes share a core and the clients have the other one (clients.py): what is
left of a wait is the server's, and a worker that computes takes no more than its share of the core.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import NamedTuple

from clients import CLIENTS, PERIOD
from processes import CLIENT_CORE, HERE, SERVER_CORE, BenchError, busy_time, cpu_time, pinned, serving
from report import REFERENCE, bar, grouped, in_order, table
from servers import Server

LOADS = {"waits": "what short requests wait for a long one"}
APP = "long:application"
TITLES = {
    "": f"{CLIENTS} keep-alive clients, {CLIENTS / PERIOD:.0f} requests a second in all, two workers",
    "/sleep": "the same beside one client that asks, in a loop, for a request that sleeps for 1 s",
    "/spin": "the same beside one that asks for a request that computes for 1 s of CPU time, holding its GIL",
}
BESIDE = tuple(TITLES)
"""What the long client asks for; "": there is none."""
LATER = {"/sleep": 50, "/spin": 100}
"""By how many ms the slowest answer of a stardust may be slower beside a long request than without one."""


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


RESULT = Wait


def measure(server: Server, load: str, seconds: int) -> list[Wait]:
    """Raises BenchError if the server does not start, or the clients do not end."""
    return [_measure(server, beside, seconds) for beside in BESIDE]


def _measure(server: Server, beside: str, seconds: int) -> Wait:
    with serving(server, APP) as running:
        command = [sys.executable, str(HERE / "clients.py"), str(running.port), str(seconds), beside]
        began, cpu, busy = time.monotonic(), sum(cpu_time(running.root)), busy_time(SERVER_CORE)
        run = subprocess.run(pinned(CLIENT_CORE, command), capture_output=True, text=True, check=False)
        elapsed, cpu = time.monotonic() - began, sum(cpu_time(running.root)) - cpu
        foreign = max(0.0, busy_time(SERVER_CORE) - busy - cpu) / elapsed
    if run.returncode:
        raise BenchError(f"no result from the clients of {server.name}: {' '.join(command)}\n{run.stderr}")
    return Wait(server.name, beside, **json.loads(run.stdout), foreign=round(foreign, 3))


def told(measured: Sequence[Wait]) -> str:
    slowest = ", ".join(f"{one.max_ms:.1f} ms {one.beside}".strip() for one in measured)
    return f"slowest {slowest}  foreign {max(one.foreign for one in measured):.0%}"


class Row(NamedTuple):
    """What the clients of one server met: medians over the rounds, but the slowest answer of all of them."""

    p50_ms: float
    p99_ms: float
    max_ms: float
    answers: int
    long: int
    took_ms: float
    failed: int
    late_ms: float


Rows = Mapping[tuple[str, str], Row]  # (beside, server)


def rows(measured: Sequence[Wait]) -> Rows:
    """One row for every server and kind of long request."""
    return {
        key: _row(rounds) for key, rounds in grouped(measured, lambda one: (one.beside, one.server)).items()
    }


def _row(rounds: Sequence[Wait]) -> Row:
    return Row(
        p50_ms=median(one.p50_ms for one in rounds),
        p99_ms=median(one.p99_ms for one in rounds),
        max_ms=max(one.max_ms for one in rounds),
        answers=sum(one.answers for one in rounds),
        long=sum(one.long for one in rounds),
        took_ms=median(one.took_ms for one in rounds),
        failed=sum(one.failed for one in rounds),
        late_ms=max(one.late_ms for one in rounds),
    )


HEAD = (
    *("server", "p50 ms", "p99 ms", "slowest ms", "answers", "failed"),
    *("long answers", "took ms", "clients late ms"),
)


def tables(measured: Sequence[Wait]) -> Iterator[str]:
    """A table for each kind of long request."""
    found = rows(measured)
    for beside in BESIDE:
        shown = in_order(name for kind, name in found if kind == beside)
        if shown:
            yield from (f"**{TITLES[beside]}**", "")
            yield from table(HEAD, (_line(name, found[beside, name]) for name in shown))
    yield from _verdicts(found)


def _line(name: str, row: Row) -> tuple[str, ...]:
    return (
        name,
        f"{row.p50_ms:.2f}",
        f"{row.p99_ms:.2f}",
        f"{row.max_ms:,.1f}",
        f"{row.answers:,}",
        f"{row.failed}",
        f"{row.long}",
        f"{row.took_ms:,.0f}" if row.long else "–",
        f"{row.late_ms:.1f}",
    )


def _verdicts(rows: Rows) -> Iterator[str]:
    """One line for every bar whose two sides were measured."""
    for (beside, name), row in rows.items():
        alone = rows.get(("", name))
        if beside and alone and name.startswith(REFERENCE):
            later = row.max_ms - alone.max_ms
            what = f"waits: {name} beside {beside}, nobody over {LATER[beside]} ms longer than without it"
            yield bar(what, f"{max(0.0, later):,.1f} ms", later <= LATER[beside] and not row.failed)
