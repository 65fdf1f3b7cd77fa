"""The benchmark: stardust and its peers side by side, on one core, under the same loads from another core.

    python bench/run.py [--rounds N] [--seconds N] [--only NAME,…] [--load NAME,…] [--record]

Needs Linux, two cores, wrk, puma, taskset, and bench/requirements.txt in this interpreter's environment:
`make bench` sees to them. Prints a page of Markdown; --record also writes it into docs/benchmarks.md, and
every single measurement into bench/results.json. Exit 1 if a measurement could not be made, or if there is
none to make. docs/benchmarks.md explains the method.

    servers.py, loads.py, load.lua    who and what, as data
    measure.py                        one measurement of a load of wrk
    waits.py, clients.py, long.*      one of "waits": who waits while one request takes long
    idle.py                           one of "idle": 10,000 connections, and a reload
    hostile.py, crowd.py, large.py    one of "hostile": good clients beside slow ones
    processes.py                      a server as processes
    report.py                         medians, ratios, tables; pure
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import hostile
import idle
import report
import waits
from loads import LOADS
from measure import WARM_UP, measure
from processes import CLIENT_CORE, ENVIRONMENT, HERE, SERVER_CORE, BenchError
from servers import SERVERS, Server

NAMES = (*(load.name for load in LOADS), waits.NAME, idle.NAME, hostile.NAME)
RESULTS = HERE / "results.json"
DOCUMENT = HERE.parent / "docs" / "benchmarks.md"


def main() -> int:
    options = _options()
    loads = options.load or NAMES
    servers = [server for server in SERVERS if not options.only or server.name in options.only]
    servers = [server for server in servers if not set(loads).isdisjoint(server.loads)]
    if not servers:
        print(f"no server of --only bears a load of --load: {', '.join(loads)}", file=sys.stderr)
        return 1
    facts = _facts(options.rounds, options.seconds)
    versions = {server.name: _first_line(server.version) for server in servers}
    try:
        results = _measured(servers, loads, options.rounds, options.seconds)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    shares = [one.foreign for one in results.measurements]
    shares += [one.foreign for one in results.waits]
    shares += [one.foreign for one in results.hostile]
    if shares:
        facts["other work on the server's core"] = _foreign(shares)
    page = report.page(results, facts, versions)
    print(page)
    if options.record:
        _record(page, results, facts, versions)
    return 0


def _measured(servers: Sequence[Server], loads: Sequence[str], rounds: int, seconds: int) -> report.Results:
    """Within a load the servers take turns, so that a slow minute of the machine meets all of them; each
    round another one begins. Raises BenchError."""
    results = report.Results([], [], [], [])
    for number in range(rounds):
        first = number % len(servers)
        turns = [*servers[first:], *servers[:first]]
        for name in loads:
            for server in turns:
                if name in server.loads:
                    told = _measure(server, name, seconds, results)
                    print(f"round {number + 1} {name:12} {server.name:28} {told}", file=sys.stderr)
    return results


def _measure(server: Server, name: str, seconds: int, results: report.Results) -> str:
    """Add one measurement to the results; what to tell of it. Raises BenchError."""
    if name == waits.NAME:
        waited = [waits.measure(server, beside, seconds) for beside in waits.BESIDE]
        results.waits.extend(waited)
        slowest = ", ".join(f"{one.max_ms:.1f} ms {one.beside}".strip() for one in waited)
        return f"slowest {slowest}  foreign {max(one.foreign for one in waited):.0%}"
    if name == hostile.NAME:
        met = [hostile.measure(server, kind, seconds) for kind in hostile.KINDS]
        results.hostile.extend(met)
        told = ", ".join(f"{one.kind} {one.alone_p99_ms:.1f} → {one.p99_ms:.1f}" for one in met)
        return f"p99 ms {told}  foreign {max(one.foreign for one in met):.0%}"
    if name == idle.NAME:
        idled = idle.measure(server)
        results.idle.append(idled)
        return f"{idled.bytes_each} bytes each, {idled.survived} survived a reload"
    [load] = [load for load in LOADS if load.name == name]
    one = measure(server, load, seconds)
    results.measurements.append(one)
    cost = one.cpu * 1e6 / max(1, one.requests)
    return f"{cost:7.1f} µs/request {one.requests / one.seconds:8,.0f}/s  foreign {one.foreign:.0%}"


def _facts(rounds: int, seconds: int) -> dict[str, str]:
    """What a reader has to know about the run and the machine."""
    now = datetime.datetime.now(datetime.UTC)
    return {
        "date": f"{now:%Y-%m-%d %H:%M} UTC",
        "machine": f"{_processor()}, {os.cpu_count()} cores, Linux {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "client": f"{_first_line(('wrk', '--version')).partition(' Copyright')[0]} on core {CLIENT_CORE}, "
        f"servers on core {SERVER_CORE}, loopback",
        "rounds": f"{rounds} of {seconds} s each, after {WARM_UP} s of warm-up; medians",
        "load average at the start": f"{os.getloadavg()[0]:.2f}",
    }


def _foreign(shares: Sequence[float]) -> str:
    shares = sorted(shares)
    return f"{shares[len(shares) // 2]:.0%} of the time (median), {shares[-1]:.0%} (worst)"


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


def _record(page: str, results: report.Results, facts: dict[str, str], versions: dict[str, str]) -> None:
    recorded = {
        "facts": facts,
        "versions": versions,
        "commands": {server.name: server.command for server in SERVERS if server.name in versions},
        "measurements": [one._asdict() for one in results.measurements],
        "waits": [one._asdict() for one in results.waits],
        "idle": [one._asdict() for one in results.idle],
        "hostile": [one._asdict() for one in results.hostile],
    }
    RESULTS.write_text(json.dumps(recorded, indent=1, ensure_ascii=False) + "\n")
    DOCUMENT.write_text(report.embedded(DOCUMENT.read_text(), page))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Stardust and its peers side by side.")
    parser.add_argument("--rounds", type=_positive, default=3, help="times every server is measured (3)")
    parser.add_argument("--seconds", type=_positive, default=4, help="length of a measurement (4)")
    parser.add_argument(
        "--only", type=_names(server.name for server in SERVERS), default=(), help="servers, by name"
    )
    parser.add_argument("--load", type=_names(NAMES), default=(), help="loads, by name")
    parser.add_argument("--record", action="store_true", help=f"write {RESULTS.name} and {DOCUMENT.name}")
    return parser.parse_args()


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
