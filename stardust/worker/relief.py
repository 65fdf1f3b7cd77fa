"""What the guard (guard.py) does for other connections while the application has the loop for long.

On the guard's thread, with the loop's own inside the application. HTTP is not for the guard: nothing is
parsed here, and no application called.

Runs in the application's interpreter too.
"""

from __future__ import annotations

from stardust.base.pristine import select
from stardust.worker.book import Book
from stardust.worker.clock import Clock
from stardust.worker.connection import Connection
from stardust.worker.entrance import Entrance
from stardust.worker.introduction import Introduction
from stardust.worker.life import GREETING, LINGERING, READING, SENDING
from stardust.worker.serving import Serving
from stardust.worker.siblings import Siblings
from stardust.worker.standing import Standing

_MOST_EVENTS = 32
_LONG = 1.0  # s; then all others are given away: none shall be lost with a request that never ends


class Relief:
    __slots__ = ("_book", "_clock", "_entrance", "_epoll", "_serving", "_siblings", "_standing")

    def __init__(
        self,
        epoll: select.epoll,
        clock: Clock,
        standing: Standing,
        book: Book,
        serving: Serving,
        entrance: Entrance,
        siblings: Siblings,
    ) -> None:
        self._epoll = epoll
        self._clock = clock
        self._standing = standing
        self._book = book
        self._serving = serving
        self._entrance = entrance
        self._siblings = siblings

    def relieve(self, lasted: float) -> None:
        """Look after everybody but the connection that the application is serving.

        Called when this turn of the loop has lasted so many seconds. The loop's own thread is inside the
        application until this has returned.
        """
        self._clock.tick()
        siblings = self._siblings
        # What is still in the link shows that all siblings are as busy: to give more would not help.
        room = siblings.keeping() or siblings.link is None or not siblings.link.untaken()
        room = room and siblings.give_all([*self._serving.ready])
        for descriptor, _ in self._epoll.poll(0, _MOST_EVENTS):
            connection = self._book.connections.get(descriptor)
            if connection is None:
                if descriptor in self._entrance.ways:
                    self._entrance.nudge()
            elif connection.stage == READING:
                if room and connection.queue is not None and siblings.can_go(connection):
                    room = siblings.give(connection)
            else:
                self._go_on(connection)
        if lasted >= _LONG:
            siblings.give_all(siblings.waiting())

    def _go_on(self, connection: Connection) -> None:
        """With one that is not about to send a request."""
        if connection.stage == SENDING:
            self._serving.send(connection)
            if self._standing.handing and connection.stage == READING:
                self._siblings.give(connection)
        elif connection.stage == LINGERING:
            self._serving.endings.ignore(connection)
        elif connection.stage == GREETING:
            # Give away a connection whose PROXY header is all here. TLS does not move.
            only = all(isinstance(each, Introduction) for each in connection.greetings)
            if only and self._entrance.greeted(connection):
                self._book.wait(connection, self._book.fresh)
                self._siblings.give(connection)
