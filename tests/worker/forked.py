"""A worker as a process: a real one, at the end of a real channel, with the test as its supervisor."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from stardust.ipc import messages
from stardust.ipc.channel import Channel, pair
from stardust.ipc.handoff import Link
from stardust.ipc.scoreboard import Entry, Scoreboard
from stardust.logs.log import Sink
from stardust.settings import table as settings
from stardust.settings.table import Config

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
from stardust.worker.entrance import Door

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
