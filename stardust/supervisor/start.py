"""The way in: take what systemd hands over, scrub the environment of it, and serve, with a pool or alone."""

from __future__ import annotations

import faulthandler
import os

from stardust.base import process
from stardust.config.arguments import Arguments
from stardust.control import address as control_address
from stardust.control.server import Control
from stardust.listeners.keeper import Keeper
from stardust.logs.log import Log, find_sink, instance
from stardust.settings.table import Config
from stardust.supervisor import alone
from stardust.supervisor.custody import Custody
from stardust.supervisor.host import Surroundings
from stardust.supervisor.shell import Supervisor
from stardust.systemd import activation, store
from stardust.systemd.notify import Notifier, watchdog_interval


def run(arguments: Arguments, config: Config, notifier: Notifier) -> int:
    """Serve until the server is to stop; the exit code. Raises ActivationError, ConfigError, ListenError."""
    faulthandler.enable()  # systemd's watchdog ends a stuck supervisor with SIGABRT: have its stacks logged
    limit = process.raise_descriptor_limit()
    pid = os.getpid()
    watchdog = watchdog_interval(os.environ, pid)
    handed = activation.inherited(os.environ, pid)
    stored = activation.stored(handed)
    parked = activation.parked(handed)
    own = {*stored, *parked}
    inherited = [each for each in handed if each not in own]
    log = Log("supervisor", config.log_level, sink=find_sink(os.environ), fields=instance(config.source))
    control_path = control_address.default(config.source, config.control_socket, os.environ, os.geteuid())
    activation.scrub(os.environ)
    if config.max_workers == 0:
        custody = Custody(notifier, parked, 0, log)
        custody.take_up([], 0.0)
        custody.close()
        alone.serve(config, Keeper(notifier, stored).open(config, inherited, []), notifier, log)
    given = Surroundings(
        arguments=arguments,
        config=config,
        inherited=inherited,
        environ=dict(os.environ),
        notifier=notifier,
        watchdog=watchdog,
        control=Control.bind(control_path) if control_path else None,
        log=log,
        stored=stored,
        parked=parked,
        room=store.room(limit),
    )
    if notifier.fault:
        log.warning(notifier.fault)
    return Supervisor(given).run()
