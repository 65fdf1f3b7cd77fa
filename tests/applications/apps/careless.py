"""An application that closes, replaces or unblocks descriptors of the server. Python 3.9."""

from __future__ import annotations

import os
import select
import socket
from typing import Any


def kind_of(number: int) -> str:
    try:
        link = os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        return ""
    if "eventpoll" in link:
        return "epoll"
    if not link.startswith("socket:"):
        return link.partition(":")[0]
    with socket.socket(fileno=os.dup(number)) as sock:
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return "listener"
        return {socket.SOCK_SEQPACKET: "packets", socket.SOCK_STREAM: "stream"}.get(sock.type, "")


def damage(how: str, kind: str, which: str) -> None:
    found = [number for number in range(3, 64) if kind_of(number) == kind]
    for number in found if which == "all" else [found[int(which)]]:
        if how == "close":
            os.close(number)
        elif how == "block":
            os.set_blocking(number, True)
        else:
            null = os.open(os.devnull, os.O_RDONLY)
            os.dup2(null, number)
            os.close(null)


def application(environ: Any, start_response: Any) -> list[bytes]:
    path = environ["PATH_INFO"].strip("/")
    if path == "select":
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.send(b"x")
            assert select.select([ours], [], [], 20)[0] == [ours]
    elif path:
        damage(*path.split("-"))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
