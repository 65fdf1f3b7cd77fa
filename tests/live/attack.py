"""Clients that come together, again and again, at the very moment at which an idle server would leave."""

from __future__ import annotations

import itertools
import random
import select
import threading
import time
from collections.abc import Sequence
from typing import Self

from tests.live.client import PATIENCE, Address, BrokenError, Connection, request

CLIENTS = 6
TIMEOUT = 0.03  # s; the idle-timeout of the server under attack,
SPREAD = (-0.002, 0.006)  # s; and the moments before and after its end at which they come


class Attack:
    """From entering the context to leaving it; each client keeps to one of `addresses`.

    Every attack is one connection: closed by its first response, or silent at first and kept for some
    requests. `failures` holds what went wrong, `attacks` counts; both may be read at any time. Each round
    takes its moment from one of `spreads`.
    """

    def __init__(self, addresses: Sequence[Address], spreads: Sequence[tuple[float, float]]) -> None:
        self.failures: list[str] = []
        self.attacks = 0
        self._spreads = spreads
        self._end = threading.Event()
        self._counted = threading.Condition()
        self._moment = 0.0
        self._together = threading.Barrier(CLIENTS, self._appoint, PATIENCE)
        self._random = random.Random(1)
        self._threads = [
            threading.Thread(target=self._client, args=(number, address))
            for number, address in zip(range(CLIENTS), itertools.cycle(addresses), strict=False)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Waits for the attacks under way. Somebody must serve them."""
        self._end.set()
        for thread in self._threads:
            thread.join()

    def await_rounds(self, count: int) -> None:
        """Waits until all clients have come that often, or one has failed."""
        with self._counted:
            while self.attacks < count * CLIENTS and not self.failures:
                assert self._counted.wait(PATIENCE), "nobody is served"

    def _appoint(self) -> None:
        """All are back, and nobody is connected: when to come again."""
        self._moment = time.monotonic() + TIMEOUT + self._random.uniform(*self._random.choice(self._spreads))
        self._over = self._end.is_set()

    def _client(self, number: int, address: Address) -> None:
        source = f"127.0.1.{number + 1}" if isinstance(address, tuple) else ""
        for attack in itertools.count(number):
            self._together.wait()
            if self._over:
                return
            # Nothing is waited for but the moment: no test waits longer because of it.
            threading.Event().wait(max(0.0, self._moment - time.monotonic()))
            try:
                _attack(attack % 3, address, source)
                failure = ""
            except (BrokenError, OSError) as error:
                failure = repr(error)
            with self._counted:
                self.attacks += 1
                self.failures += [failure] if failure else []
                self._counted.notify_all()


def _attack(kind: int, address: Address, source: str) -> None:
    with Connection(address, source) as connection:
        if kind == 0:
            connection.send(request("GET", "/", "Connection: close"))
            assert connection.receive().text == "hello\n"
            connection.ended()
        else:
            select.select([connection.socket], [], [], 0.001 * kind)
            for _ in range(kind):
                connection.send(request("GET", "/"))
                assert connection.receive().text == "hello\n"
