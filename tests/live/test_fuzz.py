"""Requests without number through real workers: valid, damaged and hostile, pipelined, cut anywhere.

Many connections at a time, each a stream of tests/fuzz/streams.py. Most clients end their side and read all
that comes: it must be the answers that are due, in order, and no more. Others leave in the middle, or reset
the connection. Nothing of it may leave a descriptor or memory behind.

STARDUST_TEST_FUZZING=1000000 has it go on for so many requests, STARDUST_TEST_SEED=7 makes up others.
"""

from __future__ import annotations

import os
import random
import select
import socket
import struct
import time
from pathlib import Path

import pytest

from tests.fuzz.answers import check, due
from tests.fuzz.streams import Client as Sender
from tests.fuzz.streams import cuts
from tests.http1.conversations import MAX_BODY, conversation
from tests.live.client import Connection
from tests.live.clients import Client, Wait, run, send
from tests.live.harness import APPS, Server
from tests.live.sockdiag import peers
from tests.live.test_killed import Footprint, footprint, until

REQUESTS = int(os.environ.get("STARDUST_TEST_FUZZING", "20000"))
SEED = int(os.environ.get("STARDUST_TEST_SEED", "1"))
CLIENTS = 32
SETTINGS = f"""
max-workers = 2
max-keepalive-reqs = 0
max-reqs-per-child = 0
# A machine that does other work too lets clients wait.
keepalive-timeout = "1h"
header-timeout = "1h"
timeout = "1h"
min-body-rate = 0
min-response-rate = 0
max-body = {MAX_BODY}
"""
# Bytes; what allocators may have kept. Buffers of all sizes, in an order that never comes again, tear holes
# into the heap of the C library: after many hundred thousand requests it is larger, though no more is in use.
GROWTH = 256 << 10 if REQUESTS <= 100_000 else 1 << 20


class Crowd:
    """Clients that come one after the other, CLIENTS of them at a time."""

    def __init__(self, address: tuple[str, int], chance: random.Random) -> None:
        self.requests = self.connections = self.refused = 0
        self._address = address
        self._chance = chance
        self._sender = Sender(chance)

    def send(self, requests: int) -> None:
        """Returns when at least so many requests have been sent, and every client has left."""
        goal = self.requests + requests
        run(self._client(f"127.0.2.{number + 1}", goal) for number in range(CLIENTS))

    def _client(self, source: str, goal: int) -> Client[None]:
        while self.requests < goal:
            data = self._sender.stream(20)
            pieces = cuts(data, self._chance.getrandbits(32))
            # How it ends: as it should, in the middle, or suddenly.
            ending = self._chance.random()
            if ending < 0.2:
                pieces = pieces[: self._sender.below(len(pieces) + 1)]
            talk = conversation(pieces)
            self.requests += len(talk.requests) + (talk.refusal is not None)
            self.refused += talk.refusal is not None
            self.connections += 1
            with Connection(self._address, source) as connection:
                connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                whole = True
                try:
                    for piece in pieces:
                        yield from send(connection, piece)
                    if ending < 0.1:
                        connection.socket.setsockopt(
                            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                        )
                    if ending < 0.15:
                        continue
                    connection.socket.shutdown(socket.SHUT_WR)
                except OSError:
                    whole = False  # it has ended already
                wire = b""
                try:
                    while True:
                        yield Wait(descriptor=connection.socket.fileno(), interest=select.EPOLLIN)
                        more = connection.socket.recv(65536, socket.MSG_DONTWAIT)
                        if not more:
                            break
                        wire += more
                except ConnectionResetError:
                    whole = False
                answers = due(talk)
                # Who goes on after the last response may lose it (RFC 9112 9.6); nobody else.
                last = bool(answers) and answers[-1].closes
                assert whole or last, repr((pieces, wire))
                check(wire, answers, whole=whole)


@pytest.mark.timeout(120 + REQUESTS / 100)
def test_l13_f10_f12_s9_p10_a_crowd_is_answered_and_leaves_nothing(
    tmp_path: Path, listener: socket.socket
) -> None:
    with Server(tmp_path, SETTINGS, app=APPS / "judge.py", sockets={"http": listener}) as server:
        server.ready()
        [zygote] = server.zygotes()
        everybody = [server.pid, zygote, *server.workers()]
        crowd = Crowd(listener.getsockname(), random.Random(SEED))
        began = time.monotonic()
        footprints: list[dict[int, Footprint]] = []
        # What comes first warms up: it makes whatever is made once.
        for _ in range(2):
            crowd.send(REQUESTS // 2)
            until(lambda: not any(peers(pid) for pid in everybody))
            footprints.append({pid: footprint(pid) for pid in everybody})
        assert [*server.workers()] == everybody[2:]
    before, after = footprints
    told = (
        f"{crowd.requests} requests, {crowd.refused} of them refused, on {crowd.connections} connections "
        f"in {time.monotonic() - began:.0f} s; supervisor, zygote, workers: {footprints}"
    )
    print(told)
    for pid in everybody:
        assert after[pid].descriptors == before[pid].descriptors, told
        assert after[pid].memory <= before[pid].memory + GROWTH, told
