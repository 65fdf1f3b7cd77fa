"""`max-workers = 0` in a terminal: the debugger has it, and so has Ctrl-C. Workers have none, and say so."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live.client import MS, Connection
from tests.live.harness import Gate, Server, readable

PATIENCE = 20_000 * MS  # s

APP = """
import pdb, socket

def application(environ, start_response):
    body = b"hello"
    path = environ["PATH_INFO"]
    if path == "/breakpoint":
        secret = "found it"
        breakpoint()
    if path == "/input":
        body = input("your name? ").encode()
    if path == "/hold":
        with socket.socket(socket.AF_UNIX) as gate:
            gate.connect(environ["QUERY_STRING"])
            gate.sendall(b"1")
            gate.recv(1)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]
"""
# Makes the given descriptor the controlling terminal, and executes the command.
LOGIN = "import os, sys; os.login_tty(int(sys.argv[1])); os.execv(sys.argv[2], sys.argv[2:])"
THREADS = pytest.mark.parametrize("threads", [1, 2])


class Terminal:
    """A server in a terminal, where somebody types."""

    def __init__(self, place: Path, *arguments: str) -> None:
        (place / "app.py").write_text(APP)
        self.master, slave = pty.openpty()
        self.socket = str(place / "http")
        server = [sys.executable, "-m", "stardust", "--max-workers", "0", "--socket", self.socket]
        self.process = subprocess.Popen(
            [sys.executable, "-c", LOGIN, str(slave), *server, *arguments, "app:application"],
            cwd=place,
            pass_fds=[slave],
            start_new_session=True,
        )
        os.close(slave)
        self.text = ""

    def await_text(self, text: str) -> str:
        """Read until that stands there; what stood before it."""
        while text not in self.text:
            assert readable(self.master, PATIENCE), f"no {text!r} in {self.text!r}"
            self.text += os.read(self.master, 65536).decode()
        before, _, self.text = self.text.partition(text)
        return before

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def request(self, path: str) -> Connection:
        connection = Connection(self.socket)
        connection.send(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        return connection


def start(place: Path, *arguments: str) -> Terminal:
    terminal = Terminal(place, *arguments)
    terminal.await_text("one process, no workers")
    with terminal.request("/") as connection:
        assert connection.receive().body == b"hello"
    return terminal


def finish(terminal: Terminal) -> int:
    try:
        return terminal.process.wait(PATIENCE)
    finally:
        terminal.process.kill()
        os.close(terminal.master)


@THREADS
def test_the_debugger_has_the_terminal(tmp_path: Path, threads: int) -> None:
    terminal = start(tmp_path, "--threads", str(threads))
    with terminal.request("/breakpoint") as connection:
        terminal.await_text("(Pdb) ")
        terminal.type("p secret\n")
        terminal.await_text("'found it'")
        terminal.await_text("(Pdb) ")
        terminal.type("c\n")
        assert connection.receive().body == b"hello"
    with terminal.request("/input") as connection:
        terminal.await_text("your name? ")
        terminal.type("Ada\n")
        assert connection.receive().body == b"Ada"
    terminal.type("\x03")
    assert finish(terminal) == 0


@THREADS
def test_control_c_ends_it(tmp_path: Path, threads: int) -> None:
    """After what it serves; the second one at once, wherever the application is."""
    terminal = start(tmp_path, "--threads", str(threads))
    with Gate(tmp_path / "gate") as gate:
        with terminal.request(f"/hold?{tmp_path / 'gate'}") as connection:
            held = gate.arrival()
            terminal.type("\x03")
            terminal.await_text("^C")
            held.release()
            assert connection.receive().body == b"hello"
        assert finish(terminal) == 0
        terminal = start(tmp_path, "--threads", str(threads))
        with terminal.request(f"/hold?{tmp_path / 'gate'}"):
            gate.arrival()
            terminal.type("\x03")
            terminal.await_text("^C")
            # Two signals that are pending at the same time are one.
            while terminal.process.poll() is None:
                terminal.type("\x03")
                try:
                    terminal.process.wait(50 * MS)
                except subprocess.TimeoutExpired:
                    pass
            assert finish(terminal) == -signal.SIGINT


def test_what_has_no_effect_is_said(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "--request-timeout", "5")
    terminal.await_text("request-timeout = 5 has no effect with max-workers = 0")
    with terminal.request("/") as connection:
        assert connection.receive().body == b"hello"
    terminal.process.terminate()
    assert finish(terminal) == 0


@THREADS
@pytest.mark.parametrize("preload", ["true", "false"])
@pytest.mark.parametrize("what", ["breakpoint", "input"])
def test_a_worker_has_no_terminal(
    tmp_path: Path, listener: socket.socket, what: str, preload: str, threads: int
) -> None:
    (tmp_path / "app.py").write_text(APP)
    settings = f"max-workers = 1\nthreads = {threads}\npreload = {preload}\n"
    trouble = "Traceback|Error|application error"
    with Server(
        tmp_path, settings, app="app:application", sockets={"http": listener}, trouble=trouble
    ) as server:
        server.ready()
        assert server.get(f"/{what}").status == 500
        assert server.get("/").body == b"hello"
    assert f"{what}(): a worker has no terminal" in server.log
    assert "run the server in a terminal with --max-workers 0" in server.log
