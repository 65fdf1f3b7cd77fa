"""The server's own log: one write or one record a message, a threshold, and no way to fail."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stardust.logs.events import STARTED
from stardust.logs.log import LEVELS, TEXT, Log, Seldom, Sink, find_sink, instance
from tests.journald import Journal, full

PLAIN = Sink(stamped=False)


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
    Log("worker 3", sink=PLAIN, descriptor=pipe.writer).warning("something\n")
    assert pipe.read() == f"stardust[{os.getpid()}] worker 3: warning: something\n"


def test_a_stamp(pipe: Pipe) -> None:
    Log("supervisor", descriptor=pipe.writer).info("x")
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d stardust\[", pipe.read())


def test_later_lines_are_indented(pipe: Pipe) -> None:
    """So that no line of a message, a client's or an application's text in it, looks like one of ours."""
    Log("w", sink=PLAIN, descriptor=pipe.writer).error("one\ntwo\n\n")
    assert pipe.read().endswith("error: one\n    two\n")


@pytest.mark.parametrize("threshold", LEVELS)
def test_the_threshold(pipe: Pipe, threshold: str) -> None:
    log = Log("w", threshold, descriptor=pipe.writer)
    for method in (log.debug, log.info, log.warning, log.error, log.critical):
        method("text")
    levels = list(LEVELS)
    assert re.findall(r"w: (\w+): text", pipe.read()) == levels[levels.index(threshold) :]


def test_another_name_for_the_same_log(pipe: Pipe) -> None:
    log = Log("zygote", "warning", sink=PLAIN, descriptor=pipe.writer).named(
        "worker 1", {"STARDUST_WORKER": 1}
    )
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


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[Journal]:
    journald = Journal(tmp_path / "socket")
    yield journald
    journald.close()


def recording(journald: Journal, pipe: Pipe, threshold: str = "debug", **fields: object) -> Log:
    """A log that goes to `journald`, or to `pipe` where that fails."""
    sink = Sink(journald.path, stamped=False)
    return Log("supervisor", threshold, sink=sink, fields=fields, descriptor=pipe.writer)


def test_a_record(journald: Journal, pipe: Pipe) -> None:
    log = recording(journald, pipe, STARDUST_INSTANCE="shop")
    line = sys._getframe().f_lineno + 1
    log.info("serves\n", STARTED, {"STARDUST_GENERATION": 1})
    assert journald.read() == [
        {
            "MESSAGE": "supervisor: serves",
            "MESSAGE_ID": STARTED.id,
            "PRIORITY": "6",
            "SYSLOG_IDENTIFIER": "stardust",
            "CODE_FILE": __file__,
            "CODE_LINE": str(line),
            "CODE_FUNC": "test_a_record",
            "STARDUST_INSTANCE": "shop",
            "STARDUST_GENERATION": "1",
        }
    ]
    assert pipe.read() == ""


def test_all_lines_are_one_record(journald: Journal, pipe: Pipe) -> None:
    recording(journald, pipe).error("one\ntwo\n  three\n")
    [record] = journald.read()
    assert record["MESSAGE"] == "supervisor: one\ntwo\n  three"
    assert "MESSAGE_ID" not in record


@pytest.mark.parametrize("threshold", LEVELS)
def test_priorities(journald: Journal, pipe: Pipe, threshold: str) -> None:
    """syslog(3). What is below the threshold is no record."""
    log = recording(journald, pipe, threshold)
    for method in (log.debug, log.info, log.warning, log.error, log.critical):
        method("text")
    numbers = ["7", "6", "4", "3", "2"]
    wanted = numbers[list(LEVELS).index(threshold) :]
    assert [record["PRIORITY"] for record in journald.read()] == wanted


def test_fields_of_the_record_win(journald: Journal, pipe: Pipe) -> None:
    log = recording(journald, pipe, STARDUST_GENERATION=1).named("worker 3", {"STARDUST_WORKER": 3})
    log.error("text", fields={"STARDUST_GENERATION": 2, "CODE_FILE": "shop.py"})
    [record] = journald.read()
    assert record["MESSAGE"] == "worker 3: text"
    assert (record["STARDUST_WORKER"], record["STARDUST_GENERATION"]) == ("3", "2")
    assert record["CODE_FILE"] == "shop.py"


def test_a_journal_that_is_gone(journald: Journal, pipe: Pipe) -> None:
    """Then it is text, without a time, for standard error is the journal's as well."""
    log = recording(journald, pipe)
    os.unlink(journald.path)
    log.error("one\ntwo", STARTED, {"STARDUST_GENERATION": 1})
    assert pipe.read() == f"stardust[{os.getpid()}] supervisor: error: one\n    two\n"


def test_a_journal_that_is_full(journald: Journal, pipe: Pipe) -> None:
    full(journald)
    recording(journald, pipe).critical("text")
    assert pipe.read() == ""
    assert "supervisor: text" not in [record["MESSAGE"] for record in journald.read()]


class TestSeldom:
    @pytest.fixture
    def seldom(self, pipe: Pipe) -> Seldom:
        return Seldom(Log("worker", sink=PLAIN, descriptor=pipe.writer))

    def test_w11_one_of_a_kind_a_second_and_how_many_more(self, seldom: Seldom, pipe: Pipe) -> None:
        for number in range(5):
            seldom.say("info", "a", f"a {number}", 10 + number / 10)
        assert seldom.next() == 11
        seldom.catch_up(10.9)
        assert pipe.read().count("\n") == 1
        seldom.catch_up(11)
        assert "info: a 4 (4 like this within a second)\n" in pipe.read()
        assert seldom.next() == math.inf

    def test_w11_what_was_told_late_counts_as_told(self, seldom: Seldom, pipe: Pipe) -> None:
        for moment in (10, 10.5):
            seldom.say("info", "a", "a", moment)
        seldom.catch_up(11)
        seldom.say("info", "a", "again", 11.5)
        assert "again" not in pipe.read()
        seldom.catch_up(12)
        assert "again (1 like this within a second)" in pipe.read()

    def test_w11_kinds_do_not_hold_each_other_back(self, seldom: Seldom, pipe: Pipe) -> None:
        for kind in ("a", "b"):
            seldom.say("warning", kind, kind, 10)
        assert pipe.read().count("warning: ") == 2

    def test_w11_a_second_later_it_is_news(self, seldom: Seldom, pipe: Pipe) -> None:
        for moment in (10, 11, 12):
            seldom.say("info", "a", "a", moment)
        assert pipe.read().count("info: a\n") == 3
        assert seldom.next() == math.inf

    def test_w11_the_threshold_holds(self, pipe: Pipe) -> None:
        seldom = Seldom(Log("worker", "warning", sink=PLAIN, descriptor=pipe.writer))
        for _ in range(3):
            seldom.say("info", "a", "a", 10)
        seldom.catch_up(11)
        assert pipe.read() == ""

    def test_the_record_says_who_said_it(self, journald: Journal, pipe: Pipe) -> None:
        Seldom(recording(journald, pipe)).say("info", "a", "a", 10)
        [record] = journald.read()
        assert record["CODE_FUNC"] == "test_the_record_says_who_said_it"


class TestSink:
    """systemd.exec(5): JOURNAL_STREAM is "device and inode numbers of the file descriptor", with a colon."""

    @pytest.fixture
    def stream(self) -> dict[str, str]:
        status = os.fstat(2)
        return {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}

    def test_standard_error_is_the_journals(self, journald: Journal, stream: dict[str, str]) -> None:
        assert find_sink(stream, journald.path) == Sink(journald.path, stamped=False)

    def test_without_a_native_socket(self, tmp_path: Path, stream: dict[str, str]) -> None:
        assert find_sink(stream, str(tmp_path / "nothing")) == PLAIN

    @pytest.mark.parametrize(
        "environ",
        [{}, {"JOURNAL_STREAM": "1:1"}, {"JOURNAL_STREAM": "x:y"}, {"JOURNAL_STREAM": "1"}],
        ids=["not under systemd", "redirected", "no numbers", "no colon"],
    )
    def test_standard_error_is_somebody_elses(self, journald: Journal, environ: dict[str, str]) -> None:
        assert find_sink(environ, journald.path) == TEXT


@pytest.mark.parametrize(
    ("source", "fields"),
    [
        ("", {}),
        ("/etc/stardust/myapp.toml", {"STARDUST_INSTANCE": "myapp"}),
        ("stardust.toml", {"STARDUST_INSTANCE": "stardust"}),
        ("/etc/stardust/www.example.org.toml", {"STARDUST_INSTANCE": "www.example.org"}),
    ],
    ids=["no file", "as the unit has it", "relative", "dots"],
)
def test_the_instance(source: str, fields: dict[str, str]) -> None:
    assert instance(source) == fields
