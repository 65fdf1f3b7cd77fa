"""The way of one request: bytes → head → body → application → response → the next one.

Something has come for a connection (`read`, `receive`) → a head and a body are complete (`_advance`), and it
is `ready` → its turn comes (`serve`), and the application runs (`begin`, here or on an application thread) →
`_finish` → what the client did not take yet is sent as it reads (`send`) → `_completed` → the next request,
or the end.

- The application is called when its request is whole. Slow clients cost a place in a queue, never a worker.
- A client gets one turn after the other, however many requests it sends at once.
- Nothing waits here but `Connection.send`, when a client leaves too much unread.

Hot: the path of a request without body on a kept connection is written flat, with no call that is not needed;
every microsecond here is one of some fifteen.

Runs in the application's interpreter too.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from functools import partial
from random import randint
from typing import Any, Optional

from stardust.base.address import Peers
from stardust.base.errors import ClaimError, ClientGone, ProtocolError
from stardust.base.pristine import io, socket, time
from stardust.http1.head import CHUNKED, Head, HeadReader, Limits
from stardust.http1.response import ResponseWriter
from stardust.ipc.scoreboard import Slot
from stardust.settings.table import Config
from stardust.worker.bodies import Bodies
from stardust.worker.book import Book
from stardust.worker.clock import Clock
from stardust.worker.connection import Connection, labelled
from stardust.worker.endings import Endings
from stardust.worker.guard import Guard
from stardust.worker.life import SENDING, SERVING
from stardust.worker.loan import Lent, lend, send_unless_taken
from stardust.worker.pace import RESPONSE_GRACE
from stardust.worker.standing import Standing
from stardust.worker.telling import Telling, said
from stardust.worker.threads import Task, Threads
from stardust.wsgi import environ as environs
from stardust.wsgi import forwarded
from stardust.wsgi.environ import Environ
from stardust.wsgi.forwarded import Forwarding
from stardust.wsgi.gateway import FAILED, GONE, TAKEN, Exchange, Report

_RECEIVE = 65536  # bytes of a body asked for at once
_RECEIVE_HEAD = 8192  # the same where a head is to come: nearly all fit, and the memory for it stays warm
_LABEL = 200  # bytes of a request that the scoreboard shows as far as its first line goes
_AT_ONCE = 0.001  # s; as many connections are let in at once as can be served meanwhile,
_MOST_AT_ONCE = 16  # but not more than these
_HARAKIRI = "stardust.harakiri.commit"


class Serving:
    """`ready` are those with a request, or what came behind their last; `requests` is how many have begun.

    `guard`, if there is one, looks after the others while the application runs; with `threads` it is None.
    `leave()` has the worker leave, and `enough()` too if a successor could be forked: the limit of requests
    is reached. `report` gets what is wrong with the application, instead of `wsgi.errors`.
    """

    __slots__ = (
        "_app",
        "_busy",
        "_config",
        "_enough",
        "_forwarding",
        "_heads",
        "_leave",
        "_lent",
        "_proxy_heads",
        "_report",
        "_took",
        "_writer",
        "bodies",
        "book",
        "clock",
        "endings",
        "guard",
        "most_on_connection",
        "most_requests",
        "ready",
        "requests",
        "slot",
        "standing",
        "telling",
        "threads",
    )

    def __init__(
        self,
        config: Config,
        app: Callable[..., Any],
        slot: Slot,
        proxies: Peers,
        clock: Clock,
        standing: Standing,
        telling: Telling,
        book: Book,
        threads: Optional[Threads],
        enough: Callable[[], object],
        leave: Callable[[], object],
        report: Optional[Report],
    ) -> None:
        self._app = app
        self._config = config
        self.slot = slot
        self.clock = clock
        self.standing = standing
        self.telling = telling
        self.book = book
        self.threads = threads
        self._enough = enough
        self._leave = leave
        self._report = report
        self.guard: Optional[Guard] = None
        self.bodies = Bodies(config, book, telling)

        limits = Limits(config.max_request_line, config.max_header_count, config.max_header_bytes)
        strict = config.underscore_headers == "refuse"
        self._forwarding = Forwarding(proxies, config.forwarded_headers, config.proxy_hops)
        self._heads = HeadReader(limits, forwarded.Unheard(), refuse_underscores=strict)
        self._proxy_heads = HeadReader(limits, self._forwarding.unheard, refuse_underscores=strict)
        self._writer = ResponseWriter(telling.left_out)
        self.endings = Endings(self._writer, book, clock, telling)
        self.ready: deque[Connection] = deque()
        self.requests = 0
        self.most_requests = draw_limit(config.max_reqs_per_child, config.min_reqs_per_child)
        self.most_on_connection = config.max_keepalive_reqs or sys.maxsize
        self._busy = False  # the scoreboard says so; without threads
        self._lent: dict[Connection, Lent] = {}  # what applications have for a protocol of their own
        self._took = 0.0  # s; what a request took lately; without threads

    def forsake(self) -> None:
        """In a forked child: what was lent to the application is the parent's too."""
        for lent in self._lent.values():
            lent.recall()

    def serve(self) -> None:
        """Serve those that are ready, each once: their next requests wait until all others had a turn."""
        ready, clock = self.ready, self.clock
        began = clock.now
        turns = count = len(ready)
        while turns and ready:  # the guard may have given some away
            turns -= 1
            self.proceed(ready.popleft())
        if self.threads is None:
            if self._busy:
                self._say_idle()
            self._took = (self._took + (clock.now - began) / count) / 2

    def at_once(self) -> int:
        """How many new connections can be served so soon that no sibling could do it much sooner."""
        if self.threads is not None or not self.requests:
            return 1
        return min(_MOST_AT_ONCE, int(_AT_ONCE / self._took)) if self._took > 0 else _MOST_AT_ONCE

    # --- bytes → head → body -----------------------------------------------------------------------------

    def proceed(self, connection: Connection) -> None:
        """Go on with what has come of its next request, here or in its socket."""
        if connection.content is not None:
            self.begin(connection)
        elif self.threads is not None and not self.threads.pool.free:
            self.threads.enqueue(connection)
        elif connection.buffer:
            self._advance(connection)
        else:
            self.receive(connection)

    def read(self, connection: Connection) -> None:
        """Something has come, or the end."""
        # In no queue: it is in `ready`. Reading on would let a client fill our memory with requests.
        if connection.queue is not None:
            threads = self.threads
            if threads is None or threads.pool.free or connection.head is not None:
                self.receive(connection)
            else:
                threads.enqueue(connection)

    def receive(self, connection: Connection) -> None:
        """Take what has come, if anything has."""
        try:
            size = _RECEIVE_HEAD if connection.body is None else _RECEIVE
            data = connection.socket.recv(size, socket.MSG_DONTWAIT)
        except BlockingIOError:
            if connection.queue is None:
                book, standing = self.book, self.standing
                parked = connection.requests or (standing.leaving and not standing.handing)
                book.wait(connection, book.parked if parked else book.fresh)
            return
        except OSError:
            data = b""
        if not data:
            self._end_of_input(connection)
        elif connection.body is not None:
            connection.body.keep_raw(data)
            self._take_body(connection, data)
        elif connection.buffer:
            connection.buffer += data
            self._advance(connection)
        else:
            connection.buffer = data
            self._advance(connection)

    def _end_of_input(self, connection: Connection) -> None:
        if connection.head is not None and self.telling.access_log is not None:  # in the middle of a body
            connection.note = GONE
            self.telling.request(connection)
        # No reset: the answer to an earlier request may still be on its way.
        self.book.drop(connection)

    def _advance(self, connection: Connection) -> None:
        """Look for a complete head in what has come."""
        buffer = connection.buffer
        if not connection.began:
            connection.began = self.clock.now
        try:
            heads = self._proxy_heads if connection.by_proxy else self._heads
            found = heads.read(buffer, connection.searched, connection.environ)
            if found is None:
                connection.buffer = bytearray(buffer) if type(buffer) is bytes else buffer
                connection.searched = len(buffer)
                if connection.queue is not self.book.reading_heads:
                    self.book.wait(connection, self.book.reading_heads)
                return
            head, consumed = found
            connection.head = head
            environs.environ(head)
            peer = self._believe(connection, head) if connection.by_proxy else connection.peer
            connection.label = peer + buffer[:_LABEL]
            if not head.length:
                connection.consumed = consumed
                connection.content = io.BytesIO()
                self.ready.append(connection)
                return
            rest = self.bodies.begin(connection, head, consumed)
        except ClaimError as claim:
            self.telling.claim(connection, claim)
            self._advance(connection)
        except ProtocolError as refusal:
            self.refuse(connection, refusal.status, refusal.reason)
        except ClientGone:
            self.book.drop(connection)
        else:
            self._take_body(connection, rest)

    def _believe(self, connection: Connection, head: Head) -> bytes:
        """Put into `head` what the trusted proxy that sent it says of its client. How the label begins."""
        changes = self._forwarding.changes(connection.environ, head)
        head.fields.update(changes)
        host = changes.get("REMOTE_ADDR")
        return connection.peer if host is None else labelled(host)

    def _take_body(self, connection: Connection, data: bytes) -> None:
        try:
            if self.bodies.take(connection, data):
                self.ready.append(connection)
        except ProtocolError as refusal:
            self.refuse(connection, refusal.status, refusal.reason)

    # --- application → response --------------------------------------------------------------------------

    def begin(self, connection: Connection) -> None:
        """Call the application with the request of a connection, or have a thread call it. Hot."""
        head, content, threads, clock = connection.head, connection.content, self.threads, self.clock
        assert head is not None
        if threads is not None:
            if not threads.pool.free:
                threads.enqueue(connection)
                return
            self.book.unwatch(connection)
        connection.stage = SERVING
        connection.requests += 1
        self.requests += 1
        standing = self.standing
        if self.requests >= self.most_requests and not standing.leaving:
            self._enough()
        persistent = head.persistent and connection.requests < self.most_on_connection
        if standing.leaving:
            persistent = persistent and standing.handing and connection.movable
        connection.buffer = bytes(connection.buffer[connection.consumed :])
        connection.consumed = 0

        # The application's from now on; we keep no reference, so that no cycle is left to the collector.
        environ, head.fields = head.fields, {}
        if head.length == CHUNKED and connection.body is not None:
            environs.unchunked(environ, connection.body.received)
        telling = self.telling
        if telling.access_log is not None:
            connection.said = said(environ)
        send: Callable[[bytes], object] = connection.send
        if "HTTP_UPGRADE" in environ:
            lent = lend(connection.socket, environ)
            if lent is not None:
                self._lent[connection] = lent
                send = partial(send_unless_taken, lent, send)
        exchange = connection.exchange = Exchange(
            head, self._writer, send, connection.send_file, persistent, clock.date, self._report
        )
        environ["wsgi.input"] = content
        environ["wsgi.early_hints"] = exchange.early_hints
        environ["stardust.socket"] = connection.socket
        environ["stardust.informational"] = exchange.informational
        if threads is not None:
            threads.submit(Task(connection, exchange, environ), self.requests)
            return

        limit, now, guard = self._config.request_timeout, clock.now, self.guard
        self._busy = True
        self.slot.busy(1, now, now + limit if limit else 0.0, connection.label)
        if guard is None:
            exchange.run(self._app, environ)
        else:
            guard.turn.release()
            if guard.asleep:
                guard.wake()
            exchange.run(self._app, environ)
            guard.turn.acquire()
        now = clock.now = time.monotonic()
        if now >= clock.date_until:
            clock.begin_second()

        # What `_finish` and `_completed` do when nothing is out of the ordinary.
        if telling.access_log is not None and "REMOTE_USER" in environ:
            telling.user(connection, environ)
        outbox, parked = connection.outbox, self.book.parked
        plain = (
            not connection.buffer
            and connection.body is None
            and (outbox is None or not outbox.pending)
            and not self._lent  # if anybody, then this one: without threads there is one at a time
            and _HARAKIRI not in environ
        )
        if plain and exchange.persistent and connection.queue is parked and not standing.handing:
            if telling.access_log is not None:
                telling.request(connection)
            connection.reset()
            waiting = parked.members
            del waiting[connection]
            waiting[connection] = now + parked.seconds
            return
        if not self.ready:
            self._say_idle()  # before the client can see that this is over
        if plain and exchange.complete and not head.persistent:
            if telling.access_log is not None:
                telling.request(connection)
            self.book.drop(connection)
        else:
            self._finish(connection, environ)

    def _say_idle(self) -> None:
        self._busy = False
        self.slot.idle(self.requests, len(self.book.connections), self.clock.now)

    def collect(self) -> None:
        """Take back from the application threads what they have done, and give them what waits."""
        threads = self.threads
        assert threads is not None
        for task in threads.done():
            if self.telling.access_log is not None:
                self.telling.user(task.connection, task.environ)
            self._finish(task.connection, task.environ)
        for connection in threads.next():
            self.proceed(connection)
        threads.settle(self.requests)

    def _finish(self, connection: Connection, environ: Environ) -> None:
        """The application has returned; its response may still be on its way."""
        exchange = connection.exchange
        assert exchange is not None
        if connection in self._lent:
            lent = self._lent.pop(connection)
            if lent.used:
                exchange.hand_over()
            lent.recall()
        if connection.body is not None:
            connection.body.spool.close()
        if _HARAKIRI in environ and _is_true(environ[_HARAKIRI]):
            self._leave()
        if exchange.note == GONE:
            self.endings.lose(connection, GONE)
        elif connection.unsent:
            self.await_reader(connection)
        else:
            self._completed(connection)

    def await_reader(self, connection: Connection) -> None:
        """All of the response is there; what the client has not taken yet goes as it reads."""
        connection.stage = SENDING
        self.book.wait(connection, self.book.sending)
        self.book.begin_pace(connection, self._config.min_response_rate, RESPONSE_GRACE, connection.left)

    def send(self, connection: Connection) -> None:
        """A slow reader takes more of its response."""
        before = connection.unsent
        try:
            connection.flush()
        except ClientGone:
            self.endings.lose(connection, GONE)
            return
        if not connection.unsent:
            self.book.end_pace(connection)
            self._completed(connection)
        elif connection.unsent < before:
            self.book.wait(connection, self.book.sending)

    # --- the next request, or the end --------------------------------------------------------------------

    def _completed(self, connection: Connection) -> None:
        """The response has left. What now: another request, or the end?"""
        exchange, head, book = connection.exchange, connection.head, self.book
        assert exchange is not None
        if self.telling.access_log is not None:
            self.telling.request(connection)
        if exchange.note == TAKEN:
            self.endings.linger(connection)
        elif not exchange.complete:
            if exchange.note == FAILED:
                connection.reset_on_close()
            book.drop(connection)
        elif exchange.persistent:
            connection.reset()
            if connection.buffer:
                book.dequeue(connection)
                self.ready.append(connection)
            else:
                book.wait(connection, book.parked)
            self.standing.due = self.standing.handing
        elif (
            connection.buffer
            or connection.note
            or (head is not None and head.persistent and connection.asks())
        ):
            # Or it has sent more, since it did not know that this response would be the last.
            self.endings.linger(connection)
        else:
            book.drop(connection)

    def refuse(self, connection: Connection, status: int, note: str) -> None:
        """Answer with an error of the server's own; nothing that comes behind it is read (RFC 9112 9.6)."""
        connection.note = note
        self.telling.complain("info", "refused", f"refused a request of {connection.who}: {status}, {note}")
        self.book.end_pace(connection)
        if connection.body is not None:
            connection.body.spool.close()  # now: the connection may linger, and others need the room
        exchange = self.endings.answer(connection, status)
        if exchange.note == GONE:
            self.endings.lose(connection, note)
        elif connection.unsent:
            self.await_reader(connection)
        else:
            self._completed(connection)


def draw_limit(most: int, least: int) -> int:
    """How many requests a worker serves: `most`, or drawn evenly from `least` to `most`. `most` 0: no
    limit."""
    if not most:
        return sys.maxsize
    return randint(least, most) if least else most


def _is_true(value: Any) -> bool:
    """Of something that the application has made, whose own word on it may be an exception."""
    try:
        return bool(value)
    except BaseException:
        return True
