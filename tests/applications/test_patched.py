"""Applications that patch what the server shares with them: the server is what it is without."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from pathlib import Path

import pytest

from tests.applications.until import until
from tests.live.client import Connection
from tests.live.harness import Server

APPS = Path(__file__).parent / "apps"
POISONED = APPS / "poisoned.py"
BODY = os.urandom(3 << 20)  # more than what is kept in memory

KEPT = "max-keepalive-reqs = 1000\nkeepalive-timeout = 60\n"

GREEN = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "gevent, late": "import threading, queue, select; from gevent import monkey; monkey.patch_all()",
    "eventlet": "import warnings; warnings.simplefilter('ignore')\nimport eventlet; eventlet.monkey_patch()",
}
THREADS = pytest.mark.parametrize("threads", [1, 4])
PRELOAD = pytest.mark.parametrize("preload", ["true", "false"])

# Sleeps, waits for a lock and reads from a socket as it likes: green where it was patched.
COOPERATIVE = """
import os, queue, socket, threading, time

local = threading.local()

def application(environ, start_response):
    body = environ["wsgi.input"].read()
    local.body = body
    ours, theirs = socket.socketpair()
    with threading.Lock():
        theirs.sendall(b"x")
        ours.recv(1)
    answers = queue.Queue()
    thread = threading.Thread(target=lambda: (time.sleep(0.03), answers.put(1)))
    thread.start()
    answers.get(timeout=20)
    thread.join()
    ours.close()
    theirs.close()
    assert local.body is body
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body or str(os.getpid()).encode()]
"""


def post(connection: Connection, target: str, body: bytes) -> bytes:
    connection.send(
        b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (target.encode(), len(body))
    )
    connection.send(body)
    answer = connection.receive("POST")
    assert answer.status == 200
    return answer.body


def ask(connection: Connection, target: str = "/") -> bytes:
    connection.send(b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % target.encode())
    answer = connection.receive()
    assert answer.status == 200
    return answer.body


@PRELOAD
@THREADS
@pytest.mark.parametrize("patch", GREEN)
def test_green(
    tmp_path: Path, listener: socket.socket, packages: Path, patch: str, threads: int, preload: str
) -> None:
    """Served, beside others that wait, with bodies on disk; reloaded; and ended when it is time."""
    (tmp_path / "app.py").write_text(GREEN[patch] + COOPERATIVE)
    settings = f'python = "{packages}"\nmax-workers = 2\nthreads = {threads}\npreload = {preload}\n' + KEPT
    with Server(tmp_path, settings, app="app:application", sockets={"http": listener}) as server:
        server.ready()
        kept = [Connection(server.address) for _ in range(6)]
        for _ in range(2):
            for connection in kept:
                connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            for connection in kept:
                assert int(connection.receive().body) in server.workers()
            assert post(kept[0], "/", BODY) == BODY
            assert server.control("reload").code == 0
        for connection in kept:
            connection.socket.close()


@THREADS
@PRELOAD
def test_everything_is_patched(tmp_path: Path, listener: socket.socket, threads: int, preload: str) -> None:
    """Requests of all kinds, and a generation that follows another one, while each function of the modules
    that a server could use raises."""
    settings = f"max-workers = 2\nthreads = {threads}\npreload = {preload}\nrequest-timeout = 60\n" + KEPT
    with (
        Server(
            tmp_path,
            settings,
            app=POISONED,
            sockets={"http": listener},
            trouble="ZeroDivisionError|GET /error|Traceback",
        ) as server,
        contextlib.ExitStack() as stack,
    ):
        server.ready()
        kept = [stack.enter_context(Connection(server.address)) for _ in range(4)]
        for _ in range(2):
            for connection in kept:
                connection.send(b"GET /nap HTTP/1.1\r\nHost: a\r\n\r\n")
            for connection in kept:
                assert int(connection.receive().body) in server.workers()
            assert post(kept[0], "/echo", BODY) == BODY
            assert ask(kept[1], "/file") == POISONED.read_bytes()
            with Connection(server.address) as slow:
                slow.send(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
                assert int(ask(kept[2], "/pid")) in server.workers()
                assert len(slow.receive().body) == 8 << 20
            assert server.get("/error").status == 500
            assert server.control("reload").code == 0
        # The reload is over when the last old worker was told to leave, which takes it a moment.
        until(lambda: len(server.workers()) == 2)
        victim = min(server.workers())
        os.kill(victim, signal.SIGTERM)
        server.ended(victim)
    assert "poisoned: " not in server.log


DEFAULT_TIMEOUT = """
import socket
socket.setdefaulttimeout(20)

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(environ["stardust.socket"].gettimeout()).encode()]
"""


@THREADS
@PRELOAD
def test_a_default_timeout_is_not_for_the_server(
    tmp_path: Path, listener: socket.socket, threads: int, preload: str
) -> None:
    """A socket that has one waits so long where it is told not to wait. A stop is a matter of messages and
    logs, and waits for none either: the harness has no patience for twenty seconds."""
    (tmp_path / "app.py").write_text(DEFAULT_TIMEOUT)
    settings = f"max-workers = 2\nthreads = {threads}\npreload = {preload}\n" + KEPT
    with Server(tmp_path, settings, app="app:application", sockets={"http": listener}) as server:
        server.ready()
        with Connection(server.address) as connection:
            assert ask(connection) == ask(connection) == b"None"
        assert server.control("reload").code == 0
