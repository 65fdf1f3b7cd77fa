"""An application that replaces all that can be called in the modules of the standard library which a server
could use, by what raises. Python 3.9, standard library."""

from __future__ import annotations

import _thread
import enum
import faulthandler
import fcntl
import gc
import io
import mmap
import os
import queue
import random
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable
from typing import Any

MODULES = (
    *(_thread, faulthandler, fcntl, gc, io, mmap, os, queue, random, resource, select, signal),
    *(socket, subprocess, tempfile, termios, threading, time),
)
# What Python itself calls by these names: in forked children, at its end, for tracebacks.
LEFT = {"os.fork", "os.fspath", "os.fsencode", "os.fsdecode", "threading.RLock", "threading.main_thread"}
LEFT |= {
    "threading.get_ident",
    "threading.current_thread",
    "io.StringIO",
    "io.TextIOWrapper",
    "io.open",
    "threading.enumerate",
}
# Where temporary files are: a name that is looked up once.
LEFT |= {"tempfile.gettempdir"}

PID, SLEEP, OPEN = os.getpid, time.sleep, open

WHAT: dict[str, Callable[[Any], Any]] = {
    "/pid": lambda environ: [str(PID()).encode()],
    "/nap": lambda environ: [str((SLEEP(0.1), PID())[1]).encode()],
    "/echo": lambda environ: [environ["wsgi.input"].read()],
    "/large": lambda environ: [bytes(1 << 20)] * 8,
    "/file": lambda environ: environ["wsgi.file_wrapper"](OPEN(__file__, "rb")),
    "/error": lambda environ: 1 // 0,
}


def poisoned(name: str) -> Any:
    def call(*given: Any, **named: Any) -> Any:
        raise RuntimeError("poisoned: " + name)

    return call


tempfile.gettempdir()
for module in MODULES:
    for key, value in [*vars(module).items()]:
        name = f"{module.__name__}.{key}"
        kept = isinstance(value, type) and issubclass(value, (BaseException, enum.Enum))
        if callable(value) and key[0] != "_" and not kept and name not in LEFT:
            setattr(module, key, poisoned(name))
socket.getdefaulttimeout = poisoned("socket.getdefaulttimeout")
sys.setswitchinterval = poisoned("sys.setswitchinterval")


def application(environ: Any, start_response: Any) -> Any:
    body = WHAT[environ["PATH_INFO"]](environ)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return body
