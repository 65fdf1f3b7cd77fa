"""The system calls of the server, all of them in one place, so that a test can let any of them fail.

Whoever needs one calls `system.close(descriptor)`, looked up here at that moment. So who replaces an
attribute of this module replaces the call for the whole process (tests/faults.py does); CALLS has the names
of all. tests/base/test_system.py holds that no module goes past this one.

- Thin: a name for what Python has, which costs nothing, or the few lines that Python leaves to us.
- They raise OSError, as Python does. What cannot fail (getpid(2), umask(2)) is not here.
- What is done with a connection at every request, and waiting, are methods: recv, send, poll, register. The
  objects that have them are made here, so a test hands out others. No request pays a call for it.

Runs in the application's interpreter (Python 3.9, PyPy included). PyPy lacks some of them; those are looked
up when they are called, by the supervisor only.
"""

from __future__ import annotations

import array
import fcntl
import gc
import mmap
import os
import resource
import select
import signal
import socket
import struct
import sys
import termios
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what is callable in this module is a call
    from collections.abc import Sequence
    from typing import Union

# ── Processes ─────────────────────────────────────────────────────────────────────────────────────────


def fork() -> int:
    """0 in the child. fork(2). Looked up when it is called: who patches it wants to know of each child."""
    return os.fork()


waitpid = os.waitpid  # waitpid(2): (process id, wait status)
kill = os.kill  # kill(2)
execve = os.execve  # execve(2)
chdir = os.chdir  # chdir(2)
getcwd = os.getcwd  # getcwd(2): ENOENT if the directory was removed
initgroups = os.initgroups  # setgroups(2)
setgid = os.setgid  # setgid(2)
setuid = os.setuid  # setuid(2)
getrlimit = resource.getrlimit  # getrlimit(2): soft limit, hard limit
setrlimit = resource.setrlimit

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
lstat = os.lstat  # lstat(2)
ftruncate = os.ftruncate  # ftruncate(2)
set_blocking = os.set_blocking  # ioctl(2), FIONBIO
set_inheritable = os.set_inheritable  # ioctl(2), FIONCLEX and FIOCLEX
mkdir = os.mkdir  # mkdir(2)
rename = os.rename  # rename(2)
unlink = os.unlink  # unlink(2)
chmod = os.chmod  # chmod(2)
chown = os.chown  # chown(2): (path, user, group), -1 for what stays
memfd_create = os.memfd_create  # memfd_create(2); closed on exec unless its flags say something else
map_shared = mmap.mmap  # mmap(2), MAP_SHARED: (descriptor, bytes)

# fcntl(2), linux/fcntl.h; PyPy does not name them.
_F_ADD_SEALS = 1033
_ALL_SEALS = 0x0001 | 0x0002 | 0x0004 | 0x0008  # F_SEAL_SEAL, _SHRINK, _GROW, _WRITE


def seal(descriptor: int) -> None:
    """Let nobody change a memory file any more, nor its size (F_ADD_SEALS, fcntl(2))."""
    fcntl.fcntl(descriptor, _F_ADD_SEALS, _ALL_SEALS)


def read_file(path: str, most: int = -1) -> bytes:
    """What is in a file, its first `most` bytes, -1 for all. open(2), read(2)."""
    with open(path, "rb") as file:
        return file.read(most)


# ── Sockets ───────────────────────────────────────────────────────────────────────────────────────────

new_socket = socket.socket  # socket(2); or, with fileno=, the socket of a descriptor
bare_socket = socket.SocketType  # the same without the part of it that is written in Python
socketpair = socket.socketpair  # socketpair(2)
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

CALLS = frozenset(name for name, value in [*globals().items()] if name[0] != "_" and callable(value))
"""The names of all calls: what stands above."""

# epoll_ctl(2): wake one of the processes that wait for a listener, not all. PyPy does not name it.
EPOLLEXCLUSIVE: int = getattr(select, "EPOLLEXCLUSIVE", 1 << 28)

# The signal that makes a stuck worker write its stacks (faulthandler). A real-time one: neither
# applications nor service managers use it.
STACKS_SIGNAL = signal.SIGRTMIN + 5

# ── What is made of them ──────────────────────────────────────────────────────────────────────────────

# /proc/pid/stat, proc(5), counted from the state, which is field 3 and follows the name.
_PARENT, _ARG_START, _ARG_END = 1, 45, 46


def parent(pid: int) -> int:
    """The parent of a process, 0 for none that this one can see. Raises OSError or ValueError if that cannot
    be read."""
    try:
        return int(_status(str(pid))[_PARENT])
    except IndexError:
        raise ValueError(f"/proc/{pid}/stat: unexpected form") from None


def _status(process: str) -> list[bytes]:
    """The fields of /proc/pid/stat behind the name, which may hold anything."""
    return read_file(f"/proc/{process}/stat").rpartition(b")")[2].split()


def name_process(name: str, title: str) -> None:
    """Set what tells this process from others: `name`, 15 bytes at most, where only a program's name is shown
    (`ps -o comm`, `top`), and `title` in the place of its command line (`ps`, `systemctl status`), as far as
    that is long.

    The arguments lie in the process's own memory, and whoever asks for them is shown what is there now.
    """
    try:
        _put("/proc/self/comm", name.encode("ascii", "replace")[:15], 0)
        fields = _status("self")
        start, end = int(fields[_ARG_START]), int(fields[_ARG_END])
        line = title.encode("utf-8", "replace")[: end - start - 1].ljust(end - start, b"\0")
        _put("/proc/self/mem", line, start)
    except OSError:
        pass  # a name is a comfort: /proc may be read-only, or the process have changed its user


def _put(path: str, data: bytes, offset: int) -> None:
    """Write into a file that is there."""
    descriptor = open_descriptor(path, os.O_WRONLY)
    try:
        lseek(descriptor, offset, os.SEEK_SET)
        write(descriptor, data)
    finally:
        close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """Write `data`, in as many pieces as the kernel likes."""
    view = memoryview(data)
    while view:
        view = view[write(descriptor, view) :]


def freeze_heap() -> None:
    """Keep the garbage collector away from all that exists now, so that forked children go on sharing it."""
    gc.collect()
    if hasattr(gc, "freeze"):  # not in PyPy, whose collector writes no counts into objects
        gc.freeze()


def point_stdin_at_nothing() -> None:
    """Reading standard input gets end of file at once: no application waits for a terminal."""
    null = open_descriptor(os.devnull, os.O_RDONLY)
    try:
        dup2(null, 0)
    finally:
        close(null)


def raise_descriptor_limit() -> int:
    """Use as many descriptors as the hard limit allows; systemd sets 1024 soft for select(2)'s sake only.
    Returns what the soft limit was."""
    soft, hard = getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft


def descriptor_limit() -> int:
    """How many descriptors this process may have open."""
    soft, _ = getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else sys.maxsize
