"""The race of an idle exit, by the hundred: the supervisor's decisions and real loops in one process.

What tests/live/test_idle.py does with whole servers, here without their starts. The workers are threads,
each a `Loop` that takes orders at the end of a real channel; the supervisor is `plan` and the few lines that
carry its actions out; systemd is the test, which keeps the listener and starts all anew for the next
connection. The clients come at the very moment of leaving. The clock is the real one, for nothing else makes
kernel, workers and clients meet in every order.
"""

from __future__ import annotations

import itertools
import os
import random
import select
import socket
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from stardust.base.address import Address
from stardust.ipc import messages
from stardust.ipc.channel import Channel, pair
from stardust.ipc.scoreboard import Scoreboard
from stardust.logs.log import Log
from stardust.settings.table import Config
from stardust.supervisor import health, vocabulary
from stardust.supervisor.observe import observe
from stardust.supervisor.plan import plan
from stardust.supervisor.state import Policy, State
from stardust.worker.entrance import Door
from stardust.worker.loop import Loop
from stardust.worker.orders import Orders
from tests import pools

PATIENCE = 60.0  # s
WORKERS = 2
CLIENTS = 3
TIMEOUT = 0.002  # s; most of what this test takes is waiting for it
SPREAD = (-0.0005, 0.001)  # s; before and after TIMEOUT at which clients come
REQUEST = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"


def hello(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Length", "5")])
    return [b"hello"]


class Worker:
    """A loop on a thread, and the supervisor's end of its channel."""

    def __init__(self, number: int, listener: socket.socket, board: Scoreboard, config: Config) -> None:
        ours, theirs = pair()
        self.number = number
        self.channel = Channel(ours, messages.SUPERVISOR_OF_WORKER)
        self._theirs = Channel(theirs, messages.WORKER)
        door = Door(listener.dup(), Address("tcp", *listener.getsockname()), own=False)
        self._door = door
        self._loop = Loop(config, hello, [door], Log("worker", "critical"), slot=board.slot(number))
        self._loop.watch(self._theirs.fileno(), Orders(self._theirs, self._loop, None).take)
        self._thread = threading.Thread(target=self._loop.run)
        self._thread.start()

    def end(self) -> None:
        """It was told to stop: as its process would, it gives everything back, and connections with it."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        for connection in self._loop.book.connections.values():
            connection.close()
        if self._loop.threads is not None:
            pools.end(self._loop.threads.pool)
        self._loop.epoll.close()
        self._door.socket.close()
        self.channel.close()
        self._theirs.close()


@dataclass
class Supervisor:
    """The shell in small: from the first fork to an idle exit."""

    listener: socket.socket
    config: Config
    state: State = field(default_factory=State)
    workers: dict[int, Worker] = field(default_factory=dict)
    board: Scoreboard = field(default_factory=Scoreboard.create)
    now: float = field(default_factory=time.monotonic)
    left: bool = False

    def run(self) -> None:
        give_up = time.monotonic() + PATIENCE
        while not self.left:
            assert time.monotonic() < give_up, "it never leaves"
            decided = plan(self.state, self.now)
            for action in decided.actions:
                self.see(vocabulary.Ordered(action))
                self.act(action)
            if not decided.actions:
                self.wait(decided.wake_at)
        os.close(self.board.descriptor)

    def see(self, event: vocabulary.Event) -> None:
        self.state = observe(self.state, event, self.now)

    def wait(self, wake_at: float) -> None:
        poll = select.epoll()
        for worker in self.workers.values():
            poll.register(worker.channel, select.EPOLLIN)
        poll.poll(max(0.0, min(wake_at - time.monotonic(), PATIENCE)))
        poll.close()
        self.now = time.monotonic()
        for worker in self.workers.values():
            self.hear(worker)

    def hear(self, worker: Worker) -> None:
        while True:
            try:
                message = worker.channel.receive()
            except BlockingIOError:
                return
            assert isinstance(message, messages.Paused)
            self.see(vocabulary.Paused(worker.number, message.pause, message.connections, message.since))

    def act(self, action: vocabulary.Action) -> None:
        match action:
            case vocabulary.Start(generation):
                policy = Policy(workers=WORKERS, idle_timeout=TIMEOUT)
                self.see(vocabulary.Configured(generation, policy))
                self.see(vocabulary.Loaded(generation))
            case vocabulary.Fork(number):
                self.workers[number] = Worker(number, self.listener, self.board, self.config)
                self.see(vocabulary.Forked(number))
                self.see(vocabulary.Ready(number))
            case vocabulary.CheckIdle():
                entries = [self.board.read(number) for number in self.workers]
                self.see(vocabulary.QuietSince(health.quiet_since(entries, self.now)))
            case vocabulary.Pause(number):
                for worker in self.workers.values():
                    worker.channel.send(messages.Pause(number))
            case vocabulary.Resume():
                for worker in self.workers.values():
                    worker.channel.send(messages.Resume())
            case vocabulary.Retire(number):
                worker = self.workers.pop(number)
                worker.channel.send(messages.Stop())
                worker.end()
                self.see(vocabulary.Gone(number, "exit code 0"))
            case vocabulary.Close(generation):
                self.see(vocabulary.ZygoteGone(generation))
            case vocabulary.End():
                self.left = True


class Attack:
    """Clients that come together when the server is about to leave, each in its own way."""

    def __init__(self, address: Any) -> None:
        self.failures: list[str] = []
        self._address = address
        self._random = random.Random(1)
        self._end = threading.Event()
        self._over = False
        self._moment = 0.0
        self._together = threading.Barrier(CLIENTS, self._appoint, PATIENCE)
        self._threads = [threading.Thread(target=self._client, args=(number,)) for number in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def ending(self) -> None:
        """No more attacks than those under way; somebody must serve them."""
        self._end.set()

    def ended(self) -> bool:
        return not any(thread.is_alive() for thread in self._threads)

    def _appoint(self) -> None:
        self._over = self._end.is_set()
        self._moment = time.monotonic() + TIMEOUT + self._random.uniform(*SPREAD)

    def _client(self, number: int) -> None:
        for attack in itertools.count(number):
            self._together.wait()
            if self._over:
                return
            threading.Event().wait(max(0.0, self._moment - time.monotonic()))
            failure = self._attack(attack % 4)
            if failure:
                self.failures.append(failure)

    def _attack(self, kind: int) -> str:
        """What went wrong. `kind` is the number of requests; a connection without any only comes and goes."""
        try:
            with socket.create_connection(self._address, PATIENCE) as sock:
                for _ in range(kind):
                    sock.sendall(REQUEST)
                    answer = sock.recv(4096)
                    if not answer.endswith(b"\r\n\r\nhello"):
                        return f"{answer!r} is no answer"
                # Reset, not closed: otherwise the ports would run out.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError as fault:
            return repr(fault)
        return ""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """systemd's: it stays open whatever becomes of the server."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as sock:
        sock.setblocking(False)  # or dup(), which hands its timeout on, would make all of them block
        yield sock


@pytest.mark.parametrize(("threads", "exits"), [(1, 250), (2, 100)], ids=["inline", "threads"])
def test_no_connection_is_lost(listener: socket.socket, threads: int, exits: int) -> None:
    config = Config(max_keepalive_reqs=0, max_reqs_per_child=0, threads=threads)
    attack = Attack(listener.getsockname())
    pauses = 0
    try:
        for _ in range(exits):
            assert select.select([listener], [], [], PATIENCE)[0]
            supervisor = Supervisor(listener, config)
            supervisor.run()
            pauses += supervisor.state.idle.number
        attack.ending()
        while not attack.ended():
            if select.select([listener], [], [], TIMEOUT)[0]:
                Supervisor(listener, config).run()
    finally:
        attack.ending()
    assert not attack.failures
    assert pauses > exits  # some of them ended with a resume
