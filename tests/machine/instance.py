"""One stardust@NAME of a machine: its application, its configuration, its units."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.live.apps import versions
from tests.live.client import Response
from tests.live.harness import Gate, gated
from tests.machine.machine import Machine

PROBE = Path(__file__).parents[1] / "live/apps/probe.py"

SETTINGS = """
app = "app.py"
chdir = "/srv/{name}"
max-workers = 2
"""


class Instance:
    """`application` is the text of its code, the probe's without one; `settings` are added to its file."""

    def __init__(
        self, machine: Machine, name: str = "myapp", *, application: str = "", settings: str = ""
    ) -> None:
        self.machine = machine
        self.name = name
        self.service = f"stardust@{name}.service"
        self.socket = f"stardust@{name}.socket"
        self.config = f"/etc/stardust/{name}.toml"
        self.address = f"/run/stardust/{name}.sock"
        self.deploy(application or PROBE.read_text())
        self.configure(settings)

    def configure(self, settings: str = "") -> None:
        self.machine.write(self.config, SETTINGS.format(name=self.name) + settings)

    def deploy(self, application: str) -> None:
        """Replace the application's code, as a deployment does: in one step."""
        place = self.machine.path(f"/srv/{self.name}/app.py")
        place.parent.mkdir(parents=True, exist_ok=True)
        versions.install(place, application)
        place.chmod(0o644)

    def drop_in(self, text: str, unit: str = "") -> None:
        """What `systemctl edit` does."""
        self.machine.write(f"/etc/systemd/system/{unit or self.service}.d/test.conf", text)
        self.machine.systemctl("daemon-reload")

    def start(self) -> None:
        self.machine.systemctl("start", self.service)

    def get(self, target: str = "/", *headers: str) -> Response:
        return self.machine.get(self.address, target, *headers)

    def wake(self) -> Response:
        """The first request to its socket, which starts the service.

        It may be answered before the last worker is ready, hence before systemd calls the service active. A
        reload at that moment would be one with the start.
        """
        answer = self.get()
        self.machine.until(lambda: self.machine.active(self.service) == "active", "the service is started")
        return answer

    @property
    def status_line(self) -> str:
        """STATUS=, as `systemctl status` shows it."""
        return self.machine.show(self.service, "StatusText")

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            self.machine.run("stardustctl", "--config", self.config, "--json", "status")
        )
        return found

    @property
    def supervisor(self) -> int:
        """The process id of the supervisor, on the machine."""
        return int(self.machine.show(self.service, "MainPID"))

    def workers(self) -> dict[int, int]:
        """The process id of each worker, on the machine, by its number."""
        return {worker["id"]: worker["pid"] for worker in self.status()["workers"]}

    def processes(self) -> list[int]:
        """Every process of the service, as systemd sees them."""
        group = "/sys/fs/cgroup" + self.machine.show(self.service, "ControlGroup")
        # Read there, not here: a process id is what it is to the namespace of the reader.
        found = self.machine.run("find", group, "-name", "cgroup.procs", "-exec", "cat", "{}", "+")
        return [int(pid) for pid in found.split()]

    def gate(self) -> Gate:
        """A gate for the application; `held_at` is the target at which the probe waits there."""
        gate = Gate(self.machine.path(str(self.gate_path)))
        gate.path.chmod(0o666)
        return gate

    @property
    def gate_path(self) -> Path:
        """Where the application finds the gate."""
        return Path(f"/srv/{self.name}/gate")

    @property
    def held_at(self) -> str:
        return gated(self.gate_path)
