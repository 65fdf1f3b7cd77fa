"""What waits for a slow reader: everything arrives in order, memory stays small, the disk is given back."""

from __future__ import annotations

import errno
import io
import socket
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stardust.base.budget import JOINED, Budget
from stardust.worker import outbox as outboxes
from stardust.worker.outbox import MEMORY, Outbox
from stardust.wsgi import input as spools
from tests.descriptors import open_descriptors, still_open

PATIENCE = 20.0  # s; far beyond what anything takes


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Ours, with a small buffer, and the client's."""
    ours, clients = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    clients.settimeout(PATIENCE)
    with ours, clients:
        yield ours, clients


def pattern(size: int, start: int = 0) -> bytes:
    """Bytes that show where they belong."""
    cycle = bytes(range(251))
    return (cycle * (size // 251 + 2))[start % 251 :][:size]


def drained(outbox: Outbox, ends: tuple[socket.socket, socket.socket]) -> bytes:
    """All that the client gets."""
    ours, clients = ends
    received = bytearray()
    while outbox.pending:
        outbox.flush(ours)
        received += clients.recv(1 << 20)
    ours.shutdown(socket.SHUT_WR)
    while more := clients.recv(1 << 20):
        received += more
    return bytes(received)


def test_memory_first_then_the_disk(ends: tuple[socket.socket, socket.socket]) -> None:
    before = open_descriptors()
    outbox, whole = Outbox(), pattern(3 * MEMORY)
    for start in range(0, len(whole), 65536):
        outbox.push(whole[start : start + 65536])
        assert (len(still_open()) > len(before)) is (start + 65536 > MEMORY)
    assert outbox.pending == len(whole)
    assert drained(outbox, ends) == whole
    assert open_descriptors() == before


def test_the_disk_holds_what_waits_not_what_ever_waited(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outboxes, "SEGMENT", 65536)
    monkeypatch.setattr(outboxes, "MEMORY", 0)
    ours, clients = ends
    before = len(open_descriptors())
    outbox, received, piece = Outbox(), bytearray(), pattern(20000)
    for number in range(100):  # a stream whose reader is always behind
        outbox.push(piece)
        while outbox.pending > 40000:
            outbox.flush(ours)
            received += clients.recv(4096)
        if number % 10 == 0:
            assert len(still_open()) - before <= 2
    assert bytes(received) + drained(outbox, ends) == piece * 100
    assert len(open_descriptors()) == before


def test_a_file_between_bytes(ends: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(pattern(300_000))
    outbox = Outbox()
    outbox.push(b"head")
    with (tmp_path / "file").open("rb") as file:
        outbox.push_file(file.fileno(), 1000, 200_000)
    outbox.push(b"tail")
    assert drained(outbox, ends) == b"head" + pattern(200_000, 1000) + b"tail"


def test_a_file_that_shrank_is_an_error(ends: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    outbox = Outbox()
    with (tmp_path / "file").open("rb") as file:
        outbox.push_file(file.fileno(), 0, 10)
    outbox.flush(ends[0])
    with pytest.raises(OSError, match="ended before"):
        outbox.flush(ends[0])
    outbox.close()


def test_an_empty_file(ends: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    outbox = Outbox()
    with (tmp_path / "file").open("rb") as file:
        outbox.push_file(file.fileno(), 0, 0)
    outbox.flush(ends[0])
    assert drained(outbox, ends) == b""


def test_close_gives_everything_back(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    before = open_descriptors()
    outbox = Outbox()
    outbox.push(bytes(MEMORY))
    outbox.push(b"on disk")
    with (tmp_path / "file").open("rb") as file:
        outbox.push_file(file.fileno(), 0, 5)
    outbox.close()
    outbox.close()
    assert outbox.pending == 0
    assert open_descriptors() == before


def test_p7_the_temporary_file_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    outbox = Outbox()
    outbox.push(bytes(MEMORY + 1))
    assert list(tmp_path.iterdir()) == []
    outbox.close()


def test_p7_a_full_disk_is_the_pushers_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spools, "temporary_file", lambda: io.FileIO("/dev/full", "wb"))
    outbox = Outbox()
    with pytest.raises(OSError, match="No space left") as caught:
        outbox.push(bytes(MEMORY + 1))
    assert caught.value.errno == errno.ENOSPC
    outbox.close()


def test_a_client_that_is_gone(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, clients = ends
    outbox = Outbox()
    outbox.push(b"x")
    clients.close()
    with pytest.raises(OSError, match="pipe"):
        outbox.flush(ours)
    outbox.close()


PIECES: Any = st.lists(
    st.tuples(st.integers(0, 5000), st.sampled_from(["bytes", "file", "flush", "read"])), max_size=30
)


@settings(max_examples=60)
@given(steps=PIECES)
def test_any_order_of_pieces_arrives_in_order(steps: list[tuple[int, str]]) -> None:
    ours, clients = socket.socketpair()
    clients.settimeout(PATIENCE)
    clients.setblocking(False)
    expected, received = bytearray(), bytearray()
    with ours, clients, tempfile.TemporaryFile() as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr(outboxes, "MEMORY", 4000)
        patch.setattr(outboxes, "SEGMENT", 6000)
        outbox = Outbox()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        file.write(pattern(10_000))
        file.flush()
        for size, step in steps:
            if step == "bytes":
                outbox.push(pattern(size, size))
                expected += pattern(size, size)
            elif step == "file":
                outbox.push_file(file.fileno(), size, size)
                expected += pattern(size, size)
            elif step == "flush":
                outbox.flush(ours)
            else:
                try:
                    received += clients.recv(max(size, 1))
                except BlockingIOError:
                    pass
            assert outbox._share.held <= 4000
        clients.settimeout(PATIENCE)
        assert bytes(received) + drained(outbox, (ours, clients)) == bytes(expected)
        outbox.close()


@given(sizes=st.lists(st.integers(1, 3 * JOINED), max_size=30), take=st.integers(1, 50_000))
@settings(deadline=None)
def test_pieces_of_any_size_arrive_in_order(sizes: list[int], take: int) -> None:
    """Also those that join one of which a part was sent already."""
    ours, clients = socket.socketpair()
    clients.settimeout(PATIENCE)
    with ours, clients:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        outbox, start, received = Outbox(), 0, bytearray()
        for size in sizes:
            outbox.push(pattern(size, start))
            start += size
            outbox.flush(ours)
            received += clients.recv(take)
        assert bytes(received) + drained(outbox, (ours, clients)) == pattern(start)
        assert outbox._share.held == 0


def test_s3_memory_is_what_is_counted(ends: tuple[socket.socket, socket.socket]) -> None:
    """Single bytes to somebody who does not read: an object for each would be a hundred times as much."""
    outbox = Outbox()
    outbox.push(bytes(65536))
    outbox.flush(ends[0])  # full
    tracemalloc.start()
    for _ in range(50_000):
        outbox.push(b"x")
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 1.2 * 50_000
    outbox.close()


def test_s3_without_memory_for_all_the_disk(ends: tuple[socket.socket, socket.socket]) -> None:
    before = open_descriptors()
    budget = Budget(100_000)
    first, second = Outbox(budget), Outbox(budget)
    for outbox in (first, second):
        outbox.push(pattern(80_000))
    assert len(open_descriptors()) == len(before) + 1
    second.push(b"tail")
    assert drained(second, ends) == pattern(80_000) + b"tail"
    first.close()
    assert budget.take(100_000)
    assert open_descriptors() == before
