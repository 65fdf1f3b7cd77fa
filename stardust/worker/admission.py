"""How many connections a worker takes, in all and of one peer. Pure.

A peer is an IPv4 address, or a subnet of IPv6, 64 bits (RFC 4291 2.5.4): no site gets less,
and within it a client can change its address as it likes. A connection by a UNIX socket has no peer: the mode
of the file decides about that.

Runs in the application's interpreter too.
"""

from __future__ import annotations

import ipaddress
from typing import Union

Peer = Union[str, int]

_RESERVE = 32  # descriptors that are no connections: listeners, epoll, logs, what the application has open
_SHARE = 8  # and one in so many beyond: bodies and responses on disk


def capacity(wanted: int, descriptors: int) -> int:
    """Connections that a worker takes: `wanted` (0: any number), if so many `descriptors` allow it."""
    room = max(1, descriptors - descriptors // _SHARE - _RESERVE)
    return min(wanted, room) if wanted else room


def peer(host: str) -> Peer:
    """The peer that connections from an address count for; "" for none."""
    if ":" not in host:
        return host
    return int(ipaddress.IPv6Address(host)) >> 64


class Admission:
    """Connections by peer. `most` of each, 0 for any number: then none is counted."""

    __slots__ = ("_counts", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        self._counts: dict[Peer, int] = {}

    def full(self, host: str) -> bool:
        """Whether one more from there is one too many."""
        return self.most > 0 and self._counts.get(peer(host), 0) >= self.most

    def enter(self, host: str) -> Peer:
        """Count one more, however many there are. Returns what `forget` wants; "" if none is counted."""
        who = peer(host) if self.most else ""
        if who != "":
            self._counts[who] = self._counts.get(who, 0) + 1
        return who

    def forget(self, who: Peer) -> None:
        """One that was counted has gone. A peer without connections takes no memory."""
        left = self._counts[who] - 1
        if left:
            self._counts[who] = left
        else:
            del self._counts[who]
