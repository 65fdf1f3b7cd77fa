"""The standard library as it was before the application was loaded: what that patches changes nothing here.

Applications replace what modules hold. gevent and eventlet take `select.epoll` away, and put green threads
and locks into `threading`; freezegun has a `time.monotonic` of its own, and writes it into every module that
knows the other one by a name. So what the server uses beside an application comes from copies of these
modules, made when this one is imported, and known to nobody else:

    from stardust.base.pristine import os, socket

The values are the same objects: constants, functions in C, classes. But a function in Python sees the module
that it was written in: where that matters it is not to be used after the application was loaded
(`socket.socketpair` makes whatever `socket.socket` is by then).

tests/test_floors.py holds that app-side modules import these from here; tests/base/test_pristine.py that
a worker serves when everything in the originals raises. Runs in the application's interpreter (Python 3.9,
PyPy included).
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

NAMES = (
    *("_socket", "_thread", "faulthandler", "fcntl", "gc", "io", "mmap", "os", "queue", "resource"),
    *("select", "signal", "socket", "termios", "time"),
)
"""The modules that are kept."""

if TYPE_CHECKING:
    import _socket as _socket
    import _thread as _thread
    import faulthandler as faulthandler
    import fcntl as fcntl
    import gc as gc
    import io as io
    import mmap as mmap
    import os as os
    import queue as queue
    import resource as resource
    import select as select
    import signal as signal
    import socket as socket
    import termios as termios
    import time as time


def kept(module: ModuleType) -> ModuleType:
    """A module with the same content, which is in no table of modules."""
    copy = ModuleType(module.__name__, module.__doc__)
    vars(copy).update(vars(module))
    return copy


if not TYPE_CHECKING:
    for name in NAMES:
        globals()[name] = kept(importlib.import_module(name))
