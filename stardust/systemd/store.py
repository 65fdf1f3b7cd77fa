"""The names under which systemd's descriptor store keeps the listeners that we bound ourselves.

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

Pure, but for `read`, which looks at the descriptor.
"""

from __future__ import annotations

import os
import re
import stat
from typing import NamedTuple
from urllib.parse import quote, unquote

from stardust import address as addresses
from stardust.address import Address

# sd_pid_notify_with_fds(3), FDNAME=: "may consist of arbitrary ASCII characters except control characters
# or ":", and may be at most 255 characters long".
LONGEST = 255

# Nothing that a list in an environment variable, or a reader of one, could take for a mark of its own.
_PLAIN = "/@[]"

_NAME = re.compile(r"bound-([0-9]+)-(ipv4|ipv6)-([0-9]+)\.([0-9]+)-(.+)", re.DOTALL)


class Stored(NamedTuple):
    """What the name of a stored listener says. `file` is (device, inode), None if the socket has no file."""

    inode: int
    ipv6: bool
    file: tuple[int, int] | None
    address: Address


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
    status = os.fstat(fd)
    ours = stored is not None and stat.S_ISSOCK(status.st_mode) and status.st_ino == stored.inode
    return stored if ours else None
