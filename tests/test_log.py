"""The server's own log: one write a message, a threshold, and no way to fail."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest

from stardust.log import LEVELS, Log, goes_to_journal


class Pipe:
    """A log's descriptor, and what was written into it."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)

    def read(self) -> str:
        try:
            return os.read(self.reader, 65536).decode()
        except BlockingIOError:
            return ""


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    os.close(pipe.reader)
    os.close(pipe.writer)


def test_a_line(pipe: Pipe) -> None:
    Log("worker 3", stamped=False, descriptor=pipe.writer).warning("something\n")
    assert pipe.read() == f"stardust[{os.getpid()}] worker 3: warning: something\n"


def test_a_stamp(pipe: Pipe) -> None:
    Log("supervisor", descriptor=pipe.writer).info("x")
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d stardust\[", pipe.read())


def test_later_lines_are_indented(pipe: Pipe) -> None:
    """So that no line of a message, a client's or an application's text in it, looks like one of ours."""
    Log("w", stamped=False, descriptor=pipe.writer).error("one\ntwo\n\n")
    assert pipe.read().endswith("error: one\n    two\n")


@pytest.mark.parametrize("threshold", LEVELS)
def test_the_threshold(pipe: Pipe, threshold: str) -> None:
    log = Log("w", threshold, descriptor=pipe.writer)
    for method in (log.debug, log.info, log.warning, log.error, log.critical):
        method("text")
    levels = list(LEVELS)
    assert re.findall(r"w: (\w+): text", pipe.read()) == levels[levels.index(threshold) :]


def test_another_name_for_the_same_log(pipe: Pipe) -> None:
    log = Log("zygote", "warning", stamped=False, descriptor=pipe.writer).named("worker 1")
    log.info("no")
    log.warning("yes")
    assert pipe.read() == f"stardust[{os.getpid()}] worker 1: warning: yes\n"


def test_text_that_cannot_be_encoded(pipe: Pipe) -> None:
    Log("w", descriptor=pipe.writer).info("a\udc80b")
    assert "a\\udc80b" in pipe.read()


@pytest.mark.parametrize("where", ["full", "closed"])
def test_writing_never_raises(where: str) -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    if where == "closed":
        os.close(descriptor)
    Log("w", descriptor=descriptor).critical("text")
    if where == "full":
        os.close(descriptor)


class TestJournal:
    """systemd.exec(5): JOURNAL_STREAM is "device and inode numbers of the file descriptor", with a colon."""

    def test_is_where_standard_error_goes(self) -> None:
        status = os.fstat(2)
        assert goes_to_journal({"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})

    @pytest.mark.parametrize(
        "environ",
        [{}, {"JOURNAL_STREAM": "1:1"}, {"JOURNAL_STREAM": "x:y"}, {"JOURNAL_STREAM": "1"}],
        ids=["not under systemd", "redirected", "no numbers", "no colon"],
    )
    def test_is_not(self, environ: dict[str, str]) -> None:
        assert not goes_to_journal(environ)
