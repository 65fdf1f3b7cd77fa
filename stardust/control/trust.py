"""Which processes may command the supervisor. The application may not, although it often runs as the same
user.

The border: root may; the supervisor's own user may, unless the asking process descends from the supervisor.
The supervisor is the subreaper of all it starts (PR_SET_CHILD_SUBREAPER), so an orphan of the application is
handed up to the supervisor, never past it: a descendant stays one. A process is refused if that cannot be
found out.

This keeps an application from stopping or reloading its own server, also by mistake. It is no sandbox: code
that makes another service start a program for it (cron, a user's service manager) is outside of this border.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import NamedTuple

from stardust.base import system

# Longer than any sane chain of processes: a bound for a walk over data that changes under it.
ANCESTORS = 1000


class Peer(NamedTuple):
    """The process that connected, as the kernel noted it at connect(2)."""

    pid: int
    uid: int


def peer(sock: socket.socket) -> Peer:
    """The process at the other end of a UNIX socket."""
    pid, uid, _ = system.peer_credentials(sock)
    return Peer(pid, uid)


def refusal(peer: Peer, *, pid: int, uid: int, parent: Callable[[int], int]) -> str:
    """Why `peer` may not command the supervisor `pid` of user `uid`; "" if it may.

    `parent` gives the parent of a process, 0 for none; OSError or ValueError if that cannot be read. Pure
    otherwise.
    """
    if peer.uid == 0:
        return ""
    if peer.uid != uid:
        return f"user {peer.uid} may not command a server of user {uid}"
    ancestor = peer.pid
    for _ in range(ANCESTORS):
        if ancestor == pid:
            return f"process {peer.pid} belongs to the server, and the application may not command it"
        if ancestor == 1:
            return ""
        try:
            # A peer from an outer pid namespace is seen as process 0 here, and has nothing to read.
            ancestor = parent(ancestor)
        except (OSError, ValueError):
            break
        if ancestor == 0:
            return ""
    return f"cannot tell whether process {peer.pid} belongs to the server"
