"""The command `stardust`: argv → settings → run, check or print; an error is a text and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from stardust.base import streams
from stardust.base.errors import AppLoadError, ConfigError, Exit, StardustError
from stardust.config.arguments import Action, parse_arguments
from stardust.config.origins import Loaded
from stardust.config.printing import printed
from stardust.config.reading import read
from stardust.logs.log import Log, find_sink, instance
from stardust.settings.table import Config
from stardust.supervisor import start, trial
from stardust.systemd.notify import Notifier


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's own); returns the exit code."""
    streams.ensure()
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
                print(f"stardust: {arguments.file or 'the command line'}: no mistakes")
                if arguments.load:
                    _try_to_load(loaded.config)
                return Exit.OK
            case Action.RUN:
                return start.run(arguments, loaded.config, notifier)
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


def _try_to_load(config: Config) -> None:
    """Load the application as a zygote would, and say what a start would say of that. Raises AppLoadError and
    ConfigError."""
    log = Log("check", config.log_level, fields=instance(config.source))
    try:
        verdict = trial.load(config, os.environ, log)
    except AppLoadError as error:
        sys.stderr.write(error.detail)
        raise
    except OSError as fault:
        raise AppLoadError(f"{config.python or sys.executable}: {fault.strerror}") from None
    print(f"stardust: {config.app}: it loads")
    if verdict.told():
        print(f"stardust: {verdict.told()}")


def _complain(text: str, source: str) -> None:
    """Say why nothing is run: to the journal if it listens, else on standard error."""
    sink = find_sink(os.environ)
    if sink.journal:
        Log("supervisor", sink=sink, fields=instance(source)).error(text)
        return
    for line in text.splitlines():
        print(f"stardust: {line}", file=sys.stderr)
