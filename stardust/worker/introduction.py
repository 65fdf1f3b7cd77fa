"""What a trusted proxy says first on a connection: its PROXY header (http1/proxy.py), before TLS and HTTP.

The connection is the client's from then on: its environ names the client, and so do the logs and what
siblings get with the connection. So the header comes once. It is not read from a peer that is no trusted
proxy: what comes next (TLS or HTTP) then refuses it.

No byte behind the header is taken: the bytes are peeked at, and then those of the header are received. Half a
header is received too, or else epoll would report it for ever.

Runs in the application's interpreter too.
"""

from __future__ import annotations

from collections.abc import Callable

from stardust.base.address import Peers
from stardust.base.errors import ClientGone, ProtocolError
from stardust.base.pristine import select, socket
from stardust.http1 import proxy
from stardust.worker.connection import Connection, Greeting
from stardust.wsgi import environ as environs


class Introduction:
    """A greeting (see there)."""

    __slots__ = ("_connection", "_header", "_trusted")

    def __init__(self, connection: Connection, proxies: Peers) -> None:
        self._connection = connection
        self._trusted = connection.environ["REMOTE_ADDR"] in proxies
        self._header = bytearray()

    def go_on(self) -> int:
        if not self._trusted:
            return 0
        connection, before = self._connection, len(self._header)
        try:
            data = connection.socket.recv(proxy.MOST - before, socket.MSG_DONTWAIT | socket.MSG_PEEK)
            if not data:
                raise ClientGone("it closed the connection within its PROXY header")
            self._header += data
            header = proxy.read(self._header)
            self._receive(len(data) if header is None else header.size - before)
        except BlockingIOError:
            return select.EPOLLIN
        except (OSError, ProtocolError) as fault:
            raise ClientGone(fault.reason if isinstance(fault, ProtocolError) else str(fault)) from None
        if header is None:
            return select.EPOLLIN
        if header.client is not None:
            connection.identify(environs.connection(connection.environ, *header.client))
        return 0

    def _receive(self, count: int) -> None:
        """Receive what was looked at. One call may give less, though all of it is there."""
        while count:
            count -= len(self._connection.socket.recv(count, socket.MSG_DONTWAIT))


def greeting(proxies: Peers) -> Callable[[Connection], Greeting]:
    """What makes the greetings of a listener that takes PROXY headers."""
    return lambda connection: Introduction(connection, proxies)
