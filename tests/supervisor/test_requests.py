"""The access log as the supervisor has it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from stardust.ipc.scoreboard import BUSY, Entry
from stardust.logs.log import Log
from stardust.settings.table import Config
from stardust.supervisor.requests import RequestLog, open_request_log


def test_access_log_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.write_text("before\n")
    descriptor = open_request_log(str(path))
    os.write(descriptor, b"after\n")
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)
    assert path.read_text() == "before\nafter\n"


def test_access_log_is_not_for_everybody(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    os.close(open_request_log(str(path)))
    assert stat.S_IMODE(path.stat().st_mode) & 0o027 == 0


def test_access_log_on_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    descriptor = open_request_log("-")
    os.write(descriptor, b"a line\n")
    os.close(descriptor)
    assert capfd.readouterr().out == "a line\n"


def test_access_log_that_cannot_be_opened(tmp_path: Path) -> None:
    path = str(tmp_path / "nowhere" / "access.log")
    with pytest.raises(FileNotFoundError) as caught:
        open_request_log(path)
    assert caught.value.filename == path


def test_a_killed_request_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    requests = RequestLog(Config(access_log=str(path), access_log_format="common"), Log("test"))
    entry = Entry(4711, 1, BUSY, 9, 1, 1, 10.0, 0.0, 10.0, "192.0.2.1 GET /slow?a=b HTTP/1.1")
    requests.killed(entry, "request-timeout", now=12.5, wall=0.0)
    requests.killed(entry._replace(text="- POST / HTTP/1.0"), "killed by SIGKILL", now=12.5, wall=0.0)
    requests.close()
    first, second = path.read_text().splitlines()
    assert first.startswith("192.0.2.1 - - [")
    assert first.endswith('"GET /slow?a=b HTTP/1.1" - -')
    assert '"POST / HTTP/1.0"' in second


def test_a_renamed_log_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    requests = RequestLog(Config(access_log=str(path)), Log("test"))
    path.rename(tmp_path / "access.log.1")
    requests.reopen()
    os.write(requests.descriptor, b"new\n")
    requests.close()
    assert (path.read_text(), (tmp_path / "access.log.1").read_text()) == ("new\n", "")


def test_a_log_that_cannot_be_reopened_stays(tmp_path: Path) -> None:
    directory = tmp_path / "log"
    directory.mkdir()
    requests = RequestLog(Config(access_log=str(directory / "access.log")), Log("test"))
    directory.rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError):
        requests.reopen()
    os.write(requests.descriptor, b"old\n")
    requests.close()
    assert (tmp_path / "moved" / "access.log").read_text() == "old\n"
