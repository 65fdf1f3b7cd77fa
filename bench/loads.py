"""What is asked of the servers: one row a load. The bytes are in load.lua, the answers in the application.

Add a load here and to `loads` of each server in servers.py that can bear it. No load is made for one server.
"""

from __future__ import annotations

from typing import NamedTuple


class Load(NamedTuple):
    """`app` is a WSGI application of this folder, `shape` a request of load.lua, `wrk` options of wrk(1)."""

    name: str
    title: str
    app: str
    shape: str
    wrk: tuple[str, ...]


LOADS = (
    Load(
        "keep-alive",
        "hello, 15 browser header fields of which some vary, 32 keep-alive connections",
        app="hello:application",
        shape="browser",
        wrk=("--threads", "1", "--connections", "32"),
    ),
    Load(
        "connection",
        "the same, a new connection for every request (`Connection: close`), 32 at a time",
        app="hello:application",
        shape="browser-close",
        wrk=("--threads", "1", "--connections", "32"),
    ),
)
