"""What processes share and own: eight workers of a Django application, before and after traffic.

    measure(server, load, seconds) -> [Memory, Memory]; it takes as long as it takes

Started, asked once, measured; then asked until REQUESTS answers have come, and measured again.

Rules:
- The first answer says that one worker is there. All have loaded what they load when all are there and no
  process does anything more: before that nothing is measured.
- Memory is the kernel's account (proc(5), smaps_rollup). RSS is all that a process has mapped and touched,
  PSS counts a page that N processes have as 1/N, USS (Private_Clean and Private_Dirty) only what nobody else
  has.
- Which process is which follows from the tree: of stardust the first is the supervisor, its child the zygote,
  and the children of that are workers; of gunicorn the first is the arbiter, and its children are workers.
- The server has all cores, and so has the client: memory does not depend on who runs where, and time does.
- How even the load was, only stardust can be asked (`stardustctl status`): `fewest` is the worker with least.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import NamedTuple

from processes import (
    CLIENT_CORE,
    ENVIRONMENT,
    HERE,
    SERVER_CORE,
    BenchError,
    Running,
    children,
    control,
    cpu_time,
    family,
    memory,
    serving,
)
from report import MIB, bar, grouped, in_order, table
from servers import Server

WORKERS = 8
REQUESTS = 10_000 * WORKERS
STEP = 5  # s; of wrk, until REQUESTS have been answered
MOST_SECONDS = 600  # of all steps
QUIET = 1  # s; without any CPU time
MOST_QUIETS = 30  # that a start may take

CONNECTIONS = 64

APP = "django_page:application"
LOADS = {"memory": f"{WORKERS} workers with Django, before and after {REQUESTS:,} requests"}

STARDUST = "stardust"  # whose first process has a zygote: its command
MOST_SUPERVISOR = 25_000_000  # bytes of RSS
MOST_SHARE = 0.3  # of the PSS of a worker that has loaded the application for itself
OWN = {
    "stardust-8-workers": "stardust-8-workers-no-preload",
    "gunicorn-8-workers-preload": "gunicorn-8-workers",
}
"""Servers whose workers are forked from a loaded application; the same whose workers load it themselves."""

BEFORE, AFTER = "before", "after"


class Memory(NamedTuple):
    """Bytes, of the `first` process (supervisor, arbiter), of the zygote (0: there is none) and of a worker,
    the median; `tree_pss` of all. `moment` is BEFORE or AFTER `requests`; `fewest` are those of the worker
    that had least, None if nobody knows."""

    server: str
    moment: str
    requests: int
    fewest: int | None
    first_rss: int
    first_pss: int
    zygote_rss: int
    zygote_pss: int
    worker_rss: int
    worker_pss: int
    worker_uss: int
    tree_pss: int


RESULT = Memory


def measure(server: Server, load: str, seconds: int) -> list[Memory]:
    """Raises BenchError if the server does not start, or wrk does not run."""
    _prepare()
    with serving(server, APP, cores=(SERVER_CORE, CLIENT_CORE)) as running:
        _await_workers(server, running)
        before = _look(server, running, BEFORE, 0)
        answered = 0
        for _ in range(MOST_SECONDS // STEP):
            answered += _ask(running.port)
            if answered >= REQUESTS:
                return [before, _look(server, running, AFTER, answered)]
    raise BenchError(f"{server.name}: {answered:,} answers in {MOST_SECONDS} s, not {REQUESTS:,}")


def _prepare() -> None:
    """Have the application make its database, and its modules compiled."""
    command = ["python", "-c", f"import {APP.partition(':')[0]}"]
    run = subprocess.run(command, cwd=HERE, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    if run.returncode:
        raise BenchError(f"{' '.join(command)}: {run.stderr}")


def _await_workers(server: Server, running: Running) -> None:
    """gunicorn forks one after the other, and serves before the last one is there."""
    for _ in range(MOST_QUIETS):
        used = cpu_time(running.root)
        time.sleep(QUIET)
        if cpu_time(running.root) == used and len(_workers(server, running)) == WORKERS:
            return
    there = len(_workers(server, running))
    raise BenchError(
        f"{server.name} has {there} of {WORKERS} workers after {MOST_QUIETS * QUIET} s, or no rest"
    )


def _workers(server: Server, running: Running) -> Sequence[int]:
    [parent] = _zygote(server, running) or [running.root]
    return children(parent)


def _zygote(server: Server, running: Running) -> Sequence[int]:
    return children(running.root) if server.command[0] == STARDUST else ()


def _ask(port: int) -> int:
    """How many requests were answered in a STEP."""
    command = ["wrk", "--threads=1", f"--connections={CONNECTIONS}", f"--duration={STEP}s", "--timeout=10s"]
    command.append(f"http://127.0.0.1:{port}/")
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    answered = re.search(r"(\d+) requests in", run.stdout)
    if not answered or "Non-2xx" in run.stdout:
        raise BenchError(f"{' '.join(command)}:\n{run.stdout}{run.stderr}")
    return int(answered[1])


def _look(server: Server, running: Running, moment: str, requests: int) -> Memory:
    zygote, workers = _zygote(server, running), _workers(server, running)
    if len(workers) != WORKERS:
        raise BenchError(f"{server.name} has {len(workers)} workers, not {WORKERS}")
    status = json.loads(control(running, "status"))["workers"] if zygote else ()
    return Memory(
        server=server.name,
        moment=moment,
        requests=requests,
        fewest=min((worker["requests"] for worker in status), default=None),
        first_rss=memory([running.root], "Rss"),
        first_pss=memory([running.root], "Pss"),
        zygote_rss=memory(zygote, "Rss"),
        zygote_pss=memory(zygote, "Pss"),
        worker_rss=_of_one(workers, "Rss"),
        worker_pss=_of_one(workers, "Pss"),
        worker_uss=_of_one(workers, "Private_Clean", "Private_Dirty"),
        tree_pss=memory(family(running.root), "Pss"),
    )


def _of_one(workers: Sequence[int], *parts: str) -> int:
    return round(median(sum(memory([pid], part) for part in parts) for pid in workers))


def told(measured: Sequence[Memory]) -> str:
    before, after = measured
    return f"a worker has {before.worker_pss / MIB:.1f} → {after.worker_pss / MIB:.1f} MiB PSS"


HEAD = (
    *("server", "requests", "fewest of a worker", "supervisor RSS", "PSS", "zygote RSS", "PSS"),
    *("worker RSS", "PSS", "USS", "all PSS", "worker PSS × own import"),
)


def tables(measured: Sequence[Memory]) -> Iterator[str]:
    """MiB, medians of the rounds; a row before traffic, and one after it."""
    found = {key: _row(rounds) for key, rounds in grouped(measured, lambda one: one[:2]).items()}
    names = in_order({name for name, _ in found})
    keys = [(name, moment) for name in names for moment in (BEFORE, AFTER)]
    yield from table(HEAD, (_line(found[key], _share(found, key)) for key in keys))
    for name, moment in keys:
        share = _share(found, (name, moment))
        if name.startswith(STARDUST) and share is not None:
            what = f"memory: {name}, a worker {moment} traffic at most {MOST_SHARE:.0%} of {OWN[name]}'s"
            yield bar(what, f"{share:.0%}", share <= MOST_SHARE)
    most = max((one.first_rss for one in measured if one.server.startswith(STARDUST)), default=0)
    if most:
        what = f"memory: supervisor at most {MOST_SUPERVISOR / 1e6:g} MB RSS"
        yield bar(what, f"{most / 1e6:.1f} MB", most <= MOST_SUPERVISOR)


def _share(found: Mapping[tuple[str, str], Memory], key: tuple[str, str]) -> float | None:
    """A forked worker's PSS over that of one that loaded for itself; None if there is nothing to compare."""
    name, moment = key
    own = found.get((OWN.get(name, ""), moment))
    return found[key].worker_pss / own.worker_pss if own else None


def _row(rounds: Sequence[Memory]) -> Memory:
    """The medians of the rounds; the fewest requests of all."""
    first = rounds[0]
    fewest = min((one.fewest for one in rounds if one.fewest is not None), default=None)
    figures = [median(values) for values in list(zip(*rounds, strict=True))[4:]]
    return Memory(first.server, first.moment, first.requests, fewest, *map(round, figures))


def _line(row: Memory, share: float | None) -> tuple[str, ...]:
    sizes = (row.first_rss, row.first_pss, row.zygote_rss, row.zygote_pss)
    return (
        row.server,
        f"{row.requests:,}",
        "–" if row.fewest is None else f"{row.fewest:,}",
        *(f"{size / MIB:.1f}" if size else "–" for size in sizes),
        *(f"{size / MIB:.1f}" for size in (row.worker_rss, row.worker_pss, row.worker_uss, row.tree_pss)),
        "–" if share is None else f"{share:.2f}",
    )
