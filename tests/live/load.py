"""A steady load: clients that never retry, check every answer, and count every failure.

Some open a connection for each errand, some keep theirs until the server says `Connection: close`, after
which it must send nothing more. Any other end of a connection is a failure, and so is a request that is not
answered, or not with what it must be.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self

from tests.live.client import MS, PATIENCE, Address, BrokenError, Connection, Response, request
from tests.live.clients import Client, Wait, fed, run, send

PACE = MS  # seconds between two requests of all clients: a load that leaves the machine room to work
CLOSE = "Connection: close"

SMALL = bytes(range(256)) * 8
LARGE = SMALL * 50  # more than a socket holds, or than one worker hands another
LONG = b"0123456789" * 30_000  # what /long of apps/probe.py answers


class Errand(NamedTuple):
    """What a client sends, with a pause after each part, and the bodies that must come back; None: any."""

    parts: tuple[bytes, ...]
    bodies: tuple[bytes | None, ...] = (None,)


class Load:
    """Clients that ask one server from entering the context to leaving it.

    target    what all of them GET
    clients   how many open a connection for each errand
    keeping   how many keep theirs
    varied    whether they run all `errands` in turn, each beginning elsewhere, for which apps/probe.py must
              answer; or only that GET
    limit     so many answers end the load by themselves

    `failures` holds what went wrong, one text a connection, which begins with the client's own address;
    `answers` counts the bodies of 200 responses, the first bytes of long ones; `closes` counts how often
    one that would have kept its connection was told to close it. All may be read at any time.
    """

    def __init__(
        self,
        address: Address,
        target: str = "/",
        clients: int = 4,
        *,
        keeping: int = 0,
        varied: bool = False,
        limit: int = 100_000,
    ) -> None:
        self.failures: list[str] = []
        self.answers: Counter[str] = Counter()
        self.closes = 0
        self._address = address
        self._limit = limit
        self._pace = PACE * (clients + keeping)
        self._over = False
        self._answered = 0
        self._counted = threading.Condition()
        kinds = [(errands(target, CLOSE, varied=varied), False)] * clients
        kinds += [(errands(target, varied=varied), True)] * keeping
        everybody = [self._client(number, *kind) for number, kind in enumerate(kinds)]
        self._thread = threading.Thread(target=run, args=(everybody,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Waits for the requests under way, and asks no more."""
        self._over = True
        self._thread.join()

    def await_answers(self, count: int) -> None:
        """Waits until `count` more requests than now were answered."""
        with self._counted:
            goal = self._answered + count
            assert self._counted.wait_for(lambda: self._answered >= goal, PATIENCE), self.failures[-3:]

    def _client(self, number: int, turns: Sequence[Errand], keeps: bool) -> Client[None]:
        # A source address for each client: none runs out of ports, however many connections linger.
        source = f"127.0.1.{number + 1}" if isinstance(self._address, tuple) else ""
        connection = None
        for errand in itertools.islice(itertools.cycle(turns), number, None):
            yield Wait(self._pace)
            if self._over or self._answered >= self._limit:
                break
            name = source or str(number)
            try:
                if connection is None:
                    connection = Connection(self._address, source)
                if source:
                    name = "{}:{}".format(*connection.socket.getsockname())
                lasts = yield from self._run(connection, errand)
                self.closes += keeps and not lasts
            except (BrokenError, OSError) as error:
                lasts = False
                self.failures.append(f"{name} {error!r}")
            if connection is not None and not lasts:
                connection.socket.close()
                connection = None
        if connection is not None:
            connection.socket.close()

    def _run(self, connection: Connection, errand: Errand) -> Client[bool]:
        """Whether the connection lasts. Raises BrokenError or OSError where it fails."""
        for number, part in enumerate(errand.parts):
            if number:
                yield Wait(self._pace)
            yield from send(connection, part)
        closes = False
        for body in errand.bodies:
            if closes:
                raise BrokenError("told to close before the last request was answered")
            response = yield from fed(connection, connection.reading())
            if response.status != 200 or body not in (None, response.body):
                raise BrokenError(f"{response.status} {response.body[:80]!r} for {errand.parts[0][:80]!r}")
            self._count(response)
            closes = response.closes
        if closes:
            yield from fed(connection, connection.ending())
        return not closes

    def _count(self, response: Response) -> None:
        with self._counted:
            self.answers[response.body[:32].decode("latin-1")] += 1
            self._answered += 1
            self._counted.notify_all()


def errands(target: str, *last: str, varied: bool) -> list[Errand]:
    """What there is to ask; `last` are header lines of the last request of each."""
    plain = Errand((request("GET", target, *last),))
    if not varied:
        return [plain]
    chunked = request("POST", "/echo", "Transfer-Encoding: chunked", *last) + in_chunks(SMALL)
    pair = request("GET", "/") + request("POST", "/echo", *last, body=SMALL)
    return [
        plain,
        Errand((request("GET", "/", *last),), (b"hello\n",)),
        Errand((request("POST", "/echo", *last, body=SMALL),), (SMALL,)),
        Errand((chunked,), (SMALL,)),
        Errand((pair,), (b"hello\n", SMALL)),
        Errand((request("GET", "/long", *last),), (LONG,)),
        # Cut in the head, and in bodies that can and cannot be handed over.
        Errand(tuple(halves(request("GET", "/", *last))), (b"hello\n",)),
        Errand(tuple(halves(chunked)), (SMALL,)),
        Errand(tuple(halves(request("POST", "/echo", *last, body=LARGE))), (LARGE,)),
    ]


def halves(data: bytes) -> Iterator[bytes]:
    yield data[: len(data) // 2]
    yield data[len(data) // 2 :]


def in_chunks(body: bytes) -> bytes:
    """RFC 9112 7.1: the body as chunks of 100 bytes and less."""
    parts = [body[start : start + 100] for start in range(0, len(body), 100)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in [*parts, b""])
