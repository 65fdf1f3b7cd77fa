"""What the supervisor says."""

from __future__ import annotations

import math
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stardust.ipc import messages
from stardust.logs import events
from stardust.supervisor import vocabulary
from tests.journald import Journal
from tests.supervisor.stage import Stage, booted


class TestEvents:
    """What is told of each, as fields: people read the message, programs these."""

    def test_started(self, stage: Callable[..., Stage], journald: Journal) -> None:
        booted(stage, journald)
        assert journald.expect("MESSAGE_ID", events.STARTED.id)["STARDUST_GENERATION"] == "1"

    def test_reload_failed(self, stage: Callable[..., Stage], journald: Journal, tmp_path: Path) -> None:
        it = booted(stage, journald)
        (tmp_path / "stardust.toml").write_text("max-workers = 'many'")
        it.supervisor.see(vocabulary.ReloadAsked())
        it.settle()
        assert journald.expect("MESSAGE_ID", events.RELOAD_FAILED.id)["STARDUST_GENERATION"] == "2"


# --- to systemd ------------------------------------------------------------------------------------------


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """Where systemd listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as manager:
        manager.bind(str(tmp_path / "notify"))
        yield manager


def told(manager: socket.socket) -> list[str]:
    """The messages since the last time, each by its first line."""
    lines = []
    while True:
        try:
            lines.append(manager.recv(4096).decode().partition("\n")[0])
        except BlockingIOError:
            return lines


def test_a_boot_that_takes_its_time_extends_the_limit(
    stage: Callable[..., Stage], manager: socket.socket
) -> None:
    it = stage(notify=manager.getsockname())
    it.settle()
    assert told(manager) == ["FDSTORE=1", "EXTEND_TIMEOUT_USEC=15000000"]
    it.settle()
    assert told(manager) == []
    it.supervisor.now += 5
    it.settle()
    assert told(manager) == ["EXTEND_TIMEOUT_USEC=15000000"]


def test_what_systemd_has_no_room_for_is_said_again(
    stage: Callable[..., Stage], manager: socket.socket
) -> None:
    it = stage(max_workers=1, notify=manager.getsockname())
    it.boot()
    while it.supervisor.settle() == math.inf:
        it.supervisor.notifier.reloading(0)
    assert it.supervisor.settle() == it.supervisor.now + 0.1
    told(manager)
    it.settle()
    assert told(manager)[0].startswith("RELOADING=1")


def test_signs_of_life(stage: Callable[..., Stage], manager: socket.socket) -> None:
    """While it boots, when it serves, and each third of the interval; not when no worker is alive."""
    it = stage(max_workers=1, notify=manager.getsockname(), watchdog=30.0)
    it.boot()
    said = told(manager)
    assert said.count("WATCHDOG=1") == 2
    assert said.index("WATCHDOG=1") < said.index("READY=1") < len(said) - 1 - said[::-1].index("WATCHDOG=1")
    assert it.workers[1].channel.receive() == messages.Ping()
    it.supervisor.now += 10
    it.settle()
    assert told(manager) == ["WATCHDOG=1"]
    it.supervisor.now += 100
    it.settle()
    assert told(manager) == []


# --- to stardustctl --------------------------------------------------------------------------------------


def test_status(stage: Callable[..., Stage], tmp_path: Path) -> None:
    it = stage(max_workers=1)
    status = it.supervisor.voice.status()
    assert (status["state"], status["listeners"]) == ("booting", [])
    it.boot()
    status = it.supervisor.voice.status()
    assert (status["state"], status["generation"], status["ready"]) == ("running", 1, 1)
    assert status["listeners"] == [{"name": "http", "address": str(tmp_path / "http.sock")}]
