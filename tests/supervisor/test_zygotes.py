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
from stardust.logs import events
from stardust.logs.log import Log, Sink
from stardust.settings import table as settings
from stardust.supervisor import processes, vocabulary
from stardust.supervisor.state import Phase, Zygote
from tests.journald import Journal
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


HOLDS = ("thread a", "connection\nto b")


def test_a_zygote_that_is_not_to_be_forked_is_replaced(
    stage: Callable[..., Stage], tmp_path: Path, journald: Journal
) -> None:
    """By one that loads nothing, for the same generation; what was found is told, in lines of ours."""
    it = stage(max_workers=1)
    it.supervisor.log = Log("supervisor", sink=Sink(journald.path))
    it.settle()
    it.briefed()
    first = it.supervisor.generations.book[1].pid
    it.zygotes[0].send(messages.Unforkable(HOLDS))
    it.until(lambda: len(it.zygotes) == 2)
    it.until(lambda: not os.path.exists(f"/proc/{first}"))
    assert it.zygotes[0].receive() is None
    order = it.hear(2)
    assert isinstance(order, messages.Generation)
    assert order.number == 1
    assert settings.load(order.config).preload is False
    for descriptor in messages.encode(order)[1]:
        os.close(descriptor)
    it.zygotes[1].send(messages.Loaded())
    it.until(lambda: len(it.supervisor.children.book) == 1)
    it.start_worker(2)
    it.until(lambda: it.supervisor.state.serving == 1)
    record = journald.expect("MESSAGE_ID", events.NOT_PRELOADED.id)
    assert record["STARDUST_GENERATION"] == "1"
    assert "\n- thread a\n- connection to b\n" in record["MESSAGE"]
    assert it.supervisor.voice.status()["preload"] == {
        "apart": True,
        "holds": ["thread a", "connection to b"],
    }


def test_it_may_die_of_it(stage: Callable[..., Stage]) -> None:
    """What it said is heard first: its end is not that of the generation."""
    it = stage(max_workers=1)
    it.settle()
    it.briefed()
    it.zygotes[0].send(messages.Unforkable(HOLDS))
    pid = it.supervisor.generations.book[1].pid
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    it.supervisor.zygotes.reap()
    assert len(it.zygotes) == 2
    assert it.supervisor.state.generations[1].zygote is Zygote.STARTING
    assert it.supervisor.state.last is None


def test_both_have_boot_timeout_together(stage: Callable[..., Stage]) -> None:
    it = stage(max_workers=1)
    it.settle()
    it.briefed()
    it.supervisor.now += it.config.boot_timeout - 1
    it.zygotes[0].send(messages.Unforkable(HOLDS))
    it.until(lambda: len(it.zygotes) == 2)
    it.supervisor.now += it.config.boot_timeout
    it.settle()
    assert it.supervisor.state.last is not None
    assert "did not load within boot-timeout" in it.supervisor.state.last.reason


@pytest.mark.parametrize("case", ["preload = true", "after it has loaded", "a second time"])
def test_out_of_turn(stage: Callable[..., Stage], case: str) -> None:
    """Whoever says it runs the application: it is not started again and again."""
    it = stage(max_workers=1, main_process_delay=0.01, preload=True if case == "preload = true" else "auto")
    if case == "after it has loaded":
        it.boot()
    else:
        it.settle()
        it.briefed()
    speaker = 0
    if case == "a second time":
        it.zygotes[0].send(messages.Unforkable(HOLDS))
        it.until(lambda: len(it.zygotes) == 2)
        speaker = 1
    it.zygotes[speaker].send(messages.Unforkable(HOLDS))
    it.until(lambda: "has sent that it cannot be forked, out of turn: killing it" in it.log.read_text())


def test_no_other_can_be_started(stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch) -> None:
    it = stage(max_workers=1)
    it.settle()
    it.briefed()

    def refuse(interpreter: str, environ: object) -> None:
        raise FileNotFoundError(2, "No such file or directory", interpreter)

    monkeypatch.setattr(processes, "start_zygote", refuse)
    it.zygotes[0].send(messages.Unforkable(HOLDS))
    it.until(lambda: it.supervisor.exit is not None)
    assert "No such file or directory" in it.log.read_text()


def test_what_is_forked_all_the_same(stage: Callable[..., Stage]) -> None:
    it = stage(max_workers=1, preload=True)
    it.settle()
    it.briefed()
    it.zygotes[0].send(messages.Loaded(HOLDS))
    it.until(lambda: len(it.supervisor.children.book) == 1)
    it.start_worker()
    it.until(lambda: it.supervisor.state.serving == 1)
    assert "warning: generation 1: preload = true, but shop holds what does not survive" in it.log.read_text()
    assert it.supervisor.voice.status()["preload"] == {
        "apart": False,
        "holds": ["thread a", "connection to b"],
    }


def test_a_worker_that_outlives_its_zygote_is_mourned_by_another(stage: Callable[..., Stage]) -> None:
    """As soon as there is one."""
    it = stage(max_workers=1, main_process_delay=0.01, after_death="shop:died")
    it.boot()
    worker = it.workers[1]
    os.kill(it.supervisor.generations.book[1].pid, signal.SIGKILL)
    it.until(lambda: len(it.zygotes) == 2)
    it.briefed(2)
    os.kill(worker.pid, signal.SIGKILL)
    it.until(lambda: 1 not in it.supervisor.children.book)
    it.zygotes[1].send(messages.Loaded())
    it.until(lambda: len(it.supervisor.children.book) == 1)
    said = [it.hear(2), it.hear(2)]
    [mourn] = [each for each in said if isinstance(each, messages.Mourn)]
    assert mourn.pid == worker.pid
    assert mourn.cause.startswith("killed by SIGKILL")
    [fork] = [each for each in said if isinstance(each, messages.Fork)]
    os.close(fork.channel)
    os.close(fork.stacks)
