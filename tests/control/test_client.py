"""The side of stardustctl: what it makes of whatever a server says, or does not say."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from stardust.base.errors import ControlError
from stardust.control import client
from stardust.control.client import Answer
from stardust.control.server import Client


def told(data: bytes) -> tuple[Answer, list[str]]:
    """What `ask` returns and reports when the server says `data` and leaves."""
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        progress: list[str] = []
        return client.ask(ours, "reload", progress.append), progress


def test_progress_then_the_verdict() -> None:
    answer, progress = told(
        b'{"progress": "one"}\n{"progress": "two"}\n{"done": true, "ok": true, "reason": "r", "data": [1]}\n'
    )
    assert answer == Answer(True, "r", "", [1])
    assert progress == ["one", "two"]


def test_a_refusal_with_its_detail() -> None:
    answer, _ = told(b'{"done": true, "ok": false, "reason": "no", "detail": "Traceback"}\n')
    assert answer == Answer(False, "no", "Traceback", None)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        pytest.param(b"", "closed the connection without an answer", id="nothing"),
        pytest.param(
            b'{"progress": "one"}\n', "closed the connection without an answer", id="died on the way"
        ),
        pytest.param(b'{"done": tr', "answer is incomplete", id="died while answering"),
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n", "or not from stardust", id="another protocol"),
        pytest.param(b"[]\n", "not a JSON object", id="not an object"),
    ],
)
def test_no_answer(data: bytes, text: str) -> None:
    with pytest.raises(ControlError, match=text):
        told(data)


def test_a_refusal_before_the_command_was_sent_is_still_read() -> None:
    ours, theirs = socket.socketpair()
    refusing = Client(theirs)
    refusing.finish(False, "not you")
    refusing.close()
    assert client.ask(ours, "stop", print).reason == "not you"


def test_a_server_that_dies_with_the_command_unread() -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(b'{"done": true, "ok": true}\n')
    ours.sendall(b"unread")
    theirs.close()
    assert client.ask(ours, "stop", print, until_gone=True).ok


def test_connect_takes_the_first_that_listens(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale, socket.socket(socket.AF_UNIX) as server:
        stale.bind(f"{tmp_path}/stale")
        server.bind(f"{tmp_path}/live")
        server.listen()
        with client.connect([f"{tmp_path}/none", f"{tmp_path}/stale", f"{tmp_path}/live"]) as sock:
            assert sock.getpeername() == f"{tmp_path}/live"


def test_connect_names_what_it_tried(tmp_path: Path) -> None:
    with pytest.raises(ControlError) as caught:
        client.connect([f"{tmp_path}/a", f"{tmp_path}/b"])
    assert str(caught.value) == f"no server listens at {tmp_path}/a or {tmp_path}/b"


@pytest.mark.parametrize("path", ["/" + "x" * 200, "/\0"])
def test_connect_to_what_is_no_address(path: str) -> None:
    with pytest.raises(ControlError):
        client.connect([path])


def test_nobody_but_the_server_is_believed(tmp_path: Path) -> None:
    path = str(tmp_path / "control")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        client.connect([path], os.getpid()).close()
        with pytest.raises(
            ControlError, match=f"process {os.getpid()} listens there, but the server is process 1"
        ):
            client.connect([path], 1)
