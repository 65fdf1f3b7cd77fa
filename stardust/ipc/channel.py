"""The link between two processes of the server: whole messages, descriptors with them, end of file.

A channel is one end of a SEQPACKET socketpair (unix(7)). A message is one JSON object with a "kind", and up
to 64 descriptors. End of file means that the other side is gone; nobody polls for that.

    supervisor → zygote   generation, fork, reap, reopen
    zygote → supervisor   loaded, failed, forked, fork-failed, exited
    supervisor → worker   retire, stop, ping, pause, resume, reopen
    worker → supervisor   ready, failed, leaving, paused

What those from below carry stands in SAID, and `receive` holds them to it: zygote and workers run the
application, and the supervisor must survive whatever that does. What the others carry stands where it is
sent. Runs in the application's interpreter too.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

from stardust.base.errors import ChannelError

MOST_DESCRIPTORS = 250  # the kernel takes 253 (SCM_MAX_FD)
MOST_BYTES = 200_000  # a message that is larger does not fit into the default send buffer
SAID: dict[str, dict[str, type]] = {
    "loaded": {},
    "failed": {"reason": str, "detail": str},
    "misconfigured": {"reason": str},
    "forked": {"worker": int, "pid": int},
    "fork-failed": {"worker": int, "reason": str},
    "exited": {"worker": int, "status": int},
    "ready": {},
    "leaving": {},
    "paused": {"pause": int, "connections": int, "since": float},
}
LONGEST_TEXT = 32_000  # of a traceback


class Message(NamedTuple):
    """One message: what it is, what it says, the descriptors that came along (the receiver owns them)."""

    kind: str
    content: dict[str, Any]
    descriptors: list[int]


class Channel:
    """One end. Non-blocking unless `blocking` was set: the zygote waits in `receive`, the others in epoll.

    `at_end`: end of file was seen.
    """

    __slots__ = ("at_end", "socket")

    def __init__(self, sock: socket.socket, *, blocking: bool = False) -> None:
        sock.setblocking(blocking)
        self.socket = sock
        self.at_end = False

    @classmethod
    def adopt(cls, descriptor: int, *, blocking: bool = False) -> Channel:
        """The channel whose end came as a descriptor: inherited, or with a message."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=descriptor)
        sock.set_inheritable(False)
        return cls(sock, blocking=blocking)

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(
        self, kind: str, content: Optional[dict[str, Any]] = None, descriptors: Sequence[int] = ()
    ) -> bool:
        """Send one message. False: it was not sent, because the other side is gone or does not read.

        A side that is gone is seen as end of file by `receive`; a side that does not read is stuck, and
        found by its heartbeat. Neither needs handling where something is sent.
        """
        data = json.dumps({"kind": kind, **(content or {})}).encode()
        try:
            socket.send_fds(self.socket, [data], list(descriptors))
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            return False
        return True

    def receive(self) -> Optional[Message]:
        """The next message, or None at the end of file. Raises BlockingIOError when there is none yet, and
        ChannelError for one that is none; its descriptors are closed then.

        Its descriptors are closed on exec: what the application starts must not hold a listener or a channel.
        """
        try:
            data, descriptors, _flags, _address = socket.recv_fds(self.socket, MOST_BYTES, MOST_DESCRIPTORS)
        except ConnectionResetError:
            # Said once: the other side has gone, and left unread what it was sent. Its own last words, or
            # the end of file, come now.
            return self.receive()
        for descriptor in descriptors:
            # Not by MSG_CMSG_CLOEXEC: CPython 3.11 drops the flags of recv_fds, and PyPy does not name it.
            os.set_inheritable(descriptor, False)
        if not data:
            self.at_end = True
            return None
        try:
            return Message(*_read(data), list(descriptors))
        except ChannelError:
            for descriptor in descriptors:
                os.close(descriptor)
            raise

    def close(self) -> None:
        self.socket.close()


def _read(data: bytes) -> tuple[str, dict[str, Any]]:
    """The kind and the content of a message. Raises ChannelError."""
    try:
        content = json.loads(data, parse_constant=_refuse)
        kind = content.pop("kind")
        complete = all(type(content[name]) is wanted for name, wanted in SAID.get(kind, {}).items())
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
        complete = False
    if not complete:
        raise ChannelError(f"a message that is none: {data[:100]!r}")
    return kind, content


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")  # RFC 8259 6; and no moment that could be compared


def pair() -> tuple[socket.socket, socket.socket]:
    """The two ends of a new channel, both closed on exec."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def clipped(text: str) -> str:
    """A traceback short enough for a message: its beginning and its end, where the news is."""
    if len(text) <= LONGEST_TEXT:
        return text
    half = LONGEST_TEXT // 2
    return f"{text[:half]}\n… {len(text) - LONGEST_TEXT} characters left out …\n{text[-half:]}"
