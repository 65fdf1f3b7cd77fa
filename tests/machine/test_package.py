"""The Debian package: what it brings, and what apt does to instances that run."""

from __future__ import annotations

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import stardust
from tests.live.apps import versions
from tests.live.client import PATIENCE
from tests.live.load import Load
from tests.machine.instance import Instance
from tests.machine.machine import Machine
from tests.machine.trees import Trees

BROUGHT = (
    "/usr/bin/stardust",
    "/usr/bin/stardustctl",
    "/usr/share/doc/stardust/examples/stardust.toml.example",
    "/usr/share/man/man1/stardustctl.1.gz",
    "/usr/share/man/man5/stardust.toml.5.gz",
    "/usr/share/man/man8/stardust.8.gz",
)

# The files of the modules that the installed server imports and that are neither its own nor Python's.
IMPORTED = """
import ast, importlib.util, pathlib, stardust, sys
names = set()
for path in pathlib.Path(stardust.__file__).parent.rglob("*.py"):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            names.add(node.module)
for name in {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"stardust"}:
    print(importlib.util.find_spec(name).origin)
"""

FROM_ITS_OWN = """
import sys
from only_here import WORD

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{WORD} {sys.prefix}".encode()]
"""


def install(machine: Machine, package: Path) -> None:
    """As an operator does; but there is no network, so nothing can come that it recommends."""
    shutil.copy2(package, machine.path("/root"))
    machine.run("apt-get", "install", "--yes", "--no-install-recommends", f"/root/{package.name}")
    machine.path(f"/root/{package.name}").unlink()


def units(machine: Machine) -> list[str]:
    """The units of stardust that are active, about to be, or failed."""
    listed = machine.systemctl("list-units", "--plain", "--no-legend", "stardust*")
    return [line.split()[0] for line in listed.splitlines()]


def named_after_it(machine: Machine) -> set[str]:
    """Every file of the machine with a name like ours."""
    return set(machine.run("find", "/", "/run", "/tmp", "-xdev", "-iname", "*stardust*").splitlines())


def in_order(machine: Machine) -> None:
    """Neither dpkg nor systemd has anything to complain about."""
    assert machine.run("dpkg", "--audit") == ""
    assert machine.systemctl("is-system-running") == "running\n"


def test_installation_starts_nothing(bare: Machine, release: Trees) -> None:
    install(bare, release.package)
    assert units(bare) == ["stardust.target"]
    assert bare.attempt("pgrep", "--full", "/usr/bin/stardust").code == 1
    assert bare.path("/etc/stardust").is_dir()
    assert not bare.path("/run/stardust").exists()
    in_order(bare)


def test_what_it_brings(machine: Machine) -> None:
    assert set(BROUGHT) <= set(machine.run("dpkg", "--listfiles", "stardust").splitlines())
    assert machine.run("dpkg", "--verify", "stardust") == ""
    for program in ("stardust", "stardustctl"):
        assert machine.run(program, "--version") == f"{program} {stardust.__version__}\n"
    machine.systemctl("cat", "stardust.target", "stardust@myapp.service", "stardust@myapp.socket")


def test_it_depends_on_what_it_imports(machine: Machine) -> None:
    files = machine.run("python3", "-c", IMPORTED).split()
    owners = {line.partition(":")[0] for line in machine.run("dpkg", "--search", *files).splitlines()}
    depends = machine.run("dpkg-query", "--show", "--showformat=${Depends}", "stardust").split(", ")
    assert {*depends} == {"python3:any (>= 3.11~)", *owners}


def test_lintian_has_nothing_to_say(equipped: Machine, release: Trees) -> None:
    place = equipped.path("/root/package")
    shutil.copytree(release.debs, place)
    [changes] = place.glob(f"{release.package.stem.removesuffix('_all')}_*.changes")
    lintian = ("lintian", "--allow-root", "--fail-on=error,warning")
    assert equipped.run(*lintian, f"/root/package/{changes.name}") == ""


def test_the_proxys_group_may_connect_and_nobody_else(machine: Machine) -> None:
    instance = Instance(machine)
    # Also where the service, which makes directories as well, comes first.
    machine.systemctl("start", instance.service, instance.socket)
    ask = ("curl", "--silent", "--show-error", "--unix-socket", instance.address, "http://localhost/")
    assert machine.run("runuser", "--user=www-data", "--", *ask) == "hello\n"
    refused = machine.attempt("runuser", "--user=nobody", "--", *ask)
    assert refused.code == 7, refused


def test_an_application_in_a_virtual_environment(machine: Machine) -> None:
    """It has its own modules, and none of Debian's: not the server's dependencies either."""
    place = "/srv/myapp/venv"
    instance = Instance(machine, application=FROM_ITS_OWN, settings=f'python = "{place}/bin/python"\n')
    machine.run("python3", "-m", "venv", "--without-pip", place)
    [packages] = machine.path(place).glob("lib/python3*/site-packages")
    (packages / "only_here.py").write_text("WORD = 'mine'\n")
    machine.systemctl("start", instance.socket)
    assert instance.wake().text == f"mine {place}"
    instance.deploy("import dotenv\n" + FROM_ITS_OWN)
    assert machine.attempt("systemctl", "reload", instance.service).code == 1
    assert "No module named 'dotenv'" in instance.status_line


def test_an_upgrade_restarts_what_runs_and_loses_nobody(machine: Machine, release: Trees) -> None:
    """With a socket of systemd, and with one that the server bound itself; the others stay as they are."""
    activated, waiting, resting = (Instance(machine, name) for name in ("activated", "waiting", "resting"))
    own = Instance(machine, "own", settings='[listen.http]\naddress = "127.0.0.1:8000"\n')
    machine.systemctl("mask", own.socket)
    machine.systemctl("start", activated.socket, waiting.socket, own.service)
    with (
        Load(str(machine.path(activated.address)), "/pid", clients=2) as load,
        machine.network(),
        Load(("127.0.0.1", 8000), "/pid", clients=2) as own_load,
    ):
        load.await_answers(50)
        own_load.await_answers(50)
        before = {each: each.supervisor for each in (activated, own)}
        install(machine, release.later_package)
        for each in before:
            machine.until(lambda each=each: each.supervisor not in (0, before[each]), "it was restarted")  # type: ignore[misc]
            machine.until(lambda each=each: machine.active(each.service) == "active", "it serves again")  # type: ignore[misc]
        load.await_answers(50)
        own_load.await_answers(50)
    assert load.failures + own_load.failures == []
    assert "+later" in machine.run("dpkg-query", "--show", "stardust")
    assert machine.active(waiting.socket) == "active"
    for unit in (waiting.service, resting.socket, resting.service):
        assert machine.active(unit) == "inactive"
    assert waiting.get().text == "hello\n"
    in_order(machine)


@pytest.mark.usefixtures("release")
def test_removal_waits_for_the_request_in_flight(machine: Machine) -> None:
    instance = Instance(machine)
    machine.systemctl("start", instance.socket)
    with instance.gate() as gate, ThreadPoolExecutor() as pool:
        answer = pool.submit(instance.get, instance.held_at)
        held = gate.arrival()
        pids = instance.processes()
        with machine.start("apt-get", "remove", "--yes", "stardust", stdout=subprocess.DEVNULL) as removal:
            machine.until(lambda: machine.active(instance.service) == "deactivating", "it stops")
            assert removal.poll() is None
            held.release()
            assert answer.result().text == "let go\n"
            assert removal.wait(3 * PATIENCE) == 0
    assert machine.alive(pids) == []
    assert units(machine) == []
    assert machine.attempt("curl", "--unix-socket", instance.address, "http://x/").code == 7
    in_order(machine)


def test_removed_and_installed_again_it_is_as_before(machine: Machine, release: Trees) -> None:
    instance = Instance(machine, application=versions.serving("one"))
    machine.systemctl("enable", "--now", instance.service, instance.socket)
    machine.run("touch", "/var/lib/private/stardust/myapp/kept")
    machine.run("apt-get", "remove", "--yes", "stardust")
    assert machine.path("/var/lib/private/stardust/myapp/kept").exists()
    install(machine, release.package)
    assert machine.systemctl("is-enabled", instance.service, instance.socket) == "enabled\n" * 2
    assert machine.active(instance.service) == machine.active(instance.socket) == "inactive"
    machine.systemctl("start", instance.socket)
    assert instance.get().text == "one"
    assert machine.path("/var/lib/private/stardust/myapp/kept").exists()


@pytest.mark.parametrize("removed_before", [False, True], ids=["while it runs", "after removal"])
def test_purge_leaves_nothing(bare: Machine, release: Trees, *, removed_before: bool) -> None:
    before = named_after_it(bare)
    install(bare, release.package)
    instance = Instance(bare)
    bare.systemctl("enable", "--now", instance.socket, instance.service)
    bare.systemctl("start", "stardust.target")
    assert instance.get().text == "hello\n"
    pids = instance.processes()
    assert len(pids) >= 4
    if removed_before:
        bare.run("apt-get", "remove", "--yes", "stardust")
    bare.run("apt-get", "purge", "--yes", "stardust")
    assert bare.alive(pids) == []
    assert named_after_it(bare) == before
    assert units(bare) == []
    in_order(bare)
