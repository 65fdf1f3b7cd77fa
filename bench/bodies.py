"""The applications of the loads that move more than a few bytes: each answers whatever is asked, at any path.

bodies.psgi is the same for servers of Perl; change both together.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any
from wsgiref.util import FileWrapper

KIB = 1 << 10
MIB = 1 << 20
STEP = 64 * KIB
"""What an upload is read by, and a file sent by."""

Environ = dict[str, Any]
Start = Callable[..., object]

FILE = Path(os.environ.get("BENCH_SCRATCH", "/tmp"), "file")
"""What `file` sends. It lies in the folder that a measurement has for itself."""


@cache
def _bytes(length: int) -> bytes:
    return b"0123456789abcdef" * (length // 16)


def post(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Takes an order as JSON, answers its sum as JSON."""
    text = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    lines = json.loads(text)["lines"] if text else []
    answer = {"lines": len(lines), "sum": sum(line["quantity"] * line["cents"] for line in lines)}
    return _answered(start_response, "application/json", json.dumps(answer).encode())


def upload(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Reads a body STEP by STEP, answers its length."""
    left = length = int(environ.get("CONTENT_LENGTH") or 0)
    while left and (data := environ["wsgi.input"].read(min(STEP, left))):
        left -= len(data)
    return _answered(start_response, "text/plain", b"%d\n" % (length - left))


def kib64(environ: Environ, start_response: Start) -> Iterable[bytes]:
    return _answered(start_response, "application/octet-stream", _bytes(64 * KIB))


def mib10(environ: Environ, start_response: Start) -> Iterable[bytes]:
    return _answered(start_response, "application/octet-stream", _bytes(10 * MIB))


def stream(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Pieces that come one by one, and nobody has said how many."""
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return (_bytes(4 * KIB) for _ in range(16))


def file(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """A file by what the server has for it, else by what PEP 3333 shows."""
    if not FILE.exists():
        FILE.write_bytes(_bytes(MIB))
    opened = FILE.open("rb")
    start_response(
        "200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", str(FILE.stat().st_size))]
    )
    wrapper = environ.get("wsgi.file_wrapper", FileWrapper)
    wrapped: Iterable[bytes] = wrapper(opened, STEP)
    return wrapped


def _answered(start_response: Start, kind: str, body: bytes) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]
