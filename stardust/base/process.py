"""What our processes see to at their start, whichever they are: what they are called, what they may use.

All of it is made of the calls in system.py.

Runs in the application's interpreter (Python 3.9, PyPy included).
"""

from __future__ import annotations

import sys
from resource import RLIM_INFINITY, RLIMIT_NOFILE

from stardust.base import system
from stardust.base.pristine import gc, os, signal

# The signal that makes a stuck worker write its stacks (faulthandler). A real-time one: neither
# applications nor service managers use it.
STACKS_SIGNAL = signal.SIGRTMIN + 5

# What applications name their processes with. It knows its place by the arguments that lie there.
_PACKAGE = "setproctitle"

# /proc/pid/stat, proc(5), counted from the state, which is field 3 and follows the name.
_PARENT, _ARG_START, _ARG_END = 1, 45, 46


def parent(pid: int) -> int:
    """The parent of a process, 0 for none that this one can see. Raises OSError or ValueError if that cannot
    be read."""
    try:
        return int(_status(str(pid))[_PARENT])
    except IndexError:
        raise ValueError(f"/proc/{pid}/stat: unexpected form") from None


def described(status: int) -> str:
    """How a process ended, in words, by its wait status."""
    if os.WIFEXITED(status):
        return f"exit code {os.WEXITSTATUS(status)}"
    number = os.WTERMSIG(status)
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    return f"killed by {name}"


def is_zombie(pid: int) -> bool:
    """Whether it has ended, and waits for its parent to ask how. Raises OSError."""
    return _status(str(pid))[:1] == [b"Z"]


def _status(process: str) -> list[bytes]:
    """The fields of /proc/pid/stat behind the name, which may hold anything."""
    return system.read_file(f"/proc/{process}/stat").rpartition(b")")[2].split()


def name_process(name: str, title: str) -> None:
    """Set what tells this process from others: `name`, 15 bytes at most, where only a program's name is shown
    (`ps -o comm`, `top`), and `title` in the place of its command line (`ps`, `systemctl status`), as far as
    that is long. A title that the application has given it stays.

    The arguments lie in the process's own memory, and ps(1) shows what is there now.
    """
    try:
        if not _line.written:
            _line.begin()
        if _line.shown() in (_line.written, _line.original):
            _line.write(title.encode("utf-8", "replace"))
        _put("/proc/self/comm", name.encode("ascii", "replace")[:15], 0)
    except OSError:
        pass  # a name is a comfort: /proc may be read-only, or the process have changed its user


class _Line:
    """Where the command line of this process lies: `original` and `written` are what it was, and what we have
    written there last, with spaces between arguments."""

    def __init__(self) -> None:
        self.start = self.end = 0
        self.original = self.written = self._arguments = b""

    def begin(self) -> None:
        fields = _status("self")
        self.start, self.end = int(fields[_ARG_START]), int(fields[_ARG_END])
        self._arguments = system.read_file("/proc/self/cmdline")
        self.original = self.written = self._arguments.rstrip(b"\0").replace(b"\0", b" ")

    def shown(self) -> bytes:
        """What is there now."""
        package = sys.modules.get(_PACKAGE)
        if package is not None:
            return os.fsencode(package.getproctitle())
        line = system.read_file("/proc/self/cmdline")[: self.end - self.start]
        return line.rstrip(b"\0").replace(b"\0", b" ")

    def write(self, title: bytes) -> None:
        package = sys.modules.get(_PACKAGE)
        if package is not None:
            self.written = title
            package.setproctitle(os.fsdecode(title))
            return
        room = self.end - self.start
        self.written = title[: room - 1].rstrip(b"\0")
        _put("/proc/self/mem", self.written.ljust(room, b"\0"), self.start)

    def restore(self) -> None:
        """Have the arguments where they were: whoever looks for them finds them."""
        if self.written != self.original:
            self.written = self.original
            _put("/proc/self/mem", self._arguments, self.start)


_line = _Line()


class Titles:
    """For `sys.meta_path`: gives the command line back before the package is imported that looks for it, to
    write titles there itself. Ours go by way of it from then on. It finds nothing."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == _PACKAGE:
            try:
                _line.restore()
            except OSError:
                pass


def _put(path: str, data: bytes, offset: int) -> None:
    """Write into a file that is there."""
    descriptor = system.open_descriptor(path, os.O_WRONLY)
    try:
        system.lseek(descriptor, offset, os.SEEK_SET)
        system.write(descriptor, data)
    finally:
        system.close(descriptor)


def freeze_heap() -> None:
    """Keep the garbage collector away from all that exists now, so that forked children go on sharing it."""
    gc.collect()
    if hasattr(gc, "freeze"):  # not in PyPy, whose collector writes no counts into objects
        gc.freeze()


def point_stdin_at_nothing() -> None:
    """Reading standard input gets end of file at once: no application waits for a terminal."""
    null = system.open_descriptor(os.devnull, os.O_RDONLY)
    try:
        system.dup2(null, 0)
    finally:
        system.close(null)


LOW = 1024
"""FD_SETSIZE: select(2) knows no descriptor from here on."""


def lifted(descriptor: int) -> int:
    """Another number for it, above those that select(2) knows, if the limit allows that; else the same."""
    try:
        high = system.dup_above(descriptor, LOW)
    except OSError:
        return descriptor
    system.close(descriptor)
    return high


def raise_descriptor_limit() -> int:
    """Use as many descriptors as the hard limit allows; systemd sets 1024 soft for select(2)'s sake only.
    Returns what the soft limit was."""
    soft, hard = system.getrlimit(RLIMIT_NOFILE)
    if soft < hard:
        system.setrlimit(RLIMIT_NOFILE, (hard, hard))
    return soft


def descriptor_limit() -> int:
    """How many descriptors this process may have open."""
    soft, _ = system.getrlimit(RLIMIT_NOFILE)
    return soft if soft != RLIM_INFINITY else sys.maxsize
