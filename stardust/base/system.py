"""The few things that zygote and worker ask of Linux and that Python wraps thinly or not at all.

Runs in the application's interpreter (Python 3.9, PyPy included).
"""

from __future__ import annotations

import array
import fcntl
import gc
import os
import resource
import select
import signal
import sys
import termios

# epoll_ctl(2): wake one of the processes that wait for a listener, not all. PyPy does not name it.
EPOLLEXCLUSIVE: int = getattr(select, "EPOLLEXCLUSIVE", 1 << 28)

# The signal that makes a stuck worker write its stacks (faulthandler). A real-time one: neither
# applications nor service managers use it.
STACKS_SIGNAL = signal.SIGRTMIN + 5


# proc(5), /proc/pid/stat: fields 48 and 49, counted from the state, which is field 3 and follows the name.
_ARG_START, _ARG_END = 45, 46


def name_process(name: str, title: str) -> None:
    """Set what tells this process from others: `name`, 15 bytes at most, where only a program's name is shown
    (`ps -o comm`, `top`), and `title` in the place of its command line (`ps`, `systemctl status`), as far as
    that is long.

    The arguments lie in the process's own memory, and whoever asks for them is shown what is there now.
    """
    try:
        with open("/proc/self/comm", "wb", buffering=0) as comm:
            comm.write(name.encode("ascii", "replace")[:15])
        with open("/proc/self/stat", "rb") as stat:
            fields = stat.read().rpartition(b")")[2].split()
        start, end = int(fields[_ARG_START]), int(fields[_ARG_END])
        with open("/proc/self/mem", "r+b", buffering=0) as memory:
            memory.seek(start)
            memory.write(title.encode("utf-8", "replace")[: end - start - 1].ljust(end - start, b"\0"))
    except OSError:
        pass  # a name is a comfort: /proc may be read-only, or the process have changed its user


def parent(pid: int) -> int:
    """The parent of a process, 0 for none that this one can see. proc(5), /proc/pid/stat: the second field
    after the name, which ends at the last bracket. Raises OSError or ValueError if that cannot be read."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    try:
        return int(fields[1])
    except IndexError:
        raise ValueError(f"/proc/{pid}/stat: unexpected form") from None


def freeze_heap() -> None:
    """Keep the garbage collector away from all that exists now, so that forked children go on sharing it."""
    gc.collect()
    if hasattr(gc, "freeze"):  # not in PyPy, whose collector writes no counts into objects
        gc.freeze()


def point_stdin_at_nothing() -> None:
    """Reading standard input gets end of file at once: no application waits for a terminal."""
    null = os.open(os.devnull, os.O_RDONLY)
    try:
        os.dup2(null, 0)
    finally:
        os.close(null)


def raise_descriptor_limit() -> int:
    """Use as many descriptors as the hard limit allows; systemd sets 1024 soft for select(2)'s sake only.
    Returns what the soft limit was."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft


def descriptor_limit() -> int:
    """How many descriptors this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else sys.maxsize


def unacknowledged(descriptor: int) -> int:
    """Bytes that the kernel was given to send and that the other side has not taken yet (SIOCOUTQ, tcp(7); of
    a UNIX socket the memory they occupy)."""
    count = array.array("i", [0])
    fcntl.ioctl(descriptor, termios.TIOCOUTQ, count)  # SIOCOUTQ is another name of it
    return count[0]
