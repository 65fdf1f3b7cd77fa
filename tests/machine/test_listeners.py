"""Several listeners of one service, told apart by name, each from a socket unit of its own."""

from __future__ import annotations

import pytest

from tests.live.client import get
from tests.live.load import Load
from tests.machine.instance import Instance
from tests.machine.machine import Machine
from tests.machine.test_dropins import SHIPPED

ADMIN = "stardust-admin@.socket"
TLS = "stardust-tls@.socket"
BOTH = "[listen.http]\n[listen.{}]\n"


def add(instance: Instance, template: str) -> str:
    """As the manual says; the name of the new unit, which does not listen yet."""
    unit = template.replace("@", f"@{instance.name}")
    instance.machine.run("cp", f"{SHIPPED}/{template}", "/etc/systemd/system/")
    instance.machine.systemctl("enable", unit)
    return unit


def names(instance: Instance) -> list[str]:
    return sorted(listener["name"] for listener in instance.status()["listeners"])


def test_either_socket_starts_both(machine: Machine) -> None:
    """A service that took only the socket it was started by would end, or leave the other one deaf."""
    instance = Instance(machine, settings=BOTH.format("admin"))
    unit = add(instance, ADMIN)
    machine.systemctl("start", instance.socket)
    assert machine.active(unit) == "inactive"
    assert instance.get().text == "hello\n"
    assert machine.active(unit) == "active"
    assert names(instance) == ["admin", "http"]
    admin = f"/run/stardust/{instance.name}.admin.sock"
    assert machine.get(admin).text == "hello\n"
    assert machine.run("stat", "--format=%G %a", admin) == "adm 660\n"
    machine.systemctl("reload", instance.service)
    assert machine.get(admin).text == "hello\n"
    machine.systemctl("stop", instance.service)
    assert machine.get(admin).text == "hello\n"
    assert names(instance) == ["admin", "http"]


def test_a_listener_is_added_and_nobody_refused(machine: Machine) -> None:
    instance = Instance(machine)
    machine.systemctl("start", instance.socket)
    with Load(str(machine.path(instance.address)), "/pid") as load:
        load.await_answers(20)
        instance.configure(BOTH.format("https"))
        unit = add(instance, TLS)
        assert "already active" in refused(machine, unit)
        machine.systemctl("restart", instance.service)
        load.await_answers(20)
    assert load.failures == []
    assert names(instance) == ["http", "https", "https"]
    with machine.network():
        for host in ("127.0.0.1", "::1"):
            assert get((host, 443)).text == "hello\n"


def refused(machine: Machine, unit: str) -> str:
    """Why a socket unit is not started, as the journal has it."""
    assert machine.attempt("systemctl", "start", unit).code == 1
    return machine.log(unit)


@pytest.mark.parametrize("tables", ["[listen.http]\n", "[listen.http]\n[listen.admni]\n"])
def test_a_name_without_a_table(machine: Machine, tables: str) -> None:
    """Clear wherever one looks: the exit code, STATUS= and the journal. And mending it is enough."""
    instance = Instance(machine, settings=tables)
    add(instance, ADMIN)
    assert machine.attempt("systemctl", "start", instance.service).code == 1
    assert machine.show(instance.service, "ExecMainStatus") == "6"
    for told in (instance.status_line, machine.log(instance.service)):
        assert 'systemd passed the socket "admin"' in told
        assert "[listen.http]" in told
        assert 'did you mean "admni"?' in told or "admni" not in tables
    instance.configure(BOTH.format("admin"))
    assert instance.get().text == "hello\n"
    assert names(instance) == ["admin", "http"]


def test_a_table_without_a_socket(machine: Machine) -> None:
    instance = Instance(machine, settings=BOTH.format("admin"))
    assert machine.attempt("systemctl", "start", instance.service).code == 1
    assert machine.show(instance.service, "ExecMainStatus") == "6"
    for told in (instance.status_line, machine.log(instance.service)):
        assert "[listen.admin] has no address" in told
        assert "FileDescriptorName=admin" in told
