"""One shared memory that every worker writes its own slot of, and others read: who is doing what.

The supervisor makes it (memfd_create(2)) and every process of every generation maps it. A slot has one
writer, the worker that was forked into it; a reader may see a half-written text, never a half-written
number (all numbers are aligned 8-byte words). Times are seconds of the monotonic clock.

The first bytes of the header tell workers whether a successor could be forked: one that has reached its
own limit goes on serving while there is nobody to replace it.

Runs in the application's interpreter too.
"""

from __future__ import annotations

import mmap
import os
from typing import NamedTuple

SLOTS = 1024
_HEADER = 4096
_SLOT = 1024
_WORDS = 16
_TEXT = _WORDS * 8
_LONGEST = _SLOT - _TEXT - 8

# Words of a slot. The first half is written as integers, the second as floats.
_PID, _GENERATION, _STATE, _REQUESTS, _CONNECTIONS, _RUNNING, _LENGTH = range(7)
_SINCE, _DEADLINE, _HEARTBEAT = range(8, 11)

EMPTY, STARTING, IDLE, BUSY = range(4)
STATES = ("empty", "starting", "idle", "busy")


class Entry(NamedTuple):
    """What a slot says. `since`: when it became idle or its oldest running request began; `deadline`: when
    that request is overdue, 0 if it may run for ever; `heartbeat`: when its loop last answered a ping;
    `text`: method, target, version and peer of the oldest running request, separated by spaces."""

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
        self._map = mmap.mmap(descriptor, _HEADER + SLOTS * _SLOT)
        self._bytes = memoryview(self._map)

    @classmethod
    def create(cls) -> Scoreboard:
        descriptor = os.memfd_create("stardust-scoreboard", os.MFD_CLOEXEC)
        os.truncate(descriptor, _HEADER + SLOTS * _SLOT)
        return cls(descriptor)

    def slot(self, number: int) -> Slot:
        """The slot for its worker to write."""
        return Slot(self._slot_bytes(number))

    def read(self, number: int) -> Entry:
        """What slot `number` says now."""
        return self.slot(number).read()

    def clear(self, number: int) -> None:
        """Forget who had the slot: before a worker is forked into it, and after one is gone."""
        self._slot_bytes(number)[:] = bytes(_SLOT)

    @property
    def replaceable(self) -> bool:
        """Whether a worker that leaves now would get a successor."""
        return self._map[0] == 1

    @replaceable.setter
    def replaceable(self, value: bool) -> None:
        self._map[0] = int(value)

    def _slot_bytes(self, number: int) -> memoryview:
        start = _HEADER + number * _SLOT
        return self._bytes[start : start + _SLOT]


class Slot:
    """One worker's part, written on every request: plain stores into typed views, some 40 ns each."""

    __slots__ = ("_bytes", "_floats", "_words")

    def __init__(self, slot_bytes: memoryview) -> None:
        self._bytes = slot_bytes
        self._words = slot_bytes[:_TEXT].cast("q")
        self._floats = slot_bytes[:_TEXT].cast("d")

    def born(self, pid: int, generation: int, now: float) -> None:
        words, floats = self._words, self._floats
        words[_PID], words[_GENERATION], words[_STATE] = pid, generation, STARTING
        floats[_SINCE] = floats[_HEARTBEAT] = now

    def idle(self, requests: int, connections: int, now: float) -> None:
        """No request runs any more."""
        words, floats = self._words, self._floats
        words[_STATE], words[_REQUESTS], words[_CONNECTIONS], words[_RUNNING] = IDLE, requests, connections, 0
        floats[_DEADLINE], floats[_SINCE] = 0.0, now

    def busy(self, running: int, since: float, deadline: float, text: str) -> None:
        """`running` requests run; the oldest is `text`, began at `since` and is overdue at `deadline`."""
        data = text.encode("utf-8", "replace")[:_LONGEST]
        words, floats = self._words, self._floats
        self._bytes[_TEXT : _TEXT + len(data)] = data
        words[_LENGTH], words[_RUNNING], words[_STATE] = len(data), running, BUSY
        floats[_SINCE], floats[_DEADLINE] = since, deadline

    def beat(self, now: float) -> None:
        """The loop turns."""
        self._floats[_HEARTBEAT] = now

    def read(self) -> Entry:
        words, floats = self._words, self._floats
        length = max(0, min(words[_LENGTH], _LONGEST))
        state = words[_STATE] if 0 <= words[_STATE] < len(STATES) else EMPTY
        return Entry(
            words[_PID],
            words[_GENERATION],
            state,
            words[_REQUESTS],
            words[_CONNECTIONS],
            words[_RUNNING],
            floats[_SINCE],
            floats[_DEADLINE],
            floats[_HEARTBEAT],
            bytes(self._bytes[_TEXT : _TEXT + length]).decode("utf-8", "replace"),
        )
