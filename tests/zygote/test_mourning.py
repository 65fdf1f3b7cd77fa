"""What the zygote does after a death, in this process; which hooks are called how is for test_main."""

from __future__ import annotations

import os
import select
import time
from pathlib import Path

import pytest

from stardust.logs.log import Log
from stardust.settings.table import Config
from stardust.zygote import mourning
from tests.faults import failing

PATIENCE = 20.0  # s

HOOK = """
import os, signal
def hold(pid, cause):
    with open(cause, "w") as gate:  # waits until somebody reads
        gate.write(str(os.getpid()))
    while True:
        signal.pause()
def crash(pid, cause):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def hooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mourners.py").write_text(HOOK)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_nothing_is_forked_without_a_hook() -> None:
    with failing(0, 0) as faults:
        mourning.Mourning(Config(), Log("test"), ()).call(4711, "exit code 0")
    assert "fork" not in faults.calls


def test_a_hook_that_takes_its_time_holds_nobody_up(hooks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on by itself, until graceful-timeout ends it; then it is reaped at the next death."""
    monkeypatch.setattr(mourning, "_MOMENT", 0.01)
    gate = hooks / "gate"
    os.mkfifo(gate)
    it = mourning.Mourning(Config(after_death="mourners:hold", graceful_timeout=0.5), Log("test"), ())
    it.call(4711, str(gate))
    with gate.open() as reading:
        pid = int(reading.readline())
    pidfd = os.pidfd_open(pid)
    assert select.select([pidfd], [], [], PATIENCE)[0]
    os.close(pidfd)
    it.call(4712, str(hooks / "nothing"))
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    _reap()


def test_a_hook_that_crashes(hooks: Path) -> None:
    started = time.monotonic()
    mourning.Mourning(Config(after_death="mourners:crash"), Log("test"), ()).call(4711, "exit code 0")
    assert time.monotonic() - started < PATIENCE
    _reap()


@pytest.mark.parametrize("call", ["pipe", "fork"])
def test_no_process_to_be_had(hooks: Path, capfd: pytest.CaptureFixture[str], call: str) -> None:
    with failing(1, 11, only=[call]):
        mourning.Mourning(Config(after_death="mourners:crash"), Log("test"), ()).call(4711, "exit code 0")
    assert "cannot call after-death for process 4711: " in capfd.readouterr().err


def _reap() -> None:
    """Wait for the child that is left."""
    assert os.waitpid(-1, 0)[0]
