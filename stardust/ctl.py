"""stardustctl: ask a running server to reload, to tell its status, to stop.

    stardustctl [--config FILE | --socket PATH] reload | status [--json] | stop

`ExecReload=` runs it, so it must start in a blink: it loads no server code, and of the configuration it reads
`control-socket` only. A file that is broken does not stop it: the server is asked all the same, and its
verdict on the reload says what is wrong with the file.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence

from stardust import __version__
from stardust.base import streams, system
from stardust.base.errors import ControlError, Exit, StardustError
from stardust.control import address, client

SECONDS_A_MINUTE = 60
SECONDS_AN_HOUR = 3600
SECONDS_A_DAY = 86400

COLUMNS = ("ID", "PID", "GEN", "STATE", "REQUESTS", "FOR", "REQUEST")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. The exit code: 0, 1 if the server said no or is not there, 2 for wrong usage."""
    streams.ensure()
    options = _parser().parse_args(argv)
    try:
        return _run(options)
    except StardustError as error:
        print(f"stardustctl: {error}", file=sys.stderr)
        return error.exit
    except KeyboardInterrupt:
        # What the shell says of a process that SIGINT ended: 128 + 2.
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="stardustctl", description="Control a running stardust server.", allow_abbrev=False
    )
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--config", metavar="FILE", default="", help="the configuration file of the server")
    place.add_argument("--socket", metavar="PATH", default="", help="the server's control socket")
    parser.add_argument("--json", action="store_true", help="print the status as JSON")
    parser.add_argument("--version", action="version", version=f"stardustctl {__version__}")
    parser.add_argument(
        "command",
        choices=("reload", "status", "stop"),
        help="reload: load new code and settings, and wait until they serve. "
        "status: print the state of the server and of its workers. "
        "stop: stop the server, and wait until it has ended.",
    )
    return parser


def _run(options: argparse.Namespace) -> int:
    server = _main_process(os.environ)
    # Run by the unit, it writes to where the server's log goes, which has the rest, and whole.
    brief = server is not None
    sock = client.connect(_paths(options), server)
    answer = client.ask(
        sock, options.command, _ignore if brief else _tell, until_gone=options.command == "stop"
    )
    if not answer.ok:
        print(f"stardustctl: {options.command} failed: {printable(answer.reason)}", file=sys.stderr)
        if answer.detail and not brief:
            print(printable(answer.detail, keep="\n\t").rstrip("\n"), file=sys.stderr)
        return Exit.FAILURE
    if options.command == "status":
        _print_status(answer.data, as_json=options.json)
    elif answer.reason:
        print(printable(answer.reason))
    return Exit.OK


def _main_process(environ: Mapping[str, str]) -> int | None:
    """$MAINPID, which systemd gives to ExecReload= and its like (systemd.exec(5)); None elsewhere."""
    pid = environ.get("MAINPID", "")
    return int(pid) if pid.isdecimal() else None


def _paths(options: argparse.Namespace) -> list[str]:
    """Where the control socket may be, best first. ControlError if there is nowhere to look."""
    if options.socket:
        return [options.socket]
    setting = _control_socket(options.config) if options.config else ""
    paths = address.candidates(options.config, setting, os.environ, os.geteuid())
    if paths:
        return paths
    if not options.config:
        raise ControlError("which server? Give --config FILE or --socket PATH")
    raise ControlError(f"{options.config}: it sets no control-socket, and $XDG_RUNTIME_DIR is not set")


def _control_socket(path: str) -> str:
    """The file's `control-socket`, "" if it has none or cannot be read: the server says what is wrong."""
    try:
        setting = tomllib.loads(system.read_file(path).decode()).get("control-socket", "")
    except (OSError, ValueError):
        return ""
    return setting if isinstance(setting, str) else ""


def _tell(progress: str) -> None:
    print(printable(progress), file=sys.stderr, flush=True)


def _ignore(progress: str) -> None:
    pass


def _print_status(data: object, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(data, indent=2))
    else:
        print(table(data if isinstance(data, dict) else {}))


def table(status: Mapping[str, object]) -> str:
    """The status for people. Pure. A server of another version may lack any part of it: that stays blank."""
    lines = [
        _joined("stardust", _text(status, "version"), _text(status, "state")),
        _line("pid", _text(status, "pid")),
        _line("generation", _text(status, "generation")),
        _line("uptime", duration(status.get("uptime"))),
        _line(
            "workers", ", ".join(f"{_text(status, key) or '?'} {key}" for key in ("ready", "busy", "total"))
        ),
        _line("reload", _reload(_mapping(status.get("reload")))),
    ]
    holds = _preload(_mapping(status.get("preload")))
    lines += [_line("preload" if not at else "", text) for at, text in enumerate(holds)]
    lines += [
        _line("listener", _joined(_text(row, "name"), _text(row, "address")))
        for row in _rows(status, "listeners")
    ]
    workers = [_worker(row) for row in _rows(status, "workers")]
    if workers:
        lines += ["", *_columns([COLUMNS, *workers])]
    return "\n".join(lines)


def _worker(row: Mapping[str, object]) -> tuple[str, ...]:
    running = _text(row, "request")
    plain = [_text(row, key) for key in ("id", "pid", "generation", "state", "requests")]
    return (*plain, duration(row.get("running")) if running else "", running)


def _preload(row: Mapping[str, object]) -> list[str]:
    """What speaks against it: a line each, and what follows; nothing if nothing does."""
    holds = row.get("holds")
    if not isinstance(holds, list) or not holds:
        return []
    verdict = "no, each worker loads for itself" if row.get("apart") else "yes, in spite of"
    return [f"{verdict}:", *(f"  {printable(str(each))}" for each in holds)]


def _reload(last: Mapping[str, object]) -> str:
    at = last.get("at")
    when = (
        time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
        if isinstance(at, (int, float))
        else _text(last, "at")
    )
    parts = (_text(last, "state"), when, _text(last, "reason"))
    return ", ".join(part for part in parts if part) or "none yet"


def duration(seconds: object) -> str:
    """Seconds as people say them: "0.4 s", "2 min 5 s", "3 h 12 min", "4 d 1 h"; "" for what is not a
    number."""
    if not isinstance(seconds, (int, float)):
        return ""
    if seconds < SECONDS_A_MINUTE:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < SECONDS_AN_HOUR:
        return f"{whole // SECONDS_A_MINUTE} min {whole % SECONDS_A_MINUTE} s"
    if whole < SECONDS_A_DAY:
        return f"{whole // SECONDS_AN_HOUR} h {whole % SECONDS_AN_HOUR // SECONDS_A_MINUTE} min"
    return f"{whole // SECONDS_A_DAY} d {whole % SECONDS_A_DAY // SECONDS_AN_HOUR} h"


def printable(text: str, keep: str = "") -> str:
    """`text` without what a terminal would obey: request targets come from strangers."""
    return "".join(char if char.isprintable() or char in keep else ascii(char)[1:-1] for char in text)


def _line(label: str, text: str) -> str:
    return f"  {label + ':':<12} {text}".rstrip()


def _joined(*words: str) -> str:
    return " ".join(word for word in words if word)


def _text(row: Mapping[str, object], key: str) -> str:
    value = row.get(key)
    return "" if value is None else printable(str(value))


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _rows(status: Mapping[str, object], key: str) -> list[Mapping[str, object]]:
    value = status.get(key)
    return [_mapping(row) for row in value] if isinstance(value, list) else []


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


if __name__ == "__main__":
    sys.exit(main())
