"""An application that was taken over: it sends its siblings what no worker sends. Python 3.9."""

from __future__ import annotations

import array
import os
import random
import socket
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

MESSAGES = 500


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/attack":
        attack(link(), random.Random(environ["QUERY_STRING"]))
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def link() -> socket.socket:
    """The writing end. Whoever calls us has it: nothing in a process is out of the reach of its code."""
    frame = sys._getframe()
    while "loop.py" not in frame.f_code.co_filename or not hasattr(frame.f_locals["self"], "siblings"):
        assert frame.f_back is not None
        frame = frame.f_back
    writer: socket.socket = frame.f_locals["self"].siblings.link._writer
    return writer


def attack(writer: socket.socket, chance: random.Random) -> None:
    """Nonsense, half messages, messages with the wrong things in them, with descriptors and without."""
    with open(os.devnull) as null, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
        things = [null.fileno(), datagram.fileno(), writer.fileno(), 0]
        for _ in range(MESSAGES):
            data = chance.choice([b"", b"c1", b"n1", b"c1" + bytes(26), b"c2"])
            data += bytes(chance.randrange(256) for _ in range(chance.choice([0, 1, 40, 500])))
            rights = array.array("i", chance.choices(things, k=chance.choice([0, 1, 1, 2, 40])))
            try:
                writer.sendmsg(
                    [data],
                    [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if rights else [],
                    socket.MSG_DONTWAIT,
                )
            except BlockingIOError:
                return
