"""The application of the first loads: a status, two header fields, a short body. The rest is the server's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

BODY = b"Hello, world!\n"


def application(environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))])
    return [BODY]
