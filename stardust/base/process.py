"""What our processes see to at their start, whichever they are: what they are called, what they may use.

All of it is made of the calls in system.py.

Runs in the application's interpreter (Python 3.9, PyPy included).
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from resource import RLIM_INFINITY, RLIMIT_NOFILE

from stardust.base import system

# The signal that makes a stuck worker write its stacks (faulthandler). A real-time one: neither
# applications nor service managers use it.
STACKS_SIGNAL = signal.SIGRTMIN + 5

# /proc/pid/stat, proc(5), counted from the state, which is field 3 and follows the name.
_PARENT, _ARG_START, _ARG_END = 1, 45, 46


def parent(pid: int) -> int:
    """The parent of a process, 0 for none that this one can see. Raises OSError or ValueError if that cannot
    be read."""
    try:
        return int(_status(str(pid))[_PARENT])
    except IndexError:
        raise ValueError(f"/proc/{pid}/stat: unexpected form") from None


def described(status: int) -> str:
    """How a process ended, in words, by its wait status."""
    if os.WIFEXITED(status):
        return f"exit code {os.WEXITSTATUS(status)}"
    number = os.WTERMSIG(status)
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    return f"killed by {name}"


def state(pid: int) -> str:
    """The state of a process: "S" sleeping, "Z" a zombie (proc(5)). Raises OSError."""
    return _status(str(pid))[0].decode("ascii", "replace")


def _status(process: str) -> list[bytes]:
    """The fields of /proc/pid/stat behind the name, which may hold anything."""
    return system.read_file(f"/proc/{process}/stat").rpartition(b")")[2].split()


def name_process(name: str, title: str) -> None:
    """Set what tells this process from others: `name`, 15 bytes at most, where only a program's name is shown
    (`ps -o comm`, `top`), and `title` in the place of its command line (`ps`, `systemctl status`), as far as
    that is long.

    The arguments lie in the process's own memory, and ps(1) shows what is there now.
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
    descriptor = system.open_descriptor(path, os.O_WRONLY)
    try:
        system.lseek(descriptor, offset, os.SEEK_SET)
        system.write(descriptor, data)
    finally:
        system.close(descriptor)


def freeze_heap() -> None:
    """Keep the garbage collector away from all that exists now, so that forked children go on sharing it."""
    gc.collect()
    if hasattr(gc, "freeze"):  # not in PyPy, whose collector writes no counts into objects
        gc.freeze()


def point_stdin_at_nothing() -> None:
    """Reading standard input gets end of file at once: no application waits for a terminal."""
    null = system.open_descriptor(os.devnull, os.O_RDONLY)
    try:
        system.dup2(null, 0)
    finally:
        system.close(null)


def raise_descriptor_limit() -> int:
    """Use as many descriptors as the hard limit allows; systemd sets 1024 soft for select(2)'s sake only.
    Returns what the soft limit was."""
    soft, hard = system.getrlimit(RLIMIT_NOFILE)
    if soft < hard:
        system.setrlimit(RLIMIT_NOFILE, (hard, hard))
    return soft


def descriptor_limit() -> int:
    """How many descriptors this process may have open."""
    soft, _ = system.getrlimit(RLIMIT_NOFILE)
    return soft if soft != RLIM_INFINITY else sys.maxsize
