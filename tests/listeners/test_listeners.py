"""Listeners are opened, kept at a reload, recovered and closed."""

from __future__ import annotations

import math
import os
import socket
from pathlib import Path

import pytest

from stardust.base.address import parse
from stardust.base.errors import ActivationError, ListenError
from stardust.listeners import listeners as listener
from stardust.listeners.listeners import Listener
from stardust.settings.table import Listen
from tests.listeners.given import at, config, leave_stale, listens, mode_of, open_one, reaches


def test_close_removes_the_own_file(path: str) -> None:
    (one,) = listener.open_all(config(at(path)), [], [])
    listener.close(one)
    assert not os.path.lexists(path)
    assert one.socket.fileno() == -1


def test_close_leaves_what_took_its_place(path: str) -> None:
    (one,) = listener.open_all(config(at(path)), [], [])
    os.unlink(path)
    leave_stale(path)
    listener.close(one)
    assert os.path.lexists(path)


def test_close_of_a_removed_file(path: str) -> None:
    (one,) = listener.open_all(config(at(path)), [], [])
    os.unlink(path)
    listener.close(one)


def test_a_failure_closes_what_was_opened_and_nothing_else(
    opened: list[Listener], path: str, tmp_path: Path
) -> None:
    kept = open_one(at("127.0.0.1:0", "kept"), opened)
    with socket.create_server(("127.0.0.1", 0)) as systemds:
        tables = (kept.table, Listen(name="web"), at(path), at(f"{tmp_path}/none/x.sock", "bad"))
        with pytest.raises(ListenError):
            listener.open_all(config(*tables), [(systemds.fileno(), "web")], [kept])
        assert listens(systemds)
    assert not os.path.lexists(path)
    assert listens(kept.socket)


def handed_over(address: str) -> int:
    """A listening descriptor as systemd would hand over."""
    if "/" in address:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(address)
    else:
        sock = socket.socket()
        sock.bind((address, 0))
    sock.listen()
    return sock.detach()


def test_inherited_sockets_are_systemds(path: str) -> None:
    fd = handed_over(path)
    duplicate = os.dup(fd)
    (one,) = listener.open_all(config(), [(fd, "web")], [])
    assert (one.name, one.address, one.inherited, one.file) == ("web", parse(path), True, None)
    assert not one.socket.getblocking()
    listener.close(one)
    assert reaches(path, socket.AF_UNIX), "systemd's duplicate goes on listening"
    os.close(duplicate)


def test_a_reload_keeps_inherited_and_bound_and_finds_what_is_left_over(
    opened: list[Listener], path: str
) -> None:
    inherited = [(handed_over("127.0.0.1"), "http")]
    first = listener.open_all(
        config(at("127.0.0.1:1"), at("127.0.0.1:0", "tcp"), at(path, "unix")), inherited, []
    )
    second = listener.open_all(config(Listen(name="http"), at("127.0.0.1:0", "renamed")), inherited, first)
    opened.extend(second)
    assert [one.name for one in second] == ["http", "renamed"]
    assert [one.socket for one in second] == [first[0].socket, first[1].socket]
    assert second[1].address == first[1].address, "port 0 stays the port it became"
    (left,) = listener.superseded(first, second)
    assert left.name == "unix"
    listener.close(left)
    assert not os.path.lexists(path)


def test_a_reload_applies_new_permissions(opened: list[Listener], path: str) -> None:
    one = open_one(at(path), opened)
    table = Listen(name="http", address=parse(path), mode=0o600)
    (again,) = listener.open_all(config(table), [], [one])
    assert again.socket is one.socket
    assert mode_of(path) == 0o600


def test_a_reload_binds_anew_what_lost_its_file(opened: list[Listener], path: str) -> None:
    one = open_one(at(path), opened)
    os.unlink(path)
    (again,) = listener.open_all(config(at(path)), [], [one])
    opened.append(again)
    assert again.socket is not one.socket
    assert reaches(path, socket.AF_UNIX)


def test_a_failed_reload_loses_nothing(opened: list[Listener]) -> None:
    inherited = [(handed_over("127.0.0.1"), "http")]
    (one,) = listener.open_all(config(Listen(name="http")), inherited, [])
    opened.append(one)
    with pytest.raises(ActivationError):
        listener.open_all(config(at("127.0.0.1:0", "other")), inherited, [one])
    assert listens(one.socket)


def test_s11_the_largest_backlog_is_the_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert listener.most_backlog() == int(Path("/proc/sys/net/core/somaxconn").read_text())
    monkeypatch.setattr(listener, "SOMAXCONN_FILE", str(tmp_path / "hidden"))
    assert listener.most_backlog() == math.inf
