"""What tests of listeners are given, and how they look from outside."""

from __future__ import annotations

import os
import socket
import stat

import pytest

from stardust.base.address import parse
from stardust.base.errors import ListenError
from stardust.listeners import listeners as listener
from stardust.listeners.listeners import Listener
from stardust.settings.table import Config, Listen


def config(*tables: Listen, ipv6: bool = True, backlog: int = 16) -> Config:
    return Config(listen=tables, ipv6=ipv6, backlog=backlog)


def open_one(table: Listen, opened: list[Listener], *, ipv6: bool = True) -> Listener:
    (one,) = listener.open_all(config(table, ipv6=ipv6), [], [])
    opened.append(one)
    return one


def at(text: str, name: str = "http") -> Listen:
    return Listen(name=name, address=parse(text))


def reaches(where: tuple[str, int] | str | bytes, family: int = socket.AF_INET) -> bool:
    with socket.socket(family) as client:
        client.settimeout(5)
        try:
            client.connect(where)
        except ConnectionRefusedError:
            return False
        return True


def listens(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def mode_of(path: str) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


def leave_stale(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)


def failure(*tables: Listen) -> str:
    with pytest.raises(ListenError) as caught:
        listener.open_all(config(*tables), [], [])
    return str(caught.value)
