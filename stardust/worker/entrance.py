"""How connections come in: accepted, greeted, or turned away.

New connections are taken one at a time, and only when the application could be called at once, so that the
kernel gives them to whichever worker is free. Those of siblings (siblings.py) come the same way.

The way in: a listener is readable → `let_in` → `_accept` → what comes before HTTP is over (`greet`) →
serving.py.

Runs in the application's interpreter too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Optional

from stardust.base import address as addresses
from stardust.base import process, streams, system
from stardust.base.address import Address, Peers
from stardust.base.errors import ClientGone
from stardust.base.pristine import os, socket
from stardust.ipc.handoff import Link
from stardust.settings.table import Config
from stardust.worker.accepting import Accepting
from stardust.worker.book import OUT_OF_DESCRIPTORS, Book
from stardust.worker.clock import Clock
from stardust.worker.connection import Connection, Greeting, Terms
from stardust.worker.life import GREETING, READING
from stardust.worker.serving import Serving
from stardust.worker.standing import Standing
from stardust.worker.telling import Telling
from stardust.worker.vitals import LOST
from stardust.wsgi import environ as environs
from stardust.wsgi.environ import Environ
from stardust.wsgi.gateway import FileWrapper

_IN_A_ROW = 32  # connections accepted in a row before a sibling is preferred
CROWD = 256  # connections with numbers that the application may need for select(2)
_TOO_MANY = "max-connections-per-peer"


class Door(NamedTuple):
    """A listener as a worker has it. `own`: stardust bound it; what queues there is lost when it closes.
    `greetings`: what makes the greetings of a new connection, in their order."""

    socket: socket.socket
    address: Address
    own: bool
    greetings: Sequence[Callable[[Connection], Greeting]] = ()


class Entrance:
    """`doors` has the listeners by descriptor; `ways` what takes one more connection, by descriptor too: from
    the listeners, and from what `add` was given. `link` leads to siblings that may be free when this worker
    is not."""

    __slots__ = (
        "_accepting",
        "_base",
        "_book",
        "_clock",
        "_config",
        "_host",
        "_in_a_row",
        "_link",
        "_nudged",
        "_proxies",
        "_serving",
        "_some_proxies",
        "_standing",
        "_telling",
        "_terms",
        "doors",
        "ways",
    )

    def __init__(
        self,
        config: Config,
        doors: Sequence[Door],
        link: Optional[Link],
        proxies: Peers,
        clock: Clock,
        standing: Standing,
        telling: Telling,
        book: Book,
        accepting: Accepting,
        serving: Serving,
    ) -> None:
        self._config = config
        self._link = link
        self._proxies = proxies
        self._some_proxies = bool(proxies)
        self._clock = clock
        self._standing = standing
        self._telling = telling
        self._book = book
        self._accepting = accepting
        self._serving = serving
        self._in_a_row = 0  # connections accepted since a sibling was preferred
        self._nudged = 0.0  # the turn of the loop in which a sibling was nudged

        self.doors = {door.socket.fileno(): door for door in doors}
        self.ways: dict[int, Callable[[], bool]] = {}
        self._host = socket.gethostname() or "localhost"
        self._base = environs.server(
            multithread=config.threads > 1,
            multiprocess=config.max_workers > 0,
            errors=streams.error(),
            file_wrapper=FileWrapper,
        )
        self._terms: dict[Address, tuple[Terms, Environ]] = {}  # what its connections share, by listener
        for descriptor, door in self.doors.items():
            self._terms[door.address] = self._shared_at(door.address)
            # As numbers: each look at `family` would make a name of it, which takes as long as accept(2).
            kind = int(door.socket.family), int(socket.SOCK_STREAM), door.socket.proto
            self.add(descriptor, partial(self._accept, descriptor, door, kind))

    def add(self, descriptor: int, take: Callable[[], bool]) -> None:
        """Connections come by `descriptor` too: `take` takes one, and returns False if none waits."""
        self.ways[descriptor] = take
        self._accepting.sources.append(descriptor)

    # --- letting in --------------------------------------------------------------------------------------

    def let_in(self, descriptor: int) -> None:
        """Take a connection if it can be served here; else nudge a sibling, since the kernel may have woken
        no other worker. Take several if each will be served so soon that no sibling could do it much sooner:
        alone, each would find nothing of our code in the processor's caches."""
        take, book = self.ways[descriptor], self._book
        for turn in range(max(self._serving.at_once(), 1)):
            full = len(book.connections) >= book.most
            if not self._accepting.on or self._serving.slot.retired:
                self.nudge()
                return
            if full and turn:
                return  # whether one waits, the next turn of the loop will know
            if full and not book.make_room():
                self._accepting.suspend(f"{len(book.connections)} connections, none of them idle")
                self.nudge()
                return
            if not take():
                return

    def look(self) -> None:
        """Accept what may wait: the sibling that the kernel woke for it may have left without taking it."""
        for descriptor in self.doors:
            self.let_in(descriptor)

    def nudge(self) -> None:
        """Have a free sibling look at the listeners; once in a turn is enough."""
        if self._link is not None and not self._standing.paused and self._nudged != self._clock.looked:
            self._nudged = self._clock.looked
            self._link.nudge()

    def empty(self) -> None:
        """Take what queues at our own listeners now. Not more: under load, ever new ones come behind."""
        for descriptor, door in self.doors.items():
            take = self.ways[descriptor]
            for _ in range(self._config.backlog + 1 if door.own else 0):
                if self._clock.now >= self._standing.leave_by or not take():
                    break

    def step_back(self, descriptor: int) -> None:
        """Prefer a sibling for the next one."""
        self._in_a_row = 0
        self._accepting.step_back(descriptor)

    def short(self, fault: OSError) -> bool:
        """There is no descriptor for one more connection, or no memory. Whether to try again at once."""
        if self._book.make_room():
            return True
        self._accepting.suspend(os.strerror(fault.errno or 0))
        return False

    def _accept(self, descriptor: int, door: Door, kind: tuple[int, int, int]) -> bool:
        """Take one connection, if no sibling was faster, and serve what it has sent already."""
        try:
            number, peer = system.bare_accept(door.socket)
        except BlockingIOError:
            return False
        except OSError as fault:
            if fault.errno in LOST:
                raise
            # accept(2) reports errors of the new connection too; they mean nothing for the listener.
            return fault.errno not in OUT_OF_DESCRIPTORS or self.short(fault)
        if number < process.LOW and len(self._book.connections) >= CROWD:
            number = process.lifted(number)
        sock = system.bare_socket(*kind, number)
        if socket.getdefaulttimeout() is not None:
            sock.settimeout(None)  # the application has set it, and MSG_DONTWAIT would wait so long
        host, port = addresses.peer(peer)
        stage = GREETING if door.greetings else READING
        connection = self.welcome(sock, number, door.address, host, port, stage)
        if not self._book.admission.most or self._admit(connection):
            if door.greetings:
                connection.greetings = [make(connection) for make in door.greetings]
                self.greet(connection)
            else:
                self._serving.receive(connection)
        self._in_a_row += 1
        if self._stays(connection) or self._in_a_row >= _IN_A_ROW:
            self.step_back(descriptor)
        return True

    def out_of_the_way(self, sock: socket.SocketType) -> socket.SocketType:
        """A socket that has come, with a number that the application has no use for."""
        if sock.fileno() < process.LOW and len(self._book.connections) >= CROWD:
            sock = system.bare_socket(fileno=process.lifted(sock.detach()))
            if sock.gettimeout() is not None:
                sock.settimeout(None)
        return sock

    def _stays(self, connection: Connection) -> bool:
        """Whether a new connection is there for more than one request, as far as that is known."""
        if connection.content is None or connection.head is None:
            return connection.interest != 0
        return connection.head.persistent and self._serving.most_on_connection > 1

    def welcome(
        self,
        sock: socket.SocketType,
        number: int,
        listener: Address,
        host: str,
        port: str,
        stage: int = READING,
    ) -> Connection:
        """A connection of this worker from now on."""
        known = self._terms.get(listener)
        # If not, it is of another generation, which a reload has left without it.
        terms, base = self._shared_at(listener) if known is None else known
        connection = Connection(sock, number, terms, environs.connection(base, host, port), stage)
        connection.by_proxy = self._some_proxies and host in self._proxies
        self._book.connections[number] = connection
        return connection

    def _shared_at(self, listener: Address) -> tuple[Terms, Environ]:
        config = self._config
        terms = Terms(
            listener,
            config.max_response_buffer,
            config.timeout,
            config.min_response_rate,
            self._book.budget,
        )
        return terms, environs.listener(self._base, listener, self._host)

    # --- greeting, admitting, turning away ---------------------------------------------------------------

    def greet(self, connection: Connection) -> None:
        """Go on with what comes before HTTP, and with HTTP when that is over."""
        if self.greeted(connection):
            self._serving.proceed(connection)
            self._standing.due = self._standing.handing

    def greeted(self, connection: Connection) -> bool:
        """Go on with what comes before HTTP; whether that is over."""
        book = self._book
        while connection.greetings:
            try:
                interest = connection.greetings[0].go_on()
            except (ClientGone, OSError) as fault:
                self.turn_away(connection, str(fault))
                return False
            if interest:
                if connection.queue is None:
                    book.wait(connection, book.greeting, interest)
                elif interest != connection.interest:
                    book.watch(connection, interest)
                return False
            connection.greetings = connection.greetings[1:]
        connection.stage = READING
        connection.by_proxy = connection.environ["REMOTE_ADDR"] in self._proxies
        book.dequeue(connection)
        return self._admit(connection)

    def turn_away(self, connection: Connection, reason: str) -> None:
        """Close it before HTTP begins: there was no request to answer or to log."""
        text = f"{connection.environ['REMOTE_ADDR'] or 'a local client'}: {reason}"
        if connection.by_proxy:  # a mistake in its configuration, or ours
            self._telling.complain("warning", "proxy", f"closed a connection of a trusted proxy, {text}")
        else:
            self._telling.log.debug(text)
        self._book.drop(connection)

    def _admit(self, connection: Connection) -> bool:
        """Count a new connection for its peer, or turn it away. One of a trusted proxy, which carries those
        of many clients, is counted when the proxy has said whose it is."""
        admission = self._book.admission
        if not admission.most or connection.by_proxy or self._book.is_counted(connection):
            return True
        host = connection.environ["REMOTE_ADDR"]
        if admission.full(host):
            self._telling.complain("info", _TOO_MANY, f"refused {host}: {_TOO_MANY}")
            if connection.stage == GREETING:
                self._book.drop(connection)  # a client that speaks no HTTP yet would not understand
            else:
                self._serving.endings.show_out(connection)
            return False
        self._book.count(connection, host)
        return True
