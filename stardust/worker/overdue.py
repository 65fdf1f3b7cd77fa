"""Whose time is over, and what follows.

Each wait has its deadline. What came in time is not late, though it was not read yet: the application
had the loop, or others were ahead.

Runs in the application's interpreter too.
"""

from __future__ import annotations

import math

from stardust.worker.book import Book
from stardust.worker.clock import Clock
from stardust.worker.connection import Connection
from stardust.worker.entrance import Entrance
from stardust.worker.life import SENDING
from stardust.worker.pace import LOOK
from stardust.worker.serving import Serving


class Overdue:
    """What happens at the end of each queue of the book."""

    __slots__ = ("_acts", "_book", "_clock", "_entrance", "_serving")

    def __init__(self, clock: Clock, book: Book, serving: Serving, entrance: Entrance) -> None:
        self._clock = clock
        self._book = book
        self._serving = serving
        self._entrance = entrance
        self._acts = (
            (book.greeting, self._greeting),
            (book.fresh, self._idle),
            (book.reading_heads, self._request),
            (book.reading_bodies, self._request),
            (book.parked, self._idle),
            (book.sending, self._reader),
            (book.farewell, self._idle),
            (book.lingering, book.drop),
        )

    def act(self, moment: float) -> None:
        """Act on every deadline of a connection that has passed at `moment`."""
        for queue, act in self._acts:
            for connection in queue.expired(moment):
                # One before it may have called the application, and the guard have given this one away.
                if connection.queue is queue:
                    act(connection)
        for connection in self._book.paced.expired(moment):
            self._look_at_pace(connection, moment)

    def go_on(self, connection: Connection, since: float) -> None:
        """It has come here from a sibling, where its wait began. One that has been too long ends with the
        move; any other begins anew, for a queue is in order of arrival. So none waits more than twice as long
        as it should, however often it moves."""
        for queue, act in self._acts:
            if connection.queue is queue:
                began = connection.began if queue is self._book.reading_heads else since
                if self._clock.now >= began + queue.seconds:
                    act(connection)
                return

    def _greeting(self, connection: Connection) -> None:
        """It may have come to an end meanwhile, unseen: then it is not late."""
        greeting = self._book.greeting
        self._entrance.greet(connection)
        if connection.queue is greeting:
            self._entrance.turn_away(
                connection, f"it did not complete its handshake within {greeting.seconds:g} s"
            )

    def _idle(self, connection: Connection) -> None:
        """Nothing came in time. Or it did, and others are ahead of it: one poll reports so many at most."""
        if connection.asks():
            self._serving.read(connection)
        else:
            self._book.drop(connection)

    def _request(self, connection: Connection) -> None:
        queue = connection.queue
        self._serving.refuse(connection, 408, queue.what if queue is not None else "timeout")

    def _reader(self, connection: Connection) -> None:
        self._serving.endings.lose(connection, "timeout")

    def _look_at_pace(self, connection: Connection, moment: float) -> None:
        """The due look at a client whose body or response is on its way."""
        pace, paced = connection.pace, self._book.paced
        if pace is None:
            return  # with one before it, this one was given away
        pace.forgive(moment - paced.since(connection) - LOOK)
        if connection.stage == SENDING:
            self._serving.send(connection)  # the kernel tells of room only when there is much
            if connection.pace is not pace:
                return
        if not pace.late(connection.moved, moment):
            paced.add(connection, math.ceil(moment))
        elif connection.stage == SENDING:
            self._serving.endings.lose(connection, "min-response-rate")
        else:
            self._serving.refuse(connection, 408, "min-body-rate")
