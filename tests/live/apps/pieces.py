"""Responses that come in pieces, from a file, or not to their end. Python 3.9, standard library."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path == "/file":
        file = open(parse_qs(environ["QUERY_STRING"])["path"][0], "rb")  # noqa: SIM115 - closed by the server
        length = os.fstat(file.fileno()).st_size
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(length))])
        return environ["wsgi.file_wrapper"](file)  # type: ignore[no-any-return]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return pieces(path == "/cut")


def pieces(cut: bool) -> Iterable[bytes]:
    for number in range(200):
        if cut and number == 20:
            raise RuntimeError("the application ends here")
        yield b"%d\n" % number * 1000
