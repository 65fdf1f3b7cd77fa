"""The application of most live tests: each path shows or does one thing. Python 3.9, standard library."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    answer = ROUTES.get(environ["PATH_INFO"])
    body = answer(environ) if answer is not None else b"hello\n"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def wait_at(gate: str) -> None:
    """Reports at a Gate of the harness and waits there."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(gate)
        connection.sendall(str(os.getpid()).encode())
        connection.recv(1)


def pid(environ: WSGIEnvironment) -> bytes:
    return str(os.getpid()).encode()


def hold(environ: WSGIEnvironment) -> bytes:
    wait_at(parse_qs(environ["QUERY_STRING"])["gate"][0])
    return b"let go\n"


def nap(environ: WSGIEnvironment) -> bytes:
    """Takes long enough for others to be looked after, and no longer."""
    threading.Event().wait(0.05)
    return pid(environ)


def spin(environ: WSGIEnvironment) -> bytes:
    """As `hold`, but it computes all the time."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(parse_qs(environ["QUERY_STRING"])["gate"][0])
        connection.sendall(str(os.getpid()).encode())
        connection.setblocking(False)
        while True:
            for _ in range(1_000_000):
                pass
            try:
                connection.recv(1)
                return b"let go\n"
            except BlockingIOError:
                pass


def freeze(environ: WSGIEnvironment) -> bytes:
    """Hangs for real: a stopped process cannot answer to anybody."""
    os.kill(os.getpid(), signal.SIGSTOP)
    return b"awake\n"


def crash(environ: WSGIEnvironment) -> bytes:
    os._exit(3)


def harakiri(environ: WSGIEnvironment) -> bytes:
    environ["stardust.harakiri.commit"] = True
    return pid(environ)


def variables(environ: WSGIEnvironment) -> bytes:
    """The WSGI environment, as far as JSON carries it."""
    return as_json({name: value for name, value in environ.items() if isinstance(value, (str, int, list))})


def process(environ: WSGIEnvironment) -> bytes:
    """What the process is, and what it has of its parents."""
    return as_json(
        {
            "pid": os.getpid(),
            "cwd": os.getcwd(),
            "environ": dict(os.environ),
            "version": sys.version,
            "executable": sys.executable,
            "implementation": sys.implementation.name,
            "path": sys.path,
            "modules": sorted(sys.modules),
        }
    )


def found(environ: WSGIEnvironment) -> bytes:
    """Which of the modules asked for could be imported here."""
    names = parse_qs(environ["QUERY_STRING"])["name"]
    return as_json([name for name in names if importlib.util.find_spec(name) is not None])


def echo(environ: WSGIEnvironment) -> bytes:
    data: bytes = environ["wsgi.input"].read()
    return data


def long(environ: WSGIEnvironment) -> bytes:
    """More than a message between workers holds, or so many times as much."""
    return b"0123456789" * 30_000 * int(environ["QUERY_STRING"] or "1")


def digest(environ: WSGIEnvironment) -> bytes:
    data = environ["wsgi.input"].read()
    return f"{environ.get('CONTENT_LENGTH')} {hashlib.sha256(data).hexdigest()}".encode()


def connection(environ: WSGIEnvironment) -> bytes:
    """The connection it came by: no two have the same number at the same time."""
    return str(os.fstat(environ["stardust.socket"].fileno()).st_ino).encode()


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


ROUTES = {
    "/pid": pid,
    "/hold": hold,
    "/nap": nap,
    "/spin": spin,
    "/freeze": freeze,
    "/crash": crash,
    "/harakiri": harakiri,
    "/variables": variables,
    "/process": process,
    "/found": found,
    "/echo": echo,
    "/long": long,
    "/digest": digest,
    "/connection": connection,
}
