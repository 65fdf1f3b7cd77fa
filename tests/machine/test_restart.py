"""`store-connections`: systemd holds idle connections through a restart, and ends them after a stop."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from stardust.systemd.store import room
from tests.live.apps import versions
from tests.live.client import BrokenError, Connection, request
from tests.live.kept import ask, connected
from tests.live.load import Load
from tests.machine.instance import Instance
from tests.machine.machine import Machine

DROP_IN = "/usr/share/doc/stardust/examples/drop-ins/connections.conf"
KEPT = 'max-keepalive-reqs = 0\nmax-reqs-per-child = 0\nkeepalive-timeout = "1h"\nstore-connections = true\n'
MANY = 1500  # more than the 1024 descriptors that a service is started with by default


def serving(machine: Machine, *, drop_in: bool = True, application: str = "") -> Instance:
    """An instance that stores connections, with the drop-in for it, or with room for 32 as shipped."""
    instance = Instance(machine, settings=KEPT, application=application)
    if drop_in:
        place = f"/etc/systemd/system/{instance.service}.d/connections.conf"
        machine.run("install", "-D", "--mode=644", DROP_IN, place)
        machine.systemctl("daemon-reload")
    instance.start()
    return instance


@contextlib.contextmanager
def idle(instance: Instance, count: int) -> Iterator[list[Connection]]:
    """So many clients that wait for nothing."""
    with connected(str(instance.machine.path(instance.address)), count) as clients:
        for client in clients:
            ask(client)
        yield clients


def kept(instance: Instance) -> int:
    """How many descriptors systemd keeps for the service."""
    return int(instance.machine.show(instance.service, "NFileDescriptorStore"))


def test_restart_under_load(machine: Machine) -> None:
    instance = serving(machine)
    with Load(str(machine.path(instance.address)), keeping=16, varied=True) as load:
        for _ in range(5):
            load.await_answers(200)
            before = instance.supervisor
            machine.systemctl("restart", instance.service)
            assert instance.supervisor != before
        load.await_answers(200)
        load.end()
    assert (load.failures, load.closes) == ([], 0)
    assert "connections taken back after the restart: " in machine.log(instance.service)
    machine.until(lambda: kept(instance) == 0, "systemd has given them back")


def test_many(machine: Machine) -> None:
    instance = serving(machine)
    instance.drop_in("[Service]\nFileDescriptorStoreMax=2048\n")
    with idle(instance, MANY) as clients:
        machine.systemctl("restart", instance.service)
        for client in clients:
            client.send(request("GET", "/"))
        for client in clients:
            assert not client.receive().closes
    machine.until(lambda: kept(instance) == 0, "systemd has given them back")


def test_more_than_a_start_can_be_given(machine: Machine) -> None:
    """systemd would fail to start the service, again and again: they are closed before."""
    instance = serving(machine)
    instance.drop_in("[Service]\nFileDescriptorStoreMax=2048\nLimitNOFILE=1024:524288\n")
    machine.systemctl("restart", instance.service)
    with idle(instance, MANY) as clients:
        machine.systemctl("restart", instance.service)
        answers = 0
        for client in clients:
            with contextlib.suppress(BrokenError, OSError):
                ask(client)
                answers += 1
    assert answers == room(1024)
    assert f"closed because of the limit of descriptors: {MANY - answers}" in machine.log(instance.service)


def test_a_stop_ends_them(machine: Machine) -> None:
    instance = serving(machine)
    with idle(instance, 20) as clients:
        machine.systemctl("stop", instance.socket, instance.service)
        for client in clients:
            client.ended()
    assert kept(instance) == 0
    instance.start()
    assert instance.get().text == "hello\n"


def test_a_stop_by_our_own_command_ends_them(machine: Machine) -> None:
    instance = serving(machine)
    with idle(instance, 20) as clients:
        machine.run("stardustctl", "--config", instance.config, "stop")
        for client in clients:
            client.ended()


def test_more_than_fit(machine: Machine) -> None:
    """What the unit as shipped has no room for is closed, and the service starts all the same."""
    instance = serving(machine, drop_in=False)
    with idle(instance, 40) as clients:
        machine.systemctl("restart", instance.service)
        answers = 0
        for client in clients:
            with contextlib.suppress(BrokenError, OSError):
                ask(client)
                answers += 1
    assert answers == 31


def test_a_broken_application_is_mended(machine: Machine) -> None:
    """Starts that fail, also systemd's own, lose nobody."""
    instance = serving(machine, application=versions.serving("one"))
    with idle(instance, 20) as clients:
        instance.deploy(versions.BROKEN["ImportError"][0])
        assert machine.attempt("systemctl", "restart", instance.service).code == 1
        instance.deploy(versions.serving("two"))
        machine.systemctl("restart", instance.service)
        for client in clients:
            assert ask(client) == "two"


def test_a_client_that_goes_meanwhile(machine: Machine) -> None:
    """systemd sees it, and forgets the connection."""
    instance = serving(machine, application=versions.serving("one"))
    with idle(instance, 20) as clients:
        instance.deploy(versions.BROKEN["ImportError"][0])
        assert machine.attempt("systemctl", "restart", instance.service).code == 1
        assert kept(instance) == 21
        for client in clients[:5]:
            client.socket.close()
        machine.until(lambda: kept(instance) == 16, "systemd has forgotten five")
        instance.deploy(versions.serving("two"))
        machine.systemctl("restart", instance.service)
        for client in clients[5:]:
            assert ask(client) == "two"
