"""Standard streams: closed at the start, or whatever the application has made of them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.base.test_streams import REPLACED
from tests.live.harness import Server

THREADS = pytest.mark.parametrize("threads", [1, 4])

APP = """
import os, sys

def application(environ, start_response):
    errors = environ["wsgi.errors"]
    errors.write("said\\n")
    errors.writelines(["said again\\n"])
    errors.flush()
    if environ["PATH_INFO"] == "/error":
        raise RuntimeError("raised")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"fine"]
"""

DESCRIPTORS = """
import json, os

def application(environ, start_response):
    print("printed", flush=True)
    start_response("200 OK", [("Content-Type", "application/json")])
    found = {int(name): os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")
             if os.path.islink(f"/proc/self/fd/{name}")}
    return [json.dumps([found[number] for number in range(3)]).encode()]
"""


@THREADS
@pytest.mark.parametrize("preload", ["true", "false"])
@pytest.mark.parametrize("how", REPLACED)
def test_replaced(tmp_path: Path, listener: socket.socket, how: str, preload: str, threads: int) -> None:
    """Served, errors are logged, and workers end with 0: a reload is one more start, and one more end."""
    both = "\n".join(REPLACED[how].format(name=name) for name in ("stdout", "stderr"))
    (tmp_path / "app.py").write_text(APP + both)
    settings = f"max-workers = 2\nthreads = {threads}\npreload = {preload}\n"
    with Server(
        tmp_path,
        settings,
        app="app:application",
        sockets={"http": listener},
        trouble="/error|raised|Traceback",
    ) as server:
        server.ready()
        assert server.get("/").body == b"fine"
        assert server.get("/error").status == 500
        assert "RuntimeError: raised" in server.log
        assert server.control("reload").code == 0
        assert server.get("/").body == b"fine"
    assert "said again" in server.log
    assert "exit code" not in server.log


@pytest.mark.parametrize("pool", [0, 1])
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed(tmp_path: Path, listener: socket.socket, closed: str, pool: int) -> None:
    """No log and no print lands in what got their numbers."""
    (tmp_path / "app.py").write_text(DESCRIPTORS)
    # Without the arguments that are for systemd-socket-activate.
    script = 'while [ "${1#--setenv=}" != "$1" ]; do shift; done; exec "$@" '
    launcher = ["/bin/sh", "-c", script + closed, "sh"]
    settings = f"max-workers = {pool}\naccess-log = '{tmp_path / 'access'}'\n"
    with Server(
        tmp_path, settings, app="app:application", sockets={"http": listener}, launcher=launcher
    ) as server:
        server.ready()
        for _ in range(2):
            found = json.loads(server.get("/").body)
            log = str(tmp_path / "log")
            for number, sign in enumerate(["<&-", " >&-", "2>&-"]):
                if sign in f" {closed}" or number == 0:
                    assert found[number] == os.devnull, found
                else:
                    assert found[number] == log, found
    assert (tmp_path / "access").read_text().count("GET / ") == 2


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_for_stardustctl(tmp_path: Path, listener: socket.socket, closed: str) -> None:
    with Server(tmp_path, "max-workers = 1\n", sockets={"http": listener}) as server:
        server.ready()
        command = [sys.executable, "-m", "stardust.ctl", "--config", str(server.config), "reload"]
        done = subprocess.run(["sh", "-c", f'exec "$0" "$@" {closed}', *command], check=False, timeout=60)
        assert done.returncode == 0
