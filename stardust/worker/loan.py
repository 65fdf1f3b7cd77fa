"""The client's socket, lent to an application for a protocol of its own: WebSocket.

A library for threads (simple-websocket, flask-sock) looks for it in the environ under `gunicorn.socket`,
answers the handshake itself, and speaks on it until its view returns. It has threads of its own that read,
and closes the socket when it likes. So it never gets the connection's own, of which the worker knows the
descriptor by its number: a number that was closed by somebody else is soon another connection's.

- Lent is a duplicate (`Loan`); of a TLS connection, what locks its session (secure.py). It is like a socket
  as applications know them: its calls wait.
- From the first byte that the application sends by it, the connection is taken: the server sends nothing
  more by itself, reads no further request, and ends it when the application returns.

Runs in the application's interpreter too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from stardust.base import system
from stardust.base.errors import ClientGone
from stardust.base.pristine import socket
from stardust.worker.stream import Stream
from stardust.wsgi.environ import Environ
from stardust.wsgi.gateway import TAKEN

KEY = "gunicorn.socket"


class Lent(Protocol):
    @property
    def used(self) -> bool:
        """Whether the application has sent something."""

    def recall(self) -> None:
        """The request is over. Whoever still holds it has nothing of the connection any more."""


class Loan(socket.socket):
    """A duplicate of a socket. `said` is shared with its own duplicates: whether one of them has sent."""

    __slots__ = ("said",)

    def __init__(self, sock: Stream) -> None:
        super().__init__(fileno=system.dup(sock.fileno()))
        # A socket of its own would obey socket.setdefaulttimeout(); and the worker's is the same file.
        self.setblocking(True)
        self.said: list[bool] = []

    @property
    def used(self) -> bool:
        return bool(self.said)

    def dup(self) -> Loan:
        copy = Loan(self)
        copy.settimeout(self.gettimeout())
        copy.said = self.said
        return copy

    def send(self, data: Any, flags: int = 0, /) -> int:
        self._mark()
        return super().send(data, flags)

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        self._mark()
        super().sendall(data, flags)

    def sendmsg(self, *arguments: Any) -> int:
        self._mark()
        return super().sendmsg(*arguments)

    def recall(self) -> None:
        self.close()

    def _mark(self) -> None:
        if not self.said:
            self.said.append(True)


def lend(sock: Stream, environ: Environ) -> Any:
    """What the application gets under KEY, a `Lent`; None unless the request asks for WebSocket. (RFC 6455
    4.2.1; RFC 9110 7.8: "A server MUST ignore an Upgrade header field that is received in an HTTP/1.0
    request".)"""
    asked = environ["HTTP_UPGRADE"].strip().lower()
    if asked != "websocket" or environ["SERVER_PROTOCOL"] == "HTTP/1.0":
        return None
    lender = getattr(sock, "lend", None)
    try:
        lent = Loan(sock) if lender is None else lender()
    except OSError:
        return None  # no descriptor is free: the library says that it finds no socket
    environ[KEY] = lent
    return lent


def send_unless_taken(lent: Lent, send: Callable[[bytes], object], data: bytes) -> None:
    """`send`, for a request that may turn out to be no HTTP any more. ClientGone when it has."""
    if lent.used:
        raise ClientGone(TAKEN)
    send(data)
