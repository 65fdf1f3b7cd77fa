"""Shared memory that says what each worker is doing: a worker writes its own slot, the others read it.

The supervisor makes it (memfd_create(2)) and every process of every generation maps it. A slot has one
writer, the worker that was forked into it; only the word "retired" is written by the supervisor. A reader may
see a half-written text, never a half-written number: all are aligned words of 8 bytes, written in one piece.
(`pack_into` would not do: it clears the place first.) Times are seconds of the monotonic clock.

The header tells workers

- whether a successor could be forked: a worker that has reached its own limit goes on serving if not;
- whether the whole server stops: then no worker follows that could take over a connection;
- whether idle connections are then stored for the next start;
- how many slots were ever used.

Runs in the application's interpreter too.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from stardust.base import system
from stardust.base.pristine import os

SLOTS = 1024
_HEADER = 4096
_SLOT = 512
_COUNT = struct.Struct("q")
_COUNT_AT = 8

# A slot: process id and generation; heartbeat; retired or not; then what every request writes. That is in two
# parts that overlap in the middle, so that beginning and end of a request are one store each (some 0.2 µs).
_BORN = struct.Struct("qq")
_HEARTBEAT = struct.Struct("d")
_RETIRED = struct.Struct("q")
_IDLE = struct.Struct("qqqqdd")  # requests, connections | state, running, since, deadline
_COUNTS = struct.Struct("qq")  # requests, connections
_BUSY = struct.Struct("qqddq256s")  # state, running, since, deadline | length and bytes of the text
_HEARTBEAT_AT = _BORN.size
_RETIRED_AT = _HEARTBEAT_AT + _HEARTBEAT.size
_IDLE_AT = _RETIRED_AT + _RETIRED.size
_BUSY_AT = _IDLE_AT + _COUNTS.size
_IDLE_END = _IDLE_AT + _IDLE.size
_BUSY_END = _BUSY_AT + _BUSY.size
LONGEST = 256  # bytes of a text

EMPTY, STARTING, IDLE, BUSY = range(4)
STATES = ("empty", "starting", "idle", "busy")


class Entry(NamedTuple):
    """What a slot says. `since`: when it became idle or its oldest running request began; `deadline`: when
    that request is overdue, 0 if it may run for ever; `heartbeat`: when its loop last answered a ping;
    `text`: the peer ("-" for none), a space, and the request line of the oldest running request."""

    pid: int
    generation: int
    state: int
    requests: int
    connections: int
    running: int
    since: float
    deadline: float
    heartbeat: float
    text: str


class Scoreboard:
    """The mapping. Sparse: only slots that were used take memory."""

    __slots__ = ("_bytes", "_map", "descriptor")

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._map = system.map_shared(descriptor, _HEADER + SLOTS * _SLOT)
        self._bytes = memoryview(self._map)

    @classmethod
    def create(cls) -> Scoreboard:
        descriptor = system.memfd_create("stardust-scoreboard", os.MFD_CLOEXEC)
        system.ftruncate(descriptor, _HEADER + SLOTS * _SLOT)
        return cls(descriptor)

    def forsake(self) -> None:
        """In a forked child, when its slots were forsaken: nothing of it is left there."""
        system.close(self.descriptor)
        self._bytes.release()
        self._map.close()

    def slot(self, number: int) -> Slot:
        """The slot for its worker to write."""
        return Slot(self._slot_bytes(number))

    def read(self, number: int) -> Entry:
        """What slot `number` says now."""
        return self.slot(number).read()

    def served(self, since: float, without: int) -> dict[int, int]:
        """By slot, how many requests each worker has served that is idle now, or was idle at `since`. The
        worker in the slot `without` is left out."""
        served = {}
        [count] = _COUNT.unpack_from(self._map, _COUNT_AT)
        for number in range(min(count, SLOTS)):
            at = _HEADER + number * _SLOT + _IDLE_AT
            requests, _, state, _, began, _ = _IDLE.unpack_from(self._map, at)
            if number != without and (state == IDLE or (state == BUSY and began >= since)):
                served[number] = requests
        return served

    def retire(self, number: int) -> None:
        """From now on the worker in this slot accepts nothing, whatever it is doing when the order comes."""
        _RETIRED.pack_into(self._slot_bytes(number), _RETIRED_AT, 1)

    def clear(self, number: int) -> None:
        """Forget the worker that had the slot: before one is forked into it, and after it is gone."""
        [count] = _COUNT.unpack_from(self._map, _COUNT_AT)
        self._map[_COUNT_AT : _COUNT_AT + _COUNT.size] = _COUNT.pack(max(count, number + 1))
        self._slot_bytes(number)[:] = bytes(_SLOT)

    @property
    def replaceable(self) -> bool:
        """Whether a worker that leaves now would get a successor."""
        return self._map[0] == 1

    @replaceable.setter
    def replaceable(self, value: bool) -> None:
        self._map[0] = int(value)

    @property
    def stopping(self) -> bool:
        """Whether all workers are to leave, and none follows them."""
        return self._map[1] == 1

    @stopping.setter
    def stopping(self, value: bool) -> None:
        self._map[1] = int(value)

    @property
    def storing(self) -> bool:
        """Whether connections without a request are then left for the next start of the server."""
        return self._map[2] == 1

    @storing.setter
    def storing(self, value: bool) -> None:
        self._map[2] = int(value)

    def _slot_bytes(self, number: int) -> memoryview:
        start = _HEADER + number * _SLOT
        return self._bytes[start : start + _SLOT]


class Slot:
    """One worker's part."""

    __slots__ = ("_bytes",)

    def __init__(self, slot_bytes: memoryview) -> None:
        self._bytes = slot_bytes

    def forsake(self) -> None:
        """In a forked child: it writes no more, by mistake either."""
        self._bytes.release()

    def born(self, pid: int, generation: int, now: float) -> None:
        _BORN.pack_into(self._bytes, 0, pid, generation)
        _IDLE.pack_into(self._bytes, _IDLE_AT, 0, 0, STARTING, 0, now, 0.0)
        self.beat(now)

    def idle(self, requests: int, connections: int, now: float) -> None:
        """No request runs any more."""
        self._bytes[_IDLE_AT:_IDLE_END] = _IDLE.pack(requests, connections, IDLE, 0, now, 0.0)

    def count(self, requests: int, connections: int) -> None:
        """As `idle` does, while requests run."""
        self._bytes[_IDLE_AT:_BUSY_AT] = _COUNTS.pack(requests, connections)

    def busy(self, running: int, since: float, deadline: float, text: bytes) -> None:
        """`running` requests run; the oldest is `text`, began at `since` and is overdue at `deadline`."""
        self._bytes[_BUSY_AT:_BUSY_END] = _BUSY.pack(BUSY, running, since, deadline, len(text), text)

    @property
    def retired(self) -> bool:
        """Whether the supervisor wants no more connections to be accepted here."""
        return self._bytes[_RETIRED_AT] != 0

    def beat(self, now: float) -> None:
        """The loop turns."""
        self._bytes[_HEARTBEAT_AT:_RETIRED_AT] = _HEARTBEAT.pack(now)

    def read(self) -> Entry:
        pid, generation = _BORN.unpack_from(self._bytes)
        [heartbeat] = _HEARTBEAT.unpack_from(self._bytes, _HEARTBEAT_AT)
        requests, connections, state, running, since, deadline = _IDLE.unpack_from(self._bytes, _IDLE_AT)
        *_, length, data = _BUSY.unpack_from(self._bytes, _BUSY_AT)
        text = data[: max(length, 0)].decode("utf-8", "replace").partition("\r\n")[0]
        if state not in range(len(STATES)):
            state = EMPTY
        return Entry(pid, generation, state, requests, connections, running, since, deadline, heartbeat, text)
