"""Who is measured: one row a server. No access log; one worker process, if the name says nothing else.

In `command`, {app} is the load's application, {port} a free port of 127.0.0.1, {scratch} an empty folder; it
runs in this folder. Each peer has the settings its own documentation recommends for the load; `note` says so
in the table. Changing a row means: all figures before it are of another server.
"""

from __future__ import annotations

from typing import NamedTuple


class Server(NamedTuple):
    """`version` is a command that prints one line. `loads` are the loads that the server can bear: names of
    loads.py, "waits" (waits.py), "idle" (idle.py), "hostile" (hostile.py)."""

    name: str
    note: str
    version: tuple[str, ...]
    command: tuple[str, ...]
    loads: tuple[str, ...]


def _stardust(name: str, note: str, loads: tuple[str, ...], *options: str, workers: int = 1) -> Server:
    common = ("stardust", "{app}", "--listen", "127.0.0.1:{port}", "--control-socket", "{scratch}/control")
    pool = ("--max-workers", str(workers))
    return Server(name, note, ("stardust", "--version"), (*common, *pool, *options), loads)


def _gunicorn(name: str, note: str, loads: tuple[str, ...], *options: str, workers: int = 1) -> Server:
    common = ("gunicorn", "{app}", "--bind", "127.0.0.1:{port}", "--no-control-socket")
    pool = ("--workers", str(workers))
    return Server(name, note, ("gunicorn", "--version"), (*common, *pool, *options), loads)


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
    _stardust(
        "stardust-2-workers",
        "as the first row",
        ("waits", "hostile"),
        "--max-keepalive-reqs=0",
        "--max-reqs-per-child=0",
        workers=2,
    ),
    _stardust(
        "stardust-2-workers-4-threads",
        "the same with application threads",
        ("waits",),
        "--max-keepalive-reqs=0",
        "--max-reqs-per-child=0",
        "--threads=4",
        workers=2,
    ),
    _gunicorn(
        "gunicorn-2-workers-4-threads",
        "gunicorn-gthread with another worker",
        ("waits",),
        "--worker-class=gthread",
        "--threads=4",
        "--http-parser=python",
        workers=2,
    ),
    Server(
        "puma-2-workers-5-threads",
        "Debian's, with its own default of threads; long.ru. A thread stays up to 0.2 s with a connection "
        "that it has answered, in case it asks again",
        ("puma", "--version"),
        (
            *("puma", "--bind", "tcp://127.0.0.1:{port}", "--environment", "production"),
            *("--workers", "2", "--threads", "5:5", "--preload", "long.ru"),
        ),
        ("waits",),
    ),
    _gunicorn(
        "gunicorn-5000-connections",
        "gunicorn-2-workers-4-threads with room for all connections",
        ("hostile",),
        "--worker-class=gthread",
        "--threads=4",
        "--http-parser=python",
        "--worker-connections=5000",
        workers=2,
    ),
    Server(
        "waitress-5000-connections",
        "one process, which is how it works, with its own default of threads and room for all connections",
        ("python", "-c", "import importlib.metadata as m; print('waitress', m.version('waitress'))"),
        (
            *("waitress-serve", "--listen=127.0.0.1:{port}", "--threads=4"),
            *("--connection-limit=5000", "--asyncore-use-poll", "{app}"),
        ),
        ("hostile",),
    ),
    _stardust(
        "stardust-4-workers",
        "no timer of a connection ends while it is watched, and no heartbeat, which wakes idle workers too",
        ("idle",),
        "--max-keepalive-reqs=0",
        "--max-reqs-per-child=0",
        "--keepalive-timeout=3600",
        "--header-timeout=1",
        "--heartbeat-timeout=0",
        workers=4,
    ),
)
