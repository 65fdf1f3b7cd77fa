"""Request bodies in memory and on disk. http.md P7: a full disk, a nameless file, nothing left behind."""

from __future__ import annotations

import errno
import io
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stardust.base.budget import Budget
from stardust.wsgi import input as spools
from stardust.wsgi.input import Spool


@given(pieces=st.lists(st.binary(max_size=40)), memory=st.integers(0, 100))
def test_gives_back_what_it_was_given(pieces: list[bytes], memory: int) -> None:
    spool = Spool(memory)
    for piece in pieces:
        spool.write(piece)
    whole = b"".join(pieces)
    reader = spool.finish()
    assert reader.tell() == 0
    assert reader.read() == whole
    assert reader.read() == b""
    assert reader.seek(0) == 0
    assert reader.readlines() == io.BytesIO(whole).readlines()
    spool.close()


@pytest.mark.parametrize("memory", [0, 1 << 20], ids=["on disk", "in memory"])
class TestInputStream:
    """PEP 3333, "Input and Error Streams"."""

    @pytest.mark.parametrize(
        ("read", "expected"),
        [
            (lambda stream: stream.read(), b"one\ntwo\nthree"),
            (lambda stream: stream.read(5), b"one\nt"),
            (lambda stream: stream.read(-1), b"one\ntwo\nthree"),
            (lambda stream: stream.readline(), b"one\n"),
            (lambda stream: stream.readline(2), b"on"),
            (lambda stream: stream.readlines(), [b"one\n", b"two\n", b"three"]),
            (lambda stream: stream.readlines(1), [b"one\n"]),
            (lambda stream: list(stream), [b"one\n", b"two\n", b"three"]),
        ],
        ids=["read", "read-n", "read-all", "readline", "readline-n", "readlines", "readlines-hint", "iter"],
    )
    def test_methods(self, memory: int, read: object, expected: object) -> None:
        assert callable(read)
        spool = Spool(memory)
        spool.write(b"one\ntwo\nth")
        spool.write(b"ree")
        assert read(spool.finish()) == expected
        spool.close()

    def test_is_seekable(self, memory: int) -> None:
        spool = Spool(memory)
        spool.write(b"12345")
        stream = spool.finish()
        stream.read()
        stream.seek(3)
        assert stream.seekable()
        assert stream.read() == b"45"
        spool.close()

    def test_finishes_once(self, memory: int) -> None:
        spool = Spool(memory)
        spool.finish()
        with pytest.raises(ValueError, match="already finished"):
            spool.finish()
        spool.close()

    def test_close_closes_the_stream_and_may_be_repeated(self, memory: int) -> None:
        spool = Spool(memory)
        spool.write(b"x")
        stream = spool.finish()
        spool.close()
        spool.close()
        assert stream.closed

    def test_close_of_a_body_that_never_ended(self, memory: int) -> None:
        spool = Spool(memory)
        spool.write(b"x")
        spool.close()
        with pytest.raises(ValueError, match="already finished"):
            spool.finish()


def test_the_empty_body() -> None:
    assert Spool().finish().read() == b""


@pytest.mark.parametrize(("size", "on_disk"), [(8, False), (9, True)], ids=["just fits", "one byte more"])
def test_where_the_body_is(size: int, on_disk: bool) -> None:
    spool = Spool(8)
    for _ in range(size):
        spool.write(b"x")
    stream = spool.finish()
    assert isinstance(stream, io.BytesIO) is not on_disk
    assert stream.read() == b"x" * size
    spool.close()


def test_p7_the_file_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    spool = Spool(0)
    spool.write(b"secret")
    stream = spool.finish()
    assert list(tmp_path.iterdir()) == []
    assert os.fstat(stream.fileno()).st_nlink == 0
    spool.close()


class Full(io.FileIO):
    """A file on a device with room for a few bytes only."""

    room = 5

    def write(self, data: object) -> int:
        assert isinstance(data, (bytes, memoryview))
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = min(self.room, len(data))
        self.room -= taken
        return super().write(bytes(data[:taken]))


@pytest.mark.parametrize("pieces", [[b"123", b"45678"], [b"12345678"], [b"12345", b"6"]])
def test_p7_a_full_disk_is_reported_by_the_write_it_hits(
    pieces: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Full(tmp_path / "spool", "w+")
    monkeypatch.setattr(spools, "temporary_file", lambda: file)
    spool = Spool(2)
    *first, last = pieces
    for piece in first:
        spool.write(piece)
    with pytest.raises(OSError, match="No space left"):
        spool.write(last)
    spool.close()
    assert file.closed


def test_a_full_disk_found_while_moving_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Full(tmp_path / "spool", "w+")
    monkeypatch.setattr(spools, "temporary_file", lambda: file)
    spool = Spool(8)
    spool.write(b"12345678")
    with pytest.raises(OSError, match="No space left"):
        spool.write(b"9")
    spool.close()
    assert file.closed


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(Full):
        def write(self, data: object) -> int:
            self.room = 1
            return super().write(data)

    monkeypatch.setattr(spools, "temporary_file", lambda: Slow(tmp_path / "spool", "w+"))
    spool = Spool(0)
    spool.write(b"12345678")
    assert spool.finish().read() == b"12345678"
    spool.close()


@pytest.mark.parametrize("helps", [True, False])
def test_p7_without_a_descriptor_others_are_asked_for_one(
    helps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = spools.temporary_file
    asked: list[int | None] = []

    def short() -> object:
        if not asked:
            raise OSError(errno.EMFILE, "Too many open files")
        return make()

    def relieve(fault: OSError) -> bool:
        asked.append(fault.errno)
        return helps

    monkeypatch.setattr(spools, "temporary_file", short)
    spool = Spool(2, relieve=relieve)
    spool.write(b"12")
    if helps:
        spool.write(b"3")
        assert spool.finish().read() == b"123"
    else:
        with pytest.raises(OSError, match="Too many"):
            spool.write(b"3")
    assert asked == [errno.EMFILE]
    spool.close()


def test_p7_without_memory_for_all_the_disk() -> None:
    budget = Budget(100_000)
    spools = [Spool(budget=budget) for _ in range(2)]
    for spool in spools:
        for _ in range(8):
            spool.write(b"x" * 10_000)
    assert [isinstance(spool.finish(), io.BytesIO) for spool in spools] == [True, False]
    for spool in spools:
        spool.close()
        spool.close()
    assert budget.take(100_000)
