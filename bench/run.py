"""The benchmark: stardust and its peers side by side, on one core, under the same loads from another core.

    python bench/run.py [--rounds N] [--seconds N] [--only NAME,…] [--load NAME,…] [--record]
    python bench/run.py --render

Needs Linux, two cores, taskset, BENCH_PACKAGES of the Makefile, and bench/requirements.txt in this
interpreter's environment: `make bench` sees to them. Prints a page of Markdown. --record also puts every
single measurement into bench/results.json, in place of what was there of the same loads, and writes
docs/benchmarks.md and docs/benchmarks/*.svg from that file; --render does only the latter. Exit 1 if a
measurement could not be made, or if there is none to make. docs/benchmarks.md explains the method.

    servers.py, loads.py, load.lua    who and what, as data
    kinds.py                          what a kind of measurement is; KINDS is the table of them
    cost.py, wrk.py, h2load.py        what a request of a load costs
    waits.py, clients.py, long.*      "waits": who waits while one request takes long
    idle.py                           "idle": 10,000 connections, and a reload
    hostile.py, crowd.py, large.py    "hostile": good clients beside slow ones
    memory.py, django_page.py         "memory": what processes share and own
    start.py                          "start-…": until READY=1, and to a first byte
    scale.py                          "scale-…": more workers
    processes.py                      a server as processes
    recorded.py                       results.json; pure
    report.py                         what the tables of all kinds share, and the page; pure
    chart.py                          bars as SVG; pure
    instructions.py                   instructions per request: a command of its own
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cost
import h2load
import hostile
import idle
import memory
import recorded
import report
import scale
import start
import waits
import wrk
from kinds import Kind
from loads import LOADS
from processes import CLIENT_CORE, ENVIRONMENT, HERE, SERVER_CORE, BenchError
from recorded import Record, Records, Used
from servers import SERVERS, Server

KINDS: tuple[Kind, ...] = (cost, waits, idle, hostile, memory, start, scale)

KIND_OF = {load: kind for kind in KINDS for load in kind.LOADS}  # in the order of the page
RESULTS = HERE / "results.json"
DOCUMENT = HERE.parent / "docs" / "benchmarks.md"
CHARTS = DOCUMENT.with_suffix("")

Measured = Mapping[str, Sequence[Any]]  # by load: RESULTs of its kind


def main() -> int:
    given = options()
    if given.render:
        _render()
        return 0
    loads = [load for load in KIND_OF if not given.load or load in given.load]
    servers = [server for server in SERVERS if not given.only or server.name in given.only]
    servers = [server for server in servers if not set(loads).isdisjoint(server.loads)]
    if not servers:
        print(f"no server of --only bears a load of --load: {', '.join(loads)}", file=sys.stderr)
        return 1
    facts = _facts(given.rounds, given.seconds)
    found, errors = measured(servers, loads, given.rounds, given.seconds)
    kept = records(servers, found, facts)
    if kept:
        print(report.page(sections(kept)))
    if given.record:
        RESULTS.write_text(recorded.written(recorded.merged(recorded.parsed(RESULTS.read_text()), kept)))
        _render()
    for error in errors:
        print(error, file=sys.stderr)
    return 1 if errors else 0


def measured(
    servers: Sequence[Server], loads: Sequence[str], rounds: int, seconds: int
) -> tuple[Measured, Sequence[BenchError]]:
    """Within a load the servers take turns, so that a slow minute of the machine meets all of them; each
    round another one begins. What goes wrong ends its load, for a load is measured whole, but not the run.
    """
    measured: dict[str, list[Any]] = {load: [] for load in loads}
    errors = []
    for number in range(rounds):
        for load in [*measured]:
            try:
                for server in _turns(servers, load, number):
                    found = KIND_OF[load].measure(server, load, seconds)
                    measured[load] += found
                    told = f"round {number + 1} {load:12} {server.name:28} {KIND_OF[load].told(found)}"
                    print(told, file=sys.stderr)
            except BenchError as error:
                print(f"{load}: {error}", file=sys.stderr)
                errors.append(error)
                del measured[load]
    return {load: found for load, found in measured.items() if found}, errors


def _turns(servers: Sequence[Server], load: str, number: int) -> Sequence[Server]:
    """Those that bear the load, in the order of one round."""
    bearing = [server for server in servers if load in server.loads]
    first = number % max(1, len(bearing))
    return [*bearing[first:], *bearing[:first]]


def records(servers: Sequence[Server], found: Measured, facts: Mapping[str, str]) -> Records:
    versions = {server.name: _first_line(server.version) for server in servers}
    ways = {load.name: load.way for load in LOADS}
    return {
        load: Record(
            facts={**facts, **_foreign(results)},
            servers={
                server.name: Used(
                    versions[server.name], server.note, " ".join(server.asked(ways.get(load, "plain")))
                )
                for server in servers
                if load in server.loads
            },
            measurements=[one._asdict() for one in results],
        )
        for load, results in found.items()
    }


def sections(records: Records) -> list[report.Section]:
    """The loads of the records in the order of the page, each as its kind tells it."""
    return [
        report.Section(load, kind.LOADS[load], record, [*kind.tables(_results(kind, record))])
        for load, kind in KIND_OF.items()
        if (record := records.get(load))
    ]


def _results(kind: Kind, record: Record) -> list[Any]:
    return [kind.RESULT(**one) for one in record.measurements]


def _render() -> None:
    """docs/benchmarks.md and its charts anew from results.json."""
    records = recorded.parsed(RESULTS.read_text())
    DOCUMENT.write_text(report.embedded(DOCUMENT.read_text(), report.page(sections(records))))
    CHARTS.mkdir(exist_ok=True)
    for load, drawn in charts(records).items():
        (CHARTS / f"{load}.svg").write_text(drawn)


def charts(records: Records) -> Mapping[str, str]:
    """What is drawn of the records, by load."""
    return {load: cost.drawn(_results(cost, records[load])) for load in cost.LOADS if load in records}


def _facts(rounds: int, seconds: int) -> dict[str, str]:
    """What a reader has to know about the run and the machine."""
    now = datetime.datetime.now(datetime.UTC)
    return {
        "date": f"{now:%Y-%m-%d %H:%M} UTC",
        "machine": f"{_processor()}, {os.cpu_count()} cores, Linux {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "client": f"{_clients()} on core {CLIENT_CORE}, servers on core {SERVER_CORE}, loopback",
        "rounds": f"{rounds} of {seconds} s each, after {cost.WARM_UP} s of warm-up; medians",
        "load average at the start": f"{os.getloadavg()[0]:.2f}",
    }


def _clients() -> str:
    return f"{_first_line(wrk.VERSION).partition(' Copyright')[0]}, {_first_line(h2load.VERSION)}"


def _foreign(measured: Sequence[Any]) -> dict[str, str]:
    """The fact how busy others were on the server's core, of measurements that know it."""
    shares = sorted(one.foreign for one in measured if hasattr(one, "foreign"))
    if not shares:
        return {}
    told = f"{shares[len(shares) // 2]:.0%} of the time (median), {shares[-1]:.0%} (worst)"
    return {"other work on the server's core": told}


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()


def _first_line(command: Sequence[str]) -> str:
    """What a version command says. wrk says it with exit code 1."""
    run = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT, check=False
    )
    return run.stdout.partition("\n")[0]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Stardust and its peers side by side.")
    parser.add_argument("--rounds", type=_positive, default=3, help="times every server is measured (3)")
    parser.add_argument("--seconds", type=_positive, default=2, help="length of a measurement (2)")
    parser.add_argument(
        "--only", type=_names(server.name for server in SERVERS), default=(), help="servers, by name"
    )
    parser.add_argument("--load", type=_names(KIND_OF), default=(), help="loads, by name")
    parser.add_argument(
        "--record", action="store_true", help=f"write {RESULTS.name} and, from it, {DOCUMENT.name}"
    )
    parser.add_argument("--render", action="store_true", help=f"only write {DOCUMENT.name} anew")
    options = parser.parse_args()
    if options.record and options.only:
        parser.error("--record keeps whole loads, for ratios hold within a run only: leave out --only")
    return options


def _positive(text: str) -> int:
    if not text.isdecimal() or text == "0":
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number of at least 1")
    return int(text)


def _names(known: Iterable[str]) -> Callable[[str], Sequence[str]]:
    """A parser for a list of names, separated by commas, all of them known."""
    allowed = list(known)

    def parse(text: str) -> Sequence[str]:
        names = text.split(",")
        for name in names:
            if name not in allowed:
                raise argparse.ArgumentTypeError(f"{name}: must be one of {', '.join(allowed)}")
        return names

    return parse


if __name__ == "__main__":
    sys.exit(main())
