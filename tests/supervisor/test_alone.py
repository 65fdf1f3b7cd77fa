"""One process that serves without a pool: what its interpreter is told. That it serves: tests/test_cli.py."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from stardust.base.address import Address
from stardust.ipc import messages
from stardust.ipc.channel import Channel, pair
from stardust.ipc.scoreboard import Scoreboard
from stardust.listeners.listeners import Listener
from stardust.logs.log import Log
from stardust.settings.table import Config, Listen
from stardust.supervisor import alone, processes
from stardust.systemd.notify import Notifier


class ReplacedError(Exception):
    """This process would be another now."""


def test_it_is_told_what_a_zygote_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    first: list[messages.ToZygote | None] = []
    ends = pair()
    board = Scoreboard.create()
    monkeypatch.setattr(alone, "pair", lambda: ends)
    monkeypatch.setattr(Scoreboard, "create", lambda: board)

    def replace(interpreter: str, environ: Mapping[str, str], waiting: socket.socket) -> None:
        assert interpreter == sys.executable
        assert environ["SHOP"] == "open"
        first.append(Channel(waiting, messages.ZYGOTE).receive())
        raise ReplacedError

    monkeypatch.setattr(processes, "replace_by_server", replace)
    monkeypatch.setenv("SHOP", "open")
    config = Config(app="shop", max_workers=0, idle_timeout=5, access_log=str(tmp_path / "access.log"))
    with (
        ends[0],
        ends[1],
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        socket.socket() as sock,
    ):
        manager.bind(str(tmp_path / "notify"))
        listener = Listener("http", sock, Address("tcp", "127.0.0.1", 80, ""), True, Listen("http"))
        notifier = Notifier(manager.getsockname())
        with pytest.raises(ReplacedError):
            alone.serve(config, [listener], notifier, Log("supervisor"))
        notifier.close()
        assert manager.recv(1000) == b"READY=1\nSTATUS=One process, no workers"
    [told] = first
    assert isinstance(told, messages.Generation)
    assert (told.number, told.link, told.shelf) == (1, None, None)
    assert [(each.name, each.own) for each in told.listeners] == [("http", False)]
    assert told.access_log is not None
    for descriptor in (board.descriptor, *messages.encode(told)[1]):
        os.close(descriptor)
    said = capfd.readouterr().err
    assert "idle-timeout = 5 has no effect with max-workers = 0" in said
    assert said.endswith("stardust: one process, no workers: http 127.0.0.1:80\n")
