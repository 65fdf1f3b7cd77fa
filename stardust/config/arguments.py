"""The command line, taken apart: argv ──parse_arguments──▶ Arguments. It is not checked yet."""

from __future__ import annotations

import argparse
import difflib
import enum
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from stardust import __version__
from stardust.base import system
from stardust.base.errors import UsageError
from stardust.base.records import dataclass
from stardust.config.paths import joined
from stardust.settings import kinds
from stardust.settings import table as settings
from stardust.settings.table import BY_NAME

_NAMED_ADDRESS = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)=(.+)")


class Action(enum.Enum):
    """What the command line asks for."""

    RUN = "run"
    CHECK = "check"
    PRINT = "print"


@dataclass(frozen=True, slots=True)
class Arguments:
    """A command line, taken apart but not yet checked against the table.

    `values` has the TOML value of each setting that a flag gives; `listen` the address flags as (flag,
    name or "", address). `directory` is where relative paths of flags start. `load`: a check loads the
    application.
    """

    action: Action
    file: str | None
    directory: str
    values: Mapping[str, object]
    listen: tuple[tuple[str, str, str], ...]
    load: bool = False


def parse_arguments(argv: Sequence[str]) -> Arguments:
    """Take `argv` (without the program's name) apart. UsageError names the flag, and the nearest known.

    `--help` and `--version` print and end the process with SystemExit(0), as argparse does.
    """
    parser = _parser()
    try:
        found, unknown = parser.parse_known_args(_with_switch_values(argv))
    except argparse.ArgumentError as error:
        raise UsageError(str(error)) from None
    if unknown:
        raise UsageError(_unknown_argument(unknown[0]))
    if found.load and found.action is not Action.CHECK:
        raise UsageError("--load needs --check-config")
    directory = system.getcwd()
    values = {
        name: _flag_value(BY_NAME[name].kind, texts)
        for name, texts in vars(found).items()
        if name in BY_NAME and texts is not None
    }
    if found.application is not None:
        if "app" in values:
            raise UsageError(f"the application is given twice, by --app and as {found.application}")
        values["app"] = found.application
    return Arguments(
        action=found.action,
        file=None if found.config is None else joined(directory, found.config),
        directory=directory,
        values=values,
        listen=tuple(_address_flags(found)),
        load=found.load,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="stardust",
        usage="stardust [--config FILE] [OPTION ...] [APP]",
        description="Serve a WSGI application over HTTP/1.1.",
        epilog="For more about each setting, and the TOML file, see stardust(8) and stardust.toml(5).",
        allow_abbrev=False,
        exit_on_error=False,
    )
    parser.add_argument("application", metavar="APP", nargs="?", help=BY_NAME["app"].help)
    parser.add_argument("--version", action="version", version=f"stardust {__version__}")
    parser.add_argument("--config", metavar="FILE", help="read settings from this TOML file")
    for action, text in (
        (Action.CHECK, "check the configuration and exit"),
        (Action.PRINT, "print every setting with its origin, and exit"),
    ):
        flag = f"--{action.value}-config"
        parser.add_argument(
            flag, dest="action", action="store_const", const=action, default=Action.RUN, help=text
        )
    parser.add_argument("--load", action="store_true", help="with --check-config: load the application too")
    for section in settings.SECTIONS:
        group = parser.add_argument_group(section.title)
        if section is settings.LISTENERS:
            for names, metavar, text in ADDRESS_FLAGS:
                group.add_argument(*names, metavar=metavar, action="append", help=text)
        for setting in settings.SETTINGS:
            if setting.section is section:
                names = (f"--{setting.key}", *ALIASES.get(setting.name, ()))
                shape, text = setting.kind.shape, setting.help
                group.add_argument(*names, dest=setting.name, metavar=shape, action="append", help=text)
    return parser


ADDRESS_FLAGS = (
    (
        ("--listen", "-l"),
        "[NAME=]ADDRESS",
        "host:port, [v6]:port, :port, /path or @abstract; may be repeated",
    ),
    (("--host", "-o"), "HOST", "the host to listen on; the port is --port, or 5000"),
    (("--port", "-p"), "PORT", "the port to listen on; the host is --host, or every interface"),
    (("--socket", "-S"), "PATH", "the UNIX socket to listen on; @NAME is an abstract one"),
)
"""The flags that say where to listen, as (names, placeholder, help)."""

ALIASES = {"max_workers": ("--workers",)}
"""Other names of flags: the original knew `--workers` as well."""


def _with_switch_values(argv: Sequence[str]) -> list[str]:
    """`argv` with `--preload` as `--preload=1` and `--no-preload` as `--preload=0`.

    An optional value would eat the next word: in the original, `--ipv6 app.psgi` serves no application. So
    the next word is the value only if it is 0 or 1.
    """
    spelled = {}
    for setting in settings.SETTINGS:
        if setting.kind in (kinds.SWITCH, kinds.AUTOMATIC):
            spelled[f"--{setting.key}"] = f"--{setting.key}=1"
            spelled[f"--no-{setting.key}"] = f"--{setting.key}=0"
    pairs = itertools.pairwise([*argv, ""])
    return [word if after in ("0", "1") else spelled.get(word, word) for word, after in pairs]


def _flag_value(kind: kinds.Kind[Any], texts: list[str]) -> object:
    """The TOML value that the texts of one repeated flag stand for; of a plain setting the last counts."""
    if not kind.many:
        return kind.plain(texts[-1])
    values = [kind.plain(text) for text in texts]
    if kind is not kinds.PAIRS:
        return values
    merged: dict[str, object] = {}
    for value in values:
        if not isinstance(value, dict):
            raise UsageError(f"argument --environment: must be NAME=VALUE, not {value}")
        merged.update(value)
    return merged


def _address_flags(found: argparse.Namespace) -> Iterator[tuple[str, str, str]]:
    if found.host or found.port:
        host = found.host[-1] if found.host else ""
        port = found.port[-1] if found.port else str(settings.DEFAULT_PORT)
        bare_v6 = ":" in host and not host.startswith("[")
        yield "--host" if found.host else "--port", "", f"[{host}]:{port}" if bare_v6 else f"{host}:{port}"
    for text in found.listen or ():
        named = _NAMED_ADDRESS.fullmatch(text)
        yield "--listen", named[1] if named else "", named[2] if named else text
    for text in found.socket or ():
        # The original's sockets need no slash: `--socket=app.sock`.
        yield "--socket", "", text if "/" in text or text.startswith(("@", "\\0")) else f"./{text}"


def _unknown_argument(word: str) -> str:
    if not word.startswith("-"):
        return f"unexpected argument {word}: give one application only"
    flag = word.partition("=")[0]
    known = [f"--{setting.key}" for setting in settings.SETTINGS]
    known += [name for names, _, _ in ADDRESS_FLAGS for name in names]
    known += [name for names in ALIASES.values() for name in names]
    known += ["--config", "--check-config", "--load", "--print-config", "--version", "--help"]
    return f"unknown flag {flag}" + nearest(flag, known)


def nearest(word: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {nearest[0]}?" if nearest else ""
