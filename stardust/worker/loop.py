"""The event loop of a worker: one blocking call, and in which order everything that it reports has its turn.

A turn goes the way of a request (serving.py) once, step by step for all: first it takes in what has come,
then it serves those with a whole request, then it lets new connections in, and serves them. Under load each
step so finds its code in the processor's caches, which is worth more than any other trick in here
(docs/performance.md).

Nothing waits but `epoll.poll`, and `Connection.send` when a client leaves too much unread.

Runs in the application's interpreter too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional

from stardust.base import system
from stardust.base.address import Peers
from stardust.base.pristine import select
from stardust.ipc.handoff import Link
from stardust.ipc.scoreboard import Slot
from stardust.logs.log import Log
from stardust.settings.table import Config
from stardust.worker.accepting import BEGINNING, SHORTAGE, Accepting
from stardust.worker.book import Book
from stardust.worker.clock import FOREVER, Alarm, Clock
from stardust.worker.connection import Connection
from stardust.worker.entrance import Door, Entrance
from stardust.worker.guard import Guard
from stardust.worker.life import GREETING, LINGERING, READING, SENDING, STAGES
from stardust.worker.overdue import Overdue
from stardust.worker.parting import Parting
from stardust.worker.relief import Relief
from stardust.worker.serving import Serving
from stardust.worker.siblings import Siblings
from stardust.worker.standing import ALONE, Standing, Surroundings
from stardust.worker.telling import AccessLog, Telling
from stardust.worker.threads import Threads
from stardust.wsgi.gateway import Report

_MOST_EVENTS = 32  # so many requests are in memory at a time; more gain little

Reaction = Callable[[Connection], object]


class Loop:
    """One worker's. `run` returns when the worker is to exit: it was asked to leave, and holds nothing more.

    It makes the rooms, gives each what it needs, and calls them in turn; they say what the arguments are. A
    worker without a `link` has no siblings; one without a `shelf` stores nothing for the next start.
    """

    def __init__(
        self,
        config: Config,
        app: Callable[..., Any],
        doors: Sequence[Door],
        log: Log,
        *,
        slot: Slot,
        access_log: Optional[AccessLog] = None,
        link: Optional[Link] = None,
        shelf: Optional[Link] = None,
        surroundings: Surroundings = ALONE,
        report: Optional[Report] = None,
    ) -> None:
        self.slot = slot
        self.epoll = epoll = system.epoll()
        self.standing = standing = Standing()
        self.clock = clock = Clock()
        self.give_at = give_at = Alarm(clock)
        self.telling = telling = Telling(log, access_log, clock)
        self.book = book = Book(config, epoll, clock)
        self.accepting = accepting = Accepting(epoll, clock, telling)
        self.threads = threads = None
        if config.threads > 1:
            shared = None if link is None else give_at
            self.threads = threads = Threads(config, app, slot, clock, book, accepting, shared)
        proxies = Peers(config.trusted_proxies)
        self.serving = serving = Serving(
            config,
            app,
            slot,
            proxies,
            clock,
            standing,
            telling,
            book,
            threads,
            self._enough,
            self._leave,
            report,
        )
        self.entrance = entrance = Entrance(
            config, doors, link, proxies, clock, standing, telling, book, accepting, serving
        )
        self.overdue = overdue = Overdue(clock, book, serving, entrance)
        self.siblings = siblings = Siblings(
            link, shelf, surroundings, clock, telling, book, accepting, serving, entrance, overdue
        )
        self.parting = Parting(
            config, surroundings, clock, standing, book, accepting, serving, entrance, siblings, give_at
        )
        self.relief = Relief(epoll, clock, standing, book, serving, entrance, siblings)
        self.guard: Optional[Guard] = None
        if link is not None and threads is None:
            self.guard = serving.guard = Guard(lambda: clock.looked, self.relief.relieve)

        self.watched: dict[int, Callable[[], object]] = {}
        if threads is not None:
            self.watch(threads.pool.fileno(), serving.collect)

    def _enough(self) -> None:
        self.parting.enough()

    def _leave(self) -> None:
        self.parting.leave()

    def watch(self, descriptor: int, react: Callable[[], object]) -> None:
        """Call `react` whenever `descriptor` is readable."""
        self.watched[descriptor] = react
        self.epoll.register(descriptor, select.EPOLLIN)

    def unwatch(self, descriptor: int) -> None:
        del self.watched[descriptor]
        self.epoll.unregister(descriptor)

    def forsake(self) -> None:
        """In a forked child: nothing of this is its own. Close its copies of what the parent goes on with."""
        self.epoll.close()
        for connection in [*self.book.connections.values()]:
            connection.forsake()
        if self.threads is not None:
            self.threads.pool.forsake()
        if self.guard is not None:
            self.guard.forsake()

    def beat(self) -> None:
        """Answer a ping: the loop turns."""
        self.slot.beat(self.clock.now)

    def run(self) -> None:
        """Serve until asked to leave, and then until everything that was begun is done."""
        clock, standing, parting = self.clock, self.standing, self.parting
        self.slot.idle(0, 0, clock.tick())
        self.accepting.resume(BEGINNING)
        poll, connections, reactions = self.epoll.poll, self.book.connections, self._reactions()
        serving, siblings = self.serving, self.siblings
        ready, balance, ways, watched = serving.ready, siblings.balance, self.entrance.ways, self.watched
        while not (standing.leaving and parting.finished()):
            wait = 0.0 if ready else clock.wake_at - clock.now
            events = poll(-1 if wait == FOREVER else max(wait, 0.0), _MOST_EVENTS)
            looked = clock.looked = clock.tick()
            if serving.requests >= balance.after and looked >= balance.again:
                siblings.level(events)
            entered = []
            for descriptor, _ in events:
                connection = connections.get(descriptor)
                if connection is not None:
                    reactions[connection.stage](connection)
                elif descriptor in ways:
                    entered.append(descriptor)
                elif descriptor in watched:
                    watched[descriptor]()
            if ready:
                serving.serve()
            if entered:
                self._let_in(entered)
            if looked >= clock.wake_at:
                self.sweep(looked)
            if standing.due:
                parting.hand_over()
            if self.telling.access_log is not None:
                self.telling.write()

    def _let_in(self, entered: Sequence[int]) -> None:
        """Take the connections that wait at these descriptors, and serve them."""
        for descriptor in entered:
            self.entrance.let_in(descriptor)
            if self.serving.ready:
                self.serving.serve()

    def _reactions(self) -> Sequence[Reaction]:
        """What is done when something has come for a connection, or there is room to send, by its stage."""
        return by_stage(
            {
                GREETING: self.entrance.greet,
                READING: self.serving.read,
                SENDING: self.serving.send,
                LINGERING: self.serving.endings.ignore,
            }
        )

    def sweep(self, moment: float) -> None:
        """Act on every deadline that has passed at `moment`, and find the next one."""
        standing, accepting = self.standing, self.accepting
        self.overdue.act(moment)
        if accepting.resume_at.rings(moment):
            accepting.resume(SHORTAGE)
        if self.give_at.rings(moment):
            self.parting.offer()
        self.telling.catch_up(moment)
        self.clock.wake_at = min(
            *(self.book.next(), self.telling.next(), accepting.resume_at.at, self.give_at.at),
            standing.leave_by if standing.leaving else FOREVER,
        )


def by_stage(reactions: Mapping[int, Reaction]) -> Sequence[Reaction]:
    """The same as a sequence; nothing for the other stages: the application has that connection."""
    return [reactions.get(stage, lambda connection: None) for stage in range(len(STAGES))]
