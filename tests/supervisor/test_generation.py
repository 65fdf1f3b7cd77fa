"""What belongs to a generation: what its zygote is told first, and its access log."""

from __future__ import annotations

import math
import os
import socket
import stat
from pathlib import Path

import pytest

from stardust.base import system
from stardust.base.address import Address
from stardust.ipc.channel import Channel, pair
from stardust.ipc.handoff import Link
from stardust.ipc.scoreboard import BUSY, Entry, Scoreboard
from stardust.listeners.listeners import Listener
from stardust.logs.log import Log, Sink
from stardust.settings.table import Config, Listen
from stardust.supervisor.generation import Generation, RequestLog, open_request_log
from stardust.supervisor.state import Policy
from stardust.zygote import main as zygote

# --- what a zygote is told first -------------------------------------------------------------------------


@pytest.mark.parametrize("logs", [False, True], ids=["no log", "log"])
@pytest.mark.parametrize("alone", [False, True], ids=["pool", "alone"])
def test_zygote_understands_its_first_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logs: bool, alone: bool
) -> None:
    monkeypatch.setattr(system, "name_process", lambda name, title: None)
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
        content, descriptors = generation.first_message(
            scoreboard, Sink("/journal", stamped=False), () if alone else links
        )
        ours, theirs = pair()
        with ours, theirs:
            assert Channel(ours).send("generation", content, descriptors)
            order = Channel(theirs).receive()
    assert order is not None
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


# --- the access log --------------------------------------------------------------------------------------


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


def test_what_decisions_depend_on() -> None:
    config = Config(
        max_workers=3,
        spawn_interval=1,
        main_process_delay=2,
        boot_timeout=3,
        graceful_timeout=4,
        idle_timeout=5,
    )
    assert Generation(1, config, []).policy == Policy(3, 1, 2, 3, 4, 5)


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


def test_a_zygote_that_owes_is_deaf_after_the_time_for_a_boot() -> None:
    """The oldest debt counts; without one, it may be silent for ever."""
    generation = Generation(1, Config(boot_timeout=60), [])
    assert generation.deaf_at == math.inf
    generation.owes |= {1: 30.0, 2: 10.0}
    assert generation.deaf_at == 70.0
    del generation.owes[2]
    assert generation.deaf_at == 90.0


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
