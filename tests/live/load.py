"""A steady load: threads that open a connection, ask, check the answer, and count every failure."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Self

from tests.live.client import MS, PATIENCE, Address, BrokenError, get

PACE = 2 * MS  # seconds between two requests of a client: a load that leaves the machine room to work


class Load:
    """Clients that ask one target, a connection each time, from entering the context to leaving it.

    `failures` holds what went wrong, one text a request; `answers` counts the bodies of 200 responses.
    Both may be read at any time. More than `limit` requests in all end the load by themselves.
    """

    def __init__(self, address: Address, target: str = "/", clients: int = 4, limit: int = 100_000) -> None:
        self.failures: list[str] = []
        self.answers: Counter[str] = Counter()
        self._address = address
        self._target = target
        self._limit = limit
        self._end = threading.Event()
        self._counted = threading.Condition()
        self._threads = [threading.Thread(target=self._client, args=(number,)) for number in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Waits for the requests under way, and asks no more."""
        self._end.set()
        for thread in self._threads:
            thread.join()

    def await_answers(self, count: int) -> None:
        """Waits until `count` more requests than now were answered."""
        with self._counted:
            goal = self.answers.total() + count
            assert self._counted.wait_for(lambda: self.answers.total() >= goal, PATIENCE), self.failures[-3:]

    def _client(self, number: int) -> None:
        # A source address for each client: none runs out of ports, however many connections linger.
        source = f"127.0.1.{number + 1}" if isinstance(self._address, tuple) else ""
        while not self._end.wait(PACE) and self.answers.total() < self._limit:
            answer, failure = "", ""
            try:
                response = get(self._address, self._target, source=source)
            except (BrokenError, OSError) as error:
                failure = repr(error)
            else:
                answer = response.text
                failure = "" if response.status == 200 else f"{response.status} {answer!r}"
            with self._counted:
                if failure:
                    self.failures.append(failure)
                else:
                    self.answers[answer] += 1
                self._counted.notify_all()
