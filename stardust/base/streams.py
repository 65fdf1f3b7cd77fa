"""Standard input, output and error: that they are there, and what may be left of them beside an application.

Whoever starts a server may have closed them, and an application may close them, or put None there, or what
cannot be flushed. Nothing fails for that, and nothing is written into what has got the number 2 by accident.

Runs in the application's interpreter too.
"""

from __future__ import annotations

import sys
from typing import Any, TextIO

from stardust.base import system
from stardust.base.pristine import io, os


def ensure() -> None:
    """Have 0, 1 and 2 be something, /dev/null if they are closed (`2>&-`): or what is opened next gets that
    number, and with it what is meant for standard error. So this comes before all else."""
    for number in range(3):
        try:
            system.fstat(number)
        except OSError:
            # The lowest number that is free (open(2)): this one.
            system.set_inheritable(system.open_descriptor(os.devnull, os.O_RDWR), True)
    # Python has None where it found nothing when it started.
    if sys.__stdout__ is None and sys.stdout is None:
        sys.stdout = _writer(1)
    if sys.__stderr__ is None and sys.stderr is None:
        sys.stderr = _writer(2)


def error() -> TextIO:
    """`sys.stderr`, or something in its place if the application has made of it what cannot be written to."""
    stream: Any = sys.stderr
    if callable(getattr(stream, "write", None)) and _flushed(stream):
        standing: TextIO = stream
        return standing
    return _writer(2)


def flush() -> None:
    """Write what was printed, as far as that can be done: once, and not by each child that is forked now."""
    _flushed(sys.stdout)
    _flushed(sys.stderr)


def finish() -> None:
    """The same at the end of a process. What cannot be flushed is given up: Python would end with exit code
    120 for it."""
    if not _flushed(sys.stdout):
        sys.stdout = None
    if not _flushed(sys.stderr):
        sys.stderr = None


def _flushed(stream: Any) -> bool:
    try:
        stream.flush()
    except Exception:
        return False
    return True


def _writer(number: int) -> TextIO:
    buffer = io.BufferedWriter(io.FileIO(number, "w", closefd=False))
    return io.TextIOWrapper(buffer, errors="backslashreplace", line_buffering=True)
