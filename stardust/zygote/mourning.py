"""After the death of a worker: `after-death` is called, in a process that is forked for it from the zygote.

So it has what the zygote has loaded, no worker waits for it, and it may hang or crash. The zygote waits a
moment for its end before it says that the worker has ended: then all is done, also when the server stops.

Runs in the application's interpreter (Python 3.9, PyPy included).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

from stardust.base import process, system
from stardust.base.errors import AppLoadError
from stardust.base.pristine import os, select, signal
from stardust.logs.log import Log
from stardust.settings.table import Config
from stardust.worker import forked
from stardust.zygote.load import call_hook

_MOMENT = 1.0  # s; a hook that takes longer goes on by itself


class Mourning:
    """The one of a zygote, with the processes that it has forked and that may still run. Each lets go first
    of what is the zygote's."""

    def __init__(self, config: Config, log: Log, let_go: Sequence[Callable[[], object]]) -> None:
        self._let_go = let_go
        self._config = config
        self._log = log
        self._running: list[int] = []

    def call(self, pid: int, cause: str) -> None:
        """Have the hook called for process `pid`; nothing if there is none."""
        self._running = [each for each in self._running if _runs(each)]
        if not self._config.after_death:
            return
        try:
            reader, writer = system.pipe()
        except OSError as fault:
            self._log.error(f"cannot call after-death for process {pid}: {fault.strerror}")
            return
        try:
            with forked.ours():
                child = system.fork()
        except OSError as fault:
            self._log.error(f"cannot call after-death for process {pid}: {fault.strerror}")
            system.close(writer)
        else:
            if child == 0:
                self._mourn(pid, cause)
            system.close(writer)
            poll = system.poll()
            poll.register(reader, select.POLLIN)
            poll.poll(_MOMENT * 1000)  # for the end of file
            self._running.append(child)
        system.close(reader)

    def _mourn(self, pid: int, cause: str) -> None:
        """In the process that was forked for it, which ends here."""
        try:
            for each in self._let_go:
                with suppress(OSError, ValueError):  # the application has closed it already
                    each()
            # Of its own session: what is left of a generation is ended with it, and this is to go on.
            system.setsid()
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            system.setitimer(signal.ITIMER_REAL, self._config.graceful_timeout)
            process.name_process("stardust:death", f"stardust: after-death of process {pid}")
            call_hook("after-death", self._config.after_death, pid, cause)
            sys.stdout.flush()
            sys.stderr.flush()
        except AppLoadError as failure:
            self._log.error(f"{failure.reason}\n{failure.detail}")
        finally:
            os._exit(0)


def _runs(pid: int) -> bool:
    """Whether a child still runs; if not, it is reaped."""
    try:
        return system.waitpid(pid, os.WNOHANG)[0] == 0
    except ChildProcessError:
        return False  # the application ignores SIGCHLD, so the kernel has reaped it
