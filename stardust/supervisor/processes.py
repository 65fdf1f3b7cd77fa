"""Processes as the supervisor handles them: start a zygote, signal without races, tell how one ended."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Never, NoReturn

from stardust.base import process, system
from stardust.ipc import messages
from stardust.ipc.channel import Channel, pair

_BOOT = str(Path(__file__).resolve().parent.parent / "zygote" / "boot.py")
_PR_SET_CHILD_SUBREAPER = 36  # prctl(2), linux/prctl.h
_MOST_STACKS = 64 * 1024  # bytes of a worker's stacks


def become_subreaper() -> None:
    """Adopt the orphans among our descendants (PR_SET_CHILD_SUBREAPER, prctl(2)).

    So a worker whose zygote died can still be waited for, and nothing that the application starts can make
    itself look like a stranger to the control socket.
    """
    system.prctl(_PR_SET_CHILD_SUBREAPER, 1)


ZygoteChannel = Channel[messages.FromZygote, messages.ToZygote]


def start_zygote(interpreter: str, environ: Mapping[str, str]) -> tuple[int, ZygoteChannel]:
    """Start `interpreter` as a zygote: its process id and our end of its channel.

    It is in a process group of its own, so that Ctrl-C reaches the supervisor only. Raises OSError if the
    interpreter cannot be executed.
    """
    ours, theirs = pair()
    with theirs:
        theirs.set_inheritable(True)
        command = [interpreter, _BOOT, str(theirs.fileno())]
        try:
            pid = system.posix_spawn(
                interpreter,
                command,
                environ,
                [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
                group=0,
            )
        except OSError:
            ours.close()
            raise
    return pid, Channel(ours, messages.SUPERVISOR_OF_ZYGOTE)


def replace_by_server(interpreter: str, environ: Mapping[str, str], waiting: socket.socket) -> NoReturn:
    """Become `interpreter`, with what is to be served waiting in the channel end `waiting` (execve(2))."""
    waiting.set_inheritable(True)
    system.execve(interpreter, [interpreter, _BOOT, str(waiting.fileno())], dict(environ))


def signal_process(pidfd: int, number: int) -> None:
    """Send a signal to the very process of `pidfd`; nothing happens if it has ended already."""
    try:
        system.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        pass


def open_pidfd(pid: int, zygote: int) -> int | None:
    """A pidfd of a worker. Its zygote reaps it only on our word; None if it is gone all the same.

    Also None if it is not a child of its `zygote` (0: dead), nor ours (`become_subreaper`). The zygote, which
    said the number, runs the application, and we may have the right to kill where it has not.
    """
    try:
        pidfd = system.pidfd_open(pid)
    except (OSError, OverflowError):  # ESRCH; EINVAL for a number that cannot be one
        return None
    if _parent(pid) not in {zygote, os.getpid()} - {0}:
        system.close(pidfd)
        return None
    return pidfd


def _parent(pid: int) -> int:
    """The parent of a process, 0 if it has none that we can know."""
    try:
        return process.parent(pid)
    except OSError:
        return 0


def next_message(channel: Channel[messages.Heard, Never]) -> messages.Heard | None:
    """The next message; None if none has come, or none will come any more (`channel.at_end`). ChannelError:
    it is invalid."""
    if channel.at_end:
        return None
    try:
        return channel.receive()
    except BlockingIOError:
        return None


def memory_for_stacks() -> int:
    """A descriptor for a worker to write its stacks to (faulthandler), and for us to read them from."""
    return system.memfd_create("stardust-stacks", os.MFD_CLOEXEC)


def read_stacks(descriptor: int) -> str:
    """The last `_MOST_STACKS` bytes of what was written, from the beginning of a line."""
    start = max(0, system.fstat(descriptor).st_size - _MOST_STACKS)
    text = system.pread(descriptor, _MOST_STACKS, start).decode("utf-8", "replace")
    return text.partition("\n")[2] if start else text


def own_children() -> list[int]:
    """The process ids of all children of this process, zombies too; none where the kernel does not tell
    (/proc/pid/task/tid/children, proc(5): CONFIG_PROC_CHILDREN)."""
    pid = os.getpid()
    try:
        return [int(each) for each in system.read_file(f"/proc/{pid}/task/{pid}/children").split()]
    except OSError:
        return []


def has_ended(pid: int) -> bool:
    """Whether a child of ours has, and only waits to be reaped."""
    try:
        return process.is_zombie(pid)
    except OSError:
        return False


def command_of(pid: int) -> str:
    """What a process is called by, for people: its command line, or its name, "?" if neither can be read."""
    for name in ("cmdline", "comm"):
        try:
            data = system.read_file(f"/proc/{pid}/{name}", 200)
        except OSError:
            continue
        text = data.replace(b"\0", b" ").decode("utf-8", "replace").strip()
        if text:
            return text if text.isprintable() else repr(text)
    return "?"


def ended_children() -> list[tuple[int, int]]:
    """Process id and wait status of each child that has ended since the last call; they are reaped."""
    ended: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = system.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if not pid:
            return ended
        ended.append((pid, status))
