"""Is it an ASGI application by mistake?

A server for WSGI that calls one gets a coroutine in the place of a response, for each request anew. It is
told from the outside, before anything is called.

Rules:
- No false alarm: what looks like neither is taken as it is. A wrapper speaks for itself, whatever it wraps:
  a2wsgi.ASGIMiddleware around a coroutine function is a WSGI application, and so may any function be that was
  decorated with functools.wraps.
- Only what a type says is asked, never the object: a proxy (LocalProxy, LazyObject, Mock) has any attribute.

Runs in the application's interpreter; `inspect`, which knows most of this, costs 0.8 MiB.
"""

from __future__ import annotations

import functools
from types import FunctionType, MethodType
from typing import Any

_CO_COROUTINE = 0x80  # inspect.CO_COROUTINE and CO_ASYNC_GENERATOR
_CO_ASYNC_GENERATOR = 0x200

# ASGI 3, as a method too, and ASGI 2, where the application is called in two steps.
_SCOPED = (("scope", "receive", "send"), ("self", "scope", "receive", "send"), ("scope",))


def likeness(app: Any) -> str:
    """What makes `app`, a callable, an ASGI application, in words for behind "is"; "" if nothing does."""
    while isinstance(app, functools.partial):
        app = app.func
    function = _function(app)
    if function is not None:
        return _told(function, "a coroutine function (async def)", "a function of ({})")
    if isinstance(app, type):
        # Called, it gives an instance: the response (PEP 3333 has an example), or the second step of ASGI 2.
        call = None if hasattr(app, "__iter__") else _call(app)
        return _told(call, "a class with an async __call__", "") if call is not None else ""
    call = _call(type(app))
    kind = type(app).__name__
    if call is None:
        return ""
    return _told(call, f"of type {kind}, whose __call__ is async", f"of type {kind}, called with ({{}})")


def _call(kind: type) -> Any:
    """The function that a call of an object of this type calls, if that can be seen."""
    for each in kind.__mro__:
        if "__call__" in vars(each):
            call = vars(each)["__call__"]
            return _function(call.__func__ if isinstance(call, (staticmethod, classmethod)) else call)
    return None


def _function(app: Any) -> Any:
    """The function in Python that a call of `app` calls, if that can be seen."""
    if type(app) is MethodType:
        app = app.__func__
    return app if type(app) is FunctionType else None


def _told(function: Any, coroutine: str, scoped: str) -> str:
    code = function.__code__
    if code.co_flags & (_CO_COROUTINE | _CO_ASYNC_GENERATOR):
        return coroutine
    names = code.co_varnames[: code.co_argcount]
    return scoped.format(", ".join(name for name in names if name != "self")) if names in _SCOPED else ""
