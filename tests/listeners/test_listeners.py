"""Listeners: which socket serves which table; what stands at an address before, while and after we listen."""

from __future__ import annotations

import errno
import math
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stardust.base.address import Address, parse
from stardust.base.errors import ActivationError, ListenError
from stardust.listeners import listeners as listener
from stardust.listeners.listeners import Bind, Choice, Inherit, Keep, Listener
from stardust.settings.table import DEFAULT_ADDRESS, Config, Listen
from stardust.systemd.store import Stored

A, B = parse("127.0.0.1:8000"), parse("/run/app.sock")
HTTP, ADMIN = Listen(name="http", address=A), Listen(name="admin", address=B)
FROM_SYSTEMD = Listen(name="http")
ANY_PORT = parse("127.0.0.1:0")
ANY, ANOTHER = Listen(name="any", address=ANY_PORT), Listen(name="another", address=ANY_PORT)
DEFAULT = Listen(name="default", address=DEFAULT_ADDRESS)


# ── match ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("tables", "inherited", "bound", "choices"),
    [
        pytest.param([], [], [], [Bind(DEFAULT)], id="nothing said: the default address"),
        pytest.param([], [], [("default", DEFAULT_ADDRESS)], [Keep(DEFAULT, 0)], id="and it is kept"),
        pytest.param(
            [],
            [("web", A), ("web", B)],
            [],
            [Inherit(Listen(name="web"), 0), Inherit(Listen(name="web"), 1)],
            id="no tables: all of systemd's, with defaults",
        ),
        pytest.param([HTTP, ADMIN], [], [], [Bind(HTTP), Bind(ADMIN)], id="bind all"),
        pytest.param([HTTP], [("http", B)], [], [Inherit(HTTP, 0)], id="by name, whatever the address"),
        pytest.param(
            [ADMIN, FROM_SYSTEMD],
            [("http", A), ("http", B)],
            [],
            [Bind(ADMIN), Inherit(FROM_SYSTEMD, 0), Inherit(FROM_SYSTEMD, 1)],
            id="several of one name beside an own one",
        ),
        pytest.param([HTTP, ADMIN], [], [("x", B)], [Bind(HTTP), Keep(ADMIN, 0)], id="kept by address"),
        pytest.param(
            [ANY, ANOTHER],
            [],
            [("x", ANY_PORT), ("y", ANY_PORT)],
            [Keep(ANY, 0), Keep(ANOTHER, 1)],
            id="two on any port keep theirs",
        ),
        pytest.param(
            [HTTP], [("http", A)], [("http", A)], [Inherit(HTTP, 0)], id="systemd's before an own one"
        ),
    ],
)
def test_match(
    tables: list[Listen],
    inherited: list[tuple[str, Address]],
    bound: list[tuple[str, Address]],
    choices: list[Choice],
) -> None:
    assert listener.match(tables, inherited, bound) == choices


def test_match_refuses_a_descriptor_without_a_table() -> None:
    with pytest.raises(ActivationError) as caught:
        listener.match([HTTP, ADMIN], [("htpp", A)], [])
    assert str(caught.value) == (
        'systemd handed over descriptor "htpp" (127.0.0.1:8000), but the configuration has only '
        '[listen.http], [listen.admin]: did you mean "http"? add [listen.htpp], or set FileDescriptorName= '
        "in the .socket unit to one of these names"
    )


def test_match_refuses_a_table_with_neither_address_nor_descriptor() -> None:
    with pytest.raises(ActivationError) as caught:
        listener.match([FROM_SYSTEMD, ADMIN], [("admin", A)], [])
    assert str(caught.value) == (
        "[listen.http] has no address, and systemd handed over no descriptor of that name (it handed over: "
        '"admin"): give it an address, or start the .socket unit that has FileDescriptorName=http'
    )


names = st.sampled_from(["http", "admin", "api"])
addresses = st.sampled_from([A, B, parse(":80"), parse("@x")])


@given(
    tables=st.lists(
        st.builds(Listen, name=names, address=st.none() | addresses), unique_by=lambda table: table.name
    ),
    inherited=st.lists(st.tuples(names, addresses)),
    bound=st.lists(st.tuples(names, addresses)),
)
def test_match_uses_every_descriptor_once_and_serves_every_table(
    tables: list[Listen], inherited: list[tuple[str, Address]], bound: list[tuple[str, Address]]
) -> None:
    try:
        choices = listener.match(tables, inherited, bound)
    except ActivationError:
        return
    used = [choice.position for choice in choices if isinstance(choice, Inherit)]
    assert sorted(used) == list(range(len(inherited)))
    if tables:
        assert {choice.table.name for choice in choices} == {table.name for table in tables}
    kept = [choice.position for choice in choices if isinstance(choice, Keep)]
    assert len(kept) == len(set(kept)), "no socket serves two tables"
    for choice in choices:
        if isinstance(choice, Keep):
            assert bound[choice.position][1] == choice.table.address
        elif isinstance(choice, Bind):
            assert choice.table.address is not None


# ── wanted ────────────────────────────────────────────────────────────────────────────────────────────


def stored(text: str, *, ipv6: bool = True) -> Stored:
    return Stored(1, ipv6, None, parse(text))


@pytest.mark.parametrize(
    ("tables", "ipv6", "returned", "positions"),
    [
        pytest.param(["127.0.0.1:80"], True, [stored("127.0.0.1:80")], [0], id="asked for"),
        pytest.param(["127.0.0.1:80"], True, [stored("127.0.0.1:81")], [], id="another port"),
        pytest.param(["127.0.0.1:80"], True, [stored(":80")], [], id="another host"),
        pytest.param([], True, [stored(str(DEFAULT_ADDRESS))], [0], id="the default address"),
        pytest.param([], True, [], [], id="nothing stored"),
        pytest.param([None], True, [stored("127.0.0.1:80")], [], id="a table for a socket unit"),
        pytest.param([":80"], False, [stored(":80", ipv6=True)], [], id="a wildcard that loses IPv6"),
        pytest.param([":80"], True, [stored(":80", ipv6=False)], [], id="a wildcard that gets IPv6"),
        pytest.param([":80"], False, [stored(":80", ipv6=False)], [0], id="a wildcard as it was"),
        pytest.param(["@x"], False, [stored("@x", ipv6=True)], [0], id="ipv6 is about the wildcard"),
        pytest.param(
            ["127.0.0.1:0", "@x", "127.0.0.1:0"],
            True,
            [stored("127.0.0.1:0")] * 3 + [stored("@x")],
            [0, 1, 3],
            id="one for each that asks",
        ),
    ],
)
def test_wanted(tables: list[str | None], ipv6: bool, returned: list[Stored], positions: list[int]) -> None:
    listen = [
        Listen(name=str(number), address=parse(text) if text else None) for number, text in enumerate(tables)
    ]
    assert listener.wanted(config(*listen, ipv6=ipv6), returned) == positions


@given(
    tables=st.lists(st.builds(Listen, name=names, address=addresses)),
    returned=st.lists(st.builds(Stored, st.integers(1), st.booleans(), st.none(), addresses)),
    ipv6=st.booleans(),
)
def test_all_that_is_wanted_is_kept(tables: list[Listen], returned: list[Stored], ipv6: bool) -> None:
    """`match` has a table for each, so that nothing goes on listening for nobody."""
    positions = listener.wanted(config(*tables, ipv6=ipv6), returned)
    bound = [("", returned[position].address) for position in positions]
    kept = [each.position for each in listener.match(tables, [], bound) if isinstance(each, Keep)]
    assert sorted(kept) == [*range(len(positions))]


# ── open_all and close ────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def opened() -> Iterator[list[Listener]]:
    """Listeners to close after the test."""
    listeners: list[Listener] = []
    yield listeners
    for one in listeners:
        listener.close(one)


def config(*tables: Listen, ipv6: bool = True, backlog: int = 16) -> Config:
    return Config(listen=tables, ipv6=ipv6, backlog=backlog)


def open_one(table: Listen, opened: list[Listener], *, ipv6: bool = True) -> Listener:
    (one,) = listener.open_all(config(table, ipv6=ipv6), [], [])
    opened.append(one)
    return one


def at(text: str, name: str = "http") -> Listen:
    return Listen(name=name, address=parse(text))


def reaches(where: tuple[str, int] | str | bytes, family: int = socket.AF_INET) -> bool:
    with socket.socket(family) as client:
        client.settimeout(5)
        try:
            client.connect(where)
        except ConnectionRefusedError:
            return False
        return True


def listens(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


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

    monkeypatch.setattr(socket, "socket", without_ipv6)
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


# ── UNIX sockets with a path ──────────────────────────────────────────────────────────────────────────


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "app.sock")


def mode_of(path: str) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


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

    monkeypatch.setattr(os, "chmod", watched_chmod)
    monkeypatch.setattr(os, "rename", watched_rename)
    open_one(at(path), opened)
    assert modes == [(0o600, 0o660)]


def leave_stale(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)


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
        assert "cannot tell whether somebody listens there" in failure(at(path))


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
    assert failure(at(path)) == f"[listen.http] {path}: exists and is no socket; it is left as it is"
    assert os.lstat(path) == before


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


# ── Failures ──────────────────────────────────────────────────────────────────────────────────────────


def failure(*tables: Listen) -> str:
    with pytest.raises(ListenError) as caught:
        listener.open_all(config(*tables), [], [])
    return str(caught.value)


def test_an_address_in_use(opened: list[Listener]) -> None:
    one = open_one(at("127.0.0.1:0"), opened)
    text = f"127.0.0.1:{one.address.port}"
    assert failure(at(text)) == f"[listen.http] {text}: address already in use by another process"


def test_an_address_in_use_that_only_listen_notices(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        text = f"127.0.0.1:{other.getsockname()[1]}"
        bind = listener._bound

        def bind_then_lose(family: int, where: tuple[object, ...]) -> socket.socket:
            sock = bind(family, where)
            other.listen()
            return sock

        monkeypatch.setattr(listener, "_bound", bind_then_lose)
        assert failure(at(text)) == f"[listen.http] {text}: address already in use by another process"


def test_an_address_of_another_machine() -> None:
    assert failure(at("192.0.2.1:0")) == (
        "[listen.http] 192.0.2.1:0: no interface of this machine has this address"
    )


def test_a_host_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert failure(at("nowhere.example:80")) == (
        '[listen.http] nowhere.example:80: cannot resolve "nowhere.example": name or service not known'
    )


def test_a_missing_directory(tmp_path: Path) -> None:
    assert failure(at(f"{tmp_path}/none/app.sock")) == (
        f"[listen.http] {tmp_path}/none/app.sock: the directory {tmp_path}/none does not exist"
    )


def test_a_path_without_room_for_its_temporary_name(tmp_path: Path) -> None:
    path = f"{tmp_path}/".ljust(107, "x")
    assert "too long; with a temporary ending it may have 107 bytes" in failure(at(path))


def test_an_unknown_owner(path: str) -> None:
    table = Listen(name="http", address=parse(path), owner="no-such-user")
    assert "no-such-user" in failure(table)
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

    monkeypatch.setattr(listener, "_bound", refuse)
    assert failure(at(address)).startswith(f"[listen.http] {address}: {text}")


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


# ── Inherited sockets and reloads ─────────────────────────────────────────────────────────────────────


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
