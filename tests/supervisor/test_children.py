"""Workers as processes: forked, ordered, heard, buried, and what is told of that."""

from __future__ import annotations

import math
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stardust.base import process
from stardust.ipc import messages
from stardust.logs import events
from stardust.supervisor import processes, vocabulary
from stardust.supervisor.deaths import Kills
from stardust.supervisor.state import Phase
from tests.descriptors import open_descriptors
from tests.journald import Journal
from tests.supervisor.stage import NONSENSE, PATIENCE, Stage, booted


def test_worker_that_ends_is_reaped_by_its_zygote(stage: Callable[..., Stage]) -> None:
    """The supervisor sees its end by the pidfd, and has its zygote ask how."""
    it = stage(main_process_delay=0.01)
    it.boot()
    worker = it.workers[1]
    os.kill(worker.pid, signal.SIGKILL)
    # Without `until`: the sleeper is a child of this process, and must be reaped by the zygote's word only.
    it.supervisor.wait(time.monotonic() + PATIENCE)
    assert it.hear() == messages.Reap(worker=1, pid=worker.pid)
    _, status = os.waitpid(worker.pid, 0)
    it.zygotes[0].send(messages.Exited(worker=1, status=status))
    it.until(lambda: 3 in it.supervisor.children.book)
    assert f"worker 1 (process {worker.pid}) ended: killed by SIGKILL" in it.log.read_text()
    it.start_worker()
    it.until(lambda: it.supervisor.state.workers[3].phase is Phase.READY)


def test_p2_fork_that_fails_is_logged_and_tried_again(stage: Callable[..., Stage]) -> None:
    it = stage(max_workers=1, main_process_delay=0.01)
    it.boot()
    it.workers[1].channel.send(messages.Leaving())
    it.until(lambda: 2 in it.supervisor.children.book)
    order = it.hear()
    assert isinstance(order, messages.Fork)
    os.close(order.channel)
    os.close(order.stacks)
    it.zygotes[0].send(messages.ForkFailed(2, "Resource temporarily unavailable"))
    it.until(lambda: 3 in it.supervisor.children.book)
    assert "cannot fork worker 2: Resource temporarily unavailable" in it.log.read_text()
    it.start_worker()
    it.until(lambda: it.supervisor.state.workers[3].phase is Phase.READY)


@pytest.mark.parametrize("data", NONSENSE.values(), ids=NONSENSE)
def test_a_worker_that_talks_nonsense_is_killed(stage: Callable[..., Stage], data: bytes) -> None:
    it = stage(max_workers=2)
    it.boot()
    it.workers[1].channel.socket.send(data)
    it.until(lambda: 1 not in it.supervisor.children.book)
    assert "killing worker 1" in it.log.read_text()
    assert "it has sent an invalid message" in it.log.read_text()
    it.until(lambda: len(it.supervisor.children.book) == 2)


def test_descriptors_that_nobody_asked_for_are_closed(stage: Callable[..., Stage]) -> None:
    it = stage(max_workers=1)
    it.boot()
    before = open_descriptors()
    reader, writer = os.pipe()
    socket.send_fds(it.workers[1].channel.socket, [b'{"kind": "Leaving"}'], [writer] * 100)
    os.close(writer)
    assert select.select([reader], [], [], 0)[0] == []
    it.until(lambda: bool(select.select([reader], [], [], 0)[0]))  # the end: nobody has it
    os.close(reader)
    assert len(open_descriptors() - before) < 10


def test_killed_request_is_in_the_access_log(stage: Callable[..., Stage], tmp_path: Path) -> None:
    """The worker cannot write that line any more."""
    path = tmp_path / "access.log"
    it = stage(max_workers=1, access_log=str(path), access_log_format="json", main_process_delay=0.01)
    it.boot()
    worker = it.workers[1]
    slot = it.supervisor.scoreboard.slot(worker.slot)
    slot.born(worker.pid, 1, time.monotonic())
    slot.busy(1, time.monotonic(), 0.0, b"192.0.2.1 GET /slow?x=1 HTTP/1.1")
    os.kill(worker.pid, signal.SIGKILL)
    it.until(lambda: 1 not in it.supervisor.children.book)
    [line] = path.read_text().splitlines()
    assert all(
        part in line for part in ("GET", "/slow?x=1", "192.0.2.1", "killed by SIGKILL", str(worker.pid))
    )


def test_stuck_worker_writes_its_stacks_and_is_killed(
    stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    it = stage(max_workers=1)
    it.boot()
    sent: list[int] = []
    real = processes.signal_process

    def witness(pidfd: int, number: int) -> None:
        sent.append(number)
        # The sleeper has no handler for the other one, and would end too early.
        if number == signal.SIGKILL:
            real(pidfd, number)
        else:
            os.write(it.workers[1].stacks, b"Thread 0x1:\n  File shop.py\n")

    monkeypatch.setattr(processes, "signal_process", witness)
    it.supervisor.see(vocabulary.Overdue(1, "request-timeout"))
    it.settle()
    it.start_worker()
    it.until(lambda: 1 not in it.supervisor.children.book)
    assert sent == [process.STACKS_SIGNAL, signal.SIGKILL]
    log = it.log.read_text()
    assert (
        f"error: killing worker 1 (process {it.workers[1].pid}), stuck: request-timeout\n"
        "    Thread 0x1:\n      File shop.py\n"
    ) in log


class TestEvents:
    """What is told of each, as fields: people read the message, programs these."""

    @pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
    def test_worker_died(self, stage: Callable[..., Stage], journald: Journal, busy: bool) -> None:
        it = booted(stage, journald)
        if busy:
            it.supervisor.scoreboard.slot(0).busy(1, time.monotonic(), 0.0, b"192.0.2.1 GET /a HTTP/1.1")
        os.kill(it.workers[1].pid, signal.SIGSEGV)
        it.until(lambda: 1 not in it.supervisor.children.book)
        died = journald.expect("MESSAGE_ID", events.WORKER_DIED.id)
        assert (died["STARDUST_WORKER"], died["STARDUST_GENERATION"]) == ("1", "1")
        assert died.get("STARDUST_REQUEST") == ("GET /a HTTP/1.1" if busy else None)

    def test_out_of_memory(self, stage: Callable[..., Stage], journald: Journal, tmp_path: Path) -> None:
        it = booted(stage, journald)
        counts = tmp_path / "memory.events"
        counts.write_text("oom_kill 1\n")
        it.supervisor.children.kills = Kills(counts)
        counts.write_text("oom_kill 2\n")
        os.kill(it.workers[1].pid, signal.SIGKILL)
        it.until(lambda: 1 not in it.supervisor.children.book)
        assert journald.expect("MESSAGE_ID", events.OUT_OF_MEMORY.id)["STARDUST_WORKER"] == "1"

    def test_killed_by_us(self, stage: Callable[..., Stage], journald: Journal) -> None:
        """The deed is an event, the death that follows from it is none."""
        it = booted(stage, journald)
        it.supervisor.scoreboard.slot(0).busy(1, time.monotonic(), 0.0, b"192.0.2.1 GET /a HTTP/1.1")
        it.supervisor.see(vocabulary.Overdue(1, "request-timeout"))
        it.until(lambda: 1 not in it.supervisor.children.book)
        timed_out = journald.expect("MESSAGE_ID", events.WORKER_TIMED_OUT.id)
        assert (timed_out["STARDUST_WORKER"], timed_out["STARDUST_REQUEST"]) == ("1", "GET /a HTTP/1.1")
        assert not [each for each in journald.read() if each.get("MESSAGE_ID") == events.WORKER_DIED.id]


# --- one book --------------------------------------------------------------------------------------------


def test_a_child_is_there_as_long_as_the_state_knows_the_worker(stage: Callable[..., Stage]) -> None:
    """Whatever the reason is that it does not any more: `settle` of each test holds the two together."""
    it = stage(max_workers=2)
    it.boot()
    before = open_descriptors()
    [first, second] = it.supervisor.children.book.values()
    it.supervisor.see(vocabulary.Gone(first.number, "by magic"))
    assert list(it.supervisor.children.book.values()) == [second]
    assert len(before - open_descriptors()) == 3  # its channel, its memory for stacks, its pidfd
    assert first.channel.fileno() == -1
    it.supervisor.see(vocabulary.Gone(first.number, "once more"))
    assert list(it.supervisor.children.book.values()) == [second]


def test_a_fork_that_nobody_takes_leaves_nothing(stage: Callable[..., Stage]) -> None:
    it = stage(max_workers=1)
    it.boot()
    before = open_descriptors()
    channel = it.supervisor.generations.book[1].channel
    assert channel is not None
    it.zygotes[0].close()
    it.workers[1].channel.send(messages.Leaving())
    it.until(lambda: bool(it.supervisor.state.vacancies))
    assert list(it.supervisor.children.book) == [1]
    assert not open_descriptors() - before


def test_a_fork_that_is_told_of_twice(stage: Callable[..., Stage]) -> None:
    """The first word counts."""
    it = stage(max_workers=1)
    it.boot()
    child = it.supervisor.children.book[1]
    pidfd = child.pidfd
    it.zygotes[0].send(messages.Forked(1, os.getpid()))
    it.supervisor.wait(math.inf)
    it.settle()
    assert (child.pid, child.pidfd) == (it.workers[1].pid, pidfd)


def test_an_end_that_is_told_of_twice(stage: Callable[..., Stage]) -> None:
    """By a zygote that lies, and by the kernel in the same moment."""
    it = stage(max_workers=1, main_process_delay=0.01)
    it.boot()
    it.zygotes[0].send(messages.Exited(1, 0))
    os.kill(it.supervisor.generations.book[1].pid, signal.SIGKILL)
    os.kill(it.workers[1].pid, signal.SIGKILL)
    os.waitid(os.P_PID, it.supervisor.generations.book[1].pid, os.WEXITED | os.WNOWAIT)
    os.waitid(os.P_PID, it.workers[1].pid, os.WEXITED | os.WNOWAIT)
    it.supervisor.zygotes.reap()
    it.settle()
    assert 1 not in it.supervisor.children.book
    assert it.log.read_text().count("worker 1 (process") == 1


def test_a_worker_for_which_the_application_has_waited(stage: Callable[..., Stage]) -> None:
    """Nobody knows how it ended: that is said, and no exit code is made up."""
    it = stage(max_workers=1, main_process_delay=0.01)
    it.boot()
    worker = it.workers[1]
    os.kill(worker.pid, signal.SIGKILL)
    it.supervisor.wait(time.monotonic() + PATIENCE)
    assert it.hear() == messages.Reap(worker=1, pid=worker.pid)
    os.waitpid(worker.pid, 0)
    it.zygotes[0].send(messages.Exited(worker=1, status=None))
    it.until(lambda: 2 in it.supervisor.children.book)
    ended = f"worker 1 (process {worker.pid}) ended: nobody knows how, for the application has waited for it"
    assert ended in it.log.read_text()
    it.start_worker()
    it.until(lambda: it.supervisor.state.workers[2].phase is Phase.READY)


def test_why_a_worker_was_killed_goes_to_its_zygote(stage: Callable[..., Stage]) -> None:
    """Which has it from nowhere else, for `after-death`."""
    it = stage(max_workers=1, main_process_delay=0.01)
    it.boot()
    worker = it.workers[1]
    it.supervisor.see(vocabulary.Overdue(1, "request-timeout"))
    it.settle()
    it.supervisor.now += 1.0
    it.settle()
    it.supervisor.wait(time.monotonic() + PATIENCE)
    while not isinstance(order := it.hear(), messages.Reap):
        assert isinstance(order, messages.Fork)
        os.close(order.channel)
        os.close(order.stacks)
    assert order == messages.Reap(worker=1, pid=worker.pid, why="request-timeout")
