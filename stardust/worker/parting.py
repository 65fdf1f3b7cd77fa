"""How a worker pauses and how it ends: pause, retire, stop.

Nothing that was begun is given up: requests are finished, and connections that wait for one go to siblings,
or onto the shelf. Only where they cannot, they have a moment for one more request.

Runs in the application's interpreter too.
"""

from __future__ import annotations

from stardust.ipc import messages
from stardust.settings.table import Config
from stardust.worker.accepting import LEAVING, PAUSED, Accepting
from stardust.worker.book import FAREWELL, Book
from stardust.worker.clock import Alarm, Clock
from stardust.worker.entrance import Entrance
from stardust.worker.serving import Serving
from stardust.worker.siblings import Siblings
from stardust.worker.standing import Standing, Surroundings

_RETRY = 0.01  # s; until connections that could not be given away are offered again


class Parting:
    """`give_at` rings when connections are to be offered to siblings again."""

    __slots__ = (
        "_accepting",
        "_book",
        "_clock",
        "_entrance",
        "_give_at",
        "_graceful",
        "_serving",
        "_siblings",
        "_standing",
        "_surroundings",
    )

    def __init__(
        self,
        config: Config,
        surroundings: Surroundings,
        clock: Clock,
        standing: Standing,
        book: Book,
        accepting: Accepting,
        serving: Serving,
        entrance: Entrance,
        siblings: Siblings,
        give_at: Alarm,
    ) -> None:
        self._graceful = config.graceful_timeout
        self._surroundings = surroundings
        self._clock = clock
        self._standing = standing
        self._book = book
        self._accepting = accepting
        self._serving = serving
        self._entrance = entrance
        self._siblings = siblings
        self._give_at = give_at

    def pause(self) -> None:
        """Accept nothing until `resume`. What comes waits in the kernel; connections that are here go on.

        What is in the link is taken first: those are clients' connections too, though no worker holds them.
        """
        self._standing.paused = True
        self._accepting.stop(PAUSED)
        self._siblings.take_all()

    def resume(self) -> None:
        """Accept again."""
        self._standing.paused = False
        self._accepting.resume(PAUSED)

    def enough(self) -> None:
        """The limit of requests is reached: leave, if a successor can be forked."""
        if self._surroundings.replaceable():
            self.leave()

    def leave(self, *, final: bool = False) -> None:
        """Take nothing new, finish what was begun, then let the loop's `run` return.

        Connections that wait for a request go to siblings. `final`: no worker follows. So those that are on
        their way to a sibling, and those that queue at listeners of our own, are served first; they would be
        lost when these close. A connection that waits for a request has `keepalive_timeout`, but not
        longer than FAREWELL, to begin one; or it goes onto the shelf.
        """
        standing, siblings = self._standing, self._siblings
        if not standing.leaving:
            standing.leaving = True
            standing.handing = siblings.link is not None
            standing.leave_by = self._clock.now + self._graceful
            self._clock.wake_by(standing.leave_by)
            self._accepting.stop(LEAVING)
            self._surroundings.announce(messages.Leaving())
        standing.final = standing.final or final
        if standing.final or not standing.handing:
            standing.handing = siblings.keeping()
        self._shorten_waits()
        if final:
            siblings.take_all()
            self._entrance.empty()
        if standing.handing:
            self.hand_over()

    def _shorten_waits(self) -> None:
        """Of those that cannot go anywhere."""
        book, standing = self._book, self._standing
        if not standing.handing:
            book.parked.seconds = min(book.parked.seconds, FAREWELL)
            for connection in [*book.parked.members, *book.fresh.members]:
                book.wait(connection, book.parked)
            book.greeting.seconds = min(book.greeting.seconds, FAREWELL)
            for connection in [*book.greeting.members]:
                book.wait(connection, book.greeting, connection.interest)
        elif standing.final:
            for connection in [*book.parked.members, *book.fresh.members]:
                if not connection.movable:
                    book.wait(connection, book.farewell)

    def abandon(self) -> None:
        """Leave without a supervisor: no worker follows, and nothing would be taken from the shelf."""
        self._siblings.shelf = None
        self.leave(final=True)

    def finished(self) -> bool:
        """Whether a worker that leaves holds nothing more, or must not be waited for any longer."""
        return not self._book.connections or self._clock.now >= self._standing.leave_by

    def hand_over(self) -> None:
        """Give all that wait to siblings, or onto the shelf. Those that cannot go are served meanwhile."""
        self._standing.due = False
        if self._surroundings.stopping() and not self._standing.final:
            self.leave(final=True)
        elif not self._siblings.give_all(self._siblings.waiting()):
            self._give_at.within(_RETRY)

    def offer(self) -> None:
        """The moment has come to offer again what could not go, or what waits for a thread."""
        threads = self._serving.threads
        if self._standing.handing:
            self.hand_over()
        elif threads is not None and threads.queued:
            self._siblings.give_all(threads.late())
            self._give_at.within(_RETRY)
