"""Idle connections through a restart: given to systemd by the run that ends, taken up by the next one.

    worker ── shelf ──▶ supervisor ── FDSTORE=1 ──▶ systemd ── LISTEN_FDS ──▶ supervisor ── link ──▶ worker

A server that stops cannot know whether it is started again. If it is, its clients have noticed nothing but a
delay; if not, systemd closes the connections when the service is over. Rules:

- Only a connection of whose next request nothing was read is stored. What its client sends meanwhile waits in
  the socket.
- The shelf is a link like that between workers (ipc/handoff.py), from which only the supervisor takes.
- What a socket cannot be asked (its listener, its peer as the application sees it, how many requests it has
  carried) is in the table, a memory file that is stored first. A connection without an entry is closed.
- What systemd returned stays with it until the application serves: a start that fails loses none. Then
  all of it is taken back at once, and goes to the workers as they have room.
- More than the next start can be given (`store.room`) are closed.
- `crossing.py` and `plan.py` decide when all that happens; the `Porter` does it.
- Connections wait in the kernel: nothing is taken from the shelf while systemd has no room.

The table is a sequence of entries: the inode of a socket, a length, and a passage as in ipc/handoff.py.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections import deque
from collections.abc import Container, Sequence
from typing import NamedTuple, assert_never

from stardust.base import system
from stardust.base.address import Address
from stardust.base.errors import HandoffError
from stardust.ipc.handoff import Link, Passage, decode, encode
from stardust.ipc.scoreboard import Scoreboard
from stardust.logs.log import Log
from stardust.supervisor.generation import Generations
from stardust.supervisor.host import Host
from stardust.supervisor.vocabulary import (
    Collect,
    HandOn,
    Moved,
    Shelved,
    Store,
    StoringFailed,
    TakeUp,
    ToConnection,
)
from stardust.systemd.notify import Notifier
from stardust.systemd.store import CONNECTION, TABLE

_ENTRY = struct.Struct("=QI")  # inode, bytes of the passage
# Messages taken from a link, more than it holds: a worker that fills it all the time must not keep us.
_AT_ONCE = 500


def entry(inode: int, passage: Passage) -> bytes:
    """What the table says about a connection."""
    message = encode(passage)
    return _ENTRY.pack(inode, len(message)) + message


def entries(table: bytes) -> dict[int, Passage]:
    """The passages of a table, by inode. One of a format that this version does not know is left out. The
    first that is not whole ends the table."""
    found = {}
    at = 0
    while at + _ENTRY.size <= len(table):
        inode, size = _ENTRY.unpack_from(table, at)
        at += _ENTRY.size
        if at + size > len(table):
            break
        try:
            found[inode] = decode(table[at : at + size])
        except HandoffError:
            pass
        at += size
    return found


class Held(NamedTuple):
    """A connection that is here for the moment."""

    socket: socket.SocketType
    passage: Passage


class Custody:
    """The idle connections of one server. `shelf` is where workers put them when it stops; `storing` whether
    it does and they may; `stored` how many went to systemd, `surplus` how many there was no room for."""

    def __init__(self, notifier: Notifier, returned: Sequence[tuple[int, str]], room: int, log: Log) -> None:
        """`returned`: the descriptors (number, name) that the run before left (`activation.parked`); `room`:
        how many connections the next one can be given."""
        self.shelf = Link.create()
        self.storing = False
        self.stored = self.surplus = 0
        self._notifier = notifier
        self._returned = returned
        self._room = room
        self._log = log
        self._held: deque[Held] = deque()
        self._table = -1

    # --- the start ---------------------------------------------------------------------------------------

    def take_up(self, listeners: Container[Address], now: float) -> int:
        """Take back from systemd what it returned, and close what did not come by one of `listeners`. The
        wait for a request begins anew. How many connections go on; 0 also if this was done before."""
        returned, self._returned = self._returned, ()
        known: dict[int, Passage] = {}
        for fd, name in returned:
            if name == TABLE:
                known.update(entries(system.pread(fd, system.fstat(fd).st_size, 0)))
                system.close(fd)
        for fd, name in returned:
            if name == CONNECTION:
                passage = known.get(system.fstat(fd).st_ino)
                if passage is None or passage.listener not in listeners:
                    system.close(fd)
                else:
                    # The unit may say NonBlocking=yes; connections here are not (worker/connection.py).
                    system.set_blocking(fd, True)
                    self._held.append(Held(system.bare_socket(fileno=fd), passage._replace(since=now)))
        for name in {name for _, name in returned}:
            self._notifier.release(name)
        return len(self._held) if returned else 0

    def hand_on(self, link: Link) -> bool:
        """Give workers what was taken up, as far as there is room; whether that was all."""
        while self._held:
            sock, passage = self._held[0]
            if not link.give(sock.fileno(), passage):
                return False
            self._held.popleft()
            sock.close()
        return True

    # --- the end -----------------------------------------------------------------------------------------

    def open(self) -> None:
        """From now on connections are stored; the first are those that no worker has got yet. OSError: they
        cannot be."""
        self._table = system.memfd_create("stardust-idle", os.MFD_CLOEXEC)
        self.storing = True
        self._notifier.keep(self._table, TABLE)
        while self._held:
            self._store(self._held.popleft())

    def collect(self, link: Link) -> bool:
        """Pass on to systemd what is in a link, as fast as it takes it; whether that was all."""
        for _ in range(_AT_ONCE):
            if self._notifier.pending:
                break
            try:
                taken = link.take()
            except BlockingIOError:
                return True
            except HandoffError as fault:
                self._log.error(f"a worker sent an invalid connection: {fault}")
            except OSError:  # no descriptor is free: later
                return False
            else:
                if taken is not None:
                    self._store(Held(*taken))
        return False

    def _store(self, held: Held) -> None:
        with contextlib.closing(held.socket):
            if held.passage.data:
                return
            if self.stored == self._room:
                self.surplus += 1
                return
            system.write(self._table, entry(system.fstat(held.socket.fileno()).st_ino, held.passage))
            self._notifier.keep(held.socket.fileno(), CONNECTION)
            self.stored += 1

    def close(self) -> None:
        for sock, _ in self._held:
            sock.close()
        if self.storing:
            system.close(self._table)
        self.shelf.close()


class Porter:
    """Carries out what is decided about the connections of a custody. `link` leads from worker to worker."""

    def __init__(
        self, host: Host, custody: Custody, generations: Generations, scoreboard: Scoreboard, link: Link
    ) -> None:
        self._host = host
        self._custody = custody
        self._generations = generations
        self._scoreboard = scoreboard
        self._link = link
        self._watching = False  # the shelf

    def act(self, action: ToConnection) -> None:
        match action:
            case TakeUp():
                self._take_up()
            case HandOn():
                if self._custody.hand_on(self._link):
                    self._host.see(Moved())
            case Store():
                self._store()
            case Collect(last):
                self._collect(last)
            case _:
                assert_never(action)

    def _take_up(self) -> None:
        generation = self._generations.book[self._host.state.serving]
        wanted = generation.listeners if generation.config.store_connections else []
        count = self._custody.take_up([each.address for each in wanted], self._host.now)
        if count:
            self._host.log.info(f"connections taken back after the restart: {count}")

    def _store(self) -> None:
        """Workers look at the word on the scoreboard."""
        try:
            self._custody.open()
        except OSError as fault:
            self._host.log.error(f"cannot store idle connections for the next start: {fault.strerror}")
            self._host.see(StoringFailed())
        self._scoreboard.storing = self._custody.storing

    def _collect(self, last: bool) -> None:
        """While systemd has no room, the shelf is not watched. When no worker is left, connections in the
        link go to systemd too."""
        shelf = self._custody.shelf
        done = self._custody.collect(shelf) and (not last or self._custody.collect(self._link))
        if done:
            self._host.see(Moved())
        if done and not self._watching:
            self._host.watch(shelf.fileno(), lambda: self._host.see(Shelved()))
        elif not done:
            self._host.unwatch(shelf.fileno())
        self._watching = done

    def close(self) -> None:
        """Log what has become of them; close those that are still here."""
        custody = self._custody
        if custody.stored:
            self._host.log.info(f"idle connections stored for the next start: {custody.stored}")
        if custody.surplus:
            self._host.log.warning(
                f"idle connections closed because of the limit of descriptors: {custody.surplus}"
                "; raise LimitNOFILE= of the unit"
            )
        custody.close()
