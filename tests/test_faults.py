"""Faults of system calls reach real components, and are counted."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import h11
import pytest

from stardust.base import system
from stardust.base.address import TCP, Address
from stardust.base.errors import ControlError
from stardust.control.server import Client
from stardust.ipc import messages
from stardust.ipc.channel import Channel, pair
from stardust.ipc.handoff import Link, Passage
from stardust.ipc.scoreboard import Scoreboard
from stardust.logs import journal
from stardust.logs.log import Log
from stardust.logs.logfile import LogFile
from stardust.settings.table import Config
from stardust.supervisor import processes
from stardust.systemd.notify import Notifier
from stardust.worker.connection import Connection, Terms
from stardust.worker.outbox import MEMORY, Outbox
from stardust.worker.stream import Stream
from stardust.worker.threads import Pool
from tests.descriptors import open_descriptors
from tests.faults import failing
from tests.journald import Journal
from tests.worker.harness import INLINE, THREADS, Server, echo, request
from tests.worker.harness import Client as Visitor

PASSAGE = Passage(Address(TCP, "127.0.0.1", 80), "192.0.2.1", "4711", 1, 0.0, 1.0, b"")


def test_the_nth_call_fails_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"here")
    with failing(2, errno.EIO, only=["read_file"]) as faults:
        assert system.read_file(str(path)) == b"here"
        os.close(system.dup(1))  # is not counted
        with pytest.raises(OSError, match="Input/output error") as caught:
            system.read_file(str(path))
        assert caught.value.errno == errno.EIO
        assert system.read_file(str(path)) == b"here"
    assert faults.calls == ["read_file"] * 3
    assert faults.raised == "read_file"


def test_nothing_is_left_replaced() -> None:
    before = {name: getattr(system, name) for name in system.CALLS}
    with pytest.raises(ZeroDivisionError), failing(0, errno.EIO):
        raise ZeroDivisionError
    assert {name: getattr(system, name) for name in system.CALLS} == before


def test_a_name_that_is_no_call() -> None:
    with pytest.raises(AssertionError, match="no such call"), failing(1, errno.EIO, only=["forks"]):
        pass


def test_a_descriptor_is_closed_all_the_same() -> None:
    before = open_descriptors()
    with failing(1, errno.EIO, only=["close"]), pytest.raises(OSError, match="Input/output error"):
        system.close(os.dup(1))
    assert open_descriptors() == before


def test_methods_of_sockets_fail() -> None:
    """Those that were made by the seam, however."""
    with failing(2, errno.ECONNRESET, only=["recv"]) as faults:
        ours, theirs = system.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        bare = system.bare_socket(fileno=theirs.detach())
        bare.send(b"one")
        assert ours.recv(10) == b"one"
        with pytest.raises(ConnectionResetError):
            bare.recv(10)
        assert isinstance(ours, socket.socket)
        assert isinstance(bare, socket.SocketType)
        ours.close()
        bare.close()
    assert faults.calls == ["recv", "recv"]


def test_of_what_was_accepted_too(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with failing(3, errno.EPIPE, only=["connect", "accept", "send"]) as faults:
            client = system.new_socket(socket.AF_UNIX)
            system.connect(client, path)
            accepted, _ = system.accept(listener)
            with client, accepted, pytest.raises(BrokenPipeError):
                accepted.send(b"x")
    assert faults.calls == ["connect", "accept", "send"]


def test_waiting_fails() -> None:
    with failing(1, errno.EINTR, only=["poll_wait"]):
        poll = system.poll()
        poll.register(1)
        with pytest.raises(InterruptedError):
            poll.poll(0)


# --- real components -------------------------------------------------------------------------------------


def test_a_scoreboard_without_memory() -> None:
    before = open_descriptors()
    with failing(1, errno.ENFILE) as faults, pytest.raises(OSError, match="Too many open files in system"):
        Scoreboard.create()
    assert faults.raised == "memfd_create"
    assert open_descriptors() == before


def test_a_log_file_on_a_disk_that_is_full(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "access.log"
    file = LogFile(os.open(path, os.O_WRONLY | os.O_CREAT), Log("worker 1"))
    with failing(1, errno.ENOSPC, only=["write"]):
        file.add("lost")
        file.flush()
        assert file.dropped == 1
        file.add("there")
        file.close()
    assert path.read_text() == "there\n"
    said = capfd.readouterr().err
    assert "cannot write, lines are lost: No space left on device" in said
    assert "1 lines were lost: it could not be written" in said


@pytest.mark.parametrize("size", [1, 1_000_000], ids=["a datagram", "a memory file"])
def test_whatever_fails_a_record_leaves_nothing_behind(tmp_path: Path, size: int) -> None:
    """One call after the other, until there is none left that could fail."""
    journald = Journal(tmp_path / "socket")
    record = journal.encode({"MESSAGE": "x" * size})
    before = open_descriptors()
    failed: list[str] = []
    while True:
        with failing(len(failed) + 1, errno.ENOMEM) as faults:
            sent = journal.send(journald.path, record)
        assert open_descriptors() == before
        if not faults.raised:
            break
        failed.append(faults.raised)
    assert sent
    assert failed[:2] == ["new_socket", "sendmsg"]
    assert ("seal" in failed) == (size > 1)
    journald.close()


def test_a_manager_that_has_no_room(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        with failing(1, errno.ENOBUFS, only=["sendmsg"]):
            notifier = Notifier(str(tmp_path / "notify"))
            notifier.ready()
            assert notifier.pending
            notifier.flush()
        assert manager.recv(100) == b"READY=1"
        notifier.close()


def test_a_connection_stays_where_it_is() -> None:
    link = Link.create()
    with failing(1, errno.ETOOMANYREFS, only=["sendmsg"]):
        assert not link.give(1, PASSAGE)
        ours, theirs = socket.socketpair()
        assert link.give(ours.fileno(), PASSAGE)
    with failing(1, errno.EMFILE):
        with pytest.raises(OSError, match="Too many open files"):
            link.take()
        taken = link.take()
    assert taken is not None
    assert taken[1] == PASSAGE
    for sock in (taken[0], ours, theirs):
        sock.close()
    link.close()


def test_a_client_that_is_reset() -> None:
    with failing(1, errno.ECONNRESET, only=["recv"]):
        ours, theirs = system.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        client = Client(ours)
        with pytest.raises(ControlError, match="the client closed the connection: Connection reset by peer"):
            client.receive()
    client.close()
    theirs.close()


@pytest.mark.parametrize(
    ("fault", "raised"),
    [(errno.EPIPE, None), (errno.EAGAIN, None), (errno.EMSGSIZE, "Message too long")],
    ids=errno.errorcode.get,
)
def test_a_message_that_cannot_go(fault: int, raised: str | None) -> None:
    near, far = pair()
    ours, theirs = Channel(near, messages.SUPERVISOR_OF_WORKER), Channel(far, messages.WORKER)
    expected = contextlib.nullcontext() if raised is None else pytest.raises(OSError, match=raised)
    with failing(1, fault, only=["sendmsg"]) as faults, expected:
        assert not ours.send(messages.Ping())
    assert faults.raised == "sendmsg"
    assert ours.send(messages.Ping())
    assert theirs.receive() == messages.Ping()
    ours.close()
    theirs.close()


def test_a_zygote_that_cannot_be_started() -> None:
    before = open_descriptors()
    with failing(1, errno.ENOMEM, only=["posix_spawn"]), pytest.raises(OSError, match="Cannot allocate"):
        processes.start_zygote("/bin/true", {})
    assert open_descriptors() == before


def test_a_worker_without_a_pidfd() -> None:
    """As one that is gone."""
    with failing(1, errno.EMFILE, only=["pidfd_open"]):
        assert processes.open_pidfd(os.getpid(), os.getppid()) is None


def test_a_signal_to_who_has_ended() -> None:
    pidfd = os.pidfd_open(os.getpid())
    with failing(1, errno.ESRCH, only=["pidfd_send_signal"]) as faults:
        processes.signal_process(pidfd, 0)
    os.close(pidfd)
    assert faults.raised == "pidfd_send_signal"


# --- a worker --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [INLINE, THREADS], ids=["inline", "threads"])
@pytest.mark.parametrize("call", ["bare_accept", "recv", "send"])
def test_a_worker_goes_on(config: Config, call: str) -> None:
    """What fails for one connection is no reason to lose another. One that could not be accepted waits."""
    with failing(1, errno.ECONNABORTED, only=[call]) as faults, Server(echo, config) as server:
        with Visitor(server.address) as first:
            first.send(request("GET", "/first"))
            server.until(lambda loop: faults.raised)
            if call == "bare_accept":
                assert first.receive().body == b"GET /first\n"
            else:
                with pytest.raises((ConnectionError, h11.RemoteProtocolError)):
                    first.receive()
        with Visitor(server.address) as second:
            assert second.get("/second").body == b"GET /second\n"


def test_the_loop_waits_by_the_seam() -> None:
    only = ["epoll", "epoll_ctl", "epoll_wait"]
    with (
        failing(0, errno.EIO, only=only) as faults,
        Server(echo, INLINE) as server,
        Visitor(server.address) as client,
    ):
        assert client.get().status == 200
    assert faults.calls[0] == "epoll"
    assert {"epoll_ctl", "epoll_wait"} <= {*faults.calls}


def test_what_a_request_on_a_kept_connection_costs() -> None:
    """One call each; that to the access log is for all requests of a turn."""
    with failing(0, errno.EIO) as faults, Server(echo, INLINE) as server, Visitor(server.address) as client:
        client.get()
        before = len(faults.calls)
        for _ in range(10):
            client.get()
        made = faults.calls[before:]
    made = made[made.index("recv") :]
    assert made[:38] == (["recv", "send", "write", "epoll_wait"] * 10)[:38]


def test_what_cannot_be_kept_for_a_slow_reader() -> None:
    """A full disk; and nothing is left behind."""
    before = open_descriptors()
    outbox = Outbox()
    with failing(1, errno.ENOSPC, only=["write"]), pytest.raises(OSError, match="No space left on device"):
        outbox.push(bytes(MEMORY + 1))
    outbox.close()
    with failing(1, errno.EMFILE, only=["dup"]), pytest.raises(OSError, match="Too many open files"):
        outbox.push_file(1, 0, 1)
    assert open_descriptors() == before


@pytest.mark.parametrize("call", ["sendfile", "pread"])
def test_a_file_that_cannot_be_read(call: str) -> None:
    ours, theirs = socket.socketpair()
    secure = cast(Stream, SimpleNamespace(send=ours.send))  # of no type that the kernel could send to
    outbox = Outbox()
    with open(__file__, "rb") as file:
        outbox.push_file(file.fileno(), 0, 100)
    with failing(1, errno.EIO, only=[call]), pytest.raises(OSError, match="Input/output error"):
        outbox.flush(ours if call == "sendfile" else secure)
    outbox.close()
    ours.close()
    theirs.close()


def test_threads_without_a_pipe() -> None:
    with failing(1, errno.EMFILE, only=["pipe"]), pytest.raises(OSError, match="Too many open files"):
        Pool(1, print)


def test_a_connection_that_cannot_be_cut() -> None:
    """It is closed, at least."""
    with failing(1, errno.EINVAL, only=["setsockopt"]) as faults:
        ours, theirs = system.socketpair()
        connection = Connection(ours, ours.fileno(), Terms(PASSAGE.listener, 0, 1.0), {"REMOTE_ADDR": ""})
        connection.reset_on_close()
        connection.close()
    assert faults.raised == "setsockopt"
    assert theirs.recv(1) == b""
    theirs.close()
