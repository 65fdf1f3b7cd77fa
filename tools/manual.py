"""The example file and the manual pages, rendered from the table of settings; the catalog, from the events.

    python tools/manual.py example         > etc/stardust.toml.example
    python tools/manual.py stardust.8      > docs/man/stardust.8
    python tools/manual.py stardust.toml.5 > docs/man/stardust.toml.5
    python tools/manual.py stardustctl.1   > docs/man/stardustctl.1
    python tools/manual.py stardust.catalog > packaging/systemd/stardust.catalog

The results are committed; a test holds them equal to what this module renders. What a setting does is said in
`settings/table.py` and only there, what an event means in `logs/events.py`. What is said here must change
together with the flags (`config/arguments.py`), the signals (`docs/signals.md`), the exit codes
(`base/errors.py`) and `ctl.py`. Pure, but for `main`.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from stardust.base.errors import Exit
from stardust.logs.events import EVENTS, Event
from stardust.settings import table as settings
from stardust.settings.kinds import MODE, toml
from stardust.settings.row import Section, Setting

_WIDTH = 100
_CATALOG_WIDTH = 76  # journalctl puts "-- " before each line

# ── Texts that both forms share ───────────────────────────────────────────────────────────────────────


def paragraph(setting: Setting) -> str:
    """All that the table says about a setting, as sentences. `Backquotes` mark what is typed."""
    sentences = [_sentence(setting.help)]
    # "At least 0" says nothing: no count and no size is negative.
    if setting.kind is not MODE and (setting.low or setting.high):
        sentences.append(_sentence(setting.bounds().replace(" of ", " ").strip()))
    if setting.choices:
        sentences.append(f"One of {', '.join(f'`{choice}`' for choice in setting.choices)}.")
    if setting.unset:
        sentences.append(f"Default: {setting.unset}.")
    if setting.text:
        sentences.append(setting.text)
    if not setting.reload:
        sentences.append("A restart applies a new value, a reload does not.")
    return " ".join(sentences)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def of_section(section: Section) -> tuple[Setting, ...]:
    """The settings of a section, in their order."""
    return tuple(setting for setting in settings.SETTINGS if setting.section is section)


def _wrap(words: str, width: int, indent: str = "") -> list[str]:
    """Lines that keep keys and flags whole; all but the first are indented."""
    return textwrap.wrap(
        words, width, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )


_LISTEN_SAMPLE = """\
[listen.http]
address = "127.0.0.1:5000"

[listen.proxy]
address = "/run/myapp/http.sock"
group = "www-data"
mode = "0660"
""".splitlines()

_LISTEN_INTRODUCTION = """
The NAME of a [listen.NAME] table is the name of the listener in logs and for systemd. A file without such a
table serves the sockets that systemd passes; if there are none, the server listens on 127.0.0.1:5000. The
keys of a table:
"""


# ── The example file ──────────────────────────────────────────────────────────────────────────────────

_EXAMPLE_INTRODUCTION = """
The configuration of a stardust server, for `stardust --config FILE`. This file lists every setting with its
default. To change a setting, remove the "#" before its key. A relative path starts at the directory of this
file. `stardust --check-config --config FILE` finds mistakes; `systemctl reload` applies changes.
stardust.toml(5) has the same texts.
"""


def example() -> str:
    """`etc/stardust.toml.example`. A line that starts with "#" and a letter is a key; "# " is prose."""
    lines = _comment(_EXAMPLE_INTRODUCTION)
    for section in settings.SECTIONS:
        lines += ["", "", f"# ── {section.title} ".ljust(_WIDTH, "─"), "#", *_comment(section.text)]
        for setting in of_section(section):
            default = toml(setting.default, setting.kind)
            lines += ["", *_comment(paragraph(setting)), f"#{setting.key} = {default}"]
    lines += ["", *_comment(_LISTEN_INTRODUCTION)]
    for setting in settings.LISTEN_SETTINGS:
        lines += ["#", *_comment(f"{setting.key}: {paragraph(setting)}", indent="    ")]
    lines += ["#", "# For example:", "#", *(f"#     {line}".rstrip() for line in _LISTEN_SAMPLE)]
    return "\n".join(lines) + "\n"


def _comment(text: str, indent: str = "") -> list[str]:
    words = " ".join(text.replace("`", "").split())
    return [f"# {line}" for line in _wrap(words, _WIDTH - 2, indent)]


# ── man(7) ────────────────────────────────────────────────────────────────────────────────────────────


def _page(title: str, number: int, parts: Iterable[list[str]]) -> str:
    opening = [
        f'.\\" Made by "python tools/manual.py {title}.{number}". Change the texts there.',
        # No date: the page changes with the table, not with the calendar.
        f'.TH {title.upper()} {number} "" "stardust" "stardust manual"',
        # Left-adjusted and unhyphenated (groff_man(7), register HY): keys and flags stay whole.
        ".nr HY 0",
        ".ad l",
    ]
    return "\n".join([*opening, *(line for part in parts for line in part)]) + "\n"


def _heading(text: str) -> list[str]:
    return [f".SH {text.upper()}"]


def _prose(text: str) -> list[str]:
    return [".PP", *_lines(text)]


def _item(term: str, text: str) -> list[str]:
    return [".TP", _roff(f"`{term}`"), *_lines(text)]


def _verbatim(lines: Iterable[str]) -> list[str]:
    return [".PP", ".RS 4", ".EX", *(_roff(line, code=True) for line in lines), ".EE", ".RE"]


def _lines(text: str) -> list[str]:
    words = " ".join(text.split())
    return [_roff(line) for line in _wrapped_code(words)]


def _wrapped_code(words: str) -> list[str]:
    """`words` in lines; a backquoted piece is never cut, for its font begins and ends on one line."""
    glued = re.sub(r"`[^`]*`", lambda code: code[0].replace(" ", "\N{NO-BREAK SPACE}"), words)
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in _wrap(glued, _WIDTH)]


def _roff(line: str, code: bool = False) -> str:
    """One line of text for man(7): backquoted pieces bold, nothing taken for a request or an escape."""
    pieces = [line] if code else line.split("`")
    escaped = [piece.replace("\\", "\\e") for piece in pieces]
    marked = [
        # groff_char(7): a plain "-" is a hyphen; what is typed has minus signs.
        piece.replace("-", "\\-") if code or index % 2 else piece
        for index, piece in enumerate(escaped)
    ]
    text = "".join(f"\\fB{piece}\\fP" if index % 2 else piece for index, piece in enumerate(marked))
    return f"\\&{text}" if text.startswith((".", "'")) else text


# ── stardust(8) ───────────────────────────────────────────────────────────────────────────────────────

_DESCRIPTION = (
    """`stardust` serves a Python WSGI application over HTTP/1.1. A process called the zygote loads the
    application once, and the worker processes are forked from it. The supervisor, which is the unit's main
    process, replaces workers that end. It never loads the application itself.""",
    """The application runs in the interpreter that `python` names, usually that of its virtual
    environment. Every reload starts a fresh interpreter beside the old one, and replaces the workers one by
    one. If the new code does not load, the old code keeps serving.""",
    """Settings come from a TOML file, from flags, or from both; flags override the file. Prefer the file,
    stardust.toml(5).""",
)

_COMMANDS = (
    ("stardust myapp.wsgi:application", "Serve on 127.0.0.1:5000."),
    ("stardust --port=80 --max-workers=4 myapp:app", "Serve on every interface."),
    ("stardust --config /etc/stardust/myapp.toml", "Serve as the file says."),
    ("stardust --config FILE --check-config", "Only check the file for mistakes."),
)

_OTHER_OPTIONS = (
    ("--config FILE", "Read settings from this TOML file, at start and at every reload."),
    ("--check-config", "Check the configuration and exit."),
    (
        "--check-config --load",
        "Load the application too, in a process of its own, and say whether it can be preloaded.",
    ),
    ("--print-config", "Print every setting as TOML, with its origin, and exit."),
    ("--version", "Print the version and exit."),
    ("--help, -h", "Print the flags and exit."),
)

_ADDRESS_OPTIONS = (
    (
        "--listen=[NAME=]ADDRESS, -l",
        "Listen on `host:port`, `[v6]:port`, `:port`, a path or `@abstract`. May be repeated.",
    ),
    (
        "--host=HOST, -o; --port=PORT, -p",
        "Listen on a host and a port. The default is port 5000, and every interface.",
    ),
    ("--socket=PATH, -S", "Listen on a UNIX socket. `@NAME` is an abstract one. May be repeated."),
)

_OPTIONS_INTRODUCTION = """
Every setting of stardust.toml(5) is also a flag: `--max-workers=10` or `--max-workers 10`. A flag whose
setting is a list may be repeated. To turn a setting on, write `--preload` or `--preload=1`; to turn it off,
`--no-preload` or `--preload=0`. `--workers` is another name of `--max-workers`. A relative path starts at the
current directory. If any flag gives an address, the flags replace all listeners of the file.
"""

_SIGNALS = (
    (
        "TERM, INT",
        "Stop: finish the requests being served, for at most `graceful-timeout`. A second one stops at once.",
    ),
    ("QUIT", "Stop at once."),
    ("HUP", "Reload configuration and application. To wait for the result, use stardustctl(1)."),
    ("TTIN, TTOU", "Add one worker, remove one worker, until the next reload."),
    ("USR1", "Reopen the log files."),
)

_EXIT_CODES = (
    (Exit.OK, "Stopped on request, or idle for `idle-timeout`."),
    (Exit.FAILURE, "A failure that another start may cure: an address in use, a system call that failed."),
    (Exit.USAGE, "The command line is wrong."),
    (Exit.APPLICATION, "The application could not be loaded at the start."),
    (Exit.CONFIG, "A setting is wrong, or the sockets from systemd do not match the settings."),
)

_SYSTEMD = """
The server notifies systemd when all workers have loaded the application (`Type=notify`), when it reloads,
and when it stops. It answers the watchdog (`WatchdogSec=`) as long as at least one worker is well. It serves
the sockets of socket units; `FileDescriptorName=NAME` belongs to `[listen.NAME]`. `ExecReload=` is
`stardustctl reload`, so `systemctl reload` fails if the new code does not load. Messages are records of the
journal, with fields. Query them with `journalctl -u stardust@NAME -p err` or `STARDUST_WORKER=3`; `-x`
explains them.
"""

_STORE = """
With `FileDescriptorStoreMax=` in the unit, listeners that the server binds itself outlive it like those of a
socket unit. systemd keeps them: after a crash and during `systemctl restart` connections wait in them, and
the next start uses them again if the configuration still has their address. `systemctl stop` closes them.
The file of a UNIX socket stays when the server ends, and the next start replaces it if it is stale. systemd
removes files in `RuntimeDirectory=` at every restart, so a socket there is bound anew.
"""

_CONNECTIONS = """
With `store-connections = true`, systemd also keeps the idle connections when the server stops, one place
each, and the next start serves them. If there are many, raise `FileDescriptorStoreMax=` and `LimitNOFILE=`.
systemd can pass to a starting service only as many as its soft limit allows; the server closes the rest.
"""

_CREDENTIALS = """
A setting that names a file to read, such as `env-file`, also accepts `credential:NAME`: the credential that
`LoadCredential=NAME:PATH` in the unit passes to the service, in `$CREDENTIALS_DIRECTORY`. The application
runs as the same user and can read it. systemd passes credentials at the start; a reload gets new ones only
with `RefreshOnReload=credentials` (systemd 260). Outside the service, `--check-config` finds no credentials,
and says so.
"""

_FILES = (
    ("/etc/stardust/NAME.toml", "The configuration of `stardust@NAME.service`."),
    ("/run/stardust/NAME/control", "The control socket of `stardust@NAME.service`."),
)


def stardust_8() -> str:
    """The manual page of the server."""
    flags = [
        _item(f"--{setting.key}={setting.kind.shape}", _sentence(setting.help))
        for section in settings.SECTIONS
        for setting in of_section(section)
    ]
    parts = [
        _heading("name"),
        ["stardust \\- serve a Python WSGI application over HTTP/1.1"],
        _heading("synopsis"),
        _lines("`stardust` [`--config` FILE] [OPTION ...] [APP]"),
        _heading("description"),
        *map(_prose, _DESCRIPTION),
        *(_item(command, text) for command, text in _COMMANDS),
        _heading("options"),
        *(_item(option, text) for option, text in _OTHER_OPTIONS),
        _prose(_OPTIONS_INTRODUCTION),
        *(_item(option, text) for option, text in _ADDRESS_OPTIONS),
        *flags,
        _heading("signals"),
        *(_item(signal, text) for signal, text in _SIGNALS),
        _heading("exit status"),
        *(_item(str(int(code)), text) for code, text in _EXIT_CODES),
        _heading("systemd"),
        _prose(_SYSTEMD),
        _prose(_STORE),
        _prose(_CONNECTIONS),
        _prose(_CREDENTIALS),
        _heading("files"),
        *(_item(path, text) for path, text in _FILES),
        _heading("see also"),
        _lines("stardust.toml(5), stardustctl(1), systemd.socket(5), systemd.service(5)"),
    ]
    return _page("stardust", 8, parts)


# ── stardust.toml(5) ──────────────────────────────────────────────────────────────────────────────────

_FORMAT = """
The file is TOML in UTF-8. A key has the name of the flag: `--max-workers=10` is `max-workers = 10`. A
relative path starts at the directory of the file. An unknown key is an error. `stardust --check-config
--config FILE` reports all mistakes in a file, each with its line.
"""

_EXAMPLE_FILE = (
    'app = "myapp.wsgi:application"',
    'chdir = "/srv/myapp"',
    'python = "/srv/myapp/.venv/bin/python"',
    "max-workers = 4",
    "max-keepalive-reqs = 100",
    "",
    "[environment]",
    'DJANGO_SETTINGS_MODULE = "myapp.settings"',
    "",
    *_LISTEN_SAMPLE,
)


def stardust_toml_5() -> str:
    """The manual page of the configuration file."""
    parts = [
        _heading("name"),
        ["stardust.toml \\- configuration of the stardust server"],
        _heading("description"),
        _prose(_FORMAT),
        _verbatim(_EXAMPLE_FILE),
    ]
    for section in settings.SECTIONS:
        parts += [_heading(section.title), _prose(section.text)]
        for setting in of_section(section):
            default = toml(setting.default, setting.kind)
            parts.append(_item(f"{setting.key} = {default}", paragraph(setting)))
    parts.append(_prose(_LISTEN_INTRODUCTION))
    parts += [_item(setting.key, paragraph(setting)) for setting in settings.LISTEN_SETTINGS]
    parts += [_heading("see also"), _lines("stardust(8), stardustctl(1), systemd.socket(5)")]
    return _page("stardust.toml", 5, parts)


# ── stardustctl(1) ────────────────────────────────────────────────────────────────────────────────────

_CTL_COMMANDS = (
    (
        "reload",
        """Load configuration and application again, and wait until the new workers serve. If that fails,
        print the reason and the application's traceback; the old workers keep serving.""",
    ),
    ("status [--json]", "Print the state of the server and of its workers, for people or as a JSON object."),
    ("stop", "Stop the server: let it finish its requests, and wait until it has ended."),
)

_CTL_OPTIONS = (
    ("--config FILE", "Talk to the server that was started with this configuration file."),
    ("--socket PATH", "Talk to the server with this control socket."),
)

_CTL_DESCRIPTION = """
`stardustctl` talks to a running stardust(8) over its control socket. Only root, and the user the server
runs as, may do so. Without an option, the socket is `control` in `$RUNTIME_DIRECTORY`.

If the unit runs it, as in `ExecReload=`, it believes only the process `$MAINPID`, and prints only the result:
the server's log has the rest.
"""

_CTL_EXIT_CODES = (
    (Exit.OK, "Done."),
    (Exit.FAILURE, "The command failed, or no server answered."),
    (Exit.USAGE, "The command line is wrong."),
)


def stardustctl_1() -> str:
    """The manual page of the control command."""
    parts = [
        _heading("name"),
        ["stardustctl \\- reload, inspect or stop a stardust server"],
        _heading("synopsis"),
        _lines("`stardustctl` [`--config` FILE | `--socket` PATH] `reload` | `status` [`--json`] | `stop`"),
        _heading("description"),
        _prose(_CTL_DESCRIPTION),
        _heading("commands"),
        *(_item(command, text) for command, text in _CTL_COMMANDS),
        _heading("options"),
        *(_item(option, text) for option, text in _CTL_OPTIONS),
        _heading("exit status"),
        *(_item(str(int(code)), text) for code, text in _CTL_EXIT_CODES),
        _heading("see also"),
        _lines("stardust(8), stardust.toml(5)"),
    ]
    return _page("stardustctl", 1, parts)


# ── The journal's catalog ─────────────────────────────────────────────────────────────────────────────

_CATALOG_INTRODUCTION = """
What journalctl -x says below a message of stardust. Install in /usr/lib/systemd/catalog, then run
journalctl --update-catalog. Made by "python tools/manual.py stardust.catalog"; change
stardust/logs/events.py.
"""


def catalog() -> str:
    """The message catalog (https://systemd.io/CATALOG/): an entry for each event."""
    lines = [*_comment(_CATALOG_INTRODUCTION), *(line for event in EVENTS for line in _entry(event))]
    return "\n".join(lines) + "\n"


def _entry(event: Event) -> list[str]:
    paragraphs = (_wrap(" ".join(text.split()), _CATALOG_WIDTH) for text in event.text.split("\n\n"))
    return [
        "",
        f"-- {event.id}",
        f"Subject: {event.subject}",
        "Defined-By: stardust",
        "Documentation: man:stardust(8)",
        *(line for paragraph in paragraphs for line in ["", *paragraph]),
    ]


# ── Command ───────────────────────────────────────────────────────────────────────────────────────────

TEXTS: Mapping[str, Callable[[], str]] = MappingProxyType(
    {
        "example": example,
        "stardust.8": stardust_8,
        "stardust.toml.5": stardust_toml_5,
        "stardustctl.1": stardustctl_1,
        "stardust.catalog": catalog,
    }
)
"""What can be rendered, by the name that the command knows."""


def main(argv: list[str]) -> int:
    """Print the text that `argv` names."""
    if len(argv) != 1 or argv[0] not in TEXTS:
        sys.stderr.write(f"usage: python tools/manual.py {' | '.join(TEXTS)}\n")
        return Exit.USAGE
    sys.stdout.write(TEXTS[argv[0]]())
    return Exit.OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
