"""The floor: what a Python loop costs that only does epoll, accept, recv, send. Not a server.

    python floor.py PORT

It looks at no byte of a request but the last ones (is the head complete, and does it close?), knows no HTTP,
and sends the same answer whatever was asked. What another server costs above this is its own work; what it
costs below, no Python server can save. SIGTERM ends it.
"""

from __future__ import annotations

import select
import socket
import sys

FIELDS = (
    b"HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 16:50:00 GMT\r\n"
    b"Content-Type: text/plain\r\nContent-Length: 14\r\n"
)
STAYS = FIELDS + b"\r\nHello, world!\n"
CLOSES = FIELDS + b"Connection: close\r\n\r\nHello, world!\n"


def serve(port: int) -> None:
    listener = socket.create_server(("127.0.0.1", port), backlog=2048)
    listener.setblocking(False)
    door = listener.fileno()
    epoll = select.epoll()
    epoll.register(door, select.EPOLLIN)
    connections: dict[int, socket.socket] = {}
    while True:
        for descriptor, _ in epoll.poll():
            if descriptor == door:
                connection, _ = listener.accept()
                connection.setblocking(False)
                connections[connection.fileno()] = connection
                epoll.register(connection.fileno(), select.EPOLLIN)
                continue
            connection = connections[descriptor]
            try:
                data = connection.recv(65536)
            except ConnectionResetError:  # how wrk leaves
                data = b""
            if data.endswith(b"close\r\n\r\n"):
                connection.send(CLOSES)
            elif data.endswith(b"\r\n\r\n"):
                connection.send(STAYS)
                continue
            # close(2) takes it out of the epoll as well.
            del connections[descriptor]
            connection.close()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
