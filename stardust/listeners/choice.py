"""Where each listener of a configuration comes from: inherited from systemd, kept from before, or bound anew.

Rules:
- systemd's sockets are told apart by name: descriptor "http" serves [listen.http], whatever address the table
  has. With tables, a descriptor without one is an error, and so is a table with neither address nor
  descriptor.
- What was bound before, by this run or by one before it, is told apart by its address as configured.

Pure.
"""

from __future__ import annotations

import difflib
from collections.abc import Container, Sequence
from typing import NamedTuple

from stardust.base.address import TCP, Address
from stardust.base.errors import ActivationError
from stardust.settings.table import DEFAULT_ADDRESS, Config, Listen
from stardust.systemd.store import Stored

DEFAULT_NAME = "default"
"""What a listener is called that no table names."""


class Inherit(NamedTuple):
    """Serve `table` with the inherited descriptor at `position`."""

    table: Listen
    position: int


class Keep(NamedTuple):
    """Serve `table` with the socket at `position` of those bound before."""

    table: Listen
    position: int


class Bind(NamedTuple):
    """Bind a socket for `table`, which has an address."""

    table: Listen


Choice = Inherit | Keep | Bind


def match(
    tables: Sequence[Listen],
    inherited: Sequence[tuple[str, Address]],
    bound: Sequence[tuple[str, Address]],
) -> list[Choice]:
    """Where the socket of each table comes from, in the order of the tables.

    `inherited` and `bound` are names and addresses, those of `bound` as configured (port 0 stays 0, and so
    may stand there twice). Names of bound sockets do not matter: a table that was renamed keeps its socket.

    Raises ActivationError if tables and descriptors do not fit each other.
    """
    if not tables:
        if inherited:
            return [Inherit(Listen(name=name), position) for position, (name, _) in enumerate(inherited)]
        tables = [Listen(name=DEFAULT_NAME, address=DEFAULT_ADDRESS)]
    _refuse_leftovers(tables, inherited)
    choices: list[Choice] = []
    for table in tables:
        given = [position for position, (name, _) in enumerate(inherited) if name == table.name]
        taken = {choice.position for choice in choices if isinstance(choice, Keep)}
        choices += [Inherit(table, position) for position in given] or [_own(table, inherited, bound, taken)]
    return choices


def _own(
    table: Listen,
    inherited: Sequence[tuple[str, Address]],
    bound: Sequence[tuple[str, Address]],
    taken: Container[int],
) -> Choice:
    if table.address is None:
        names = ", ".join(f'"{name}"' for name, _ in inherited) or "none"
        raise ActivationError(
            f"[listen.{table.name}] has no address, and systemd passed no socket of that name "
            f"(it passed: {names}); set its address, or start the .socket unit with "
            f"FileDescriptorName={table.name}"
        )
    for position, (_, address) in enumerate(bound):
        if address == table.address and position not in taken:
            return Keep(table, position)
    return Bind(table)


def _refuse_leftovers(tables: Sequence[Listen], inherited: Sequence[tuple[str, Address]]) -> None:
    names = [table.name for table in tables]
    for name, address in inherited:
        if name in names:
            continue
        near = difflib.get_close_matches(name, names, n=1)
        known = ", ".join(f"[listen.{known}]" for known in names)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        raise ActivationError(
            f'systemd passed the socket "{name}" ({address}), but the configuration has only '
            f"{known}; add [listen.{name}], or change FileDescriptorName= of the .socket unit{hint}"
        )


def wanted(config: Config, stored: Sequence[Stored]) -> list[int]:
    """The positions of what was `stored` and is asked for again, one for each table that asks.

    The socket of a wildcard cannot be made dual-stack, or cease to be, once it is bound.
    """
    asked = [table.address for table in config.listen] or [DEFAULT_ADDRESS]
    found = []
    for position, each in enumerate(stored):
        wildcard = each.address.kind == TCP and not each.address.host
        if each.address in asked and (not wildcard or each.ipv6 == config.ipv6):
            asked.remove(each.address)
            found.append(position)
    return found
