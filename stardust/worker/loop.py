"""The event loop of a worker: one blocking call, and in which order everything that it reports has its turn.

A turn goes the way of a request (serving.py) once, step by step for all: first it takes in what has come,
then it serves those with a whole request, then it lets new connections in, and serves them. Under load each
step so finds its code in the processor's caches, which is worth more than any other trick in here
(docs/performance.md).

Nothing waits but `epoll.poll`, and `Connection.send` when a client leaves too much unread.

Runs in the application's interpreter too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from errno import EBADF
from typing import Any, Optional

from stardust.base import system
from stardust.base.address import Peers
from stardust.base.pristine import select, time
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
from stardust.worker.vitals import EVERY, Vitals
from stardust.wsgi.gateway import Report

_PAUSE = 0.005  # s; between two looks at what cannot be looked away from
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
        self.vitals, self.look_at = Vitals(), Alarm(clock)

    def _enough(self) -> None:
        self.parting.enough()

    def _leave(self) -> None:
        self.parting.leave()

    def watch(self, descriptor: int, react: Callable[[], object]) -> None:
        """Call `react` whenever `descriptor` is readable."""
        self.watched[descriptor] = react
        self.epoll.register(descriptor, select.EPOLLIN)

    def unwatch(self, descriptor: int) -> None:
        self.vitals.forget(descriptor)
        del self.watched[descriptor]
        self.epoll.unregister(descriptor)

    def forsake(self) -> None:
        """In a forked child: nothing of this is its own. Close its copies of what the parent goes on with."""
        self.epoll.close()
        self.serving.forsake()
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
        """Serve until asked to leave, and then until everything that was begun is done; or until that cannot
        be done, since the application has closed what it needs."""
        self._keep()
        self.slot.idle(0, 0, self.clock.tick())
        self.accepting.resume(BEGINNING)
        while True:
            try:
                return self._turn()
            except OSError:
                lost = self.vitals.lost()
                if not lost:
                    raise
                if not self._do_without(lost):
                    return None

    def _keep(self) -> None:
        """Remember what is vital."""
        named = {self.epoll.fileno(): "epoll"}
        if self.threads is not None:
            named.update(dict.fromkeys(self.threads.pool.descriptors, "the pipe of the application threads"))
        named.update((number, f"the listener {door.address}") for number, door in self.entrance.doors.items())
        for number in self.siblings.shelf.descriptors if self.siblings.shelf is not None else ():
            named[number] = "the link to the next start"
        if self.siblings.link is not None:
            named.update(dict.fromkeys(self.siblings.link.descriptors, "the link between workers"))
        for number in self.watched:
            named.setdefault(number, "the channel to the supervisor, or to the signals")
        self.vitals.keep(named)

    def _look(self) -> None:
        """See to what is vital. Raises OSError if something is lost."""
        self.vitals.after = self.serving.requests + 1
        if self.vitals.lost_any():
            raise OSError(EBADF, "a descriptor of the server's is lost")
        for number, door in self.entrance.doors.items():
            # Of all processes that have it: accept(2) would wait, when a sibling was faster.
            if system.get_blocking(number):
                system.set_blocking(number, False)
                self.telling.log.error(f"the application made the listener {door.address} block; mended")

    def _do_without(self, lost: Mapping[int, str]) -> bool:
        """Say what is lost, and leave. Whether requests that were begun can still be finished."""
        told = " and ".join(f"{number}, which was {name}" for number, name in lost.items())
        self.telling.log.error(f"the application closed or replaced descriptor {told}; this worker leaves")
        link = self.siblings.link
        if link is not None and lost.keys() & {*link.descriptors}:
            self.siblings.link = None
        for number in lost:
            self.watched.pop(number, None)
            if self.entrance.ways.pop(number, None) is not None:
                # If another process has it, epoll goes on to report it, and cannot be told not to.
                self.watched[number] = lambda: time.sleep(_PAUSE)
        needed = {self.epoll.fileno()} | {*(self.threads.pool.descriptors if self.threads else ())}
        if lost.keys() & needed:
            self.siblings.give_all(self.siblings.waiting())
            return False
        self.parting.leave()
        return True

    def _turn(self) -> None:
        """The turns of the loop."""
        clock, standing, parting = self.clock, self.standing, self.parting
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
            if ready or entered:
                self._serve(entered)
            if looked >= clock.wake_at:
                self.sweep(looked)
            if standing.due:
                parting.hand_over()
            if self.telling.access_log is not None:
                self.telling.write()

    def _serve(self, entered: Sequence[int]) -> None:
        """Serve those that are ready; then take the connections that wait at these descriptors, and serve
        them."""
        if self.serving.ready:
            self.serving.serve()
        for descriptor in entered:
            self.entrance.let_in(descriptor)
            if self.serving.ready:
                self.serving.serve()
        if self.serving.requests >= self.vitals.after:
            self.vitals.after = sys.maxsize
            self.look_at.within(EVERY)

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
        if self.look_at.rings(moment):
            self._look()
        self.clock.wake_at = min(
            *(
                self.book.next(),
                self.telling.next(),
                accepting.resume_at.at,
                self.give_at.at,
                self.look_at.at,
            ),
            standing.leave_by if standing.leaving else FOREVER,
        )


def by_stage(reactions: Mapping[int, Reaction]) -> Sequence[Reaction]:
    """The same as a sequence; nothing for the other stages: the application has that connection."""
    return [reactions.get(stage, lambda connection: None) for stage in range(len(STAGES))]
