"""Which connections go to another worker, and which come from one (ipc/handoff.py).

No connection waits for the request of another: while the application has the loop (relief.py), while all
application threads are busy, and when this worker leaves, siblings get connections. When the whole server
stops, idle ones go onto the shelf, for its next start.

Runs in the application's interpreter too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Optional

from stardust.base.errors import HandoffError
from stardust.ipc.handoff import Link, Passage
from stardust.worker.accepting import Accepting
from stardust.worker.balance import Balance
from stardust.worker.book import Book
from stardust.worker.clock import Clock
from stardust.worker.connection import Connection
from stardust.worker.entrance import Entrance
from stardust.worker.guard import PATIENCE
from stardust.worker.life import READING
from stardust.worker.overdue import Overdue
from stardust.worker.serving import Serving
from stardust.worker.standing import Surroundings
from stardust.worker.telling import Telling
from stardust.worker.vitals import LOST


class Siblings:
    """`link` leads to them, `shelf` to the next start of the server, None without any; `balance` says when to
    see whether they have less to do."""

    __slots__ = (
        "_accepting",
        "_book",
        "_clock",
        "_entrance",
        "_overdue",
        "_serving",
        "_surroundings",
        "_telling",
        "balance",
        "link",
        "shelf",
    )

    def __init__(
        self,
        link: Optional[Link],
        shelf: Optional[Link],
        surroundings: Surroundings,
        clock: Clock,
        telling: Telling,
        book: Book,
        accepting: Accepting,
        serving: Serving,
        entrance: Entrance,
        overdue: Overdue,
    ) -> None:
        self.link = link
        self.shelf = shelf
        self.balance = Balance()
        self._surroundings = surroundings
        self._clock = clock
        self._telling = telling
        self._book = book
        self._accepting = accepting
        self._serving = serving
        self._entrance = entrance
        self._overdue = overdue
        if link is not None:
            entrance.add(link.fileno(), self.take)

    # --- those that come ---------------------------------------------------------------------------------

    def take(self) -> bool:
        """Take one connection that a sibling has given away, and go on with it; False if none waits."""
        assert self.link is not None
        try:
            taken = self.link.take()
        except BlockingIOError:
            return False
        except OSError as fault:
            if fault.errno in LOST:
                raise
            return self._entrance.short(fault)
        except HandoffError as fault:
            self._telling.complain("error", "handoff", f"a worker sent an invalid connection: {fault}")
            return True
        if taken is None:
            self._entrance.look()
            return True
        sock, passage = self._entrance.out_of_the_way(taken[0]), taken[1]
        connection = self._entrance.welcome(sock, sock.fileno(), passage.listener, passage.host, passage.port)
        if not connection.by_proxy:  # and it stays: its sibling has let it in
            self._book.count(connection, passage.host)
        connection.requests = passage.requests
        connection.began = min(passage.began, self._clock.now)
        connection.buffer = passage.data
        self._serving.proceed(connection)
        if connection.requests == passage.requests:  # it waits for the same as before
            self._overdue.go_on(connection, passage.since)
        self._entrance.step_back(self.link.fileno())
        return True

    def take_all(self) -> None:
        while self.link is not None and self.take():
            pass

    # --- those that go -----------------------------------------------------------------------------------

    def give(self, connection: Connection) -> bool:
        """Give a connection to whichever sibling is free first, or onto the shelf; False if it cannot go, or
        not now."""
        data, queue = connection.received, connection.queue
        link = self.shelf if self.keeping() else None if self._surroundings.stopping() else self.link
        if link is None or data is None or not self.can_go(connection):
            return False
        passage = Passage(
            listener=connection.listener,
            host=connection.environ["REMOTE_ADDR"],
            port=connection.environ["REMOTE_PORT"],
            requests=connection.requests,
            began=connection.began,
            since=self._clock.now if queue is None else queue.since(connection),
            data=bytes(data),
        )
        if not link.give(connection.number, passage):
            return False
        threads, ready = self._serving.threads, self._serving.ready
        if threads is not None:
            threads.queued.pop(connection, None)
        if connection in ready:
            ready.remove(connection)
        self._book.drop(connection, moved=True)
        return True

    def give_all(self, connections: Iterable[Connection]) -> bool:
        """Give those that can go; False if there was no room for all of them."""
        return all(self.give(connection) for connection in connections if self.can_go(connection))

    def waiting(self) -> Iterable[Connection]:
        """Those whose next request the application has not got yet."""
        for connection in [*self._book.connections.values()]:
            if connection.stage == READING:
                yield connection

    def keeping(self) -> bool:
        """Whether the whole server stops, and its idle connections wait for the next start."""
        return self.shelf is not None and self._surroundings.storing()

    def can_go(self, connection: Connection) -> bool:
        """To a sibling with what has come of its next request, unless that is too much; onto the shelf with
        nothing."""
        idle = connection.idle or not self.keeping()
        return idle and connection.received is not None

    def level(self, events: Sequence[tuple[int, int]]) -> None:
        """Give siblings some of those that have just sent a request, if they have less to do."""
        now, connections = self._clock.now, self._book.connections
        excess = self.balance.excess(self._serving.requests, self._surroundings.served(now - PATIENCE), now)
        if excess and self._accepting.on:
            known = filter(None, (connections.get(descriptor) for descriptor, _ in events))
            asking = [each for each in known if each.stage == READING and each.queue is not None]
            self.give_all(asking[: math.ceil(len(asking) * excess)])
