"""Own listeners and systemd's store: what is given to keep, taken back, left alone, and taken up again."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from stardust.base.address import parse
from stardust.listeners.keeper import Keeper
from stardust.listeners.listeners import Listener
from stardust.settings.table import Config, Listen
from stardust.systemd.notify import Notifier


class Manager:
    """systemd's side: what was taken back, and the store."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.store: dict[str, int] = {}
        self.removed: list[str] = []
        self.notifiers: list[Notifier] = []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind(self.path)

    def listen(self) -> None:
        """Do what the messages say; until then they wait, as when systemd is busy."""
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(self.socket, 4096, 1)
            except BlockingIOError:
                return
            verb, name = data.decode().splitlines()
            name = name.removeprefix("FDNAME=")
            if verb == "FDSTORE=1":
                [self.store[name]] = descriptors
            else:
                assert verb == "FDSTOREREMOVE=1"
                self.removed.append(name)
                os.close(self.store.pop(name))

    def keeper(self) -> Keeper:
        """That of the next start, with all that is stored."""
        self.notifiers.append(Notifier(self.path))
        return Keeper(self.notifiers[-1], [(os.dup(fd), name) for name, fd in self.store.items()])


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path / "notify")
    yield manager
    manager.listen()
    manager.socket.close()
    for notifier in manager.notifiers:
        notifier.close()
    for descriptor in manager.store.values():
        os.close(descriptor)


def at(text: str, name: str = "http") -> Listen:
    return Listen(name=name, address=parse(text))


def config(*tables: Listen, ipv6: bool = True) -> Config:
    return Config(listen=tables, ipv6=ipv6, backlog=16)


def end(keeper: Keeper, listeners: list[Listener]) -> None:
    for each in listeners:
        keeper.spare(each)


def connects(where: tuple[str, int] | str | bytes) -> bool:
    family = socket.AF_INET if isinstance(where, tuple) else socket.AF_UNIX
    with socket.socket(family) as client:
        client.settimeout(5)
        return client.connect_ex(where) == 0


def inodes(listeners: list[Listener]) -> list[int]:
    return [os.fstat(each.socket.fileno()).st_ino for each in listeners]


def test_every_kind_is_taken_up_again(tmp_path: Path, manager: Manager) -> None:
    path, name = str(tmp_path / "http.sock"), f"stardust-test-{os.getpid()}"
    texts = ["127.0.0.1:0", "127.0.0.1:0", path, f"@{name}"]
    asked = config(*(at(text, f"table-{number}") for number, text in enumerate(texts)))
    keeper = manager.keeper()
    first = keeper.open(asked, [], [])
    sockets, told = inodes(first), [(each.name, each.address, each.label) for each in first]
    ports = [("127.0.0.1", each.address.port) for each in first[:2]]
    end(keeper, first)
    manager.listen()
    everywhere: list[tuple[str, int] | str | bytes] = [*ports, path, b"\0" + name.encode()]
    assert all(map(connects, everywhere)), "the store listens"
    for _ in range(2):
        keeper = manager.keeper()
        again = keeper.open(asked, [], [])
        assert inodes(again) == sockets
        assert [(each.name, each.address, each.label) for each in again] == told
        assert not any(each.inherited for each in again), "what queues there is served before it closes"
        end(keeper, again)
    manager.listen()
    assert manager.removed == []
    assert len(manager.store) == len(texts)


def test_new_settings_reach_a_socket_that_returns(tmp_path: Path, manager: Manager) -> None:
    path = str(tmp_path / "http.sock")
    keeper = manager.keeper()
    end(keeper, keeper.open(config(at(path)), [], []))
    manager.listen()
    keeper = manager.keeper()
    table = Listen(name="renamed", address=parse(path), mode=0o600)
    (again,) = keeper.open(config(table), [], [])
    assert (again.name, again.table, str(again.address)) == ("renamed", table, path)
    assert os.lstat(path).st_mode & 0o777 == 0o600
    keeper.close(again)


@pytest.mark.parametrize(
    ("before", "ipv6", "after", "ipv6_after"),
    [
        pytest.param(":0", True, ":0", False, id="the wildcard loses IPv6"),
        pytest.param(":0", False, ":0", True, id="the wildcard gets IPv6"),
        pytest.param("127.0.0.1:0", True, "127.0.0.2:0", True, id="another address"),
        pytest.param("127.0.0.1:0", True, "localhost:0", True, id="another name for it"),
    ],
)
def test_what_nobody_asks_for_now_is_closed(
    manager: Manager, before: str, ipv6: bool, after: str, ipv6_after: bool
) -> None:
    keeper = manager.keeper()
    (first,) = keeper.open(config(at(before), ipv6=ipv6), [], [])
    (family, where) = first.socket.family, first.socket.getsockname()
    end(keeper, [first])
    manager.listen()
    keeper = manager.keeper()
    (again,) = keeper.open(config(at(after), ipv6=ipv6_after), [], [])
    with socket.socket(family) as late:
        assert late.connect_ex(where) != 0, "at once, though systemd still has it"
    manager.listen()
    assert manager.removed == [first.label]
    assert [*manager.store] == [again.label]
    keeper.close(again)


def test_a_socket_whose_file_is_gone_is_bound_anew(tmp_path: Path, manager: Manager) -> None:
    """As in a runtime directory, which systemd removes between two runs."""
    path = str(tmp_path / "http.sock")
    keeper = manager.keeper()
    (first,) = keeper.open(config(at(path)), [], [])
    end(keeper, [first])
    manager.listen()
    os.unlink(path)
    keeper = manager.keeper()
    (again,) = keeper.open(config(at(path)), [], [])
    manager.listen()
    assert connects(path)
    assert manager.removed == [first.label]
    assert [*manager.store] == [again.label]
    keeper.close(again)
    assert not os.path.lexists(path)


def test_the_file_goes_with_what_nobody_asks_for(tmp_path: Path, manager: Manager) -> None:
    path = str(tmp_path / "http.sock")
    keeper = manager.keeper()
    end(keeper, keeper.open(config(at(path)), [], []))
    manager.listen()
    keeper = manager.keeper()
    end(keeper, keeper.open(config(at("127.0.0.1:0")), [], []))
    assert not os.path.lexists(path)


def test_a_socket_that_was_shut_down_is_bound_anew(manager: Manager) -> None:
    keeper = manager.keeper()
    (first,) = keeper.open(config(at("127.0.0.1:0")), [], [])
    first.socket.shutdown(socket.SHUT_RDWR)
    end(keeper, [first])
    manager.listen()
    keeper = manager.keeper()
    (again,) = keeper.open(config(at("127.0.0.1:0")), [], [])
    manager.listen()
    assert [*manager.store] == [again.label] != [first.label]
    keeper.close(again)


def test_the_address_of_what_is_closed_is_free_at_once(manager: Manager) -> None:
    keeper = manager.keeper()
    (first,) = keeper.open(config(at(":0")), [], [])
    manager.listen()
    keeper.close(first)
    (second,) = keeper.open(config(at(f"127.0.0.1:{first.address.port}")), [], [])
    assert connects(("127.0.0.1", first.address.port))
    keeper.close(second)
    manager.listen()
    assert manager.store == {}


def test_each_is_stored_once_and_inherited_ones_never(manager: Manager) -> None:
    keeper = manager.keeper()
    with socket.create_server(("127.0.0.1", 0)) as systemds:
        inherited = [(os.dup(systemds.fileno()), "http")]
        asked = config(Listen(name="http"), at("127.0.0.1:0", "own"))
        first = keeper.open(asked, inherited, [])
        again = keeper.open(asked, inherited, first)
        manager.listen()
        assert [*manager.store] == [again[1].label]
        for each in again:
            keeper.close(each)
        assert connects(systemds.getsockname()), "not shut down"


def test_without_a_manager_closing_is_all_there_is(tmp_path: Path) -> None:
    path = str(tmp_path / "http.sock")
    for let_go in (Keeper.close, Keeper.spare):
        keeper = Keeper(Notifier(""), [])
        (one,) = keeper.open(config(at(path)), [], [])
        let_go(keeper, one)
        assert one.socket.fileno() == -1
        assert not os.path.lexists(path)
