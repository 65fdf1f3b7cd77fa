"""Who is measured: one row a server. Every one has one worker process and no access log.

In `command`, {app} is the load's application, {port} a free port of 127.0.0.1, {scratch} an empty folder; it
runs in this folder. Each peer has the settings its own documentation recommends for the load; `note` says so
in the table. Changing a row means: all figures before it are of another server.
"""

from __future__ import annotations

from typing import NamedTuple


class Server(NamedTuple):
    """`version` is a command that prints one line. `loads` are names of loads.py that the server can bear."""

    name: str
    note: str
    version: tuple[str, ...]
    command: tuple[str, ...]
    loads: tuple[str, ...]


def _stardust(name: str, note: str, loads: tuple[str, ...], *options: str) -> Server:
    common = ("stardust", "{app}", "--listen", "127.0.0.1:{port}", "--control-socket", "{scratch}/control")
    return Server(name, note, ("stardust", "--version"), (*common, "--max-workers", "1", *options), loads)


def _gunicorn(name: str, note: str, loads: tuple[str, ...], *options: str) -> Server:
    common = ("gunicorn", "{app}", "--bind", "127.0.0.1:{port}", "--no-control-socket")
    return Server(name, note, ("gunicorn", "--version"), (*common, "--workers", "1", *options), loads)


# gunicorn's sync worker answers every request with `Connection: close`.
SERVERS = (
    _stardust(
        "stardust",
        "no limit of requests for connections and workers, as the peers have none by default",
        ("keep-alive", "connection"),
        "--max-keepalive-reqs=0",
        "--max-reqs-per-child=0",
    ),
    _stardust(
        "stardust-defaults",
        "one request a connection, a fresh worker every 1000 requests: forks and exits are in the figure",
        ("connection",),
    ),
    _gunicorn("gunicorn-sync", "as `pip install gunicorn` gives it", ("connection",), "--http-parser=python"),
    _gunicorn(
        "gunicorn-gthread",
        "as `pip install gunicorn` gives it",
        ("keep-alive", "connection"),
        "--worker-class=gthread",
        "--threads=4",
        "--http-parser=python",
    ),
    _gunicorn("gunicorn-sync-h1c", "with its optional parser in C", ("connection",), "--http-parser=fast"),
    _gunicorn(
        "gunicorn-gthread-h1c",
        "with its optional parser in C",
        ("keep-alive", "connection"),
        "--worker-class=gthread",
        "--threads=4",
        "--http-parser=fast",
    ),
    Server(
        "floor",
        "no server: a Python loop of epoll, recv, send (floor.py)",
        ("python", "--version"),
        ("python", "floor.py", "{port}"),
        ("keep-alive", "connection"),
    ),
)
