"""The one table of settings.

A setting is one field of `Config` (or, inside a [listen.NAME] table, of `Listen`): its name, type and
default are the field's own, the rest stands in its `row`. From the rows come the flags of the command line,
the keys of the TOML file, the validation of both, `stardust --print-config`, `etc/stardust.toml.example`
and the manual pages. A new setting is one field here; then run `python tools/manual.py` (see there).

A row's `kind` knows how a value is written and read:

    flag's text ──Kind.plain──▶ TOML value ──Setting.read──▶ field's value ──toml──▶ text in a TOML file

Units inside `Config`: seconds (float) and bytes (int). Only the kinds know "30s" and "1MiB".

Pure. Runs in the application's interpreter too (the configuration travels there as JSON): Python 3.9.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Optional

from stardust.base import address as addresses
from stardust.base.address import Address
from stardust.base.records import dataclass, field, fields

DEFAULT_ADDRESS = Address(addresses.TCP, "127.0.0.1", 5000)
"""Where the server listens without a [listen] table, an address flag, and a socket from systemd."""

DEFAULT_PORT = 5000
"""The port that belongs to `--host` without `--port`, as in plackup."""

SECOND = 1.0
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
PIB = 1024 * 1024 * GIB

CREDENTIAL = "credential:"
"""What stands before the name of a credential (systemd.exec(5), LoadCredential=) in place of a path."""

FORWARDED = "forwarded"
FORWARDED_HEADERS = (
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    FORWARDED,
)
"""The fields by which a trusted proxy may tell of its client, the last one instead of all others."""

SHORTEST = 0.01
"""The least that a time limit may be: a limit of nothing would end every request."""

_DURATION_UNITS = {"ms": 0.001, "s": SECOND, "min": MINUTE, "h": HOUR}
_SIZE_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": KIB, "MiB": MIB, "GiB": GIB}
_QUANTITY = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([A-Za-z]*)")
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_OCTAL = re.compile(r"(?:0o)?([0-7]{1,4})")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_ON = ("1", "true", "yes", "on")
_OFF = ("0", "false", "no", "off")

Value = Any
"""A value of a `Config` field. Which type it has, the field's annotation says."""


# ── Kinds: how a value is written and read ────────────────────────────────────────────────────────────


class Kind(NamedTuple):
    """How values of one kind are written.

    `shape` is the placeholder in usage texts; `right` says what a right value is, `hint` how it may be
    written. `plain` gives the TOML value that a flag's text stands for. `read` gives the field's value for a
    TOML value; ValueError, with a reason or empty, if it has none. `many`: the flag may be repeated.
    """

    shape: str
    right: str
    hint: str
    plain: Callable[[str], object]
    read: Callable[[object], Value]
    many: bool = False


def _itself(text: str) -> object:
    return text


def _whole_number(text: str) -> object:
    return int(text) if _WHOLE.fullmatch(text) else text


def _switch_word(text: str) -> object:
    word = text.lower()
    return word in _ON if word in _ON + _OFF else text


def _pair(text: str) -> object:
    name, equals, value = text.partition("=")
    return {name: value} if equals else text


def _read_count(value: object) -> int:
    # bool is a kind of int in Python, and not in TOML.
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError


def _read_switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError


def _read_own_switch(value: object) -> Optional[bool]:
    return None if value == "" else _read_switch(value)


def _read_seconds(value: object) -> float:
    if isinstance(value, str):
        return _quantity(value, _DURATION_UNITS)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    raise ValueError


def _read_bytes(value: object) -> int:
    if not isinstance(value, str):
        return _read_count(value)
    size = _quantity(value, _SIZE_UNITS)
    if size != int(size):
        raise ValueError("it is no whole number of bytes")
    return int(size)


def _quantity(text: str, units: Mapping[str, float]) -> float:
    """The number that "1.5min" stands for. Without a unit it counts seconds, or bytes."""
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        raise ValueError
    number, unit = match.groups()
    if unit and unit not in units:
        raise ValueError(f'"{unit}" is none of {", ".join(units)}')
    # Dividing by a whole number is exact where multiplying by 0.001 is not: 300ms is 0.3.
    return float(number) / 1000 if unit == "ms" else float(number) * (units[unit] if unit else 1)


def _read_text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError
    if "\0" in value:
        raise ValueError("it contains a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("it is not valid UTF-8") from None
    return value


def _read_texts(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (_read_text(value),)
    if isinstance(value, list):
        return tuple(_read_text(item) for item in value)
    raise ValueError


def _read_verification(value: object) -> str:
    # IO::Socket::SSL's numbers: SSL_VERIFY_NONE, _PEER, and _PEER with _FAIL_IF_NO_PEER_CERT.
    if isinstance(value, bool):
        raise ValueError
    return {"0": "none", "1": "optional", "3": "required"}.get(str(value)) or _read_text(value)


def _read_pairs(value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict):
        raise ValueError
    return tuple((_variable_name(name), _variable_value(item)) for name, item in value.items())


def _variable_name(name: str) -> str:
    # environ(7): "name=value". A name with "=" or without a character cannot be told from its value.
    if name == "" or "=" in name:
        raise ValueError(f'"{name}" is no name of a variable')
    return _read_text(name)


def _variable_value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else _read_text(value)


def _read_mode(value: object) -> Optional[int]:
    # Only text: of a TOML number nobody can tell any more whether 660 was meant as octal.
    if value == "":
        return None
    match = _OCTAL.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError
    return int(match[1], 8)


def _read_address(value: object) -> Optional[Address]:
    text = _read_text(value)
    return addresses.parse(text) if text else None


def _read_proxies(value: object) -> tuple[str, ...]:
    texts = _read_texts(value)
    addresses.Peers(texts)
    return texts


def _read_headers(value: object) -> tuple[str, ...]:
    names = tuple(name.lower() for name in _read_texts(value))
    for name in names:
        if name not in FORWARDED_HEADERS:
            raise ValueError(f'"{name}" is none of them')
    if FORWARDED in names and len(names) > 1:
        raise ValueError("two that say the same could contradict each other")
    return names


COUNT = Kind("N", "a whole number", "", _whole_number, _read_count)
SWITCH = Kind("0|1", "true or false", "", _switch_word, _read_switch)
SECONDS = Kind(
    "SECONDS", "a duration", 'seconds, or text such as "500ms", "30s", "5min", "2h"', _itself, _read_seconds
)
BYTES = Kind("BYTES", "a size", 'bytes, or text such as "64KiB", "1MiB", "2GiB"', _whole_number, _read_bytes)
TEXT = Kind("TEXT", "text", "", _itself, _read_text)
CHOICE = Kind("WORD", "one of", "", _itself, _read_text)
PATH = Kind("PATH", "a path", "", _itself, _read_text)
COMMAND = Kind("PATH", "an executable file", "a path, or a name to look up on PATH", _itself, _read_text)
VERIFICATION = Kind("WORD", "one of", "or their numbers 0, 1, 3", _itself, _read_verification)
FILE = Kind("PATH", "a file", 'a path, or "credential:NAME"', _itself, _read_text)
FILES = Kind(
    "PATH", "a file or a list of files", 'a path, or "credential:NAME"', _itself, _read_texts, many=True
)
TEXTS = Kind("TEXT", "a text or a list of texts", "", _itself, _read_texts, many=True)
OWN_SWITCH = Kind(
    "0|1", "true or false", 'or "" for what the whole server has', _switch_word, _read_own_switch
)
PROXIES = Kind(
    "ADDRESS",
    "an address or a list of addresses",
    'an IP address, a network such as "10.0.0.0/8", or "unix:"',
    _itself,
    _read_proxies,
    many=True,
)
HEADERS = Kind(
    "NAME",
    "some of " + ", ".join(FORWARDED_HEADERS[:-1]) + f', or "{FORWARDED}" alone',
    "",
    _itself,
    _read_headers,
    many=True,
)
PAIRS = Kind("NAME=VALUE", "a table of texts by name", "", _pair, _read_pairs, many=True)
MODE = Kind("MODE", "an octal mode", 'text such as "0660", or 0o660', _itself, _read_mode)
ADDRESS = Kind(
    "ADDRESS", "an address", "host:port, [v6]:port, :port, /path or @abstract", _itself, _read_address
)


# ── Rows: what is known about one setting ─────────────────────────────────────────────────────────────


class Section(NamedTuple):
    """A chapter of the example file and of the manual page."""

    title: str
    text: str


class Setting(NamedTuple):
    """One row of the table. `low` and `high` bound a number, both allowed; None is no bound."""

    name: str
    default: Value
    section: Section
    kind: Kind
    help: str
    text: str
    low: Optional[float]
    high: Optional[float]
    choices: tuple[str, ...]
    reload: bool
    unset: str

    @property
    def key(self) -> str:
        """The name in a TOML file; with "--" before it, the flag."""
        return self.name.replace("_", "-")

    def right(self) -> str:
        """What a right value is, to follow "must be"."""
        hint = f" ({self.kind.hint})" if self.kind.hint else ""
        if self.choices:
            return f"{self.kind.right} {', '.join(self.choices)}{hint}"
        return self.kind.right + self.bounds() + hint

    def bounds(self) -> str:
        """The bounds in the words of the kind, with a space before them; "" without bounds."""
        if self.low is None:
            return ""
        if self.high is None:
            return f" of at least {amount(self.kind, self.low)}"
        return f" from {amount(self.kind, self.low)} to {amount(self.kind, self.high)}"

    def read(self, value: object) -> Value:
        """The field's value for a TOML value. ValueError says what would be right, what came, and why not."""
        try:
            result = self.kind.read(value)
        except ValueError as error:
            raise ValueError(self._refusal(value, str(error))) from None
        if not self._allows(result):
            raise ValueError(self._refusal(value))
        return result

    def _allows(self, result: Value) -> bool:
        # Written so that a NaN, which compares false with everything, is refused by any bound.
        return (
            (not self.choices or result in self.choices)
            and (self.low is None or result is None or result >= self.low)
            and (self.high is None or result is None or result <= self.high)
        )

    def _refusal(self, value: object, reason: str = "") -> str:
        refusal = f"must be {self.right()}, not {_cut(toml(value))}"
        return f"{refusal}: {reason}" if reason else refusal


def row(
    section: Section,
    kind: Kind,
    *,
    help: str,  # noqa: A002  it is the row's word, and nothing here calls the built-in
    text: str = "",
    low: Optional[float] = None,
    high: Optional[float] = None,
    choices: tuple[str, ...] = (),
    reload: bool = True,
    unset: str = "",
) -> Mapping[str, object]:
    """What a field of `Config` or `Listen` says about itself beyond name, type and default.

    `help` is one line without a full stop, `text` a paragraph in which `backquotes` mark what is typed.
    `reload`: a reload takes a new value over. `unset` says what an empty default means.
    """
    return {
        "section": section,
        "kind": kind,
        "help": help,
        "text": " ".join(text.split()),
        "low": low,
        "high": high,
        "choices": choices,
        "reload": reload,
        "unset": unset,
    }


APPLICATION = Section("Application", "What is served, and the interpreter and environment it runs in.")
WORKERS = Section("Workers", "How many processes serve it, and how long each of them lives.")
TIMES = Section(
    "Time limits",
    'Seconds, or text with a unit: "500ms", "30s", "5min", "2h".',
)
LIMITS = Section(
    "Limits",
    'What one request or response may cost. Sizes are bytes, or text with a unit: "64KiB", "1MiB", "2GiB" '
    '(steps of 1024) or "10kB", "5MB", "1GB" (steps of 1000).',
)
TLS = Section(
    "TLS",
    "Encrypted connections, and who is who on them. What the files must be, how they are renewed while the "
    "server runs, and what the application learns: docs/tls.md.",
)
LOGS = Section("Logs", "What is written where. SIGUSR1 opens the files again after a rotation.")
PROCESS = Section("Process", "The rights of the processes, and the way to the server at run time.")
PROXY = Section(
    "Proxies",
    "Who stands between the clients and the server, and what is believed of them.",
)
LISTENERS = Section(
    "Listeners",
    "Where the server listens. Each listener is a table of its own, and the tables come last: in TOML every "
    "key after a table's header belongs to that table.",
)

SECTIONS = (APPLICATION, WORKERS, TIMES, LIMITS, TLS, LOGS, PROCESS, PROXY, LISTENERS)


# ── The table ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Listen:
    """One listener: a [listen.NAME] table or an address flag. Without `address` it must come from systemd."""

    name: str
    address: Optional[Address] = field(
        default=None,
        metadata=row(
            LISTENERS,
            ADDRESS,
            help="where to listen: host:port, [v6]:port, :port, /path or @abstract",
            text="""`:port` is the wildcard address, every interface. A path is a UNIX socket: a file left
            behind by a server that is gone is replaced, one that somebody listens on is refused. `@name` is
            an abstract UNIX socket, without a file. Sockets that systemd hands over are matched by name:
            `FileDescriptorName=NAME` of the socket unit belongs to `[listen.NAME]`. The address is bound by
            the server only if systemd hands over no socket of that name.""",
            unset="the socket comes from systemd",
        ),
    )
    mode: Optional[int] = field(
        default=None,
        metadata=row(
            LISTENERS,
            MODE,
            low=0,
            high=0o777,
            help="permissions of a UNIX socket's file",
            text="""Whoever has write permission may connect. Text in octal, or a TOML number with `0o` before
            it.""",
            unset="0660",
        ),
    )
    owner: str = field(
        default="",
        metadata=row(
            LISTENERS,
            TEXT,
            help="owner of a UNIX socket's file, by name or number",
            unset="the user who starts the server",
        ),
    )
    group: str = field(
        default="",
        metadata=row(
            LISTENERS,
            TEXT,
            help="group of a UNIX socket's file, by name or number",
            text="""The usual way to let a proxy in: `group = "www-data"` and `mode = "0660"`.""",
            unset="the group of the user who starts the server",
        ),
    )
    ssl: Optional[bool] = field(
        default=None,
        metadata=row(
            LISTENERS,
            OWN_SWITCH,
            help="whether connections of this listener are TLS",
            text="One server can have both: `ssl = true` in the table of port 443, none in that of 80.",
            unset="as the server's ssl",
        ),
    )
    proxy_protocol: Optional[bool] = field(
        default=None,
        metadata=row(
            LISTENERS,
            OWN_SWITCH,
            help="whether trusted proxies begin their connections with a PROXY header",
            text="As `proxy-protocol` of the server, for this listener alone.",
            unset="as the server's proxy-protocol",
        ),
    )


@dataclass(frozen=True)
class Config:
    """A whole configuration, checked. Times are seconds, sizes are bytes, paths are absolute or ""."""

    app: str = field(
        default="",
        metadata=row(
            APPLICATION,
            TEXT,
            help="the WSGI application: module:callable, module:factory() or path/to/file.py[:name]",
            text="""`myapp.wsgi:application` is the object `application` of the module `myapp.wsgi`;
            `myapp:create_app()` is what that function returns; `srv/app.py` is a file, relative to `chdir`.
            Without a name `application` is looked for, then `app`. On the command line the application is the
            argument that is no flag.""",
            unset="none; it must be given",
        ),
    )
    python: str = field(
        default="",
        metadata=row(
            APPLICATION,
            COMMAND,
            help="the interpreter that runs the application",
            text="""Give the one of the application's virtual environment, `/srv/myapp/.venv/bin/python`. It
            may be another version of Python than the server's, from 3.9 on, and needs nothing of the server
            installed. A name without a slash is looked up on `PATH`.""",
            unset="the server's own",
        ),
    )
    chdir: str = field(
        default="",
        metadata=row(
            APPLICATION,
            PATH,
            help="the directory the application runs in",
            text="It is the first place that modules are imported from, after `pythonpath`.",
            unset="where the server was started",
        ),
    )
    pythonpath: tuple[str, ...] = field(
        default=(),
        metadata=row(
            APPLICATION,
            TEXTS,
            help="directories to import from, before all others",
            text="Relative to `chdir`.",
        ),
    )
    env_file: tuple[str, ...] = field(
        default=(),
        metadata=row(
            APPLICATION,
            FILES,
            help="files of NAME=VALUE lines for the application's environment",
            text="""In the form python-dotenv reads, `${NAME}` included. They are read in order, and again
            at every reload; later ones win over earlier ones, and all of them over the server's
            environment. `credential:NAME` is what the unit of the service passes by
            `LoadCredential=NAME:PATH`; the file at PATH may be root's alone.""",
        ),
    )
    environment: tuple[tuple[str, str], ...] = field(
        default=(),
        metadata=row(
            APPLICATION,
            PAIRS,
            help="variables of the application's environment",
            text="""They win over `env-file`. Flags add to what the file says. Several variables read better
            as a table of its own, `[environment]`, at the end of the file.""",
        ),
    )
    preload: bool = field(
        default=True,
        metadata=row(
            APPLICATION,
            SWITCH,
            help="import the application once and fork the workers from that",
            text="""Workers then share its memory and start in milliseconds. Turn it off for an application
            that does not survive a fork because importing it starts threads or opens connections: every
            worker then imports it for itself. A reload takes over new code in both cases.""",
        ),
    )
    max_workers: int = field(
        default=10,
        metadata=row(
            WORKERS,
            COUNT,
            low=0,
            high=1000,
            help="worker processes",
            text="""Each serves one request per thread at a time, and is not held up by slow clients. 0 serves
            from a single process that never forks, for debugging.""",
        ),
    )
    threads: int = field(
        default=1,
        metadata=row(
            WORKERS,
            COUNT,
            low=1,
            high=1024,
            help="application threads of a worker",
            text="""With 1 the application never sees a second thread of the server's (`wsgi.multithread` is
            false): one of the server's own gives connections to other workers while it works, and never
            calls it. More suit an application that mostly waits for others and is safe to run in
            threads.""",
        ),
    )
    max_reqs_per_child: int = field(
        default=1000,
        metadata=row(
            WORKERS,
            COUNT,
            low=0,
            help="requests a worker serves before it is replaced",
            text="""It bounds what a slow leak can take. No request is lost by it: at the limit the worker
            accepts nothing more, and serves the connections it has. 0: no limit.""",
        ),
    )
    min_reqs_per_child: int = field(
        default=0,
        metadata=row(
            WORKERS,
            COUNT,
            low=0,
            help="if set, each worker draws its limit from here to max-reqs-per-child",
            text="""Workers that were started together are then not replaced together. 0: all have the same
            limit.""",
        ),
    )
    spawn_interval: float = field(
        default=0.0,
        metadata=row(
            WORKERS,
            SECONDS,
            low=0,
            high=HOUR,
            help="least pause between two starts of a worker",
            text="A reload exchanges one worker per pause. 0: no pause.",
        ),
    )
    main_process_delay: float = field(
        default=0.1,
        metadata=row(
            WORKERS,
            SECONDS,
            low=SHORTEST,
            high=MINUTE,
            help="least pause before a worker that died is replaced",
            text="It doubles, up to 30 seconds, while workers go on dying.",
        ),
    )
    timeout: float = field(
        default=300.0,
        metadata=row(
            TIMES,
            SECONDS,
            low=SHORTEST,
            high=DAY,
            help="how long a client may neither send nor take a byte",
            text="It starts anew with every byte, while a body comes in and while a response goes out.",
        ),
    )
    header_timeout: float = field(
        default=30.0,
        metadata=row(
            TIMES,
            SECONDS,
            low=SHORTEST,
            high=DAY,
            help="how long the whole head of a request may take",
            text="Beyond it the client is answered 408.",
        ),
    )
    handshake_timeout: float = field(
        default=10.0,
        metadata=row(
            TIMES,
            SECONDS,
            low=SHORTEST,
            high=DAY,
            help="how long what comes before HTTP may take",
            text="""That is the TLS handshake (`ssl`), and the PROXY header before it (`proxy-protocol`), both
            together. Beyond it the connection is closed, without an answer.""",
        ),
    )
    keepalive_timeout: float = field(
        default=2.0,
        metadata=row(
            TIMES,
            SECONDS,
            low=SHORTEST,
            high=DAY,
            help="how long an idle connection is kept for its next request",
            text="""An idle connection holds no worker. Behind a proxy set more than the proxy keeps its idle
            connections, so that the proxy is the one that closes.""",
        ),
    )
    request_timeout: float = field(
        default=0.0,
        metadata=row(
            TIMES,
            SECONDS,
            low=0,
            high=DAY,
            help="how long the application may work on a request",
            text="""Beyond it the stacks of all threads of the worker are logged and the worker is replaced;
            the client gets no answer. Connections beside it have gone to other workers long before. 0: no
            limit.""",
        ),
    )
    boot_timeout: float = field(
        default=60.0,
        metadata=row(
            TIMES,
            SECONDS,
            low=SHORTEST,
            high=DAY,
            help="how long the application may take to load",
            text="Beyond it the start, or the reload, has failed.",
        ),
    )
    graceful_timeout: float = field(
        default=30.0,
        metadata=row(
            TIMES,
            SECONDS,
            low=0,
            high=DAY,
            help="how long a worker that leaves may take to finish its requests",
            text="On stop, reload and replacement. Beyond it the worker is killed.",
        ),
    )
    heartbeat_timeout: float = field(
        default=30.0,
        metadata=row(
            TIMES,
            SECONDS,
            low=0,
            high=DAY,
            help="how long a worker that is in no request may give no sign of life",
            text="Beyond it the worker is replaced. 0: no limit.",
        ),
    )
    idle_timeout: float = field(
        default=0.0,
        metadata=row(
            TIMES,
            SECONDS,
            low=0,
            high=DAY,
            help="how long nobody may be connected before the server ends by itself",
            text="""The next connection starts it again. So it has an effect only if systemd handed over every
            listener (systemd.socket(5)), and not with `max-workers = 0`. A connection that waits for its next
            request counts too, and none is lost: who comes while the server leaves is served by the next
            start. The exit code is 0, so the unit must not say `Restart=always`. 0: it never ends by
            itself.""",
        ),
    )
    max_keepalive_reqs: int = field(
        default=1,
        metadata=row(
            LIMITS,
            COUNT,
            low=0,
            help="requests on one connection",
            text="""1 closes every connection after its first response; 0: no limit. Do raise it where clients
            or a proxy can make use of it: idle connections hold no worker.""",
        ),
    )
    max_request_line: int = field(
        default=8190,
        metadata=row(
            LIMITS,
            BYTES,
            low=64,
            high=MIB,
            help="longest request line",
            text="Beyond it the client is answered 414.",
        ),
    )
    max_header_count: int = field(
        default=100,
        metadata=row(
            LIMITS,
            COUNT,
            low=1,
            high=10000,
            help="most header fields of a request",
            text="Beyond it the client is answered 431.",
        ),
    )
    max_header_bytes: int = field(
        default=32 * KIB,
        metadata=row(
            LIMITS,
            BYTES,
            low=256,
            high=16 * MIB,
            help="largest head of a request, the request line included",
            text="Beyond it the client is answered 431.",
        ),
    )
    max_body: int = field(
        default=GIB,
        metadata=row(
            LIMITS,
            BYTES,
            low=0,
            high=PIB,
            help="largest body of a request",
            text="""Beyond it the client is answered 413. A body is read whole before the application is
            called; past 1 MiB it waits in an unlinked temporary file. 0: no limit.""",
        ),
    )
    max_response_buffer: int = field(
        default=GIB,
        metadata=row(
            LIMITS,
            BYTES,
            low=0,
            high=PIB,
            help="how much of a response is kept for a slow reader before the application waits",
            text="Past 1 MiB it waits in an unlinked temporary file.",
        ),
    )
    max_buffer_memory: int = field(
        default=64 * MIB,
        metadata=row(
            LIMITS,
            BYTES,
            low=0,
            high=PIB,
            help="memory of a worker for all bodies and responses that wait",
            text="""What does not fit waits in unlinked temporary files. 8 KiB of each are not counted, nor is
            what the application itself holds.""",
        ),
    )
    min_body_rate: int = field(
        default=240,
        metadata=row(
            LIMITS,
            BYTES,
            low=0,
            high=GIB,
            help="least bytes a second of a request's body",
            text="""On average, since the head was complete; the first 5 seconds are free, and a worker looks
            every 5 seconds. Beyond it the client is answered 408. Time in which the worker itself does not
            read counts for nobody. 0: no limit.""",
        ),
    )
    min_response_rate: int = field(
        default=240,
        metadata=row(
            LIMITS,
            BYTES,
            low=0,
            high=GIB,
            help="least bytes a second that a client takes of a response that waits for it",
            text="""On average, since all of the response was there; the first 20 seconds are free, for a slow
            client takes its bytes in few large steps. Beyond it the connection is reset. An application that
            sends slowly is not concerned. 0: no limit.""",
        ),
    )
    max_connections: int = field(
        default=10000,
        metadata=row(
            LIMITS,
            COUNT,
            low=0,
            help="connections of a worker",
            text="""At the limit the one that has been idle longest makes room for a new one. While none is
            idle, new ones wait for another worker, or in the kernel. A worker never takes more than its
            descriptors allow (`LimitNOFILE=`), less an eighth and 32 of them for temporary files and the
            application. 0: as many as these allow.""",
        ),
    )
    max_connections_per_peer: int = field(
        default=0,
        metadata=row(
            LIMITS,
            COUNT,
            low=0,
            help="connections of a worker with one client address",
            text="""One more is answered 503 and closed, whatever it asks for. An IPv6 network of 64 bits
            counts as one address. Connections over UNIX sockets and of `trusted-proxies` are not
            counted, and those that another worker gives away are never refused. Not behind a proxy that is
            not trusted, whose address is that of all clients. 0: no limit.""",
        ),
    )
    underscore_headers: str = field(
        default="drop",
        metadata=row(
            LIMITS,
            CHOICE,
            choices=("drop", "refuse"),
            help="what becomes of request header fields with an underscore in their name",
            text="""An application could not tell `X_User` from `X-User`, which a proxy may vouch for. `drop`:
            it does not see them. `refuse`: the client is answered 400.""",
        ),
    )
    ssl: bool = field(
        default=False,
        metadata=row(
            TLS,
            SWITCH,
            help="speak TLS at every listener that does not say otherwise",
            text="""A listener says otherwise by `ssl` in its table. TLS connections cannot move from worker
            to worker: docs/tls.md says when that matters.""",
        ),
    )
    ssl_cert_file: tuple[str, ...] = field(
        default=(),
        metadata=row(
            TLS,
            FILES,
            help="the certificate, in PEM, with those of its issuers behind it",
            text="""Several are served by the name that a client asks for (SNI); the first is for whoever asks
            for none of them. Files that change are read again for new connections.""",
        ),
    )
    ssl_key_file: tuple[str, ...] = field(
        default=(),
        metadata=row(
            TLS,
            FILES,
            help="the private key of the certificate, in PEM; of several, in the same order",
            text="""Nobody but its owner and group may be allowed to read it. Unset, each certificate file has
            its key in it.""",
        ),
    )
    ssl_key_password_file: str = field(
        default="",
        metadata=row(
            TLS,
            FILE,
            help="file whose first line is the password of the private keys",
            unset="none; the keys are not encrypted",
        ),
    )
    ssl_ca_file: str = field(
        default="",
        metadata=row(
            TLS,
            FILE,
            help="certificates of authorities, in PEM",
            text="""They complete the chain of a certificate whose file has no issuers in it, and client
            certificates must come from them, unless there is `ssl-client-ca-file`.""",
            unset="none",
        ),
    )
    ssl_client_ca_file: str = field(
        default="",
        metadata=row(
            TLS,
            FILE,
            help="certificates of the authorities that client certificates must come from, in PEM",
            unset="those of ssl-ca-file",
        ),
    )
    ssl_verify_mode: str = field(
        default="none",
        metadata=row(
            TLS,
            VERIFICATION,
            choices=("none", "optional", "required"),
            help="whether clients are asked for a certificate",
            text="""`optional`: they may have none, but not a wrong one. The application finds in
            `SSL_CLIENT_VERIFY` what came of it. The numbers are those of the original: 0, 1, 3.""",
        ),
    )
    ssl_min_version: str = field(
        default="1.2",
        metadata=row(
            TLS,
            CHOICE,
            choices=("1.2", "1.3"),
            help="least version of TLS that is spoken",
            text="Older ones than 1.2 are not (RFC 8996).",
        ),
    )
    ssl_ciphers: str = field(
        default="ECDHE+AESGCM:ECDHE+CHACHA20",
        metadata=row(
            TLS,
            TEXT,
            help="ciphers of TLS 1.2, as a list for OpenSSL (openssl-ciphers(1))",
            text="""The default are those with forward secrecy and authenticated encryption. TLS 1.3 has its
            own, all of that kind.""",
        ),
    )
    log_level: str = field(
        default="info",
        metadata=row(
            LOGS,
            CHOICE,
            choices=("debug", "info", "warning", "error", "critical"),
            help="least severity of what the server reports",
            text="Reports go to standard error, and to the journal where systemd has connected it.",
        ),
    )
    access_log: str = field(
        default="",
        metadata=row(
            LOGS,
            PATH,
            help="""file that gets a line for every request; "-" is standard output""",
            text="Refused and killed requests appear too.",
            unset="no access log",
        ),
    )
    access_log_format: str = field(
        default="combined",
        metadata=row(
            LOGS,
            CHOICE,
            choices=("common", "combined", "json"),
            help="form of the access log's lines",
            text="`common` and `combined` are Apache's; `json` is one object a line.",
        ),
    )
    user: str = field(
        default="",
        metadata=row(
            PROCESS,
            TEXT,
            help="user the application runs as, by name or number",
            text="For a server that root starts. Under systemd prefer `User=` or `DynamicUser=` of the unit.",
            unset="the user who starts the server",
        ),
    )
    group: str = field(
        default="",
        metadata=row(
            PROCESS,
            TEXT,
            help="group the application runs as, by name or number",
            unset="the group of user, or of the one who starts the server",
        ),
    )
    umask: Optional[int] = field(
        default=None,
        metadata=row(
            PROCESS,
            MODE,
            low=0,
            high=0o777,
            help="permissions that files of the application do not get",
            text="Text in octal, or a TOML number with `0o` before it.",
            unset="as inherited",
        ),
    )
    control_socket: str = field(
        default="",
        metadata=row(
            PROCESS,
            PATH,
            reload=False,
            help="the socket that stardustctl talks to",
            text="""Unset, it is `control` in `$RUNTIME_DIRECTORY`; without such a directory, a file named
            after the configuration file in `/run/stardust` (root) or `$XDG_RUNTIME_DIR/stardust` (others).
            Without a configuration file either there is none, and the signals remain.""",
        ),
    )
    backlog: int = field(
        default=2048,
        metadata=row(
            LISTENERS,
            COUNT,
            low=1,
            high=65535,
            help="connections the kernel keeps waiting for a listener",
            text="""The kernel cuts it to `net.core.somaxconn`. Sockets from systemd bring their own
            (`Backlog=` of the socket unit).""",
        ),
    )
    ipv6: bool = field(
        default=True,
        metadata=row(
            LISTENERS,
            SWITCH,
            help="let the wildcard address take IPv6 as well as IPv4",
            text="Off, `:port` takes IPv4 only, and an IPv6 address is refused.",
        ),
    )
    store_connections: bool = field(
        default=False,
        metadata=row(
            LISTENERS,
            SWITCH,
            help="let idle connections outlive a restart of the service",
            text="""A server that stops gives connections without a request to systemd, and the next start
            takes them up: `systemctl restart` then ends no connection. Clients wait through it, and so does
            what they send. It takes a place in the unit's descriptor store for each connection, and one
            more: `FileDescriptorStoreMax=`. systemd closes what does not fit, and at the end of `systemctl
            stop` all of it, without the moment for one more request that an idle connection is left
            otherwise. Not without systemd, after a crash, or with `max-workers = 0`.""",
        ),
    )
    trusted_proxies: tuple[str, ...] = field(
        default=(),
        metadata=row(
            PROXY,
            PROXIES,
            help="""the proxies that are believed about their clients: addresses, networks, "unix:\"""",
            text="""`"unix:"` is whoever connects by a UNIX socket. What `forwarded-headers` names is believed
            if it comes from one of these, and removed if it comes from anybody else, as are all fields that
            pretend to know the client (X-Real-IP and its like). List the proxies, not the networks that
            clients come from: a client in a listed network can name any address.""",
            unset="nobody is believed",
        ),
    )
    forwarded_headers: tuple[str, ...] = field(
        default=FORWARDED_HEADERS[:2],
        metadata=row(
            PROXY,
            HEADERS,
            help="the header fields by which trusted proxies tell of their clients",
            text="""Name those that your proxies set on every request, and no others: what a proxy does not
            set, it passes on as the client sent it. `x-forwarded-for` becomes REMOTE_ADDR,
            `x-forwarded-proto` wsgi.url_scheme and HTTPS, `x-forwarded-host` HTTP_HOST and SERVER_NAME,
            `x-forwarded-port` SERVER_PORT, `x-forwarded-prefix` SCRIPT_NAME, which is taken off PATH_INFO if
            it is there. `forwarded`, alone, is the field of RFC 7239, which has address, scheme and host in
            one. What cannot be understood is answered 400.""",
        ),
    )
    proxy_hops: int = field(
        default=0,
        metadata=row(
            PROXY,
            COUNT,
            low=0,
            high=100,
            help="how many proxies there are one behind the other, 0 if their addresses tell",
            text="""0 walks the addresses in X-Forwarded-For, or Forwarded, from the last to the first, over
            those of `trusted-proxies`, and believes the first that is none of them. A number is for proxies
            whose addresses nobody knows beforehand: N takes the Nth address from the end. It is right only
            if no client can go around one of them.""",
        ),
    )
    proxy_protocol: bool = field(
        default=False,
        metadata=row(
            PROXY,
            SWITCH,
            help="whether trusted proxies begin their connections with a PROXY header",
            text="""Version 1 or 2 of the PROXY protocol: `send-proxy` of HAProxy, `proxy_protocol on` of
            nginx's stream module. On, a connection from one of `trusted-proxies` that begins otherwise is
            closed, and REMOTE_ADDR and REMOTE_PORT are what the header says. A header from anybody else is
            answered 400, like all that is no request. A listener can have its own: `proxy-protocol` of
            `[listen.NAME]`.""",
        ),
    )
    listen: tuple[Listen, ...] = ()
    """Empty: the sockets systemd hands over, and without any `DEFAULT_ADDRESS`."""
    source: str = ""
    """The file it was read from; "" for none."""

    def speaks_tls(self, name: str) -> bool:
        """Whether the connections of the listener of that name are TLS; it may have no table."""
        own = next((each.ssl for each in self.listen if each.name == name), None)
        return self.ssl if own is None else own

    def takes_introductions(self, listener: str) -> bool:
        """Whether trusted proxies begin their connections to this listener with a PROXY header."""
        own = {each.name: each.proxy_protocol for each in self.listen}.get(listener)
        return self.proxy_protocol if own is None else own


def _rows(of: type[Config | Listen]) -> tuple[Setting, ...]:
    """The table of a dataclass in the order of the manual: by section, then as declared."""
    found = [Setting(name=f.name, default=f.default, **f.metadata) for f in fields(of) if f.metadata]
    return tuple(sorted(found, key=lambda setting: SECTIONS.index(setting.section)))


SETTINGS = _rows(Config)
"""Every key of a file's top level; with "--" before it, every flag that bears a setting's name."""

LISTEN_SETTINGS = _rows(Listen)
"""Every key of a [listen.NAME] table."""


def needs_restart(old: Config, new: Config) -> tuple[str, ...]:
    """The keys whose new value a reload cannot take over."""
    changed = (each for each in SETTINGS if getattr(old, each.name) != getattr(new, each.name))
    return tuple(each.key for each in changed if not each.reload)


# ── Values as text ────────────────────────────────────────────────────────────────────────────────────


def amount(kind: Kind, number: float) -> str:
    """`number` in the largest unit of `kind` that it is a whole multiple of: "10ms", "5min", "64KiB"."""
    if kind is SECONDS and number:
        units = {name: round(size * 1000) for name, size in _DURATION_UNITS.items()}
        return _in_units(round(number * 1000), units)
    if kind is BYTES and number >= KIB:
        return _in_units(int(number), {"B": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB})
    return f"{int(number):04o}" if kind is MODE else f"{number:g}"


def _in_units(number: int, units: Mapping[str, int]) -> str:
    unit = max((name for name in units if number % units[name] == 0), key=lambda name: units[name])
    return f"{number // units[unit]}{unit}"


def toml(value: object, kind: Optional[Kind] = None) -> str:
    """`value` as TOML. With the kind of its setting, the text reads back as the same value."""
    if value is None:
        return '""'
    if kind is MODE:
        return f'"{value:04o}"'
    if kind is BYTES and isinstance(value, int) and value >= KIB and value % KIB == 0:
        return f'"{amount(kind, value)}"'
    if kind is PAIRS and isinstance(value, tuple):
        return toml(dict(value))
    return _plain_toml(value)


def _plain_toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, Address)):
        return _toml_text(str(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_plain_toml, value)) + "]"
    if isinstance(value, dict):
        pairs = ", ".join(f"{toml_key(name)} = {_plain_toml(item)}" for name, item in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    return str(value)


def toml_key(name: str) -> str:
    """`name` as a key: bare if TOML allows, else quoted."""
    return name if _BARE_KEY.fullmatch(name) else _toml_text(name)


def _toml_text(text: str) -> str:
    # JSON's string is a TOML basic string but for DEL, which TOML wants escaped, and for surrogate pairs,
    # which ensure_ascii would write.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _cut(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


# ── The way to the application's interpreter ──────────────────────────────────────────────────────────


def dump(config: Config) -> str:
    """`config` as one line of JSON."""
    return json.dumps(config, default=vars)


def load(text: str) -> Config:
    """The configuration that `dump` wrote, exactly. For our own text only: nothing is validated again."""
    values: dict[str, Value] = {name: _tuples(value) for name, value in json.loads(text).items()}
    values["listen"] = tuple(_load_listen(item) for item in values["listen"])
    return Config(**values)


def _load_listen(values: dict[str, Value]) -> Listen:
    address = values["address"]
    return Listen(**{**values, "address": None if address is None else Address(*address)})


def _tuples(value: Value) -> Value:
    """JSON knows lists only; every sequence of a configuration is a tuple."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
