"""The server's log as records of the journal: whole, with fields, and apart from what the application prints.

Standard error is a file, which JOURNAL_STREAM names; the native socket is one that the test has bound, put in
the place of the real one by a mount namespace that only the server is in.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from stardust.logs import events
from tests.journald import Journal
from tests.live.client import MS, BrokenError
from tests.live.harness import Server

APP = """
import os, sys, time

def application(environ, start_response):
    path = environ["PATH_INFO"]
    print("<0>printed", file=sys.stderr, flush=True)
    if path == "/raise":
        broken()
    if path == "/hang":
        time.sleep(3600)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]

def broken():
    raise LookupError("oops")
"""

# $0 is the directory of the socket. The harness gives options for another launcher, ahead of the command.
ENTER = """
set -e
while [ "${1#--setenv=}" != "$1" ]; do shift; done
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/journal
mount --bind "$0" /run/systemd/journal
exec "$@"
"""
SETTINGS = f'max-workers = 1\nmain-process-delay = "10ms"\nrequest-timeout = {500 * MS}\n'


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[Journal]:
    directory = tmp_path / "journal"
    directory.mkdir()
    journald = Journal(directory / "socket")
    yield journald
    journald.close()


def in_the_journal(
    place: Path, listener: socket.socket, journald: Journal, settings: str = SETTINGS
) -> Server:
    (place / "shop.py").write_text(APP)
    log = place / "log"
    log.touch()
    status = log.stat()
    unshare = shutil.which("unshare")
    assert unshare is not None, "unshare is missing: apt-get install util-linux"
    return Server(
        place,
        settings,
        app=place / "shop.py",
        sockets={"http": listener},
        environ={"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"},
        launcher=[unshare, "--map-root-user", "--mount", "sh", "-c", ENTER, os.path.dirname(journald.path)],
    )


def test_a_life_in_records(tmp_path: Path, listener: socket.socket, journald: Journal) -> None:
    with in_the_journal(tmp_path, listener, journald) as server:
        server.ready()
        started = journald.expect("MESSAGE_ID", events.STARTED.id)
        assert started["MESSAGE"].startswith("supervisor: generation 1 serves ")
        assert (started["PRIORITY"], started["STARDUST_INSTANCE"]) == ("6", "stardust")
        assert started["STARDUST_GENERATION"] == "1"

        assert server.get("/raise?a", "X-Request-Id: 7f-1").status == 500
        raised = journald.expect("REQUEST_ID", "7f-1")
        assert "LookupError: oops" in raised["MESSAGE"].splitlines()[-1]
        assert (raised["CODE_FILE"], raised["CODE_FUNC"]) == (str(tmp_path / "shop.py"), "broken")
        assert (raised["PRIORITY"], raised["STARDUST_INSTANCE"]) == ("3", "stardust")
        assert (raised["STARDUST_GENERATION"], raised["STARDUST_WORKER"]) == ("1", "1")
        assert raised["STARDUST_REQUEST"] == "GET /raise?a HTTP/1.1"

        with pytest.raises((BrokenError, ConnectionError)):
            server.get("/hang")
        hung = journald.expect("MESSAGE_ID", events.WORKER_TIMED_OUT.id)
        assert "request-timeout" in hung["MESSAGE"]
        assert 'shop.py", line' in hung["MESSAGE"]
        assert (hung["STARDUST_WORKER"], hung["STARDUST_REQUEST"]) == ("1", "GET /hang HTTP/1.1")

        server.kill(int(server.get("/pid").text))
        died = journald.expect("MESSAGE_ID", events.WORKER_DIED.id)
        assert (died["PRIORITY"], died["STARDUST_WORKER"]) == ("3", "2")
        assert "killed by SIGKILL" in died["MESSAGE"]
    assert set(server.log.splitlines()) == {"<0>printed"}


def test_reloads_in_records(tmp_path: Path, listener: socket.socket, journald: Journal) -> None:
    with in_the_journal(tmp_path, listener, journald) as server:
        server.ready()
        assert server.control("reload").code == 0
        assert journald.expect("MESSAGE_ID", events.RELOADED.id)["STARDUST_GENERATION"] == "2"
        (tmp_path / "shop.py").write_text("def broken():\n    raise LookupError('oops')\n\nbroken()\n")
        assert server.control("reload").code == 1
        failed = journald.expect("MESSAGE_ID", events.RELOAD_FAILED.id)
        assert (failed["PRIORITY"], failed["STARDUST_GENERATION"]) == ("3", "3")
        assert "; generation 2 keeps serving\nTraceback (most recent call last):\n" in failed["MESSAGE"]
    assert server.log == ""


def test_a_wrong_setting_is_a_record(tmp_path: Path, listener: socket.socket, journald: Journal) -> None:
    with in_the_journal(tmp_path, listener, journald, "max-workers = 'many'\n") as server:
        assert server.wait() == 6
        wrong = journald.expect("PRIORITY", "3")
        assert f"{server.config}:" in wrong["MESSAGE"]
        assert wrong["STARDUST_INSTANCE"] == "stardust"
    assert server.log == ""
