"""The system calls of the server, all of them in one place, so that a test can let any of them fail.

Code that needs one calls `system.close(descriptor)`, looked up here at that moment. So a test that replaces
an attribute of this module replaces the call for the whole process (tests/faults.py does); CALLS has the
names of all. tests/base/test_system.py holds that no module goes past this one.

- Thin: a name for what Python has, which costs nothing, or the few lines that Python leaves to us.
- They raise OSError, as Python does. What cannot fail (getpid(2), umask(2)) is not here.
- What is done with a connection at every request, and waiting, are methods: recv, send, poll, register. The
  objects that have them are made here, so a test hands out others. No request pays a call for it.

What is made of several of them is in process.py and files.py.

Runs in the application's interpreter (Python 3.9, PyPy included). PyPy lacks some of them; those are looked
up when they are called, by the supervisor only.
"""

from __future__ import annotations

import array
import importlib
import struct
import sys
from typing import TYPE_CHECKING

from stardust.base.pristine import _socket, fcntl, mmap, os, resource, select, signal, socket, termios

if TYPE_CHECKING:  # what is callable in this module is a call
    from collections.abc import Mapping, Sequence
    from typing import Union

    _Action = tuple[int, int, str, int, int]  # POSIX_SPAWN_OPEN, descriptor, path, flags, mode

# ── Processes ─────────────────────────────────────────────────────────────────────────────────────────


def fork() -> int:
    """0 in the child. fork(2). Looked up when it is called: a library that patches it is to see each
    child."""
    pid: int = sys.modules["os"].fork()
    return pid


waitpid = os.waitpid  # waitpid(2): (process id, wait status)
kill = os.kill  # kill(2)
setpgid = os.setpgid  # setpgid(2)
getpgid = os.getpgid  # getpgid(2)
getsid = os.getsid  # getsid(2)
execve = os.execve  # execve(2)
chdir = os.chdir  # chdir(2)
getcwd = os.getcwd  # getcwd(2): ENOENT if the directory was removed
initgroups = os.initgroups  # setgroups(2)
setgid = os.setgid  # setgid(2)
setuid = os.setuid  # setuid(2)
setsid = os.setsid  # setsid(2)
setitimer = signal.setitimer  # setitimer(2)
getrlimit = resource.getrlimit  # getrlimit(2): soft limit, hard limit
setrlimit = resource.setrlimit


# By the supervisor only: PyPy lacks them.


def posix_spawn(
    path: str, arguments: list[str], environ: Mapping[str, str], actions: Sequence[_Action], group: int
) -> int:
    """Have a new process execute `path`, in the process group `group`, 0 for one of its own. posix_spawn(3).
    Returns its process id."""
    return os.posix_spawn(path, arguments, environ, file_actions=actions, setpgroup=group)


def pidfd_open(pid: int) -> int:
    """pidfd_open(2)."""
    return os.pidfd_open(pid)


def pidfd_send_signal(descriptor: int, number: int) -> None:
    """pidfd_send_signal(2)."""
    signal.pidfd_send_signal(descriptor, number)


def prctl(option: int, value: int) -> None:
    """prctl(2), which Python lacks."""
    ctypes = importlib.import_module("ctypes")  # costs memory that other processes than ours can save
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        fault = ctypes.get_errno()
        raise OSError(fault, os.strerror(fault))


# ── Descriptors and files ─────────────────────────────────────────────────────────────────────────────

open_descriptor = os.open  # open(2)
close = os.close  # close(2)
dup = os.dup  # fcntl(2), F_DUPFD_CLOEXEC
dup2 = os.dup2  # dup3(2)
pipe = os.pipe  # pipe2(2), O_CLOEXEC: (end to read from, end to write to)
read = os.read  # read(2): b"" at the end
pread = os.pread  # pread(2): (descriptor, bytes, offset)
write = os.write  # write(2): how many bytes were written
lseek = os.lseek  # lseek(2)
fstat = os.fstat  # fstat(2)
stat = os.stat  # stat(2)
urandom = os.urandom  # getrandom(2)
lstat = os.lstat  # lstat(2)
ftruncate = os.ftruncate  # ftruncate(2)
get_blocking = os.get_blocking  # fcntl(2), F_GETFL
set_blocking = os.set_blocking  # ioctl(2), FIONBIO
set_inheritable = os.set_inheritable  # ioctl(2), FIONCLEX and FIOCLEX
mkdir = os.mkdir  # mkdir(2)
rename = os.rename  # rename(2)
unlink = os.unlink  # unlink(2)
readlink = os.readlink  # readlink(2)
listdir = os.listdir  # getdents64(2): the names in a directory, in any order
chmod = os.chmod  # chmod(2)
chown = os.chown  # chown(2): (path, user, group), -1 for what stays
memfd_create = os.memfd_create  # memfd_create(2); closed on exec unless its flags say something else
map_shared = mmap.mmap  # mmap(2), MAP_SHARED: (descriptor, bytes)


def dup_above(descriptor: int, least: int) -> int:
    """A duplicate with a number that is `least` or more, closed on exec. EINVAL if the limit is lower.
    fcntl(2), F_DUPFD_CLOEXEC."""
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, least)


# fcntl(2), linux/fcntl.h; PyPy does not name them.
_F_ADD_SEALS = 1033
_ALL_SEALS = 0x0001 | 0x0002 | 0x0004 | 0x0008  # F_SEAL_SEAL, _SHRINK, _GROW, _WRITE


def seal(descriptor: int) -> None:
    """Let a memory file, and its size, never change again (F_ADD_SEALS, fcntl(2))."""
    fcntl.fcntl(descriptor, _F_ADD_SEALS, _ALL_SEALS)


def read_file(path: str, most: int = -1) -> bytes:
    """What is in a file, its first `most` bytes, -1 for all. open(2), read(2)."""
    with open(path, "rb") as file:
        return file.read(most)


# ── Sockets ───────────────────────────────────────────────────────────────────────────────────────────

new_socket = socket.socket  # socket(2); or, with fileno=, the socket of a descriptor
bare_socket = socket.SocketType  # the same without the part of it that is written in Python
bind = socket.SocketType.bind  # bind(2): (socket, address)
listen = socket.SocketType.listen  # listen(2): (socket, backlog)
connect = socket.SocketType.connect  # connect(2): (socket, address)
accept = socket.socket.accept  # accept4(2): (connection, address of its peer)
# The same, but (descriptor, address of its peer): accept() is written in Python, and builds a socket.socket.
bare_accept = socket.SocketType._accept  # type: ignore[attr-defined]
getsockopt = socket.SocketType.getsockopt  # getsockopt(2): (socket, level, name[, bytes])
setsockopt = socket.SocketType.setsockopt  # setsockopt(2): (socket, level, name, value)
sendfile = os.sendfile  # sendfile(2): (to, from, offset, bytes)
getaddrinfo = socket.getaddrinfo  # getaddrinfo(3)


def socketpair(
    family: int = socket.AF_UNIX, kind: int = socket.SOCK_STREAM
) -> tuple[socket.socket, socket.socket]:
    """Two sockets that are connected to each other, closed on exec. socketpair(2)."""
    ours, theirs = _socket.socketpair(family, kind)
    return (
        socket.socket(family, kind, 0, ours.detach()),
        socket.socket(family, kind, 0, theirs.detach()),
    )


# recvmsg(2): what comes is closed on exec. PyPy does not name it.
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0x40000000)
_DESCRIPTOR_BYTES = array.array("i").itemsize
_CREDENTIALS = struct.Struct("=iII")


def sendmsg(
    sock: socket.SocketType,
    data: bytes,
    descriptors: Sequence[int] = (),
    flags: int = 0,
    address: Union[str, bytes, None] = None,
) -> int:
    """Send `data`, and duplicates of `descriptors` with it (SCM_RIGHTS, unix(7)); `address` is for a socket
    that is not connected. sendmsg(2). Returns how many bytes of `data` were sent."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    return sock.sendmsg([data], rights, flags, address)


def recvmsg(
    sock: socket.SocketType, size: int, descriptors: int, flags: int = 0
) -> tuple[bytes, list[int], bool]:
    """Up to `size` bytes, up to so many `descriptors` that came with them, and whether that is all of the
    message. The descriptors are the caller's now, and closed on exec. recvmsg(2)."""
    room = socket.CMSG_SPACE(descriptors * _DESCRIPTOR_BYTES)
    data, ancillary, found, _ = sock.recvmsg(size, room, flags | _CLOSE_ON_EXEC)
    numbers = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers.frombytes(content[: len(content) - len(content) % _DESCRIPTOR_BYTES])
    return data, numbers.tolist(), not found & (socket.MSG_TRUNC | socket.MSG_CTRUNC)


def is_listening(sock: socket.SocketType) -> bool:
    """Whether connections can be accepted (SO_ACCEPTCONN, socket(7))."""
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def peer_credentials(sock: socket.SocketType) -> tuple[int, int, int]:
    """Process, user and group at the other end, as they were at connect(2) or listen(2) (struct ucred of
    SO_PEERCRED, unix(7))."""
    ucred = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(ucred)
    return pid, uid, gid


def unacknowledged(descriptor: int) -> int:
    """Bytes that the kernel was given to send and that the other side has not taken yet (SIOCOUTQ, tcp(7); of
    a UNIX socket the memory they occupy)."""
    count = array.array("i", [0])
    fcntl.ioctl(descriptor, termios.TIOCOUTQ, count)  # SIOCOUTQ is another name of it
    return count[0]


# ── Waiting ───────────────────────────────────────────────────────────────────────────────────────────

poll = select.poll  # poll(2)
epoll = select.epoll  # epoll(7)


def epoll_of(descriptor: int) -> select.epoll:
    """The epoll instance of a descriptor, of which this object has a duplicate; it may be none, which a
    method of it says then."""
    return select.epoll.fromfd(os.dup(descriptor))


CALLS = frozenset(name for name, value in [*globals().items()] if name[0] != "_" and callable(value))
"""The names of all calls: what stands above."""

# epoll_ctl(2): wake one of the processes that wait for a listener, not all. PyPy does not name it.
EPOLLEXCLUSIVE: int = getattr(select, "EPOLLEXCLUSIVE", 1 << 28)
