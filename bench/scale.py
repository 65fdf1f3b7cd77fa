"""What more workers cost, and what they give.

    measure(server, load, seconds) -> [Scale]

"cores" has as many workers as cores, and the client beside them on the same cores: one of each, then two of
each. "workers" has more and more of them on one core, and the client on the other, as everywhere else.

Rules:
- Requests are those that the workers themselves have counted (`stardustctl status`), CPU time is that of the
  whole tree, between two moments while the client is at work: no connection begins or ends between them.
- The client of "cores" takes its share of the cores, and that is counted out: a server is measured by the
  requests it answered per second of core time that was *left* to it. Left is all time of its cores but what
  the client and others used. Idle time counts against the server: it is what one loses that waits for a
  lock, or leaves all connections to one worker.
- The client of "cores" is wrk with a thread and CONNECTIONS_A_CORE a core, that of "workers" one thread
  with CONNECTIONS, whatever the number of workers.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from statistics import median
from typing import NamedTuple

from processes import (
    CLIENT_CORE,
    HERE,
    SERVER_CORE,
    BenchError,
    Running,
    busy_time,
    control,
    cpu_time,
    pinned_to,
    serving,
)
from report import bar, grouped, in_order, table
from servers import Server

APP = "hello:application"
CONNECTIONS = 1000  # of "workers"
CONNECTIONS_A_CORE = 16  # of "cores"
WARM_UP = 4  # s; all connections are there, and spread over the workers
SPARE = 1  # s; after the second look

LOADS = {
    "scale-cores": "hello as in keep-alive, one worker on one core, two on two, the client on the same cores",
    "scale-workers": f"hello as in keep-alive, {CONNECTIONS:,} connections, more workers on one core",
}
CORES = {"stardust": [SERVER_CORE], "stardust-2-workers": [SERVER_CORE, CLIENT_CORE]}
"""The servers of "cores", each with as many workers; the first is what the others are compared to."""

LEAST_GAIN = 1.8  # of two workers on two cores, over one
MOST_COST = 1.3  # CPU time of a request with many workers, over that with one
ALONE = "stardust"


class Scale(NamedTuple):
    """Seconds: `cpu` of the server, `client` of wrk, `others` what else ran on the `cores` of the server.
    "workers" does not count the client: it runs elsewhere."""

    server: str
    load: str
    cores: int
    requests: int
    seconds: float
    cpu: float
    client: float
    others: float


RESULT = Scale


class _Moment(NamedTuple):
    """What has been used and done until now."""

    time: float
    requests: int
    cpu: float
    client: float
    busy: float


def measure(server: Server, load: str, seconds: int) -> list[Scale]:
    """Raises BenchError if the server does not start, or wrk does not run."""
    shared = load == "scale-cores"
    cores = CORES[server.name] if shared else [SERVER_CORE]
    clients = cores if shared else [CLIENT_CORE]
    connections = CONNECTIONS_A_CORE * len(cores) if shared else CONNECTIONS
    whole = WARM_UP + seconds + SPARE
    with (
        serving(server, APP, cores=cores) as running,
        _wrk(running.port, clients, connections, whole) as wrk,
    ):
        time.sleep(WARM_UP)
        before = _look(running, wrk, cores)
        time.sleep(seconds)
        after = _look(running, wrk, cores)
    elapsed, requests, cpu, client, busy = (now - then for now, then in zip(after, before, strict=True))
    client = client if shared else 0.0
    one = Scale(
        server=server.name,
        load=load,
        cores=len(cores),
        requests=int(requests),
        seconds=round(elapsed, 3),
        cpu=round(cpu, 3),
        client=round(client, 3),
        others=round(max(0.0, busy - cpu - client), 3),
    )
    return [one]


def _look(running: Running, wrk: int, cores: Sequence[int]) -> _Moment:
    workers = json.loads(control(running, "status"))["workers"]
    return _Moment(
        time.monotonic(),
        sum(worker["requests"] for worker in workers),
        sum(cpu_time(running.root)),
        sum(cpu_time(wrk)),
        sum(map(busy_time, cores)),
    )


@contextlib.contextmanager
def _wrk(port: int, cores: Sequence[int], connections: int, seconds: int) -> Iterator[int]:
    """Its process id. It is at work when this begins, and must not have failed when it ends."""
    command = ["wrk", "--threads", str(len(cores)), "--connections", str(connections), "--timeout", "10s"]
    command += ["--duration", f"{seconds}s", "--script", str(HERE / "load.lua")]
    command += [f"http://127.0.0.1:{port}/", "--", "browser"]
    process = subprocess.Popen(pinned_to(cores, command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        yield process.pid
        output = process.communicate()[0].decode()
        if '"failed": 0}' not in output:
            raise BenchError(f"wrk does not get its answers: {' '.join(command)}\n{output}")
    finally:
        process.kill()
        process.wait()


def told(measured: Sequence[Scale]) -> str:
    [one] = measured
    return (
        f"{one.cpu * 1e6 / max(1, one.requests):7.1f} µs/request, {_capacity(one):8,.0f}/s in its core time"
    )


def _capacity(one: Scale) -> float:
    """Requests a second, had all its cores been its own."""
    left = one.cores * one.seconds - one.client - one.others
    return one.cores * one.requests / left


class Row(NamedTuple):
    """Medians of the rounds; `left` is the share of its cores' time that a server had for itself."""

    cpu_us: float
    rate: float
    left: float
    capacity: float


def _row(rounds: Sequence[Scale]) -> Row:
    return Row(
        cpu_us=median(one.cpu * 1e6 / max(1, one.requests) for one in rounds),
        rate=median(one.requests / one.seconds for one in rounds),
        left=median(1 - (one.client + one.others) / (one.cores * one.seconds) for one in rounds),
        capacity=median(map(_capacity, rounds)),
    )


HEAD = (
    *("server", "CPU µs/request", "× one worker", "requests/s", "core time left"),
    *("requests/s in it", "× one worker"),
)


def tables(measured: Sequence[Scale]) -> Iterator[str]:
    load = measured[0].load
    found = {name: _row(rounds) for name, rounds in grouped(measured, lambda one: one.server).items()}
    alone = found.get(ALONE)
    yield from table(HEAD, (_line(name, found[name], alone) for name in in_order(found)))
    for name in in_order(found) if alone else ():
        if name == ALONE or alone is None:
            continue
        if load == "scale-cores":
            gain = found[name].capacity / alone.capacity
            yield bar(f"{load}: {name} ≥ {LEAST_GAIN:g} × {ALONE}", f"{gain:.2f} ×", gain >= LEAST_GAIN)
        else:
            cost = found[name].cpu_us / alone.cpu_us
            what = f"{load}: {name}, a request at most {MOST_COST:g} × the CPU time of {ALONE}"
            yield bar(what, f"{cost:.2f} ×", cost <= MOST_COST)


def _line(name: str, row: Row, alone: Row | None) -> tuple[str, ...]:
    return (
        name,
        f"{row.cpu_us:.1f}",
        f"{row.cpu_us / alone.cpu_us:.2f}" if alone else "–",
        f"{row.rate:,.0f}",
        f"{row.left:.0%}",
        f"{row.capacity:,.0f}",
        f"{row.capacity / alone.capacity:.2f}" if alone else "–",
    )
