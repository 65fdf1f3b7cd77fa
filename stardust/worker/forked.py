"""A child that the application forks: nothing of the server is left in it, and it never comes back.

`multiprocessing`, `os.fork`, a daemon's double fork: none of them executes another program, so the child
would have all that the server has, and go on as a second worker that nobody knows.

    before     signals wait: the child shall not write into the wake-up descriptor of its parent
    the parent `happened`: from now on a connection that ends is shut down first, whoever has a copy of it
    the child  `away`: it closes its copies of what its process owns (`own`), signals are what they are in any
               program, and what it says to a client is refused; when the application gives control back to
               the server, it ends with the exit code that Python would give it (`end`)

The hooks run in the thread that forks, between two instructions of all others. They take no lock, for there
may be nobody left to release it. What another thread was about to accept just then has no object yet, and
stays open in the child: `happened` is for that too.

Forks that the server makes itself are not meant: `ours`. A child of a child has nothing more to lose.

Runs in the application's interpreter too.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, Optional

from stardust.base import signals
from stardust.base.pristine import _thread, os, signal
from stardust.wsgi import gateway

LetGo = Callable[[], object]

happened = False
"""Whether this process was forked by the application: others may have copies of its descriptors."""

away = False
"""Whether this process is such a child."""

_owned: list[LetGo] = []
_masks: dict[int, Any] = {}  # of the signals that a thread blocked before it was about to fork
_hooked = False
_by_us = False

# Not to be lost on the way, and not to be told to the parent.
_HELD = frozenset(signals.MEANT_FOR_OTHERS) | {signal.SIGTERM}


def own(let_go: Collection[LetGo]) -> None:
    """What this process has, from now on and instead of what it had: each is called once in a child, and
    closes the child's copies, by their objects, without a word to anybody. What it raises is ignored."""
    global _hooked
    _owned[:] = let_go
    if not _hooked:
        _hooked = True
        os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)


def own_too(let_go: LetGo) -> None:
    """It has something more."""
    _owned.append(let_go)


@contextmanager
def ours() -> Iterator[None]:
    """What is forked in here is one of the server's own processes."""
    global _by_us
    _by_us = True
    try:
        yield
    finally:
        _by_us = False


def forget_children() -> None:
    """In a worker: what its zygote has started while the application was loaded is not its to end. Nobody but
    `multiprocessing` can have a book of these, and its own children begin with an empty one too."""
    book = getattr(sys.modules.get("multiprocessing.process"), "_children", None)
    if isinstance(book, set):
        book.clear()


def end(error: Optional[BaseException] = None) -> NoReturn:
    """The application has given control back, in a child of its own: end as a program that has run to its
    end, or that `error` has ended. Nothing else is run: exit handlers are the parent's."""
    code = 0
    try:
        if isinstance(error, SystemExit):
            code = _exit_code(error.code)
        elif error is not None:
            code = 1
            sys.stderr.write("".join(traceback.format_exception(type(error), error, error.__traceback__)))
    except BaseException:
        code = 1  # there is nowhere to say it
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException:
            pass  # it may be anything, or None
    os._exit(code)


def _exit_code(given: object) -> int:
    """Of `sys.exit(given)`."""
    if given is None:
        return 0
    if isinstance(given, int):
        return given & 0xFF
    sys.stderr.write(f"{given}\n")
    return 1


def _before() -> None:
    if not away and not _by_us:
        _masks[_thread.get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)


def _in_parent() -> None:
    global happened
    mask = _masks.pop(_thread.get_ident(), None)
    if mask is not None:
        happened = True
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _in_child() -> None:
    global away
    mask = _masks.pop(_thread.get_ident(), None)
    _masks.clear()
    if mask is None:
        return
    away = True
    gateway.away = end
    for let_go in (*_owned, signals.restore):
        try:
            let_go()
        except BaseException:
            pass  # closed already, by the application; or half made
    _owned.clear()
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
