"""A worker as a process: a real one, at the end of a real channel, with the test as its supervisor."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest

from stardust.base import system
from stardust.base.errors import Exit
from stardust.base.records import replace
from stardust.ipc import messages
from stardust.ipc.channel import Channel, pair
from stardust.ipc.handoff import Link
from stardust.ipc.scoreboard import BUSY, IDLE, Entry, Scoreboard
from stardust.logs.log import Sink
from stardust.settings import table as settings
from stardust.settings.table import Config
from tests.journald import Journal

PATIENCE = 20.0  # s; far beyond what anything takes
SLOT = 5
PLAIN = Sink(stamped=False)
PACKAGE = Path(settings.__file__).parents[2]

# What a zygote's child does: the heritage is there already, and `run` is all that is left.
CHILD = """
import json, socket, sys
from stardust.settings import table as settings
from stardust.base.address import Address
from stardust.ipc import messages
from stardust.ipc.channel import Channel
from stardust.ipc.handoff import Link
from stardust.zygote.load import load
from stardust.logs.log import Log, Sink
from stardust.ipc.scoreboard import Scoreboard
from stardust.worker import process
from stardust.worker.loop import Door

order = json.loads(sys.argv[1])
config = settings.load(order["config"])
listener = socket.socket(fileno=order["listener"])
listener.setblocking(False)
heritage = process.Inheritance(
    generation=7,
    config=config,
    doors=[Door(listener, Address("tcp", "127.0.0.1", 80), own=False)],
    scoreboard=Scoreboard(order["scoreboard"]),
    link=None if order["link"] is None else Link.adopt(*order["link"]),
    shelf=None if order["shelf"] is None else Link.adopt(*order["shelf"]),
    log=Log("generation 7", sink=Sink(*order["sink"])),
    log_descriptor=order["log"],
    app=load(config.app) if config.preload else None,
)
channel = None if order["channel"] is None else Channel.adopt(order["channel"], messages.WORKER)
sys.exit(process.run(heritage, 3, order["slot"], channel, order["stacks"]))
"""

APP = """
import os, select

def application(environ, start_response):
    start_response("200 OK", [])
    if environ["PATH_INFO"] == "/wait":
        os.write(int(environ["QUERY_STRING"]), b"here")
        select.select([], [], [])
    if environ["PATH_INFO"] == "/raise":
        raise LookupError("oops")
    return [environ["PATH_INFO"].encode()]
"""


class Worker:
    """The process and all that its supervisor holds of it."""

    def __init__(self, directory: Path, config: Config, *, alone: bool = False, sink: Sink = PLAIN) -> None:
        self.log_path = directory / "access.log"
        self.board = Scoreboard.create()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.said_reader, self.said_writer = os.pipe()
        ours, theirs = pair()
        self.channel = Channel(ours, messages.SUPERVISOR_OF_WORKER)
        self.link = Link.create()
        self.shelf = Link.create()
        self.stacks = os.memfd_create("stacks")
        log = self.opened_log()
        order = {
            "config": settings.dump(config),
            "listener": self.listener.fileno(),
            "scoreboard": self.board.descriptor,
            "slot": SLOT,
            "log": log,
            "sink": sink,
            "stacks": self.stacks,
            "channel": None if alone else theirs.fileno(),
            "link": None if alone else self.link.descriptors,
            "shelf": None if alone else self.shelf.descriptors,
        }
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", CHILD, json.dumps(order)],
                cwd=PACKAGE,
                stderr=subprocess.PIPE,
                pass_fds=[
                    theirs.fileno(),
                    self.listener.fileno(),
                    self.board.descriptor,
                    log,
                    self.said_writer,
                    self.stacks,
                    *self.link.descriptors,
                    *self.shelf.descriptors,
                ],
            )
        os.close(log)
        self.pidfd = os.pidfd_open(self.process.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE)
        assert self.process.stderr is not None
        self.process.stderr.close()
        self.channel.close()
        self.link.close()
        self.shelf.close()
        self.listener.close()
        for descriptor in (
            self.pidfd,
            self.board.descriptor,
            self.said_reader,
            self.said_writer,
            self.stacks,
        ):
            os.close(descriptor)

    @property
    def entry(self) -> Entry:
        return self.board.read(SLOT)

    def opened_log(self) -> int:
        return os.open(self.log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def message(self) -> messages.FromWorker:
        """The next one; the end of the channel is none."""
        readable(self.channel)
        message = self.channel.receive()
        assert message is not None, self.errors()
        return message

    def until(self, condition: Callable[[Entry], bool]) -> None:
        """Returns when the scoreboard says so. Nothing wakes its readers, so this one looks again."""
        give_up = time.monotonic() + PATIENCE
        looks = select.poll()
        looks.register(self.pidfd, select.POLLIN)
        while not condition(self.entry):
            assert not looks.poll(1), f"it is gone: {self.errors()}"
            assert time.monotonic() < give_up, f"it never came true: {self.entry}"

    def beaten(self) -> None:
        """Returns when it has answered a ping, and so has done all it was told before."""
        before = self.entry.heartbeat
        self.channel.send(messages.Ping())
        self.until(lambda entry: entry.heartbeat > before)

    def ended(self) -> int:
        """Its exit code, when it has left."""
        return self.process.wait(PATIENCE)

    def errors(self) -> str:
        """Standard error, when it has left."""
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    def connected(self) -> socket.socket:
        return socket.create_connection(self.listener.getsockname(), PATIENCE)

    def written_stacks(self) -> bytes:
        return os.pread(self.stacks, 65536, 0)

    def get(self, target: str, *headers: str) -> bytes:
        with self.connected() as client:
            head = "\r\n".join([f"GET {target} HTTP/1.0", *headers])
            client.sendall(f"{head}\r\n\r\n".encode())
            received = b""
            while more := client.recv(65536):
                received += more
        return received.partition(b"\r\n\r\n")[2]


def readable(descriptor: int | Channel[messages.FromWorker, messages.ToWorker]) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    assert poll.poll(PATIENCE * 1000), "nothing came"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "application.py").write_text(APP)
    return Config(app=str(tmp_path / "application.py"), max_reqs_per_child=0)


@pytest.fixture
def worker(tmp_path: Path, config: Config) -> Iterator[Worker]:
    with Worker(tmp_path, config) as worker:
        assert worker.message() == messages.Ready()
        yield worker


@pytest.mark.parametrize("preload", [True, False], ids=["preloaded", "loaded after the fork"])
def test_it_serves(tmp_path: Path, config: Config, preload: bool) -> None:
    with Worker(tmp_path, replace(config, preload=preload)) as worker:
        assert worker.message() == messages.Ready()
        assert worker.get("/a") == b"/a"
        worker.until(lambda entry: entry.state == IDLE and entry.requests == 1)
        entry = worker.entry
        assert (entry.pid, entry.generation) == (worker.process.pid, 7)
        assert Path(f"/proc/{worker.process.pid}/comm").read_text() == "stardust:w3\n"


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


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1]
)
def test_signals_for_others_are_ignored(worker: Worker, number: signal.Signals) -> None:
    worker.process.send_signal(number)
    assert worker.get("/a") == b"/a"


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


def test_an_application_that_cannot_be_loaded(tmp_path: Path, config: Config) -> None:
    (tmp_path / "application.py").write_text("import there_is_no_such_module\n")
    with Worker(tmp_path, replace(config, preload=False)) as worker:
        message = worker.message()
        assert isinstance(message, messages.Failed)
        assert "there_is_no_such_module" in message.reason
        assert "Traceback" in message.detail
        assert worker.ended() == Exit.APPLICATION
        assert worker.errors() == ""


def test_nobody_to_tell_that_it_cannot_be_loaded(tmp_path: Path, config: Config) -> None:
    (tmp_path / "application.py").write_text("import there_is_no_such_module\n")
    with Worker(tmp_path, replace(config, preload=False), alone=True) as worker:
        assert worker.ended() == Exit.APPLICATION
        errors = worker.errors()
        assert "worker 3: error: cannot load" in errors
        assert "Traceback" in errors


def test_alone(tmp_path: Path, config: Config) -> None:
    with Worker(tmp_path, config, alone=True) as worker:
        assert worker.get("/a") == b"/a"
        worker.process.send_signal(signal.SIGTERM)
        assert worker.ended() == Exit.OK
        assert worker.errors() == ""


def test_a_stuck_worker_writes_its_stacks(worker: Worker) -> None:
    """`request-timeout`: the signal is answered whatever the application does, and then comes SIGKILL."""
    with worker.connected() as client:
        client.sendall(f"GET /wait?{worker.said_writer} HTTP/1.0\r\n\r\n".encode())
        readable(worker.said_reader)
        assert worker.entry.state == BUSY
        worker.process.send_signal(system.STACKS_SIGNAL)
        worker.until(lambda entry: b"in run" in worker.written_stacks())
        assert b"application.py" in worker.written_stacks()
        worker.process.kill()
        assert worker.ended() == -signal.SIGKILL
        assert worker.errors() == ""


def test_what_the_application_raises_is_a_record(tmp_path: Path, config: Config) -> None:
    """One, with its traceback; and nothing on standard error."""
    journald = Journal(tmp_path / "socket")
    with Worker(tmp_path, config, sink=Sink(journald.path, stamped=False)) as worker:
        assert worker.message() == messages.Ready()
        assert b"500" in worker.get("/raise?x=1", "X-Request-Id: 7f-1")
        worker.channel.send(messages.Stop())
        assert worker.ended() == Exit.OK
        assert worker.errors() == ""
    journald.close()
    [record] = journald.records
    assert record["MESSAGE"].startswith(
        "worker 3: GET /raise?x=1: application error\nTraceback (most recent call last):\n"
    )
    assert record["MESSAGE"].endswith("LookupError: oops")
    assert (record["PRIORITY"], record["REQUEST_ID"]) == ("3", "7f-1")
    assert (record["STARDUST_WORKER"], record["STARDUST_REQUEST"]) == ("3", "GET /raise?x=1 HTTP/1.0")
    assert (record["CODE_FILE"], record["CODE_FUNC"]) == (str(tmp_path / "application.py"), "application")


def test_what_the_application_raises_is_text_elsewhere(worker: Worker) -> None:
    """`wsgi.errors`, as PEP 3333 has it."""
    worker.get("/raise")
    worker.channel.send(messages.Stop())
    assert worker.ended() == Exit.OK
    errors = worker.errors()
    assert errors.startswith("GET /raise: application error\nTraceback (most recent call last):\n")
    assert errors.endswith("LookupError: oops\n")
