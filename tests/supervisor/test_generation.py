"""Generations: what a zygote is told first, what decisions depend on, and how one is opened."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from stardust.base import process
from stardust.base.address import Address
from stardust.ipc import messages
from stardust.ipc.channel import Channel, pair
from stardust.ipc.handoff import Link
from stardust.ipc.scoreboard import Scoreboard
from stardust.listeners import listeners as listener
from stardust.listeners.listeners import Listener
from stardust.logs.log import Log, Sink
from stardust.settings.table import Config, Listen
from stardust.supervisor import vocabulary
from stardust.supervisor.generation import Generation
from stardust.supervisor.state import Policy
from stardust.zygote import main as zygote
from tests.supervisor.stage import Stage

# --- what a zygote is told first -------------------------------------------------------------------------


@pytest.mark.parametrize("logs", [False, True], ids=["no log", "log"])
@pytest.mark.parametrize("alone", [False, True], ids=["pool", "alone"])
def test_zygote_understands_its_first_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logs: bool, alone: bool
) -> None:
    monkeypatch.setattr(process, "name_process", lambda name, title: None)
    access_log = str(tmp_path / "access.log") if logs else ""
    config = Config(
        app="shop:application", max_workers=3, listen=(Listen("a"), Listen("b")), access_log=access_log
    )
    addresses = [Address("tcp", "127.0.0.1", 80, ""), Address("unix", "", 0, "/run/x.sock")]
    scoreboard = Scoreboard.create()
    links = (Link.create(), Link.create())
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix:
        listeners = [
            Listener(table.name, sock, where, inherited, table)
            for table, sock, where, inherited in zip(
                config.listen, [tcp, unix], addresses, [True, False], strict=True
            )
        ]
        generation = Generation(4, config, listeners)
        generation.open_request_log(Log("test"))
        message = generation.first_message(
            scoreboard, Sink("/journal", stamped=False), () if alone else links
        )
        ours, theirs = pair()
        with ours, theirs:
            assert Channel(ours, messages.SUPERVISOR_OF_ZYGOTE).send(message)
            order = Channel(theirs, messages.ZYGOTE).receive()
    assert isinstance(order, messages.Generation)
    heritage = zygote._inheritance(order)
    assert (heritage.generation, heritage.config, heritage.app) == (4, config, None)
    assert [(door.address, door.own) for door in heritage.doors] == [
        (addresses[0], False),
        (addresses[1], True),
    ]
    assert [door.socket.family for door in heritage.doors] == [socket.AF_INET, socket.AF_UNIX]
    assert heritage.log.sink == Sink("/journal", stamped=False)
    scoreboard.slot(7).born(4711, 4, 1.0)
    assert heritage.scoreboard.read(7).pid == 4711
    assert (heritage.log_descriptor is not None) == logs
    for ours_of_it, link in zip((heritage.link, heritage.shelf), links, strict=True):
        assert (ours_of_it is None) == alone
        link.nudge()
        if ours_of_it is not None:
            assert ours_of_it.take() is None
            ours_of_it.close()
        link.close()
    for door in heritage.doors:
        door.socket.close()
    if generation.requests is not None:
        generation.requests.close()
    for descriptor in (heritage.log_descriptor, scoreboard.descriptor, heritage.scoreboard.descriptor):
        if descriptor is not None:
            os.close(descriptor)


# --- what decisions depend on ---------------------------------------------------------------------------


def test_what_decisions_depend_on() -> None:
    config = Config(
        max_workers=3,
        spawn_interval=1,
        main_process_delay=2,
        boot_timeout=3,
        graceful_timeout=4,
        idle_timeout=5,
        store_connections=True,
    )
    assert Generation(1, config, []).policy == Policy(3, 1, 2, 3, 4, 5, store=True)


@pytest.mark.parametrize(
    ("inherited", "timeout"),
    [([], 5.0), ([True], 5.0), ([True, True], 5.0), ([True, False], 0.0), ([False], 0.0)],
    ids=str,
)
def test_idle_exit_only_where_systemd_listens(inherited: list[bool], timeout: float) -> None:
    with socket.socket() as sock:
        where = Address("tcp", "127.0.0.1", 80, "")
        listeners = [Listener("http", sock, where, each, Listen("http")) for each in inherited]
        generation = Generation(1, Config(idle_timeout=5), listeners)
        assert generation.policy.idle_timeout == timeout
        assert [each.inherited for each in generation.own_listeners] == [False] * inherited.count(False)


# --- opened --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wanted", "warned"), [(4096, False), (4097, True)])
def test_s11_a_backlog_that_the_kernel_cuts(
    stage: Callable[..., Stage],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wanted: int,
    warned: bool,
) -> None:
    (tmp_path / "somaxconn").write_text("4096\n")
    monkeypatch.setattr(listener, "SOMAXCONN_FILE", str(tmp_path / "somaxconn"))
    it = stage(backlog=wanted)
    it.settle()
    text = "warning: backlog = 4097, but the kernel allows only 4096 waiting connections"
    assert (text in it.log.read_text()) is warned


def test_reload_of_a_broken_file_starts_nothing(stage: Callable[..., Stage], tmp_path: Path) -> None:
    it = stage(max_workers=1)
    it.boot()
    (tmp_path / "stardust.toml").write_text('app = "shop"\nmax-workers = "many"\n')
    it.supervisor.see(vocabulary.ReloadAsked())
    it.settle()
    assert len(it.zygotes) == 1
    assert it.supervisor.state.serving == 1
    assert list(it.supervisor.generations.book) == [1]
    log = it.log.read_text()
    assert f"generation 2 failed: {tmp_path / 'stardust.toml'}:2: max-workers" in log
    assert "; generation 1 keeps serving" in log


def test_idle_timeout_without_systemd_is_warned_of(stage: Callable[..., Stage], tmp_path: Path) -> None:
    it = stage(idle_timeout=0.01)
    it.boot()
    assert it.supervisor.state.generations[1].policy.idle_timeout == 0
    where = f"systemd does not listen on http {tmp_path / 'http.sock'}"
    assert it.log.read_text().count(f"warning: idle-timeout = 0.01 has no effect: {where}") == 1
