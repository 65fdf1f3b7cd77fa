"""What stands at an address before, while and after we listen there."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from stardust.base import system
from stardust.base.address import parse
from stardust.listeners import binding
from stardust.listeners import listeners as listener
from stardust.listeners.listeners import Listener
from stardust.settings.table import Listen
from tests.listeners.given import at, failure, leave_stale, mode_of, open_one, reaches


def test_tcp(opened: list[Listener]) -> None:
    one = open_one(at("127.0.0.1:0"), opened)
    assert one.address.host == "127.0.0.1"
    assert one.address.port == one.socket.getsockname()[1] != 0
    assert one.name == "http"
    assert not one.inherited
    assert not one.socket.getblocking()
    assert not one.socket.get_inheritable()
    assert one.socket.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
    assert reaches(("127.0.0.1", one.address.port))


def test_accepted_sockets_have_no_delay(opened: list[Listener]) -> None:
    one = open_one(at("127.0.0.1:0"), opened)
    with socket.create_connection(("127.0.0.1", one.address.port), timeout=5) as client:
        client.send(b"x")
        one.socket.settimeout(5)
        accepted, _ = one.socket.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_nobody_is_woken_for_a_client_that_says_nothing(opened: list[Listener]) -> None:
    one = open_one(at("127.0.0.1:0"), opened)
    with socket.create_connection(("127.0.0.1", one.address.port), timeout=5) as client:
        with pytest.raises(BlockingIOError):
            one.socket.accept()
        client.send(b"x")
        one.socket.settimeout(5)
        accepted, _ = one.socket.accept()
        with accepted:
            assert accepted.recv(2, socket.MSG_DONTWAIT) == b"x"


def test_wildcard_is_dual_stack(opened: list[Listener]) -> None:
    one = open_one(at(":0"), opened)
    assert str(one.address) == f":{one.address.port}"
    assert reaches(("127.0.0.1", one.address.port))
    assert reaches(("::1", one.address.port), socket.AF_INET6)


def test_wildcard_without_ipv6_is_really_without(opened: list[Listener]) -> None:
    one = open_one(at(":0"), opened, ipv6=False)
    assert one.socket.family == socket.AF_INET
    assert reaches(("127.0.0.1", one.address.port))
    assert not reaches(("::1", one.address.port), socket.AF_INET6)


@pytest.mark.parametrize("host", ["[::]", "[::1]"])
def test_an_ipv6_address_is_ipv6_only(opened: list[Listener], host: str) -> None:
    one = open_one(at(f"{host}:0"), opened)
    assert one.socket.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    assert reaches(("::1", one.address.port), socket.AF_INET6)
    assert not reaches(("127.0.0.1", one.address.port))


def test_wildcard_falls_back_on_a_kernel_without_ipv6(
    opened: list[Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.socket

    def without_ipv6(family: int = -1, *rest: int, **named: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return real(family, *rest, **named)

    monkeypatch.setattr(system, "new_socket", without_ipv6)
    one = open_one(at(":0"), opened)
    monkeypatch.undo()
    assert one.socket.family == socket.AF_INET


def test_host_names_are_resolved(opened: list[Listener]) -> None:
    one = open_one(at("localhost:0"), opened)
    assert one.address.host == "localhost"
    assert one.socket.getsockname()[0] in ("127.0.0.1", "::1")


def test_abstract_has_no_file(opened: list[Listener], tmp_path: Path) -> None:
    name = f"stardust-test-{os.getpid()}"
    one = open_one(at(f"@{name}"), opened)
    assert one.file is None
    assert listener.address_of(one.socket) == one.address
    assert reaches(b"\0" + name.encode(), socket.AF_UNIX)


def test_unix_default_mode_is_for_owner_and_group(opened: list[Listener], path: str) -> None:
    before = os.umask(0o077)
    try:
        one = open_one(at(path), opened)
        assert os.umask(0o077) == 0o077, "the umask is as before"
    finally:
        os.umask(before)
    assert mode_of(path) == 0o660
    assert str(one.address) == path
    assert reaches(path, socket.AF_UNIX)
    assert os.listdir(os.path.dirname(path)) == ["app.sock"]


def test_unix_mode_owner_and_group(opened: list[Listener], path: str) -> None:
    uid, gid = os.geteuid(), os.getegid()
    table = Listen(name="http", address=parse(path), mode=0o606, owner=str(uid), group=str(gid))
    open_one(table, opened)
    assert mode_of(path) == 0o606
    assert (os.lstat(path).st_uid, os.lstat(path).st_gid) == (uid, gid)


def test_unix_is_complete_when_it_appears(
    opened: list[Listener], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[tuple[int, int]] = []
    rename, chmod = os.rename, os.chmod

    def watched_chmod(temporary: str, mode: int) -> None:
        modes.append((mode_of(temporary), mode))
        chmod(temporary, mode)

    def watched_rename(temporary: str, final: str) -> None:
        assert not os.path.lexists(final)
        assert mode_of(temporary) == 0o660
        assert reaches(temporary, socket.AF_UNIX), "it listens already"
        rename(temporary, final)

    monkeypatch.setattr(system, "chmod", watched_chmod)
    monkeypatch.setattr(system, "rename", watched_rename)
    open_one(at(path), opened)
    assert modes == [(0o600, 0o660)]


def test_unix_stale_is_replaced(opened: list[Listener], path: str) -> None:
    leave_stale(path)
    open_one(at(path), opened)
    assert reaches(path, socket.AF_UNIX)


def test_unix_stale_temporary_is_replaced_too(opened: list[Listener], path: str) -> None:
    leave_stale(f"{path}.{os.getpid():x}")
    open_one(at(path), opened)
    assert os.listdir(os.path.dirname(path)) == ["app.sock"]


def test_unix_live_is_refused(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()
        assert failure(at(path)) == f"[listen.http] {path}: another process listens there"
        assert reaches(path, socket.AF_UNIX)


def test_unix_live_with_a_full_backlog_is_refused(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX) as waiting:
        other.bind(path)
        other.listen(0)
        waiting.connect(path)
        assert failure(at(path)) == f"[listen.http] {path}: another process listens there"


def test_unix_datagram_socket_is_refused(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(path)
        assert "cannot tell whether another process listens there" in failure(at(path))


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_unix_what_is_no_socket_stays(path: str, kind: str) -> None:
    place = Path(path)
    if kind == "file":
        place.write_text("precious")
    elif kind == "directory":
        place.mkdir()
    else:
        place.symlink_to("elsewhere")
    before = os.lstat(path)
    assert failure(at(path)) == f"[listen.http] {path}: exists and is not a socket; it stays as it is"
    assert os.lstat(path) == before


def test_an_address_in_use(opened: list[Listener]) -> None:
    one = open_one(at("127.0.0.1:0"), opened)
    text = f"127.0.0.1:{one.address.port}"
    assert failure(at(text)) == f"[listen.http] {text}: address already in use by another process"


def test_an_address_in_use_that_only_listen_notices(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        text = f"127.0.0.1:{other.getsockname()[1]}"
        bind = binding._bound

        def bind_then_lose(family: int, where: tuple[object, ...]) -> socket.socket:
            sock = bind(family, where)
            other.listen()
            return sock

        monkeypatch.setattr(binding, "_bound", bind_then_lose)
        assert failure(at(text)) == f"[listen.http] {text}: address already in use by another process"


def test_an_address_of_another_machine() -> None:
    assert failure(at("192.0.2.1:0")) == (
        "[listen.http] 192.0.2.1:0: no interface of this machine has this address"
    )


def test_a_host_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(system, "getaddrinfo", unknown)
    assert failure(at("nowhere.example:80")) == (
        '[listen.http] nowhere.example:80: cannot resolve "nowhere.example": name or service not known'
    )


def test_a_missing_directory(tmp_path: Path) -> None:
    assert failure(at(f"{tmp_path}/none/app.sock")) == (
        f"[listen.http] {tmp_path}/none/app.sock: the directory {tmp_path}/none does not exist"
    )


def test_a_path_without_room_for_its_temporary_name(tmp_path: Path) -> None:
    path = f"{tmp_path}/".ljust(107, "x")
    assert "too long; 107 bytes are the limit, a temporary ending included" in failure(at(path))


def test_an_unknown_owner(path: str) -> None:
    table = Listen(name="http", address=parse(path), owner="no-such-user")
    assert failure(table) == f'[listen.http] {path}: there is no user "no-such-user" on this machine'
    assert not os.path.lexists(path)


@pytest.mark.parametrize(
    ("number", "address", "text"),
    [
        (
            errno.EACCES,
            "0.0.0.0:80",
            "permission denied; ports below 1024 need the capability",
        ),
        (errno.EACCES, "0.0.0.0:8080", "permission denied"),
        (errno.EAFNOSUPPORT, "[::1]:80", "this machine has no IPv6"),
        (errno.EROFS, "/run/x.sock", "read-only file system"),
    ],
)
def test_reasons(monkeypatch: pytest.MonkeyPatch, number: int, address: str, text: str) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(binding, "_bound", refuse)
    assert failure(at(address)).startswith(f"[listen.http] {address}: {text}")
