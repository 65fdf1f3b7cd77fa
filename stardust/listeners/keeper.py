"""Our own listeners beyond the life of this process: opened, given to systemd to keep, closed.

systemd keeps a duplicate of each in the descriptor store of the unit (systemd/store.py) and hands it back at
the next start: after a crash and after `systemctl restart` connections wait in it, as in a socket of a socket
unit. After `systemctl stop` systemd drops what it keeps. Rules:

- A listener is given to systemd as soon as it is bound, and taken back when it is closed for good: a reload
  that came without it, or failed. What returns at a start and is not asked for any more is taken back too.
- A server that ends cannot know whether it is stopped or restarted. So it leaves everything as it is: it
  takes nothing back, and the file of a UNIX socket stays. If it was a stop, that file is stale, and the
  next start replaces it.
- Without a manager to talk to, closing is all there is, and the file goes with its socket.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence

from stardust.listeners import listeners as listener
from stardust.listeners.listeners import Listener
from stardust.settings.table import Config
from stardust.systemd.notify import Notifier


class Keeper:
    """Opens and closes the listeners of one server; knows which of them systemd keeps."""

    def __init__(self, notifier: Notifier, returned: Sequence[tuple[int, str]]) -> None:
        """`returned`: the descriptors (number, name) that systemd had kept for us (`activation.stored`)."""
        self._notifier = notifier
        self._returned = returned
        self._kept = {label for _, label in returned}

    def open(
        self, config: Config, inherited: Sequence[tuple[int, str]], bound: Sequence[Listener]
    ) -> list[Listener]:
        """`listener.open_all`, with what systemd returned at the first call. Raises what that raises."""
        recovered, rest = listener.recover(config, self._returned)
        self._returned = ()
        for each in rest:
            self.close(each)
        listeners = listener.open_all(config, inherited, [*bound, *recovered])
        for each in listener.superseded(recovered, listeners):
            self.close(each)
        for each in listeners:
            if each.label and each.label not in self._kept and self._notifier.connected:
                self._kept.add(each.label)
                self._notifier.keep(each.socket.fileno(), each.label)
        return listeners

    def close(self, each: Listener) -> None:
        """Close a listener for good.

        systemd closes its duplicate when it comes to it. Until then the address would be taken, and
        connections would wait in vain: hence the shutdown.
        """
        if each.label not in self._kept:
            listener.close(each)
            return
        with contextlib.suppress(OSError):  # ENOTCONN: it does not listen any more
            each.socket.shutdown(socket.SHUT_RDWR)
        listener.close(each)
        self._kept.remove(each.label)
        self._notifier.release(each.label)

    def spare(self, each: Listener) -> None:
        """Close a listener because the server ends; what systemd keeps stays as it is."""
        if each.label in self._kept:
            each.socket.close()
        else:
            listener.close(each)
