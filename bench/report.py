"""From measurements to what people read: medians, ratios, bars, a page of Markdown. Touches nothing.

The reference of all ratios is REFERENCE: "x times the CPU time that stardust needs for a request".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import NamedTuple

from loads import LOADS
from measure import Measurement
from servers import SERVERS

REFERENCE = "stardust"
MIB = 1 << 20

BEGIN = "<!-- written by `make bench`; changes here are lost -->"
END = "<!-- end of what `make bench` writes -->"


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


def page(measurements: Sequence[Measurement], facts: Mapping[str, str], versions: Mapping[str, str]) -> str:
    """The whole report as Markdown. `facts` are lines about the run, `versions` come by server."""
    measured = rows(measurements)
    lines = [*(f"- {key}: {value}" for key, value in facts.items()), ""]
    lines += [*tables(measured), *verdicts(measured), ""]
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
