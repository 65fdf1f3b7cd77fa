"""The native protocol of the journal: what is sent arrives as it was, and nothing waits or raises."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stardust.base import system
from stardust.logs import journal
from tests.descriptors import open_descriptors
from tests.journald import Journal, decode, full, is_valid

TOP = Path(__file__).parents[2]

names = st.text("ABCXYZ019_", min_size=1, max_size=64).filter(is_valid)


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[Journal]:
    journald = Journal(tmp_path / "socket")
    yield journald
    journald.close()


@pytest.mark.parametrize(
    ("fields", "record"),
    [
        ({}, b""),
        ({"MESSAGE": "hello", "PRIORITY": 6}, b"MESSAGE=hello\nPRIORITY=6\n"),
        ({"MESSAGE": "a=b"}, b"MESSAGE=a=b\n"),
        ({"MESSAGE": ""}, b"MESSAGE=\n"),
        ({"MESSAGE": "one\ntwo"}, b"MESSAGE\n" + struct.pack("<Q", 7) + b"one\ntwo\n"),
        ({"MESSAGE": "é"}, b"MESSAGE=\xc3\xa9\n"),
        ({"MESSAGE": "\udc80"}, b"MESSAGE=\\udc80\n"),
    ],
    ids=["nothing", "fields", "equals sign", "empty", "lines", "UTF-8", "not UTF-8"],
)
def test_encode(fields: dict[str, object], record: bytes) -> None:
    assert journal.encode(fields) == record


@given(st.dictionaries(names, st.text()))
def test_no_value_becomes_a_field(fields: dict[str, str]) -> None:
    """Whatever a client or an application puts into a value: `st.text` knows no lone surrogates."""
    assert decode(journal.encode(fields)) == fields


def test_a_record_is_a_datagram(journald: Journal) -> None:
    assert journal.send(journald.path, journal.encode({"MESSAGE": "one"}))
    assert journal.send(journald.path, journal.encode({"MESSAGE": "a\nb"}))
    assert journald.read() == [{"MESSAGE": "one"}, {"MESSAGE": "a\nb"}]


def test_a_large_record_is_a_sealed_memory(journald: Journal) -> None:
    before = open_descriptors()
    text = "line\n" * 200_000
    assert journal.send(journald.path, journal.encode({"MESSAGE": text, "PRIORITY": 3}))
    assert journald.read() == [{"MESSAGE": text, "PRIORITY": "3"}]
    assert open_descriptors() == before


@pytest.mark.parametrize("size", [1, 1_000_000], ids=["small", "large"])
def test_another_interpreter(journald: Journal, size: int) -> None:
    """PyPy 3.9, of another version and another implementation."""
    pypy = shutil.which("pypy3")
    assert pypy is not None, "pypy3 is missing: apt-get install pypy3"
    code = (
        "import sys; from stardust.logs.log import Log, Sink; "
        "Log('w', sink=Sink(sys.argv[1])).error('x' * int(sys.argv[2]))"
    )
    subprocess.run([pypy, "-B", "-c", code, journald.path, str(size)], cwd=TOP, timeout=60, check=True)
    [record] = journald.read()
    assert record["MESSAGE"] == "w: " + "x" * size
    assert (record["CODE_FILE"], record["CODE_LINE"], record["CODE_FUNC"]) == ("<string>", "1", "<module>")


@pytest.mark.parametrize("size", [1, 1_000_000], ids=["small", "large"])
def test_a_full_journal_is_not_waited_for(journald: Journal, size: int) -> None:
    """The record is lost. It counts as taken: standard error leads to the same journal."""
    count = full(journald)
    before = open_descriptors()
    assert journal.send(journald.path, journal.encode({"MESSAGE": "x" * size}))
    assert open_descriptors() == before
    assert len(journald.read()) == count


@pytest.mark.parametrize("where", ["nothing there", "nobody there", "a path that is too long"])
def test_nobody_takes_it(tmp_path: Path, where: str) -> None:
    path = tmp_path / "socket"
    if where == "nobody there":
        Journal(path).close()
    elif where == "a path that is too long":
        # AF_UNIX paths have 107 bytes; Python refuses before the kernel does.
        path = tmp_path / ("x" * 108)
    assert not journal.send(str(path), b"MESSAGE=x\n")


@pytest.mark.parametrize("fault", [errno.EMFILE, errno.ENOMEM])
def test_no_memory_for_a_large_record(journald: Journal, monkeypatch: pytest.MonkeyPatch, fault: int) -> None:
    def refuse(*_: object) -> int:
        raise OSError(fault, os.strerror(fault))

    monkeypatch.setattr(system, "memfd_create", refuse)
    assert not journal.send(journald.path, journal.encode({"MESSAGE": "x" * 1_000_000}))
    assert journald.read() == []


def test_no_descriptor_left(journald: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(system, "new_socket", refuse)
    assert not journal.send(journald.path, b"MESSAGE=x\n")
