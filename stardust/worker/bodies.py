"""Bodies of requests, on their way in: read before the application is called, into memory and then onto disk.

Runs in the application's interpreter too.
"""

from __future__ import annotations

from stardust.base.errors import ProtocolError
from stardust.http1 import body as bodies
from stardust.http1.head import Head
from stardust.settings.table import Config
from stardust.worker.book import OUT_OF_DESCRIPTORS, Book
from stardust.worker.connection import Connection, Incoming
from stardust.worker.pace import BODY_GRACE
from stardust.worker.telling import Telling
from stardust.wsgi.input import Spool

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Bodies:
    __slots__ = ("_book", "_least_rate", "_most", "_telling")

    def __init__(self, config: Config, book: Book, telling: Telling) -> None:
        self._book = book
        self._telling = telling
        self._most = config.max_body
        self._least_rate = config.min_body_rate

    def begin(self, connection: Connection, head: Head, consumed: int) -> bytes:
        """One follows the head, which takes up `consumed` bytes; returns what has come of it.

        Raises ProtocolError if it is too large; ClientGone if the client waits for a word, and does not get
        it.
        """
        reader, buffer = bodies.reader(head, self._most), connection.buffer
        spool = Spool(budget=self._book.budget, relieve=self._book.relieve)
        connection.body = Incoming(reader, spool, buffer)
        rest, connection.buffer = bytes(buffer[consumed:]), b""
        if head.expects_continue and not rest:
            connection.send(CONTINUE)
        return rest

    def take(self, connection: Connection, data: bytes) -> bool:
        """More has come; whether that was all of it: then it is the `content` of the connection.

        Raises ProtocolError for a body that is invalid, too large, or cannot be buffered.
        """
        body = connection.body
        assert body is not None
        book = self._book
        try:
            consumed = body.reader.feed(data, body.spool.write)
            if not body.reader.complete:
                book.wait(connection, book.reading_bodies)
                if connection.pace is None:
                    book.begin_pace(connection, self._least_rate, BODY_GRACE)
                return False
            connection.content = body.spool.finish()
        except OSError as fault:
            self._telling.complain("error", "spool", f"cannot buffer a request's body: {fault}")
            if fault.errno in OUT_OF_DESCRIPTORS:
                raise ProtocolError(503, "no descriptor for its body") from None
            raise ProtocolError(507, "disk full") from None
        book.end_pace(connection)
        connection.buffer = data[consumed:]
        return True
