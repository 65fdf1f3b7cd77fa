"""Where a request body waits for the application: in memory, and in a nameless file when it grows.

Rules:
- The application is called only when its whole body is here, so `wsgi.input` never waits for a client.
- What finish() gives is an ordinary seekable binary file: PEP 3333's read, readline, readlines and iteration
  are those of `io`, and its end is the end of the body (`wsgi.input_terminated`).
- The temporary file has no name (O_TMPFILE, or unlinked at once), so nothing is left behind by a killed
  worker.
- Writes to it are unbuffered: a full disk is reported by the write it hits, never by a later close.
- In memory, pieces are put together once, at the end: a buffer that grows with them is copied again and
  again, a megabyte eight times.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from errno import EOPNOTSUPP
from typing import BinaryIO, Optional, Union, cast

from stardust.base import system
from stardust.base.budget import UNLIMITED, Budget, Share, gather
from stardust.base.pristine import io, os

MEMORY = 1 << 20
"""Bytes of one body kept in memory, unless told otherwise."""

_SMALL = 4096  # bytes of a piece that is not kept by itself

_directory = tempfile.gettempdir
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
# include/uapi/asm-generic/fcntl.h; PyPy does not name it.
_NAMELESS = os.O_RDWR | os.O_EXCL | os.O_CLOEXEC | getattr(os, "O_TMPFILE", 0o20200000)


class Spool:
    """Takes a body piece by piece and gives it back as one file.

    Every method but close() may raise OSError, ENOSPC above all; the spool is of no use then, and close()
    releases what it holds. The owner calls close() when the exchange is over; it also closes what finish()
    gave.
    """

    __slots__ = ("_file", "_finished", "_pieces", "_reader", "_relieve", "_share")

    def __init__(
        self,
        memory: int = MEMORY,
        budget: Budget = UNLIMITED,
        relieve: Callable[[OSError], bool] = lambda fault: False,
    ) -> None:
        """At most `memory` bytes, and what `budget` allows, are kept in memory. `relieve` is called when the
        file cannot be made: whether to try again."""
        self._pieces: list[Union[bytes, bytearray]] = []
        self._file: Optional[io.FileIO] = None
        self._reader: Optional[BinaryIO] = None
        self._share = Share(budget, memory)
        self._relieve = relieve
        self._finished = False

    def write(self, data: bytes) -> None:
        """Append `data`. The body moves to a temporary file when there is no memory for it."""
        if self._file is None:
            if self._share.add(len(data)):
                gather(self._pieces, data, _SMALL)
                return
            self._move()
        assert self._file is not None
        _write_all(self._file, data)

    def _move(self) -> None:
        try:
            self._file = temporary_file()
        except OSError as fault:
            if not self._relieve(fault):
                raise
            self._file = temporary_file()
        for piece in self._pieces:
            _write_all(self._file, bytes(piece))
        self._pieces = []
        self._share.drop(self._share.held)

    def finish(self) -> BinaryIO:
        """The whole body as a seekable binary file at position 0. ValueError when called again."""
        if self._finished:
            raise ValueError("this body is already finished")
        self._finished = True
        if self._file is None:
            self._reader = io.BytesIO(b"".join(self._pieces))
            self._pieces = []
        else:
            self._file.seek(0)
            # FileIO is BufferedReader's natural source; typeshed cannot say that one is a BinaryIO.
            self._reader = cast(BinaryIO, io.BufferedReader(self._file))
        return self._reader

    def close(self) -> None:
        """Release memory or file. May be called at any time and more than once."""
        self._finished = True
        self._pieces = []
        if self._file is not None:
            self._file.close()
        self._share.drop(self._share.held)
        if self._reader is not None:
            self._reader.close()


def temporary_file() -> io.FileIO:
    """One without a name, see above, in the directory that `tempfile` uses (O_TMPFILE, open(2)). Unbuffered:
    its write() is write(2), errors included."""
    directory = _directory()
    try:
        number = system.open_descriptor(directory, _NAMELESS, 0o600)
    except OSError as fault:
        if fault.errno != EOPNOTSUPP:
            raise
        number = _unnamed(directory)
    return io.FileIO(number, "r+")


def _unnamed(directory: str) -> int:
    """The same where the file system has no such files: its name is there for a moment."""
    path = os.path.join(directory, f"stardust-{os.urandom(8).hex()}")
    number = system.open_descriptor(path, _NEW, 0o600)
    system.unlink(path)
    return number


def _write_all(file: io.FileIO, data: bytes) -> None:
    # write(2): "the number of bytes written may be less than count if, for example, there is insufficient
    # space on the underlying physical medium"; the next call then says why.
    written = file.write(data)
    while written < len(data):
        written += file.write(memoryview(data)[written:])
