"""The sockets that systemd hands over, and the variables that come with them.

systemd starts the supervisor with listening sockets at descriptors 3, 4, … and says so in the environment
(sd_listen_fds(3)): LISTEN_PID names the process they are meant for, LISTEN_FDS counts them, LISTEN_FDNAMES
names them. Names, never positions, say which is which: the order is undefined as soon as two socket units are
involved, and several descriptors may carry one name.

They are duplicates of what systemd keeps. So no code here or elsewhere calls shutdown() on one, or unlinks
its path (systemd.socket(5), Accept=): that would break the socket for the next start of the service too.

Listeners that we bound ourselves, and that systemd stored for us, come back in the same way, and so do idle
connections of the run before; `stored` and `parked` tell them from the others.

Call order: `inherited`, then everything else that reads such variables (`notify`), then `scrub`.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Mapping, MutableMapping, Sequence
from typing import NamedTuple

from systemd import daemon

from stardust.base import system
from stardust.base.errors import ActivationError
from stardust.systemd import store

FIRST = daemon.LISTEN_FDS_START

# What the service manager tells the main process only. An application, or a program it starts, that found
# these would take our sockets for its own or talk to systemd in our name. LISTEN_PIDFDID: systemd 259.
PRIVATE = ("LISTEN_", "NOTIFY_SOCKET", "WATCHDOG_", "FDSTORE", "MAINPID")

FILE_TYPES = {
    stat.S_IFREG: "a regular file",
    stat.S_IFDIR: "a directory",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFIFO: "a pipe",
}
SOCKET_TYPES = {
    socket.SOCK_DGRAM: "a datagram socket",
    socket.SOCK_SEQPACKET: "a sequential-packet socket",
    socket.SOCK_RAW: "a raw socket",
}
NO_LISTENER = "a stream socket that does not listen"

# What the run before stored beside listeners, by name and by what it is.
PARKED = ((store.CONNECTION, NO_LISTENER), (store.TABLE, FILE_TYPES[stat.S_IFREG]))


class Inherited(NamedTuple):
    """One descriptor that systemd handed over: a listening stream socket, non-blocking, close-on-exec; or
    what we had stored ourselves."""

    fd: int
    name: str


def inherited(environ: Mapping[str, str], pid: int) -> list[Inherited]:
    """The descriptors meant for this process, in the order of their numbers; none without systemd.

    `environ` must be the process's own environment: libsystemd reads the C one beside it.

    Raises ActivationError: the variables are malformed or meant for another process, a descriptor is not
    open, or it is no listening stream socket. One that was stored need not listen any more.
    """
    count = announced(environ, pid)
    if count == 0:
        return []
    try:
        named: dict[int, str] = daemon.listen_fds_with_names(unset_environment=False)
    except OSError as error:
        raise ActivationError(_refused(error, count, environ)) from error
    for fd, name in sorted(named.items()):
        _prepare(fd, name)
    return [Inherited(fd, name) for fd, name in sorted(named.items())]


def stored(handed: Sequence[Inherited]) -> list[Inherited]:
    """Those of `handed` that we had bound and sent to systemd's descriptor store."""
    return [each for each in handed if store.read(*each) is not None]


def parked(handed: Sequence[Inherited]) -> list[Inherited]:
    """Those of `handed` that the run before had parked: its idle connections, and the table of them."""
    return [each for each in handed if _is_parked(*each)]


def _is_parked(fd: int, name: str) -> bool:
    """What listens belongs to a socket unit, even if that calls it so."""
    return (name, unfit(fd)) in PARKED


def announced(environ: Mapping[str, str], pid: int) -> int:
    """How many descriptors the environment promises process `pid`. ActivationError if that is unsound."""
    if "LISTEN_FDS" not in environ:
        return 0
    count = _number(environ, "LISTEN_FDS")
    meant_for = _number(environ, "LISTEN_PID")
    # sd_listen_fds(3): with another LISTEN_PID there are no descriptors for us. Serving without them would
    # look like success, so it is an error here.
    if count and meant_for != pid:
        raise ActivationError(
            f"LISTEN_PID={meant_for}, but this is process {pid}: systemd passed the sockets to another "
            "process; if a wrapper script starts stardust, let it use exec (exec stardust …)"
        )
    return count


def _number(environ: Mapping[str, str], key: str) -> int:
    value = environ.get(key)
    if value is None:
        raise ActivationError(
            f"LISTEN_FDS is set without {key}: the program that passes the sockets must set both"
        )
    if not (value.isascii() and value.isdigit()):
        raise ActivationError(f"{key}={value!r}: must be a whole number")
    return int(value)


def _refused(error: OSError, count: int, environ: Mapping[str, str]) -> str:
    """What libsystemd means by a bare error number."""
    if error.errno == errno.EBADF:
        return f"LISTEN_FDS={count}: descriptors {FIRST} to {FIRST + count - 1} must all be open"
    names = environ.get("LISTEN_FDNAMES")
    if error.errno == errno.EINVAL and names is not None:
        return f"LISTEN_FDS={count}, LISTEN_FDNAMES={names!r}: must be as many names, separated by colons"
    return f"LISTEN_FDS={count}: {os.strerror(error.errno or 0)}"


def _prepare(fd: int, name: str) -> None:
    """Check one descriptor, then keep it from blocking us and from leaking into other programs."""
    fault = unfit(fd)
    if fault and not _is_parked(fd, name) and store.read(fd, name) is None:
        raise ActivationError(
            f'descriptor {fd} ("{name}") is {fault}: must be a listening stream socket '
            "(ListenStream= with Accept=no in its .socket unit)"
        )
    system.set_inheritable(fd, False)
    system.set_blocking(fd, False)


def unfit(fd: int) -> str:
    """What descriptor `fd` is, if it is no listening stream socket; else ""."""
    kind = stat.S_IFMT(system.fstat(fd).st_mode)
    if kind != stat.S_IFSOCK:
        return FILE_TYPES.get(kind, "no socket")
    sock = system.new_socket(fileno=fd)
    try:
        if sock.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
            return f"a socket of address family {int(sock.family)}"
        if sock.type != socket.SOCK_STREAM:
            return SOCKET_TYPES.get(sock.type, f"a socket of type {int(sock.type)}")
        if not system.is_listening(sock):
            return NO_LISTENER
        return ""
    finally:
        sock.detach()  # the descriptor stays open


def scrub(environ: MutableMapping[str, str]) -> None:
    """Remove what was meant for the main process only. Given os.environ, the C environment follows.

    INVOCATION_ID, JOURNAL_STREAM, CREDENTIALS_DIRECTORY and the *_DIRECTORY variables stay: they are for the
    application as well.
    """
    for key in [key for key in environ if key.startswith(PRIVATE)]:
        del environ[key]
