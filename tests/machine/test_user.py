"""The units of a user's own, by `systemctl --user` alone."""

from __future__ import annotations

import pytest

from tests.live.apps import versions
from tests.live.client import Response
from tests.live.load import Load
from tests.machine.machine import Machine, Outcome

USER = "ann"
SERVICE = "stardust@myapp.service"
SOCKET = "stardust@myapp.socket"

SETTINGS = f"""
app = "app.py"
chdir = "/home/{USER}/app"
max-workers = 2
"""


class Owner:
    """A user of the machine who has an instance, and keeps it running without a session."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        machine.run("useradd", "--create-home", USER)
        number = machine.run("id", "--user", USER).strip()
        # logind asks who wants it, and systemd 257 knows no process that came from outside of the machine.
        machine.run("systemd-run", "--quiet", "--wait", "loginctl", "enable-linger", USER)
        machine.systemctl("start", f"user@{number}.service")
        self.runtime = f"/run/user/{number}"
        self.address = f"{self.runtime}/stardust/myapp.sock"
        self.config = f"/home/{USER}/.config/stardust/myapp.toml"
        self.deploy("1")
        self.configure()

    def attempt(self, *command: str) -> Outcome:
        """Run a command as the user."""
        environ = f"XDG_RUNTIME_DIR={self.runtime}"
        return self.machine.attempt("runuser", f"--user={USER}", "--", "env", environ, *command)

    def systemctl(self, *arguments: str) -> str:
        done = self.attempt("systemctl", "--user", *arguments)
        assert done.code == 0, done
        return done.out

    def show(self, key: str) -> str:
        return self.systemctl("show", "--value", f"--property={key}", SERVICE).strip()

    def deploy(self, version: str, text: str = "") -> None:
        self.machine.write(f"/home/{USER}/app/app.py", text or versions.serving(version))

    def configure(self, settings: str = "") -> None:
        self.machine.write(self.config, SETTINGS + settings)

    def get(self) -> Response:
        return self.machine.get(self.address)


@pytest.fixture
def owner(machine: Machine) -> Owner:
    return Owner(machine)


def test_the_first_request_starts_the_service(owner: Owner) -> None:
    owner.systemctl("start", SOCKET)
    assert owner.show("ActiveState") == "inactive"
    assert owner.get().text == "1"
    # A worker answers before the last one is ready, hence before systemd calls the service active.
    owner.machine.until(lambda: owner.show("ActiveState") == "active", "the service is started")
    pid = owner.show("MainPID")
    assert owner.machine.run("stat", "--format=%U", f"/proc/{pid}").strip() == USER
    verified = owner.attempt("systemd-analyze", "--user", "verify", "--man=no", SERVICE, SOCKET)
    assert verified == (0, "", "")


def test_reload(owner: Owner) -> None:
    """Good, broken in the code, broken in the file, and good again; the user asks, not root."""
    owner.systemctl("start", SERVICE)
    owner.deploy("2")
    owner.systemctl("reload", SERVICE)
    assert owner.get().text == "2"
    owner.deploy("3", versions.BROKEN["ImportError"][0])
    assert owner.attempt("systemctl", "--user", "reload", SERVICE).code == 1
    assert owner.show("ReloadResult") == "exit-code"
    assert "no_such_module_anywhere" in owner.show("StatusText")
    owner.configure("max-wrokers = 3\n")
    assert owner.attempt("systemctl", "--user", "reload", SERVICE).code == 1
    assert "max-wrokers" in owner.show("StatusText")
    assert owner.show("ActiveState") == "active"
    assert owner.get().text == "2"
    owner.configure()
    owner.deploy("4")
    owner.systemctl("reload", SERVICE)
    assert owner.get().text == "4"


def test_restart_and_stop(owner: Owner) -> None:
    owner.systemctl("start", SOCKET)
    with Load(str(owner.machine.path(owner.address)), "/") as load:
        load.await_answers(20)
        owner.systemctl("restart", SERVICE)
        load.await_answers(20)
    assert load.failures == []
    pid = owner.show("MainPID")
    owner.systemctl("stop", SOCKET, SERVICE)
    assert owner.show("Result") == "success"
    assert not owner.machine.path(f"/proc/{pid}").exists()
    assert not owner.machine.path(f"{owner.runtime}/stardust/myapp").exists()


def test_without_its_file_both_units_refuse(owner: Owner) -> None:
    for unit in ("stardust@nothing.socket", "stardust@nothing.service"):
        done = owner.attempt("systemctl", "--user", "start", unit)
        assert done.code == 1
        assert "Assertion failed" in done.err
