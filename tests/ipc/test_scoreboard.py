"""The shared page: what a worker writes, any other process reads."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from stardust.ipc.scoreboard import (
    BUSY,
    EMPTY,
    IDLE,
    LONGEST,
    SLOTS,
    STARTING,
    STATES,
    Entry,
    Scoreboard,
    Slot,
)


@pytest.fixture
def board() -> Iterator[Scoreboard]:
    board = Scoreboard.create()
    yield board
    os.close(board.descriptor)


NOBODY = Entry(0, 0, EMPTY, 0, 0, 0, 0.0, 0.0, 0.0, "")


def test_a_life(board: Scoreboard) -> None:
    assert board.read(3) == NOBODY
    slot = board.slot(3)
    slot.born(4711, 7, 10.0)
    assert board.read(3) == NOBODY._replace(
        pid=4711, generation=7, state=STARTING, since=10.0, heartbeat=10.0
    )
    slot.idle(0, 0, 11.0)
    assert board.read(3)[2:9] == (IDLE, 0, 0, 0, 11.0, 0.0, 10.0)
    slot.busy(1, 12.0, 42.0, b"127.0.0.1 GET /a HTTP/1.1\r\nHost: test\r\n")
    entry = board.read(3)
    assert (entry.state, entry.running, entry.since, entry.deadline) == (BUSY, 1, 12.0, 42.0)
    assert entry.text == "127.0.0.1 GET /a HTTP/1.1"
    slot.idle(1, 5, 13.0)
    entry = board.read(3)
    assert (entry.state, entry.requests, entry.connections, entry.running) == (IDLE, 1, 5, 0)
    assert (entry.since, entry.deadline) == (13.0, 0.0)
    slot.beat(14.0)
    assert board.read(3).heartbeat == 14.0
    board.clear(3)
    assert board.read(3) == NOBODY


def test_slots_do_not_touch_each_other(board: Scoreboard) -> None:
    for number in (0, 1, 2, SLOTS - 1):
        board.slot(number).born(number + 1, 1, 1.0)
        board.slot(number).busy(1, 1.0, 0.0, str(number).encode() * 5000)
    board.clear(1)
    board.replaceable = True
    assert board.read(1) == NOBODY
    for number in (0, 2, SLOTS - 1):
        assert board.read(number).pid == number + 1
        assert set(board.read(number).text) == set(str(number))


def test_there_is_no_slot_beyond_the_last(board: Scoreboard) -> None:
    with pytest.raises((IndexError, ValueError, struct.error)):
        board.slot(SLOTS).beat(1.0)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (b"", ""),
        (b"- GET / HTTP/1.1\r\nCookie: secret", "- GET / HTTP/1.1"),
        (b"x" * 5000, "x" * LONGEST),
        (b"x" + "é".encode() * 5000, "x" + "é" * (LONGEST // 2 - 1) + "\ufffd"),
        (b"GET /\xff", "GET /\ufffd"),
    ],
    ids=["none", "only the first line", "too long", "cut within a character", "no UTF-8"],
)
def test_the_text(board: Scoreboard, text: bytes, shown: str) -> None:
    board.slot(0).busy(1, 1.0, 0.0, b"the one before, and longer than most of them")
    board.slot(0).busy(1, 1.0, 0.0, text)
    assert board.read(0).text == shown


def test_who_could_serve_more(board: Scoreboard) -> None:
    """Idle ones, and those that were at the given moment; of the others nobody knows when they are free."""
    for number in range(6):
        board.clear(number)
        board.slot(number).born(100 + number, 1, 0.0)
    for number in range(1, 6):
        board.slot(number).idle(10 * number, 1, 5.0)
    board.slot(2).busy(1, 7.0, 0.0, b"GET /long")
    board.slot(3).busy(1, 9.0, 0.0, b"GET /short")
    board.slot(3).count(31, 1)
    board.clear(4)
    assert board.served(8.0, without=5) == {1: 10, 3: 31}


def test_as_many_slots_as_there_are(board: Scoreboard) -> None:
    board.clear(SLOTS - 1)
    board._map[8:16] = b"\x7f" * 8
    assert board.served(0.0, without=0) == {}


def test_another_process_sees_it(board: Scoreboard) -> None:
    other = Scoreboard(os.dup(board.descriptor))
    for value in (True, False, True):
        board.replaceable = value
        board.stopping = not value
        board.storing = value
        assert other.replaceable is value
        assert other.stopping is not value
        assert other.storing is value
    other.slot(5).born(1, 2, 3.0)
    assert board.read(5).generation == 2
    os.close(other.descriptor)


def test_garbage_reads_as_something(board: Scoreboard) -> None:
    """A worker that overwrites its slot must not take the reader with it."""
    slot = board._slot_bytes(0)
    slot[:] = b"\xff" * len(slot)
    entry = board.read(0)
    assert entry.state == EMPTY
    assert entry.text == ""


def test_every_state_has_a_name() -> None:
    assert [STATES[state] for state in (EMPTY, STARTING, IDLE, BUSY)] == ["empty", "starting", "idle", "busy"]


def test_the_descriptor_is_closed_on_exec(board: Scoreboard) -> None:
    assert not os.get_inheritable(board.descriptor)


def test_retirement_is_seen_by_the_worker() -> None:
    board = Scoreboard.create()
    slot = board.slot(3)
    slot.born(1, 1, 0.0)
    seen = [slot.retired]
    board.retire(3)
    slot.busy(1, 2.0, 0.0, b"x")
    seen.append(slot.retired)
    board.clear(3)
    seen.append(slot.retired)
    assert seen == [False, True, False]


def test_what_is_written_is_never_half_there() -> None:
    """Each in one piece, that no reader sees cleared before: what `pack_into` does."""

    class Pieces:
        def __init__(self) -> None:
            self.written: list[tuple[slice, bytes]] = []

        def __setitem__(self, place: slice, data: bytes) -> None:
            assert place.stop - place.start == len(data)
            self.written.append((place, data))

    pieces: Any = Pieces()
    slot = Slot(pieces)
    slot.idle(1, 2, 3.0)
    slot.count(4, 5)
    slot.busy(1, 6.0, 7.0, b"- GET / HTTP/1.1")
    slot.beat(8.0)
    assert len(pieces.written) == 4
