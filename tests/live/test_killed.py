"""A worker that is killed takes along the connections it held, and leaves nothing of itself.

Many in a row, at random, under load: nobody else is hurt, nobody waits for ever, and the supervisor, the
zygote and a worker that is spared have no more descriptors and no more memory than before.

STARDUST_TEST_KILLING=60 has it go on for so many seconds.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.live.client import PATIENCE
from tests.live.harness import Server, children, kill
from tests.live.load import Load
from tests.live.sockdiag import peers

SECONDS = float(os.environ.get("STARDUST_TEST_KILLING", "20"))
INTERVAL = 0.1  # s; between two kills
WORKERS = 10
SETTINGS = f"""
max-workers = {WORKERS}
max-keepalive-reqs = 0
keepalive-timeout = "1h"
max-reqs-per-child = 0
main-process-delay = "10ms"
"""
GROWTH = 256 << 10  # bytes; what an allocator may have kept
PERIODS = 3  # a leak grows in each; what an allocator keeps of a peak, only in one that tops it


class Footprint(NamedTuple):
    descriptors: int
    memory: int  # bytes


@pytest.mark.timeout(120 + 2 * PERIODS * SECONDS)
def test_p1_p10_kills_in_a_row(tmp_path: Path, listener: socket.socket) -> None:
    with Server(tmp_path, SETTINGS, sockets={"http": listener}, trouble="SIGKILL") as server:
        server.ready()
        [zygote] = server.zygotes()
        spared = {server.pid, zygote, min(server.workers())}
        # What comes first warms up: it makes whatever is made once, and needs as much at a time.
        footprints = [kills(server, zygote, spared)]
        for _ in range(PERIODS):
            footprints.append(kills(server, zygote, spared))
            before, after = footprints[-2:]
            assert {pid: each.descriptors for pid, each in after.items()} == {
                pid: each.descriptors for pid, each in before.items()
            }, footprints
            if all(after[pid].memory <= before[pid].memory + GROWTH for pid in spared):
                return
        pytest.fail(f"supervisor {server.pid}, zygote {zygote} or a worker grows and grows: {footprints}")


def kills(server: Server, zygote: int, spared: Collection[int]) -> dict[int, Footprint]:
    """A period of kills, and what is left when it is over, of those that were spared."""
    with Load(server.address, "/pid", 16, keeping=64, varied=True) as load:
        lost = kill_workers(zygote, spared, SECONDS)
    assert load.failures
    assert [failure for failure in load.failures if failure.split()[0] not in lost] == []
    assert [failure for failure in load.failures if "TimeoutError" in failure] == []
    while server.status()["ready"] < WORKERS:
        server.expect("STATUS")
    until(lambda: not any(peers(pid) for pid in spared))
    return {pid: footprint(pid) for pid in spared}


def kill_workers(zygote: int, spared: Collection[int], seconds: float) -> set[str]:
    """Kills a worker in each INTERVAL; the clients of what they held, as Load's failures name them."""
    chance = random.Random(1)
    lost: set[str] = set()
    moment = time.monotonic()
    end = moment + seconds
    while moment < end:
        # Nothing is waited for but the moment: no test waits longer because of it.
        threading.Event().wait(max(0.0, moment - time.monotonic()))
        moment += INTERVAL
        living = [pid for pid in children(zygote) - {*spared} if states(pid) - {"Z"}]
        if living:
            victim = chance.choice(living)
            freeze(victim)
            lost |= peers(victim)
            kill(victim)
    return lost


def freeze(pid: int) -> None:
    """Stops a process where it is; what it holds then is what it holds when it is killed."""
    os.kill(pid, signal.SIGSTOP)
    until(lambda: states(pid) == {"T"})


def until(true: Callable[[], bool]) -> None:
    """Waits for what a file of proc(5) tells, or sock_diag(7): they can only be asked again and again."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline


def states(pid: int) -> set[str]:
    """The states of its threads, as proc(5) has them; none if it is gone."""
    found = set()
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found.add((task / "stat").read_text().rpartition(")")[2].split()[0])
    return found


def footprint(pid: int) -> Footprint:
    [memory] = re.findall(r"^RssAnon:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return Footprint(len([*Path(f"/proc/{pid}/fd").iterdir()]), 1024 * int(memory))
