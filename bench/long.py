"""The application of the load "waits": short answers at /, and requests of a second at /sleep and /spin.

long.ru is the same for servers of Ruby; change both together.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

BODY = b"Hello, world!\n"
LENGTH = 1.0  # s
STEPS = 10_000  # of a spin between two looks at the clock: less than a millisecond


def application(environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
    if environ["PATH_INFO"] == "/sleep":
        time.sleep(LENGTH)
    elif environ["PATH_INFO"] == "/spin":
        spin()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))])
    return [BODY]


def spin() -> None:
    """Needs LENGTH of CPU time, however long that takes, and holds the GIL as any Python code does."""
    end = time.thread_time() + LENGTH
    while time.thread_time() < end:
        for _ in range(STEPS):
            pass
