"""One client's connection as its worker sees it: the socket, what has come, what is still to go.

It decides nothing about HTTP (http1 does), about time or about whose turn it is (the loop does). Sockets
stay in blocking mode and every call says MSG_DONTWAIT, which saves a system call for each connection.

Runs in the application's interpreter too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO, NamedTuple, Optional, Protocol, Union

from stardust.base import system
from stardust.base.address import Address
from stardust.base.budget import UNLIMITED, Budget
from stardust.base.errors import ClientGone
from stardust.base.pristine import select, socket, time
from stardust.http1.body import BodyReader
from stardust.http1.head import Head
from stardust.ipc.handoff import MOST_DATA
from stardust.worker import forked
from stardust.worker.deadlines import Waiting
from stardust.worker.life import READING, SENDING
from stardust.worker.outbox import Outbox
from stardust.worker.pace import RESPONSE_GRACE, Pace
from stardust.worker.stream import Stream
from stardust.wsgi.environ import Environ
from stardust.wsgi.gateway import TAKEN, Exchange
from stardust.wsgi.input import Spool

_RST = b"\x01\0\0\0\0\0\0\0"  # struct linger { on = 1, seconds = 0 }: close(2) resets the connection


class Greeting(Protocol):
    """What comes before HTTP on a new connection. It was made with the connection, and may change it."""

    def go_on(self) -> int:
        """Do what can be done now; what epoll is to watch for until the next call, or 0 when it is over.

        Raises ClientGone or OSError, with the reason, if there is to be no HTTP on this connection.
        """


def labelled(host: str) -> bytes:
    """What the label of a connection from `host` begins with."""
    return b"%s " % (host.encode("ascii", "replace") or b"-")


class Terms(NamedTuple):
    """What is the same for all connections of a listener. `most_unsent`: bytes that may wait for a slow
    reader before the application does; `patience`: seconds that one send may make no progress; `least_rate`:
    bytes a second that must be taken meanwhile, on average, 0 for any; `budget`: of memory for what waits."""

    listener: Address
    most_unsent: int
    patience: float
    least_rate: int = 0
    budget: Budget = UNLIMITED


class Incoming:
    """A body on its way in, with what reads and what keeps it. `raw`: what came of its request, head and all;
    None when that became too much to be handed over."""

    __slots__ = ("raw", "reader", "spool")

    def __init__(self, reader: BodyReader, spool: Spool, raw: Union[bytes, bytearray]) -> None:
        self.reader = reader
        self.spool = spool
        self.raw: Union[bytes, bytearray, None] = raw if len(raw) <= MOST_DATA else None

    @property
    def received(self) -> int:
        """Bytes of it that have come."""
        return self.reader.received

    def keep_raw(self, data: bytes) -> None:
        """More has come of its request."""
        if self.raw is None or len(self.raw) + len(data) > MOST_DATA:
            self.raw = None
        else:
            self.raw = self.raw if isinstance(self.raw, bytearray) else bytearray(self.raw)
            self.raw += data


class Connection:
    """`began`: when the first byte of the request came (0: none yet); `requests`: how many it carried so far;
    `environ`: what holds for all of them; `content`: the body of a request that is all here, and `consumed`
    how much of `buffer` it takes up until it begins; `interest`: what epoll watches it for, 0 for nothing;
    `greetings`: what comes before HTTP, in this order; `movable`: another worker could go on with it;
    `queue`: where it waits for its deadline; `note`: what went wrong, for the access log; `pace`: of the body
    or response that is on its way, None while it is not measured; `by_proxy`: whether its heads tell of
    another client, because its peer is a trusted proxy; `stage`: see life.py."""

    __slots__ = (
        "began",
        "body",
        "buffer",
        "by_proxy",
        "consumed",
        "content",
        "environ",
        "exchange",
        "greetings",
        "head",
        "interest",
        "label",
        "movable",
        "note",
        "number",
        "outbox",
        "pace",
        "peer",
        "queue",
        "requests",
        "said",
        "searched",
        "socket",
        "stage",
        "terms",
    )

    def __init__(
        self,
        sock: Stream,
        number: int,
        terms: Terms,
        environ: Environ,
        stage: int = READING,
    ) -> None:
        self.socket = sock
        self.number = number  # the descriptor
        self.terms = terms
        self.stage = stage
        self.greetings: Sequence[Greeting] = ()
        self.buffer: Union[bytes, bytearray] = b""
        self.searched = 0
        self.requests = 0
        self.identify(environ)
        self.by_proxy = False
        self.label = b""  # the peer and the request, for the scoreboard
        self.began = 0.0
        self.interest = 0
        self.movable = True
        self.queue: Optional[Waiting[Connection]] = None
        self.head: Optional[Head] = None
        self.content: Optional[BinaryIO] = None
        self.consumed = 0
        self.said: Sequence[str] = ()  # of its head, for the access log
        self.body: Optional[Incoming] = None
        self.exchange: Optional[Exchange] = None
        self.outbox: Optional[Outbox] = None
        self.pace: Optional[Pace] = None
        self.note = ""

    def identify(self, environ: Environ) -> None:
        """Take the environ of all its requests; it says who the client is."""
        self.environ = environ
        self.peer = labelled(environ["REMOTE_ADDR"])

    @property
    def listener(self) -> Address:
        return self.terms.listener

    @property
    def unsent(self) -> int:
        """Bytes that wait for the client to read."""
        return self.outbox.pending if self.outbox is not None else 0

    @property
    def left(self) -> int:
        """Bytes that the client has not taken: those that wait here, and those in the kernel. Its buffer may
        grow by more than a slow client reads in minutes."""
        try:
            return self.unsent + system.unacknowledged(self.number)
        except OSError:
            return self.unsent  # the application has closed it: `stardust.socket` lets it

    @property
    def moved(self) -> int:
        """Bytes of its body that have come, or of its complete response that have gone."""
        if self.stage == SENDING:
            return self.pace.left - self.left if self.pace is not None else 0
        return self.body.received if self.body is not None else 0

    @property
    def who(self) -> str:
        """The client, for logs."""
        return self.environ["REMOTE_ADDR"] or "a client"

    @property
    def received(self) -> Union[bytes, bytearray, None]:
        """What came of the request that is to come; None if that cannot be handed over, or is too much."""
        data = self.buffer if self.body is None else self.body.raw
        return None if data is None or len(data) > MOST_DATA or not self.movable else data

    @property
    def idle(self) -> bool:
        """Whether it waits for a request of which nothing was read yet."""
        return self.stage == READING and self.head is None and not self.buffer

    def asks(self) -> bool:
        """Whether something has come that was not read yet."""
        try:
            return bool(self.socket.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK))
        except OSError:
            return False

    def send(self, data: bytes) -> None:
        """Send, or keep for later. Waits only when too much is kept already. Without bytes, it looks whether
        the client is still there.

        Raises ClientGone, also when the client reads nothing for `patience` seconds while we wait, and when
        the disk that is to keep the bytes is full.
        """
        outbox = self.outbox
        if outbox is None or not outbox.pending:
            try:
                sent = self.socket.send(data, socket.MSG_DONTWAIT)
            except BlockingIOError:
                sent = 0
            except OSError as fault:
                raise ClientGone(str(fault)) from None
            if sent == len(data):
                if not data:
                    self._look()
                return
            if outbox is None:
                outbox = self.outbox = Outbox(self.terms.budget)
            self._keep(outbox, data[sent:])
        else:
            self._keep(outbox, data)
            self.flush()
        self._await_room(outbox)

    def send_file(self, descriptor: int, offset: int, count: int) -> None:
        """Send a range of a regular file, or keep it for later; errors as for `send`."""
        if self.outbox is None:
            self.outbox = Outbox(self.terms.budget)
        self.outbox.push_file(descriptor, offset, count)
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as the socket takes it. Raises ClientGone."""
        if self.outbox is not None:
            try:
                self.outbox.flush(self.socket)
            except OSError as fault:
                raise ClientGone(str(fault)) from None

    def reset(self) -> None:
        """Forget the request that is done, and wait for the next; what came behind it stays in `buffer`."""
        self.stage = READING
        self.head = self.body = self.content = self.exchange = None
        self.searched = 0
        self.began = 0.0
        self.note = ""

    def reset_on_close(self) -> None:
        """Have the client see an error, where a plain end of file would look like the end of the response."""
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
        except OSError:
            pass  # the application has closed it: `stardust.socket` lets it

    def forsake(self) -> None:
        """In a forked child: it is the parent's. Close our copy, and say nothing to the client. What waits
        for it is the parent's too: files that both have must not grow from here."""
        self.outbox = None
        getattr(self.socket, "forsake", self.socket.close)()

    def close(self, *, moved: bool = False) -> None:
        """Close the socket and drop all that is held for it. `moved`: the connection goes on elsewhere."""
        if self.exchange is not None and self.exchange.note == TAKEN:
            self._wake()
        if forked.happened and not moved and isinstance(self.socket, socket.SocketType):
            _shut_down(self.socket)
        if self.outbox is not None:
            self.outbox.close()
        if self.body is not None:
            self.body.spool.close()
        self.socket.close()
        # They refer to us: so no cycles are left to the collector.
        self.exchange = None
        self.greetings = ()

    def _look(self) -> None:
        """Raise ClientGone if the client has closed the connection. A client that closed only its own side,
        and still reads, looks the same; proxies take both for an end (nginx logs 499)."""
        try:
            ended = not self.socket.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError as fault:
            raise ClientGone(str(fault)) from None
        if ended:
            raise self._given_up("it closed the connection")

    def _wake(self) -> None:
        """Whoever reads in a thread of the application's, or holds a duplicate: this is the end."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the client was faster

    def _keep(self, outbox: Outbox, data: bytes) -> None:
        try:
            outbox.push(data)
        except OSError as fault:
            raise self._given_up(f"cannot buffer its response: {fault}") from None

    def _given_up(self, reason: str) -> ClientGone:
        """What to raise. Later calls raise too, even if the application goes on: no response has a hole."""
        self.reset_on_close()
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the client was faster
        return ClientGone(reason)

    def _await_room(self, outbox: Outbox) -> None:
        _, most_unsent, patience, least_rate, _ = self.terms
        if outbox.pending <= most_unsent:
            return
        writable = system.poll()
        writable.register(self.socket, select.POLLOUT)
        first = self.left
        pace = Pace(least_rate, RESPONSE_GRACE, time.monotonic()) if least_rate else None
        while outbox.pending > most_unsent // 2:
            if not writable.poll(patience * 1000):
                raise self._given_up(f"it read nothing for {patience:g} s")
            self.flush()
            if pace is not None and pace.late(first - self.left, time.monotonic()):
                raise self._given_up(f"it reads less than {least_rate} bytes a second")


def _shut_down(sock: socket.SocketType) -> None:
    """End a connection, whoever has a copy of its descriptor. One that is to be reset must not look as if it
    had come to its end."""
    try:
        if system.getsockopt(sock, socket.SOL_SOCKET, socket.SO_LINGER, len(_RST)) != _RST:
            sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # the client was faster
