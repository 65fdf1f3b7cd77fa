"""Texts of applications that answer their version, and of some that cannot be loaded: the reloads' material.

They are texts, not files, because a test changes the code under a running server, and because a file with a
syntax error would have to be explained to every tool.
"""

from __future__ import annotations

import os
from pathlib import Path

SERVING = """
VERSION = {version!r}

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [VERSION.encode()]
"""

# Its load waits at a Gate of the harness.
WAITING = """
import os, socket

with socket.socket(socket.AF_UNIX) as connection:
    connection.connect({gate!r})
    connection.sendall(str(os.getpid()).encode())
    connection.recv(1)
"""

# What stops the load, and what the reason given must name.
BROKEN = {
    "SyntaxError": ("def application(environ, start_response:\n", "SyntaxError"),
    "ImportError": ("import no_such_module_anywhere\n", "no_such_module_anywhere"),
    "sys.exit": ("import sys\nsys.exit('no database configured')\n", "no database configured"),
}


def serving(version: str) -> str:
    return SERVING.format(version=version)


def waiting(version: str, gate: Path) -> str:
    return WAITING.format(gate=str(gate)) + serving(version)


def install(app: Path, text: str) -> None:
    """Replaces the application's file in one step, as a deployment does."""
    fresh = app.with_suffix(".new")
    fresh.write_text(text)
    os.replace(fresh, app)
