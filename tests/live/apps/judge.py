"""Answers with all that it was told, for who knows what that must be. Python 3.9, standard library."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from wsgiref.types import StartResponse, WSGIEnvironment

# What a server may keep from an application, depending on who sent it.
VOUCHED = ("HTTP_FORWARDED", "HTTP_X_FORWARDED_")


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    fields = {key: environ[key] for key in environ if key.startswith(("HTTP_", "CONTENT_"))}
    body = environ["wsgi.input"].read()
    line = "{REQUEST_METHOD} {RAW_URI} {SERVER_PROTOCOL}".format(**environ)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [testimony(line, fields, body)]


def testimony(line: str, fields: Mapping[str, str], body: bytes) -> bytes:
    """What is answered to a request: its line, its fields as an environ has them, its body."""
    told = sorted(item for item in fields.items() if item[1] and not item[0].startswith(VOUCHED))
    text = f"{line} {zlib.crc32(repr(told).encode()):08x} {len(body)} {zlib.crc32(body):08x}\n"
    return text.encode("latin-1")
