"""The command `stardust`: argv → settings → run, check or print; an error is a text and an exit code."""

from __future__ import annotations

import faulthandler
import importlib
import os
import sys
from collections.abc import Sequence

from stardust.base import system
from stardust.base.errors import ConfigError, Exit, StardustError
from stardust.config.arguments import Action, Arguments, parse_arguments
from stardust.config.environment import application_environment
from stardust.config.origins import Loaded
from stardust.config.printing import printed
from stardust.config.reading import read
from stardust.control import address as control_address
from stardust.control.server import Control
from stardust.ipc import messages
from stardust.ipc.channel import Channel, pair
from stardust.ipc.scoreboard import Scoreboard
from stardust.listeners.keeper import Keeper
from stardust.listeners.listeners import Listener
from stardust.logs.log import Log, find_sink, instance
from stardust.settings.table import Config
from stardust.supervisor import processes
from stardust.supervisor.custody import Custody
from stardust.supervisor.generation import Generation
from stardust.supervisor.shell import Supervisor, Surroundings
from stardust.systemd import activation, store
from stardust.systemd.notify import Notifier, watchdog_interval


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's own); returns the exit code."""
    source = ""
    notifier = Notifier.from_environ(os.environ)
    try:
        arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
        source = arguments.file or ""
        loaded = read(arguments, os.environ)
        match arguments.action:
            case Action.PRINT:
                sys.stdout.write(printed(loaded))
                return Exit.OK
            case Action.CHECK:
                _check_certificates(loaded)
                print(f"stardust: {arguments.file or 'the command line'}: fine")
                return Exit.OK
            case Action.RUN:
                return _run(arguments, loaded.config, notifier)
    except StardustError as error:
        _complain(str(error), source)
        notifier.status(f"could not start: {error}")
        return error.exit


def _check_certificates(loaded: Loaded) -> None:
    """Find what is wrong inside of the files, as a zygote would; those that are missing, or open to others,
    were found before. Raises ConfigError."""
    if not loaded.config.ssl_cert_file:
        return
    # Not above: `ssl` costs 5 MiB, and the supervisor has no use for it.
    tls = importlib.import_module("stardust.tls.identities")
    try:
        warnings = tls.Identities(loaded.config).warnings()
    except ConfigError as error:
        raise loaded.origin(error.key).error(error.reason) from None
    for warning in warnings:
        print(f"stardust: warning: {warning}", file=sys.stderr)


def _complain(text: str, source: str) -> None:
    """Say why nothing is run: to the journal if it listens, else to whoever typed the command."""
    sink = find_sink(os.environ)
    if sink.journal:
        Log("supervisor", sink=sink, fields=instance(source)).error(text)
        return
    for line in text.splitlines():
        print(f"stardust: {line}", file=sys.stderr)


def _run(arguments: Arguments, config: Config, notifier: Notifier) -> int:
    """Take what systemd hands over, scrub the environment of it, and serve."""
    faulthandler.enable()  # systemd's watchdog ends a stuck supervisor with SIGABRT: have its stacks logged
    limit = system.raise_descriptor_limit()
    pid = os.getpid()
    watchdog = watchdog_interval(os.environ, pid)
    handed = activation.inherited(os.environ, pid)
    stored = activation.stored(handed)
    left = activation.left(handed)
    own = {*stored, *left}
    inherited = [each for each in handed if each not in own]
    sink = find_sink(os.environ)
    log = Log("supervisor", config.log_level, sink=sink, fields=instance(config.source))
    control_path = control_address.default(config.source, config.control_socket, os.environ, os.geteuid())
    activation.scrub(os.environ)
    if config.max_workers == 0:
        Custody(notifier, left, 0, log).take_up([], 0.0)
        _serve_alone(config, Keeper(notifier, stored).open(config, inherited, []), notifier, log)
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
        left=left,
        room=store.room(limit),
    )
    if notifier.fault:
        log.warning(notifier.fault)
    return Supervisor(given).run()


def _serve_alone(config: Config, listeners: list[Listener], notifier: Notifier, log: Log) -> None:
    """`max-workers = 0`: become the application's interpreter, which serves by itself. Does not return."""
    if config.idle_timeout:
        log.warning(f"idle-timeout = {config.idle_timeout:g} has no effect with max-workers = 0")
    generation = Generation(1, config, listeners)
    generation.open_request_log(log)
    ours, theirs = pair()
    message = generation.first_message(Scoreboard.create(), log.sink, ())
    Channel(ours, messages.SUPERVISOR_OF_ZYGOTE).send(message)
    ours.set_inheritable(True)  # the other end would read end of file if nobody held this one
    environ = application_environment(config, os.environ)
    for each in generation.listeners:
        print(f"stardust: one process, no workers: {each.name} {each.address}", file=sys.stderr)
    notifier.ready("One process, no workers")
    processes.replace_by_server(generation.interpreter, environ, theirs)
