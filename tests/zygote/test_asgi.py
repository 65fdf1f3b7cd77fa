"""Applications that are ASGI's, told from those that only look like it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from stardust.zygote.asgi import likeness


async def coroutine(scope: Any, receive: Any, send: Any) -> None: ...


async def coroutine_of_wsgi(environ: Any, start_response: Any) -> list[bytes]:
    return []


async def generator(environ: Any, start_response: Any) -> Any:
    yield b""


def three(scope: Any, receive: Any, send: Any) -> Any: ...


def two_steps(scope: Any) -> Any: ...


class Async:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    async def serve(self, scope: Any, receive: Any, send: Any) -> None: ...


class Inherits(Async): ...


class Plain:
    def __call__(self, scope: Any, receive: Any, send: Any) -> Any: ...


class TwoSteps:
    def __init__(self, scope: Any) -> None: ...

    async def __call__(self, receive: Any, send: Any) -> None: ...


class Static:
    @staticmethod
    async def __call__(scope: Any, receive: Any, send: Any) -> None: ...


@pytest.mark.parametrize(
    ("app", "like"),
    [
        (coroutine, "a coroutine function (async def)"),
        (coroutine_of_wsgi, "a coroutine function (async def)"),
        (generator, "a coroutine function (async def)"),
        (three, "a function of (scope, receive, send)"),
        (two_steps, "a function of (scope)"),
        (lambda scope, receive, send: None, "a function of (scope, receive, send)"),
        (Async(), "of type Async, whose __call__ is async"),
        (Inherits(), "of type Inherits, whose __call__ is async"),
        (Static(), "of type Static, whose __call__ is async"),
        (Plain(), "of type Plain, called with (scope, receive, send)"),
        (Async().serve, "a coroutine function (async def)"),
        (Async().__call__, "a coroutine function (async def)"),
        (Plain().__call__, "a function of (scope, receive, send)"),
        (TwoSteps, "a class with an async __call__"),
        (Async, "a class with an async __call__"),
        (functools.partial(coroutine), "a coroutine function (async def)"),
        (functools.partial(functools.partial(Async(), 1), 2), "of type Async, whose __call__ is async"),
    ],
)
def test_asgi(app: Any, like: str) -> None:
    assert likeness(app) == like


class Wsgi:
    def __call__(self, environ: Any, start_response: Any) -> list[bytes]:
        return []

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"it was asked for {name}")


class Response:
    """As in PEP 3333: the class is the application, an instance the response."""

    def __init__(self, environ: Any, start_response: Any) -> None: ...

    def __iter__(self) -> Any: ...


class Both(Response):
    async def __call__(self) -> None: ...


class Wrapper:
    """As a2wsgi.ASGIMiddleware: it has an ASGI application, and is none."""

    def __init__(self, app: Any) -> None:
        self.app = app
        functools.update_wrapper(self, app)

    def __call__(self, environ: Any, start_response: Any) -> list[bytes]:
        return []


class Loose:
    """As werkzeug's LocalProxy: any attribute, but of the object behind it."""

    __call__ = property(lambda self: coroutine)


@functools.wraps(coroutine)
def wrapping(environ: Any, start_response: Any) -> list[bytes]:
    return []


def decorated(function: Callable[..., Any]) -> Any:
    @functools.wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return inner


@pytest.mark.parametrize(
    "app",
    [
        lambda environ, start_response: [],
        lambda *args: [],
        lambda scope, receive: [],
        lambda self, scope: [],
        Wsgi(),
        Wsgi().__call__,
        Response,
        Both,
        Wrapper(coroutine),
        Loose(),
        wrapping,
        decorated(coroutine),
        functools.partial(wrapping),
        functools.lru_cache(wrapping),
        dict,
        print,
        Wsgi,
    ],
    ids=lambda app: type(app).__name__,
)
def test_not_asgi(app: Any) -> None:
    assert likeness(app) == ""
