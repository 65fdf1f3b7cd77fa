"""How a connection ends that does not just close: it is shown out, it is lost, or it lingers.

What goes wrong with one connection ends that connection, with a line in the access log, and nothing else.

Runs in the application's interpreter too.
"""

from __future__ import annotations

from stardust.base.pristine import socket
from stardust.http1.response import ResponseWriter
from stardust.worker.book import Book
from stardust.worker.clock import Clock
from stardust.worker.connection import Connection
from stardust.worker.life import LINGERING
from stardust.worker.telling import Telling
from stardust.wsgi.gateway import Exchange

_RECEIVE = 65536  # bytes to be ignored at once


class Endings:
    """`writer` makes the heads of the server's own answers."""

    __slots__ = ("_book", "_clock", "_telling", "_writer")

    def __init__(self, writer: ResponseWriter, book: Book, clock: Clock, telling: Telling) -> None:
        self._writer = writer
        self._book = book
        self._clock = clock
        self._telling = telling

    def answer(self, connection: Connection, status: int) -> Exchange:
        """Send an answer of the server's own, which is the last."""
        exchange = connection.exchange = Exchange(
            connection.head, self._writer, connection.send, None, persistent=False, date=self._clock.date
        )
        exchange.respond(status)
        return exchange

    def show_out(self, connection: Connection) -> None:
        """A word why, and the end. It is not waited for: what a client sends after this moment resets the
        connection, and may take the word with it. Waiting would cost what is to be saved."""
        try:
            connection.socket.recv(_RECEIVE, socket.MSG_DONTWAIT)
        except OSError:
            pass
        self.answer(connection, 503)
        self._book.drop(connection)

    def lose(self, connection: Connection, note: str) -> None:
        """The response cannot be delivered, or not all of it: no client shall take a part for the whole."""
        connection.note = note
        if self._telling.access_log is not None:
            self._telling.request(connection)
        connection.reset_on_close()
        self._book.drop(connection)

    def linger(self, connection: Connection) -> None:
        """End our side and read on for a while: closing with unread bytes would reset the connection, and the
        client might lose the response it has not read yet (RFC 9112 9.6)."""
        connection.stage = LINGERING
        connection.buffer = b""
        try:
            connection.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self._book.drop(connection)
            return
        self._book.wait(connection, self._book.lingering)

    def ignore(self, connection: Connection) -> None:
        """Something more has come, or the end."""
        try:
            if connection.socket.recv(_RECEIVE, socket.MSG_DONTWAIT):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._book.drop(connection)
