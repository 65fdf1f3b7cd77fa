"""Who an application is: its user's environment, and the name of its process."""

from __future__ import annotations

import json
import os
import pwd
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.harness import Server

ENVIRONMENT = """
import json, os

found = dict(os.environ)

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(found).encode()]
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user may look into; pytest's are not."""
    with tempfile.TemporaryDirectory() as path:
        Path(path).chmod(0o755)
        yield Path(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
@pytest.mark.parametrize("given", [{}, {"HOME": "/srv/shop"}, {"USER": "shop", "LOGNAME": "shop"}], ids=str)
@pytest.mark.parametrize("preload", ["true", "false"])
def test_what_the_settings_say_wins(
    place: Path, listener: socket.socket, given: dict[str, str], preload: str
) -> None:
    (place / "app.py").write_text(ENVIRONMENT)
    table = "\n".join(["[environment]", *(f'{name} = "{value}"' for name, value in given.items())])
    settings = f'user = "nobody"\nmax-workers = 1\npreload = {preload}\n{table}\n'
    with Server(place, settings, app="app:application", sockets={"http": listener}) as server:
        server.ready()
        found = json.loads(server.get("/").body)
    account = pwd.getpwnam("nobody")
    expected = {"HOME": account.pw_dir, "USER": account.pw_name, "LOGNAME": account.pw_name, **given}
    assert {name: found[name] for name in expected} == expected


TITLE = """
import os
import setproctitle

def application(environ, start_response):
    if environ["PATH_INFO"] == "/name":
        setproctitle.setproctitle("shop: at work")
        setproctitle.setthreadtitle("shop")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""


def title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode()


@pytest.mark.parametrize("when", ["loading", "serving"])
@pytest.mark.parametrize("preload", ["true", "false"])
def test_the_title_that_an_application_gives(
    tmp_path: Path, listener: socket.socket, packages: Path, when: str, preload: str
) -> None:
    """It stays, whenever it is given: each worker has ours only if nobody has chosen another one."""
    first = 'setproctitle.setproctitle("shop: loaded")\n' if when == "loading" else ""
    (tmp_path / "app.py").write_text(TITLE + first)
    settings = f'python = "{packages}"\nmax-workers = 1\npreload = {preload}\n'
    with Server(tmp_path, settings, app="app:application", sockets={"http": listener}) as server:
        server.ready()
        pid = int(server.get("/").body)
        if when == "loading":
            assert title(pid) == "shop: loaded"
        else:
            assert title(pid).startswith("stardust: worker 1")
        server.get("/name")
        assert title(pid) == "shop: at work"
