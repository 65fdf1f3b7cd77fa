"""`python = …`: the application runs in its own interpreter, with its own packages and none of the server's.

PyPy 3.9 of Debian stands for "another interpreter": other version, other implementation, other speed.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.live.harness import Server

# What `pip install stardust` brings along; none of it is the application's.
SERVERS_OWN = ["dotenv", "systemd"]


@pytest.fixture(scope="module")
def pypy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment of pypy3 with one package of its own, `ownpackage`."""
    interpreter = shutil.which("pypy3")
    assert interpreter is not None, "pypy3 is missing: apt-get install pypy3"
    home = tmp_path_factory.mktemp("venv")
    subprocess.run([interpreter, "-m", "venv", "--without-pip", str(home)], check=True, timeout=60)
    [packages] = home.glob("lib/pypy3*/site-packages")
    (packages / "ownpackage.py").write_text("NAME = 'own'\n")
    return home / "bin" / "python"


@pytest.mark.parametrize("preload", ["true", "false"])
def test_another_interpreter(tmp_path: Path, listener: socket.socket, pypy: Path, preload: str) -> None:
    settings = f'python = "{pypy}"\nmax-workers = 2\npreload = {preload}\n'
    with Server(tmp_path, settings, sockets={"http": listener}) as server:
        server.ready()
        process = json.loads(server.get("/process").body)
        assert process["implementation"] == "pypy"
        assert process["version"].startswith("3.9.")
        found = json.loads(server.get(f"/found?name=ownpackage&{query(SERVERS_OWN)}").body)
        assert found == ["ownpackage"]


def test_reload_to_another_interpreter(tmp_path: Path, listener: socket.socket, pypy: Path) -> None:
    """Each generation starts from a clean interpreter, hence it may be another one."""
    with Server(tmp_path, "max-workers = 1\n", sockets={"http": listener}) as server:
        server.ready()
        assert json.loads(server.get("/process").body)["implementation"] == "cpython"
        server.configure(f'python = "{pypy}"\nmax-workers = 1\n')
        assert server.control("reload").code == 0
        assert json.loads(server.get("/process").body)["implementation"] == "pypy"


def test_an_interpreter_that_does_not_exist(tmp_path: Path, listener: socket.socket) -> None:
    settings = 'python = "/no/such/python"\n'
    with Server(tmp_path, settings, sockets={"http": listener}, trouble=".") as server:
        assert server.wait() == 6
        assert "/no/such/python" in server.log


def test_an_interpreter_that_does_not_work(tmp_path: Path, listener: socket.socket) -> None:
    settings = 'python = "/bin/false"\nmax-workers = 1\n'
    with Server(tmp_path, settings, sockets={"http": listener}, trouble=".") as server:
        assert server.wait() == 1
        assert any("/bin/false" in status for status in server.manager.said("STATUS"))


def test_zygote_and_worker_load_no_package_of_the_server(tmp_path: Path, listener: socket.socket) -> None:
    """Also in the server's own interpreter, where they could be imported, they are not."""
    with Server(tmp_path, "max-workers = 1\n", sockets={"http": listener}) as server:
        server.ready()
        modules = json.loads(server.get("/process").body)["modules"]
        assert not [name for name in modules if name.partition(".")[0] in SERVERS_OWN]
        assert not [name for name in modules if name.startswith(("stardust.supervisor", "stardust.control"))]


def query(names: list[str]) -> str:
    return "&".join(f"name={name}" for name in names)
