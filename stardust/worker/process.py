"""A worker as a process: what it drops and sets up after the fork, its talk with the supervisor, its end.

The order after the fork: names and signals first, then the application (if it was not preloaded), then
"ready", then the loop. The worker leaves when the supervisor says so ("retire", "stop"), when SIGTERM
comes, when it has reached its limit of requests, or when the supervisor is gone: end of file on the channel.

Runs in the application's interpreter too.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Optional

from stardust.base import system
from stardust.base.errors import AppLoadError, Exit, assert_never
from stardust.base.signals import Wakeup
from stardust.ipc import messages
from stardust.ipc.channel import Channel
from stardust.ipc.handoff import Link
from stardust.ipc.scoreboard import Scoreboard
from stardust.logs import accesslog
from stardust.logs.log import Log
from stardust.logs.logfile import LogFile
from stardust.settings.table import Config
from stardust.worker import complaints
from stardust.worker.loop import AccessLog, Door, Loop
from stardust.zygote.load import load

# Sent to a terminal's whole process group, or meant for the supervisor: no business of a worker.
_IGNORED = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1)


class Inheritance(NamedTuple):
    """What every worker of a generation gets from its zygote. `app` is None if each worker loads its own;
    `log_descriptor` is that of the access log, None if there is none; `link` leads to its siblings, `shelf`
    to the next start of the server, None if it is alone."""

    generation: int
    config: Config
    doors: Sequence[Door]
    scoreboard: Scoreboard
    link: Optional[Link]
    shelf: Optional[Link]
    log: Log
    log_descriptor: Optional[int]
    app: Optional[Callable[..., Any]]


SupervisorChannel = Channel[messages.ToWorker, messages.FromWorker]


def run(
    heritage: Inheritance,
    number: int,
    slot_number: int,
    channel: Optional[SupervisorChannel],
    stacks: int = 2,
) -> Exit:
    """Be worker `number` until it is time to leave. `channel` is None if there is no supervisor; `stacks` is
    the descriptor that the stacks of a stuck worker are written to.

    Returns the process's exit code; what went wrong has been told to the supervisor, or logged.
    """
    config, scoreboard = heritage.config, heritage.scoreboard
    log = heritage.log.named(f"worker {number}", {"STARDUST_WORKER": number})
    title = f"stardust: worker {number}, generation {heritage.generation}: {config.app}"
    system.name_process(f"stardust:w{number}", title)
    slot = scoreboard.slot(slot_number)
    slot.born(os.getpid(), heritage.generation, time.monotonic())
    faulthandler.register(system.STACKS_SIGNAL, file=stacks, all_threads=True, chain=False)
    for number_ignored in _IGNORED:
        signal.signal(number_ignored, signal.SIG_IGN)

    app = heritage.app
    if app is None:
        try:
            app = load(config.app)
        except AppLoadError as failure:
            if channel is None:
                log.error(f"{failure.reason}\n{failure.detail}")
            else:
                channel.send(messages.Failed(failure.reason, messages.clipped(failure.detail)))
            return Exit.APPLICATION

    file = None if heritage.log_descriptor is None else LogFile(heritage.log_descriptor, log)
    loop = Loop(
        config,
        app,
        heritage.doors,
        log,
        slot=slot,
        access_log=None if file is None else AccessLog(file, accesslog.formatter(config.access_log_format)),
        link=heritage.link,
        shelf=heritage.shelf,
        served=lambda since: scoreboard.served(since, slot_number),
        replaceable=lambda: channel is None or scoreboard.replaceable,
        stopping=lambda: scoreboard.stopping,
        storing=lambda: scoreboard.storing,
        announce=lambda message: channel is not None and channel.send(message),
        report=complaints.recorder(log) if log.sink.journal else None,
    )
    _watch_termination(loop, alone=channel is None)
    if channel is not None:
        orders = Orders(channel, loop, file)
        loop.watch(channel.fileno(), orders.take)
        channel.send(messages.Ready())
    if loop.guard is not None:
        loop.guard.start()
    loop.run()
    if file is not None:
        file.flush()
    return Exit.OK


class Orders:
    """What the supervisor tells a worker."""

    def __init__(self, channel: SupervisorChannel, loop: Loop, file: Optional[LogFile]) -> None:
        self.channel = channel
        self.loop = loop
        self.file = file

    def take(self) -> None:
        try:
            message = self.channel.receive()
        except BlockingIOError:
            return
        if message is None:
            # The supervisor is gone. Nobody will follow this worker, and nobody would stop it.
            self.loop.unwatch(self.channel.fileno())
            self.loop.abandon()
        elif isinstance(message, messages.Ping):
            self.loop.beat()
        elif isinstance(message, messages.Pause):
            self._pause(message.pause)
        elif isinstance(message, messages.Resume):
            self.loop.resume()
        elif isinstance(message, messages.Retire):
            self.loop.leave()
        elif isinstance(message, messages.Stop):
            self.loop.leave(final=True)
        elif isinstance(message, messages.Reopen):
            self._reopen(message.access_log)
        else:
            assert_never(message)

    def _pause(self, number: int) -> None:
        """Stop accepting first, count then: what this does not tell of, nobody has accepted."""
        loop = self.loop
        loop.pause()
        self.channel.send(messages.Paused(number, len(loop.connections), loop.empty_since))

    def _reopen(self, descriptor: int) -> None:
        if self.file is None:
            os.close(descriptor)
        else:
            self.file.reopened(descriptor)


def _watch_termination(loop: Loop, *, alone: bool) -> None:
    """SIGTERM: leave, `alone` or to be followed. The handler only wakes the loop, which does the rest."""
    wakeup = Wakeup((signal.SIGTERM,))
    loop.watch(wakeup.fileno(), lambda: loop.leave(final=alone) if wakeup.take() else None)
