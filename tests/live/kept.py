"""Connections that are kept: each carries one request after another."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tests.live.client import Address, BrokenError, Connection, request


@contextlib.contextmanager
def connected(address: Address, count: int) -> Iterator[list[Connection]]:
    """So many, on which nothing was asked yet."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Connection(address)) for _ in range(count)]


def ask(connection: Connection, target: str = "/") -> str:
    """The answer to one more request, after which the connection stays."""
    connection.send(request("GET", target))
    response = connection.receive()
    if response.status != 200 or response.closes:
        raise BrokenError(f"{response.status} {response.headers}")
    return response.text
