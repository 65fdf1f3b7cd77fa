"""The supervisor's side: one command a connection, nothing blocks, strangers are refused."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from stardust.base.errors import ControlError, ListenError
from stardust.control import server, trust
from stardust.control.server import Client, Control
from stardust.control.trust import Peer


@pytest.fixture
def pair() -> Iterator[tuple[Client, socket.socket]]:
    """The supervisor's end as a client object, the other end as a plain socket."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(10)
    client = Client(ours)
    yield client, theirs
    client.close()
    theirs.close()


def answers(theirs: socket.socket) -> list[object]:
    with theirs.makefile("rb") as lines:
        return [json.loads(line) for line in lines]


@pytest.mark.parametrize("command", server.COMMANDS)
def test_a_command(pair: tuple[Client, socket.socket], command: str) -> None:
    client, theirs = pair
    assert client.receive() is None
    theirs.sendall(json.dumps({"command": command}).encode() + b"\n")
    assert client.receive() == command
    assert client.receive() is None


def test_a_command_in_pieces(pair: tuple[Client, socket.socket]) -> None:
    client, theirs = pair
    for byte in b'{"command": "stop"}':
        theirs.sendall(bytes([byte]))
        assert client.receive() is None
    theirs.sendall(b"\n")
    assert client.receive() == "stop"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        pytest.param(b"reload\n", "one JSON object on one line", id="no JSON"),
        pytest.param(b"\xff\n", "one JSON object on one line", id="no UTF-8"),
        pytest.param(b"\n", "one JSON object on one line", id="an empty line"),
        pytest.param(b'"reload"\n', "unknown command null", id="no object"),
        pytest.param(
            b'{"command": "dance"}\n', 'unknown command "dance": must be one of reload', id="unknown"
        ),
        pytest.param(b'{"command": ["stop"]}\n', "unknown command", id="not a text"),
        pytest.param(b'{"command": "stop"}\n{"command": "stop"}\n', "only one command", id="two at once"),
    ],
)
def test_no_command(pair: tuple[Client, socket.socket], data: bytes, text: str) -> None:
    client, theirs = pair
    theirs.sendall(data)
    with pytest.raises(ControlError, match=text) as caught:
        client.receive()
    client.finish(False, str(caught.value))
    client.close()
    (answer,) = answers(theirs)
    assert isinstance(answer, dict)
    assert answer["reason"] == str(caught.value)


def test_a_second_command(pair: tuple[Client, socket.socket]) -> None:
    client, theirs = pair
    theirs.sendall(b'{"command": "stop"}\n')
    assert client.receive() == "stop"
    theirs.sendall(b"x")
    with pytest.raises(ControlError, match="only one command"):
        client.receive()


def test_a_command_without_an_end(pair: tuple[Client, socket.socket]) -> None:
    client, theirs = pair
    theirs.sendall(b"x" * (2 * server.COMMAND_BYTES))
    assert client.receive() is None
    with pytest.raises(ControlError, match="at most 4096 bytes"):
        client.receive()


def test_end_of_file_before_and_after_the_command(pair: tuple[Client, socket.socket]) -> None:
    client, theirs = pair
    theirs.sendall(b'{"command": "reload"}\n')
    theirs.close()
    assert client.receive() == "reload"
    with pytest.raises(ControlError, match="the client closed the connection"):
        client.receive()
    assert client.gone
    client.progress("nobody hears it")
    client.finish(True, "nor this")


def test_progress_and_verdict(pair: tuple[Client, socket.socket]) -> None:
    client, theirs = pair
    client.progress("worker 1 of 2 ready")
    client.finish(False, "it does not load", "Traceback …\nImportError", {"generation": 7})
    client.close()
    assert answers(theirs) == [
        {"progress": "worker 1 of 2 ready"},
        {
            "done": True,
            "ok": False,
            "reason": "it does not load",
            "detail": "Traceback …\nImportError",
            "data": {"generation": 7},
        },
    ]


def test_of_a_long_detail_the_end_is_sent(pair: tuple[Client, socket.socket]) -> None:
    client, theirs = pair
    client.finish(False, "failed", "x" * server.DETAIL_CHARACTERS + "the reason")
    client.close()
    (answer,) = answers(theirs)
    assert isinstance(answer, dict)
    assert len(answer["detail"]) == server.DETAIL_CHARACTERS
    assert answer["detail"].endswith("xthe reason")


def test_the_status_of_the_largest_pool_fits(pair: tuple[Client, socket.socket]) -> None:
    client, _ = pair
    client.finish(True, "", data=[{"request": "GET /" + "x" * 120, "number": n} for n in range(1000)])
    assert not client.gone


def test_a_client_that_does_not_read_is_dropped(pair: tuple[Client, socket.socket]) -> None:
    client, theirs = pair
    for _ in range(10_000):
        client.progress("x" * 1000)
        if client.gone:
            break
    assert client.gone
    client.finish(True, "not sent any more")
    theirs.settimeout(10)
    while theirs.recv(1 << 20):
        pass  # the end of file comes while our end is still open
    with pytest.raises(ControlError, match="closed the connection"):
        client.receive()


# ── The listening socket ──────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "stardust" / "control")


@pytest.fixture
def control(path: str) -> Iterator[Control]:
    control = Control.bind(path)
    yield control
    control.close()


def connect(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(10)
    sock.connect(path)
    return sock


def test_bind_is_for_the_owner_only_and_makes_the_directory(control: Control, path: str) -> None:
    assert stat.S_IMODE(os.lstat(path).st_mode) == 0o600
    assert os.listdir(os.path.dirname(path)) == ["control"]
    assert control.fileno() >= 0


def test_bind_does_not_make_a_whole_tree(tmp_path: Path) -> None:
    with pytest.raises(
        ListenError, match=f"control socket {tmp_path}/a/b/control: cannot make {tmp_path}/a/b: No"
    ):
        Control.bind(f"{tmp_path}/a/b/control")


def test_bind_replaces_a_stale_one(path: str) -> None:
    os.mkdir(os.path.dirname(path))
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)
    Control.bind(path).close()
    assert not os.path.lexists(path)


def test_bind_refuses_a_live_one(control: Control, path: str) -> None:
    with pytest.raises(ListenError, match=f"control socket {path}: another process listens there"):
        Control.bind(path)


def test_accept(control: Control, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "peer", lambda _: Peer(os.getpid(), 0))
    while control.accept() is not None:
        pass  # what looked whether somebody listens
    with connect(path) as theirs:
        client = control.accept()
        assert client is not None
        theirs.sendall(b'{"command": "status"}\n')
        assert client.receive() == "status"
        client.finish(True, "")
        client.close()
        assert len(answers(theirs)) == 1
    assert control.accept() is None


@pytest.mark.parametrize(
    ("uid", "reason"),
    [(4711, "user 4711 may not command a server of user 1000"), (1000, "belongs to the server")],
)
def test_accept_refuses_and_says_why(
    control: Control, path: str, monkeypatch: pytest.MonkeyPatch, uid: int, reason: str
) -> None:
    monkeypatch.setattr(trust, "peer", lambda _: Peer(os.getpid(), uid))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with connect(path) as theirs:
        with pytest.raises(ControlError, match=reason):
            control.accept()
        (answer,) = answers(theirs)
    assert isinstance(answer, dict)
    assert answer["ok"] is False
    assert reason in answer["reason"]
