"""From measurements to what people read: medians, ratios, bars, a page of Markdown. Touches nothing.

The reference of all ratios is REFERENCE: "x times the CPU time that stardust needs for a request".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import NamedTuple

import hostile
import waits
from hostile import Hostile
from idle import Idle
from loads import LOADS
from measure import Measurement
from servers import SERVERS
from waits import Wait

REFERENCE = "stardust"
MIB = 1 << 20

BEGIN = "<!-- written by `make bench`; changes here are lost -->"
END = "<!-- end of what `make bench` writes -->"


class Results(NamedTuple):
    """Every single measurement of a run."""

    measurements: list[Measurement]
    waits: list[Wait]
    idle: list[Idle]
    hostile: list[Hostile]


class Bar(NamedTuple):
    """`server` is to need at least `times` the CPU time per request that REFERENCE needs under `load`."""

    load: str
    server: str
    times: float


BARS = (
    Bar("keep-alive", "gunicorn-gthread", 8),
    Bar("connection", "gunicorn-gthread", 8),
    Bar("connection", "gunicorn-sync", 8),
)


LATER = {"/sleep": 50, "/spin": 100}
"""By how many ms the slowest answer of a stardust may be slower beside a long request than without one."""
SLOWER = 1.5
"""By how much the p99 of good clients of a stardust may grow beside hostile ones."""
IDLE_BYTES = 4096
"""Of memory for an idle connection. The other bars of these: no wake-ups, no connection lost."""


class Row(NamedTuple):
    """One server under one load: medians over the rounds. Times in the named units, memory in bytes."""

    cpu_us: float
    system_us: float
    least_cpu_us: float
    most_cpu_us: float
    rate: float
    p50_ms: float
    p99_ms: float
    rss: float
    pss: float
    failed: int


Rows = Mapping[tuple[str, str], Row]  # (load, server)


def rows(measurements: Sequence[Measurement]) -> Rows:
    """One row for every load and server that was measured at all."""
    rounds: dict[tuple[str, str], list[Measurement]] = {}
    for one in measurements:
        rounds.setdefault((one.load, one.server), []).append(one)
    return {key: _row(group) for key, group in rounds.items()}


def _row(group: Sequence[Measurement]) -> Row:
    # A round without a single answer counts its whole CPU time as that of one request.
    cpu = [one.cpu * 1e6 / max(1, one.requests) for one in group]
    return Row(
        cpu_us=median(cpu),
        system_us=median(one.system * 1e6 / max(1, one.requests) for one in group),
        least_cpu_us=min(cpu),
        most_cpu_us=max(cpu),
        rate=median(one.requests / one.seconds for one in group),
        p50_ms=median(one.p50_ms for one in group),
        p99_ms=median(one.p99_ms for one in group),
        rss=median(one.rss for one in group),
        pss=median(one.pss for one in group),
        failed=sum(one.failed for one in group),
    )


def tables(rows: Rows) -> Iterator[str]:
    """Lines of Markdown: a table for every load that was measured, servers in the order of SERVERS."""
    for load in LOADS:
        shown = [server.name for server in SERVERS if (load.name, server.name) in rows]
        if not shown:
            continue
        yield from (f"### {load.name}: {load.title}", "")
        yield (
            "| server | CPU µs/request | least–most | in the kernel | × stardust "
            "| requests/s | p50 ms | p99 ms | RSS MiB | PSS MiB | failed |"
        )
        yield "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
        reference = rows.get((load.name, REFERENCE))
        for name in shown:
            yield _line(name, rows[load.name, name], reference)
        yield ""


def _line(name: str, row: Row, reference: Row | None) -> str:
    ratio = f"{row.cpu_us / reference.cpu_us:.2f}" if reference else "–"
    return (
        f"| {name} | {row.cpu_us:.1f} | {row.least_cpu_us:.1f}–{row.most_cpu_us:.1f} "
        f"| {row.system_us:.1f} | {ratio} | {row.rate:,.0f} | {row.p50_ms:.2f} | {row.p99_ms:.2f} "
        f"| {row.rss / MIB:.0f} | {row.pss / MIB:.0f} | {row.failed} |"
    )


def verdicts(rows: Rows) -> Iterator[str]:
    """One line for every bar whose two sides were measured."""
    for bar in BARS:
        ours, theirs = rows.get((bar.load, REFERENCE)), rows.get((bar.load, bar.server))
        if ours and theirs:
            times = theirs.cpu_us / ours.cpu_us
            word = "met" if times >= bar.times else "MISSED"
            yield f"- {bar.load}: {bar.server} ≥ {bar.times:g} × {REFERENCE}: {times:.1f} ×, {word}"


class WaitRow(NamedTuple):
    """What the clients of one server met: medians over the rounds, but the slowest answer of all of them."""

    p50_ms: float
    p99_ms: float
    max_ms: float
    answers: int
    long: int
    took_ms: float
    failed: int
    late_ms: float


WaitRows = Mapping[tuple[str, str], WaitRow]  # (beside, server)


def wait_rows(measured: Sequence[Wait]) -> WaitRows:
    """One row for every server and kind of long request."""
    rounds: dict[tuple[str, str], list[Wait]] = {}
    for one in measured:
        rounds.setdefault((one.beside, one.server), []).append(one)
    return {key: _wait_row(group) for key, group in rounds.items()}


def _wait_row(group: Sequence[Wait]) -> WaitRow:
    return WaitRow(
        p50_ms=median(one.p50_ms for one in group),
        p99_ms=median(one.p99_ms for one in group),
        max_ms=max(one.max_ms for one in group),
        answers=sum(one.answers for one in group),
        long=sum(one.long for one in group),
        took_ms=median(one.took_ms for one in group),
        failed=sum(one.failed for one in group),
        late_ms=max(one.late_ms for one in group),
    )


def wait_tables(rows: WaitRows) -> Iterator[str]:
    """Lines of Markdown: a table for each kind of long request, and what became of the bars."""
    for beside in waits.BESIDE:
        shown = [server.name for server in SERVERS if (beside, server.name) in rows]
        if not shown:
            continue
        yield from (f"### waits: {waits.TITLES[beside]}", "")
        yield (
            "| server | p50 ms | p99 ms | slowest ms | answers | failed "
            "| long answers | took ms | clients late ms |"
        )
        yield "|---|--:|--:|--:|--:|--:|--:|--:|--:|"
        for name in shown:
            row = rows[beside, name]
            took = f"{row.took_ms:,.0f}" if row.long else "–"
            yield (
                f"| {name} | {row.p50_ms:.2f} | {row.p99_ms:.2f} | {row.max_ms:,.1f} "
                f"| {row.answers:,} | {row.failed} | {row.long} | {took} | {row.late_ms:.1f} |"
            )
        yield ""
    yield from _wait_verdicts(rows)


def _wait_verdicts(rows: WaitRows) -> Iterator[str]:
    """One line for every bar whose two sides were measured."""
    for (beside, name), row in rows.items():
        alone = rows.get(("", name))
        if beside and alone and name.startswith(REFERENCE):
            later = row.max_ms - alone.max_ms
            what = f"waits: {name} beside {beside}, nobody over {LATER[beside]} ms longer than without it"
            yield _bar(what, f"{max(0.0, later):,.1f} ms", later <= LATER[beside] and not row.failed)


def idle_tables(measured: Sequence[Idle]) -> Iterator[str]:
    """Lines of Markdown: a row for every time it was measured, and what became of the bars."""
    if not measured:
        return
    yield from (f"### idle: {measured[0].connections:,} connections that wait for their next request", "")
    yield "| server | bytes each | wake-ups | in s | reload s | moved after s | bytes moved | survived |"
    yield "|---|--:|--:|--:|--:|--:|--:|--:|"
    for one in measured:
        yield (
            f"| {one.server} | {one.bytes_each:,} | {one.wakeups} | {one.watched:g} | {one.reload_s:.2f} "
            f"| {one.moved_s:.2f} | {one.moved_bytes_each:,} | {one.survived:,} |"
        )
    yield ""
    most = max(max(one.bytes_each, one.moved_bytes_each) for one in measured)
    yield _bar(f"idle: at most {IDLE_BYTES:,} bytes each", f"{most:,}", most <= IDLE_BYTES)
    wakeups = sum(one.wakeups for one in measured)
    yield _bar("idle: no wake-ups", f"{wakeups}", not wakeups)
    lost = sum(one.connections - one.survived for one in measured)
    yield _bar("idle: no connection lost by a reload", f"{lost:,}", not lost)


class HostileRow(NamedTuple):
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


def hostile_rows(measured: Sequence[Hostile]) -> Mapping[tuple[str, str], HostileRow]:
    """One row for every kind and server. The ratio is that of each round, whose two parts were neighbours."""
    rounds: dict[tuple[str, str], list[Hostile]] = {}
    for one in measured:
        rounds.setdefault((one.kind, one.server), []).append(one)
    return {key: _hostile_row(group) for key, group in rounds.items()}


def _hostile_row(group: Sequence[Hostile]) -> HostileRow:
    return HostileRow(
        alone_p99_ms=median(one.alone_p99_ms for one in group),
        p50_ms=median(one.p50_ms for one in group),
        p99_ms=median(one.p99_ms for one in group),
        times=median(one.p99_ms / max(0.001, one.alone_p99_ms) for one in group),
        answers=sum(one.answers for one in group),
        failed=sum(one.failed for one in group),
        alone_cpu_ms=median(one.alone_cpu_ms for one in group),
        cpu_ms=median(one.cpu_ms for one in group),
        memory_alone=median(one.memory_alone for one in group),
        memory=median(one.memory for one in group),
        held=median(one.held for one in group),
    )


def hostile_tables(measured: Sequence[Hostile]) -> Iterator[str]:
    """Lines of Markdown: a table for each kind of hostile clients, and what became of the bars."""
    found = hostile_rows(measured)
    for kind in hostile.KINDS:
        shown = [server.name for server in SERVERS if (kind, server.name) in found]
        if not shown:
            continue
        yield from (f"### hostile: {hostile.GOOD} good clients beside {hostile.TITLES[kind]}", "")
        yield (
            "| server | p99 ms alone | p50 ms | p99 ms | × alone | answers | failed "
            "| CPU ms/s alone | CPU ms/s | MiB alone | MiB | held |"
        )
        yield "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
        for name in shown:
            row = found[kind, name]
            waited = (
                f"{row.p50_ms:,.2f} | {row.p99_ms:,.2f} | {row.times:,.2f}" if row.answers else "– | – | –"
            )
            yield (
                f"| {name} | {row.alone_p99_ms:.2f} | {waited} | {row.answers:,} | {row.failed:,} "
                f"| {row.alone_cpu_ms:.0f} | {row.cpu_ms:.0f} | {row.memory_alone / MIB:.0f} "
                f"| {row.memory / MIB:.0f} | {row.held:,.0f} |"
            )
        yield ""
    for (kind, name), row in found.items():
        if name.startswith(REFERENCE):
            what = f"hostile: {name} beside {kind}, p99 at most {SLOWER:g} × alone, nobody fails"
            met = row.times <= SLOWER and not row.failed
            yield _bar(what, f"{row.times:.2f} ×, {row.failed} failed", met)


def _bar(what: str, found: str, met: bool) -> str:
    return f"- {what}: {found}, {'met' if met else 'MISSED'}"


def page(results: Results, facts: Mapping[str, str], versions: Mapping[str, str]) -> str:
    """The whole report as Markdown. `facts` are lines about the run, `versions` come by server."""
    measured = rows(results.measurements)
    lines = [*(f"- {key}: {value}" for key, value in facts.items()), ""]
    for part in (
        [*tables(measured), *verdicts(measured)],
        [*wait_tables(wait_rows(results.waits))],
        [*idle_tables(results.idle)],
        [*hostile_tables(results.hostile)],
    ):
        lines += [*part, ""] if part else []
    lines += ["| server | version | settings | command |", "|---|---|---|---|"]
    for server in SERVERS:
        if server.name in versions:
            command = " ".join(server.command)
            lines.append(f"| {server.name} | {versions[server.name]} | {server.note} | `{command}` |")
    return "\n".join(lines) + "\n"


def embedded(document: str, report: str) -> str:
    """The document with the report between its two marks. Raises ValueError if they are not there."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the marks {BEGIN!r} and {END!r} are missing")
    return f"{before}{BEGIN}\n\n{report}\n{END}{after}"
