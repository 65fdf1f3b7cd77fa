"""Loads of loads.py: what a request costs the server, on its core, asked from the other core.

    measure(server, load, seconds) -> [Measurement]

Rules:
- CPU time (processes.py) hardly depends on what else runs on the machine; requests a second and latencies do.
- The warm-up is not counted: it is the same load, for WARM_UP seconds.
- `foreign` says how busy the server's core was with anything but the server: above a few per cent, trust CPU
  time alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from statistics import median
from typing import NamedTuple

import chart
import h2load
import wrk
from loads import LOADS as ROWS
from loads import Load
from processes import SERVER_CORE, Running, busy_time, cpu_time, family, memory, serving
from report import MIB, REFERENCE, bar, grouped, in_order, table
from servers import SERVERS, Server
from wrk import Answers

LOADS = {load.name: load.title for load in ROWS}

FLOOR = "floor"

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


RESULT = Measurement


class Bar(NamedTuple):
    """Under `load` REFERENCE is to need at most `most` times the CPU time per request that `server` needs."""

    load: str
    server: str
    most: str


BARS = (
    Bar("keep-alive", "granian", "1.0"),
    Bar("keep-alive", "bjoern", "1.4"),
    Bar("keep-alive", "gunicorn-gthread", "1/10"),
    Bar("keep-alive", FLOOR, "2.5"),
    Bar("connection", "granian", "1.0"),
    Bar("connection", "bjoern", "1.3"),
    Bar("connection", "gunicorn-sync", "1/7"),
    Bar("connection", "gunicorn-gthread", "1/7"),
    Bar("connection", FLOOR, "1.3"),
)


def measure(server: Server, load: str, seconds: int) -> list[Measurement]:
    """Raises BenchError if the server does not start, or the client does not run."""
    [row] = [row for row in ROWS if row.name == load]
    return [_measure(server, row, seconds)]


def _measure(server: Server, load: Load, seconds: int) -> Measurement:
    with serving(server, load.app, way=load.way) as running:
        root = running.root
        _asked(running, load, WARM_UP)
        began, before, busy = time.monotonic(), cpu_time(root), busy_time(SERVER_CORE)
        got = _asked(running, load, seconds)
        elapsed, after, busy = time.monotonic() - began, cpu_time(root), busy_time(SERVER_CORE) - busy
        tree = family(root)
        rss, pss = memory(tree, "Rss"), memory(tree, "Pss")
    cpu = sum(after) - sum(before)
    return Measurement(
        server=server.name,
        load=load.name,
        requests=got.requests,
        failed=got.failed,
        seconds=got.seconds,
        cpu=round(cpu, 3),
        system=round(after.system - before.system, 3),
        p50_ms=got.p50_ms,
        p99_ms=got.p99_ms,
        rss=rss,
        pss=pss,
        foreign=round(max(0.0, busy - cpu) / elapsed, 3),
    )


def _asked(running: Running, load: Load, seconds: int) -> Answers:
    if load.way == "unix":
        return h2load.ask(running.scratch / "socket", load, seconds)
    scheme = "https" if load.way == "tls" else "http"
    return wrk.ask(f"{scheme}://127.0.0.1:{running.port}/", load, seconds)


def told(measured: Sequence[Measurement]) -> str:
    [one] = measured
    cost = one.cpu * 1e6 / max(1, one.requests)
    return f"{cost:7.1f} µs/request {one.requests / one.seconds:8,.0f}/s  foreign {one.foreign:.0%}"


class Row(NamedTuple):
    """One server under one load: medians over the rounds, `answers` and `failed` of all of them. Times in the
    named units, memory in bytes."""

    cpu_us: float
    system_us: float
    least_cpu_us: float
    most_cpu_us: float
    rate: float
    p50_ms: float
    p99_ms: float
    rss: float
    pss: float
    answers: int
    failed: int


def rows(measured: Sequence[Measurement]) -> Mapping[str, Row]:
    """One row for every server that was measured at all."""
    return {name: _row(rounds) for name, rounds in grouped(measured, lambda one: one.server).items()}


def _row(rounds: Sequence[Measurement]) -> Row:
    # A round without a single answer counts its whole CPU time as that of one request.
    cpu = [one.cpu * 1e6 / max(1, one.requests) for one in rounds]
    return Row(
        cpu_us=median(cpu),
        system_us=median(one.system * 1e6 / max(1, one.requests) for one in rounds),
        least_cpu_us=min(cpu),
        most_cpu_us=max(cpu),
        rate=median(one.requests / one.seconds for one in rounds),
        p50_ms=median(one.p50_ms for one in rounds),
        p99_ms=median(one.p99_ms for one in rounds),
        rss=median(one.rss for one in rounds),
        pss=median(one.pss for one in rounds),
        answers=sum(one.requests for one in rounds),
        failed=sum(one.failed for one in rounds),
    )


HEAD = (
    *("server", "CPU µs/request", "least–most", "in the kernel", f"× {REFERENCE}", f"× {FLOOR}"),
    *("requests/s", "p50 ms", "p99 ms", "RSS MiB", "PSS MiB", "failed"),
)


def tables(measured: Sequence[Measurement]) -> Iterator[str]:
    load = measured[0].load
    found = rows(measured)
    yield from (f"![{load}: CPU time per request](benchmarks/{load}.svg)", "")
    lines = [_line(name, found[name], found.get(REFERENCE), found.get(FLOOR)) for name in in_order(found)]
    shown = [number for number, title in enumerate(HEAD) if FLOOR in found or title != f"× {FLOOR}"]
    head, *others = [[line[number] for number in shown] for line in (HEAD, *lines)]
    yield from table(head, others)
    yield from absent(load)
    yield from verdicts(load, found)


def _line(name: str, row: Row, reference: Row | None, floor: Row | None) -> tuple[str, ...]:
    memory = (f"{row.rss / MIB:.0f}", f"{row.pss / MIB:.0f}")
    if not row.answers:
        return (name, *["–"] * 5, "0", "–", "–", *memory, f"{row.failed}")
    return (
        name,
        f"{row.cpu_us:,.1f}",
        f"{row.least_cpu_us:,.1f}–{row.most_cpu_us:,.1f}",
        f"{row.system_us:,.1f}",
        f"{row.cpu_us / reference.cpu_us:.2f}" if reference else "–",
        f"{row.cpu_us / floor.cpu_us:.2f}" if floor else "–",
        f"{row.rate:,.0f}",
        f"{row.p50_ms:.2f}",
        f"{row.p99_ms:.2f}",
        *memory,
        f"{row.failed}",
    )


def drawn(measured: Sequence[Measurement]) -> str:
    """One load as a chart, of those that answered."""
    load = measured[0].load
    bars = [
        chart.Bar(name, row.cpu_us, row.system_us, name.startswith(REFERENCE))
        for name, row in rows(measured).items()
        if row.answers
    ]
    title = f"{load}: CPU µs per request, in the kernel (stronger) and in all"
    return chart.svg(title, LOADS[load], bars)


def absent(load: str) -> Iterator[str]:
    """Why servers take no part in a load."""
    reasons = [f"{server.name} {server.cannot[load]}" for server in SERVERS if load in server.cannot]
    if reasons:
        yield f"Not here: {'; '.join(reasons)}."
        yield ""


def verdicts(load: str, rows: Mapping[str, Row]) -> Iterator[str]:
    """One line for every bar of the load whose two sides were measured."""
    for each in BARS:
        if each.load == load and each.server in rows and REFERENCE in rows:
            times = rows[REFERENCE].cpu_us / rows[each.server].cpu_us
            what = f"{load}: {REFERENCE} at most {each.most} × {each.server}"
            yield bar(what, f"{times:.2f} ×", times <= float(Fraction(each.most)))
