"""Who is ended of what the application leaves behind, and who is not. With processes of the test's own."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stardust.base import system
from stardust.logs.log import Log
from stardust.supervisor import processes
from stardust.supervisor.remains import MOMENT, Remains

SLEEP = "import signal; print(flush=True); signal.pause()"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"
PATIENCE = 30.0  # s


class Yard:
    """A supervisor's part, and what it has for children: never anything else that this process may have."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log = directory / "log"
        self.descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.host: Any = SimpleNamespace(now=100.0, log=Log("supervisor", descriptor=self.descriptor))
        self.own: set[int] = set()
        self.children: list[subprocess.Popen[str]] = []
        self.remains = Remains(self.host, lambda: self.own)
        monkeypatch.setattr(processes, "own_children", lambda: [each.pid for each in self.children])

    def start(self, code: str = SLEEP, *, group: int | None = 0, session: bool = False) -> int:
        """A process in `group`, 0 for one of its own, None for ours."""
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", code],
            stdout=subprocess.PIPE,
            text=True,
            process_group=None if session else group,
            start_new_session=session,
        )
        assert process.stdout is not None
        process.stdout.readline()
        self.children.append(process)
        return process.pid

    def worker(self, number: int, generation: int = 1) -> int:
        pid = self.start()
        self.remains.expect(pid, generation, f"worker {number}")
        self.own.add(pid)
        return pid

    def end(self, pid: int) -> int:
        """It is waited for; its exit code."""
        [process] = [each for each in self.children if each.pid == pid]
        code = process.wait(PATIENCE)
        assert process.stdout is not None
        process.stdout.close()
        self.children.remove(process)
        return code

    def kill(self, worker: int, *, in_peace: bool) -> None:
        """A worker ends."""
        os.kill(worker, signal.SIGKILL)
        self.end(worker)
        self.own.remove(worker)
        self.remains.gone(worker, in_peace=in_peace)

    def close(self) -> None:
        for process in [*self.children]:
            process.kill()
            self.end(process.pid)
        os.close(self.descriptor)


@pytest.fixture
def yard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Yard]:
    it = Yard(tmp_path, monkeypatch)
    yield it
    it.close()


def alive(pid: int) -> bool:
    return not processes.has_ended(pid) and os.path.exists(f"/proc/{pid}")


def test_what_a_killed_worker_leaves_is_ended(yard: Yard) -> None:
    """And not what another one has let go."""
    worker, other = yard.worker(1), yard.worker(2)
    theirs, others = yard.start(group=worker), yard.start(group=other)
    yard.kill(worker, in_peace=False)
    assert yard.remains.some_left()
    assert yard.remains.turn() == 100.0 + MOMENT
    assert yard.end(theirs) == -signal.SIGTERM
    yard.remains.ended(theirs)
    assert yard.remains.turn() == math.inf
    assert not yard.remains.some_left()
    assert alive(others)
    assert f"ending process {theirs} ({sys.executable} -I -S -c import signal" in yard.log.read_text()
    assert "), which was left behind by worker 1\n" in yard.log.read_text()


def test_what_a_worker_leaves_in_peace_lives_as_long_as_its_generation(yard: Yard) -> None:
    worker, other = yard.worker(1), yard.worker(2, generation=2)
    theirs, others = yard.start(group=worker), yard.start(group=other)
    yard.kill(worker, in_peace=True)
    yard.kill(other, in_peace=True)
    assert yard.remains.turn() == math.inf
    assert alive(theirs)
    yard.remains.over(1)
    yard.remains.turn()
    assert yard.end(theirs) == -signal.SIGTERM
    assert alive(others)


def test_a_worker_that_outlives_its_zygote_keeps_its_own(yard: Yard) -> None:
    worker = yard.worker(1)
    theirs = yard.start(group=worker)
    yard.remains.over(1)
    assert yard.remains.turn() == math.inf
    assert alive(theirs)
    yard.kill(worker, in_peace=True)
    yard.remains.turn()
    assert yard.end(theirs) == -signal.SIGTERM


def test_a_group_of_its_own_protects_nobody(yard: Yard) -> None:
    worker = yard.worker(1)
    theirs = yard.start(group=0)
    yard.kill(worker, in_peace=False)
    yard.remains.turn()
    assert yard.end(theirs) == -signal.SIGTERM
    assert "which was left behind\n" in yard.log.read_text()


def test_who_is_left_alone(yard: Yard) -> None:
    """At the very end, too: sessions of their own, our own group, and who only waits to be reaped."""
    worker = yard.worker(1)
    spared = [yard.start(session=True), yard.start(group=None)]
    dead = yard.start(group=worker)
    os.kill(dead, signal.SIGKILL)
    os.waitid(os.P_PID, dead, os.WEXITED | os.WNOWAIT)
    yard.kill(worker, in_peace=False)
    yard.remains.leave()
    assert yard.remains.turn() == math.inf
    assert not yard.remains.some_left()
    assert all(alive(each) for each in spared)
    assert yard.log.read_text() == ""


def test_the_end_of_the_server_is_that_of_all(yard: Yard) -> None:
    worker = yard.worker(1)
    theirs, others = yard.start(group=worker), yard.start(group=0)
    yard.kill(worker, in_peace=True)
    yard.remains.leave()
    assert yard.remains.some_left()
    yard.remains.turn()
    assert yard.remains.some_left()
    for pid in (theirs, others):
        assert yard.end(pid) == -signal.SIGTERM
        yard.remains.ended(pid)
    yard.remains.turn()
    assert not yard.remains.some_left()


def test_sigkill_follows_and_then_we_give_up(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = yard.start(STUBBORN)
    yard.remains.leave()
    assert yard.remains.turn() == 100.0 + MOMENT
    yard.host.now = 100.0 + MOMENT
    assert yard.remains.turn() == 100.0 + 2 * MOMENT
    assert yard.remains.some_left()
    assert yard.end(theirs) == -signal.SIGKILL
    yard.host.now = 100.0 + 2 * MOMENT  # nobody has told of its end
    assert yard.remains.turn() == math.inf
    assert not yard.remains.some_left()


@pytest.mark.parametrize("fault", [ProcessLookupError, PermissionError])
def test_who_cannot_be_reached(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, fault: Callable[[], OSError]
) -> None:
    """It has changed its user, say."""

    def kill(pid: int, number: int) -> None:
        raise fault()

    theirs = yard.start()
    with monkeypatch.context() as patch:
        patch.setattr(system, "kill", kill)
        yard.remains.leave()
        yard.remains.turn()
        yard.host.now += MOMENT
        yard.remains.turn()
    assert alive(theirs)


def test_who_is_gone_meanwhile(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = yard.start()
    os.kill(pid, signal.SIGKILL)
    yard.end(pid)
    monkeypatch.setattr(processes, "own_children", lambda: [pid])
    yard.remains.leave()
    assert yard.remains.turn() == math.inf


def test_groups_are_forgotten(yard: Yard) -> None:
    """When nobody is in them any more."""
    for number in range(3):
        yard.kill(yard.worker(number), in_peace=number != 1)
    worker = yard.worker(4)
    theirs = yard.start(group=worker)
    yard.kill(worker, in_peace=True)
    assert yard.remains._groups.keys() == {worker}
    os.kill(theirs, signal.SIGKILL)
    yard.end(theirs)
    yard.remains.leave()
    yard.remains.turn()
    assert not yard.remains._groups
