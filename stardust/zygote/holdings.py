"""What an application holds once it is loaded, as far as a fork would break it.

fork(2) copies memory and descriptors, and of all threads only the one that calls it. So workers that are
forked from a process with other threads miss these; on a connection that they share each reads answers meant
for another; a child process has one parent; and an event loop's epoll is one for all of them.

    look ─▶ findings, each a text for people; none: nothing speaks against forking

What does not count:

- Descriptors that were open before the application was loaded: `known`, which `descriptors` gives.
- Threads whose owner watches for forks. It starts them again in the child (os.register_at_fork): a thread of
  the same class and name is there again in a *scout*, a child that is forked to see that and ends at once. Or
  it ends them before the fork (pthread_atfork(3): OpenBLAS does): they are gone when the scout is back. Or it
  starts them when they are used next and the process is another: an object that holds the thread holds the
  process id too, and compares that with os.getpid() in its code.
- Sockets that nobody answers on: datagrams from a socket without a name, such as those to syslog.
- Zombies, and what ends within a moment.

Runs in the application's interpreter (Python 3.9, PyPy included).
"""

from __future__ import annotations

import errno
import importlib
import json
import re
import stat
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple, Optional

from stardust.base import process, system
from stardust.base.pristine import gc, os, select, signal, socket, time
from stardust.worker import forked

_MOMENT = 0.1  # s; a thread that was joined may be there that long: the kernel ends it after Python does
_LOOK_AGAIN = 0.005  # s
_PATIENCE = 2.0  # s; for the scout: a hook that takes longer hangs for want of a thread
_MOST = 20  # findings that are told
_MOST_ASKED = 32  # threads of which the owner is looked for: that takes as long as the heap is large
_LONGEST = 120  # characters of a name or a command
_SYN_SENT = 2  # of TCP_INFO: tcp(7), netinet/tcp.h
_EPOLL = "anon_inode:[eventpoll]"
_LOOPS = {_EPOLL: "epoll", "anon_inode:[io_uring]": "io_uring"}
_GAP = 1024  # numbers in a row that are free, and behind which nothing is looked for
_CONTAINERS = (list, set, tuple, dict)
_UDP = (socket.AF_INET, socket.AF_INET6)

Kind = tuple[str, str]
"""Of a thread: its class and name, without what only counts. C code's have "" and the kernel's name."""


class Task(NamedTuple):
    """A thread of this process. `thread` is None if Python does not know it."""

    number: int
    thread: Optional[threading.Thread]
    name: str

    @property
    def kind(self) -> Kind:
        if self.thread is None:
            return "", self.name
        return _class_name(type(self.thread)), re.sub(r"\d+", "#", self.thread.name)


def descriptors() -> Mapping[int, str]:
    """What this process has open: by number, what /proc says that it is, or would say."""
    found = {}
    for name in _names("/proc/self/fd"):
        try:
            found[int(name)] = system.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # that of the listing itself
    return found or _tried_descriptors()


def _names(directory: str) -> list[str]:
    """What is in it; nothing if it may not be read, or is not there."""
    try:
        return system.listdir(directory)
    except OSError:
        return []


def _tried_descriptors() -> Mapping[int, str]:
    """The same, as far as it can be found out by trying: a process that has changed its user may not read
    what /proc says of it (proc(5), "dumpable"). The kernel gives the lowest number that is free."""
    found: dict[int, str] = {}
    number = last = 0
    reader, writer = system.pipe()
    try:
        while number < last + _GAP:
            try:
                status = system.fstat(number)
            except OSError:
                number += 1
                continue
            if stat.S_ISSOCK(status.st_mode):
                found[number] = f"socket:[{status.st_ino}]"
            elif stat.S_IFMT(status.st_mode) == 0 and _is_epoll(number, reader):
                found[number] = _EPOLL
            last = number
            number += 1
    finally:
        system.close(reader)
        system.close(writer)
    return found


def _is_epoll(number: int, stranger: int) -> bool:
    """Whether it answers as one when it is asked for a descriptor that it does not have. epoll_ctl(2)."""
    try:
        system.epoll_of(number).unregister(stranger)
    except OSError as fault:
        return fault.errno == errno.ENOENT
    return False


def look(known: Mapping[int, str]) -> tuple[str, ...]:
    """What would break. To be called before the heap is frozen: whoever holds a thread is found in it."""
    gc.collect()  # what is garbage already holds nothing
    threads = _threads()
    opened = {number: link for number, link in descriptors().items() if known.get(number) != link}
    found = [*map(_told_thread, threads), *_connections(opened), *_loops(opened), *_children()]
    if len(found) > _MOST:
        found[_MOST:] = [f"{len(found) - _MOST} more"]
    return tuple(found)


# ── Threads ───────────────────────────────────────────────────────────────────────────────────────────


def _threads() -> list[Task]:
    """The threads that a fork would lose for good."""
    until = time.monotonic() + _MOMENT
    while (before := tasks()) and time.monotonic() < until:
        time.sleep(_LOOK_AGAIN)
    if not before:
        return []
    again = _scout()
    there = {task.number for task in tasks()}
    lost: list[Task] = []
    for task in before:
        if task.number not in there:
            continue
        if again[task.kind]:
            again[task.kind] -= 1
        elif task.thread is None or len(lost) > _MOST_ASKED or not watched(task.thread):
            lost.append(task)
    return lost


def tasks() -> list[Task]:
    """All threads of this process but the main one."""
    own = os.getpid()
    named = {getattr(thread, "native_id", None): thread for thread in threading.enumerate()}
    numbers = {int(name) for name in _names("/proc/self/task")} or {each for each in named if each}
    found = []
    for number in numbers - {own}:
        try:
            comm = "" if number in named else _comm(number)
        except OSError:
            continue  # it has ended
        found.append(Task(number, named.get(number), comm))
    return sorted(found, key=lambda task: task.number)


def _comm(number: int) -> str:
    """What the kernel calls a thread. Raises OSError."""
    return system.read_file(f"/proc/self/task/{number}/comm").decode("utf-8", "replace").strip()


def _scout() -> Counter[Kind]:
    """The threads that are there again in a forked child, counted by kind."""
    try:
        reader, writer = system.pipe()
        with forked.ours():
            pid = system.fork()
    except OSError:
        return Counter()  # what the workers will meet too
    if pid == 0:
        try:
            system.write(writer, json.dumps([task.kind for task in tasks()]).encode() + b"\n")
        finally:
            os._exit(0)
    system.close(writer)
    try:
        line = _line(reader)
        if not line.endswith(b"\n"):
            system.kill(pid, signal.SIGKILL)
            return Counter()
        return Counter((first, second) for first, second in json.loads(line))
    finally:
        system.close(reader)
        try:
            system.waitpid(pid, 0)
        except ChildProcessError:
            pass  # the application ignores SIGCHLD, so the kernel has reaped it


def _line(reader: int) -> bytes:
    """What comes until the end of the line, or until it takes too long. What the scout starts may hold its
    end of the pipe open."""
    until = time.monotonic() + _PATIENCE
    poll = system.poll()
    poll.register(reader, select.POLLIN)
    received = b""
    while poll.poll(max(0.0, until - time.monotonic()) * 1000):
        data = system.read(reader, 65536)
        received += data
        if not data or data.endswith(b"\n"):
            return received
    return b""


def watched(thread: threading.Thread) -> bool:
    """Whether the owner of a thread sees that the process has become another one, and starts it again."""
    own = os.getpid()
    for owner in _owners(thread):
        for name, value in _namespace(owner).items():
            if type(value) is int and value == own and any(_compares(each, name) for each in _codes(owner)):
                return True
    return False


def _owners(thing: object, deeper: bool = True) -> Iterator[object]:
    """The objects that have `thing` as an attribute, itself or in a container; modules among them."""
    for each in gc.get_referrers(thing):
        if type(each) not in _CONTAINERS:
            yield each
            continue
        found = False
        for holder in gc.get_referrers(each) if isinstance(each, dict) else ():
            if _namespace(holder) is each:
                found = True
                yield holder
        if deeper and not found:
            yield from _owners(each, False)


def _namespace(thing: object) -> Mapping[str, object]:
    """Its attributes, without asking its own code, which may be anything."""
    try:
        names: Mapping[str, object] = object.__getattribute__(thing, "__dict__")
    except AttributeError:
        return {}
    return names


def _codes(owner: object) -> Iterator[CodeType]:
    """The code of its methods, or of a module's functions."""
    spaces = [vars(owner)] if isinstance(owner, ModuleType) else [vars(each) for each in type(owner).__mro__]
    for space in spaces:
        for value in [*space.values()]:
            function = getattr(value, "fget", None) if isinstance(value, property) else value
            if isinstance(function, FunctionType):
                yield function.__code__


def _compares(code: CodeType, name: str) -> bool:
    """Whether it reads the attribute, or global, of that name, and asks for the process id."""
    if name not in code.co_names or "getpid" not in code.co_names:
        return False
    dis = importlib.import_module("dis")  # for a few; the others need not pay for it
    return any(each.opname.startswith("LOAD_") and each.argval == name for each in dis.get_instructions(code))


def _told_thread(task: Task) -> str:
    if task.thread is None:
        return f'thread of compiled code (task {task.number}, "{task.name}")'
    text = f'thread "{task.thread.name[:_LONGEST]}"'
    kind = type(task.thread)
    if kind is not threading.Thread:
        return f"{text} ({_class_name(kind)})"
    target: Any = getattr(task.thread, "_target", None)
    place = getattr(target, "__module__", "")
    return f"{text} ({place}.{target.__qualname__})" if place and hasattr(target, "__qualname__") else text


def _class_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


# ── Descriptors ───────────────────────────────────────────────────────────────────────────────────────


def _connections(opened: Mapping[int, str]) -> Iterator[str]:
    pairs = []
    for number, link in opened.items():
        if not link.startswith("socket:"):
            continue
        try:
            with system.new_socket(fileno=system.dup(number)) as sock:
                peer = _peer(sock)
        except OSError:
            continue  # not connected
        if peer == "":
            pairs.append(str(number))
        elif peer is not None:
            yield f"{peer} (descriptor {number})"
    if pairs:
        yield (
            f"socket pair (descriptors {', '.join(pairs)})"
            if len(pairs) > 1
            else (f"connection without an address (descriptor {pairs[0]})")
        )


def _peer(sock: socket.socket) -> Optional[str]:
    """A text about the connection of a socket, "" if its peer has no name; None if nothing can come on it.
    Raises OSError if it has none."""
    datagrams = sock.type == socket.SOCK_DGRAM
    try:
        name = sock.getpeername()
    except OSError:
        if sock.family in _UDP and not datagrams and _is_connecting(sock):
            return "connection that is being made"
        raise
    if sock.family in _UDP:
        host = f"[{name[0]}]" if ":" in name[0] else name[0]
        return f"{'UDP ' if datagrams else ''}connection to {host}:{name[1]}"
    if sock.family != socket.AF_UNIX:
        return f"connection of {getattr(sock.family, 'name', sock.family)}"
    if datagrams and not sock.getsockname():
        return None
    path = os.fsdecode(name)
    if path.startswith("\0"):
        path = f"@{path[1:]}"
    own = os.fsdecode(sock.getsockname())
    return f"connection to {path}" if path else f"connection of {own}" if own else ""


def _is_connecting(sock: socket.socket) -> bool:
    return system.getsockopt(sock, socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _SYN_SENT


def _loops(opened: Mapping[int, str]) -> Iterator[str]:
    for number, link in opened.items():
        if link in _LOOPS:
            yield f"event loop ({_LOOPS[link]}, descriptor {number})"


# ── Children ──────────────────────────────────────────────────────────────────────────────────────────


def children() -> list[int]:
    """The child processes that have not ended. All of /proc: not every kernel lists them."""
    own = os.getpid()
    found = []
    for name in _names("/proc"):
        if not name.isdigit():
            continue
        try:
            if process.parent(int(name)) == own and not process.is_zombie(int(name)):
                found.append(int(name))
        except (OSError, ValueError):
            continue  # it has ended
    return found


def _children() -> Iterator[str]:
    for pid in children():
        try:
            words = system.read_file(f"/proc/{pid}/cmdline").decode("utf-8", "replace").split("\0")
        except OSError:
            continue
        yield f"child process {pid} ({' '.join(words).strip()[:_LONGEST]})"


def end_children() -> None:
    """Ask them to end, whose parent ends: they are nobody's any more."""
    for pid in children():
        try:
            system.kill(pid, signal.SIGTERM)
        except OSError:
            continue
