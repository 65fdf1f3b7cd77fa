"""Idle connections on their way to systemd and back: what is said of them, what is believed, what waits."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stardust.base.address import Address
from stardust.base.errors import Exit
from stardust.ipc.handoff import Link, Passage
from stardust.logs.log import Log
from stardust.supervisor import vocabulary
from stardust.supervisor.crossing import Crossing, Leg
from stardust.supervisor.custody import Custody, entries, entry
from stardust.systemd.notify import Notifier
from stardust.systemd.store import CONNECTION, TABLE
from tests.descriptors import open_descriptors
from tests.supervisor.stage import Stage

HERE = Address("tcp", "127.0.0.1", 8000)
PASSAGE = Passage(HERE, "192.0.2.1", "4711", 3, 0.0, 11.25, b"")
NOW = 5000.0
ENOUGH = 1000  # more than any socket takes

passages = st.builds(
    PASSAGE._replace,
    host=st.ip_addresses().map(str),
    port=st.integers(0, 65535).map(str),
    requests=st.integers(0, 2**32 - 1),
    since=st.floats(0, 1e12),
)
tables = st.dictionaries(st.integers(0, 2**64 - 1), passages, max_size=5)


# --- the table ---------------------------------------------------------------------------------------------


@given(tables)
def test_what_is_read_is_what_was_written(known: dict[int, Passage]) -> None:
    assert entries(b"".join(entry(*each) for each in known.items())) == known


@given(tables, st.data())
def test_of_a_part_the_entries_that_are_whole(known: dict[int, Passage], data: st.DataObject) -> None:
    whole = [entry(*each) for each in known.items()]
    count = data.draw(st.integers(0, len(whole)))
    rest = (
        b"".join(whole[count:])[: data.draw(st.integers(0, len(whole[count]) - 1))] if whole[count:] else b""
    )
    assert entries(b"".join(whole[:count]) + rest) == dict([*known.items()][:count])


@given(st.binary(max_size=300))
def test_any_bytes_are_a_table(table: bytes) -> None:
    entries(table)


def test_an_entry_of_another_version_is_left_out() -> None:
    """It may be of a later one, which was replaced by this."""
    later = entry(2, PASSAGE).replace(b"c1", b"c9")
    assert entries(entry(1, PASSAGE) + later + entry(3, PASSAGE)) == {1: PASSAGE, 3: PASSAGE}


# --- there and back ----------------------------------------------------------------------------------------


class Run:
    """A server's custody, and what workers and systemd have of it."""

    def __init__(self, directory: Path, returned: list[tuple[int, str]], room: int = ENOUGH) -> None:
        self.path = directory / f"notify-{len(os.listdir(directory))}"
        self.systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.systemd.bind(str(self.path))
        self.notifier = Notifier(str(self.path))
        self.log = directory / "log"
        self.log_descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT)
        log = Log("supervisor", descriptor=self.log_descriptor)
        self.custody = Custody(self.notifier, returned, room, log)
        self.link = Link.create()
        self.stored: list[tuple[int, str]] = []
        self.removed: set[str] = set()

    def close(self) -> None:
        self.custody.close()
        self.notifier.close()
        self.systemd.close()
        self.link.close()
        os.close(self.log_descriptor)

    def put(self, sock: socket.socket, passage: Passage = PASSAGE) -> None:
        """What a worker does with a connection."""
        with sock:
            assert self.custody.shelf.give(sock.fileno(), passage)

    def hear(self) -> None:
        """What systemd does with the messages that came."""
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(self.systemd, 4096, 1)
            except BlockingIOError:
                return
            verb, name = data.decode().splitlines()
            if verb == "FDSTORE=1":
                self.stored.append((descriptors[0], name.removeprefix("FDNAME=")))
            else:
                assert verb == "FDSTOREREMOVE=1"
                self.removed.add(name.removeprefix("FDNAME="))

    def store_all(self) -> list[tuple[int, str]]:
        """What systemd has, when all that is on the shelf has gone there."""
        while not self.custody.collect(self.custody.shelf):
            self.hear()
            self.notifier.flush()
        self.hear()
        return self.stored


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


@pytest.fixture
def first(directory: Path) -> Iterator[Run]:
    """A run that stops."""
    run = Run(directory, [])
    run.custody.open()
    yield run
    run.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client and its connection."""
    client, server = socket.socketpair()
    client.settimeout(20)
    with client, server:
        yield client, server


def again(first: Run, directory: Path) -> Run:
    """The next run, with all that systemd has."""
    return Run(directory, first.store_all())


def test_a_connection_goes_to_a_worker_of_the_next_run(
    first: Run, directory: Path, pair: tuple[socket.socket, socket.socket]
) -> None:
    client, server = pair
    first.put(server)
    next_run = again(first, directory)
    assert sorted(name for _, name in first.stored) == [CONNECTION, TABLE]
    assert first.custody.stored == 1
    assert next_run.custody.take_up([HERE], NOW) == 1
    next_run.hear()
    assert next_run.removed == {CONNECTION, TABLE}
    assert next_run.custody.hand_on(next_run.link)
    taken = next_run.link.take()
    assert taken is not None
    assert taken[1] == PASSAGE._replace(since=NOW)
    taken[0].send(b"hello")
    taken[0].close()
    assert client.recv(10) == b"hello"
    assert client.recv(10) == b"", "nobody else holds it"
    assert next_run.custody.take_up([HERE], NOW) == 0, "once"
    next_run.close()


def test_a_connection_blocks_again(
    first: Run, directory: Path, pair: tuple[socket.socket, socket.socket]
) -> None:
    """As all connections do here, whatever the unit says."""
    first.put(pair[1])
    next_run = again(first, directory)
    for fd, _ in first.stored:
        os.set_blocking(fd, False)
    next_run.custody.take_up([HERE], NOW)
    [held] = next_run.custody._held
    assert os.get_blocking(held.socket.fileno())
    next_run.close()


@pytest.mark.parametrize("why", ["another listener", "no entry", "no table"])
def test_what_is_not_known_is_closed(
    first: Run, directory: Path, pair: tuple[socket.socket, socket.socket], why: str
) -> None:
    client, server = pair
    first.put(
        server, PASSAGE._replace(listener=HERE._replace(port=1)) if why == "another listener" else PASSAGE
    )
    returned = first.store_all()
    if why != "another listener":
        fd = next(fd for fd, name in returned if name == TABLE)
        os.ftruncate(fd, 0)
        if why == "no table":
            os.close(fd)
            returned = [each for each in returned if each[1] == CONNECTION]
    next_run = Run(directory, returned)
    assert next_run.custody.take_up([HERE], NOW) == 0
    next_run.hear()
    assert next_run.removed == {name for _, name in returned}
    assert client.recv(10) == b""
    next_run.close()


def test_nothing_is_said_when_nothing_was_stored(directory: Path) -> None:
    run = Run(directory, [])
    assert run.custody.take_up([HERE], NOW) == 0
    assert run.custody.hand_on(run.link)
    run.hear()
    assert run.removed == set()
    run.close()


def test_no_faster_than_systemd(first: Run) -> None:
    """What it has no room for waits on the shelf, and no descriptor is spent on it here."""
    first.custody.collect(first.custody.shelf)
    clients = []
    before = len(open_descriptors())
    for _ in range(ENOUGH):
        client, server = socket.socketpair()
        with server:
            given = first.custody.shelf.give(server.fileno(), PASSAGE)
        if not given:
            client.close()
            break
        clients.append(client)
        first.custody.collect(first.custody.shelf)
    assert not given, "the shelf is full"
    assert first.notifier.pending
    assert len(open_descriptors()) == before + len(clients) + 1, "the one that is offered"
    first.store_all()
    assert [name for _, name in first.stored] == [TABLE, *[CONNECTION] * len(clients)]
    for each in clients:
        each.close()
    for fd, _ in first.stored:
        os.close(fd)


def test_no_faster_than_the_workers(
    first: Run, directory: Path, pair: tuple[socket.socket, socket.socket]
) -> None:
    """And what they had no room for is stored again by a stop."""
    client, server = pair
    first.put(server)
    next_run = again(first, directory)
    next_run.custody.take_up([HERE], NOW)
    while next_run.link.give(client.fileno(), PASSAGE):
        pass
    assert not next_run.custody.hand_on(next_run.link)
    next_run.hear()
    next_run.custody.open()
    assert sorted(name for _, name in next_run.store_all()) == [CONNECTION, TABLE]
    third = again(next_run, directory)
    assert third.custody.take_up([HERE], NOW) == 1
    third.close()
    next_run.close()


def test_a_connection_with_a_request_is_not_stored(
    first: Run, pair: tuple[socket.socket, socket.socket]
) -> None:
    """No worker puts one there that is in its senses."""
    client, server = pair
    first.put(server, PASSAGE._replace(data=b"GET"))
    assert [name for _, name in first.store_all()] == [TABLE]
    assert client.recv(10) == b""
    os.close(first.stored[0][0])


def test_what_is_no_connection(first: Run) -> None:
    with open(os.devnull) as null:
        assert first.custody.shelf.give(null.fileno(), PASSAGE)
    first.custody.shelf.nudge()
    assert [name for _, name in first.store_all()] == [TABLE]
    assert "a worker sent an invalid connection" in first.log.read_text()
    os.close(first.stored[0][0])


def test_who_never_ends_is_not_listened_to_for_ever(first: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Link, "take", lambda link: None)
    assert not first.custody.collect(first.custody.shelf)


def test_not_more_than_the_next_run_can_be_given(directory: Path) -> None:
    first = Run(directory, [], room=2)
    first.custody.open()
    pairs = [socket.socketpair() for _ in range(3)]
    for _, server in pairs:
        first.put(server)
    assert [name for _, name in first.store_all()] == [TABLE, CONNECTION, CONNECTION]
    assert (first.custody.stored, first.custody.surplus) == (2, 1)
    assert pairs[2][0].recv(10) == b""
    for client, _ in pairs:
        client.close()
    for fd, _ in first.stored:
        os.close(fd)
    first.close()


def test_nothing_is_left_open(directory: Path) -> None:
    """By a run that stored some, and one that took them up and had no time for them."""
    before = open_descriptors()
    first = Run(directory, [])
    first.custody.open()
    pairs = [socket.socketpair() for _ in range(3)]
    for client, server in pairs:
        first.put(server)
        client.close()
    next_run = again(first, directory)
    assert next_run.custody.take_up([HERE], NOW) == 3
    first.close()
    next_run.close()
    assert open_descriptors() == before


# --- as it is decided --------------------------------------------------------------------------------------


@pytest.mark.parametrize("systemd", ["takes them at last", "never takes them"])
def test_connections_to_be_stored_hold_the_end_up(
    stage: Callable[..., Stage], tmp_path: Path, systemd: str
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as manager:
        manager.bind(str(tmp_path / "notify"))
        it = stage(max_workers=1, store_connections=True, notify=manager.getsockname())
        supervisor = it.supervisor
        it.boot()
        other = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        with other, contextlib.suppress(BlockingIOError):
            while other.sendto(b"X_OTHER=1", manager.getsockname()):
                pass
        supervisor.see(vocabulary.StopAsked())
        it.settle()
        assert supervisor.scoreboard.storing
        os.kill(it.workers[1].pid, signal.SIGKILL)
        it.until(lambda: not supervisor.state.workers)
        it.until(lambda: not supervisor.state.generations)
        assert supervisor.state.crossing.leg is Leg.LAST
        assert supervisor.exit is None
        if systemd == "never takes them":
            supervisor.now = supervisor.state.crossing.until
        else:
            with contextlib.suppress(BlockingIOError):
                while manager.recv(100):
                    pass
            supervisor.now = supervisor.state.crossing.again
        it.settle()
        assert supervisor.exit is Exit.OK


def test_what_lies_on_the_shelf_is_collected_when_it_comes(
    stage: Callable[..., Stage], tmp_path: Path, pair: tuple[socket.socket, socket.socket]
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as manager:
        manager.bind(str(tmp_path / "notify"))
        it = stage(max_workers=1, store_connections=True, notify=manager.getsockname())
        custody = it.supervisor.porter._custody
        it.boot()
        it.supervisor.see(vocabulary.StopAsked())
        it.settle()
        assert it.supervisor.state.crossing == Crossing(Leg.STORING)
        custody.shelf.give(pair[1].fileno(), PASSAGE)
        it.until(lambda: custody.stored == 1)
        assert it.supervisor.state.crossing == Crossing(Leg.STORING)


def test_where_no_memory_is_to_be_had_nothing_is_stored(
    stage: Callable[..., Stage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as manager:
        manager.bind(str(tmp_path / "notify"))
        it = stage(max_workers=1, store_connections=True, notify=manager.getsockname())
        it.boot()

        def refuse() -> None:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        monkeypatch.setattr(it.supervisor.porter._custody, "open", refuse)
        it.supervisor.see(vocabulary.StopAsked())
        it.settle()
        assert not it.supervisor.scoreboard.storing
        assert it.supervisor.state.crossing == Crossing()
        assert "cannot store idle connections for the next start: Too many open files" in it.log.read_text()


@pytest.mark.parametrize("notify", [False, True], ids=["nobody keeps them", "not wanted"])
def test_nothing_is_stored_where_nobody_keeps_it_or_nobody_wants_it(
    stage: Callable[..., Stage], tmp_path: Path, notify: bool
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as manager:
        manager.bind(str(tmp_path / "notify"))
        name = manager.getsockname() if notify else ""
        it = stage(max_workers=1, store_connections=not notify, notify=name)
        it.boot()
        it.supervisor.see(vocabulary.StopAsked())
        it.settle()
        assert it.supervisor.state.crossing == Crossing()
        assert not it.supervisor.scoreboard.storing
