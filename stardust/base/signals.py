"""Signals as something to wait for, beside all else that an event loop waits for.

Python calls a handler between two instructions, wherever that is. So the handlers here do nothing: the number
of the signal goes into a socket (`signal.set_wakeup_fd`), and the loop that waits for that acts on it in its
turn. An event loop of the application takes that place (`loop.add_signal_handler`), and leaves it empty; then
the handler writes the number itself.

What is to be ignored gets a handler that does nothing: SIG_IGN would stay when another program is executed,
and SIGINT could not end a `sleep` that the application starts (execve(2)).

Runs in the application's interpreter too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from stardust.base import system
from stardust.base.pristine import signal

# Sent to a terminal's whole process group, or meant for the supervisor: no business of a worker.
MEANT_FOR_OTHERS = (
    *(signal.SIGINT, signal.SIGQUIT, signal.SIGHUP),
    *(signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1),
)

_ours: dict[signal.Signals, Callable[[int, Any], None]] = {}
"""The handlers of this process that are ours, unless somebody has replaced them."""


class Wakeup:
    """`fileno` is readable when one of `numbers` has come. A process has one of these at most."""

    def __init__(self, numbers: Sequence[signal.Signals]) -> None:
        self._numbers = numbers
        self._reader, self._writer = system.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._descriptor = self._writer.fileno()
        signal.set_wakeup_fd(self._descriptor, warn_on_full_buffer=False)
        for number in numbers:
            handle(number, self._come)

    def fileno(self) -> int:
        return self._reader.fileno()

    def take(self) -> list[signal.Signals]:
        """Which have come since the last call: each once, in the order of `numbers`."""
        try:
            come = set(self._reader.recv(4096))
        except BlockingIOError:
            return []
        return [number for number in self._numbers if number in come]

    def close(self) -> None:
        """Signals do nothing any more."""
        self._descriptor = -1
        signal.set_wakeup_fd(-1)
        self._reader.close()
        self._writer.close()

    def forsake(self) -> None:
        """In a forked child: signals are no longer told to its parent."""
        mine, self._descriptor = self._descriptor, -1
        taken = signal.set_wakeup_fd(-1)
        if taken not in (mine, -1):
            signal.set_wakeup_fd(taken)  # the application's
        self._reader.close()
        self._writer.close()

    def _come(self, number: int, frame: Any) -> None:
        """Python's part of it, which follows."""
        if self._descriptor < 0:
            return
        taken = signal.set_wakeup_fd(self._descriptor, warn_on_full_buffer=False)
        if taken == self._descriptor:
            return
        if taken != -1:
            signal.set_wakeup_fd(taken)  # it is in use: an event loop of the application runs
        try:
            self._writer.send(bytes((number,)))
        except BlockingIOError:
            pass  # it is known that some have come


def ignore(numbers: Sequence[signal.Signals]) -> None:
    """They do nothing here, and what they do elsewhere in a program that is executed."""
    for number in numbers:
        handle(number, _do_nothing)
        signal.siginterrupt(number, False)


def restore() -> None:
    """In a forked child: what was ours is what it is in any program."""
    for number, handler in _ours.items():
        if signal.getsignal(number) == handler:
            usual: Any = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, usual)
    _ours.clear()


def handle(number: signal.Signals, handler: Callable[[int, Any], None]) -> None:
    """Have a handler of our own, which a forked child does not keep."""
    signal.signal(number, handler)
    _ours[number] = handler


def _do_nothing(number: int, frame: Any) -> None:
    pass


class SetAside:
    """SIGCHLD as the application has set it. With SIG_IGN, or a handler that waits for everybody, a process
    of the server would end without anybody learning how (waitpid(2), ECHILD)."""

    def __init__(self) -> None:
        self._theirs: Any = None

    def take(self) -> None:
        """It has its default from now on."""
        found = signal.getsignal(signal.SIGCHLD)
        if found is not None and found != signal.SIG_DFL:
            self._theirs = found
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def give_back(self) -> None:
        """In a process that has no children of the server's."""
        if self._theirs is not None:
            signal.signal(signal.SIGCHLD, self._theirs)
