"""A supervisor with a zygote that the test plays: real channels, pidfds and scoreboard.

Where the supervisor would start an interpreter, a process that only sleeps is started, and the test speaks at
the other end of its channel; a worker is such a sleeper too. Whole servers are for tests/live.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from stardust.base import process
from stardust.config import reading as configs
from stardust.config.arguments import parse_arguments
from stardust.ipc import messages
from stardust.ipc.channel import Channel, pair
from stardust.logs.log import Log, Sink
from stardust.supervisor import processes, vocabulary
from stardust.supervisor.host import Surroundings
from stardust.supervisor.shell import Supervisor
from stardust.systemd.notify import Notifier
from tests.journald import Journal

PATIENCE = 30.0  # s


def sleeper() -> int:
    """The process id of a process that does nothing until it is killed, not even write its stacks."""
    command = [sys.executable, "-I", "-S", "-c", "import signal; signal.pause()"]
    return os.posix_spawn(sys.executable, command, {}, setsigmask=[process.STACKS_SIGNAL])


def end(pid: int) -> None:
    """Kill a child of ours and wait for it, if nobody has yet."""
    try:
        if os.waitpid(pid, os.WNOHANG) == (0, 0):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    except ChildProcessError:
        pass


class FakeWorker:
    """A worker's side: its end of the channel, and a process to be killed."""

    def __init__(self, order: messages.Fork) -> None:
        self.number = order.worker
        self.slot = order.slot
        self.channel = Channel.adopt(order.channel, messages.WORKER, blocking=True)
        self.channel.socket.settimeout(PATIENCE)
        self.stacks = order.stacks
        self.pid = sleeper()


class Stage:
    """A supervisor, and the zygotes that it believes to have started."""

    def __init__(
        self,
        directory: Path,
        monkeypatch: pytest.MonkeyPatch,
        *,
        notify: str = "",
        watchdog: float | None = None,
        **values: Any,
    ) -> None:
        """`notify`: where systemd listens; `watchdog`: as in Surroundings; `values`: settings."""
        (directory / "stardust.toml").write_text(
            "\n".join(
                [
                    'app = "shop"',
                    f"listen.http.address = '{directory / 'http.sock'}'",
                    *(f"{name.replace('_', '-')} = {json.dumps(value)}" for name, value in values.items()),
                ]
            )
        )
        self.log = directory / "log"
        self.zygotes: list[Channel[messages.ToZygote, messages.FromZygote]] = []
        self.workers: dict[int, FakeWorker] = {}
        monkeypatch.setattr(processes, "start_zygote", self._start_zygote)
        arguments = parse_arguments(["--config", str(directory / "stardust.toml")])
        self.log_descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.config = configs.read(arguments, {}).config
        self.supervisor = Supervisor(
            Surroundings(
                arguments=arguments,
                config=self.config,
                inherited=[],
                environ={},
                notifier=Notifier(notify),
                watchdog=watchdog,
                control=None,
                log=Log("supervisor", "debug", descriptor=self.log_descriptor),
                room=10,
            )
        )

    def _start_zygote(
        self, interpreter: str, environ: Mapping[str, str]
    ) -> tuple[int, processes.ZygoteChannel]:
        ours, theirs = pair()
        self.zygotes.append(Channel(theirs, messages.ZYGOTE, blocking=True))
        theirs.settimeout(PATIENCE)
        return sleeper(), Channel(ours, messages.SUPERVISOR_OF_ZYGOTE)

    def settle(self) -> None:
        """The books of processes agree with the state, whatever has happened."""
        supervisor = self.supervisor
        supervisor.settle()
        assert supervisor.children.book.keys() == supervisor.state.workers.keys()
        assert supervisor.generations.book.keys() <= supervisor.state.generations.keys()

    def until(self, true: Callable[[], bool]) -> None:
        """Let the supervisor turn until `true()`. SIGCHLD is not wired here: it looks for ended children."""
        deadline = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < deadline, self.log.read_text()
            self.supervisor.wait(time.monotonic() + 0.05)
            self.supervisor.zygotes.reap()
            self.settle()

    def hear(self, generation: int = 1) -> messages.ToZygote:
        message = self.zygotes[generation - 1].receive()
        assert message is not None
        return message

    def briefed(self, generation: int = 1) -> None:
        """It was told what it is first, and needs none of it."""
        first = self.hear(generation)
        assert isinstance(first, messages.Generation)
        for descriptor in messages.encode(first)[1]:
            os.close(descriptor)

    def boot(self) -> None:
        """Generation 1 serves."""
        self.settle()
        self.briefed()
        self.zygotes[0].send(messages.Loaded())
        wanted = self.config.max_workers
        self.until(lambda: len(self.supervisor.children.book) == wanted)
        for _ in range(wanted):
            self.start_worker()
        self.until(lambda: self.supervisor.state.serving == 1)

    def start_worker(self, generation: int = 1) -> FakeWorker:
        order = self.hear(generation)
        assert isinstance(order, messages.Fork)
        worker = self.workers[order.worker] = FakeWorker(order)
        self.supervisor.scoreboard.slot(worker.slot).born(worker.pid, generation, time.monotonic())
        self.zygotes[generation - 1].send(messages.Forked(worker.number, worker.pid))
        worker.channel.send(messages.Ready())
        return worker

    def close(self) -> None:
        """Stop at once, whatever has happened, and leave nothing."""
        supervisor = self.supervisor
        supervisor.see(vocabulary.StopAsked(fast=True))
        self.settle()
        self.until(self._over)
        supervisor.close()
        for zygote in self.zygotes:
            zygote.close()
        for worker in self.workers.values():
            worker.channel.close()
            os.close(worker.stacks)
            end(worker.pid)
        supervisor.notifier.close()
        os.close(supervisor.scoreboard.descriptor)
        os.close(self.log_descriptor)

    def _over(self) -> bool:
        """A fake zygote cannot reap, for the sleepers are ours: they end with it."""
        for generation in self.supervisor.generations.book.values():
            if generation.pid:
                os.kill(generation.pid, signal.SIGKILL)
        return self.supervisor.exit is not None


NONSENSE = {
    "text": b"nonsense",
    "content": b'{"kind": "Paused", "pause": null}',
    "missing": b'{"kind": "Paused"}',
    "surplus": b'{"kind": "Ready", "surplus": 1}',
    "unknown": b'{"kind": "redy"}',
    "direction": b'{"kind": "Ping"}',
}


def booted(stage: Callable[..., Stage], journald: Journal) -> Stage:
    """One worker serves, and what is logged goes to a journal."""
    it = stage(max_workers=1, main_process_delay=0.01)
    it.supervisor.log = Log("supervisor", sink=Sink(journald.path))
    it.boot()
    return it
