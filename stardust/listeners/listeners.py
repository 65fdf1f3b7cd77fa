"""Listeners: the sockets that the server accepts on, opened and closed as the configuration says.

`open_all` does what `choice` decides; `superseded` says what a reload left over. What an earlier run bound,
and systemd stored, is our own all the same: `recover` sorts it, and what it finds fit is kept as after a
reload.

Rules:
- An inherited socket is systemd's: never shut down, never unlinked, its options are the .socket unit's.
- getsockname() on a UNIX socket of our own says a temporary name (see `binding`): `Listener.address` is the
  one to trust.

Sockets are non-blocking and close-on-exec. Only the supervisor opens and closes listeners; workers get the
descriptors over the channel.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Iterable, Iterator, Sequence

from stardust.base import system
from stardust.base.address import ABSTRACT, TCP, UNIX, Address
from stardust.base.records import dataclass, replace
from stardust.listeners import binding
from stardust.listeners.binding import FileId
from stardust.listeners.choice import Inherit, Keep, match, wanted
from stardust.settings.table import DEFAULT_ADDRESS, Config, Listen
from stardust.systemd import store
from stardust.systemd.store import Stored

# net.core.somaxconn, to which listen(2) cuts a backlog: where it stands, and what it is unless changed.
SOMAXCONN_FILE = "/proc/sys/net/core/somaxconn"
SOMAXCONN = 4096


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket and what it serves.

    `table` is its [listen.NAME] table, with the address as configured. `address` is where it really listens:
    port 0 has become a port. `file` identifies the socket's file if it was made here. `label` is the name of
    an own socket in systemd's store (systemd/store.py), "" if it has none.
    """

    name: str
    socket: socket.socket
    address: Address
    inherited: bool
    table: Listen
    file: FileId | None = None
    label: str = ""


def open_all(
    config: Config, inherited: Sequence[tuple[int, str]], bound: Sequence[Listener]
) -> list[Listener]:
    """The listeners of `config`: `inherited` descriptors (number, name), `bound` from before, and new ones.

    `inherited` is the same at every reload; its sockets are taken from `bound` if they are there. Nothing of
    `bound` is closed, so a reload that fails later loses nothing.

    Raises ActivationError (see `choice.match`) and ListenError (an address cannot be listened on); what this
    call opened is closed again then, and what systemd owns stays open.
    """
    known = {listener.socket.fileno(): listener.socket for listener in bound if listener.inherited}
    adopted = [(name, known.get(fd) or system.new_socket(fileno=fd)) for fd, name in inherited]
    own = [listener for listener in bound if not listener.inherited and _in_place(listener)]
    opened: list[Listener] = []
    try:
        choices = match(
            config.listen,
            [(name, address_of(sock)) for name, sock in adopted],
            [(listener.name, listener.table.address or listener.address) for listener in own],
        )
        listeners: list[Listener] = []
        for choice in choices:
            if isinstance(choice, Inherit):
                listeners.append(_adopt(choice.table, adopted[choice.position][1]))
            elif isinstance(choice, Keep):
                listeners.append(_keep(choice.table, own[choice.position], config))
            else:
                opened.append(_bind(choice.table, config))
                listeners.append(opened[-1])
        return listeners
    except BaseException:
        for listener in opened:
            close(listener)
        for _, sock in adopted:
            if sock.fileno() not in known:
                sock.detach()
        raise


def recover(config: Config, returned: Sequence[tuple[int, str]]) -> tuple[list[Listener], list[Listener]]:
    """Our own listeners of an earlier run that systemd `returned` (descriptor, name in the store).

    First those that may serve on, to be `bound` for `open_all`. Then the rest, to be closed before: nobody
    asks for their address now, they are in the way of what is asked for, their file is gone, or they no
    longer listen.
    """
    told = [(fd, label, stored) for fd, label in returned if (stored := store.read(fd, label))]
    listeners = [_returned(*each) for each in told]
    asked = [listeners[position] for position in wanted(config, [stored for _, _, stored in told])]
    fit = [each for each in asked if _in_place(each) and system.is_listening(each.socket)]
    return fit, superseded(listeners, fit)


def superseded(before: Iterable[Listener], after: Iterable[Listener]) -> list[Listener]:
    """The listeners of `before` whose socket serves nothing in `after`: those to close after a reload."""
    kept = {listener.socket.fileno() for listener in after}
    return [listener for listener in before if listener.socket.fileno() not in kept]


def accept_all(listener: Listener) -> Iterator[tuple[socket.socket, object]]:
    """The connections that queue, with the addresses that accept() gave. As many as the kernel may keep, and
    no more: under load ever new ones come behind."""
    for _ in range(SOMAXCONN):
        try:
            yield system.accept(listener.socket)
        except OSError:
            return


def close(listener: Listener) -> None:
    """Close the socket. Its file goes with it if it was made here; an inherited one lives on in systemd."""
    if listener.file is not None:
        binding.remove(listener.address.path, listener.file)
    listener.socket.close()


def address_of(sock: socket.socket) -> Address:
    """Where a socket is bound, by its own account."""
    name = sock.getsockname()
    if sock.family != socket.AF_UNIX:
        return Address(TCP, host=name[0], port=name[1])
    # Python gives an abstract name as bytes: a NUL, then the name.
    return (
        Address(ABSTRACT, path=os.fsdecode(name[1:])) if isinstance(name, bytes) else Address(UNIX, path=name)
    )


def _returned(fd: int, label: str, stored: Stored) -> Listener:
    """A listener of an earlier run; it has no table of this configuration yet."""
    sock = system.new_socket(fileno=fd)
    file = None if stored.file is None else FileId(*stored.file)
    table = Listen(name="", address=stored.address)
    return Listener("", sock, _with_real_port(stored.address, sock), False, table, file, label)


def _with_real_port(address: Address, sock: socket.socket) -> Address:
    """The address with the port that a TCP socket really has."""
    return address._replace(port=sock.getsockname()[1]) if address.kind == TCP else address


def most_backlog() -> float:
    """The largest backlog that the kernel does not cut; infinity where that is hidden (ProcSubset=pid)."""
    try:
        return int(system.read_file(SOMAXCONN_FILE))
    except OSError:
        return math.inf


def _in_place(listener: Listener) -> bool:
    """Whether clients still reach the listener at its address: its file may have been removed or replaced."""
    if listener.file is None:
        return True
    try:
        return binding.file_id(listener.address.path) == listener.file
    except OSError:
        return False


def _adopt(table: Listen, sock: socket.socket) -> Listener:
    sock.setblocking(False)
    binding.no_delay(sock)
    return Listener(table.name, sock, address_of(sock), True, table)


def _keep(table: Listen, before: Listener, config: Config) -> Listener:
    """The same socket for a table that may have another name, backlog or permissions by now.

    Whether a wildcard is dual-stack cannot change: that needs a new socket, and the old one is in its way.
    """
    system.listen(before.socket, config.backlog)
    if before.file is not None and table != before.table:
        with binding.named(table):
            binding.permit(before.address.path, *binding.permissions(table))
    return replace(before, name=table.name, table=table)


def _bind(table: Listen, config: Config) -> Listener:
    address = table.address or DEFAULT_ADDRESS
    with binding.named(table):
        file = None
        if address.kind == UNIX:
            mode, uid, gid = binding.permissions(table)
            sock, file = binding.bind_path(address.path, mode=mode, uid=uid, gid=gid, backlog=config.backlog)
        else:
            sock = binding.bind_address(address, ipv6=config.ipv6, backlog=config.backlog)
    stored = Stored(system.fstat(sock.fileno()).st_ino, config.ipv6, file, address)
    return Listener(table.name, sock, _with_real_port(address, sock), False, table, file, store.name(stored))
