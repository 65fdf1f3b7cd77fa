"""Signals as something to wait for, beside all else that an event loop waits for.

Python calls a handler between two instructions, wherever that is. So the handlers here do nothing: the number
of the signal goes into a socket (`signal.set_wakeup_fd`), and the loop that waits for that acts on it in its
turn.

Runs in the application's interpreter too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stardust.base import system
from stardust.base.pristine import signal


class Wakeup:
    """`fileno` is readable when one of `numbers` has come. A process has one of these at most."""

    def __init__(self, numbers: Sequence[signal.Signals]) -> None:
        self._numbers = numbers
        self._reader, self._writer = system.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in numbers:
            signal.signal(number, _do_nothing)

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
        signal.set_wakeup_fd(-1)
        self._reader.close()
        self._writer.close()


def _do_nothing(number: int, frame: Any) -> None:
    pass
