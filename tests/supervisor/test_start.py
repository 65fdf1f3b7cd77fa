"""The way in: what the supervisor is given of what systemd handed over."""

from __future__ import annotations

import faulthandler
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from stardust.base import process
from stardust.base.errors import Exit
from stardust.config.arguments import parse_arguments
from stardust.config.reading import read
from stardust.listeners import listeners as listening
from stardust.listeners.listeners import Listener
from stardust.supervisor import alone, start
from stardust.supervisor.host import Surroundings
from stardust.supervisor.shell import Supervisor
from stardust.systemd import activation, store
from stardust.systemd.notify import Notifier
from stardust.systemd.store import CONNECTION, TABLE

HANDED = [(3, "http"), (4, CONNECTION), (5, "bound-1-x"), (6, TABLE)]


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Surroundings]]:
    """What each supervisor was given; none of them runs."""
    found: list[Surroundings] = []

    class Witness(Supervisor):
        def __init__(self, given: Surroundings) -> None:
            found.append(given)

        def run(self) -> Exit:
            return Exit.FAILURE

    monkeypatch.setattr(start, "Supervisor", Witness)
    monkeypatch.setattr(faulthandler, "enable", lambda: None)
    monkeypatch.setattr(process, "raise_descriptor_limit", lambda: 1024)
    monkeypatch.setattr(activation, "inherited", lambda environ, pid: HANDED)
    monkeypatch.setattr(activation, "stored", lambda handed: HANDED[2:3])
    monkeypatch.setattr(activation, "parked", lambda handed: [HANDED[1], HANDED[3]])
    environ = {"LISTEN_FDS": "4", "WATCHDOG_USEC": "30000000", "SHOP": "open"}
    monkeypatch.setattr(os, "environ", environ)
    yield found
    for each in found:
        if each.control is not None:
            each.control.close()


def run(directory: Path, *arguments: str, notifier: Notifier | None = None) -> int:
    parsed = parse_arguments(["shop", "--control-socket", str(directory / "control"), *arguments])
    return start.run(parsed, read(parsed, {}).config, notifier or Notifier())


def test_what_it_is_given(given: list[Surroundings], tmp_path: Path) -> None:
    assert run(tmp_path) == Exit.FAILURE
    [it] = given
    assert (it.inherited, it.stored, it.parked) == (HANDED[:1], HANDED[2:3], [HANDED[1], HANDED[3]])
    assert (it.watchdog, it.room) == (30.0, store.room(1024))
    assert it.environ["SHOP"] == "open"
    assert not {"LISTEN_FDS", "WATCHDOG_USEC"} & it.environ.keys()
    assert it.control is not None
    assert it.control.path == str(tmp_path / "control")


def test_a_notify_socket_that_is_none_is_told_of(
    given: list[Surroundings], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, notifier=Notifier("vsock:2:1"))
    assert "NOTIFY_SOCKET=vsock:2:1: must be an absolute path" in capfd.readouterr().err


def test_without_workers_it_serves_alone(
    given: list[Surroundings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And gives back what an earlier run with workers had left."""
    served: list[str] = []

    def serve(config: object, listeners: list[Listener], notifier: object, log: object) -> None:
        for each in listeners:
            served.append(str(each.address))
            listening.close(each)
        raise SystemExit(7)

    monkeypatch.setattr(alone, "serve", serve)
    monkeypatch.setattr(activation, "inherited", lambda environ, pid: [])
    monkeypatch.setattr(activation, "stored", lambda handed: [])
    left, other = socket.socketpair()
    monkeypatch.setattr(activation, "parked", lambda handed: [(os.dup(left.fileno()), CONNECTION)])
    with left, other:
        with pytest.raises(SystemExit):
            run(tmp_path, "--max-workers", "0", "--socket", str(tmp_path / "http"))
        left.close()
        assert other.recv(1) == b""
    assert given == []
    assert served == [str(tmp_path / "http")]
