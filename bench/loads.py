"""What is asked of the servers: one row a load. The bytes are in load.lua, the answers in the application.

wrk asks, and over a UNIX socket, which wrk does not know, h2load.

Add a load here and to `loads` of each server in servers.py that can bear it. No load is made for one server.
"""

from __future__ import annotations

from typing import NamedTuple


class Load(NamedTuple):
    """`app` is a WSGI application of this folder, `shape` a request of load.lua; `way` is how the server
    is asked: "plain" over TCP, "tls", "log" with an access log, or "unix", whose bytes are in h2load.py."""

    name: str
    title: str
    app: str
    shape: str
    connections: int = 32
    way: str = "plain"


LOADS = (
    Load(
        "keep-alive",
        "hello, 15 browser header fields, some of which vary, 32 keep-alive connections",
        app="hello:application",
        shape="browser",
    ),
    Load(
        "minimal",
        "hello, always the same request, with no header field but Host",
        app="hello:application",
        shape="minimal",
    ),
    Load(
        "connection",
        "hello as in keep-alive, but a new connection for every request (`Connection: close`), 32 at a time",
        app="hello:application",
        shape="browser-close",
    ),
    Load(
        "post",
        "a POST of 10 KiB of JSON, which the application parses and answers with JSON",
        app="bodies:post",
        shape="post",
    ),
    Load(
        "upload",
        "a POST of 1 MiB, which the application reads in pieces of 64 KiB; 8 connections",
        app="bodies:upload",
        shape="upload",
        connections=8,
    ),
    Load("64-kib", "a response of 64 KiB in one piece", app="bodies:kib64", shape="browser"),
    Load(
        "10-mib",
        "a response of 10 MiB in one piece; 8 connections",
        app="bodies:mib10",
        shape="browser",
        connections=8,
    ),
    Load(
        "stream",
        "a response of 16 pieces of 4 KiB that come one by one, without Content-Length",
        app="bodies:stream",
        shape="browser",
    ),
    Load(
        "file",
        "a file of 1 MiB by `wsgi.file_wrapper`, if the server has it; 8 connections",
        app="bodies:file",
        shape="browser",
        connections=8,
    ),
    Load(
        "unix",
        "hello, 14 browser header fields, 32 keep-alive connections over a UNIX socket",
        app="hello:application",
        shape="browser",
        way="unix",
    ),
    Load("tls", "hello as in keep-alive, over TLS", app="hello:application", shape="browser", way="tls"),
    Load(
        "access-log",
        "hello as in keep-alive, with one line per request in an access log",
        app="hello:application",
        shape="browser",
        way="log",
    ),
    Load(
        "flask",
        "a page of Flask: a Jinja template with a table of 20 rows, escaped",
        app="flask_page:application",
        shape="browser",
    ),
    Load(
        "django",
        "a page of Django (examples/django): 20 rows from SQLite, a template, a CSRF token",
        app="django_page:application",
        shape="browser-front",
    ),
)
