"""`stardust --check-config --load`: what a start would say about the application, without one.

A zygote is started as a server would start it, but for listeners, which a running server may have. It loads
the application, also with `preload = false`, and ends.
"""

from __future__ import annotations

import select
import signal
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from stardust.base import process, system
from stardust.base.errors import AppLoadError, ChannelError, ConfigError
from stardust.base.records import replace
from stardust.config.environment import application_environment
from stardust.ipc import messages
from stardust.ipc.handoff import Link
from stardust.ipc.scoreboard import Scoreboard
from stardust.logs.log import Log
from stardust.settings.table import Config
from stardust.supervisor import processes, report
from stardust.supervisor.generation import Generation
from stardust.supervisor.processes import ZygoteChannel


class Verdict(NamedTuple):
    """`preloaded`: workers would be forked from a process that has the application, in spite of what it
    `holds` if it does."""

    preloaded: bool
    holds: Sequence[str]

    def told(self) -> str:
        if not self.holds:
            return (
                ""
                if self.preloaded
                else "each worker loads the application for itself, as preload = false says"
            )
        verdict = (
            "it is preloaded all the same, as preload = true says"
            if self.preloaded
            else ("each worker loads it for itself")
        )
        return (
            "after loading, the application holds what does not survive a fork:\n"
            f"{report.listed(self.holds)}\n{verdict}"
        )


def load(config: Config, environ: Mapping[str, str], log: Log) -> Verdict:
    """Raises AppLoadError and ConfigError, and OSError if there is no such interpreter."""
    forks = bool(config.preload) and config.max_workers > 0
    # A zygote that is to load nothing would not find out.
    generation = Generation(1, config if forks else replace(config, preload=True), [])
    pid, channel = processes.start_zygote(generation.interpreter, application_environment(config, environ))
    scoreboard, links = Scoreboard.create(), (Link.create(), Link.create())
    try:
        channel.send(generation.first_message(scoreboard, log.sink, links))
        message = _answer(channel, config.boot_timeout)
    finally:
        system.kill(-pid, signal.SIGKILL)  # with what the application has started
        _, status = system.waitpid(pid, 0)
        channel.close()
        for link in links:
            link.close()
        system.close(scoreboard.descriptor)
    match message:
        case messages.Loaded(holds):
            return Verdict(forks or not config.max_workers, holds if forks else ())
        case messages.Unforkable(holds):
            return Verdict(False, holds)
        case messages.Failed(reason, detail):
            raise AppLoadError(reason, detail)
        case messages.Misconfigured(reason):
            raise ConfigError(reason)
        case _:
            raise AppLoadError(f"the process that loads the application ended: {process.described(status)}")


def _answer(channel: ZygoteChannel, patience: float) -> messages.FromZygote | None:
    """The first message; None if it ends without one."""
    poll = system.poll()
    poll.register(channel.fileno(), select.POLLIN)
    if not poll.poll(patience * 1000):
        raise AppLoadError(f"the application did not load within boot-timeout = {patience:g} s")
    try:
        return processes.next_message(channel)
    except ChannelError as fault:
        raise AppLoadError(f"the process that loads the application has sent {fault}") from None
