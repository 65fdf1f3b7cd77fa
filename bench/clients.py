"""The clients of the load "waits": many that ask for little, at a steady pace, and one that asks for much.

    python clients.py PORT SECONDS [TARGET [CLIENTS]]

CLIENTS keep-alive connections ask for / every PERIOD, out of step with each other; one more asks for TARGET,
if given and not "", in a loop. Prints one line of JSON, see `Answers`.

Rules:
- One process, one epoll loop. Nothing is tried twice: a request that fails is counted, and its client goes
  on with the next one, on a new connection.
- All connect at once before the first request is due, so that each worker has some of them. Else whoever is
  not inside the long request would have them all, and nobody would wait.
- What is measured is what a user meets who comes at any moment. A client that waits cannot ask, and would
  count a second of silence once. So an answer counts for every moment of its client's schedule that passed
  while it was out: one that took 1 s, with a period of 50 ms, for waits of 1.00, 0.95, 0.90 … s.
- A wait runs from the moment at which its request was due. What this process itself is late is in it too.
"""

from __future__ import annotations

import heapq
import json
import select
import socket
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

CLIENTS = 32
PERIOD = 0.05  # s; 640 requests a second in all, a fraction of what each server could answer
SETTLING = 0.2  # s; between connecting and the first request
LIMIT = 10.0  # s; for connecting, and for what is still out at the end
SLACK = 0.001  # s; epoll_wait(2) sleeps whole milliseconds: the last one is spent asking the clock

BODY = b"Hello, world!\n"


class Answers(NamedTuple):
    """`answers` to requests for / and how long they let wait; `long` answers to the long client and how long
    one `took` on average; how many requests of both kinds `failed`; by how much the clients themselves were
    `late` at worst, which is in the slowest answer too."""

    answers: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    long: int
    took_ms: float
    failed: int
    late_ms: float


class Client:
    """Asks for one target every `period` seconds (0: as soon as it has the answer), one request at a time.

    `due`: when its next request is, or, while it is `asking`, this one was; `waits`: seconds, one an answer.
    """

    def __init__(self, port: int, target: str, due: float, period: float) -> None:
        self.port = port
        self.request = f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: */*\r\n\r\n".encode()
        self.due = due
        self.period = period
        self.socket: socket.socket | None = None
        self.asking = False
        self.received = b""
        self.waits: list[float] = []
        self.failed = 0
        self.late = 0.0

    def connect(self) -> int:
        """The descriptor of a new connection. Raises OSError."""
        self.socket = socket.create_connection(("127.0.0.1", self.port), LIMIT)
        return self.socket.fileno()

    def ask(self, now: float) -> None:
        """Send the request that is due. Raises OSError."""
        assert self.socket is not None
        self.asking = True
        self.late = max(self.late, now - self.due)
        self.received = b""
        self.socket.sendall(self.request)

    def hear(self) -> bool:
        """Take what has come; whether it is the whole answer. Raises OSError, ValueError.

        A connection may end while nothing is asked on it: that is no failure.
        """
        assert self.socket is not None
        data = self.socket.recv(65536)
        if data:
            self.received += data
            return whole(self.received)
        if self.asking:
            raise ConnectionResetError("the connection ended before the answer")
        self.close()
        return False

    def done(self, now: float, failed: bool) -> None:
        """The request has ended; the next one is due at the next moment of the schedule."""
        self.asking = False
        if failed:
            self.failed += 1
            self.close()
        else:
            self.waits.append(now - self.due)
        missed = (now - self.due) // self.period if self.period else 0
        self.due = self.due + (missed + 1) * self.period if self.period else now

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket = None


def run(clients: Sequence[Client], end: float) -> None:
    """All ask by their schedules until `end`; what is not answered LIMIT later has failed."""
    crowd = _Crowd(clients, end)
    for client in clients:
        crowd.connect(client)
    while crowd.busy() and time.monotonic() < end + LIMIT:
        crowd.ask()
        crowd.hear(max(0.0, crowd.due() - time.monotonic() - SLACK))
    for client in clients:
        client.failed += client.asking
        client.close()


class _Crowd:
    """Clients, the order in which they are due, and the descriptors they have."""

    def __init__(self, clients: Sequence[Client], end: float) -> None:
        self.end = end
        self.epoll = select.epoll()
        self.connected: dict[int, Client] = {}
        self.asking: set[Client] = set()
        # The number decides between two that are due at once, for clients have no order.
        self.schedule = [(client.due, number, client) for number, client in enumerate(clients)]
        heapq.heapify(self.schedule)
        self.numbers = {client: number for number, client in enumerate(clients)}

    def busy(self) -> bool:
        return bool(self.schedule or self.asking)

    def due(self) -> float:
        return self.schedule[0][0] if self.schedule else self.end + LIMIT

    def connect(self, client: Client) -> None:
        descriptor = client.connect()
        self.connected[descriptor] = client
        self.epoll.register(descriptor, select.EPOLLIN)

    def ask(self) -> None:
        """Send every request that is due."""
        while self.schedule and self.schedule[0][0] <= (now := time.monotonic()):
            _, _, client = heapq.heappop(self.schedule)
            self.asking.add(client)
            try:
                if client.socket is None:
                    self.connect(client)
                client.ask(now)
            except OSError:
                self._ended(client, failed=True)

    def hear(self, seconds: float) -> None:
        """Wait so long at most, and take what has come."""
        for descriptor, _ in self.epoll.poll(seconds):
            client = self.connected[descriptor]
            try:
                if client.hear():
                    self._ended(client, failed=False)
            except (OSError, ValueError):
                self._ended(client, failed=True)

    def _ended(self, client: Client, *, failed: bool) -> None:
        self.asking.discard(client)
        client.done(time.monotonic(), failed)
        if client.due < self.end:
            heapq.heappush(self.schedule, (client.due, self.numbers[client], client))


def whole(data: bytes) -> bool:
    """Whether an answer is complete. Raises ValueError if it is not the one that is due."""
    head, end, body = data.partition(b"\r\n\r\n")
    if not end or len(body) < len(BODY):
        return False
    if not head.startswith(b"HTTP/1.1 200 ") or body != BODY:
        raise ValueError(f"{data!r}")
    return True


def moments(waits: Sequence[float], period: float) -> list[float]:
    """For each answer the waits of all moments of the schedule that passed while it was out; in order."""
    return sorted(wait - passed * period for wait in waits for passed in range(int(wait / period) + 1))


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value that `share` of all, 0 to 1, do not exceed; 0 if there is none."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def measure(port: int, seconds: float, target: str, count: int) -> Answers:
    """`target`: what the long client asks for; "": there is none."""
    start = time.monotonic() + SETTLING
    step = PERIOD / count
    many = [Client(port, "/", start + number * step, PERIOD) for number in range(count)]
    long = [Client(port, target, start, 0.0)] if target else []
    run([*many, *long], start + seconds)
    answers = [wait for client in many for wait in client.waits]
    lasted = [wait for client in long for wait in client.waits]
    ordered = moments(answers, PERIOD)
    return Answers(
        answers=len(answers),
        p50_ms=round(quantile(ordered, 0.5) * 1000, 3),
        p99_ms=round(quantile(ordered, 0.99) * 1000, 3),
        max_ms=round(quantile(ordered, 1) * 1000, 3),
        long=len(lasted),
        took_ms=round(sum(lasted) / max(1, len(lasted)) * 1000, 3),
        failed=sum(client.failed for client in [*many, *long]),
        late_ms=round(max(client.late for client in many) * 1000, 3),
    )


if __name__ == "__main__":
    given = sys.argv[1:]
    port, seconds, target, count = [*given, *("", str(CLIENTS))[len(given) - 2 :]]
    print(json.dumps(measure(int(port), float(seconds), target, int(count))._asdict()))
