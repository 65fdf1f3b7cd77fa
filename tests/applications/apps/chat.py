"""WebSocket in each of the ways that libraries for threads have: view, raw library, by hand, refused."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask, request
from flask_sock import Sock
from simple_websocket import ConnectionClosed, Server

flask = Flask(__name__)
sock = Sock(flask)


def echo(ws: Any) -> None:
    """Until it is told to end: by the client, or by a word."""
    while True:
        said = ws.receive()
        if said == "leave":
            return
        if said == "fail":
            raise LookupError("as told")
        if said == "close":
            ws.close(4000, "as told")
            return
        ws.send(said)


sock.route("/sock")(echo)


@flask.route("/view", websocket=True)
def view() -> str:
    """As simple-websocket's own example has it: the view returns a response, which must not be sent."""
    ws = Server.accept(request.environ)
    try:
        echo(ws)
    except ConnectionClosed:
        pass
    return "this would be bytes behind the last frame"


@flask.route("/pid")
def pid() -> str:
    return str(os.getpid())


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path == "/hold":  # says that it is here, and waits for the end
        ws = Server.accept(environ)
        with open(environ["QUERY_STRING"], "w") as there:
            there.write("here")
        try:
            ws.receive()
        except ConnectionClosed:
            pass
        return []
    if path == "/ping":
        ws = Server.accept(environ, ping_interval=0.05)
        ws.send(ws.receive())
        raise StopIteration
    if path == "/refused":
        start_response("403 Forbidden", [("Content-Type", "text/plain")])
        return [b"no"]
    if path == "/lazy":
        raise StopIteration
    return flask(environ, start_response)
