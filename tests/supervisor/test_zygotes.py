"""Zygotes that load, fail, talk nonsense, say nothing and die."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stardust.base.errors import Exit
from stardust.ipc import messages
from stardust.supervisor import vocabulary
from stardust.supervisor.state import Phase, Zygote
from tests.supervisor.stage import NONSENSE, FakeWorker, Stage


def test_boot_that_fails(stage: Callable[..., Stage]) -> None:
    """The traceback is logged, and nothing more is started."""
    it = stage()
    it.settle()
    it.briefed()
    it.zygotes[0].send(messages.Failed("ImportError: no shop", "Traceback: it is closed"))
    it.until(lambda: it.supervisor.exit is not None)
    assert it.supervisor.exit is Exit.APPLICATION
    assert "generation 1 failed: ImportError: no shop\n    Traceback: it is closed\n" in it.log.read_text()
    assert len(it.zygotes) == 1


def test_boot_that_finds_a_setting_wrong(stage: Callable[..., Stage]) -> None:
    """What only a zygote sees: certificates. It is a mistake of the configuration all the same."""
    it = stage()
    it.settle()
    it.briefed()
    it.zygotes[0].send(messages.Misconfigured("ssl-key-file: k.pem: none"))
    it.until(lambda: it.supervisor.exit is not None)
    assert it.supervisor.exit is Exit.CONFIG
    assert "generation 1 failed: ssl-key-file: k.pem: none\n" in it.log.read_text()


def test_last_words_of_a_zygote_are_heard(stage: Callable[..., Stage]) -> None:
    """It said why and died: that it died is not the reason."""
    it = stage()
    it.settle()
    it.briefed()
    it.zygotes[0].send(messages.Failed("ImportError: no shop", ""))
    pid = it.supervisor.generations.book[1].pid
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    it.supervisor.zygotes.reap()
    assert it.supervisor.state.last is not None
    assert it.supervisor.state.last.reason == "ImportError: no shop"


@pytest.mark.parametrize(
    "data",
    [
        *NONSENSE.values(),
        b'{"kind": "Ready"}',  # as a worker says
        b'{"kind": "Exited", "worker": 1, "status": 4991}',  # stopped
        b'{"kind": "Exited", "worker": 1, "status": 2147483648}',
    ],
    ids=[*NONSENSE, "a worker's", "no end", "no int"],
)
def test_a_zygote_that_talks_nonsense_is_replaced(stage: Callable[..., Stage], data: bytes) -> None:
    it = stage(max_workers=1)
    it.boot()
    it.zygotes[0].socket.send(data)
    it.until(lambda: len(it.zygotes) == 2)
    assert "the zygote of generation 1 has sent an invalid message" in it.log.read_text()


def test_logs_are_reopened_by_everybody(stage: Callable[..., Stage], tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    it = stage(max_workers=1, access_log=str(path))
    it.boot()
    path.rename(tmp_path / "access.log.1")
    it.supervisor.zygotes.reopen_logs()
    for channel in (it.zygotes[0], it.workers[1].channel):
        message = channel.receive()
        assert isinstance(message, messages.Reopen)
        descriptor = message.access_log
        assert os.path.samestat(os.fstat(descriptor), path.stat())
        os.close(descriptor)


def test_log_that_cannot_be_reopened_goes_on_in_the_old_file(
    stage: Callable[..., Stage], tmp_path: Path
) -> None:
    (tmp_path / "logs").mkdir()
    it = stage(max_workers=1, access_log=str(tmp_path / "logs" / "access.log"))
    it.boot()
    (tmp_path / "logs").rename(tmp_path / "elsewhere")
    it.supervisor.zygotes.reopen_logs()
    assert f"cannot reopen {tmp_path / 'logs' / 'access.log'}: No such file" in it.log.read_text()


def test_a_zygote_that_does_not_answer_is_killed_and_replaced(stage: Callable[..., Stage]) -> None:
    it = stage(max_workers=1, main_process_delay=0.01)
    it.boot()
    pid = it.supervisor.generations.book[1].pid
    it.workers[1].channel.send(messages.Leaving())
    it.until(lambda: 2 in it.supervisor.children.book)
    it.supervisor.now += it.config.boot_timeout
    it.settle()
    assert it.supervisor.state.generations[1].zygote is Zygote.KILLED
    assert "the zygote of generation 1 does not answer: killing it" in it.log.read_text()
    it.until(lambda: len(it.zygotes) == 2)
    ended = f"the zygote of generation 1 ({sys.executable}) ended: killed by SIGKILL"
    assert ended in it.log.read_text()
    assert not os.path.exists(f"/proc/{pid}")


def test_a_worker_of_whose_fork_nobody_told_dies_with_its_zygote(stage: Callable[..., Stage]) -> None:
    """It has not even begun, for all that is known: its number is given up."""
    it = stage(max_workers=1, main_process_delay=0.01)
    it.boot()
    it.workers[1].channel.send(messages.Leaving())
    it.until(lambda: 2 in it.supervisor.children.book)
    os.kill(it.supervisor.generations.book[1].pid, signal.SIGKILL)
    it.until(lambda: 2 not in it.supervisor.children.book)
    assert "worker 2 (process 0) ended: its zygote died first" in it.log.read_text()


def test_a_worker_of_whose_fork_only_the_scoreboard_tells_lives_on(stage: Callable[..., Stage]) -> None:
    it = stage(max_workers=1)
    it.boot()
    it.workers[1].channel.send(messages.Leaving())
    it.until(lambda: 2 in it.supervisor.children.book)
    order = it.hear()
    assert isinstance(order, messages.Fork)
    worker = it.workers[2] = FakeWorker(order)
    it.supervisor.scoreboard.slot(worker.slot).born(worker.pid, 1, time.monotonic())
    os.kill(it.supervisor.generations.book[1].pid, signal.SIGKILL)
    it.until(lambda: it.supervisor.state.generations[1].zygote is Zygote.LOST)
    assert it.supervisor.children.book[2].pid == worker.pid
    worker.channel.send(messages.Ready())
    it.until(lambda: it.supervisor.state.workers[2].phase is Phase.READY)


def test_a_zygote_that_was_never_started_is_gone_at_once(stage: Callable[..., Stage], tmp_path: Path) -> None:
    it = stage(max_workers=1)
    it.boot()
    (tmp_path / "stardust.toml").write_text("max-workers = 'many'")
    it.supervisor.see(vocabulary.ReloadAsked())
    it.settle()
    assert list(it.supervisor.state.generations) == [1]
