"""The few things that zygote and worker ask of Linux and that Python wraps thinly or not at all.

Runs in the application's interpreter (Python 3.9, PyPy included).
"""

from __future__ import annotations

import gc
import os
import resource
import select
import signal

# epoll_ctl(2): wake one of the processes that wait for a listener, not all. PyPy does not name it.
EPOLLEXCLUSIVE: int = getattr(select, "EPOLLEXCLUSIVE", 1 << 28)

# The signal that makes a stuck worker write its stacks (faulthandler). A real-time one: neither
# applications nor service managers use it.
STACKS_SIGNAL = signal.SIGRTMIN + 5


def name_process(name: str) -> None:
    """Set what `ps -o comm` and `top` show for this process: 15 bytes at most (proc(5), /proc/pid/comm)."""
    try:
        with open("/proc/self/comm", "wb", buffering=0) as comm:
            comm.write(name.encode("ascii", "replace")[:15])
    except OSError:
        pass  # a name is a comfort: a read-only /proc must not stop anybody


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


def raise_descriptor_limit() -> None:
    """Use as many descriptors as the hard limit allows; systemd sets 1024 soft for select(2)'s sake only."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
