"""Preloading that is safe by default: what an application holds decides, and each worker has its own."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.applications import holding
from tests.applications.database import Database
from tests.applications.until import until
from tests.live.apps.versions import install, serving
from tests.live.harness import Server

WORKERS = 3
SETTINGS = f"max-workers = {WORKERS}\nmain-process-delay = '10ms'\n"
CLIENTS = 12
REQUESTS = 20  # of each client


@pytest.fixture
def port() -> Iterator[int]:
    """Where the database listens."""
    sock = socket.create_server(("127.0.0.1", 0))
    with Database(sock):
        yield sock.getsockname()[1]


def ask(server: Server, client: int) -> list[tuple[str, str]]:
    """What one client has asked, and what it was answered."""
    texts = [f"{client}-{number}" for number in range(REQUESTS)]
    return [(text, server.get(f"/?{text}").text) for text in texts]


def ask_at_once(server: Server) -> list[tuple[str, str]]:
    with ThreadPoolExecutor(CLIENTS) as pool:
        return [
            each
            for answers in pool.map(lambda client: ask(server, client), range(CLIENTS))
            for each in answers
        ]


def held(server: Server) -> list[str]:
    """What the status says that the application holds."""
    preload = server.status()["preload"]
    assert preload["apart"] == bool(preload["holds"])
    holds: list[str] = preload["holds"]
    return holds


@pytest.mark.parametrize("name", holding.CONNECTED)
def test_connections(tmp_path: Path, listener: socket.socket, port: int, name: str) -> None:
    """Each worker has its own, and no client gets the row of another."""
    app = tmp_path / "shop.py"
    app.write_text(holding.application(holding.CONNECTED[name], port))
    place = f"{app}:make()" if name == "a factory's" else app
    with Server(tmp_path, SETTINGS, app=place, sockets={"http": listener}) as server:
        status = server.ready().fields["STATUS"]
        assert "; not preloaded: " in status
        found = held(server)
        assert any(f"connection to 127.0.0.1:{port} (descriptor " in each for each in found)
        assert f"- connection to 127.0.0.1:{port} (descriptor " in server.log
        assert "preload:     no, each worker loads for itself:\n" in server.control("status").out
        answers = ask_at_once(server)
        wrong = [(asked, told) for asked, told in answers if told.partition(" ")[2] != asked]
        assert not wrong
        used = {told.partition(" ")[0] for _, told in answers}
        pids = {server.get("/pid").text for _ in range(30)}
        assert len(used) >= len(pids)


@pytest.mark.parametrize("name", holding.HOLDING)
def test_what_else_does_not_survive(tmp_path: Path, listener: socket.socket, port: int, name: str) -> None:
    code, told = holding.HOLDING[name]
    app = tmp_path / "shop.py"
    app.write_text(holding.application(code, port))
    with Server(tmp_path, SETTINGS, app=app, sockets={"http": listener}) as server:
        server.ready()
        assert any(each.startswith(told) for each in held(server)), server.status()["preload"]
        assert f"- {told}" in server.log
        assert all(asked == answer for asked, answer in ask_at_once(server))


@pytest.mark.parametrize("name", holding.FREE)
def test_what_survives(tmp_path: Path, listener: socket.socket, port: int, name: str) -> None:
    app = tmp_path / "shop.py"
    app.write_text(holding.application(holding.FREE[name], port))
    with Server(tmp_path, SETTINGS, app=app, sockets={"http": listener}) as server:
        assert "preloaded" not in server.ready().fields["STATUS"]
        assert held(server) == []
        assert "preload:" not in server.control("status").out
        for asked, answer in ask_at_once(server):
            assert answer.rpartition(" ")[2] == asked


def test_true_insists(tmp_path: Path, listener: socket.socket, port: int) -> None:
    """And says what it has found. With one worker, the connection is its own all the same."""
    app = tmp_path / "shop.py"
    app.write_text(holding.application(holding.CONNECTED["a module's"], port))
    settings = "max-workers = 1\npreload = true\n"
    with Server(tmp_path, settings, app=app, sockets={"http": listener}) as server:
        assert f"; preloaded all the same: connection to 127.0.0.1:{port}" in server.ready().fields["STATUS"]
        assert server.get("/?a").text == "1 a"
        assert re.search(r"warning: generation 1: preload = true, but .*\n +- connection to ", server.log)
        assert "preload:     yes, in spite of:\n" in server.control("status").out


def test_false_looks_at_nothing(tmp_path: Path, listener: socket.socket, port: int) -> None:
    app = tmp_path / "shop.py"
    app.write_text(holding.application(holding.CONNECTED["a module's"], port))
    settings = "max-workers = 1\npreload = false\n"
    with Server(tmp_path, settings, app=app, sockets={"http": listener}) as server:
        assert "preloaded" not in server.ready().fields["STATUS"]
        assert server.get("/?a").text == "1 a"


def test_each_generation_is_looked_at_anew(tmp_path: Path, listener: socket.socket, port: int) -> None:
    app = tmp_path / "shop.py"
    install(app, serving("one"))
    with Server(tmp_path, SETTINGS, app=app, sockets={"http": listener}) as server:
        server.ready()
        assert held(server) == []
        install(app, holding.application(holding.CONNECTED["a module's"], port))
        assert server.control("reload").code == 0
        assert len(held(server)) == 1
        assert server.get("/?a").text.endswith(" a")
        install(app, serving("two"))
        assert server.control("reload").code == 0
        assert held(server) == []
        assert server.get().text == "two"


def test_a_worker_that_dies_is_followed_by_one_that_loads(
    tmp_path: Path, listener: socket.socket, port: int
) -> None:
    app = tmp_path / "shop.py"
    app.write_text(holding.application(holding.CONNECTED["a module's"], port))
    settings = "max-workers = 1\nmain-process-delay = '10ms'\n"
    with Server(tmp_path, settings, app=app, sockets={"http": listener}, trouble="ended: killed") as server:
        server.ready()
        first = server.get("/?a").text
        os.kill(int(server.get("/pid").text), signal.SIGKILL)
        assert server.get("/?a").text.partition(" ")[0] != first.partition(" ")[0]


# Loads once, for whoever comes first: the second load fails.
ONCE = """
import os, select
held = select.epoll()
os.close(os.open({path!r}, os.O_CREAT | os.O_EXCL))
"""


def test_a_second_load_that_fails(tmp_path: Path, listener: socket.socket) -> None:
    """Then the generation has failed: no boot, and after a reload the one before goes on."""
    app = tmp_path / "shop.py"
    install(app, ONCE.format(path=str(tmp_path / "once")) + serving("one"))
    trouble = "FileExistsError|generation . failed|Traceback"
    first = tmp_path / "first"
    first.mkdir()
    with Server(first, SETTINGS, app=app, sockets={"http": listener}, trouble=trouble) as server:
        assert server.wait() == 3
        assert "FileExistsError" in server.log
    install(app, serving("two"))
    with Server(tmp_path, SETTINGS, app=app, sockets={"http": listener}, trouble=trouble) as server:
        server.ready()
        install(app, ONCE.format(path=str(tmp_path / "again")) + serving("three"))
        answer = server.control("reload")
        assert answer.code == 1
        assert "FileExistsError" in answer.err
        assert server.get().text == "two"
        assert held(server) == []


STUBBORN = """
import subprocess
child = subprocess.Popen(["sh", "-c", "trap '' TERM; while :; do sleep 1000; done", "stubborn"])
def answer(text):
    return str(child.pid)
"""


def test_children_of_the_first_load_end(tmp_path: Path, listener: socket.socket, port: int) -> None:
    """Also those that ignore SIGTERM. Each worker has started its own."""
    app = tmp_path / "shop.py"
    app.write_text(holding.application(STUBBORN, port))
    trouble = "ending process"
    with Server(
        tmp_path, "max-workers = 1\n", app=app, sockets={"http": listener}, trouble=trouble
    ) as server:
        server.ready()
        own = int(server.get().text)
        until(lambda: stubborn(server) == {own})


def stubborn(server: Server) -> set[int]:
    found = set()
    for pid in server.processes():
        try:
            if b"stubborn" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                found.add(pid)
        except OSError:
            continue  # it has ended
    return found
