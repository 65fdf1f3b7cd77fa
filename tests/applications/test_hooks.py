"""Hooks, and what Python has of its own: each is called where, when and how often it is to be."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from tests.applications.until import until
from tests.live.client import PATIENCE
from tests.live.harness import Gate, Server

# Each event is a line in a file; write(2) to the end of it is one step.
APP = """
import atexit, os, threading
from urllib.parse import unquote
LOG = {log!r}
READY = []

def note(*words):
    descriptor = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, (" ".join(map(str, (*words, os.getpid()))) + "\\n").encode())
    os.close(descriptor)

def after_fork():
    READY.append(1)
    note("after-fork")

def before_exit():
    note("before-exit")

def after_death(pid, cause):
    note("after-death", pid, cause.replace(" ", "_"))

def hang():
    note("hanging")
    threading.Event().wait()

os.register_at_fork(after_in_child=lambda: note("at-fork"))
atexit.register(note, "atexit")

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/hang":
        hang()
    return [f"{{os.getpid()}} {{len(READY)}}".encode()]
"""

HOOKS = 'after-fork = "shop:after_fork"\nbefore-exit = "shop:before_exit"\nafter-death = "shop:after_death"\n'


def notes(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def settings(path: Path, text: str = HOOKS) -> str:
    (path / "shop.py").write_text(APP.format(log=str(path / "notes")))
    return f'app = "shop"\nchdir = "{path}"\nmain-process-delay = "10ms"\n{text}'


@pytest.mark.parametrize("preload", ["'auto'", "false"])
def test_the_life_of_a_worker(tmp_path: Path, listener: socket.socket, preload: str) -> None:
    """In their order, each once."""
    text = settings(tmp_path, f"{HOOKS}max-workers = 1\npreload = {preload}\n")
    with Server(tmp_path, text, app="", sockets={"http": listener}) as server:
        server.ready()
        pid, ready = server.get().text.split()
        assert ready == "1"
    found = notes(tmp_path / "notes")
    own = [each[0] for each in found if each[-1] == pid]
    begin = ["at-fork", "after-fork"] if preload == "'auto'" else ["after-fork"]
    assert own == [*begin, "before-exit", "atexit"]
    assert [each[:3] for each in found if each[0] == "after-death"] == [["after-death", pid, "exit_code_0"]]


def test_every_death_is_told_once(tmp_path: Path, listener: socket.socket) -> None:
    """Killed from outside, killed for its time, retired by a reload, stopped."""
    text = settings(tmp_path, f"{HOOKS}max-workers = 2\nrequest-timeout = 1\n")
    trouble = "killed|stuck|Thread|File|ended"
    causes = []
    with Server(tmp_path, text, app="", sockets={"http": listener}, trouble=trouble) as server:
        server.ready()
        killed = server.get().text.split()[0]
        os.kill(int(killed), signal.SIGKILL)
        causes.append((killed, "killed_by_SIGKILL"))
        with socket.create_connection(listener.getsockname(), PATIENCE) as client:
            client.sendall(b"GET /hang HTTP/1.0\r\n\r\n")
            assert client.recv(4096) == b""
        hung = next(each[-1] for each in notes(tmp_path / "notes") if each[0] == "hanging")
        causes.append((hung, "request-timeout"))
        until(lambda: server.status()["ready"] == 2)
        causes += [(str(pid), "exit_code_0") for pid in server.workers()]
        assert server.control("reload").code == 0
        causes += [
            (str(pid), "exit_code_0") for pid, worker in server.workers().items() if worker["generation"] == 2
        ]
    found = [(pid, cause) for name, pid, cause, _ in (n for n in notes(tmp_path / "notes") if len(n) == 4)]
    assert sorted(found) == sorted(causes)


def test_a_zygote_that_dies_first(tmp_path: Path, listener: socket.socket) -> None:
    """Another one calls the hook for its workers."""
    text = settings(tmp_path, f"{HOOKS}max-workers = 1\n")
    trouble = "the zygote of generation 1|killed"
    with Server(tmp_path, text, app="", sockets={"http": listener}, trouble=trouble) as server:
        server.ready()
        pid = server.get().text.split()[0]
        zygote = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(zygote, signal.SIGKILL)
        until(lambda: server.status()["generation"] == 2 and int(pid) not in server.workers())
    assert [each[2] for each in notes(tmp_path / "notes") if each[:2] == ["after-death", pid]] == [
        "exit_code_0"
    ]


def test_before_exit_has_graceful_timeout(tmp_path: Path, listener: socket.socket) -> None:
    text = settings(tmp_path, 'before-exit = "shop:hang"\nmax-workers = 1\ngraceful-timeout = 1\n')
    with Server(tmp_path, text, app="", sockets={"http": listener}, trouble="killing") as server:
        server.ready()
    assert [each[0] for each in notes(tmp_path / "notes") if each[0] != "at-fork"] == ["hanging"]
    assert "graceful-timeout" in server.log


def test_after_fork_that_fails(tmp_path: Path, listener: socket.socket) -> None:
    """A worker that failed: no boot; a reload that failed changes nothing. With the traceback."""
    text = settings(tmp_path)
    app = tmp_path / "shop.py"
    good = app.read_text()
    app.write_text(good.replace("READY.append(1)", "raise LookupError('no database')"))
    trouble = "LookupError|Traceback|failed"
    first = tmp_path / "first"
    first.mkdir()
    with Server(first, text, app="", sockets={"http": listener}, trouble=trouble) as server:
        assert server.wait() == 3
        assert "after-fork = shop:after_fork has failed: LookupError: no database" in server.log
        assert "in after_fork\n" in server.log
    bad = app.read_text()
    app.write_text(good)
    with Server(tmp_path, text, app="", sockets={"http": listener}, trouble=trouble) as server:
        server.ready()
        app.write_text(bad)
        answer = server.control("reload")
        assert answer.code == 1
        assert "LookupError: no database" in answer.err
        assert server.get().status == 200


FORKS = """
def forks(*_):
    pid = os.fork()
    note("child" if not pid else "parent")
"""


@pytest.mark.parametrize("key", ["after-fork", "before-exit", "after-death"])
def test_a_child_that_comes_back_out_of_a_hook(tmp_path: Path, listener: socket.socket, key: str) -> None:
    """It ends there: no second worker, no second zygote."""
    text = settings(tmp_path, f'{key} = "shop:forks"\nmax-workers = 1\n')
    app = tmp_path / "shop.py"
    app.write_text(app.read_text().replace("def hang():", f"{FORKS}\ndef hang():"))
    with Server(tmp_path, text, app="", sockets={"http": listener}) as server:
        server.ready()
        assert {server.get().text.split()[0] for _ in range(20)} == {str(pid) for pid in server.workers()}
    names = [each[0] for each in notes(tmp_path / "notes")]
    assert (names.count("child"), names.count("parent"), names.count("atexit")) == (1, 1, 1)


def test_before_exit_comes_after_the_last_response(
    tmp_path: Path, listener: socket.socket, gate: Gate
) -> None:
    """A request that is being served when the server stops is served first."""
    text = settings(tmp_path, f"{HOOKS}max-workers = 1\n")
    held = (
        "    import socket\n    with socket.socket(socket.AF_UNIX) as sock:\n"
        f"        sock.connect({str(gate.path)!r})\n        sock.sendall(str(os.getpid()).encode())\n"
        "        sock.recv(1)\n    note('served')\n"
    )
    app = tmp_path / "shop.py"
    app.write_text(app.read_text().replace("    return [f", f"{held}    return [f"))
    with Server(tmp_path, text, app="", sockets={"http": listener}) as server:
        server.ready()
        with socket.create_connection(listener.getsockname()) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            waiting = gate.arrival()
            server.signal(signal.SIGTERM)
            server.expect("STOPPING", "1")
            waiting.release()
            assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
            assert server.wait() == 0
    names = [each[0] for each in notes(tmp_path / "notes")]
    assert names.index("served") < names.index("before-exit") < names.index("atexit")
