"""The book of a worker's connections: which are here, and what each of them waits for.

- A connection that waits stands in exactly one queue (deadlines.py), and that has its deadline. Who may be
  slow while it does stands on the list of `paced` as well (pace.py).
- It belongs to the loop, except while an application thread has its request: then the loop does not watch it,
  and touches nothing of it.
- When connections or descriptors run short, idle connections go first.

Runs in the application's interpreter too.
"""

from __future__ import annotations

import errno
import math
from itertools import islice

from stardust.base import process
from stardust.base.budget import Budget
from stardust.base.pristine import select
from stardust.settings.table import Config
from stardust.worker.admission import Admission, Peer, capacity
from stardust.worker.clock import Clock
from stardust.worker.connection import Connection
from stardust.worker.deadlines import Waiting
from stardust.worker.life import CLOSED
from stardust.worker.pace import LOOK, Pace

FAREWELL = 2.0  # s; how long a connection may wait for one more request when the server stops
_LINGER = 2.0  # s; how long what a client still sends is ignored after the last response
_IDLE_LOOKS = 8  # idle connections of a queue that are looked at when one is to make room

OUT_OF_DESCRIPTORS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Book:
    """`connections` has all by descriptor, and `most` is how many there may be; `empty_since` is when the
    last of them went, if there are none. The queues are named after what is to come: the end of what comes
    before HTTP (`greeting`); the first byte of the first request (`fresh`), or of another (`parked`, or
    `farewell` if it is to be the last); the rest of a head, or of a body; that the client reads (`sending`),
    or leaves (`lingering`)."""

    __slots__ = (
        "_clock",
        "_counted",
        "_epoll",
        "admission",
        "budget",
        "connections",
        "empty_since",
        "farewell",
        "fresh",
        "greeting",
        "lingering",
        "most",
        "paced",
        "parked",
        "queues",
        "reading_bodies",
        "reading_heads",
        "sending",
    )

    def __init__(self, config: Config, epoll: select.epoll, clock: Clock) -> None:
        self._clock = clock
        self._epoll = epoll
        self.connections: dict[int, Connection] = {}
        self.empty_since = clock.now
        self.most = capacity(config.max_connections, process.descriptor_limit())
        self.admission = Admission(config.max_connections_per_peer)
        self._counted: dict[int, Peer] = {}  # the peer that each counts for, by descriptor
        self.budget = Budget(config.max_buffer_memory)

        # "fresh" and "heads" end differently: a request that never began gets no answer.
        self.greeting: Waiting[Connection] = Waiting("handshake-timeout", config.handshake_timeout)
        self.fresh: Waiting[Connection] = Waiting("header-timeout", config.header_timeout)
        self.reading_heads: Waiting[Connection] = Waiting("header-timeout", config.header_timeout)
        self.reading_bodies: Waiting[Connection] = Waiting("timeout", config.timeout)
        self.parked: Waiting[Connection] = Waiting("keepalive-timeout", config.keepalive_timeout)
        self.sending: Waiting[Connection] = Waiting("timeout", config.timeout)
        self.farewell: Waiting[Connection] = Waiting("keepalive-timeout", FAREWELL)
        self.lingering: Waiting[Connection] = Waiting("linger", _LINGER)
        self.queues = (
            *(self.greeting, self.fresh, self.reading_heads, self.reading_bodies),
            *(self.parked, self.sending, self.farewell, self.lingering),
        )
        self.paced: Waiting[Connection] = Waiting("rate", LOOK)  # until somebody looks at them again

    def wait(self, connection: Connection, queue: Waiting[Connection], interest: int = 0) -> None:
        """Watch a connection for what its queue is about, from now on; or for `interest`, if given."""
        interest = interest or (select.EPOLLOUT if queue is self.sending else select.EPOLLIN)
        if connection.interest != interest:
            self.watch(connection, interest)
        if connection.queue is not None and connection.queue is not queue:
            connection.queue.discard(connection)
        connection.queue = queue
        clock = self._clock
        queue.add(connection, clock.now)
        deadline = clock.now + queue.seconds
        if deadline < clock.wake_at:
            clock.wake_at = deadline

    def watch(self, connection: Connection, interest: int) -> None:
        if connection.interest:
            self._epoll.modify(connection.number, interest)
        else:
            self._epoll.register(connection.number, interest)
        connection.interest = interest

    def dequeue(self, connection: Connection) -> None:
        if connection.queue is not None:
            connection.queue.discard(connection)
            connection.queue = None

    def unwatch(self, connection: Connection) -> None:
        self.dequeue(connection)
        if connection.interest:
            # Explicitly: epoll forgets a descriptor by itself only when no forked child has a copy of it.
            try:
                self._epoll.unregister(connection.number)
            except OSError:
                pass  # the application has closed it: `stardust.socket` lets it
            connection.interest = 0

    def count(self, connection: Connection, host: str) -> None:
        """It is one of that peer's."""
        peer = self.admission.enter(host)
        if peer != "":
            self._counted[connection.number] = peer

    def is_counted(self, connection: Connection) -> bool:
        return connection.number in self._counted

    def begin_pace(self, connection: Connection, rate: int, grace: float, left: int = 0) -> None:
        """From now on look, now and then, whether it is fast enough: at whole seconds, all at once."""
        if rate:
            now = self._clock.now
            connection.pace = Pace(rate, grace, now, left)
            self.paced.add(connection, math.ceil(now))
            self._clock.wake_by(self.paced.next())

    def end_pace(self, connection: Connection) -> None:
        if connection.pace is not None:
            connection.pace = None
            self.paced.discard(connection)

    def next(self) -> float:
        """The earliest deadline of all."""
        return min(self.paced.next(), *(queue.next() for queue in self.queues))

    def make_room(self) -> bool:
        """Drop who has been idle longest; False if nobody is. If it must be, one that has had its last
        answer, or one that has not come to HTTP."""
        idle = [queue for queue in (self.parked, self.fresh) if queue.members]
        for queue in sorted(idle, key=lambda queue: queue.next() - queue.seconds):
            for connection in [*islice(queue.members, _IDLE_LOOKS)]:
                if connection.idle and not connection.asks():
                    self.drop(connection)
                    return True
        for connection in [*islice(self.lingering.members, 1), *islice(self.greeting.members, 1)]:
            self.drop(connection)
            return True
        return False

    def relieve(self, fault: OSError) -> bool:
        """Something has found no descriptor, or no memory. Whether to try again at once."""
        return fault.errno in OUT_OF_DESCRIPTORS and self.make_room()

    def drop(self, connection: Connection, *, moved: bool = False) -> None:
        """Close a connection and forget it. `moved`: it goes on elsewhere."""
        if connection.interest or connection.queue is not None:
            self.unwatch(connection)
        if connection.pace is not None:
            self.end_pace(connection)
        if self._counted and connection.number in self._counted:
            self.admission.forget(self._counted.pop(connection.number))
        del self.connections[connection.number]
        self.empty_since = self._clock.now
        connection.stage = CLOSED
        connection.close(moved=moved)
