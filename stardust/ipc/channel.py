"""The link between two processes of the server: whole messages, descriptors with them, end of file.

A channel is one end of a SEQPACKET socketpair (unix(7)). `messages.py` has what goes over it, and each end
hears only what is meant for its side. End of file means that the other side is gone; epoll reports it.

Runs in the application's interpreter too.
"""

from __future__ import annotations

from typing import Generic, Optional

from stardust.base import system
from stardust.base.errors import ChannelError
from stardust.base.pristine import socket
from stardust.ipc import messages
from stardust.ipc.messages import Heard, Said, Side

MOST_DESCRIPTORS = 250  # the kernel takes 253 (SCM_MAX_FD)
MOST_BYTES = 200_000  # a message that is larger does not fit into the default send buffer


class Channel(Generic[Heard, Said]):
    """One end. Non-blocking unless `blocking` was set: the zygote waits in `receive`, the others in epoll.

    `at_end`: end of file was seen.
    """

    __slots__ = ("_side", "at_end", "socket")

    def __init__(self, sock: socket.socket, side: Side[Heard, Said], *, blocking: bool = False) -> None:
        sock.setblocking(blocking)
        self.socket = sock
        self.at_end = False
        self._side = side

    @classmethod
    def adopt(
        cls, descriptor: int, side: Side[Heard, Said], *, blocking: bool = False
    ) -> Channel[Heard, Said]:
        """The channel whose end came as a descriptor: inherited, or with a message."""
        sock = system.new_socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=descriptor)
        system.set_inheritable(descriptor, False)
        return cls(sock, side, blocking=blocking)

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, message: Said) -> bool:
        """Send one message; its descriptors stay ours too. False: it was not sent, because the other side is
        gone or does not read.

        A side that is gone is seen as end of file by `receive`; a side that does not read is stuck, and
        found by its heartbeat. Neither needs handling where something is sent.
        """
        data, descriptors = messages.encode(message)
        try:
            system.sendmsg(self.socket, data, descriptors)
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            return False
        return True

    def receive(self) -> Optional[Heard]:
        """The next message, whose descriptors are ours from now on, or None at the end of file.

        Raises BlockingIOError if none has come yet, and ChannelError for one that this side does not know;
        what came with it is closed then. Descriptors are closed on exec: what the application starts must not
        hold a listener or a channel.
        """
        try:
            data, descriptors, whole = system.recvmsg(self.socket, MOST_BYTES, MOST_DESCRIPTORS)
        except ConnectionResetError:
            # Said once: the other side has gone, and left unread what it was sent. Its own last words, or
            # the end of file, come now.
            return self.receive()
        if not data and not descriptors:
            self.at_end = True
            return None
        try:
            if not whole:
                raise ChannelError("an invalid message: it is too long, or has too many descriptors")
            return self._side.decode(data, descriptors)
        except ChannelError:
            for descriptor in descriptors:
                system.close(descriptor)
            raise

    def close(self) -> None:
        self.socket.close()


def pair() -> tuple[socket.socket, socket.socket]:
    """The two ends of a new channel, both closed on exec."""
    return system.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
