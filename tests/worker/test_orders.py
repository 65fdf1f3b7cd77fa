"""Whom a worker obeys: what the supervisor tells it, and SIGTERM."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from stardust.base.errors import Exit
from stardust.base.records import replace
from stardust.ipc import messages
from stardust.settings.table import Config
from tests.worker.forked import Worker, readable


def test_a_ping_is_answered_on_the_scoreboard(worker: Worker) -> None:
    for _ in range(3):
        worker.beaten()


def test_a_pause(worker: Worker) -> None:
    """What comes after the answer waits in the kernel until the worker accepts again."""
    before = time.monotonic()
    worker.get("/a")
    worker.channel.send(messages.Pause(7))
    told = worker.message()
    assert isinstance(told, messages.Paused)
    assert (told.pause, told.connections) == (7, 0)
    assert before <= told.since <= time.monotonic()
    with worker.connected() as client:
        client.sendall(b"GET /b HTTP/1.0\r\n\r\n")
        worker.link.nudge()  # it does not look
        worker.channel.send(messages.Pause(8))
        told = worker.message()
        assert isinstance(told, messages.Paused)
        assert (told.pause, told.connections) == (8, 0)
        worker.channel.send(messages.Resume())
        readable(client.fileno())
        assert client.recv(65536).endswith(b"/b")


def test_a_pause_tells_of_connections(worker: Worker) -> None:
    with worker.connected(), worker.connected():
        worker.get("/a")  # by now the others were accepted too
        worker.until(lambda entry: entry.requests == 1)
        worker.channel.send(messages.Pause(1))
        told = worker.message()
        assert isinstance(told, messages.Paused)
        assert told.connections == 2


def have_it_leave(worker: Worker, how: str) -> None:
    """By an order, or so that the supervisor cannot know: then, and only then, it says "leaving"."""
    if how == "SIGTERM":
        worker.process.send_signal(signal.SIGTERM)
        assert worker.message() == messages.Leaving()
    elif how == "end of file":
        worker.channel.socket.shutdown(socket.SHUT_RDWR)
    else:
        worker.channel.send(messages.Stop() if how == "stop" else messages.Retire())


@pytest.mark.parametrize("how", ["stop", "end of file", "SIGTERM"])
def test_it_leaves_in_a_pause(worker: Worker, how: str) -> None:
    """And accepts nothing on the way."""
    worker.channel.send(messages.Pause(1))
    assert isinstance(worker.message(), messages.Paused)
    with worker.connected():
        have_it_leave(worker, how)
        assert worker.ended() == Exit.OK
        worker.listener.accept()[0].close()


@pytest.mark.parametrize("how", ["retire", "stop", "end of file", "SIGTERM"])
def test_it_leaves(worker: Worker, how: str) -> None:
    have_it_leave(worker, how)
    assert worker.ended() == Exit.OK
    assert worker.errors() == ""


def test_it_finishes_what_was_begun(worker: Worker) -> None:
    with worker.connected() as client:
        client.sendall(b"GET /a HTTP/1.1\r\n")
        worker.get("/b")  # by now the other one was accepted too
        worker.channel.send(messages.Stop())
        client.sendall(b"Host: test\r\n\r\n")
        received = b""
        while more := client.recv(65536):
            received += more
    assert received.endswith(b"\r\n\r\n/a")
    assert worker.ended() == Exit.OK


def test_retired_it_gives_away_what_waits(worker: Worker) -> None:
    with worker.connected() as client:
        client.sendall(b"GET /a HTTP/1.1\r\n")
        worker.get("/b")
        worker.channel.send(messages.Retire())
        assert worker.ended() == Exit.OK
        taken = worker.link.take()
        assert taken is not None
        sock, passage = taken
        sock.send(passage.data)
        sock.close()
        assert client.recv(100) == b"GET /a HTTP/1.1\r\n"


def test_the_limit_of_requests(tmp_path: Path, config: Config) -> None:
    """It holds as soon as the scoreboard says that somebody would follow."""
    with Worker(tmp_path, replace(config, max_reqs_per_child=2)) as worker:
        assert worker.message() == messages.Ready()
        for _ in range(3):
            worker.get("/a")
        worker.board.replaceable = True
        worker.get("/a")
        assert worker.message() == messages.Leaving()
        assert worker.ended() == Exit.OK


def test_the_log_is_moved(worker: Worker) -> None:
    """As logrotate does it: rename, and then have a new one opened."""
    worker.get("/before")
    worker.until(lambda entry: entry.requests == 1)
    worker.log_path.rename(worker.log_path.with_suffix(".1"))
    descriptor = worker.opened_log()
    worker.channel.send(messages.Reopen(descriptor))
    os.close(descriptor)
    worker.beaten()
    worker.get("/after")
    worker.channel.send(messages.Stop())
    assert worker.ended() == Exit.OK
    assert '"GET /before HTTP/1.0" 200' in worker.log_path.with_suffix(".1").read_text()
    assert '"GET /after HTTP/1.0" 200' in worker.log_path.read_text()
    assert worker.log_path.read_text().count("\n") == 1
