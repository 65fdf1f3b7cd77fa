"""The hostile clients of the load "hostile": they connect, and then do as little as keeps a server waiting.

    python crowd.py PORT KIND …

Connects as many as COUNTS says of each KIND and prints "ready". Each of them moves a few bytes every PERIOD,
out of step with the others, and comes again when the server has ended its connection; until standard input
ends. Then one line of JSON says how many connections were `held` at that moment, and how many had `ended`.

Rules:
- Bodies and readers keep to 300 bytes a second, just above what the least rates of stardust ask for: slower
  ones it would end.
- The kernel keeps no more than a few KiB for a reader that does not read.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

COUNTS = {"heads": 1000, "bodies": 1000, "readers": 500}
PERIOD = 1.0  # s; between two moves of a client
BYTES = 300  # of a body or a response, each PERIOD
STEP = 0.01  # s; between two looks at who is to move
GIVE_UP = 10.0  # s; for all to be connected: a server that takes no more of them has failed already
RECEIVE_BUFFER = 4096

FIRST = {
    "heads": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n",
    "bodies": b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n\r\n",
    "readers": b"GET /large HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
}


class Crowd(NamedTuple):
    """What became of the hostile clients."""

    held: int
    ended: int


class Hostile:
    """One of them. `connected`: its first bytes have gone, or have come to a reader, which before that costs
    the server what a good client does."""

    def __init__(self, port: int, kind: str) -> None:
        self.address = ("127.0.0.1", port)
        self.kind = kind
        self.ended = -1
        self.come()

    def come(self) -> None:
        """Begin to connect, for the first time or again."""
        self.ended += 1
        self.asked = self.connected = False
        self.socket = socket.socket()
        self.socket.setblocking(False)
        if self.kind == "readers":
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        self.socket.connect_ex(self.address)

    def move(self) -> None:
        try:
            if not self.asked:
                self.socket.send(FIRST[self.kind])
                self.asked, self.connected = True, self.kind != "readers"
            elif self.kind == "readers":
                if not self.socket.recv(BYTES):
                    raise ConnectionResetError
                self.connected = True
            elif self.kind == "bodies":
                self.socket.send(b"x" * BYTES)
            else:
                self.socket.send(b"X: y\r\n")
        except BlockingIOError:
            return
        except OSError:
            self.socket.close()
            self.come()


def run(port: int, kinds: Sequence[str]) -> Crowd:
    crowd = [Hostile(port, kind) for kind in kinds for _ in range(COUNTS[kind])]
    deadline = time.monotonic() + GIVE_UP
    while time.monotonic() < deadline and not all(each.connected for each in crowd):
        for each in crowd:
            if not each.connected:
                each.move()
        time.sleep(STEP)
    print("ready", flush=True)
    steps = round(PERIOD / STEP)
    number, due = 0, time.monotonic()
    while not select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))[0]:
        for each in crowd[number % steps :: steps]:
            each.move()
        number, due = number + 1, due + STEP
    return Crowd(sum(each.connected for each in crowd), sum(each.ended for each in crowd))


if __name__ == "__main__":
    port, *kinds = sys.argv[1:]
    print(json.dumps(run(int(port), kinds)._asdict()))
