"""The application of the load "hostile": a short answer at /, SIZE bytes at /large; bodies are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

BODY = b"Hello, world!\n"
PIECE = bytes(65536)
SIZE = 16 * len(PIECE)


def application(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/large":
        start_response("200 OK", [("Content-Length", str(SIZE))])
        return (PIECE for _ in range(SIZE // len(PIECE)))
    environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))])
    return [BODY]
