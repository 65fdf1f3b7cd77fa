"""Without a pool (`max-workers = 0`): one process, which becomes the application's interpreter and serves.

It gets the first message of a zygote, through a channel that has no other end any more. No supervisor
watches over it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from stardust.config.environment import application_environment
from stardust.ipc import messages
from stardust.ipc.channel import Channel, pair
from stardust.ipc.scoreboard import Scoreboard
from stardust.listeners.listeners import Listener
from stardust.logs.log import Log
from stardust.settings.table import Config
from stardust.supervisor import processes
from stardust.supervisor.generation import Generation
from stardust.systemd.notify import Notifier


def serve(config: Config, listeners: Sequence[Listener], notifier: Notifier, log: Log) -> NoReturn:
    """Raises OSError if the interpreter, or the access log, cannot be had."""
    if config.idle_timeout:
        log.warning(f"idle-timeout = {config.idle_timeout:g} has no effect with max-workers = 0")
    if config.request_timeout:
        log.warning(f"request-timeout = {config.request_timeout:g} has no effect with max-workers = 0")
    generation = Generation(1, config, [*listeners])
    generation.open_request_log(log)
    ours, theirs = pair()
    message = generation.first_message(Scoreboard.create(), log.sink, ())
    Channel(ours, messages.SUPERVISOR_OF_ZYGOTE).send(message)
    environ = application_environment(config, os.environ)
    for each in generation.listeners:
        print(f"stardust: one process, no workers: {each.name} {each.address}", file=sys.stderr)
    notifier.ready("One process, no workers")
    processes.replace_by_server(generation.interpreter, environ, theirs)
