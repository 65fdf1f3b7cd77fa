"""What a worker cannot do without: its listeners, epoll, the link, the channel. Are they still there?

An application that closes a number twice closes what has got that number in the meantime. The kernel tells
nobody: epoll forgets what is closed here, or goes on reporting what another process still holds. So the
worker looks once a second while it serves requests, and whenever a call fails that should not.

Runs in the application's interpreter too.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import NamedTuple

from stardust.base import system

LOST = frozenset((errno.EBADF, errno.ENOTSOCK))
"""What calls say of a descriptor that is not what it was."""

EVERY = 1.0  # s; between two looks


class Identity(NamedTuple):
    device: int
    inode: int
    kind: int


class Vitals:
    """`after`: with so many requests served, the next look is due."""

    __slots__ = ("_known", "after")

    def __init__(self) -> None:
        self._known: dict[int, tuple[str, Identity]] = {}
        self.after = 1

    def keep(self, named: Mapping[int, str]) -> None:
        """These descriptors are vital from now on, and that is what they are called."""
        self._known = {number: (name, _identity(number)) for number, name in named.items()}

    def forget(self, number: int) -> None:
        self._known.pop(number, None)

    def lost_any(self) -> bool:
        """Whether there are any, and nothing is forgotten."""
        return not all(_is(number, known) for number, (_, known) in self._known.items())

    def lost(self) -> Mapping[int, str]:
        """Those that were closed, or are something else now, by number; it forgets them."""
        lost = {number: name for number, (name, known) in self._known.items() if not _is(number, known)}
        for number in lost:
            del self._known[number]
        return lost


def _identity(number: int) -> Identity:
    status = system.fstat(number)
    return Identity(status.st_dev, status.st_ino, status.st_mode)


def _is(number: int, known: Identity) -> bool:
    try:
        return _identity(number) == known
    except OSError:
        return False
