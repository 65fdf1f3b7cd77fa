"""Whom a worker obeys: the supervisor, and SIGTERM.

It leaves when the supervisor says so (retire, stop), when SIGTERM comes, when it has reached its limit of
requests (parting.py), or when the supervisor is gone: end of file on the channel.

Runs in the application's interpreter too.
"""

from __future__ import annotations

from typing import Any, Optional

from stardust.base import signals, system
from stardust.base.errors import assert_never
from stardust.base.pristine import signal
from stardust.base.signals import Wakeup
from stardust.ipc import messages
from stardust.ipc.channel import Channel
from stardust.logs.logfile import LogFile
from stardust.worker.loop import Loop

SupervisorChannel = Channel[messages.ToWorker, messages.FromWorker]


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
            # The supervisor is gone: no worker will follow this one, and nothing would stop it.
            self.loop.unwatch(self.channel.fileno())
            self.loop.parting.abandon()
        elif isinstance(message, messages.Ping):
            self.loop.beat()
        elif isinstance(message, messages.Pause):
            self._pause(message.pause)
        elif isinstance(message, messages.Resume):
            self.loop.parting.resume()
        elif isinstance(message, messages.Retire):
            self.loop.parting.leave()
        elif isinstance(message, messages.Stop):
            self.loop.parting.leave(final=True)
        elif isinstance(message, messages.Reopen):
            self._reopen(message.access_log)
        else:
            assert_never(message)

    def _pause(self, number: int) -> None:
        """Stop accepting, then count: so what is not counted was not accepted."""
        self.loop.parting.pause()
        book = self.loop.book
        self.channel.send(messages.Paused(number, len(book.connections), book.empty_since))

    def _reopen(self, descriptor: int) -> None:
        if self.file is None:
            system.close(descriptor)
        else:
            self.file.reopened(descriptor)


def _once(number: int, frame: Any) -> None:
    """The first Ctrl-C has the loop leave; the next one ends the process, wherever the application is."""
    signal.signal(number, signal.SIG_DFL)


def watch_termination(loop: Loop, *, alone: bool) -> Wakeup:
    """SIGTERM: leave, `alone` or to be followed. The handler only wakes the loop, which does the rest."""
    wakeup = Wakeup((signal.SIGTERM, signal.SIGINT) if alone else (signal.SIGTERM,))
    if alone:
        signals.handle(signal.SIGINT, _once)

    def react() -> None:
        if wakeup.take():
            loop.parting.leave(final=alone)

    loop.watch(wakeup.fileno(), react)
    return wakeup
