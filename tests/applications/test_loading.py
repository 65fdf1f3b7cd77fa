"""Applications named in other ways than module:callable, and those that no server for WSGI can call."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from tests.live.client import Connection, request
from tests.live.harness import Server

FRAMEWORKS = """
import functools
from a2wsgi import ASGIMiddleware
from fastapi import FastAPI
from starlette.applications import Starlette

fast = FastAPI()
star = Starlette()
bound = functools.partial(fast)

@fast.get("/")
async def root():
    return "hello"

wrapped = ASGIMiddleware(fast)

def make(name, *, wrap):
    return ASGIMiddleware(fast) if wrap else fast
"""
INI = """
[app:main]
paste.app_factory = site_of_paste:factory
says = here: %(here)s

[app:shop]
paste.app_factory = site_of_paste:factory
says = shop

[composite:both]
paste.composite_factory = site_of_paste:both
first = main
"""
SITE = """
def factory(global_conf, says):
    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [says.encode()]
    return application

def both(loader, global_conf, first):
    return loader.get_app(first, global_conf=global_conf)
"""


@pytest.mark.parametrize("app", ["frame:fast", "frame:star", "frame:bound", "frame:make('x', wrap=False)"])
def test_an_asgi_application_is_told(
    tmp_path: Path, listener: socket.socket, packages: Path, app: str
) -> None:
    (tmp_path / "frame.py").write_text(FRAMEWORKS)
    settings = f'python = "{packages}"\nmax-workers = 1\n'
    with Server(tmp_path, settings, app=app, sockets={"http": listener}, trouble="cannot load") as server:
        assert server.wait() != 0
        assert f"cannot load {app}: " in server.log
        assert "from a2wsgi import ASGIMiddleware; application = ASGIMiddleware(" in server.log


@pytest.mark.parametrize("app", ["frame:wrapped", "frame:make('x', wrap=True)"])
def test_wrapped_it_is_served(tmp_path: Path, listener: socket.socket, packages: Path, app: str) -> None:
    (tmp_path / "frame.py").write_text(FRAMEWORKS)
    settings = f'python = "{packages}"\nmax-workers = 1\npreload = false\n'  # it has a thread
    with Server(tmp_path, settings, app=app, sockets={"http": listener}) as server:
        server.ready()
        with Connection(server.address) as connection:
            connection.send(request("GET", "/"))
            assert json.loads(connection.receive().body) == "hello"


@pytest.mark.parametrize(
    ("name", "says"),
    [("", "here: {}/conf"), ("#main", "here: {}/conf"), ("#shop", "shop"), ("#both", "here: {}/conf")],
)
def test_paste(tmp_path: Path, listener: socket.socket, packages: Path, name: str, says: str) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/site.ini").write_text(INI)
    (tmp_path / "conf/site_of_paste.py").write_text(SITE)
    settings = f'python = "{packages}"\nmax-workers = 1\nchdir = "{tmp_path}"\n'
    with Server(tmp_path, settings, app=f"paste:conf/site.ini{name}", sockets={"http": listener}) as server:
        server.ready()
        assert server.get().text == says.format(tmp_path)


def test_paste_has_no_such_section(tmp_path: Path, listener: socket.socket, packages: Path) -> None:
    (tmp_path / "site.ini").write_text(INI)
    settings = f'python = "{packages}"\nmax-workers = 1\nchdir = "{tmp_path}"\n'
    with Server(
        tmp_path, settings, app="paste:site.ini#mian", sockets={"http": listener}, trouble="cannot load"
    ) as server:
        assert server.wait() != 0
        assert f"{tmp_path}/site.ini does not describe an application mian: No section 'mian'" in server.log
