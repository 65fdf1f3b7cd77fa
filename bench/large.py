"""The application of the load "hostile": a short answer at /, SIZE bytes at /large; bodies are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

BODY = b"Hello, world!\n"
PIECE = b"0123456789abcdef" * 4096
SIZE = 64 * len(PIECE)  # more than the kernel buffers for a reader: 2.7 MiB, over the loopback


def application(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/large":
        start_response("200 OK", [("Content-Length", str(SIZE))])
        # Each a copy of its own: what waits of them takes memory, as pages do that are made for somebody.
        return (bytes(memoryview(PIECE)) for _ in range(SIZE // len(PIECE)))
    environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))])
    return [BODY]
