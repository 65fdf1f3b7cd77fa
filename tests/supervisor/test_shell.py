"""The supervisor's loop with a zygote that the test plays: real channels, pidfds and scoreboard.

Where the supervisor would start an interpreter, a process that only sleeps is started, and the test speaks at
the other end of its channel; a worker is such a sleeper too. Whole servers are for tests/live.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from stardust.base import system
from stardust.base.errors import Exit
from stardust.config import reading as configs
from stardust.ipc.channel import Channel, Message, pair
from stardust.listeners import listeners as listener
from stardust.logs import events
from stardust.logs.log import Log, Sink
from stardust.supervisor import processes, vocabulary
from stardust.supervisor.custody import Custody
from stardust.supervisor.deaths import Kills
from stardust.supervisor.shell import Supervisor, Surroundings
from stardust.supervisor.state import Phase
from stardust.systemd.notify import Notifier
from tests.descriptors import open_descriptors
from tests.journald import Journal

PATIENCE = 30.0  # s


def sleeper() -> int:
    """The process id of a process that does nothing until it is killed, not even write its stacks."""
    command = [sys.executable, "-I", "-S", "-c", "import signal; signal.pause()"]
    return os.posix_spawn(sys.executable, command, {}, setsigmask=[system.STACKS_SIGNAL])


class FakeWorker:
    """A worker's side: its end of the channel, and a process to be killed."""

    def __init__(self, order: Message) -> None:
        self.number: int = order.content["worker"]
        self.slot: int = order.content["slot"]
        self.channel = Channel.adopt(order.descriptors[0], blocking=True)
        self.channel.socket.settimeout(PATIENCE)
        self.stacks = order.descriptors[1]
        self.pid = sleeper()


class Stage:
    """A supervisor, and the zygotes that it believes to have started."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, **values: Any) -> None:
        (directory / "stardust.toml").write_text(
            "\n".join(
                [
                    'app = "shop"',
                    f"listen.http.address = '{directory / 'http.sock'}'",
                    *(f"{name.replace('_', '-')} = {value!r}" for name, value in values.items()),
                ]
            )
        )
        self.log = directory / "log"
        self.zygotes: list[Channel] = []
        self.workers: dict[int, FakeWorker] = {}
        monkeypatch.setattr(processes, "start_zygote", self._start_zygote)
        arguments = configs.parse_arguments(["--config", str(directory / "stardust.toml")])
        self.log_descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.supervisor = Supervisor(
            Surroundings(
                arguments=arguments,
                config=configs.read(arguments, {}).config,
                inherited=[],
                environ={},
                notifier=Notifier(""),
                watchdog=None,
                control=None,
                log=Log("supervisor", "debug", descriptor=self.log_descriptor),
            )
        )

    def _start_zygote(self, interpreter: str, environ: Mapping[str, str]) -> tuple[int, Channel]:
        ours, theirs = pair()
        self.zygotes.append(Channel(theirs, blocking=True))
        theirs.settimeout(PATIENCE)
        return sleeper(), Channel(ours)

    def settle(self) -> None:
        self.supervisor._settle()

    def until(self, true: Callable[[], bool]) -> None:
        """Let the supervisor turn until `true()`. SIGCHLD is not wired here: it looks for ended children."""
        deadline = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < deadline, self.log.read_text()
            self.supervisor._wait(time.monotonic() + 0.05)
            self.supervisor._reap()
            self.settle()

    def hear(self, generation: int = 1) -> Message:
        message = self.zygotes[generation - 1].receive()
        assert message is not None
        return message

    def boot(self) -> None:
        """Generation 1 serves."""
        self.settle()
        for descriptor in self.hear().descriptors:
            os.close(descriptor)
        self.zygotes[0].send("loaded")
        wanted = self.supervisor.given.config.max_workers
        self.until(lambda: len(self.supervisor.children) == wanted)
        for _ in range(wanted):
            self.start_worker()
        self.until(lambda: self.supervisor.state.serving == 1)

    def start_worker(self, generation: int = 1) -> FakeWorker:
        order = self.hear(generation)
        assert order.kind == "fork"
        worker = self.workers[order.content["worker"]] = FakeWorker(order)
        self.zygotes[generation - 1].send("forked", {"worker": worker.number, "pid": worker.pid})
        worker.channel.send("ready")
        return worker

    def close(self) -> None:
        """Stop at once, whatever has happened, and leave nothing."""
        supervisor = self.supervisor
        supervisor.see(vocabulary.StopAsked(fast=True))
        self.settle()
        self.until(self._over)
        supervisor._close()
        for channel in [*self.zygotes, *(worker.channel for worker in self.workers.values())]:
            channel.close()
        for worker in self.workers.values():
            os.close(worker.stacks)
        supervisor.epoll.close()
        os.close(supervisor.scoreboard.descriptor)
        os.close(self.log_descriptor)

    def _over(self) -> bool:
        """A fake zygote cannot reap, for the sleepers are ours: they end with it."""
        for generation in self.supervisor.generations.values():
            if generation.pid:
                os.kill(generation.pid, signal.SIGKILL)
        return self.supervisor.exit is not None


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Stage]]:
    made: list[Stage] = []

    def make(**values: Any) -> Stage:
        made.append(Stage(tmp_path, monkeypatch, **{"max_workers": 2, "heartbeat_timeout": 0, **values}))
        return made[-1]

    yield make
    for each in made:
        each.close()


# --- the loop --------------------------------------------------------------------------------------------


def test_boot(stage: Callable[..., Stage]) -> None:
    it = stage()
    it.boot()
    assert {worker.phase for worker in it.supervisor.state.workers.values()} == {Phase.READY}
    assert it.supervisor.scoreboard.replaceable
    assert "generation 1 serves shop with 2 workers on http " in it.log.read_text()


def test_boot_that_fails(stage: Callable[..., Stage]) -> None:
    """The traceback is logged, and nothing more is started."""
    it = stage()
    it.settle()
    for descriptor in it.hear().descriptors:
        os.close(descriptor)
    it.zygotes[0].send("failed", {"reason": "ImportError: no shop", "detail": "Traceback: it is closed"})
    it.until(lambda: it.supervisor.exit is not None)
    assert it.supervisor.exit is Exit.APPLICATION
    assert "generation 1 failed: ImportError: no shop\n    Traceback: it is closed\n" in it.log.read_text()
    assert len(it.zygotes) == 1


def test_boot_that_finds_a_setting_wrong(stage: Callable[..., Stage]) -> None:
    """What only a zygote sees: certificates. It is a mistake of the configuration all the same."""
    it = stage()
    it.settle()
    for descriptor in it.hear().descriptors:
        os.close(descriptor)
    it.zygotes[0].send("misconfigured", {"reason": "ssl-key-file: k.pem: none"})
    it.until(lambda: it.supervisor.exit is not None)
    assert it.supervisor.exit is Exit.CONFIG
    assert "generation 1 failed: ssl-key-file: k.pem: none\n" in it.log.read_text()


def test_last_words_of_a_zygote_are_heard(stage: Callable[..., Stage]) -> None:
    """It said why and died: that it died is not the reason."""
    it = stage()
    it.settle()
    for descriptor in it.hear().descriptors:
        os.close(descriptor)
    it.zygotes[0].send("failed", {"reason": "ImportError: no shop", "detail": ""})
    pid = it.supervisor.generations[1].pid
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    it.supervisor._reap()
    assert it.supervisor.state.last is not None
    assert it.supervisor.state.last.reason == "ImportError: no shop"


def test_worker_that_ends_is_reaped_by_its_zygote(stage: Callable[..., Stage]) -> None:
    """The supervisor sees its end by the pidfd, and has its zygote ask how."""
    it = stage(main_process_delay=0.01)
    it.boot()
    worker = it.workers[1]
    os.kill(worker.pid, signal.SIGKILL)
    # Without `until`: the sleeper is a child of this process, and must be reaped by the zygote's word only.
    it.supervisor._wait(time.monotonic() + PATIENCE)
    assert it.hear() == Message("reap", {"worker": 1, "pid": worker.pid}, [])
    _, status = os.waitpid(worker.pid, 0)
    it.zygotes[0].send("exited", {"worker": 1, "status": status})
    it.until(lambda: 3 in it.supervisor.children)
    assert f"worker 1 (process {worker.pid}) ended: killed by SIGKILL" in it.log.read_text()
    it.start_worker()
    it.until(lambda: it.supervisor.state.workers[3].phase is Phase.READY)


@pytest.mark.parametrize(("wanted", "warned"), [(4096, False), (4097, True)])
def test_s11_a_backlog_that_the_kernel_cuts(
    stage: Callable[..., Stage],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wanted: int,
    warned: bool,
) -> None:
    (tmp_path / "somaxconn").write_text("4096\n")
    monkeypatch.setattr(listener, "SOMAXCONN_FILE", str(tmp_path / "somaxconn"))
    it = stage(backlog=wanted)
    it.settle()
    text = "warning: backlog = 4097, and the kernel keeps no more than 4096 connections waiting"
    assert (text in it.log.read_text()) is warned


def test_p2_fork_that_fails_is_logged_and_tried_again(stage: Callable[..., Stage]) -> None:
    it = stage(max_workers=1, main_process_delay=0.01)
    it.boot()
    it.workers[1].channel.send("leaving")
    it.until(lambda: 2 in it.supervisor.children)
    for descriptor in it.hear().descriptors:
        os.close(descriptor)
    it.zygotes[0].send("fork-failed", {"worker": 2, "reason": "Resource temporarily unavailable"})
    it.until(lambda: 3 in it.supervisor.children)
    assert "cannot fork worker 2: Resource temporarily unavailable" in it.log.read_text()
    it.start_worker()
    it.until(lambda: it.supervisor.state.workers[3].phase is Phase.READY)


def test_reload_retires_old_workers(stage: Callable[..., Stage]) -> None:
    it = stage(max_workers=1)
    it.boot()
    it.supervisor.see(vocabulary.ReloadAsked())
    it.settle()
    for descriptor in it.hear(2).descriptors:
        os.close(descriptor)
    it.zygotes[1].send("loaded")
    it.until(lambda: 2 in it.supervisor.children)
    it.start_worker(generation=2)
    it.until(lambda: it.supervisor.state.serving == 2)
    assert it.workers[1].channel.receive() == Message("retire", {}, [])
    # The order may be read late; this is read before each accept.
    assert it.supervisor.scoreboard.slot(0).dismissed
    it.workers[1].channel.send("leaving")
    it.until(lambda: bool(select.select([it.supervisor.link], [], [], 0)[0]))
    assert it.supervisor.link.take() is None  # a nudge


@pytest.mark.parametrize("data", [b"nonsense", b'{"kind": "paused", "pause": null}'], ids=["text", "content"])
def test_a_worker_that_talks_nonsense_is_killed(stage: Callable[..., Stage], data: bytes) -> None:
    it = stage(max_workers=2)
    it.boot()
    it.workers[1].channel.socket.send(data)
    it.until(lambda: 1 not in it.supervisor.children)
    assert "killing worker 1" in it.log.read_text()
    it.until(lambda: len(it.supervisor.children) == 2)


def test_a_zygote_that_talks_nonsense_is_replaced(stage: Callable[..., Stage]) -> None:
    it = stage(max_workers=1)
    it.boot()
    it.zygotes[0].socket.send(b"nonsense")
    it.until(lambda: len(it.zygotes) == 2)
    assert "the zygote of generation 1 has sent a message that is none" in it.log.read_text()


def test_descriptors_that_nobody_asked_for_are_closed(stage: Callable[..., Stage]) -> None:
    it = stage(max_workers=1)
    it.boot()
    before = open_descriptors()
    reader, writer = os.pipe()
    it.workers[1].channel.send("leaving", {}, [writer] * 100)
    os.close(writer)
    assert select.select([reader], [], [], 0)[0] == []
    it.until(lambda: bool(select.select([reader], [], [], 0)[0]))  # the end: nobody has it
    os.close(reader)
    assert len(open_descriptors() - before) < 10


@pytest.mark.parametrize("systemd", ["takes them at last", "never takes them"])
def test_connections_to_be_stored_hold_the_end_up(
    stage: Callable[..., Stage], tmp_path: Path, systemd: str
) -> None:
    supervisor = stage().supervisor
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as manager:
        manager.bind(str(tmp_path / "notify"))
        other = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        with other, contextlib.suppress(BlockingIOError):
            while other.sendto(b"X_OTHER=1", manager.getsockname()):
                pass
        supervisor.given.notifier = Notifier(manager.getsockname())
        supervisor.custody.close()
        supervisor.custody = Custody(supervisor.given.notifier, [], 10, supervisor.log)
        supervisor.custody.open()
        supervisor.see(vocabulary.StopAsked())
        supervisor._settle()
        assert supervisor.exit is Exit.OK
        assert not supervisor._may_go()
        if systemd == "never takes them":
            supervisor.now = supervisor.gone_by
        else:
            with contextlib.suppress(BlockingIOError):
                while manager.recv(100):
                    pass
            supervisor._settle()
        assert supervisor._may_go()
    supervisor.given.notifier.close()


def test_reload_of_a_broken_file_starts_nothing(stage: Callable[..., Stage], tmp_path: Path) -> None:
    it = stage(max_workers=1)
    it.boot()
    (tmp_path / "stardust.toml").write_text('app = "shop"\nmax-workers = "many"\n')
    it.supervisor.see(vocabulary.ReloadAsked())
    it.settle()
    assert len(it.zygotes) == 1
    assert it.supervisor.state.serving == 1
    assert list(it.supervisor.generations) == [1]
    log = it.log.read_text()
    assert f"generation 2 failed: {tmp_path / 'stardust.toml'}:2: max-workers" in log
    assert "; generation 1 goes on" in log


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
    it.until(lambda: 1 not in it.supervisor.children)
    [line] = path.read_text().splitlines()
    assert all(
        part in line for part in ("GET", "/slow?x=1", "192.0.2.1", "killed by SIGKILL", str(worker.pid))
    )


def test_idle_timeout_without_systemd_is_warned_of(stage: Callable[..., Stage], tmp_path: Path) -> None:
    it = stage(idle_timeout=0.01)
    it.boot()
    assert it.supervisor.state.generations[1].policy.idle_timeout == 0
    where = f"systemd does not listen on http {tmp_path / 'http.sock'}"
    assert it.log.read_text().count(f"warning: idle-timeout = 0.01 has no effect: {where}") == 1


def test_logs_are_reopened_by_everybody(stage: Callable[..., Stage], tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    it = stage(max_workers=1, access_log=str(path))
    it.boot()
    path.rename(tmp_path / "access.log.1")
    it.supervisor._reopen_logs()
    for channel in (it.zygotes[0], it.workers[1].channel):
        message = channel.receive()
        assert message is not None
        [descriptor] = message.descriptors
        assert message.kind == "reopen"
        assert os.path.samestat(os.fstat(descriptor), path.stat())
        os.close(descriptor)


def test_log_that_cannot_be_reopened_goes_on_in_the_old_file(
    stage: Callable[..., Stage], tmp_path: Path
) -> None:
    (tmp_path / "logs").mkdir()
    it = stage(max_workers=1, access_log=str(tmp_path / "logs" / "access.log"))
    it.boot()
    (tmp_path / "logs").rename(tmp_path / "elsewhere")
    it.supervisor._reopen_logs()
    assert f"cannot reopen {tmp_path / 'logs' / 'access.log'}: No such file" in it.log.read_text()


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
    it.until(lambda: 1 not in it.supervisor.children)
    assert sent == [system.STACKS_SIGNAL, signal.SIGKILL]
    log = it.log.read_text()
    assert (
        f"error: killing worker 1 (process {it.workers[1].pid}), stuck: request-timeout\n"
        "    Thread 0x1:\n      File shop.py\n"
    ) in log


class TestEvents:
    """What is told of each, as fields: people read the message, programs these."""

    @pytest.fixture
    def journald(self, tmp_path: Path) -> Iterator[Journal]:
        journald = Journal(tmp_path / "journal")
        yield journald
        journald.close()

    def booted(self, stage: Callable[..., Stage], journald: Journal) -> Stage:
        it = stage(max_workers=1, main_process_delay=0.01)
        it.supervisor.log = Log("supervisor", sink=Sink(journald.path))
        it.boot()
        return it

    def test_started(self, stage: Callable[..., Stage], journald: Journal) -> None:
        self.booted(stage, journald)
        assert journald.expect("MESSAGE_ID", events.STARTED.id)["STARDUST_GENERATION"] == "1"

    def test_reload_failed(self, stage: Callable[..., Stage], journald: Journal, tmp_path: Path) -> None:
        it = self.booted(stage, journald)
        (tmp_path / "stardust.toml").write_text("max-workers = 'many'")
        it.supervisor.see(vocabulary.ReloadAsked())
        it.settle()
        assert journald.expect("MESSAGE_ID", events.RELOAD_FAILED.id)["STARDUST_GENERATION"] == "2"

    @pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
    def test_worker_died(self, stage: Callable[..., Stage], journald: Journal, busy: bool) -> None:
        it = self.booted(stage, journald)
        if busy:
            it.supervisor.scoreboard.slot(0).busy(1, time.monotonic(), 0.0, b"192.0.2.1 GET /a HTTP/1.1")
        os.kill(it.workers[1].pid, signal.SIGSEGV)
        it.until(lambda: 1 not in it.supervisor.children)
        died = journald.expect("MESSAGE_ID", events.WORKER_DIED.id)
        assert (died["STARDUST_WORKER"], died["STARDUST_GENERATION"]) == ("1", "1")
        assert died.get("STARDUST_REQUEST") == ("GET /a HTTP/1.1" if busy else None)

    def test_out_of_memory(self, stage: Callable[..., Stage], journald: Journal, tmp_path: Path) -> None:
        it = self.booted(stage, journald)
        counts = tmp_path / "memory.events"
        counts.write_text("oom_kill 1\n")
        it.supervisor.kills = Kills(counts)
        counts.write_text("oom_kill 2\n")
        os.kill(it.workers[1].pid, signal.SIGKILL)
        it.until(lambda: 1 not in it.supervisor.children)
        assert journald.expect("MESSAGE_ID", events.OUT_OF_MEMORY.id)["STARDUST_WORKER"] == "1"

    def test_killed_by_us(self, stage: Callable[..., Stage], journald: Journal) -> None:
        """The deed is an event, the death that follows from it is none."""
        it = self.booted(stage, journald)
        it.supervisor.scoreboard.slot(0).busy(1, time.monotonic(), 0.0, b"192.0.2.1 GET /a HTTP/1.1")
        it.supervisor.see(vocabulary.Overdue(1, "request-timeout"))
        it.until(lambda: 1 not in it.supervisor.children)
        timed_out = journald.expect("MESSAGE_ID", events.WORKER_TIMED_OUT.id)
        assert (timed_out["STARDUST_WORKER"], timed_out["STARDUST_REQUEST"]) == ("1", "GET /a HTTP/1.1")
        assert not [each for each in journald.read() if each.get("MESSAGE_ID") == events.WORKER_DIED.id]


def test_descriptor_that_takes_the_number_of_a_closed_one_is_not_taken_for_it(
    stage: Callable[..., Stage],
) -> None:
    """Two are ready in one round; the one heard first closes the other, and another takes its number."""
    supervisor = stage().supervisor
    heard: list[str] = []
    ends = [pair() for _ in range(2)]

    def hear(other: int) -> None:
        heard.append("first" if not heard else "stranger")
        supervisor.unwatch(other)
        supervisor.watch(other, partial(heard.append, "newcomer"))

    for mine, other in (ends, ends[::-1]):
        mine[1].send(b"x")
        supervisor.watch(mine[0].fileno(), partial(hear, other[0].fileno()))
    supervisor._wait(math.inf)
    assert heard == ["first"]
    for ours, theirs in ends:
        with ours, theirs:
            supervisor.unwatch(ours.fileno())
