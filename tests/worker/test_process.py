"""A worker as a process, from its start to its end."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from stardust.base import process
from stardust.base.errors import Exit
from stardust.base.records import replace
from stardust.ipc import messages
from stardust.ipc.scoreboard import BUSY, IDLE
from stardust.logs.log import Sink
from stardust.settings.table import Config
from tests.journald import Journal
from tests.worker.forked import Worker, readable


@pytest.mark.parametrize("preload", [True, False], ids=["preloaded", "loaded after the fork"])
def test_it_serves(tmp_path: Path, config: Config, preload: bool) -> None:
    with Worker(tmp_path, replace(config, preload=preload)) as worker:
        assert worker.message() == messages.Ready()
        assert worker.get("/a") == b"/a"
        worker.until(lambda entry: entry.state == IDLE and entry.requests == 1)
        entry = worker.entry
        assert (entry.pid, entry.generation) == (worker.process.pid, 7)
        assert Path(f"/proc/{worker.process.pid}/comm").read_text() == "stardust:w3\n"


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1]
)
def test_signals_for_others_are_ignored(worker: Worker, number: signal.Signals) -> None:
    worker.process.send_signal(number)
    assert worker.get("/a") == b"/a"


def test_an_application_that_cannot_be_loaded(tmp_path: Path, config: Config) -> None:
    (tmp_path / "application.py").write_text("import there_is_no_such_module\n")
    with Worker(tmp_path, replace(config, preload=False)) as worker:
        message = worker.message()
        assert isinstance(message, messages.Failed)
        assert "there_is_no_such_module" in message.reason
        assert "Traceback" in message.detail
        assert worker.ended() == Exit.APPLICATION
        assert worker.errors() == ""


def test_nobody_to_tell_that_it_cannot_be_loaded(tmp_path: Path, config: Config) -> None:
    (tmp_path / "application.py").write_text("import there_is_no_such_module\n")
    with Worker(tmp_path, replace(config, preload=False), alone=True) as worker:
        assert worker.ended() == Exit.APPLICATION
        errors = worker.errors()
        assert "worker 3: error: cannot load" in errors
        assert "Traceback" in errors


def test_alone(tmp_path: Path, config: Config) -> None:
    with Worker(tmp_path, config, alone=True) as worker:
        assert worker.get("/a") == b"/a"
        worker.process.send_signal(signal.SIGTERM)
        assert worker.ended() == Exit.OK
        assert worker.errors() == ""


def test_a_stuck_worker_writes_its_stacks(worker: Worker) -> None:
    """`request-timeout`: the signal is answered whatever the application does, and then comes SIGKILL."""
    with worker.connected() as client:
        client.sendall(f"GET /wait?{worker.said_writer} HTTP/1.0\r\n\r\n".encode())
        readable(worker.said_reader)
        assert worker.entry.state == BUSY
        worker.process.send_signal(process.STACKS_SIGNAL)
        worker.until(lambda entry: b"in run" in worker.written_stacks())
        assert b"application.py" in worker.written_stacks()
        worker.process.kill()
        assert worker.ended() == -signal.SIGKILL
        assert worker.errors() == ""


def test_what_the_application_raises_is_a_record(tmp_path: Path, config: Config) -> None:
    """One, with its traceback; and nothing on standard error."""
    journald = Journal(tmp_path / "socket")
    with Worker(tmp_path, config, sink=Sink(journald.path, stamped=False)) as worker:
        assert worker.message() == messages.Ready()
        assert b"500" in worker.get("/raise?x=1", "X-Request-Id: 7f-1")
        worker.channel.send(messages.Stop())
        assert worker.ended() == Exit.OK
        assert worker.errors() == ""
    journald.close()
    [record] = journald.records
    assert record["MESSAGE"].startswith(
        "worker 3: GET /raise?x=1: application error\nTraceback (most recent call last):\n"
    )
    assert record["MESSAGE"].endswith("LookupError: oops")
    assert (record["PRIORITY"], record["REQUEST_ID"]) == ("3", "7f-1")
    assert (record["STARDUST_WORKER"], record["STARDUST_REQUEST"]) == ("3", "GET /raise?x=1 HTTP/1.0")
    assert (record["CODE_FILE"], record["CODE_FUNC"]) == (str(tmp_path / "application.py"), "application")


def test_what_the_application_raises_is_text_elsewhere(worker: Worker) -> None:
    """`wsgi.errors`, as PEP 3333 has it."""
    worker.get("/raise")
    worker.channel.send(messages.Stop())
    assert worker.ended() == Exit.OK
    errors = worker.errors()
    assert errors.startswith("GET /raise: application error\nTraceback (most recent call last):\n")
    assert errors.endswith("LookupError: oops\n")
