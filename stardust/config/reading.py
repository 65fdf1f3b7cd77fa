"""The command line and the TOML file: their text, checked, as one frozen `Config`.

    argv ──parse_arguments──▶ Arguments ──read──▶ Loaded(config, origins)

A reload is `read(arguments, environ)` again, with the arguments of the start. Rules:

- Flags win over the file, the file over the defaults. `env-file` and `pythonpath` of the command line
  replace the file's; `environment` adds to the file's; any address flag replaces all its [listen] tables.
- A relative path in the file starts at the file's directory, one in a flag at the current directory.
  `app` and `pythonpath` belong to the application and start at `chdir`.
- A file that is read may be "credential:NAME": what systemd passes to the service in $CREDENTIALS_DIRECTORY.
- All errors of a file are reported at once, each with its place, its key, its value and what would be right.
- Only `checks` knows single settings; the rest follows the table in `settings`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from stardust.base.errors import ConfigError
from stardust.config.arguments import Action, Arguments, nearest
from stardust.config.checks import contradictions, missing
from stardust.config.document import Document, read_document
from stardust.config.origins import LISTEN, Loaded, Origin
from stardust.config.paths import resolved
from stardust.settings import kinds
from stardust.settings import table as settings
from stardust.settings.row import Setting
from stardust.settings.table import BY_NAME, COMMAND_LINE, Config, Listen

_ENVIRONMENT = "environment"
_BY_KEY = {setting.key: setting for setting in settings.SETTINGS}
_LISTEN_BY_KEY = {setting.key: setting for setting in settings.LISTEN_SETTINGS}

# systemd.socket(5), FileDescriptorName=: "any ASCII character, but must exclude control characters and
# ":", and must be at most 255 characters".
_LISTENER_NAME = re.compile(r"[ -9;-~]{1,255}")


def read(arguments: Arguments, environ: Mapping[str, str]) -> Loaded:
    """Read the file and check everything. ConfigError has all that is wrong, a line for each.

    Of the environment only $CREDENTIALS_DIRECTORY counts: where `credential:NAME` is (systemd.exec(5)).
    """
    reading = _Reading(environ.get("CREDENTIALS_DIRECTORY", ""))
    if arguments.file is not None:
        reading.file(read_document(arguments.file))
    reading.flags(arguments)
    _raise(reading.problems)
    config = Config(**reading.values, listen=tuple(reading.listen), source=arguments.file or "")
    loaded = Loaded(config, reading.origins)
    _raise([*contradictions(loaded, app_required=arguments.action is not Action.PRINT), *missing(loaded)])
    return loaded


def _raise(problems: Sequence[ConfigError]) -> None:
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise ConfigError("\n".join(map(str, problems)))


class _Reading:
    """A configuration in the making: the values so far, where they come from, what is wrong."""

    __slots__ = ("credentials", "listen", "origins", "problems", "values")

    def __init__(self, credentials: str) -> None:
        self.credentials = credentials
        self.values: dict[str, Any] = {}
        self.listen: list[Listen] = []
        self.origins: dict[str, Origin] = {}
        self.problems: list[ConfigError] = []

    def file(self, document: Document) -> None:
        """Take what the file says."""
        for key, value in document.table.items():
            if key == LISTEN:
                self._listen_tables(value, document)
            elif key in _BY_KEY:
                setting = _BY_KEY[key]
                text = document.written(value, setting, key)
                self.values[setting.name] = self._value(
                    setting, text, document.directory, document.origin(key)
                )
            else:
                self._refuse(document.origin(key), "unknown setting" + nearest(key, [*_BY_KEY, LISTEN]))
        for name, _ in self.values.get(_ENVIRONMENT, ()):
            self.origins[f"{_ENVIRONMENT}.{name}"] = document.origin(_ENVIRONMENT, name)

    def flags(self, arguments: Arguments) -> None:
        """Take what the command line says, over what the file said."""
        for name, plain in arguments.values.items():
            setting = BY_NAME[name]
            origin = Origin(COMMAND_LINE, None, f"--{setting.key}")
            value = self._value(setting, plain, arguments.directory, origin)
            if setting.kind is kinds.PAIRS:
                self.origins.update({f"{setting.key}.{variable}": origin for variable, _ in value})
                value = tuple({**dict(self.values.get(name, ())), **dict(value)}.items())
            self.values[name] = value
        if arguments.listen:
            self._address_flags(arguments)

    def _listen_tables(self, tables: object, document: Document) -> None:
        if not isinstance(tables, dict):
            self._refuse(document.origin(LISTEN), "must be a table [listen.NAME] for each listener")
            return
        for name, table in tables.items():
            origin = document.origin(LISTEN, name)
            if not isinstance(table, dict):
                self._refuse(origin, f"must be a table, [listen.{kinds.toml_key(name)}]")
            elif not _LISTENER_NAME.fullmatch(name):
                self._refuse(
                    origin, 'the name must have 1 to 255 printable ASCII characters, none of them ":"'
                )
            else:
                self._listen_table(name, table, document)

    def _listen_table(self, name: str, table: Mapping[str, object], document: Document) -> None:
        values: dict[str, Any] = {}
        for key, value in table.items():
            origin = document.origin(LISTEN, name, key)
            if key in _LISTEN_BY_KEY:
                setting = _LISTEN_BY_KEY[key]
                text = document.written(value, setting, LISTEN, name, key)
                values[setting.name] = self._value(
                    setting, text, document.directory, origin, f"{LISTEN}.{name}."
                )
            elif key in _BY_KEY:
                self._refuse(
                    origin, "not a key of a listener; move settings of the server above the first table"
                )
            else:
                self._refuse(origin, "unknown key" + nearest(key, _LISTEN_BY_KEY))
        self.listen.append(Listen(name=name, **values))

    def _address_flags(self, arguments: Arguments) -> None:
        self.listen.clear()
        self.origins = {key: at for key, at in self.origins.items() if not key.startswith(f"{LISTEN}.")}
        setting = _LISTEN_BY_KEY["address"]
        for number, (flag, given, text) in enumerate(arguments.listen, 1):
            name = given or f"listen-{number}"
            origin = Origin(COMMAND_LINE, None, flag)
            if any(listen.name == name for listen in self.listen):
                self._refuse(origin, f"the name {name} is given twice")
            address = self._value(setting, text, arguments.directory, origin, f"{LISTEN}.{name}.")
            self.listen.append(Listen(name=name, address=address))

    def _value(self, setting: Setting, value: object, base: str, origin: Origin, table: str = "") -> Any:
        """The checked value, or the default if it is wrong: the problem is noted."""
        self.origins[table + setting.key] = origin
        try:
            return resolved(setting, setting.read(value), base, self.credentials)
        except ValueError as error:
            self._refuse(origin, str(error))
            return setting.default

    def _refuse(self, origin: Origin, reason: str) -> None:
        self.problems.append(origin.error(reason))
