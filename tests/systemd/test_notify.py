"""sd_notify(3): each message one datagram, nothing blocks, what is owed arrives in order."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stardust.base.errors import ActivationError
from stardust.systemd import notify
from stardust.systemd.notify import Notifier
from tests.descriptors import open_descriptors


class Manager:
    """The receiving end: the service manager's socket."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind(self.path)

    def messages(self) -> list[str]:
        found = []
        while True:
            try:
                found.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return found

    def fill(self) -> int:
        """Let others fill the queue to the brim; how many messages it took."""
        count = 0
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as other:
            while True:
                try:
                    other.sendto(b"X_OTHER=1", self.path)
                except BlockingIOError:
                    return count
                count += 1


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path / "notify")
    yield manager
    manager.socket.close()


@pytest.fixture
def notifier(manager: Manager) -> Iterator[Notifier]:
    notifier = Notifier.from_environ({"NOTIFY_SOCKET": manager.path})
    yield notifier
    notifier.close()


def waiting(notifier: Notifier) -> bool:
    """`pending`, asked anew: mypy takes a property that was once true to stay so."""
    return notifier.pending


def test_one_datagram_per_message(manager: Manager, notifier: Notifier) -> None:
    notifier.extend(15)
    notifier.ready("10 workers")
    notifier.watchdog()
    notifier.reloading(123_456_789)
    notifier.ready()
    notifier.stopping("draining")
    assert manager.messages() == [
        "EXTEND_TIMEOUT_USEC=15000000",
        "READY=1\nSTATUS=10 workers",
        "WATCHDOG=1",
        "RELOADING=1\nMONOTONIC_USEC=123456789",
        "READY=1",
        "STOPPING=1\nSTATUS=draining",
    ]
    assert not notifier.pending
    assert notifier.fault == ""


def test_abstract_socket() -> None:
    name = f"stardust-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as manager:
        manager.bind(b"\0" + name.encode())
        notifier = Notifier(f"@{name}")
        notifier.ready()
        notifier.close()
        assert manager.recv(100) == b"READY=1"


def test_status_only_when_it_changed(manager: Manager, notifier: Notifier) -> None:
    notifier.ready("up")
    for text in ("up", "busy", "busy", "", "up"):
        notifier.status(text)
    assert manager.messages() == ["READY=1\nSTATUS=up", "STATUS=busy", "STATUS=up"]


def test_full_queue_owes_states_in_order_and_the_newest_status(manager: Manager, notifier: Notifier) -> None:
    manager.fill()
    notifier.status("old")
    notifier.reloading(1, "reloading")
    notifier.status("half")
    notifier.ready("done")
    notifier.watchdog()
    notifier.extend(5)
    notifier.status("newer")
    notifier.status("newest")
    notifier.flush()
    assert waiting(notifier), "still full"
    assert set(manager.messages()) == {"X_OTHER=1"}
    notifier.flush()
    assert not waiting(notifier)
    assert manager.messages() == [
        "RELOADING=1\nMONOTONIC_USEC=1\nSTATUS=reloading",
        "READY=1\nSTATUS=done",
        "STATUS=newest",
    ]
    assert notifier.fault == ""


def test_a_descriptor_is_kept_and_released(manager: Manager, notifier: Notifier) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        where = listener.getsockname()
        notifier.keep(listener.fileno(), "bound-1")
    data, [descriptor], _, _ = socket.recv_fds(manager.socket, 4096, 2)
    assert data == b"FDSTORE=1\nFDNAME=bound-1"
    with socket.socket(fileno=descriptor) as kept:
        assert kept.getsockname() == where
    notifier.release("bound-1")
    assert manager.messages() == ["FDSTOREREMOVE=1\nFDNAME=bound-1"]


def test_a_descriptor_that_waits_for_room_outlives_its_socket(manager: Manager, notifier: Notifier) -> None:
    manager.fill()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        where = listener.getsockname()
        notifier.keep(listener.fileno(), "bound-1")
        notifier.release("bound-1")
    assert waiting(notifier)
    manager.messages()
    notifier.flush()
    assert not waiting(notifier)
    _, [descriptor], _, _ = socket.recv_fds(manager.socket, 4096, 2)
    with socket.socket(fileno=descriptor) as kept:
        assert kept.getsockname() == where
    assert manager.messages() == ["FDSTOREREMOVE=1\nFDNAME=bound-1"], "and in order"


def test_too_many_descriptors_under_way_is_no_fault(manager: Manager, notifier: Notifier) -> None:
    """unix(7), ETOOMANYREFS: like a queue that is full, it passes."""
    with socket.create_server(("127.0.0.1", 0)) as listener, mock.patch.object(notifier, "_socket") as full:
        full.sendmsg.side_effect = OSError(errno.ETOOMANYREFS, "Too many references")
        notifier.keep(listener.fileno(), "bound-1")
        assert waiting(notifier)
    notifier.flush()
    assert not waiting(notifier)
    assert notifier.fault == ""
    assert manager.messages() == ["FDSTORE=1\nFDNAME=bound-1"]


@pytest.mark.parametrize("reachable", [True, False])
def test_no_descriptor_is_left_behind(manager: Manager, reachable: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        before = open_descriptors()
        notifier = Notifier(manager.path if reachable else "")
        manager.fill()
        notifier.keep(listener.fileno(), "bound-1")
        assert waiting(notifier) == notifier.connected == reachable
        notifier.close()
        assert open_descriptors() == before


def test_the_next_message_flushes(manager: Manager, notifier: Notifier) -> None:
    manager.fill()
    notifier.stopping()
    manager.messages()
    notifier.watchdog()
    assert manager.messages() == ["STOPPING=1", "WATCHDOG=1"]


def test_status_that_went_back_to_what_was_said_is_not_due(manager: Manager, notifier: Notifier) -> None:
    notifier.status("idle")
    manager.fill()
    notifier.status("busy")
    notifier.status("idle")
    assert not notifier.pending


def test_vanished_socket_is_one_fault(manager: Manager, notifier: Notifier) -> None:
    os.unlink(manager.path)
    notifier.ready()
    assert notifier.fault == "cannot notify systemd: No such file or directory"
    assert not notifier.pending
    notifier.watchdog()
    assert notifier.fault == "cannot notify systemd: No such file or directory"


def test_survives_a_manager_that_binds_anew(manager: Manager, notifier: Notifier) -> None:
    os.unlink(manager.path)
    notifier.ready()
    again = Manager(Path(manager.path))
    notifier.stopping()
    assert again.messages() == ["STOPPING=1"]
    again.socket.close()


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}])
def test_inert_without_a_manager(environ: dict[str, str]) -> None:
    notifier = Notifier.from_environ(environ)
    notifier.ready("up")
    notifier.status("busy")
    notifier.watchdog()
    assert not notifier.pending
    assert notifier.fault == ""


def test_unknown_kind_of_address_is_a_fault() -> None:
    notifier = Notifier("vsock:2:1234")
    notifier.ready()
    assert notifier.fault == "NOTIFY_SOCKET=vsock:2:1234: must be an absolute path or an @abstract name"
    assert not notifier.pending


def test_closed_says_nothing(manager: Manager, notifier: Notifier) -> None:
    notifier.close()
    notifier.stopping()
    assert manager.messages() == []
    assert not notifier.pending


@pytest.mark.parametrize(
    ("text", "line"),
    [
        pytest.param("a\nb\r\n c\td", b"a b c d", id="folded"),
        pytest.param("x\nREADY=1", b"x READY=1", id="no second field"),
        pytest.param("\x1b[31mred", b"[31mred", id="no control characters"),
        pytest.param("é" * 600, "é".encode() * 512, id="cut at 1 KiB"),
        pytest.param("x" + "é" * 600, b"x" + "é".encode() * 511, id="cut between characters"),
        pytest.param("\udc80", b"", id="no lone surrogates"),
    ],
)
def test_one_line(text: str, line: bytes) -> None:
    assert notify.one_line(text) == line


@given(st.text())
def test_one_line_is_one_line_of_utf8(text: str) -> None:
    line = notify.one_line(text)
    assert len(line) <= notify.STATUS_BYTES
    assert line.decode().isprintable()
    assert notify.one_line(line.decode()) == line


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        pytest.param({}, None, id="off"),
        pytest.param({"WATCHDOG_USEC": "30000000"}, 30.0, id="for whoever asks"),
        pytest.param({"WATCHDOG_USEC": "2500000", "WATCHDOG_PID": "7"}, 2.5, id="for us"),
        pytest.param({"WATCHDOG_USEC": "2500000", "WATCHDOG_PID": "8"}, None, id="for another process"),
    ],
)
def test_watchdog_interval(environ: dict[str, str], seconds: float | None) -> None:
    assert notify.watchdog_interval(environ, 7) == seconds


@pytest.mark.parametrize("value", ["", "0", "-1", "soon", "1.5"])
def test_watchdog_interval_refuses(value: str) -> None:
    with pytest.raises(ActivationError, match=r"WATCHDOG_USEC=.*microseconds"):
        notify.watchdog_interval({"WATCHDOG_USEC": value}, 7)
