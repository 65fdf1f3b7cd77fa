"""The command line and the TOML file: their text, checked, as one frozen `Config`.

    argv ──parse_arguments──▶ Arguments ──read──▶ Loaded(config, origins)

A reload is `read(arguments, environ)` again, with the arguments of the start. Rules:

- Flags win over the file, the file over the defaults. `env-file` and `pythonpath` of the command line
  replace the file's; `environment` adds to the file's; any address flag replaces all its [listen] tables.
- A relative path in the file starts at the file's directory, one in a flag at the current directory.
  `app` and `pythonpath` belong to the application and start at `chdir`.
- A file that is read may be "credential:NAME": what systemd passes to the service in $CREDENTIALS_DIRECTORY.
- All errors of a file are reported at once, each with its place, its key, its value and what would be right.
- Only `_contradictions` and `_missing` know single settings; the rest follows the table in `settings.py`.
"""

from __future__ import annotations

import argparse
import difflib
import enum
import grp
import importlib
import itertools
import os
import pwd
import re
import shutil
import stat
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

from stardust import __version__
from stardust.base import address as addresses
from stardust.base.errors import ConfigError, UsageError
from stardust.base.records import dataclass
from stardust.settings import kinds
from stardust.settings import table as settings
from stardust.settings.row import Setting
from stardust.settings.table import Config, Listen

COMMAND_LINE = "command line"

_LISTEN = "listen"
_ENVIRONMENT = "environment"
_BY_NAME = {setting.name: setting for setting in settings.SETTINGS}
_BY_KEY = {setting.key: setting for setting in settings.SETTINGS}
_LISTEN_BY_KEY = {setting.key: setting for setting in settings.LISTEN_SETTINGS}

# systemd.socket(5), FileDescriptorName=: "any ASCII character, but must exclude control characters and
# ":", and must be at most 255 characters".
_LISTENER_NAME = re.compile(r"[ -9;-~]{1,255}")
# systemd's credential_name_valid(): a valid name of a file and of a descriptor.
_CREDENTIAL_NAME = re.compile(r"(?!\.{1,2}$)[ -.0-9;-~]{1,255}")
_NAMED_ADDRESS = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)=(.+)")


# ── The command line ──────────────────────────────────────────────────────────────────────────────────


class Action(enum.Enum):
    """What the command line asks for."""

    RUN = "run"
    CHECK = "check"
    PRINT = "print"


@dataclass(frozen=True, slots=True)
class Arguments:
    """A command line, taken apart but not yet checked against the table.

    `values` has the TOML value of each setting that a flag gives; `listen` the address flags as (flag,
    name or "", address). `directory` is where relative paths of flags start.
    """

    action: Action
    file: str | None
    directory: str
    values: Mapping[str, object]
    listen: tuple[tuple[str, str, str], ...]


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
    directory = os.getcwd()
    values = {
        name: _flag_value(_BY_NAME[name].kind, texts)
        for name, texts in vars(found).items()
        if name in _BY_NAME and texts is not None
    }
    if found.application is not None:
        if "app" in values:
            raise UsageError(f"the application is given twice, by --app and as {found.application}")
        values["app"] = found.application
    return Arguments(
        action=found.action,
        file=None if found.config is None else _join(directory, found.config),
        directory=directory,
        values=values,
        listen=tuple(_address_flags(found)),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="stardust",
        usage="stardust [--config FILE] [OPTION ...] [APP]",
        description="Serve a WSGI application over HTTP/1.1.",
        epilog="The paragraphs behind these lines, and the TOML file: stardust(8), stardust.toml(5).",
        allow_abbrev=False,
        exit_on_error=False,
    )
    parser.add_argument("application", metavar="APP", nargs="?", help=_BY_NAME["app"].help)
    parser.add_argument("--version", action="version", version=f"stardust {__version__}")
    parser.add_argument("--config", metavar="FILE", help="read settings from this TOML file")
    for action, text in (
        (Action.CHECK, "check the configuration and exit"),
        (Action.PRINT, "print every setting with where it comes from, and exit"),
    ):
        flag = f"--{action.value}-config"
        parser.add_argument(
            flag, dest="action", action="store_const", const=action, default=Action.RUN, help=text
        )
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
    (("--host", "-o"), "HOST", "the host to listen on; with --port, or with port 5000"),
    (("--port", "-p"), "PORT", "the port to listen on; with --host, or on every interface"),
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
        if setting.kind is kinds.SWITCH:
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
        return f"unexpected argument {word}: there is one application"
    flag = word.partition("=")[0]
    known = [f"--{setting.key}" for setting in settings.SETTINGS]
    known += [name for names, _, _ in ADDRESS_FLAGS for name in names]
    known += [name for names in ALIASES.values() for name in names]
    known += ["--config", "--check-config", "--print-config", "--version", "--help"]
    return f"unknown flag {flag}" + _nearest(flag, known)


def _nearest(word: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {nearest[0]}?" if nearest else ""


# ── Reading ───────────────────────────────────────────────────────────────────────────────────────────


class Origin(NamedTuple):
    """Where a value comes from: `source` is "" (the default), COMMAND_LINE or a file; `key` as spelled so."""

    source: str
    line: int | None
    key: str

    def error(self, reason: str) -> ConfigError:
        return ConfigError(reason, source=self.source, line=self.line, key=self.key)

    def __str__(self) -> str:
        if self.source == COMMAND_LINE:
            return f"flag {self.key}"
        return f"{self.source}:{self.line}" if self.source else "default"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration and where its values come from, by dotted key: "max-workers", "listen.http.mode"."""

    config: Config
    origins: Mapping[str, Origin]

    def origin(self, key: str) -> Origin:
        return self.origins.get(key, Origin("", None, key))


def read(arguments: Arguments, environ: Mapping[str, str]) -> Loaded:
    """Read the file and check everything. ConfigError has all that is wrong, a line for each.

    Of the environment only $CREDENTIALS_DIRECTORY counts: where `credential:NAME` is (systemd.exec(5)).
    """
    reading = _Reading(environ.get("CREDENTIALS_DIRECTORY", ""))
    if arguments.file is not None:
        reading.file(_document(arguments.file))
    reading.flags(arguments)
    _raise(reading.problems)
    config = Config(**reading.values, listen=tuple(reading.listen), source=arguments.file or "")
    loaded = Loaded(config, reading.origins)
    _raise([*_contradictions(loaded, app_required=arguments.action is not Action.PRINT), *_missing(loaded)])
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
            if key == _LISTEN:
                self._listen_tables(value, document)
            elif key in _BY_KEY:
                setting = _BY_KEY[key]
                text = document.written(value, setting, key)
                self.values[setting.name] = self._value(
                    setting, text, document.directory, document.origin(key)
                )
            else:
                self._refuse(document.origin(key), "unknown setting" + _nearest(key, [*_BY_KEY, _LISTEN]))
        for name, _ in self.values.get(_ENVIRONMENT, ()):
            self.origins[f"{_ENVIRONMENT}.{name}"] = document.origin(_ENVIRONMENT, name)

    def flags(self, arguments: Arguments) -> None:
        """Take what the command line says, over what the file said."""
        for name, plain in arguments.values.items():
            setting = _BY_NAME[name]
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
            self._refuse(document.origin(_LISTEN), "must be tables, [listen.NAME], one for each listener")
            return
        for name, table in tables.items():
            origin = document.origin(_LISTEN, name)
            if not isinstance(table, dict):
                self._refuse(origin, f"must be a table, [listen.{kinds.toml_key(name)}]")
            elif not _LISTENER_NAME.fullmatch(name):
                self._refuse(origin, 'a name has 1 to 255 printable ASCII characters, and no ":"')
            else:
                self._listen_table(name, table, document)

    def _listen_table(self, name: str, table: Mapping[str, object], document: Document) -> None:
        values: dict[str, Any] = {}
        for key, value in table.items():
            origin = document.origin(_LISTEN, name, key)
            if key in _LISTEN_BY_KEY:
                setting = _LISTEN_BY_KEY[key]
                text = document.written(value, setting, _LISTEN, name, key)
                values[setting.name] = self._value(
                    setting, text, document.directory, origin, f"{_LISTEN}.{name}."
                )
            elif key in _BY_KEY:
                self._refuse(
                    origin, "no key of a listener; settings of the server stand above the first table"
                )
            else:
                self._refuse(origin, "unknown key" + _nearest(key, _LISTEN_BY_KEY))
        self.listen.append(Listen(name=name, **values))

    def _address_flags(self, arguments: Arguments) -> None:
        self.listen.clear()
        self.origins = {key: at for key, at in self.origins.items() if not key.startswith(f"{_LISTEN}.")}
        setting = _LISTEN_BY_KEY["address"]
        for number, (flag, given, text) in enumerate(arguments.listen, 1):
            name = given or f"listen-{number}"
            origin = Origin(COMMAND_LINE, None, flag)
            if any(listen.name == name for listen in self.listen):
                self._refuse(origin, f"the name {name} is given twice")
            address = self._value(setting, text, arguments.directory, origin, f"{_LISTEN}.{name}.")
            self.listen.append(Listen(name=name, address=address))

    def _value(self, setting: Setting, value: object, base: str, origin: Origin, table: str = "") -> Any:
        """The checked value, or the default if it is wrong: the problem is noted."""
        self.origins[table + setting.key] = origin
        try:
            return _resolved(setting, setting.read(value), base, self.credentials)
        except ValueError as error:
            self._refuse(origin, str(error))
            return setting.default

    def _refuse(self, origin: Origin, reason: str) -> None:
        self.problems.append(origin.error(reason))


def _resolved(setting: Setting, value: Any, base: str, credentials: str) -> Any:
    """`value` with its paths made absolute, its credentials and its command found; ValueError if one is not.

    A relative path starts at `base`; `credentials` is the directory of the service's credentials, or "".
    """
    if setting.kind is kinds.PATH and value not in ("", "-"):
        if value.startswith(kinds.CREDENTIAL):
            raise ValueError(_wrong(setting, value, "only a file that is read can be a credential"))
        return _join(base, value)
    if setting.kind is kinds.FILES:
        return tuple(_file(setting, path, base, credentials) for path in value)
    if setting.kind is kinds.FILE and value:
        return _file(setting, value, base, credentials)
    if setting.kind is kinds.ADDRESS and value is not None and value.kind == addresses.UNIX:
        return addresses.parse(_join(base, value.path))
    if setting.kind is kinds.COMMAND and value:
        found = shutil.which(_join(base, value) if "/" in value else value)
        if found is None:
            raise ValueError(_wrong(setting, value, "there is none"))
        return os.path.join(base, found)
    return value


def _file(setting: Setting, path: str, base: str, credentials: str) -> str:
    """The absolute path of a file that is read: `path` from `base`, or the credential it names."""
    if not path.startswith(kinds.CREDENTIAL):
        return _join(base, path)
    name = path[len(kinds.CREDENTIAL) :]
    if not _CREDENTIAL_NAME.fullmatch(name):
        rule = 'the name of a credential has 1 to 255 printable ASCII characters, and no "/" or ":"'
        raise ValueError(_wrong(setting, path, rule))
    found = os.path.join(credentials, name)
    if credentials and os.path.isfile(found):
        return found
    missing = f"there is no {found}" if credentials else "only the service has credentials"
    rule = f"{missing}; its unit must be started with LoadCredential={name}:PATH"
    raise ValueError(_wrong(setting, path, rule))


def _wrong(setting: Setting, value: str, reason: str) -> str:
    return f"must be {setting.right()}, not {kinds.toml(value)}: {reason}"


def _join(base: str, path: str) -> str:
    return os.path.normpath(os.path.join(base, path))


# ── Checks across settings ────────────────────────────────────────────────────────────────────────────


def _contradictions(loaded: Loaded, app_required: bool) -> Iterator[ConfigError]:
    """What is wrong with the settings taken together. Pure."""
    config = loaded.config
    if app_required and not config.app:
        yield loaded.origin("app").error(f"must be given: {_BY_NAME['app'].help}")
    if 0 < config.max_reqs_per_child < config.min_reqs_per_child:
        most = f"max-reqs-per-child = {config.max_reqs_per_child}"
        reason = f"must be at most {most}, not {config.min_reqs_per_child}"
        yield loaded.origin("min-reqs-per-child").error(reason)
    if not config.trusted_proxies:
        if config.proxy_hops:
            reason = "must be 0, or trusted-proxies name the last of the proxies"
            yield loaded.origin("proxy-hops").error(reason)
        for key in _proxy_protocol_keys(config):
            reason = "must be off, or trusted-proxies name those who begin with a PROXY header"
            yield loaded.origin(key).error(reason)
    yield from _tls_contradictions(loaded)
    seen: dict[addresses.Address, str] = {}
    for listen in config.listen:
        yield from _listen_contradictions(loaded, listen)
        if listen.address is not None and (listen.address.kind != addresses.TCP or listen.address.port):
            first = seen.setdefault(listen.address, listen.name)
            if first != listen.name:
                reason = f"{listen.address} is the address of {_LISTEN}.{first} already"
                yield loaded.origin(f"{_LISTEN}.{listen.name}.address").error(reason)


def _proxy_protocol_keys(config: Config) -> Iterator[str]:
    """The keys that turn the PROXY protocol on."""
    if config.proxy_protocol:
        yield "proxy-protocol"
    yield from (f"{_LISTEN}.{each.name}.proxy-protocol" for each in config.listen if each.proxy_protocol)


def _tls_contradictions(loaded: Loaded) -> Iterator[ConfigError]:
    config = loaded.config
    wanted = _tls_wanted(loaded)
    certificates, keys = len(config.ssl_cert_file), len(config.ssl_key_file)
    if wanted and not certificates:
        yield loaded.origin(wanted).error("needs ssl-cert-file: there is no TLS without a certificate")
    if keys and keys != certificates:
        reason = f"must be {certificates} files, one for each ssl-cert-file in its order, not {keys}"
        yield loaded.origin("ssl-key-file").error(reason)
    if config.ssl_verify_mode != "none" and not (config.ssl_client_ca_file or config.ssl_ca_file):
        reason = "needs ssl-client-ca-file or ssl-ca-file: the authorities that certificates must come from"
        yield loaded.origin("ssl-verify-mode").error(reason)
    if config.ssl_verify_mode == "none" and config.ssl_client_ca_file:
        reason = 'has no effect with ssl-verify-mode = "none"; must be "optional" or "required" there'
        yield loaded.origin("ssl-client-ca-file").error(reason)
    # Whoever has said "ssl = false" knows. Whoever has said nothing believes that this is encrypted.
    if certificates and not wanted and not any(key in loaded.origins for key in _switches_of_tls(config)):
        yield loaded.origin("ssl-cert-file").error(
            "has no effect: ssl is off. It must be true, here or in the [listen] tables that are to speak TLS"
        )


def _tls_wanted(loaded: Loaded) -> str:
    """The dotted key that turns TLS on for a listener; "" if none does."""
    config = loaded.config
    for listen in config.listen:
        if config.speaks_tls(listen.name):
            return "ssl" if listen.ssl is None else f"{_LISTEN}.{listen.name}.ssl"
    return "ssl" if config.ssl and not config.listen else ""


def _switches_of_tls(config: Config) -> Iterator[str]:
    yield "ssl"
    for listen in config.listen:
        yield f"{_LISTEN}.{listen.name}.ssl"


def _listen_contradictions(loaded: Loaded, listen: Listen) -> Iterator[ConfigError]:
    address, prefix = listen.address, f"{_LISTEN}.{listen.name}."
    if address is not None and ":" in address.host and not loaded.config.ipv6:
        yield loaded.origin(prefix + "address").error(f"{address} is an IPv6 address, and ipv6 is off")
    if address is None or address.kind != addresses.UNIX:
        where = "a socket from systemd (see SocketMode= of its unit)" if address is None else str(address)
        for key in ("mode", "owner", "group"):
            if getattr(listen, key) not in (None, ""):
                yield loaded.origin(prefix + key).error(f"belongs to a UNIX socket's path, not to {where}")


def _missing(loaded: Loaded) -> Iterator[ConfigError]:
    """What the settings name and this machine does not have."""
    config = loaded.config
    if config.chdir and not os.path.isdir(config.chdir):
        yield loaded.origin("chdir").error(
            f"must be a directory, not {kinds.toml(config.chdir)}: there is none"
        )
    if config.control_socket:
        try:
            addresses.parse(config.control_socket)
        except ValueError as error:
            yield loaded.origin("control-socket").error(str(error))
    for path in config.env_file:
        try:
            _bindings(path)
        except ConfigError as error:
            yield loaded.origin("env-file").error(str(error))
    yield from _bad_tls_files(loaded)
    yield from _unknown_account(loaded.origin("user"), config.user, "user")
    yield from _unknown_account(loaded.origin("group"), config.group, "group")
    for listen in config.listen:
        prefix = f"{_LISTEN}.{listen.name}."
        yield from _unknown_account(loaded.origin(prefix + "owner"), listen.owner, "user")
        yield from _unknown_account(loaded.origin(prefix + "group"), listen.group, "group")


def _bad_tls_files(loaded: Loaded) -> Iterator[ConfigError]:
    """Files that cannot be read, and keys that others can. What is in them, only `tls.py` knows."""
    config = loaded.config
    password, authorities = config.ssl_key_password_file, config.ssl_ca_file
    for key, paths, secret in (
        ("ssl-cert-file", config.ssl_cert_file, not config.ssl_key_file),
        ("ssl-key-file", config.ssl_key_file, True),
        ("ssl-key-password-file", filter(None, [password]), True),
        ("ssl-ca-file", filter(None, [authorities]), False),
        ("ssl-client-ca-file", filter(None, [config.ssl_client_ca_file]), False),
    ):
        for path in paths:
            reason = _unfit(path, secret)
            if reason:
                yield loaded.origin(key).error(f"{path}: {reason}")


# Of a secret: others may do nothing, its group may read. Debian's way with keys is root:ssl-cert 0640.
_NOT_FOR_SECRETS = 0o027


def _unfit(path: str, secret: bool) -> str:
    """Why the file at `path` cannot be used; "" if it can."""
    try:
        with open(path, "rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            file.read(1)
    except OSError as error:
        return f"cannot be read: {os.strerror(error.errno or 0)}"
    if secret and mode & _NOT_FOR_SECRETS:
        return f"others may use this secret: its mode must be 0600, or 0640 for a group, not {mode:04o}"
    return ""


def _unknown_account(origin: Origin, name: str, what: str) -> Iterator[ConfigError]:
    # A number needs no entry: containers run under numbers that nobody named.
    if name == "" or name.isdecimal():
        return
    try:
        pwd.getpwnam(name) if what == "user" else grp.getgrnam(name)
    except KeyError:
        yield origin.error(f"there is no {what} {kinds.toml(name)} on this machine")


# ── The file ──────────────────────────────────────────────────────────────────────────────────────────


class Place(NamedTuple):
    """Where a key stands, counting lines from 1, and the first token of its value ("" for a table)."""

    line: int
    token: str


@dataclass(frozen=True, slots=True)
class Document:
    """A TOML file: its path, its values, and the place of every key."""

    source: str
    table: Mapping[str, Any]
    places: Mapping[tuple[str, ...], Place]

    @property
    def directory(self) -> str:
        return os.path.dirname(self.source)

    def origin(self, *path: str) -> Origin:
        place = self.places.get(path)
        return Origin(self.source, place.line if place else None, ".".join(path))

    def written(self, value: object, setting: Setting, *path: str) -> object:
        """`value`; of a mode written as 0o660 the text, for the number no longer tells how it was written."""
        token = self.places[path].token if setting.kind is kinds.MODE else ""
        return token if token.startswith("0o") else value


def _document(source: str) -> Document:
    text = _text(source)
    try:
        return Document(source, tomllib.loads(text), places(text))
    except tomllib.TOMLDecodeError as error:
        at = re.search(r" \(at line (\d+), column \d+\)| \(at end of document\)", str(error))
        line = int(at[1]) if at and at[1] else len(text.splitlines())
        reason = str(error)[: at.start()] if at else str(error)
        raise ConfigError(f"not TOML: {reason}", source=source, line=line) from None


def _text(source: str) -> str:
    try:
        with open(source, "rb") as file:
            data = file.read()
    except OSError as error:
        raise ConfigError(f"cannot be read: {os.strerror(error.errno or 0)}", source=source) from None
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError("not text in UTF-8", source=source, line=line) from None


# TOML 1.0. In the multi-line strings up to two more quotes may stand before the closing three.
_TOKEN = re.compile(
    r"""
    (?P<blank>  [ \t\r]+ | \#[^\n]* )
  | (?P<text>   \"{3} (?: \\. | (?!\"{3}). )* \"{3,5}
            |   '{3} (?: (?!'{3}). )* '{3,5}
            |   " (?: \\. | [^"\\] )* "
            |   ' [^']* '
    )
  | (?P<mark>   [\[\]{},=.\n] )
  | (?P<bare>   [^\s\[\]{},=.\#"']+ )
    """,
    re.VERBOSE | re.DOTALL,
)

_Tokens = Iterator[tuple[str, int]]
_Places = dict[tuple[str, ...], Place]


def places(text: str) -> Mapping[tuple[str, ...], Place]:
    """The place of every table and key of `text`, which must be TOML that tomllib has accepted.

    tomllib tells no line numbers. Keys inside of arrays are left out: no setting has any.
    """
    found: _Places = {}
    tokens = _tokens(text)
    table: tuple[str, ...] = ()
    for token, line in tokens:
        if token == "[":
            table = tuple(_name(part) for part, _ in _until(tokens, "\n") if part not in ("[", "]", "."))
            _note(found, table, Place(line, ""))
        elif token != "\n":
            _pair_places(token, line, tokens, table, found)
    return found


def _tokens(text: str) -> _Tokens:
    line = 1
    for match in _TOKEN.finditer(text):
        if match.lastgroup != "blank":
            yield match[0], line
        line += match[0].count("\n")


def _until(tokens: _Tokens, end: str) -> Iterator[tuple[str, int]]:
    for token, line in tokens:
        if token == end:
            return
        yield token, line


def _pair_places(token: str, line: int, tokens: _Tokens, table: tuple[str, ...], found: _Places) -> str:
    """Note `key = value`, whose first token has been taken. Returns the token that ended it."""
    parts = [token, *(part for part, _ in _until(tokens, "=") if part != ".")]
    key = (*table, *map(_name, parts))
    first, _ = next(tokens)
    _note(found, key, Place(line, first))
    if first == "{":
        end = ","
        while end == ",":
            token, line = next(tokens)
            end = "}" if token == "}" else _pair_places(token, line, tokens, key, found)
    depth = 1 if first == "[" else 0
    for token, _ in tokens:
        if depth == 0 and token in (",", "}", "\n"):
            return token
        depth += (token in ("[", "{")) - (token in ("]", "}"))
    return "\n"


def _note(found: _Places, key: tuple[str, ...], place: Place) -> None:
    """Note `key`, and the tables that a dotted key implies, unless they have a place already."""
    for size in range(1, len(key) + 1):
        found.setdefault(key[:size], place if size == len(key) else Place(place.line, ""))


def _name(part: str) -> str:
    return str(tomllib.loads(f"name = {part}")["name"]) if part[0] in "\"'" else part


# ── What is made of a configuration ───────────────────────────────────────────────────────────────────


def printed(loaded: Loaded) -> str:
    """Every setting as TOML that reads back as the same configuration, each with where it comes from."""
    config = loaded.config
    lines, tables = [], []
    for setting in settings.SETTINGS:
        value = getattr(config, setting.name)
        if setting.kind is kinds.PAIRS and value:
            pairs = [_printed(name, text, loaded.origin(f"{setting.key}.{name}")) for name, text in value]
            tables += ["", f"[{setting.key}]", *pairs]
        else:
            lines.append(_printed(setting.key, value, loaded.origin(setting.key), setting.kind))
    for listen in config.listen:
        tables += ["", f"[{_LISTEN}.{kinds.toml_key(listen.name)}]"]
        for setting in settings.LISTEN_SETTINGS:
            origin = loaded.origin(f"{_LISTEN}.{listen.name}.{setting.key}")
            tables.append(_printed(setting.key, getattr(listen, setting.name), origin, setting.kind))
    return "\n".join([*lines, *tables, ""])


def _printed(key: str, value: object, origin: Origin, kind: kinds.Kind[Any] | None = None) -> str:
    return f"{kinds.toml_key(key)} = {kinds.toml(value, kind)}  # {origin}"


def application_environment(config: Config, base: Mapping[str, str]) -> dict[str, str]:
    """The environment of the application: `base`, then the env files in order, then [environment].

    `${NAME}` in an env file is what stands for NAME so far: the two steps of `dotenv_values`, which itself
    knows no other base than this process's environment. ConfigError names the env file and its line.
    """
    environment = dict(base)
    for path in config.env_file:
        for name, value in _bindings(path):
            # python-dotenv: a name without "=" sets nothing.
            if value is not None:
                environment[name] = _envfile().resolved(value, environment)
    environment.update(config.environment)
    return environment


def _bindings(path: str) -> list[tuple[str, str | None]]:
    """The names and values of an env file, as written."""
    found: list[tuple[str, str | None]] = _envfile().bindings(_text(path), path)
    return found


def _envfile() -> ModuleType:
    # Not above: with python-dotenv it costs 1 MiB and 15 ms, and most servers have no env file.
    return importlib.import_module("stardust.config.environment")
