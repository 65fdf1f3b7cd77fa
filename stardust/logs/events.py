"""The events that an operator may search for, each with a fixed MESSAGE_ID and an explanation.

The one table. `python tools/manual.py stardust.catalog` renders it for `journalctl -x`. An id, once
released, never changes and never means anything else (sd-id128(3)). @NAME@ in a text is a field that all
records of the event have; `journal.py` lists them.
"""

from __future__ import annotations

from typing import NamedTuple


class Event(NamedTuple):
    """`id`: 32 hexadecimal digits; `subject`: one line; `text`: what it means, and what to do."""

    id: str
    subject: str
    text: str


STARTED = Event(
    "9364bbdbb77d46a68ea6ed53e6382f18",
    "Server started",
    """All workers of generation @STARDUST_GENERATION@ have loaded the application and serve requests.""",
)
RELOADED = Event(
    "fc4d68812ad743bd9dd2540f4b943752",
    "Reload done",
    """Generation @STARDUST_GENERATION@ serves, with the current code and configuration. The workers of the
    generation before it finish their requests and exit.""",
)
RELOAD_FAILED = Event(
    "3eacda8dc9924ddbaa1acc37ce059991",
    "Reload failed",
    """Generation @STARDUST_GENERATION@ could not take over. The generation before it keeps serving, with the
    code that it has loaded; no client was disconnected. The message gives the reason, with the traceback if
    the application's code is at fault. Fix the cause and reload again.""",
)
WORKER_DIED = Event(
    "fc85b6ebdfbe4154845b556d6598b8fa",
    "Worker @STARDUST_WORKER@ died",
    """The process ended although nobody asked it to. Another worker replaces it. If it was serving a request,
    that request is lost; STARDUST_REQUEST= names it.

    SIGSEGV, SIGABRT or SIGBUS point to a compiled module of the application; `coredumpctl` may know more. An
    exit code points to os._exit() in the application's code.""",
)
WORKER_TIMED_OUT = Event(
    "c7829c0e25b841958ef4c7ff88f06e01",
    "Worker @STARDUST_WORKER@ was stuck and is replaced",
    """It ran a request for longer than request-timeout. Or it ran no request and did not answer within
    heartbeat-timeout: in that case something has stopped the process, or it waits for something in the
    kernel. The message ends with the stacks of all its threads, which show where it hung. Another worker
    replaces it.""",
)
OUT_OF_MEMORY = Event(
    "cd2839fbf65246a792c8d4a62c22e302",
    "Worker @STARDUST_WORKER@ was killed because memory ran out",
    """The kernel killed the process because the machine or the unit (MemoryMax=) ran out of memory. Another
    worker replaces it. If it was serving a request, that request is lost; STARDUST_REQUEST= names it.

    `journalctl -k` has the kernel's own report. If memory grows with the number of requests served, a lower
    max-reqs-per-child helps. If all workers are large, have fewer of them (max-workers).""",
)
IDLE_EXIT = Event(
    "1ad252b30a304fd682e14c5176ab015b",
    "Server stops because it is idle",
    """No request came for idle-timeout. systemd holds the sockets; the next connection starts the service
    again.""",
)

NOT_PRELOADED = Event(
    "d00723b2184d4735905af0bfb95b7222",
    "Each worker loads the application for itself",
    """After loading, the application held what does not survive a fork: threads, connections, child processes
    or an event loop; the message lists them. Workers forked from it would share connections, and read each
    other's answers, or hang for want of a thread. So each worker of generation @STARDUST_GENERATION@ loads
    the application for itself: it takes more memory, and longer to start.

    To have it preloaded, open connections and start threads in the function that after-fork names, or at the
    first request. preload = false does what is done now, without this message.""",
)

EVENTS = (
    STARTED,
    RELOADED,
    RELOAD_FAILED,
    WORKER_DIED,
    WORKER_TIMED_OUT,
    OUT_OF_MEMORY,
    IDLE_EXIT,
    NOT_PRELOADED,
)
