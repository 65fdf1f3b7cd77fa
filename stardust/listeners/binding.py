"""A socket that listens at an address, alone: bound, or refused with what would help.

Rules:
- Nothing is visible before it is complete: a UNIX socket is bound under a temporary name, owned, permitted,
  listening, and only then renamed to its path. (So getsockname() on it keeps saying the temporary name.)
- A UNIX socket's file is removed only while it is the very file that was made here.

Sockets are non-blocking and close-on-exec.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from stardust.base import system
from stardust.base.address import ABSTRACT, PATH_BYTES, TCP, UNIX, Address
from stardust.base.errors import ListenError
from stardust.settings.table import Listen

# Connecting to a UNIX socket needs write permission (unix(7)), and a proxy runs as another user. Its group
# then is the one to name: `group = "www-data"`. The same mode as in stardust@.socket.
DEFAULT_MODE = 0o660

# The kernel or the machine is without IPv6: socket() and bind() say so differently.
NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)

_DEFER = 5  # s; as the examples of units have it. After that, a silent client is accepted all the same


class FileId(NamedTuple):
    """Which file a socket was bound to: the same path may later be another process's."""

    device: int
    inode: int


@contextmanager
def named(table: Listen) -> Iterator[None]:
    """Let a ListenError say which table it is about."""
    try:
        yield
    except ListenError as error:
        raise ListenError(f"[listen.{table.name}] {error}") from error


# ── TCP and abstract sockets ──────────────────────────────────────────────────────────────────────────


def bind_address(address: Address, *, ipv6: bool, backlog: int) -> socket.socket:
    """A socket that listens at a TCP or abstract address. `ipv6`: the wildcard address takes IPv6 too.

    Raises ListenError for whatever the system refuses.
    """
    try:
        sock = _bound_abstract(address) if address.kind == ABSTRACT else _bound_tcp(address, ipv6)
        _listen(sock, backlog)
    except OSError as error:
        raise ListenError(f"{address}: {_reason(error, address)}") from error
    return sock


def _bound_tcp(address: Address, ipv6: bool) -> socket.socket:
    if address.host:
        found = system.getaddrinfo(
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
    sock = system.new_socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if family == socket.AF_INET6:
            # Said explicitly: the default is a sysctl's (net.ipv6.bindv6only).
            system.setsockopt(sock, socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual_stack)
        if family != socket.AF_UNIX:
            # A restart must not wait for the connections of the last run to leave TIME_WAIT.
            system.setsockopt(sock, socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            no_delay(sock)
            # No worker is woken for a client that has said nothing yet (tcp(7)). What is accepted can be
            # read.
            system.setsockopt(sock, socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, _DEFER)
        system.bind(sock, where)
    except BaseException:
        sock.close()
        raise
    return sock


def _listen(sock: socket.socket, backlog: int) -> None:
    """SO_REUSEADDR lets two sockets bind one address, as long as none listens: here the second gets its
    error."""
    try:
        system.listen(sock, backlog)
    except BaseException:
        sock.close()
        raise


def no_delay(sock: socket.socket) -> None:
    """Responses leave at once. On Linux accepted sockets inherit the option: no call for each connection."""
    if sock.family != socket.AF_UNIX:
        system.setsockopt(sock, socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


# ── UNIX sockets with a path ──────────────────────────────────────────────────────────────────────────


def bind_path(
    path: str, *, mode: int, uid: int = -1, gid: int = -1, backlog: int
) -> tuple[socket.socket, FileId]:
    """A socket that listens at `path`, and which file it made; `uid` and `gid` -1 leave the process's own.

    A stale file there (a socket on which no process listens) is replaced in one step. Raises ListenError for
    a live one, for anything else that is there, and for whatever the system refuses.
    """
    # With the process id no two servers share it; beside the path, since rename(2) stays on one file system.
    temporary = f"{path}.{os.getpid():x}"
    try:
        if len(os.fsencode(temporary)) > PATH_BYTES:
            raise ListenError(
                f"{path}: too long; {PATH_BYTES} bytes are the limit, a temporary ending included"
            )
        _refuse_unless_stale(path)
        if _refuse_unless_stale(temporary):
            system.unlink(temporary)
        sock = _bound_privately(temporary)
        try:
            file = file_id(temporary)
            permit(temporary, mode, uid, gid)
            system.listen(sock, backlog)
            system.rename(temporary, path)
        except BaseException:
            sock.close()
            system.unlink(temporary)
            raise
    except OSError as error:
        raise ListenError(f"{path}: {_reason(error, Address(UNIX, path=path))}") from error
    return sock, file


def remove(path: str, file: FileId) -> None:
    """Remove the socket's file if it still is `file`; whatever took its place stays."""
    try:
        if file_id(path) == file:
            system.unlink(path)
    except OSError:
        pass  # gone already, or its directory is no longer ours: nothing that is left to do


def file_id(path: str) -> FileId:
    status = system.lstat(path)
    return FileId(status.st_dev, status.st_ino)


def _bound_privately(path: str) -> socket.socket:
    """Bound with mode 0600 from the first moment. umask(2) is the whole process's; it has one thread."""
    before = os.umask(0o177)
    try:
        return _bound(socket.AF_UNIX, path)
    finally:
        os.umask(before)


def permissions(table: Listen) -> tuple[int, int, int]:
    """Mode, user and group of the table's socket file; -1 for what stays the process's own."""
    mode = DEFAULT_MODE if table.mode is None else table.mode
    try:
        uid = _number(table.owner, lambda name: pwd.getpwnam(name).pw_uid)
    except KeyError:
        raise ListenError(f'{table.address}: there is no user "{table.owner}" on this machine') from None
    try:
        gid = _number(table.group, lambda name: grp.getgrnam(name).gr_gid)
    except KeyError:
        raise ListenError(f'{table.address}: there is no group "{table.group}" on this machine') from None
    return mode, uid, gid


def _number(name: str, look_up: Callable[[str], int]) -> int:
    if name == "":
        return -1
    return int(name) if name.isdecimal() else look_up(name)


def permit(path: str, mode: int, uid: int, gid: int) -> None:
    """Owner first: until the mode follows, only the owner may connect."""
    try:
        if (uid, gid) != (-1, -1):
            system.chown(path, uid, gid)
        system.chmod(path, mode)
    except OSError as error:
        raise ListenError(f"{path}: cannot set its mode, owner and group: {_strerror(error)}") from error


def _refuse_unless_stale(path: str) -> bool:
    """True if a stale socket is there, False if nothing is. ListenError for anything else."""
    try:
        kind = system.lstat(path).st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISSOCK(kind):
        raise ListenError(f"{path}: exists and is not a socket; it stays as it is")
    with system.new_socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            system.connect(probe, path)
        except ConnectionRefusedError:
            return True
        except BlockingIOError:
            pass  # its backlog is full: very much alive
        except OSError as error:
            raise ListenError(
                f"{path}: cannot tell whether another process listens there: {_strerror(error)}"
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
