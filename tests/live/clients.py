"""Many clients on one thread: each is a generator that says what it waits for, and then goes on.

Threads would be as easy to read. But more than a hundred of them that ask for the interpreter every few
milliseconds keep a busy machine busy with nothing else.
"""

from __future__ import annotations

import heapq
import itertools
import select
import socket
import time
from collections.abc import Generator, Iterable
from typing import NamedTuple, TypeVar

from tests.live.client import PATIENCE, Connection, Read, Reading

Result = TypeVar("Result")


class Wait(NamedTuple):
    """What a client yields: it goes on when `descriptor` is ready for `interest` (EPOLLIN, EPOLLOUT). If that
    has not come after `seconds`, it finds a TimeoutError instead. Without a descriptor it sleeps so long."""

    seconds: float = PATIENCE
    descriptor: int = -1
    interest: int = 0


Client = Generator[Wait, None, Result]


def run(clients: Iterable[Client[None]]) -> None:
    """Runs all of them to their ends."""
    with select.epoll() as epoll:
        turns = _Turns(epoll)
        for client in clients:
            turns.go_on(client)
        turns.run()


def send(connection: Connection, data: bytes) -> Client[None]:
    rest = memoryview(data)
    while rest:
        yield Wait(descriptor=connection.socket.fileno(), interest=select.EPOLLOUT)
        rest = rest[connection.socket.send(rest, socket.MSG_DONTWAIT) :]


def fed(connection: Connection, reading: Reading[Read]) -> Client[Read]:
    """What `reading` makes of what the connection receives."""
    try:
        next(reading)
        while True:
            yield Wait(descriptor=connection.socket.fileno(), interest=select.EPOLLIN)
            reading.send(connection.socket.recv(65536, socket.MSG_DONTWAIT))
    except StopIteration as done:
        read: Read = done.value
        return read


class _Turns:
    """Whose turn is when. Waits are numbered, for those that are over stay in the heap."""

    def __init__(self, epoll: select.epoll) -> None:
        self._epoll = epoll
        self._numbers = itertools.count()
        self._waits: dict[int, tuple[Client[None], Wait]] = {}
        self._watched: dict[int, int] = {}  # the number of the wait for a descriptor
        self._due: list[tuple[float, int]] = []  # a heap

    def run(self) -> None:
        while self._waits:
            left = self._due[0][0] - time.monotonic()
            for descriptor, _ in self._epoll.poll(max(left, 0.0)):
                client, _ = self._over(self._watched[descriptor])
                self.go_on(client)
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                _, number = heapq.heappop(self._due)
                if number in self._waits:
                    client, wait = self._over(number)
                    self.go_on(client, late=wait.descriptor >= 0)

    def go_on(self, client: Client[None], *, late: bool = False) -> None:
        try:
            wait = client.throw(TimeoutError("nothing came")) if late else next(client)
        except StopIteration:
            return
        number = next(self._numbers)
        self._waits[number] = client, wait
        heapq.heappush(self._due, (time.monotonic() + wait.seconds, number))
        if wait.descriptor >= 0:
            self._watched[wait.descriptor] = number
            self._epoll.register(wait.descriptor, wait.interest)

    def _over(self, number: int) -> tuple[Client[None], Wait]:
        client, wait = self._waits.pop(number)
        if wait.descriptor >= 0:
            del self._watched[wait.descriptor]
            self._epoll.unregister(wait.descriptor)
        return client, wait
