"""A database, as far as it matters here: who shares a connection with another process gets wrong rows.

Each connection is told its number first. Then each line that comes is answered by the same line, after the
number of the connection.
"""

from __future__ import annotations

import itertools
import socket
import threading
from typing import Self


class Database:
    """It listens on `address`, in threads of this process. A context manager."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._numbers = itertools.count(1)
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Self:
        self._socket.listen()
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        for sock in (self._socket, *self._connections):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            sock.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection = self._socket.accept()[0]
            except OSError:
                return
            self._connections.append(connection)
            serving = threading.Thread(
                target=self._serve, args=(connection, next(self._numbers)), daemon=True
            )
            self._threads.append(serving)
            serving.start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        try:
            connection.sendall(b"%d\n" % number)
            with connection.makefile("rb") as lines:
                for line in lines:
                    connection.sendall(b"%d %s" % (number, line))
        except OSError:
            pass
