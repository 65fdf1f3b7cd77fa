"""The smallest useful WSGI application: PEP 3333 and nothing else."""

from __future__ import annotations

import os


def application(environ, start_response):
    who = environ.get("HTTP_USER_AGENT", "somebody").partition("/")[0]
    body = f"Hello, {who}! Process {os.getpid()} answers {environ['PATH_INFO']}.\n".encode()
    start_response(
        "200 OK",
        [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))],
    )
    return [body]
