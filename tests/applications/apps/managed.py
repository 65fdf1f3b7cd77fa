"""Starts a process while it is loaded, which is to serve all workers. And does not wait for its children."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

MANAGER = multiprocessing.get_context("fork").Manager()
COUNTS = MANAGER.dict()

signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    COUNTS["requests"] = COUNTS.get("requests", 0) + 1
    ignored = signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{COUNTS['requests']} {os.getpid()} {ignored}".encode()]
