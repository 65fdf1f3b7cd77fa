"""Let a system call fail: the n-th of all, or of some, with a given errno.

    with failing(3, errno.ENOSPC, only=["write"]) as faults:
        …
    assert faults.raised == "write"

It replaces what stands in `stardust.base.system`, which is where the server makes its calls. Objects made
there (sockets, epoll, poll) are replaced as well, and what METHODS names of them is counted by that name:
"recv", "epoll_wait". With n = 0 nothing fails: so a test learns which calls there are, one after the other.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from stardust.base import system

# By method, what it counts as.
SOCKET_METHODS = {
    "recv": "recv",
    "send": "send",
    "sendall": "send",
    "shutdown": "shutdown",
    "setsockopt": "setsockopt",  # where nobody knows whether it is a socket (worker/stream.py)
}
EPOLL_METHODS = {"poll": "epoll_wait", **dict.fromkeys(("register", "modify", "unregister"), "epoll_ctl")}
POLL_METHODS = {"poll": "poll_wait"}
METHODS = frozenset((*SOCKET_METHODS.values(), *EPOLL_METHODS.values(), *POLL_METHODS.values()))

ALL = system.CALLS | METHODS

# What makes objects, and of what class they are: one to inherit from, or one that nobody can inherit from.
CLASSES: dict[str, type[Any]] = {"new_socket": socket.socket, "bare_socket": socket.SocketType}
PROXIED = {"epoll": EPOLL_METHODS, "poll": POLL_METHODS}

# Linux closes the descriptor whatever close(2) then says.
DONE_ALL_THE_SAME = {"close"}


class Faults:
    """`calls`: the names of those that were made, in order, up to now; `raised`: the one that failed, "" for
    none so far."""

    def __init__(self, nth: int, fault: int, only: Collection[str]) -> None:
        assert set(only) <= ALL, f"no such call: {set(only) - ALL}"
        self.calls: list[str] = []
        self.raised = ""
        self._nth = nth
        self._fault = fault
        self._only = frozenset(only)
        self._lock = threading.Lock()

    def wrapped(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """`call`, counted under `name`; it may fail."""
        if name not in self._only:
            return call

        def counted(*given: Any, **named: Any) -> Any:
            if not self._is_due(name):
                return call(*given, **named)
            if name in DONE_ALL_THE_SAME:
                call(*given, **named)
            raise OSError(self._fault, os.strerror(self._fault))

        return counted

    def replaced(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """`wrapped`; and what it makes, if that is an object, counts its own calls."""
        if name in CLASSES:
            return self.wrapped(name, self._subclass(CLASSES[name]))
        counted = self.wrapped(name, call)
        if name in PROXIED:
            return lambda: Proxy(self, counted(), PROXIED[name])
        if name == "accept":
            return lambda *given: self._both(counted(*given))
        if name == "socketpair":
            return lambda *given: tuple(map(self._socket, counted(*given)))
        return counted

    def _both(self, accepted: tuple[socket.socket, object]) -> tuple[socket.socket, object]:
        return self._socket(accepted[0]), accepted[1]

    def _socket(self, sock: socket.socket) -> socket.socket:
        kind: type[socket.socket] = self._subclass(socket.socket)
        return kind(sock.family, sock.type, sock.proto, fileno=sock.detach())

    def _subclass(self, kind: type[Any]) -> type[Any]:
        """Sockets that fail: of the same class, for whoever looks."""
        methods = {
            method: self.wrapped(name, getattr(kind, method)) for method, name in SOCKET_METHODS.items()
        }
        return type(kind.__name__, (kind,), {"__slots__": (), **methods})

    def _is_due(self, name: str) -> bool:
        with self._lock:
            self.calls.append(name)
            if len(self.calls) != self._nth:
                return False
            self.raised = name
            return True


class Proxy:
    """An object of a class that nobody can inherit from."""

    def __init__(self, faults: Faults, behind: Any, methods: dict[str, str]) -> None:
        self._behind = behind
        for method, name in methods.items():
            setattr(self, method, faults.wrapped(name, getattr(behind, method)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._behind, name)


@contextmanager
def failing(nth: int, fault: int, *, only: Collection[str] = ALL) -> Iterator[Faults]:
    """The `nth` call of those in `only`, counted from 1, is not made but raises OSError with the errno
    `fault`; all others are made."""
    faults = Faults(nth, fault, only)
    with ExitStack() as stack:
        for name in system.CALLS:
            stack.enter_context(mock.patch.object(system, name, faults.replaced(name, getattr(system, name))))
        yield faults
