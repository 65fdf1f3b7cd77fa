"""The applications of Plack::Test::Suite and of Starlight's own tests, one function a case, found by path."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from typing import TYPE_CHECKING
from wsgiref.validate import validator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from wsgiref.types import StartResponse, WSGIEnvironment

TEXT = [("Content-Type", "text/plain")]
# What close() was called on, by the path of the request; read by /closed.
CLOSED: list[str] = []


class Lines:
    """An iterable that notes its end."""

    def __init__(self, name: str, *chunks: bytes) -> None:
        self.name = name
        self.chunks = iter(chunks)

    def __iter__(self) -> Iterator[bytes]:
        return self.chunks

    def close(self) -> None:
        CLOSED.append(self.name)


def environ_of(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", TEXT)
    return [json.dumps({key: value for key, value in environ.items() if isinstance(value, str)}).encode()]


def echo(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    body = environ["wsgi.input"].read()
    start_response("200 OK", [*TEXT, ("X-Content-Length", environ.get("CONTENT_LENGTH", "none"))])
    return [body]


def digest(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    body = environ["wsgi.input"].read()
    start_response("200 OK", [*TEXT, ("X-Content-Length", environ.get("CONTENT_LENGTH", "none"))])
    return [hashlib.sha256(body).hexdigest().encode()]


def seek(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The input read twice."""
    first = environ["wsgi.input"].read()
    environ["wsgi.input"].seek(0)
    start_response("200 OK", TEXT)
    return [first + b"|" + environ["wsgi.input"].read()]


def lines(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", TEXT)
    return [b"<".join(environ["wsgi.input"])]


def file(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """This very file through wsgi.file_wrapper; with ?length the length is said, too."""
    opened = open(__file__, "rb")  # noqa: SIM115 - the server closes it
    size = opened.seek(0, 2)
    opened.seek(0)
    length = [("Content-Length", str(size))] if environ["QUERY_STRING"] == "length" else []
    start_response("200 OK", [*TEXT, *length])
    wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](opened)
    return wrapped


def file_like(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", TEXT)
    wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](io.BytesIO(b"x" * 100_000), 4096)
    return wrapped


def streamed(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", TEXT)
    return Lines(environ["PATH_INFO"], b"one\n", b"", b"two\n", b"three\r\n\r\n", b"")


def written(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    write = start_response("200 OK", TEXT)
    write(b"")
    write(b"written ")
    write(b"")
    write(b"and ")
    return [b"returned"]


def delayed(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """A generator: start_response is called by the first iteration."""
    start_response("200 OK", TEXT)
    yield b""
    yield b"late"


def empty_string(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", TEXT)
    return [b""]


def nothing(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", TEXT)
    return []


def closed(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", TEXT)
    return [" ".join(CLOSED).encode()]


def headers(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [*TEXT, ("X-Foo", "bar"), ("X-Foo", "baz"), ("X-Long", "l" * 2000)])
    return [b"ok"]


def own_server(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [*TEXT, ("Server", "myself/1.0")])
    return [b"ok"]


def not_modified(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("304 Not Modified", [])
    return []


def no_content(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("204 No Content", [])
    return []


def not_found(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("404 Not Found", TEXT)
    return [b"Not Found"]


def raises(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    raise RuntimeError("as it was told")


def raises_late(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", TEXT)
    yield b"half of "
    raise RuntimeError("as it was told")


def error_page(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """PEP 3333, exc_info: the head is replaced as long as it was not sent."""
    start_response("200 OK", TEXT)
    try:
        raise RuntimeError("handled")
    except RuntimeError:
        start_response("503 Service Unavailable", TEXT, sys.exc_info())
    return [b"sorry"]


def split_header(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [*TEXT, ("X-Foo", "bar\r\nX-Injected: yes")])
    return [b"ok"]


def too_long(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [*TEXT, ("Content-Length", "2")])
    return [b"ok and more"]


def too_short(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [*TEXT, ("Content-Length", "20")])
    return [b"ok"]


def errors(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    environ["wsgi.errors"].write("written to the stream of complaints\n")
    environ["wsgi.errors"].flush()
    start_response("200 OK", TEXT)
    return [b"ok"]


def early_hints(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    environ["wsgi.early_hints"]([("Link", "</style.css>; rel=preload")])
    start_response("200 OK", TEXT)
    return [b"ok"]


def informational(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    environ["stardust.informational"]("102 Processing", [])
    start_response("200 OK", TEXT)
    return [b"ok"]


def valid(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", TEXT)
    return [environ["wsgi.input"].read(1 << 20), b"!"]


CASES: dict[str, Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]] = {
    f"/{case.__name__}": case
    for case in (
        echo,
        digest,
        seek,
        lines,
        file,
        file_like,
        streamed,
        written,
        delayed,
        empty_string,
        nothing,
        closed,
        headers,
        own_server,
        not_modified,
        no_content,
        not_found,
        raises,
        raises_late,
        error_page,
        split_header,
        too_long,
        too_short,
        errors,
        early_hints,
        informational,
    )
}
CASES["/valid"] = validator(valid)


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    return CASES.get(environ["PATH_INFO"], environ_of)(environ, start_response)
