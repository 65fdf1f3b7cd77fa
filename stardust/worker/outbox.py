"""What a connection still has to send: bytes in memory, then on disk, and ranges of files.

A slow reader must not hold a worker. What its socket does not take at once waits here: up to `MEMORY` bytes
in memory, if the worker has so many left for all (base/budget.py), and the rest in nameless temporary files.
The worker's loop sends it as the client reads. No temporary file grows far beyond `SEGMENT`, and each is gone
as soon as it was sent, so the disk holds only what still waits.

Files that the application returned are sent from the page cache (sendfile(2)), through a duplicate of their
descriptor, so that the application may close its own at once. Over TLS they are read and encrypted piece by
piece.
"""

from __future__ import annotations

from collections import deque
from typing import Optional, Union

from stardust.base import system
from stardust.base.budget import UNLIMITED, Budget, Share, gather
from stardust.base.pristine import socket
from stardust.worker.stream import Stream
from stardust.wsgi import input as spools

MEMORY = 1024 * 1024  # bytes kept in memory for one connection
SEGMENT = 64 * 1024 * 1024  # bytes after which the next temporary file is begun
_MOST_AT_ONCE = 1024 * 1024  # bytes for one sendfile(2): other connections have their turn between
_MOST_READ = 65536  # bytes of a file in memory, where sendfile(2) will not do


class FileRange:
    """Bytes `offset` to `end` of an open file; the descriptor is closed when they are sent. `ours`: it is a
    temporary file, and may be appended to."""

    __slots__ = ("descriptor", "end", "offset", "ours")

    def __init__(self, descriptor: int, offset: int, end: int, *, ours: bool) -> None:
        self.descriptor = descriptor
        self.offset = offset
        self.end = end
        self.ours = ours


class Outbox:
    """First in, first out. `pending` is how many bytes are waiting."""

    __slots__ = ("_pieces", "_sent", "_share", "pending")

    def __init__(self, budget: Budget = UNLIMITED) -> None:
        self._share = Share(budget, MEMORY)
        self._pieces: deque[Union[bytes, bytearray, FileRange]] = deque()
        self._sent = 0  # bytes of the first piece, if that is in memory
        self.pending = 0

    def push(self, data: bytes) -> None:
        """Queue `data`. Raises OSError when the temporary file cannot take it (disk full)."""
        last = self._pieces[-1] if self._pieces else None
        if isinstance(last, FileRange) and last.ours:
            self._push_to_disk(data, last)  # never back to memory: files stay few, whatever the pieces are
        elif not self._share.add(len(data)):
            self._push_to_disk(data, None)
        else:
            gather(self._pieces, data)
        self.pending += len(data)

    def push_file(self, descriptor: int, offset: int, count: int) -> None:
        """Queue `count` bytes of a regular file from `offset` on. The caller may close its descriptor."""
        self._pieces.append(FileRange(system.dup(descriptor), offset, offset + count, ours=False))
        self.pending += count

    def flush(self, sock: Stream) -> None:
        """Send what the socket takes now. Raises OSError: the client is gone, or a file is too short."""
        while self._pieces:
            piece = self._pieces[0]
            try:
                if isinstance(piece, FileRange):
                    done = self._send_range(sock, piece)
                else:
                    done = self._send_bytes(sock, piece)
            except BlockingIOError:
                return
            if not done:
                return
            self._pieces.popleft()

    def close(self) -> None:
        """Forget everything."""
        for piece in self._pieces:
            if isinstance(piece, FileRange):
                system.close(piece.descriptor)
        self._pieces.clear()
        self._share.drop(self._share.held)
        self.pending = 0

    def _push_to_disk(self, data: bytes, segment: Optional[FileRange]) -> None:
        if segment is None or segment.end >= SEGMENT:
            with spools.temporary_file() as file:
                segment = FileRange(system.dup(file.fileno()), 0, 0, ours=True)
            self._pieces.append(segment)
        view = memoryview(data)
        while view:
            written = system.write(segment.descriptor, view)
            view = view[written:]
            segment.end += written

    def _send_bytes(self, sock: Stream, piece: Union[bytes, bytearray]) -> bool:
        # Released at once: a bytearray with a view on it cannot grow.
        with memoryview(piece) as whole, whole[self._sent :] as rest:
            sent = sock.send(rest, socket.MSG_DONTWAIT)
        self.pending -= sent
        self._share.drop(sent)
        self._sent += sent
        if self._sent < len(piece):
            return False
        self._sent = 0
        return True

    def _send_range(self, sock: Stream, piece: FileRange) -> bool:
        count = min(piece.end - piece.offset, _MOST_AT_ONCE)
        if isinstance(sock, socket.SocketType):
            sock.setblocking(False)  # sendfile(2) knows no MSG_DONTWAIT
            sent = system.sendfile(sock.fileno(), piece.descriptor, piece.offset, count)
        else:
            data = system.pread(piece.descriptor, min(count, _MOST_READ), piece.offset)
            sent = sock.send(data, socket.MSG_DONTWAIT)
        if sent == 0 and count:
            raise OSError("the file ended before its announced length")
        piece.offset += sent
        self.pending -= sent
        if piece.offset < piece.end:
            return False
        system.close(piece.descriptor)
        return True
