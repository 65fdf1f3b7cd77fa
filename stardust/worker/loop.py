"""The event loop of a worker: one blocking call, and what follows from each thing it reports.

The way of a request: a listener is readable → `_accept` → what comes before HTTP is over (`_greet`) → bytes
come (`_receive`) → a head and a body are complete (`_advance`), and it is `ready` → the application runs
(`_begin`, here or on an application thread) → `_finish` → what the client did not take yet is sent as it
reads (`_send`) → `_completed` → the next request, or the end.

A turn of the loop goes the way once, step by step for all: first it takes in what has come, then it serves
who is ready, then it lets new connections in, and serves them. Under load each step so finds its code in the
processor's caches, which is worth more than any other trick in here (docs/performance.md).

Rules:
- Nothing waits but `epoll.poll`, and `Connection.send` when a client leaves too much unread.
- A connection belongs to the loop, except while an application thread has its request; then the loop does
  not watch it and touches nothing of it.
- Each wait has its deadline: a connection that waits stands in exactly one queue (`deadlines.py`). Who may be
  slow while it does stands on the list of `paced` as well (`pace.py`).
- New connections are accepted one at a time, and only when the application could be called at once, so
  that the kernel gives them to whichever worker is free. Those of siblings (handoff.py) come the same way.
- Nobody waits here for somebody else's request. While the application has the loop (`relieve`, called by the
  guard), while all application threads are busy, and when this worker leaves, siblings get connections.
- What goes wrong with one connection ends that connection, with a line in the access log, and nothing else.
- When connections or descriptors run short, who is idle goes first. What clients can cause as often as they
  like is logged once a second (`Seldom`).

Hot: the path of a request without body on a kept connection is written flat, with no call that is not
needed; every microsecond here is one of some fifteen.

Runs in the application's interpreter too.
"""

from __future__ import annotations

import errno
import io
import math
import os
import random
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, Optional

from stardust.base import address as addresses
from stardust.base import system
from stardust.base.address import Address, Peers
from stardust.base.budget import Budget
from stardust.base.errors import ClaimError, ClientGone, HandoffError, ProtocolError
from stardust.http1 import body as bodies
from stardust.http1 import response
from stardust.http1.head import CHUNKED, Head, HeadReader, Limits
from stardust.http1.response import ResponseWriter
from stardust.ipc import messages
from stardust.ipc.handoff import MOST_DATA, Link, Passage
from stardust.ipc.scoreboard import Slot
from stardust.logs.accesslog import Record
from stardust.logs.log import Log, Seldom
from stardust.logs.logfile import LogFile
from stardust.settings.table import Config
from stardust.worker.admission import Admission, capacity
from stardust.worker.balance import Balance
from stardust.worker.connection import (
    GREETING,
    LINGERING,
    READING,
    SENDING,
    SERVING,
    Connection,
    Greeting,
    labelled,
)
from stardust.worker.deadlines import Waiting
from stardust.worker.guard import PATIENCE, Guard
from stardust.worker.introduction import Introduction
from stardust.worker.pace import BODY_GRACE, LOOK, RESPONSE_GRACE, Pace
from stardust.worker.threads import Pool
from stardust.wsgi import environ as environs
from stardust.wsgi import forwarded
from stardust.wsgi.environ import Environ
from stardust.wsgi.forwarded import Forwarding
from stardust.wsgi.gateway import FAILED, GONE, Exchange, FileWrapper, Report
from stardust.wsgi.input import Spool

_RECEIVE = 65536  # bytes of a body asked for at once
_RECEIVE_HEAD = 8192  # the same where a head is to come: nearly all fit, and the memory for it stays warm
_MOST_EVENTS = 32  # so many requests are in memory at a time; more gain little
_LABEL = 200  # bytes of a request that the scoreboard shows as far as its first line goes
_LINGER = 2.0  # s; how long what a client still sends is ignored after the last response
_ACCEPT_PAUSE = 0.1  # s; without accepting, when there is no room for one more and nobody is idle
_IDLE_LOOKS = 8  # idle connections of a queue that are looked at when one is to make room
_FAREWELL = 2.0  # s; how long a connection may wait for one more request when the server stops
_GIVE_AGAIN = 0.01  # s; until connections that could not be given away are offered again
_LONG = 1.0  # s; after which the application is left alone with its request: nobody shall be lost with it
_IN_A_ROW = 32  # connections accepted in a row before a sibling is preferred
_AT_ONCE = 0.001  # s; as many connections are let in at once as can be served meanwhile,
_MOST_AT_ONCE = 16  # but not more than these
_FOREVER = float("inf")
_HARAKIRI = "stardust.harakiri.commit"

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_OUT_OF_DESCRIPTORS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_TOO_MANY = "max-connections-per-peer"


class Door(NamedTuple):
    """A listener as a worker has it. `own`: stardust bound it; what queues there is lost when it closes.
    `greetings`: what makes the greetings of a new connection, in their order."""

    socket: socket.socket
    address: Address
    own: bool
    greetings: Sequence[Callable[[Connection], Greeting]] = ()


class AccessLog(NamedTuple):
    """Where finished requests are written, and how one becomes a line."""

    file: LogFile
    line: Callable[[Record], str]


class Loop:
    """One worker's. `run` returns when the worker is to exit: it was asked to leave, and holds nothing more.

    `link` leads to the siblings, `shelf` to the next start of the server, None without any; `served(since)`
    says by slot how many requests each has served that is free, or was then; `replaceable` says whether a
    successor could be forked for a worker that reached its limit of requests, `stopping` whether the whole
    server stops, `storing` whether idle connections then go onto the shelf; `announce(message)` tells the
    supervisor; `report` is told what is wrong with the application, instead of `wsgi.errors`.
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
        served: Callable[[float], Mapping[int, int]] = lambda since: {},
        replaceable: Callable[[], bool] = lambda: True,
        stopping: Callable[[], bool] = lambda: False,
        storing: Callable[[], bool] = lambda: False,
        announce: Callable[[messages.Leaving], object] = lambda message: None,
        report: Optional[Report] = None,
    ) -> None:
        self.config = config
        self.app = app
        self.log = log
        self.seldom = Seldom(log)
        self.slot = slot
        self.access_log = access_log
        self.link = link
        self.shelf = shelf
        self.served = served
        self.records: list[Record] = []  # of this turn, for the access log
        self.balance = Balance()
        self.replaceable = replaceable
        self.stopping = stopping
        self.storing = storing
        self.announce = announce
        self.report = report

        limits = Limits(config.max_request_line, config.max_header_count, config.max_header_bytes)
        strict = config.underscore_headers == "refuse"
        self.proxies = Peers(config.trusted_proxies)
        self.some_proxies = bool(self.proxies)
        self.forwarding = Forwarding(self.proxies, config.forwarded_headers, config.proxy_hops)
        self.heads = HeadReader(limits, forwarded.Unheard(), refuse_underscores=strict)
        self.told_heads = HeadReader(limits, self.forwarding.unheard, refuse_underscores=strict)
        self.writer = ResponseWriter()
        self.epoll = select.epoll()
        self.doors = {door.socket.fileno(): door for door in doors}
        self.openings: dict[Address, Environ] = {}  # what holds for the connections of a listener
        self.entrances: dict[int, Callable[[], bool]] = {}  # what takes one more connection, by descriptor
        self.watched: dict[int, Callable[[], object]] = {}
        self.connections: dict[int, Connection] = {}
        self.ready: deque[Connection] = deque()  # with a request, or what came behind their last
        self.running: dict[Connection, float] = {}  # on threads, and since when; oldest first
        self.queued: dict[Connection, float] = {}  # for a free thread, and since when; oldest first

        # "fresh" and "heads" differ in what happens at their end: nobody is told of a request never begun.
        self.greeting: Waiting[Connection] = Waiting("handshake-timeout", config.handshake_timeout)
        self.fresh: Waiting[Connection] = Waiting("header-timeout", config.header_timeout)
        self.reading_heads: Waiting[Connection] = Waiting("header-timeout", config.header_timeout)
        self.reading_bodies: Waiting[Connection] = Waiting("timeout", config.timeout)
        self.parked: Waiting[Connection] = Waiting("keepalive-timeout", config.keepalive_timeout)
        self.sending: Waiting[Connection] = Waiting("timeout", config.timeout)
        self.farewell: Waiting[Connection] = Waiting("keepalive-timeout", _FAREWELL)
        self.lingering: Waiting[Connection] = Waiting("linger", _LINGER)
        self.queues = (
            (self.greeting, self._late_greeting),
            (self.fresh, self._late_idle),
            (self.reading_heads, self._late_request),
            (self.reading_bodies, self._late_request),
            (self.parked, self._late_idle),
            (self.sending, self._late_reader),
            (self.farewell, self._late_idle),
            (self.lingering, self._drop),
        )
        self.paced: Waiting[Connection] = Waiting("rate", LOOK)  # until somebody looks at them again
        self.wake_at = _FOREVER  # never later than the earliest deadline

        self.most_connections = capacity(config.max_connections, system.descriptor_limit())
        self.budget = Budget(config.max_buffer_memory)
        self.admission = Admission(config.max_connections_per_peer)

        self.pid = os.getpid()
        self.requests = 0
        self.most_requests = _limit(config.max_reqs_per_child, config.min_reqs_per_child)
        self.most_on_connection = config.max_keepalive_reqs or sys.maxsize
        self.busy = False  # the scoreboard says so; without threads
        self.accepting = False
        self.accept_again = _FOREVER
        self.accepted = 0  # connections accepted since a sibling was preferred
        self.served_in = 0.0  # s; what a request took lately
        self.at_once = 1  # connections to let in at once
        self.nudged = 0.0  # the turn of the loop in which a sibling was nudged
        self.give_again = _FOREVER
        self.paused = False
        self.leaving = False
        self.final = False  # whether nobody follows when it leaves
        self.handing = False  # whether what it leaves goes elsewhere: to siblings, or onto the shelf
        self.leave_by = _FOREVER

        self.now = self.empty_since = time.monotonic()  # the latter if there are no connections
        self.looked = self.now  # when this turn of the loop began
        self.date = b""
        self.date_until = 0.0
        self.wall = 0.0  # what to add to the monotonic clock to get seconds since the epoch

        self.pool: Optional[Pool[Task]] = None
        if config.threads > 1:
            self.pool = Pool(config.threads, self._run_task)
            self.watch(self.pool.fileno(), self._collect)
        self.base = environs.server(
            multithread=config.threads > 1,
            multiprocess=config.max_workers > 0,
            errors=sys.stderr,
            file_wrapper=FileWrapper,
        )
        self.host = socket.gethostname() or "localhost"
        for descriptor, door in self.doors.items():
            self.openings[door.address] = environs.listener(self.base, door.address, self.host)
            # As numbers: each look at `family` would make a name of it, which takes as long as accept(2).
            kind = int(door.socket.family), int(socket.SOCK_STREAM), door.socket.proto
            self.entrances[descriptor] = partial(self._accept, descriptor, door, kind)
        self.guard: Optional[Guard] = None
        if link is not None:
            self.entrances[link.fileno()] = self._take
            if self.pool is None:
                self.guard = Guard(lambda: self.looked, self.relieve)

    # --- the loop ----------------------------------------------------------------------------------------

    def watch(self, descriptor: int, react: Callable[[], object]) -> None:
        """Call `react` whenever `descriptor` is readable."""
        self.watched[descriptor] = react
        self.epoll.register(descriptor, select.EPOLLIN)

    def unwatch(self, descriptor: int) -> None:
        del self.watched[descriptor]
        self.epoll.unregister(descriptor)

    def run(self) -> None:
        """Serve until asked to leave, and then until everything that was begun is done."""
        self._tick()
        self.slot.idle(0, 0, self.now)
        self._resume_accepting()
        poll, connections = self.epoll.poll, self.connections
        entrances, watched = self.entrances, self.watched
        while not (self.leaving and self._drained()):
            wait = 0.0 if self.ready else self.wake_at - self.now
            events = poll(-1 if wait == _FOREVER else max(wait, 0.0), _MOST_EVENTS)
            self._tick()
            looked = self.looked = self.now  # what came later, nobody has seen yet: it is not late
            if self.requests >= self.balance.after and looked >= self.balance.again:
                self._level(events)
            entered = []
            for descriptor, _ in events:
                connection = connections.get(descriptor)
                if connection is not None:
                    self._react(connection)
                elif descriptor in entrances:
                    entered.append(descriptor)
                elif descriptor in watched:
                    watched[descriptor]()
            if self.ready:
                self._serve()
            for descriptor in entered:
                self._let_in(descriptor)
                if self.ready:
                    self._serve()
            if looked >= self.wake_at:
                self._sweep(looked)
            if self.access_log is not None:
                self._write_log(self.access_log)

    def _serve(self) -> None:
        """Serve who is ready, each once: their next requests wait until everybody else had a turn."""
        ready, began = self.ready, self.now
        turns = count = len(ready)
        while turns and ready:  # the guard may have given some away
            turns -= 1
            self._proceed(ready.popleft())
        if self.pool is None:
            if self.busy:
                self._say_idle()
            took = self.served_in = (self.served_in + (self.now - began) / count) / 2
            self.at_once = min(_MOST_AT_ONCE, int(_AT_ONCE / took)) if took > 0 else _MOST_AT_ONCE

    def beat(self) -> None:
        """Answer a ping: the loop turns."""
        self.slot.beat(self.now)

    def look(self) -> None:
        """Accept what may wait: the sibling that the kernel woke for it may have left without taking it."""
        for descriptor in self.doors:
            self._let_in(descriptor)

    def pause(self) -> None:
        """Accept nothing until `resume`. What comes waits in the kernel; connections that are here go on.

        What siblings have given away is somebody's connection, though nobody has it: it is taken first.
        """
        self.paused = True
        self._stop_accepting()
        self._take_all()

    def resume(self) -> None:
        """Accept again. Registering a listener reports what waits there already (epoll(7))."""
        self.paused = False
        if self.accept_again == _FOREVER:
            self._resume_accepting()

    def leave(self, *, final: bool = False) -> None:
        """Take nothing new, finish what was begun, then let `run` return.

        Connections that wait for a request go to siblings. `final`: nobody follows. So those that are on
        their way to a sibling, and those that queue at listeners of our own, are served first; they would be
        lost when these close. Whoever waits for a request has `keepalive_timeout`, but not longer than
        _FAREWELL, to begin one; or he goes onto the shelf.
        """
        if not self.leaving:
            self.leaving = True
            self.handing = self.link is not None
            self.leave_by = self.now + self.config.graceful_timeout
            self._wake_by(self.leave_by)
            self._stop_accepting()
            self.announce(messages.Leaving())
        self.final = self.final or final
        if self.final or not self.handing:
            self.handing = self._keeping()
        if not self.handing:
            self.parked.seconds = min(self.parked.seconds, _FAREWELL)
            for connection in [*self.parked.members, *self.fresh.members]:
                self._wait(connection, self.parked)
            self.greeting.seconds = min(self.greeting.seconds, _FAREWELL)
            for connection in [*self.greeting.members]:
                self._wait(connection, self.greeting, connection.interest)
        elif self.final:
            for connection in [*self.parked.members, *self.fresh.members]:
                if not connection.movable:
                    self._wait(connection, self.farewell)
        if final:
            self._take_all()
            self._empty_queues()
        if self.handing:
            self._hand_over()

    def abandon(self) -> None:
        """Leave without a supervisor: nobody follows, and nobody would take anything from the shelf."""
        self.shelf = None
        self.leave(final=True)

    def _tick(self) -> None:
        now = self.now = time.monotonic()
        if now >= self.date_until:
            self._begin_second()

    def _begin_second(self) -> None:
        wall = time.time()
        self.date = response.date(wall)
        self.date_until = self.now + 1.0 - wall % 1.0
        self.wall = wall - self.now

    def _drained(self) -> bool:
        return not self.connections or self.now >= self.leave_by

    def _sweep(self, moment: float) -> None:
        """Act on every deadline that has passed at `moment`, and find the next one."""
        for queue, act in self.queues:
            for connection in queue.expired(moment):
                # One before it may have called the application, and the guard have given this one away.
                if connection.queue is queue:
                    act(connection)
        for connection in self.paced.expired(moment):
            self._look_at_pace(connection, moment)
        if moment >= self.accept_again:
            self._resume_accepting()
        if moment >= self.give_again:
            self._give_again()
        self.seldom.catch_up(moment)
        earliest = min(queue.next() for queue, _ in self.queues)
        leave_by = self.leave_by if self.leaving else _FOREVER
        self.wake_at = min(
            *(earliest, self.paced.next(), self.seldom.next()),
            *(self.accept_again, self.give_again, leave_by),
        )

    def _wake_by(self, moment: float) -> None:
        self.wake_at = min(self.wake_at, moment)

    # --- listeners ---------------------------------------------------------------------------------------

    def _resume_accepting(self) -> None:
        self.accept_again = _FOREVER
        if self.accepting or self.leaving or self.paused or (self.pool is not None and not self.pool.free):
            return
        self.accepting = True
        for descriptor in self.entrances:
            self.epoll.register(descriptor, select.EPOLLIN | system.EPOLLEXCLUSIVE)

    def _stop_accepting(self) -> None:
        if self.accepting:
            self.accepting = False
            for descriptor in self.entrances:
                self.epoll.unregister(descriptor)

    def _let_in(self, descriptor: int) -> None:
        """Take a connection, if it can be served here. If not, it was this worker that was woken for it all
        the same, and maybe no other. Take several if each will be served so soon that no sibling could do it
        much sooner: alone, each would find nothing of our code in the processor's caches."""
        entrance = self.entrances[descriptor]
        for turn in range(max(self.at_once, 1)):
            full = len(self.connections) >= self.most_connections
            if not self.accepting or self.slot.dismissed:
                self._nudge()
                return
            if full and turn:
                return  # somebody waits, or nobody: the next turn of the loop will know
            if full and not self._make_room():
                self._take_nobody(f"{len(self.connections)} connections, none of them idle")
                self._nudge()
                return
            if not entrance():
                return

    def _nudge(self) -> None:
        """Have a free sibling look at the listeners; once in a turn is enough."""
        if self.link is not None and not self.paused and self.nudged != self.looked:
            self.nudged = self.looked
            self.link.nudge()

    def _step_back(self, descriptor: int) -> None:
        """Let siblings be woken first: the kernel asks those who wait at an entrance in order of arrival."""
        self.accepted = 0
        if self.accepting:
            self.epoll.unregister(descriptor)
            self.epoll.register(descriptor, select.EPOLLIN | system.EPOLLEXCLUSIVE)

    def _accept(self, descriptor: int, door: Door, kind: tuple[int, int, int]) -> bool:
        """Take one connection, if no sibling was faster, and serve what it has sent already."""
        listener = door.socket
        try:
            number, peer = listener._accept()  # type: ignore[attr-defined] # accept() would build a socket.socket
        except BlockingIOError:
            return False
        except OSError as fault:
            # accept(2) reports errors of the new connection too; they mean nothing for the listener.
            return fault.errno not in _OUT_OF_DESCRIPTORS or self._short_of_descriptors(fault)
        sock = socket.SocketType(*kind, number)
        host, port = addresses.peer(peer)
        connection = self._welcome(sock, number, door.address, host, port)
        if door.greetings:
            connection.stage = GREETING
        if not self.admission.most or self._admit(connection):
            if door.greetings:
                connection.greetings = [make(connection) for make in door.greetings]
                self._greet(connection)
            else:
                self._receive(connection)
        self.accepted += 1
        if self._stays(connection) or self.accepted >= _IN_A_ROW:
            self._step_back(descriptor)
        return True

    def _stays(self, connection: Connection) -> bool:
        """Whether a new connection is there for more than one request, as far as that is known."""
        if connection.content is None or connection.head is None:
            return connection.interest != 0
        return connection.head.persistent and self.most_on_connection > 1

    def _welcome(
        self, sock: socket.SocketType, number: int, listener: Address, host: str, port: str
    ) -> Connection:
        """A connection of this worker from now on."""
        opening = self.openings.get(listener)
        if opening is None:  # of another generation, which a reload has left without it
            opening = environs.listener(self.base, listener, self.host)
        environ = environs.connection(opening, host, port)
        config = self.config
        connection = Connection(
            sock,
            number,
            listener,
            environ,
            config.max_response_buffer,
            config.timeout,
            config.min_response_rate,
            self.budget,
        )
        connection.told = self.some_proxies and host in self.proxies
        self.connections[number] = connection
        return connection

    def _greet(self, connection: Connection) -> None:
        """Go on with what comes before HTTP, and with HTTP when that is over."""
        if self._greeted(connection):
            self._proceed(connection)
            if self.handing and connection.queue is not None:
                self._hand_over()

    def _greeted(self, connection: Connection) -> bool:
        """Go on with what comes before HTTP; whether that is over."""
        while connection.greetings:
            try:
                interest = connection.greetings[0].go_on()
            except (ClientGone, OSError) as fault:
                self._turn_away(connection, str(fault))
                return False
            if interest:
                if connection.queue is None:
                    self._wait(connection, self.greeting, interest)
                elif interest != connection.interest:
                    self._watch(connection, interest)
                return False
            connection.greetings = connection.greetings[1:]
        connection.stage = READING
        connection.told = connection.environ["REMOTE_ADDR"] in self.proxies
        self._unwatch_queue(connection)
        return self._admit(connection)

    def _turn_away(self, connection: Connection, reason: str) -> None:
        """There is to be no HTTP: nobody asked for anything, and there is no request to log."""
        text = f"{connection.environ['REMOTE_ADDR'] or 'a local client'}: {reason}"
        if connection.told:  # a mistake in somebody's configuration
            self._complain("warning", "proxy", f"turned away a trusted proxy, {text}")
        else:
            self.log.debug(text)
        self._drop(connection)

    def _admit(self, connection: Connection) -> bool:
        """Count a new connection for its peer, or turn it away: when it comes, and one of a trusted proxy,
        which has those of all its clients, when that has told whose it is."""
        if not self.admission.most or connection.told or connection.counted != "":
            return True
        host = connection.environ["REMOTE_ADDR"]
        if self.admission.full(host):
            self._complain("info", _TOO_MANY, f"refused {host}: {_TOO_MANY}")
            if connection.stage == GREETING:
                self._drop(connection)  # who speaks no HTTP yet would not understand
            else:
                self._show_out(connection)
            return False
        connection.counted = self.admission.enter(host)
        return True

    def _show_out(self, connection: Connection) -> None:
        """A word why, and the end. It is not waited for: what a client sends after this moment resets the
        connection, and may take the word with it. Waiting would cost what is to be saved."""
        try:
            connection.socket.recv(_RECEIVE, socket.MSG_DONTWAIT)
        except OSError:
            pass
        Exchange(None, self.writer, connection.send, None, persistent=False, date=self.date).respond(503)
        self._drop(connection)

    def _make_room(self) -> bool:
        """Drop who has been idle longest; False if nobody is. If it must be, one that has had its last
        answer, or one that has not come to HTTP."""
        idle = [queue for queue in (self.parked, self.fresh) if queue.members]
        for queue in sorted(idle, key=lambda queue: queue.next() - queue.seconds):
            for connection in [*islice(queue.members, _IDLE_LOOKS)]:
                if connection.idle and not connection.asks():
                    self._drop(connection)
                    return True
        for connection in [*islice(self.lingering.members, 1), *islice(self.greeting.members, 1)]:
            self._drop(connection)
            return True
        return False

    def _short_of_descriptors(self, fault: OSError) -> bool:
        """There is none for one more connection, or no memory. Whether to try again at once."""
        if self._make_room():
            return True
        self._take_nobody(os.strerror(fault.errno or 0))
        return False

    def _relieve(self, fault: OSError) -> bool:
        """A body has no temporary file yet. Whether to try again at once."""
        return fault.errno in _OUT_OF_DESCRIPTORS and self._make_room()

    def _take_nobody(self, why: str) -> None:
        """For a moment. Who comes meanwhile waits in the kernel, or is taken by a sibling."""
        self._complain("warning", "shortage", f"takes no connections for {_ACCEPT_PAUSE:g} s: {why}")
        self._stop_accepting()
        self.accept_again = self.now + _ACCEPT_PAUSE
        self._wake_by(self.accept_again)

    def _complain(self, level: str, kind: str, text: str) -> None:
        self.seldom.say(level, kind, text, self.now)
        self._wake_by(self.seldom.next())

    def _empty_queues(self) -> None:
        """Take what queues at our own listeners now. Not more: under load, ever new ones come behind."""
        for descriptor, door in self.doors.items():
            entrance = self.entrances[descriptor]
            for _ in range(self.config.backlog + 1 if door.own else 0):
                if self.now >= self.leave_by or not entrance():
                    break

    # --- siblings ----------------------------------------------------------------------------------------

    def _take(self) -> bool:
        """Take one connection that a sibling has given away, and go on with it; False if there is none."""
        assert self.link is not None
        try:
            taken = self.link.take()
        except BlockingIOError:
            return False
        except OSError as fault:
            return self._short_of_descriptors(fault)
        except HandoffError as fault:
            self._complain("error", "handoff", f"a worker has sent what is no connection: {fault}")
            return True
        if taken is None:
            self.look()
            return True
        sock, passage = taken
        connection = self._welcome(sock, sock.fileno(), passage.listener, passage.host, passage.port)
        if not connection.told:
            connection.counted = self.admission.enter(passage.host)  # and stays: its sibling has let it in
        connection.requests = passage.requests
        connection.began = min(passage.began, self.now)
        connection.buffer = passage.data
        self._proceed(connection)
        if connection.requests == passage.requests:  # it waits for the same as before
            self._keep_waiting(connection, passage.since)
        self._step_back(self.link.fileno())
        return True

    def _take_all(self) -> None:
        while self.link is not None and self._take():
            pass

    def _keep_waiting(self, connection: Connection, since: float) -> None:
        """A wait that has been too long ends with the move; any other begins anew, for a queue is in order of
        arrival. So nobody waits more than twice as long as he should, however often he moves."""
        for queue, act in self.queues:
            if connection.queue is queue:
                began = connection.began if queue is self.reading_heads else since
                if self.now >= began + queue.seconds:
                    act(connection)
                return

    def _give(self, connection: Connection) -> bool:
        """Give a connection to whichever sibling is free first, or onto the shelf; False if it cannot go, or
        not now."""
        data, queue = connection.received, connection.queue
        link = self.shelf if self._keeping() else None if self.stopping() else self.link
        if link is None or data is None or not self._can_go(connection):
            return False
        passage = Passage(
            listener=connection.listener,
            host=connection.environ["REMOTE_ADDR"],
            port=connection.environ["REMOTE_PORT"],
            requests=connection.requests,
            began=connection.began,
            since=self.now if queue is None else queue.since(connection),
            data=bytes(data),
        )
        if not link.give(connection.number, passage):
            return False
        self.queued.pop(connection, None)
        if connection in self.ready:
            self.ready.remove(connection)
        self._drop(connection)
        return True

    def _level(self, events: Sequence[tuple[int, int]]) -> None:
        """Leave some of those who ask just now to siblings, if they have less to do."""
        excess = self.balance.excess(self.requests, self.served(self.now - PATIENCE), self.now)
        if excess and self.accepting:
            connections = filter(None, (self.connections.get(descriptor) for descriptor, _ in events))
            asking = [each for each in connections if each.stage == READING and each.queue is not None]
            self._give_all(asking[: math.ceil(len(asking) * excess)])

    def relieve(self, lasted: float) -> None:
        """Look after everybody but the connection that the application is serving.

        Called by the guard, on its thread, when this turn of the loop has lasted so many seconds: the loop's
        own thread is inside the application until this has returned.
        """
        self._tick()
        # What nobody has taken yet shows that all are as busy: to give more would help nobody.
        room = self._keeping() or self.link is None or not self.link.untaken()
        room = room and self._give_all([*self.ready])
        for descriptor, _ in self.epoll.poll(0, _MOST_EVENTS):
            connection = self.connections.get(descriptor)
            if connection is None:
                if descriptor in self.entrances:
                    self._nudge()
            elif connection.stage == READING:
                if room and connection.queue is not None and self._can_go(connection):
                    room = self._give(connection)
            elif connection.stage in (SENDING, LINGERING):
                self._react(connection)
            elif connection.stage == GREETING:
                self._introduce(connection)
        if lasted >= _LONG:
            self._give_all(self._waiting())

    def _introduce(self, connection: Connection) -> None:
        """Give away whom a proxy introduces just now. HTTP is not for the guard, and TLS does not move."""
        only = all(isinstance(each, Introduction) for each in connection.greetings)
        if only and self._greeted(connection):
            self._wait(connection, self.fresh)
            self._give(connection)

    def _waiting(self) -> Iterable[Connection]:
        """Those whose next request the application has not got yet."""
        for connection in [*self.connections.values()]:
            if connection.stage == READING or connection in self.queued:
                yield connection

    def _keeping(self) -> bool:
        """Whether the whole server stops, and its idle connections wait for the next start."""
        return self.shelf is not None and self.storing()

    def _can_go(self, connection: Connection) -> bool:
        """To a sibling with what has come of its next request, unless that is too much; onto the shelf with
        nothing."""
        idle = connection.idle or not self._keeping()
        return idle and connection.received is not None

    def _give_all(self, connections: Iterable[Connection]) -> bool:
        """Give those that can go; False if there was no room for all of them."""
        return all(self._give(connection) for connection in connections if self._can_go(connection))

    def _hand_over(self) -> None:
        """Leave everybody who waits to siblings, or onto the shelf. Who cannot go now is served meanwhile."""
        if self.stopping() and not self.final:
            self.leave(final=True)
        elif not self._give_all(self._waiting()):
            self._give_within(_GIVE_AGAIN)

    def _give_within(self, seconds: float) -> None:
        self.give_again = min(self.give_again, self.now + seconds)
        self._wake_by(self.give_again)

    def _give_again(self) -> None:
        self.give_again = _FOREVER
        if self.handing:
            self._hand_over()
        elif self.queued:
            late = [each for each, since in self.queued.items() if self.now >= since + PATIENCE]
            self._give_all(late)
            self._give_within(_GIVE_AGAIN)

    def _enqueue(self, connection: Connection) -> None:
        """All threads are busy: wait for one of them, and after PATIENCE for a sibling's too."""
        self._unwatch_connection(connection)
        self.queued[connection] = self.now
        if self.link is not None:
            self._give_within(PATIENCE)

    # --- what connections wait for -----------------------------------------------------------------------

    def _wait(self, connection: Connection, queue: Waiting[Connection], interest: int = 0) -> None:
        """Watch a connection for what its queue is about, from now on; or for `interest`, if given."""
        interest = interest or (select.EPOLLOUT if queue is self.sending else select.EPOLLIN)
        if connection.interest != interest:
            self._watch(connection, interest)
        if connection.queue is not None and connection.queue is not queue:
            connection.queue.discard(connection)
        connection.queue = queue
        queue.add(connection, self.now)
        deadline = self.now + queue.seconds
        if deadline < self.wake_at:
            self.wake_at = deadline

    def _watch(self, connection: Connection, interest: int) -> None:
        if connection.interest:
            self.epoll.modify(connection.number, interest)
        else:
            self.epoll.register(connection.number, interest)
        connection.interest = interest

    def _unwatch_queue(self, connection: Connection) -> None:
        if connection.queue is not None:
            connection.queue.discard(connection)
            connection.queue = None

    def _unwatch_connection(self, connection: Connection) -> None:
        self._unwatch_queue(connection)
        if connection.interest:
            # Explicitly: epoll forgets a descriptor by itself only when no forked child has a copy of it.
            try:
                self.epoll.unregister(connection.number)
            except OSError:
                pass  # the application has closed it: `stardust.socket` lets it
            connection.interest = 0

    def _react(self, connection: Connection) -> None:
        stage = connection.stage
        if stage == READING:
            # In no queue: it is in `ready`. Reading on would let a client fill our memory with requests.
            if connection.queue is not None:
                if self.pool is None or self.pool.free or connection.head is not None:
                    self._receive(connection)
                else:
                    self._enqueue(connection)
        elif stage == SENDING:
            self._send(connection)
        elif stage == LINGERING:
            self._ignore(connection)
        elif stage == GREETING:
            self._greet(connection)

    def _proceed(self, connection: Connection) -> None:
        """Go on with what has come of its next request, here or in its socket."""
        if connection.content is not None:
            self._begin(connection)
        elif self.pool is not None and not self.pool.free:
            self._enqueue(connection)
        elif connection.buffer:
            self._advance(connection)
        else:
            self._receive(connection)

    def _receive(self, connection: Connection) -> None:
        try:
            size = _RECEIVE_HEAD if connection.body is None else _RECEIVE
            data = connection.socket.recv(size, socket.MSG_DONTWAIT)
        except BlockingIOError:
            if connection.queue is None:
                parked = connection.requests or (self.leaving and not self.handing)
                self._wait(connection, self.parked if parked else self.fresh)
            return
        except OSError:
            data = b""
        if not data:
            self._end_of_input(connection)
        elif connection.body is not None:
            connection.keep_raw(data)
            self._take_body(connection, data)
        elif connection.buffer:
            connection.buffer += data
            self._advance(connection)
        else:
            connection.buffer = data
            self._advance(connection)

    def _end_of_input(self, connection: Connection) -> None:
        if connection.head is not None and self.access_log is not None:  # in the middle of a body
            connection.note = GONE
            self._log_request(connection)
        # No reset: the answer to an earlier request may still be on its way.
        self._drop(connection)

    def _advance(self, connection: Connection) -> None:
        """Look for a complete head in what has come."""
        buffer = connection.buffer
        if not connection.began:
            connection.began = self.now
        try:
            heads = self.told_heads if connection.told else self.heads
            found = heads.read(buffer, connection.searched, connection.environ)
            if found is None:
                connection.buffer = bytearray(buffer) if type(buffer) is bytes else buffer
                connection.searched = len(buffer)
                if connection.queue is not self.reading_heads:
                    self._wait(connection, self.reading_heads)
                return
            head, consumed = found
            connection.head = head
            environs.environ(head)
            peer = self._believe(connection, head) if connection.told else connection.peer
            connection.label = peer + buffer[:_LABEL]
            if not head.length:
                connection.consumed = consumed
                connection.content = io.BytesIO()
                self.ready.append(connection)
                return
            connection.body = bodies.reader(head, self.config.max_body)
        except ClaimError as claim:
            self._tell_of(connection, claim)
            self._advance(connection)
            return
        except ProtocolError as refusal:
            self._refuse(connection, refusal.status, refusal.reason)
            return
        connection.spool = Spool(budget=self.budget, relieve=self._relieve)
        connection.raw = buffer if len(buffer) <= MOST_DATA else None
        rest, connection.buffer = bytes(buffer[consumed:]), b""
        if head.expects_continue and not rest and not self._say_continue(connection):
            return
        self._take_body(connection, rest)

    def _tell_of(self, connection: Connection, claim: ClaimError) -> None:
        """Whoever runs a proxy before this server may wonder why nobody believes it."""
        peer, header = connection.environ["REMOTE_ADDR"], forwarded.header_of(claim.key)
        named = f"{peer} is not" if peer else '"unix:" is not'
        self.log.info(f"{header} of {peer or 'a local client'} was removed: {named} in trusted-proxies")

    def _believe(self, connection: Connection, head: Head) -> bytes:
        """Put into `head` what the trusted proxy that sent it says of its client. How the label begins."""
        changes = self.forwarding.changes(connection.environ, head)
        head.fields.update(changes)
        host = changes.get("REMOTE_ADDR")
        return connection.peer if host is None else labelled(host)

    def _say_continue(self, connection: Connection) -> bool:
        try:
            connection.send(CONTINUE)
        except ClientGone:
            self._drop(connection)
            return False
        return True

    def _take_body(self, connection: Connection, data: bytes) -> None:
        body, spool = connection.body, connection.spool
        assert body is not None
        assert spool is not None
        try:
            consumed = body.feed(data, spool.write)
            if not body.complete:
                self._wait(connection, self.reading_bodies)
                if connection.pace is None:
                    self._begin_pace(connection, self.config.min_body_rate, BODY_GRACE)
                return
            connection.content = spool.finish()
        except ProtocolError as refusal:
            self._refuse(connection, refusal.status, refusal.reason)
            return
        except OSError as fault:
            self._complain("error", "spool", f"cannot keep a request's body: {fault}")
            if fault.errno in _OUT_OF_DESCRIPTORS:
                self._refuse(connection, 503, "no descriptor for its body")
            else:
                self._refuse(connection, 507, "disk full")
            return
        if connection.pace is not None:
            self._end_pace(connection)
        connection.buffer = data[consumed:]
        self.ready.append(connection)

    # --- the application ---------------------------------------------------------------------------------

    def _begin(self, connection: Connection) -> None:
        """Call the application with the request of a connection, or have a thread call it. Hot."""
        head, content = connection.head, connection.content
        assert head is not None
        connection.stage = SERVING
        if self.pool is not None:
            if not self.pool.free:
                self._enqueue(connection)
                return
            self._unwatch_connection(connection)
        connection.requests += 1
        self.requests += 1
        if self.requests >= self.most_requests and not self.leaving and self.replaceable():
            self.leave()
        persistent = head.persistent and connection.requests < self.most_on_connection
        if self.leaving:
            persistent = persistent and self.handing and connection.movable
        connection.buffer = bytes(connection.buffer[connection.consumed :])
        connection.consumed = 0

        # The application's from now on; we keep no reference, so that no cycle is left to the collector.
        environ, head.fields = head.fields, {}
        if head.length == CHUNKED and connection.body is not None:
            environs.unchunked(environ, connection.body.received)
        if self.access_log is not None:
            connection.said = said(environ)
        exchange = connection.exchange = Exchange(
            head, self.writer, connection.send, connection.send_file, persistent, self.date, self.report
        )
        environ["wsgi.input"] = content
        environ["wsgi.early_hints"] = exchange.early_hints
        environ["stardust.socket"] = connection.socket
        environ["stardust.informational"] = exchange.informational
        if self.pool is not None:
            self.running[connection] = self.now
            self._publish()
            self.pool.submit(Task(connection, exchange, environ))
            if not self.pool.free:
                self._stop_accepting()
            return

        limit, now, guard = self.config.request_timeout, self.now, self.guard
        self.busy = True
        self.slot.busy(1, now, now + limit if limit else 0.0, connection.label)
        if guard is None:
            exchange.run(self.app, environ)
        else:
            guard.turn.release()
            if guard.asleep:
                guard.wake()
            exchange.run(self.app, environ)
            guard.turn.acquire()
        now = self.now = time.monotonic()
        if now >= self.date_until:
            self._begin_second()

        # What `_finish` and `_completed` do when nothing is out of the ordinary.
        outbox, parked = connection.outbox, self.parked
        plain = (
            not connection.buffer
            and connection.spool is None
            and (outbox is None or not outbox.pending)
            and _HARAKIRI not in environ
        )
        if plain and exchange.persistent and connection.queue is parked and not self.handing:
            if self.access_log is not None:
                self._log_request(connection)
            connection.stage = READING
            connection.head = connection.content = connection.exchange = None
            connection.searched = 0
            connection.began = 0.0
            waiting = parked.members
            del waiting[connection]
            waiting[connection] = now + parked.seconds
            return
        if not self.ready:
            self._say_idle()  # before the client can see that this is over
        if plain and exchange.complete and not head.persistent:
            if self.access_log is not None:
                self._log_request(connection)
            self._drop(connection)
        else:
            self._finish(connection, environ)

    def _say_idle(self) -> None:
        self.busy = False
        self.slot.idle(self.requests, len(self.connections), self.now)

    def _run_task(self, task: Task) -> None:
        task.exchange.run(self.app, task.environ)

    def _collect(self) -> None:
        """Take back from the application threads what they have done, and give them what waits."""
        assert self.pool is not None
        for task in self.pool.done():
            del self.running[task.connection]
            self._finish(task.connection, task.environ)
        while self.queued and self.pool.free:
            connection = next(iter(self.queued))
            del self.queued[connection]
            self._proceed(connection)
        self._publish()
        if self.pool.free and self.accept_again == _FOREVER:
            self._resume_accepting()

    def _publish(self) -> None:
        """Say on the scoreboard what the threads are doing: the oldest request stands for all."""
        for connection, began in self.running.items():
            limit = self.config.request_timeout
            deadline = began + limit if limit else 0.0
            self.slot.count(self.requests, len(self.connections))
            self.slot.busy(len(self.running), began, deadline, connection.label)
            return
        self.slot.idle(self.requests, len(self.connections), self.now)

    def _finish(self, connection: Connection, environ: Environ) -> None:
        """The application has returned; its response may still be on its way."""
        exchange = connection.exchange
        assert exchange is not None
        if connection.spool is not None:
            connection.spool.close()
        if _HARAKIRI in environ and _is_true(environ[_HARAKIRI]):
            self.leave()
        if exchange.note == GONE:
            self._lose(connection, GONE)
        elif connection.unsent:
            self._await_reader(connection)
        else:
            self._completed(connection)

    def _await_reader(self, connection: Connection) -> None:
        """All of the response is there; what the client has not taken yet goes as it reads."""
        connection.stage = SENDING
        connection.left_first = connection.left
        self._wait(connection, self.sending)
        self._begin_pace(connection, self.config.min_response_rate, RESPONSE_GRACE)

    def _send(self, connection: Connection) -> None:
        """A slow reader takes more of its response."""
        before = connection.unsent
        try:
            connection.flush()
        except ClientGone:
            self._lose(connection, GONE)
            return
        if not connection.unsent:
            if connection.pace is not None:
                self._end_pace(connection)
            self._completed(connection)
        elif connection.unsent < before:
            self._wait(connection, self.sending)

    def _completed(self, connection: Connection) -> None:
        """The response has left. What now: another request, or the end?"""
        exchange, head = connection.exchange, connection.head
        assert exchange is not None
        if self.access_log is not None:
            self._log_request(connection)
        if not exchange.complete:
            if exchange.note == FAILED:
                connection.reset_on_close()
            self._drop(connection)
        elif exchange.persistent:
            rest = connection.buffer
            connection.next_request()
            if rest:
                self._unwatch_queue(connection)
                self.ready.append(connection)
            else:
                self._wait(connection, self.parked)
            if self.handing:
                self._hand_over()
        elif (
            connection.buffer
            or connection.note
            or (head is not None and head.persistent and connection.asks())
        ):
            # Or it has sent more, since it did not know that this response would be the last.
            self._linger(connection)
        else:
            self._drop(connection)

    # --- endings -----------------------------------------------------------------------------------------

    def _refuse(self, connection: Connection, status: int, note: str) -> None:
        """Answer with an error of the server's own; nothing that comes behind it is read (RFC 9112 9.6)."""
        connection.note = note
        self._complain("info", "refused", f"refused a request of {connection.who}: {status}, {note}")
        if connection.pace is not None:
            self._end_pace(connection)
        if connection.spool is not None:
            connection.spool.close()  # now: the connection may linger, and others need the room
        exchange = Exchange(
            connection.head, self.writer, connection.send, None, persistent=False, date=self.date
        )
        connection.exchange = exchange
        exchange.respond(status)
        if exchange.note == GONE:
            self._lose(connection, note)
        elif connection.unsent:
            self._await_reader(connection)
        else:
            self._completed(connection)

    def _late_greeting(self, connection: Connection) -> None:
        """It may have come to an end meanwhile, and nobody have looked: then it is not late."""
        self._greet(connection)
        if connection.queue is self.greeting:
            self._turn_away(connection, f"it has not come to HTTP within {self.greeting.seconds:g} s")

    def _late_idle(self, connection: Connection) -> None:
        """Nothing came in time. Or it did, and others are ahead of it: one poll reports so many at most."""
        if connection.asks():
            self._react(connection)
        else:
            self._drop(connection)

    def _late_request(self, connection: Connection) -> None:
        queue = connection.queue
        self._refuse(connection, 408, queue.what if queue is not None else "timeout")

    def _late_reader(self, connection: Connection) -> None:
        self._lose(connection, "timeout")

    def _begin_pace(self, connection: Connection, rate: int, grace: float) -> None:
        """From now on look, now and then, whether it is fast enough: at whole seconds, all at once."""
        if rate:
            connection.pace = Pace(rate, grace, self.now)
            self.paced.add(connection, math.ceil(self.now))
            self._wake_by(self.paced.next())

    def _end_pace(self, connection: Connection) -> None:
        connection.pace = None
        self.paced.discard(connection)

    def _look_at_pace(self, connection: Connection, moment: float) -> None:
        """The due look at a client whose body or response is on its way."""
        pace = connection.pace
        if pace is None:
            return  # with one before it, this one was given away
        pace.forgive(moment - self.paced.since(connection) - LOOK)
        if connection.stage == SENDING:
            self._send(connection)  # the kernel tells of room only when there is much
            if connection.pace is not pace:
                return
        if not pace.late(connection.moved, moment):
            self.paced.add(connection, math.ceil(moment))
        elif connection.stage == SENDING:
            self._lose(connection, "min-response-rate")
        else:
            self._refuse(connection, 408, "min-body-rate")

    def _lose(self, connection: Connection, note: str) -> None:
        """The response cannot be delivered, or not all of it: nobody shall take a part for the whole."""
        connection.note = note
        if self.access_log is not None:
            self._log_request(connection)
        connection.reset_on_close()
        self._drop(connection)

    def _linger(self, connection: Connection) -> None:
        """End our side and read on for a while: closing with unread bytes would reset the connection, and the
        client might lose the response it has not read yet (RFC 9112 9.6)."""
        connection.stage = LINGERING
        connection.buffer = b""
        try:
            connection.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self._drop(connection)
            return
        self._wait(connection, self.lingering)

    def _ignore(self, connection: Connection) -> None:
        try:
            if connection.socket.recv(_RECEIVE, socket.MSG_DONTWAIT):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        """Close a connection and forget it."""
        if connection.interest or connection.queue is not None:
            self._unwatch_connection(connection)
        if connection.pace is not None:
            self._end_pace(connection)
        if connection.counted != "":
            self.admission.leave(connection.counted)
        del self.connections[connection.number]
        self.empty_since = self.now
        connection.close()

    def _log_request(self, connection: Connection) -> None:
        head, exchange = connection.head, connection.exchange
        peer, referer, agent, host = connection.said or said(head.fields if head is not None else {})
        connection.said = ()
        self.records.append(
            Record(
                connection.began + self.wall,
                self.now - connection.began,
                peer or connection.environ["REMOTE_ADDR"],
                "",
                head.method if head is not None else "",
                head.target if head is not None else "",
                head.version if head is not None else "",
                exchange.status if exchange is not None else 0,
                exchange.sent if exchange is not None else 0,
                referer,
                agent,
                host,
                connection.note or (exchange.note if exchange is not None else ""),
                self.pid,
            )
        )

    def _write_log(self, log: AccessLog) -> None:
        """One write for all requests of a turn, which become lines one behind the other."""
        for record in self.records:
            log.file.add(log.line(record))
        self.records.clear()
        log.file.flush()


class Task(NamedTuple):
    """A request on its way through an application thread."""

    connection: Connection
    exchange: Exchange
    environ: Environ


def said(fields: Mapping[str, str]) -> Sequence[str]:
    """What a request says that its line in the access log needs: peer, Referer, User-Agent, Host. Before the
    application has its environ, and may change it."""
    get = fields.get
    return (
        get("REMOTE_ADDR", ""),
        get("HTTP_REFERER", ""),
        get("HTTP_USER_AGENT", ""),
        get("HTTP_HOST", ""),
    )


def _is_true(value: Any) -> bool:
    """Of something that the application has made, whose own word on it may be an exception."""
    try:
        return bool(value)
    except BaseException:
        return True


def _limit(most: int, least: int) -> int:
    """How many requests a worker serves: `most`, or drawn evenly from `least` to `most`. `most` 0: no
    limit."""
    if not most:
        return sys.maxsize
    return random.randint(least, most) if least else most
