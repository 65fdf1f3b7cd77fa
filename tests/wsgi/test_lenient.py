"""What PEP 3333 does not allow and applications do: served where that is safe, else explained."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stardust.http1.response import ResponseWriter
from stardust.wsgi.environ import Environ
from stardust.wsgi.gateway import FAILED, GONE, Exchange, FileWrapper
from tests.wsgi.test_gateway import DATE, App, Client, StartResponse, answering, environ, head, run

PAIRS = [("A", "b"), ("C", "d")]


def giving(headers: Any) -> App:
    """As they are: `answering` makes a list of them."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", headers)
        return [b"x"]

    return app


@pytest.mark.parametrize(
    "headers",
    [
        tuple(PAIRS),
        dict(PAIRS).items(),
        (pair for pair in PAIRS),
        [["A", "b"], ["C", "d"]],
        (["A", "b"], ("C", "d")),
        map(list, PAIRS),
    ],
    ids=["tuple", "items of a dict", "generator", "pairs are lists", "some are", "all at once"],
)
def test_headers_of_any_form(headers: Any) -> None:
    outcome = run(giving(headers))
    fields = outcome.client.fields()
    assert (fields[b"a"], fields[b"c"]) == (b"b", b"d")
    assert outcome.summary == (200, b"x", True, True, "")


def test_a_generator_of_headers_is_read_once() -> None:
    headers = iter([["A", "b"], ("C", 1)])
    outcome = run(giving(headers))
    assert outcome.exchange.status == 500
    assert "name and value must be str" in outcome.errors
    assert next(headers, None) is None


def test_a_status_without_a_reason() -> None:
    outcome = run(answering([b"x"], [], "200"))
    assert outcome.client.wire.startswith(b"HTTP/1.1 200 \r\n")
    assert outcome.summary == (200, b"x", True, True, "")


@pytest.mark.parametrize("empty", [b"", ""])
def test_an_empty_text_is_an_empty_body(empty: Any) -> None:
    assert run(answering(empty)).summary == (200, b"", True, True, "")


async def coroutine() -> list[bytes]:
    return [b"x"]


async def asynchronous() -> AsyncIterator[bytes]:
    yield b"x"


class Awaitable:
    def __await__(self) -> Iterator[None]:
        return iter(())


@pytest.mark.parametrize(
    ("make", "hint"),
    [
        (lambda: b"body", "return [body]"),
        (lambda: "body", "return [body.encode()]"),
        (lambda: None, "returned None"),
        (lambda: 5, "not iterable"),
        (coroutine, "a2wsgi.ASGIMiddleware"),
        (Awaitable, "a2wsgi.ASGIMiddleware"),
        (asynchronous, "a2wsgi.ASGIMiddleware"),
        (lambda: {"a": b"b"}, "must consist of bytes"),
    ],
    ids=["bytes", "str", "None", "int", "coroutine", "awaitable", "asynchronous generator", "dict"],
)
def test_a_mistake_is_explained(make: Callable[[], Any], hint: str) -> None:
    outcome = run(lambda environ, start_response: (start_response("200 OK", []), make())[1])
    assert outcome.exchange.status == 500
    assert outcome.exchange.note == FAILED
    assert hint in outcome.errors


# wsgi.file_wrapper: files whose size is not what fstat(2) says


@pytest.mark.parametrize(
    "path", ["/proc/self/cmdline", "/proc/version", "/sys/kernel/mm/transparent_hugepage/enabled"]
)
def test_a_file_of_the_kernel_is_read(path: str) -> None:
    """Of /proc the size is 0, of /sys a page."""
    if not os.path.exists(path):
        path = "/proc/meminfo"
    with open(path, "rb") as file:
        content = file.read()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", str(len(content)))])
        return FileWrapper(open(path, "rb"))

    outcome = run(app)
    assert outcome.client.files == []
    assert outcome.summary == (200, content, True, True, "")


def test_a_file_with_nothing_but_a_hole_is_read(tmp_path: Path) -> None:
    path = tmp_path / "hole"
    with path.open("wb") as file:
        file.truncate(100)
    outcome = run(answering(FileWrapper(path.open("rb")), [("Content-Length", "100")]))
    assert outcome.summary == (200, bytes(100), True, True, "")


# a client that has gone


class Leaving(Client):
    """Leaves after so many looks at it; takes whatever is sent until then."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    def send(self, data: bytes) -> None:
        if not data:
            self.looks -= 1
        if self.looks <= 0:
            self.patience = 0
        super().send(data)


@pytest.mark.parametrize("first", [[], [b"data: 1\n\n"]], ids=["before its head", "in the middle"])
def test_w6_a_generator_without_news_ends_with_its_client(first: list[bytes]) -> None:
    closed = []

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        try:
            yield from first
            while True:
                yield b""
        finally:
            closed.append(True)

    client, request = Leaving(5), head()
    exchange = Exchange(request, ResponseWriter(), client.send, None, True, DATE)
    exchange.run(app, environ(request, sys.stderr))
    assert exchange.note == GONE
    assert closed == [True]
