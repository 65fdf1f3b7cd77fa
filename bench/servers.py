"""Who is measured: one row a server. No access log; one worker process, if the name says nothing else.

In a command, {app} is the load's application, {module} its module, {port} a free port of 127.0.0.1, {scratch}
an empty folder; it runs in this folder. Each peer has the settings its own documentation recommends for the
load; `note` says so in the table. Changing a row means: all figures before it are of another server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Server(NamedTuple):
    """`version` is a command that prints one line. `loads` are the loads that the server can bear: names of
    loads.py, "waits" (waits.py), "idle" (idle.py), "hostile" (hostile.py), "memory" (memory.py),
    those of start.py and of scale.py.

    `ways` are commands for other ways to be asked: "unix" at {scratch}/socket, "tls" with
    {scratch}/certificate.pem and key.pem, "log" with an access log. `cannot` says why a load is not among
    `loads`, where that is not clear from the row.
    """

    name: str
    note: str
    version: tuple[str, ...]
    command: tuple[str, ...]
    loads: tuple[str, ...]
    ways: Mapping[str, tuple[str, ...]] = {}
    cannot: Mapping[str, str] = {}

    def asked(self, way: str) -> tuple[str, ...]:
        """The command for a way; "plain" is TCP."""
        return self.command if way == "plain" else self.ways[way]


KEPT = ("keep-alive", "minimal")
FIXED = ("post", "upload", "64-kib", "10-mib")
SIZES = (*FIXED, "stream")
APPLICATIONS = ("file", "flask", "django")
WAYS = ("unix", "tls", "access-log")

CERTIFICATE, KEY = "{scratch}/certificate.pem", "{scratch}/key.pem"
NO_TLS = {"tls": "has no TLS"}
PERL = dict.fromkeys(APPLICATIONS, "is for Perl")


def _stardust(name: str, note: str, loads: tuple[str, ...], *options: str, workers: int = 1) -> Server:
    def command(address: str) -> tuple[str, ...]:
        common = ("stardust", "{app}", "--listen", address, "--control-socket", "{scratch}/control")
        return (*common, "--max-workers", str(workers), *options)

    plain = command("127.0.0.1:{port}")
    ways = {
        "unix": command("{scratch}/socket"),
        "tls": (*plain, "--ssl=1", f"--ssl-cert-file={CERTIFICATE}", f"--ssl-key-file={KEY}"),
        "log": (*plain, "--access-log={scratch}/access.log", "--access-log-format=combined"),
    }
    return Server(name, note, ("stardust", "--version"), plain, loads, ways)


def _gunicorn(name: str, note: str, loads: tuple[str, ...], *options: str, workers: int = 1) -> Server:
    def command(address: str) -> tuple[str, ...]:
        common = ("gunicorn", "{app}", "--bind", address, "--no-control-socket")
        return (*common, "--workers", str(workers), *options)

    plain = command("127.0.0.1:{port}")
    ways = {
        "unix": command("unix:{scratch}/socket"),
        "tls": (*plain, f"--certfile={CERTIFICATE}", f"--keyfile={KEY}"),
        "log": (*plain, "--access-logfile={scratch}/access.log"),
    }
    return Server(name, note, ("gunicorn", "--version"), plain, loads, ways)


def _uwsgi(
    name: str,
    note: str,
    loads: tuple[str, ...],
    *options: str,
    cannot: Mapping[str, str] | None = None,
    **ways: tuple[str, ...],
) -> Server:
    """`options` for TCP, `ways` for others; before them what its documentation recommends for all."""
    common = (
        *("uwsgi", "--master", "--die-on-term", "--need-app", "--single-interpreter", "--vacuum"),
        *("--module", "{app}"),
    )
    quiet = (*common, "--disable-logging")
    commands = {way: (*(common if way == "log" else quiet), *other) for way, other in ways.items()}
    return Server(name, note, _version("uwsgi"), (*quiet, *options), loads, commands, cannot or {})


def _version(distribution: str) -> tuple[str, ...]:
    """For servers whose command does not tell it."""
    return (
        "python",
        "-c",
        f"import importlib.metadata as m; print('{distribution}', m.version('{distribution}'))",
    )


def _starlet(*options: str) -> tuple[str, ...]:
    return (
        *("env", "APP={app}", "plackup", "--server", "Starlet", "--env", "production"),
        *("--host", "127.0.0.1", "--port", "{port}", "--max-workers=1"),
        *("--max-keepalive-reqs=1000000000", "--max-reqs-per-child=1000000000", *options, "{module}.psgi"),
    )


def _starman(*options: str) -> tuple[str, ...]:
    return (
        *("env", "APP={app}", "starman", "--env", "production", "--workers", "1"),
        *("--max-requests=1000000000", *options, "{module}.psgi"),
    )


_GRANIAN = ("granian", "{app}", "--interface", "wsgi", "--workers", "1", "--blocking-threads", "1")
_UVICORN = ("env", "APP={app}", "uvicorn", "asgi:application")


# gunicorn's sync worker answers every request with `Connection: close`.
SERVERS = (
    _stardust(
        "stardust",
        "no limit of requests for connections and workers, as the peers have none by default",
        (*KEPT, "connection", *SIZES, *APPLICATIONS, *WAYS, "scale-cores", "scale-workers"),
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
        (*KEPT, "connection", *SIZES, *APPLICATIONS, *WAYS),
        "--worker-class=gthread",
        "--threads=4",
        "--http-parser=python",
    ),
    _gunicorn("gunicorn-sync-h1c", "with its optional parser in C", ("connection",), "--http-parser=fast"),
    _gunicorn(
        "gunicorn-gthread-h1c",
        "with its optional parser in C",
        (*KEPT, "connection"),
        "--worker-class=gthread",
        "--threads=4",
        "--http-parser=fast",
    ),
    _uwsgi(
        "uwsgi-http-socket",
        "its own HTTP, which answers once a connection; it does not say so, and wrk calls each end a failure",
        ("connection",),
        *("--http-socket", "127.0.0.1:{port}"),
    ),
    _uwsgi(
        "uwsgi-http11-socket",
        "its own HTTP with keep-alive: its worker stays with a connection until that ends",
        (*KEPT, *FIXED, *APPLICATIONS, "unix", "access-log"),
        *("--http11-socket", "127.0.0.1:{port}"),
        cannot={"stream": "neither tells the length of a response nor ends it"},
        unix=("--http11-socket", "{scratch}/socket"),
        log=("--http11-socket", "127.0.0.1:{port}", "--req-logger", "file:{scratch}/access.log"),
    ),
    _uwsgi(
        "uwsgi-router",
        "its HTTP router, a process of its own, before the worker: what it recommends without another proxy. "
        "It closes without a word where it is asked to close, and wrk calls that a failure",
        (*KEPT, "connection", "stream", "tls"),
        *("--http", "127.0.0.1:{port}", "--http-keepalive", "--http-auto-chunked"),
        tls=("--https", f"127.0.0.1:{{port}},{CERTIFICATE},{KEY}", "--http-keepalive"),
    ),
    Server(
        "granian",
        "one thread for the application, as it recommends for answers of about a millisecond",
        ("granian", "--version"),
        (*_GRANIAN, "--port", "{port}"),
        (*KEPT, "connection", *SIZES, *APPLICATIONS, *WAYS),
        {
            "unix": (*_GRANIAN, "--uds", "{scratch}/socket"),
            "tls": (*_GRANIAN, "--port", "{port}", "--ssl-certificate", CERTIFICATE, "--ssl-keyfile", KEY),
            "log": (*_GRANIAN, "--port", "{port}", "--access-log"),
        },
    ),
    Server(
        "bjoern",
        "as its README starts it (serve_bjoern.py)",
        _version("bjoern"),
        ("python", "serve_bjoern.py", "{app}", "127.0.0.1", "{port}"),
        (*KEPT, "connection", *SIZES, *APPLICATIONS, "unix"),
        {"unix": ("python", "serve_bjoern.py", "{app}", "unix:{scratch}/socket")},
        {**NO_TLS, "access-log": "has none"},
    ),
    Server(
        "waitress",
        "as `pip install waitress` gives it: one process, four threads",
        _version("waitress"),
        ("waitress-serve", "--listen=127.0.0.1:{port}", "{app}"),
        (*KEPT, "connection", *SIZES, *APPLICATIONS, "unix"),
        {"unix": ("waitress-serve", "--unix-socket={scratch}/socket", "{app}")},
        {**NO_TLS, "access-log": "has none, and recommends a middleware"},
    ),
    Server(
        "cheroot",
        "as `pip install cheroot` gives it: one process, ten threads",
        _version("cheroot"),
        ("python", "-m", "cheroot", "{app}", "--bind", "127.0.0.1:{port}"),
        (*KEPT, "connection", *SIZES, *APPLICATIONS, "tls"),
        {"tls": ("python", "serve_cheroot.py", "{app}", "{port}", CERTIFICATE, KEY)},
        {"access-log": "has none", "unix": "and h2load do not come to an end together"},
    ),
    Server(
        "uvicorn-a2wsgi",
        "`uvicorn[standard]`: httptools, uvloop; a2wsgi with its own default of ten threads (asgi.py)",
        ("uvicorn", "--version"),
        (*_UVICORN, "--port", "{port}", "--no-access-log"),
        (*KEPT, "connection", *SIZES, *APPLICATIONS, *WAYS),
        {
            "unix": (*_UVICORN, "--uds", "{scratch}/socket", "--no-access-log"),
            "tls": (
                *(*_UVICORN, "--port", "{port}", "--no-access-log"),
                *("--ssl-certfile", CERTIFICATE, "--ssl-keyfile", KEY),
            ),
            "log": (*_UVICORN, "--port", "{port}"),
        },
    ),
    Server(
        "starman",
        "Debian's; no limit of requests for workers, as in the first row",
        ("perl", "-MStarman", "-e", 'print "starman $Starman::VERSION on perl $^V\n"'),
        _starman("--listen", "127.0.0.1:{port}"),
        (*KEPT, "connection", *SIZES, "unix", "access-log"),
        {
            "unix": _starman("--listen", "{scratch}/socket"),
            "log": _starman("--listen", "127.0.0.1:{port}", "--access-log", "{scratch}/access.log"),
        },
        {**PERL, "tls": "calls its TLS experimental"},
    ),
    Server(
        "starlet",
        "Debian's; no limit of requests for connections and workers, as in the first row",
        ("perl", "-MStarlet", "-e", 'print "starlet $Starlet::VERSION on perl $^V\n"'),
        _starlet(),
        (*KEPT, "connection", *SIZES, "access-log"),
        {"log": _starlet("--access-log", "{scratch}/access.log")},
        {**PERL, **NO_TLS, "unix": "listens there only under start_server"},
    ),
    Server(
        "floor",
        "no server: a Python loop of epoll, recv, send (floor.py)",
        ("python", "--version"),
        ("python", "floor.py", "{port}"),
        (*KEPT, "connection"),
    ),
    _stardust(
        "stardust-2-workers",
        "as the first row",
        ("waits", "hostile", "scale-cores"),
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
        _version("waitress"),
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
    _stardust(
        "stardust-8-workers",
        "as the first row; loads the application once and forks workers from it, as by default",
        ("memory", "start-hello", "start-django"),
        "--max-keepalive-reqs=0",
        "--max-reqs-per-child=0",
        workers=8,
    ),
    _stardust(
        "stardust-8-workers-no-preload",
        "each worker loads the application for itself",
        ("memory", "start-hello", "start-django"),
        "--max-keepalive-reqs=0",
        "--max-reqs-per-child=0",
        "--no-preload",
        workers=8,
    ),
    _gunicorn(
        "gunicorn-8-workers",
        "as `pip install gunicorn` gives it: each worker loads the application for itself",
        ("memory", "start-hello", "start-django"),
        workers=8,
    ),
    _gunicorn(
        "gunicorn-8-workers-preload",
        "the arbiter loads the application, and workers are forked from it",
        ("memory", "start-hello", "start-django"),
        "--preload",
        workers=8,
    ),
    _stardust(
        "stardust-10-workers",
        "as the first row",
        ("scale-workers",),
        "--max-keepalive-reqs=0",
        "--max-reqs-per-child=0",
        workers=10,
    ),
    _stardust(
        "stardust-100-workers",
        "as the first row",
        ("scale-workers",),
        "--max-keepalive-reqs=0",
        "--max-reqs-per-child=0",
        workers=100,
    ),
)
