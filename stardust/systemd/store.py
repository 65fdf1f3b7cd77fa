"""The names under which systemd's descriptor store keeps what is ours: listeners, and idle connections.

The store (FileDescriptorStoreMax= of the unit; FILE_DESCRIPTOR_STORE.md of systemd) keeps a duplicate of what
the service sends it, and hands it back at the next start: behind the sockets of socket units, told apart from
them by name alone. So the name says everything that the next start cannot ask the socket itself:

    bound-84213-ipv6-0.0-127.0.0.1%3A5000
          │     │    │   └ the address as configured: port 0 is still 0, a host name is still a name
          │     │    └ device and inode of a UNIX socket's file; 0.0 without one
          │     └ the setting `ipv6` when it was bound
          └ inode of the socket

The inode of the socket makes the name unique, and it makes certain that the socket is ours: whoever writes
FileDescriptorName= into a socket unit cannot know which inode that socket will have.

That is the name of a listener. Connections all have one and the same short name, CONNECTION, and what must
be known of them stands in a memory file beside them, TABLE (supervisor/custody.py). So one message takes all
of them back; and so they fit into an environment (see `room`), as some two thousand long names would not.

Pure, but for `read`, which looks at the descriptor.
"""

from __future__ import annotations

import re
import stat
from typing import NamedTuple
from urllib.parse import quote, unquote

from stardust.base import address as addresses
from stardust.base import system
from stardust.base.address import Address

# sd_pid_notify_with_fds(3), FDNAME=: "may consist of arbitrary ASCII characters except control characters
# or ":", and may be at most 255 characters long".
LONGEST = 255

# Nothing that a list in an environment variable, or a reader of one, could take for a mark of its own.
_PLAIN = "/@[]"

CONNECTION = "idle"
TABLE = "idle-table"

# LISTEN_FDNAMES is one variable, and may have 128 KiB (execve(2), MAX_ARG_STRLEN): for "idle" and a colon
# each, and more than a third for listeners.
_MOST_NAMES = 16_000

# Listeners, standard streams, and what systemd has open itself when it starts a service.
_OTHERS = 128

_NAME = re.compile(r"bound-([0-9]+)-(ipv4|ipv6)-([0-9]+)\.([0-9]+)-(.+)", re.DOTALL)


class Stored(NamedTuple):
    """What the name of a stored listener says. `file` is (device, inode), None if the socket has no file."""

    inode: int
    ipv6: bool
    file: tuple[int, int] | None
    address: Address


def room(limit: int) -> int:
    """How many connections the next start can be given at most, whose soft limit of descriptors is `limit`
    (LimitNOFILE=). With more, systemd could not start the service at all, again and again.

    systemd moves each descriptor to its place, or to the next number above that is free, and moves on from
    there. Only with as many numbers again as there are descriptors is there always one below the limit.
    """
    return max(0, min(_MOST_NAMES, (limit - _OTHERS) // 2))


def name(stored: Stored) -> str:
    """The name of a listener in the store; "" if it would be too long for one, and cannot be stored."""
    stack = "ipv6" if stored.ipv6 else "ipv4"
    device, file = stored.file or (0, 0)
    text = f"bound-{stored.inode}-{stack}-{device}.{file}-{quote(str(stored.address), safe=_PLAIN)}"
    return text if len(text) <= LONGEST else ""


def parse(text: str) -> Stored | None:
    """What `name` was given; None for a text that it never made."""
    match = _NAME.fullmatch(text)
    if match is None:
        return None
    inode, stack, device, file, address = match.groups()
    try:
        found = addresses.parse(unquote(address, errors="strict"))
    except ValueError:
        return None
    stored = Stored(int(inode), stack == "ipv6", (int(device), int(file)), found)
    if stored.file == (0, 0):
        stored = stored._replace(file=None)
    return stored if name(stored) == text else None


def read(fd: int, text: str) -> Stored | None:
    """What is stored in descriptor `fd`, handed over under the name `text`; None if it is a socket unit's."""
    stored = parse(text)
    status = system.fstat(fd)
    ours = stored is not None and stat.S_ISSOCK(status.st_mode) and status.st_ino == stored.inode
    return stored if ours else None
