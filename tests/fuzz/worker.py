"""A whole worker on this thread: a real `Loop`, a real listener, and one client that is a part of it.

The loop watches a descriptor that is always readable, so that it never waits; each of its turns gives the
client a turn: to connect, to send the next piece, to take what has come, to leave. Nothing runs beside it, so
the same bytes take the same way.

Its application answers with all that it was told (tests/live/apps/judge.py); or, for some bytes, every
request has an application of its own, which does whatever it likes (applications.py).
"""

from __future__ import annotations

import math
import os
import random
import socket
import zlib
from collections.abc import Iterator
from typing import Any

from stardust.base.address import Address
from stardust.ipc.scoreboard import Scoreboard
from stardust.logs.log import Log
from stardust.settings.table import Config
from stardust.worker.entrance import Door
from stardust.worker.loop import Loop
from stardust.wsgi.environ import Environ
from tests.descriptors import still_open
from tests.fuzz.answers import check, check_framing, due
from tests.fuzz.applications import Script, StartResponse
from tests.fuzz.streams import cuts
from tests.http1.conversations import MAX_BODY, conversation
from tests.live.apps.judge import application

CONFIG = Config(max_keepalive_reqs=0, max_reqs_per_child=0, max_body=MAX_BODY)
TURNS = 2000  # of the loop, in which it must be done with what has come


class Worker:
    """Serves one client after the other."""

    def __init__(self) -> None:
        listener = socket.socket(socket.AF_UNIX)
        name = f"stardust-fuzz-{os.getpid()}-{id(self)}"
        listener.bind(f"\0{name}")
        listener.listen()
        listener.setblocking(False)
        self._address = f"\0{name}"
        self._board = Scoreboard.create()
        door = Door(listener, Address("abstract", path=name), own=True)
        self._loop = Loop(
            CONFIG,
            self._answer,
            [door],
            Log("worker", "critical"),
            slot=self._board.slot(0),
            report=lambda *_: None,
        )
        self._chance: random.Random | None = None  # makes up applications
        self._steps: Iterator[None] = iter(())
        self._ready = os.eventfd(1)
        self._loop.watch(self._ready, self._step)
        self._loop.standing.leave_by = -math.inf

    def serve(self, data: bytes) -> int:
        """One connection, on which `data` comes in some way; how many requests were in it.

        Fails if something else than the answers that are due comes back, if the connection stays, or if a
        descriptor does. Whoever has made garbage that holds descriptors collects it before (descriptors.py).
        """
        before = still_open()
        wire = bytearray()
        number = zlib.crc32(data)
        pieces = cuts(data, number)
        leaves = number % 7 < 2
        if leaves:
            pieces = pieces[: number % len(pieces) + 1]
        wild = number % 3 == 0
        self._chance = random.Random(number) if wild else None
        self._steps = self._client(pieces, wire, leaves)
        self._loop.standing.leaving = False
        self._loop.run()
        assert not self._loop.book.connections
        assert not self._loop.serving.ready
        assert still_open() == before
        talk = conversation(pieces)
        if wild:
            check_framing(bytes(wire), due(talk), whole=not leaves)
        else:
            check(bytes(wire), due(talk), whole=not leaves)
        return len(talk.requests) + (talk.refusal is not None)

    def _answer(self, environ: Environ, start_response: StartResponse) -> Any:
        if self._chance is None:
            return application(environ, start_response)
        return Script(self._chance.randbytes(50))(environ, start_response)

    def _step(self) -> None:
        """A turn of the client; at its end the loop's run is over."""
        try:
            next(self._steps)
        except StopIteration:
            self._loop.standing.leaving = True

    def _client(self, pieces: list[bytes], wire: bytearray, leaves: bool) -> Iterator[None]:
        with socket.socket(socket.AF_UNIX) as client:
            client.setblocking(False)
            client.connect(self._address)
            yield
            for piece in pieces:
                rest = memoryview(piece)
                for _ in range(TURNS):
                    try:
                        rest = rest[client.send(rest) :]
                    except BlockingIOError:
                        pass
                    except OSError:
                        break  # it is closed already
                    if self._received(client, wire) or not rest:
                        break
                    yield
                yield
            if not leaves:
                try:
                    client.shutdown(socket.SHUT_WR)
                except OSError:
                    pass
                for _ in range(TURNS):
                    if self._received(client, wire):
                        break
                    yield
                else:
                    raise AssertionError("the connection goes on")
        for _ in range(TURNS):
            if not self._loop.book.connections:
                return
            yield
        raise AssertionError("the connection stays")

    def _received(self, client: socket.socket, wire: bytearray) -> bool:
        """Takes what has come; whether that was all."""
        try:
            while data := client.recv(1 << 16):
                wire += data
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True
