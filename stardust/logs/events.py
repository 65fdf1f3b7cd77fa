"""What happens to a server that somebody may look for: each with a fixed MESSAGE_ID and a text to explain it.

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
    """Every worker of generation @STARDUST_GENERATION@ has loaded the application, and requests are
    served.""",
)
RELOADED = Event(
    "fc4d68812ad743bd9dd2540f4b943752",
    "Reload done",
    """Generation @STARDUST_GENERATION@, with code and configuration as they are now, serves. The workers of
    the one before it finish what they began, and leave.""",
)
RELOAD_FAILED = Event(
    "3eacda8dc9924ddbaa1acc37ce059991",
    "Reload failed",
    """Generation @STARDUST_GENERATION@ could not take over. The one before it goes on serving, with the code
    that it has loaded; nobody was disconnected. The message says why, with the application's traceback if
    it was its code. Mend the cause and reload again.""",
)
WORKER_DIED = Event(
    "fc85b6ebdfbe4154845b556d6598b8fa",
    "Worker @STARDUST_WORKER@ died",
    """The process ended without having been asked to; another one takes its place. If it was serving a
    request, that is lost, and STARDUST_REQUEST= names it.

    SIGSEGV, SIGABRT or SIGBUS point to a compiled module of the application; `coredumpctl` may know more. An
    exit code points to os._exit() in the application's code.""",
)
WORKER_TIMED_OUT = Event(
    "c7829c0e25b841958ef4c7ff88f06e01",
    "Worker @STARDUST_WORKER@ was stuck and is replaced",
    """It ran a request for longer than request-timeout, or ran none and did not answer for longer than
    heartbeat-timeout: then it was stopped, or waits for something in the kernel. The message ends with the
    stacks of all threads of the process, which say where it hung. Another worker takes its place.""",
)
OUT_OF_MEMORY = Event(
    "cd2839fbf65246a792c8d4a62c22e302",
    "Worker @STARDUST_WORKER@ was killed for want of memory",
    """The kernel killed the process because the machine or the unit (MemoryMax=) ran out of memory; another
    one takes its place. If it was serving a request, that is lost, and STARDUST_REQUEST= names it.

    The kernel's own report is in `journalctl -k`. If memory grows with the number of requests served, a lower
    max-reqs-per-child helps; if all workers are large, fewer of them (max-workers).""",
)
IDLE_EXIT = Event(
    "1ad252b30a304fd682e14c5176ab015b",
    "Server stops, for nobody needs it",
    """No request came for as long as idle-timeout says. systemd holds the sockets; the next connection
    starts the service again.""",
)

EVENTS = (STARTED, RELOADED, RELOAD_FAILED, WORKER_DIED, WORKER_TIMED_OUT, OUT_OF_MEMORY, IDLE_EXIT)
