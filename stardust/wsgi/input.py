"""Where a request body waits for the application: in memory, and in a nameless file when it grows.

Rules:
- The application is called only when its whole body is here, so `wsgi.input` never waits for a client.
- What finish() gives is an ordinary seekable binary file: PEP 3333's read, readline, readlines and iteration
  are those of `io`, and its end is the end of the body (`wsgi.input_terminated`).
- The temporary file has no name (O_TMPFILE, or unlinked at once), so nothing is left behind by a killed
  worker.
- Writes to it are unbuffered: a full disk is reported by the write it hits, never by a later close.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from typing import BinaryIO, Optional, Union, cast

from stardust.budget import UNLIMITED, Budget, Share

MEMORY = 1 << 20
"""Bytes of one body kept in memory, unless told otherwise."""


class Spool:
    """Takes a body piece by piece and gives it back as one file.

    Every method but close() may raise OSError, ENOSPC above all; the spool is of no use then, and close()
    releases what it holds. The owner calls close() when the exchange is over; it also closes what finish()
    gave.
    """

    __slots__ = ("_file", "_finished", "_reader", "_relieve", "_share")

    def __init__(
        self,
        memory: int = MEMORY,
        budget: Budget = UNLIMITED,
        relieve: Callable[[OSError], bool] = lambda fault: False,
    ) -> None:
        """At most `memory` bytes, and what `budget` allows, are kept in memory. `relieve` is called when the
        file cannot be made: whether to try again."""
        self._file: Union[io.BytesIO, io.FileIO] = io.BytesIO()
        self._reader: Optional[BinaryIO] = None
        self._share = Share(budget, memory)
        self._relieve = relieve
        self._finished = False

    def write(self, data: bytes) -> None:
        """Append `data`. The body moves to a temporary file when there is no memory for it."""
        if isinstance(self._file, io.BytesIO) and not self._share.add(len(data)):
            self._file = self._moved(self._file)
            self._share.drop(self._share.held)
        _write_all(self._file, data)

    def _moved(self, memory: io.BytesIO) -> io.FileIO:
        try:
            return _moved(memory)
        except OSError as fault:
            if not self._relieve(fault):
                raise
            return _moved(memory)

    def finish(self) -> BinaryIO:
        """The whole body as a seekable binary file at position 0. ValueError when called again."""
        if self._finished:
            raise ValueError("this body is finished already")
        self._finished = True
        self._file.seek(0)
        # FileIO is BufferedReader's natural source; typeshed cannot say that a buffered reader is a BinaryIO.
        reader = self._file if isinstance(self._file, io.BytesIO) else io.BufferedReader(self._file)
        self._reader = cast(BinaryIO, reader)
        return self._reader

    def close(self) -> None:
        """Release memory or file. May be called at any time and more than once."""
        self._finished = True
        self._file.close()
        self._share.drop(self._share.held)
        if self._reader is not None:
            self._reader.close()


def _moved(memory: io.BytesIO) -> io.FileIO:
    # Unbuffered, TemporaryFile() gives a bare FileIO: its write() is write(2), errors included.
    file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
    try:
        _write_all(file, memory.getvalue())
    except BaseException:
        file.close()
        raise
    memory.close()
    return file


def _write_all(file: Union[io.BytesIO, io.FileIO], data: bytes) -> None:
    # write(2): "the number of bytes written may be less than count if, for example, there is insufficient
    # space on the underlying physical medium"; the next call then says why.
    written = file.write(data)
    while written < len(data):
        written += file.write(memoryview(data)[written:])
