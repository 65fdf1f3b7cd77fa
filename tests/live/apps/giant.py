"""Takes and gives bodies larger than anybody should hold in memory. Python 3.9, standard library."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from wsgiref.types import StartResponse, WSGIEnvironment

PIECE = 1 << 20


def pieces(count: int) -> Iterator[bytes]:
    """So many MiB, no two alike."""
    rest = bytes(range(256)) * (PIECE // 256 - 1) + bytes(248)
    return (number.to_bytes(8, "big") + rest for number in range(count))


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    headers = [("Content-Type", "application/octet-stream")]
    if environ["REQUEST_METHOD"] == "POST":
        digest = hashlib.sha256()
        while data := environ["wsgi.input"].read(PIECE):
            digest.update(data)
        start_response("200 OK", headers)
        return [f"{environ['REMOTE_ADDR']} {digest.hexdigest()}".encode()]
    count = int(environ["QUERY_STRING"])
    start_response("200 OK", [*headers, ("Content-Length", str(count * PIECE))])
    return pieces(count)
