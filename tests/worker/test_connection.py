"""A connection's sends: what the socket does not take is kept, too much makes the sender wait, and a client
that is given up gets nothing more."""

from __future__ import annotations

import io
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from stardust.base.address import Address
from stardust.base.errors import ClientGone
from stardust.http1.body import LengthReader
from stardust.worker import forked
from stardust.worker.connection import Connection, Incoming, Terms
from stardust.worker.life import READING, SENDING
from stardust.wsgi import input as spools
from stardust.wsgi.input import Spool

PATIENCE = 20.0  # s; far beyond what anything takes
WHERE = Address("unix", path="/run/app.sock")
PIECE = bytes(range(256)) * 256


class Pair:
    """A connection, and the client at its other end."""

    def __init__(self, most_unsent: int = 1 << 30, patience: float = PATIENCE) -> None:
        ours, self.client = socket.socketpair()
        self.client.settimeout(PATIENCE)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        number = ours.detach()
        sock = socket.SocketType(socket.AF_UNIX, socket.SOCK_STREAM, 0, number)
        self.connection = Connection(sock, number, Terms(WHERE, most_unsent, patience), {"REMOTE_ADDR": ""})

    def read(self, size: int) -> bytes:
        received = bytearray()
        while len(received) < size:
            more = self.client.recv(size - len(received))
            assert more, f"end after {len(received)} of {size} bytes"
            received += more
        return bytes(received)

    def close(self) -> None:
        self.client.close()
        self.connection.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.close()


def test_what_fits_leaves_at_once(pair: Pair) -> None:
    pair.connection.send(b"hello")
    assert pair.connection.unsent == 0
    assert pair.connection.outbox is None
    assert pair.read(5) == b"hello"


def test_the_rest_is_kept_in_order(pair: Pair) -> None:
    connection = pair.connection
    for _ in range(5):
        connection.send(PIECE)
    assert connection.unsent > 4 * len(PIECE)
    received = bytearray()
    while connection.unsent:
        received += pair.client.recv(1 << 20)
        connection.flush()
    received += pair.read(5 * len(PIECE) - len(received))
    assert bytes(received) == 5 * PIECE
    connection.send(b"and on")
    assert connection.unsent == 0


def test_files_follow_what_waits(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(PIECE)
    pair.connection.send(PIECE)
    with (tmp_path / "file").open("rb") as file:
        pair.connection.send_file(file.fileno(), 10, 100)
    received = bytearray()
    while pair.connection.unsent:
        received += pair.client.recv(1 << 20)
        pair.connection.flush()
    received += pair.read(len(PIECE) + 100 - len(received))
    assert bytes(received) == PIECE + PIECE[10:110]


def test_the_sender_waits_for_a_slow_reader() -> None:
    """Never is more kept than the limit and the piece that exceeds it."""
    pair = Pair(most_unsent=2 * len(PIECE))
    received = bytearray()
    reader = threading.Thread(target=lambda: received.extend(pair.read(40 * len(PIECE))))
    reader.start()
    for _ in range(40):
        pair.connection.send(PIECE)
        assert pair.connection.unsent <= 2 * len(PIECE)
    while pair.connection.unsent:
        pair.connection.flush()
    reader.join(PATIENCE)
    assert bytes(received) == 40 * PIECE
    pair.close()


def test_patience_ends_and_stays_ended() -> None:
    pair = Pair(most_unsent=0, patience=0.01)
    with pytest.raises(ClientGone, match=r"it read nothing for 0\.01 s"):
        pair.connection.send(PIECE * 10)
    with pytest.raises(ClientGone):
        pair.connection.send(b"the application did not notice")
    pair.close()


def test_a_full_disk_leaves_no_hole(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes after the bytes that were lost must not be sent either."""
    monkeypatch.setattr(spools, "temporary_file", lambda: io.FileIO("/dev/full", "wb"))
    with pytest.raises(ClientGone, match=r"cannot buffer its response: .*No space left"):
        pair.connection.send(bytes(4 << 20))
    monkeypatch.undo()
    for _ in range(2):
        with pytest.raises(ClientGone):
            pair.connection.send(b"more")


@pytest.mark.parametrize("pieces", [1, 50], ids=["with nothing waiting", "with something waiting"])
def test_a_client_that_left(pair: Pair, pieces: int) -> None:
    for _ in range(pieces - 1):
        pair.connection.send(PIECE)
    pair.client.close()
    for _ in range(2):
        with pytest.raises(ClientGone):
            pair.connection.send(b"x")


def test_flush_of_a_client_that_left(pair: Pair) -> None:
    pair.connection.send(PIECE * 10)
    pair.client.close()
    with pytest.raises(ClientGone):
        pair.connection.flush()


def test_the_next_request_finds_nothing_of_the_last(pair: Pair) -> None:
    connection = pair.connection
    connection.stage, connection.buffer, connection.searched = SENDING, b"GET", 3
    connection.body = Incoming(LengthReader(3), Spool(), b"")
    connection.began, connection.note, connection.requests = 5.0, "note", 1
    connection.body.spool.close()
    connection.reset()
    left: object = (
        connection.stage,
        connection.began,
        connection.searched,
        connection.note,
        connection.body,
    )
    assert left == (READING, 0.0, 0, "", None)
    assert (connection.buffer, connection.requests) == (b"GET", 1)


def test_reset_on_close() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), PATIENCE)
        accepted, _ = listener.accept()
    number = accepted.detach()
    sock = socket.SocketType(socket.AF_INET, socket.SOCK_STREAM, 0, number)
    connection = Connection(sock, number, Terms(WHERE, 0, 1.0), {"REMOTE_ADDR": ""})
    connection.reset_on_close()
    connection.close()
    with client, pytest.raises(ConnectionResetError):
        client.recv(1)


def test_a_socket_that_the_application_closed(pair: Pair) -> None:
    pair.connection.socket.close()
    pair.connection.reset_on_close()
    with pytest.raises(ClientGone):
        pair.connection.send(b"x")


class TestLooking:
    """A send of no bytes: is the client still there?"""

    def test_a_client_that_waits(self, pair: Pair) -> None:
        pair.connection.send(b"")
        pair.connection.send(b"news")
        assert pair.read(4) == b"news"

    def test_one_that_asks_for_more_already(self, pair: Pair) -> None:
        pair.client.send(b"GET / HTTP/1.1\r\n")
        pair.connection.send(b"")
        assert pair.connection.asks()

    def test_one_that_has_gone(self, pair: Pair) -> None:
        pair.client.close()
        with pytest.raises(ClientGone):
            pair.connection.send(b"")

    def test_one_that_has_ended_its_side(self, pair: Pair) -> None:
        pair.client.shutdown(socket.SHUT_WR)
        with pytest.raises(ClientGone, match="it closed the connection"):
            pair.connection.send(b"")
        with pytest.raises(ClientGone):
            pair.connection.send(b"more")

    def test_one_that_was_reset(self, pair: Pair) -> None:
        pair.connection.send(PIECE)  # unread data make its close a reset
        pair.client.close()
        with pytest.raises(ClientGone):
            pair.connection.send(b"")


class TestForked:
    """What others have copies of, and what a copy is good for."""

    @pytest.fixture
    def copy(self, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
        """In a child that was forked just when the connection came."""
        monkeypatch.setattr(forked, "happened", True)
        copy = os.dup(pair.connection.number)
        yield copy
        os.close(copy)

    def test_the_end_is_seen(self, pair: Pair, copy: int) -> None:
        pair.connection.send(b"the last")
        pair.connection.close()
        assert pair.read(8) == b"the last"
        assert pair.client.recv(1) == b""

    def test_a_connection_that_moves_goes_on(self, pair: Pair, copy: int) -> None:
        pair.connection.close(moved=True)
        pair.client.setblocking(False)
        with pytest.raises(BlockingIOError):
            pair.client.recv(1)

    def test_one_that_is_cut_does_not_come_to_its_end(self, copy: int, pair: Pair) -> None:
        """The reset waits until nobody has a copy; an end would be taken for that of the response."""
        pair.connection.reset_on_close()
        pair.connection.close()
        pair.client.setblocking(False)
        with pytest.raises(BlockingIOError):
            pair.client.recv(1)

    def test_without_a_fork_no_call_is_made(self, pair: Pair) -> None:
        with socket.socket(fileno=os.dup(pair.connection.number)):
            pair.connection.close()
            pair.client.setblocking(False)
            with pytest.raises(BlockingIOError):
                pair.client.recv(1)

    def test_a_child_says_nothing(self, pair: Pair) -> None:
        """Nor does it write into files that its parent has, and will send."""
        while not pair.connection.unsent:
            pair.connection.send(PIECE)
        other = os.dup(pair.connection.number)
        pair.connection.forsake()
        with pytest.raises(ClientGone):
            pair.connection.send(b"more")
        with tempfile.TemporaryFile() as file, pytest.raises(ClientGone):
            pair.connection.send_file(file.fileno(), 0, 1)
        pair.connection.forsake()
        os.close(other)
