"""Listeners: which sockets the server accepts on, where each comes from, and what closes with it.

A listening socket is inherited from systemd, kept from the configuration before a reload, or bound anew.
`match` decides which, and touches nothing; `open_all` does it; `superseded` says what a reload left over.
What an earlier run bound, and systemd stored, is our own all the same: `recover` sorts it, and what it finds
fit is kept as after a reload.

Rules:
- systemd's sockets are told apart by name: descriptor "http" serves [listen.http], whatever address the table
  has. With tables, a descriptor without one is an error, and so is a table with neither address nor
  descriptor.
- An inherited socket is systemd's: never shut down, never unlinked, its options are the .socket unit's.
- Nothing is visible before it is complete: a UNIX socket is bound under a temporary name, owned, permitted,
  listening, and only then renamed to its path. (So getsockname() on it keeps saying the temporary name, and
  `Listener.address` is the one to trust.)
- A UNIX socket's file is removed only while it is the very file that was made here.

Sockets are non-blocking and close-on-exec. Only the supervisor opens and closes listeners; workers get the
descriptors over the channel.
"""

from __future__ import annotations

import difflib
import errno
import grp
import math
import os
import pwd
import socket
import stat
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from stardust.base.address import ABSTRACT, PATH_BYTES, TCP, UNIX, Address
from stardust.base.errors import ActivationError, ListenError
from stardust.base.records import dataclass, replace
from stardust.settings.table import DEFAULT_ADDRESS, Config, Listen
from stardust.systemd import store
from stardust.systemd.store import Stored

# Connecting to a UNIX socket needs write permission (unix(7)), and a proxy runs as another user. Its group
# then is the one to name: `group = "www-data"`. The same mode as in stardust@.socket.
DEFAULT_MODE = 0o660

# What a listener is called that no table names.
DEFAULT_NAME = "default"

# The kernel or the machine is without IPv6: socket() and bind() say so differently.
NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)

# net.core.somaxconn, to which listen(2) cuts a backlog: where it stands, and what it is unless changed.
SOMAXCONN_FILE = "/proc/sys/net/core/somaxconn"
SOMAXCONN = 4096


class FileId(NamedTuple):
    """Which file a socket was bound to: the same path may later be somebody else's."""

    device: int
    inode: int


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket and what it serves.

    `table` is its [listen.NAME] table, with the address as configured. `address` is where it really listens:
    port 0 has become a port. `file` identifies the socket's file if it was made here. `label` is the name of
    an own socket in systemd's store (systemd/store.py), "" if it has none.
    """

    name: str
    socket: socket.socket
    address: Address
    inherited: bool
    table: Listen
    file: FileId | None = None
    label: str = ""


# ── The decision ──────────────────────────────────────────────────────────────────────────────────────


class Inherit(NamedTuple):
    """Serve `table` with the inherited descriptor at `position`."""

    table: Listen
    position: int


class Keep(NamedTuple):
    """Serve `table` with the socket at `position` of those bound before."""

    table: Listen
    position: int


class Bind(NamedTuple):
    """Bind a socket for `table`, which has an address."""

    table: Listen


Choice = Inherit | Keep | Bind


def match(
    tables: Sequence[Listen],
    inherited: Sequence[tuple[str, Address]],
    bound: Sequence[tuple[str, Address]],
) -> list[Choice]:
    """Where the socket of each table comes from, in the order of the tables. Pure.

    `inherited` and `bound` are names and addresses, those of `bound` as configured (port 0 stays 0, and so
    may stand there twice). Names of bound sockets do not matter: a table that was renamed keeps its socket.

    Raises ActivationError if tables and descriptors do not fit each other.
    """
    if not tables:
        if inherited:
            return [Inherit(Listen(name=name), position) for position, (name, _) in enumerate(inherited)]
        tables = [Listen(name=DEFAULT_NAME, address=DEFAULT_ADDRESS)]
    _refuse_leftovers(tables, inherited)
    choices: list[Choice] = []
    for table in tables:
        given = [position for position, (name, _) in enumerate(inherited) if name == table.name]
        taken = {choice.position for choice in choices if isinstance(choice, Keep)}
        choices += [Inherit(table, position) for position in given] or [_own(table, inherited, bound, taken)]
    return choices


def _own(
    table: Listen,
    inherited: Sequence[tuple[str, Address]],
    bound: Sequence[tuple[str, Address]],
    taken: Container[int],
) -> Choice:
    if table.address is None:
        names = ", ".join(f'"{name}"' for name, _ in inherited) or "none"
        raise ActivationError(
            f"[listen.{table.name}] has no address, and systemd handed over no descriptor of that name "
            f"(it handed over: {names}): give it an address, or start the .socket unit that has "
            f"FileDescriptorName={table.name}"
        )
    for position, (_, address) in enumerate(bound):
        if address == table.address and position not in taken:
            return Keep(table, position)
    return Bind(table)


def _refuse_leftovers(tables: Sequence[Listen], inherited: Sequence[tuple[str, Address]]) -> None:
    names = [table.name for table in tables]
    for name, address in inherited:
        if name in names:
            continue
        near = difflib.get_close_matches(name, names, n=1)
        known = ", ".join(f"[listen.{known}]" for known in names)
        hint = f'did you mean "{near[0]}"? ' if near else ""
        raise ActivationError(
            f'systemd handed over descriptor "{name}" ({address}), but the configuration has only {known}: '
            f"{hint}add [listen.{name}], or set FileDescriptorName= in the .socket unit to one of these names"
        )


def wanted(config: Config, stored: Sequence[Stored]) -> list[int]:
    """The positions of what was `stored` and is asked for again, one for each table that asks. Pure.

    The socket of a wildcard cannot be made dual-stack, or cease to be, once it is bound.
    """
    asked = [table.address for table in config.listen] or [DEFAULT_ADDRESS]
    found = []
    for position, each in enumerate(stored):
        wildcard = each.address.kind == TCP and not each.address.host
        if each.address in asked and (not wildcard or each.ipv6 == config.ipv6):
            asked.remove(each.address)
            found.append(position)
    return found


def superseded(before: Iterable[Listener], after: Iterable[Listener]) -> list[Listener]:
    """The listeners of `before` whose socket serves nothing in `after`: those to close after a reload."""
    kept = {listener.socket.fileno() for listener in after}
    return [listener for listener in before if listener.socket.fileno() not in kept]


# ── Opening and closing ───────────────────────────────────────────────────────────────────────────────


def open_all(
    config: Config, inherited: Sequence[tuple[int, str]], bound: Sequence[Listener]
) -> list[Listener]:
    """The listeners of `config`: `inherited` descriptors (number, name), `bound` from before, and new ones.

    `inherited` is the same at every reload; its sockets are taken from `bound` if they are there. Nothing of
    `bound` is closed, so a reload that fails later loses nothing.

    Raises ActivationError (see `match`) and ListenError (an address cannot be listened on); what this call
    opened is closed again then, and what systemd owns stays open.
    """
    known = {listener.socket.fileno(): listener.socket for listener in bound if listener.inherited}
    adopted = [(name, known.get(fd) or socket.socket(fileno=fd)) for fd, name in inherited]
    own = [listener for listener in bound if not listener.inherited and _in_place(listener)]
    opened: list[Listener] = []
    try:
        choices = match(
            config.listen,
            [(name, address_of(sock)) for name, sock in adopted],
            [(listener.name, listener.table.address or listener.address) for listener in own],
        )
        listeners: list[Listener] = []
        for choice in choices:
            if isinstance(choice, Inherit):
                listeners.append(_adopt(choice.table, adopted[choice.position][1]))
            elif isinstance(choice, Keep):
                listeners.append(_keep(choice.table, own[choice.position], config))
            else:
                opened.append(_bind(choice.table, config))
                listeners.append(opened[-1])
        return listeners
    except BaseException:
        for listener in opened:
            close(listener)
        for _, sock in adopted:
            if sock.fileno() not in known:
                sock.detach()
        raise


def recover(config: Config, returned: Sequence[tuple[int, str]]) -> tuple[list[Listener], list[Listener]]:
    """Our own listeners of an earlier run that systemd `returned` (descriptor, name in the store).

    First those that may serve on, to be `bound` for `open_all`. Then the rest, to be closed before: nobody
    asks for their address now, they are in the way of what is asked for, their file is gone, or they no
    longer listen.
    """
    told = [(fd, label, stored) for fd, label in returned if (stored := store.read(fd, label))]
    listeners = [_returned(*each) for each in told]
    asked = [listeners[position] for position in wanted(config, [stored for _, _, stored in told])]
    fit = [each for each in asked if _in_place(each) and _listens(each.socket)]
    return fit, superseded(listeners, fit)


def accept_all(listener: Listener) -> Iterator[tuple[socket.socket, object]]:
    """The connections that queue, with the addresses that accept() gave. As many as the kernel may keep, and
    no more: under load ever new ones come behind."""
    for _ in range(SOMAXCONN):
        try:
            yield listener.socket.accept()
        except OSError:
            return


def close(listener: Listener) -> None:
    """Close the socket. Its file goes with it if it was made here; an inherited one lives on in systemd."""
    if listener.file is not None:
        remove(listener.address.path, listener.file)
    listener.socket.close()


def address_of(sock: socket.socket) -> Address:
    """Where a socket is bound, by its own account."""
    name = sock.getsockname()
    if sock.family != socket.AF_UNIX:
        return Address(TCP, host=name[0], port=name[1])
    # Python gives an abstract name as bytes: a NUL, then the name.
    return (
        Address(ABSTRACT, path=os.fsdecode(name[1:])) if isinstance(name, bytes) else Address(UNIX, path=name)
    )


def _returned(fd: int, label: str, stored: Stored) -> Listener:
    """A listener of an earlier run; it has no table of this configuration yet."""
    sock = socket.socket(fileno=fd)
    file = None if stored.file is None else FileId(*stored.file)
    table = Listen(name="", address=stored.address)
    return Listener("", sock, _told_port(stored.address, sock), False, table, file, label)


def _told_port(address: Address, sock: socket.socket) -> Address:
    """The address with the port that a TCP socket really has."""
    return address._replace(port=sock.getsockname()[1]) if address.kind == TCP else address


def most_backlog() -> float:
    """The largest backlog that the kernel does not cut; infinity where that is hidden (ProcSubset=pid)."""
    try:
        with open(SOMAXCONN_FILE) as file:
            return int(file.read())
    except OSError:
        return math.inf


def _listens(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _adopt(table: Listen, sock: socket.socket) -> Listener:
    sock.setblocking(False)
    _no_delay(sock)
    return Listener(table.name, sock, address_of(sock), True, table)


def _keep(table: Listen, before: Listener, config: Config) -> Listener:
    """The same socket for a table that may have another name, backlog or permissions by now.

    Whether a wildcard is dual-stack cannot change: that needs a new socket, and the old one is in its way.
    """
    before.socket.listen(config.backlog)
    if before.file is not None and table != before.table:
        with _named(table):
            _permit(before.address.path, *_permissions(table))
    return replace(before, name=table.name, table=table)


def _bind(table: Listen, config: Config) -> Listener:
    address = table.address or DEFAULT_ADDRESS
    with _named(table):
        if address.kind == UNIX:
            mode, uid, gid = _permissions(table)
            sock, file = bind_path(address.path, mode=mode, uid=uid, gid=gid, backlog=config.backlog)
            label = _label(sock, address, config, file)
            return Listener(table.name, sock, address, False, table, file, label)
        try:
            sock = _bound_abstract(address) if address.kind == ABSTRACT else _bound_tcp(address, config.ipv6)
            _listen(sock, config.backlog)
        except OSError as error:
            raise ListenError(f"{address}: {_reason(error, address)}") from error
    label = _label(sock, address, config)
    return Listener(table.name, sock, _told_port(address, sock), False, table, label=label)


def _label(sock: socket.socket, address: Address, config: Config, file: FileId | None = None) -> str:
    return store.name(Stored(os.fstat(sock.fileno()).st_ino, config.ipv6, file, address))


@contextmanager
def _named(table: Listen) -> Iterator[None]:
    """Let a ListenError say which table it is about."""
    try:
        yield
    except ListenError as error:
        raise ListenError(f"[listen.{table.name}] {error}") from error


# ── TCP and abstract sockets ──────────────────────────────────────────────────────────────────────────


def _bound_tcp(address: Address, ipv6: bool) -> socket.socket:
    if address.host:
        found = socket.getaddrinfo(
            address.host.encode(), address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, _, _, _, where = found[0]
        return _bound(family, where)
    if ipv6:
        try:
            return _bound(socket.AF_INET6, ("::", address.port), dual_stack=True)
        except OSError as error:
            if error.errno not in NO_IPV6:
                raise
    return _bound(socket.AF_INET, ("0.0.0.0", address.port))


def _bound_abstract(address: Address) -> socket.socket:
    return _bound(socket.AF_UNIX, b"\0" + os.fsencode(address.path))


def _bound(
    family: int, where: tuple[object, ...] | str | bytes, *, dual_stack: bool = False
) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if family == socket.AF_INET6:
            # Said explicitly: the default is a sysctl's (net.ipv6.bindv6only).
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual_stack)
        if family != socket.AF_UNIX:
            # A restart must not wait for the connections of the last run to leave TIME_WAIT.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            _no_delay(sock)
            # Nobody is woken for a client that has said nothing yet (tcp(7)). What is accepted can be read.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, _DEFER)
        sock.bind(where)
    except BaseException:
        sock.close()
        raise
    return sock


_DEFER = 5  # s; as the examples of units have it. After that, who is silent is accepted all the same


def _listen(sock: socket.socket, backlog: int) -> None:
    """SO_REUSEADDR lets two sockets bind one address, as long as none listens: the second is told here."""
    try:
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise


def _no_delay(sock: socket.socket) -> None:
    """Responses leave at once. On Linux accepted sockets inherit the option: no call for each connection."""
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


# ── UNIX sockets with a path ──────────────────────────────────────────────────────────────────────────


def bind_path(
    path: str, *, mode: int, uid: int = -1, gid: int = -1, backlog: int
) -> tuple[socket.socket, FileId]:
    """A socket that listens at `path`, and which file it made; `uid` and `gid` -1 leave the process's own.

    A stale file there (a socket on which nobody listens) is replaced in one step. Raises ListenError for a
    live one, for anything else that is there, and for whatever the system refuses.
    """
    # With the process id no two servers share it; beside the path, since rename(2) stays on one file system.
    temporary = f"{path}.{os.getpid():x}"
    try:
        if len(os.fsencode(temporary)) > PATH_BYTES:
            raise ListenError(f"{path}: too long; with a temporary ending it may have {PATH_BYTES} bytes")
        _refuse_unless_stale(path)
        if _refuse_unless_stale(temporary):
            os.unlink(temporary)
        sock = _bound_privately(temporary)
        try:
            file = _file_id(temporary)
            _permit(temporary, mode, uid, gid)
            sock.listen(backlog)
            os.rename(temporary, path)
        except BaseException:
            sock.close()
            os.unlink(temporary)
            raise
    except OSError as error:
        raise ListenError(f"{path}: {_reason(error, Address(UNIX, path=path))}") from error
    return sock, file


def remove(path: str, file: FileId) -> None:
    """Remove the socket's file if it still is `file`; whatever took its place stays."""
    try:
        if _file_id(path) == file:
            os.unlink(path)
    except OSError:
        pass  # gone already, or its directory is no longer ours: nothing that is left to do


def _in_place(listener: Listener) -> bool:
    """Whether clients still reach the listener at its address: its file may have been removed or replaced."""
    if listener.file is None:
        return True
    try:
        return _file_id(listener.address.path) == listener.file
    except OSError:
        return False


def _file_id(path: str) -> FileId:
    status = os.lstat(path)
    return FileId(status.st_dev, status.st_ino)


def _bound_privately(path: str) -> socket.socket:
    """Bound with mode 0600 from the first moment. umask(2) is the whole process's; it has one thread."""
    before = os.umask(0o177)
    try:
        return _bound(socket.AF_UNIX, path)
    finally:
        os.umask(before)


def _permissions(table: Listen) -> tuple[int, int, int]:
    """Mode, user and group of the table's socket file; -1 for what stays the process's own."""
    mode = DEFAULT_MODE if table.mode is None else table.mode
    try:
        uid = _number(table.owner, lambda name: pwd.getpwnam(name).pw_uid)
        gid = _number(table.group, lambda name: grp.getgrnam(name).gr_gid)
    except KeyError as error:
        raise ListenError(f"{table.address}: {error.args[0]}") from error
    return mode, uid, gid


def _number(name: str, look_up: Callable[[str], int]) -> int:
    if name == "":
        return -1
    return int(name) if name.isdecimal() else look_up(name)


def _permit(path: str, mode: int, uid: int, gid: int) -> None:
    """Owner first: until the mode follows, nobody but the owner may connect."""
    try:
        if (uid, gid) != (-1, -1):
            os.chown(path, uid, gid)
        os.chmod(path, mode)
    except OSError as error:
        raise ListenError(f"{path}: cannot set its mode, owner and group: {_strerror(error)}") from error


def _refuse_unless_stale(path: str) -> bool:
    """True if a stale socket is there, False if nothing is. ListenError for anything else."""
    try:
        kind = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISSOCK(kind):
        raise ListenError(f"{path}: exists and is no socket; it is left as it is")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except BlockingIOError:
            pass  # its backlog is full: very much alive
        except OSError as error:
            raise ListenError(
                f"{path}: cannot tell whether somebody listens there: {_strerror(error)}"
            ) from error
    raise ListenError(f"{path}: another process listens there")


# ── Reasons ───────────────────────────────────────────────────────────────────────────────────────────


def _reason(error: OSError, address: Address) -> str:
    """What went wrong, and what would help."""
    if isinstance(error, socket.gaierror):
        return f'cannot resolve "{address.host}": {_strerror(error)}'
    if error.errno == errno.EACCES and address.kind == TCP and address.port < 1024:
        return (
            "permission denied; ports below 1024 need the capability CAP_NET_BIND_SERVICE, "
            "or a socket from systemd (ListenStream= in the .socket unit)"
        )
    if error.errno == errno.EADDRINUSE:
        return "address already in use by another process"
    if error.errno == errno.EADDRNOTAVAIL:
        return "no interface of this machine has this address"
    if error.errno == errno.EAFNOSUPPORT:
        return "this machine has no IPv6"
    if error.errno in (errno.ENOENT, errno.ENOTDIR) and address.kind == UNIX:
        return f"the directory {os.path.dirname(address.path) or '.'} does not exist"
    return _strerror(error)


def _strerror(error: OSError) -> str:
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]
