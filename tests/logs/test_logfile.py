"""The access log's file: lines are never waited for, and those that are lost are counted and reported."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stardust.logs import logfile
from stardust.logs.log import Log, Sink
from stardust.logs.logfile import MOST, LogFile


class Pipe:
    """A pipe of 4 KiB; its reader reads when a test says so."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, 4096)
        os.set_blocking(self.reader, False)

    def read(self) -> str:
        received = b""
        try:
            while more := os.read(self.reader, 65536):
                received += more
        except BlockingIOError:
            pass
        return received.decode()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """The reader is closed here, the writer by its LogFile."""
    pipe = Pipe()
    yield pipe
    os.close(pipe.reader)


@pytest.fixture
def reports() -> Iterator[Pipe]:
    """Where the server's own log goes."""
    pipe = Pipe()
    yield pipe
    os.close(pipe.reader)
    os.close(pipe.writer)


@pytest.fixture
def log(reports: Pipe) -> Log:
    return Log("worker 1", sink=Sink(stamped=False), descriptor=reports.writer)


def opened(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def everything(file: LogFile, pipe: Pipe, most_turns: int = 10_000) -> str:
    """What arrives if the reader reads on."""
    received = ""
    for _ in range(most_turns):
        file.flush()
        more = pipe.read()
        if not more:
            return received
        received += more
    raise AssertionError("it never ends")


class TestRegularFile:
    def test_lines_are_written_together(self, tmp_path: Path, log: Log) -> None:
        file = LogFile(opened(tmp_path / "log"), log)
        file.add("one")
        file.add("zwölf")
        assert (tmp_path / "log").read_text() == ""
        file.flush()
        assert (tmp_path / "log").read_text() == "one\nzwölf\n"
        file.close()

    def test_close_writes_what_waits(self, tmp_path: Path, log: Log) -> None:
        file = LogFile(opened(tmp_path / "log"), log)
        file.add("one")
        file.close()
        assert (tmp_path / "log").read_text() == "one\n"

    def test_reopened(self, tmp_path: Path, log: Log) -> None:
        """What was added before belongs to the old file, which logrotate has renamed."""
        file = LogFile(opened(tmp_path / "log"), log)
        file.add("before")
        (tmp_path / "log").rename(tmp_path / "log.1")
        file.reopened(opened(tmp_path / "log"))
        file.add("after")
        file.close()
        assert (tmp_path / "log.1").read_text() == "before\n"
        assert (tmp_path / "log").read_text() == "after\n"

    def test_text_that_cannot_be_encoded(self, tmp_path: Path, log: Log) -> None:
        file = LogFile(opened(tmp_path / "log"), log)
        file.add("a\udc80b")
        file.close()
        assert (tmp_path / "log").read_text() == "a\\udc80b\n"

    def test_p11_short_writes_are_continued(
        self, tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write = os.write
        monkeypatch.setattr(
            "stardust.logs.logfile.system.write", lambda number, data: write(number, data[:3])
        )
        file = LogFile(opened(tmp_path / "log"), log)
        file.add("one two three")
        file.close()
        assert (tmp_path / "log").read_text() == "one two three\n"


def test_p8_a_full_disk_is_reported_once_and_what_it_cost_afterwards(
    tmp_path: Path, log: Log, reports: Pipe
) -> None:
    file = LogFile(os.open("/dev/full", os.O_WRONLY), log)
    for _ in range(5):
        file.add("one")
        file.add("two")
        file.flush()
    assert file.dropped == 10
    said = reports.read()
    assert said.count("\n") == 1
    assert "access log: cannot write, lines are lost: No space left on device" in said
    file.reopened(opened(tmp_path / "log"))
    file.add("three")
    file.flush()
    assert (tmp_path / "log").read_text() == "three\n"
    assert "access log: 10 lines were lost: it could not be written" in reports.read()
    assert file.dropped == 0
    file.close()


def test_p8_a_reader_that_left(pipe: Pipe, log: Log, reports: Pipe) -> None:
    file = LogFile(pipe.writer, log)
    os.close(pipe.reader)
    pipe.reader = os.open("/dev/null", os.O_RDONLY)
    for _ in range(3):
        file.add("one")
        file.flush()
    assert file.dropped == 3
    assert reports.read().count("Broken pipe") == 1
    file.close()


class TestStuckReader:
    def test_p8_never_blocks_and_loses_nothing_at_first(self, pipe: Pipe, log: Log, reports: Pipe) -> None:
        file = LogFile(pipe.writer, log)
        lines = [f"line {number:5}" for number in range(2000)]
        for line in lines:
            file.add(line)
            file.flush()
        assert file.dropped == 0
        assert everything(file, pipe).splitlines() == lines
        assert reports.read() == ""
        file.close()

    @pytest.mark.parametrize("size", [4096, 10_000, 200_000], ids=["a piece", "several", "many"])
    def test_a_line_longer_than_the_pipe_never_blocks(self, pipe: Pipe, log: Log, size: int) -> None:
        file = LogFile(pipe.writer, log)
        lines = ["a", "b" * size, "c"]
        for line in lines:
            file.add(line)
        assert everything(file, pipe).splitlines() == lines
        file.close()

    def test_p8_drops_what_is_too_much_and_says_so_later(self, pipe: Pipe, log: Log, reports: Pipe) -> None:
        file = LogFile(pipe.writer, log)
        line = "x" * 1023
        for _ in range(MOST // 1024 + 100):
            file.add(line)
            file.flush()
        dropped = file.dropped
        assert 90 < dropped < 100  # a little is in the pipe
        assert reports.read() == ""
        received = everything(file, pipe).splitlines()
        assert received == [line] * (MOST // 1024 + 100 - dropped)
        assert f"access log: {dropped} lines were lost: its reader was too slow" in reports.read()
        assert file.dropped == 0
        file.close()

    def test_reopened_while_stuck(self, pipe: Pipe, tmp_path: Path, log: Log) -> None:
        file = LogFile(pipe.writer, log)
        lines = [f"line {number:5}" for number in range(2000)]
        for line in lines:
            file.add(line)
        file.reopened(opened(tmp_path / "log"))
        file.close()
        assert (pipe.read() + (tmp_path / "log").read_text()).splitlines() == lines


def test_a_stream_socket(log: Log) -> None:
    """What `StandardOutput=socket` and a container's log driver give."""
    ours, reader = socket.socketpair()
    with reader:
        file = LogFile(ours.detach(), log)
        lines = [f"line {number}" for number in range(1000)]
        for line in lines:
            file.add(line)
        file.close()
        received = b""
        while more := reader.recv(65536):
            received += more
    assert received.decode().splitlines() == lines


@given(lines=st.lists(st.integers(1, 10_000), max_size=30))
def test_pieces_hold_every_byte_and_cut_no_line_that_fits(lines: list[int]) -> None:
    """Only whole lines are written atomically, so only whole lines of several workers never mingle."""
    texts = [b"x" * (size - 1) + b"\n" for size in lines]
    pieces = logfile._pieces(texts)
    assert b"".join(pieces) == b"".join(texts)
    assert all(0 < len(piece) <= 4096 for piece in pieces)
    if all(size <= 4096 for size in lines):
        assert all(piece.endswith(b"\n") for piece in pieces)
