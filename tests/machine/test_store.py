"""Without a socket unit: systemd keeps the listeners that the server binds, and refuses nobody meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.live.apps import versions
from tests.live.client import Address, Connection, get, request
from tests.live.load import Load
from tests.machine.instance import Instance
from tests.machine.machine import Machine

TCP = ("127.0.0.1", 8000)
OTHER = ("127.0.0.1", 8001)
ABSTRACT = b"\0shop"
# $STATE_DIRECTORY lasts; what is in $RUNTIME_DIRECTORY goes with every stop, and a restart is one.
FILE = "/var/lib/stardust/myapp/http.sock"

TEXTS = {"http": "127.0.0.1:8000", "abstract": "@shop", "file": FILE}


def listening(**addresses: str) -> str:
    """The tables of so many listeners, by name."""
    return "".join(f'[listen.{name}]\naddress = "{text}"\n' for name, text in addresses.items())


def serving(machine: Machine, settings: str = "", name: str = "myapp", application: str = "") -> Instance:
    """An instance without a socket unit, which serves."""
    settings = settings or listening(**TEXTS)
    instance = Instance(machine, name, settings=settings, application=application)
    machine.systemctl("mask", instance.socket)
    instance.start()
    return instance


def everywhere(machine: Machine) -> list[Address]:
    """Where clients reach TEXTS, from within the machine's network."""
    return [TCP, ABSTRACT, str(machine.path(FILE))]


def kept(instance: Instance) -> int:
    """How many listeners systemd keeps for the service."""
    return int(instance.machine.show(instance.service, "NFileDescriptorStore"))


def refused(addresses: Sequence[Address]) -> None:
    for address in addresses:
        with pytest.raises(ConnectionRefusedError):
            get(address)


def handed(instance: Instance) -> dict[str, str]:
    """What systemd has told the supervisor about descriptors."""
    text = instance.machine.path(f"/proc/{instance.supervisor}/environ").read_text()
    variables = dict(line.partition("=")[::2] for line in text.split("\0"))
    return {name: value for name, value in variables.items() if name.startswith(("FDSTORE", "LISTEN_"))}


def test_restart_under_load_refuses_and_resets_nobody(machine: Machine) -> None:
    instance = serving(machine)
    with machine.network():
        loads = [Load(address, "/pid", clients=2) for address in everywhere(machine)]
        with loads[0], loads[1], loads[2]:
            for _ in range(3):
                for load in loads:
                    load.await_answers(20)
                before = instance.supervisor
                machine.systemctl("restart", instance.service)
                assert instance.supervisor != before
            for load in loads:
                load.await_answers(20)
    assert [load.failures for load in loads] == [[], [], []]
    assert kept(instance) == 3


def test_connections_wait_until_a_killed_server_is_restarted(machine: Machine) -> None:
    instance = serving(machine)
    # Time to connect while nobody serves.
    instance.drop_in("[Service]\nRestartSec=2s\n")
    machine.systemctl("kill", "--kill-whom=main", "--signal=KILL", instance.service)
    machine.until(lambda: machine.active(instance.service) == "activating", "it waits for its restart")
    with machine.network(), ThreadPoolExecutor() as pool:
        answers = list(pool.map(get, everywhere(machine) * 3))
    assert [answer.status for answer in answers] == [200] * 9
    assert machine.show(instance.service, "NRestarts") == "1"
    assert kept(instance) == 3


def test_a_stop_drops_what_is_kept(machine: Machine) -> None:
    instance = serving(machine)
    for _ in range(2):
        assert kept(instance) == 3
        with machine.network():
            for address in everywhere(machine):
                assert get(address).text == "hello\n"
            machine.systemctl("stop", instance.service)
            assert kept(instance) == 0
            refused(everywhere(machine))
        instance.start()


@pytest.mark.parametrize("commands", [("stop", "start"), ("restart",)], ids=" ".join)
def test_an_address_that_changed_while_the_server_was_down(
    machine: Machine, commands: tuple[str, ...]
) -> None:
    """What nobody asks for any more does not listen any more, and is not kept."""
    instance = serving(machine, listening(http="127.0.0.1:8000"))
    instance.configure(listening(http="127.0.0.1:8001"))
    for command in commands:
        machine.systemctl(command, instance.service)
    with machine.network():
        assert get(OTHER).text == "hello\n"
        refused([TCP])
    machine.until(lambda: kept(instance) == 1, "systemd has forgotten the old one")


def test_a_reload_that_drops_an_address_frees_it(machine: Machine) -> None:
    instance = serving(machine, listening(http="127.0.0.1:8000", side="127.0.0.1:8001"))
    assert kept(instance) == 2
    instance.configure(listening(http="127.0.0.1:8000"))
    machine.systemctl("reload", instance.service)
    machine.until(lambda: kept(instance) == 1, "systemd has forgotten it")
    serving(machine, listening(http="127.0.0.1:8001"), "blog")
    with machine.network():
        assert get(TCP).text == get(OTHER).text == "hello\n"


def test_connections_wait_while_a_broken_application_is_mended(machine: Machine) -> None:
    """It does not start (exit 3), and systemd tries again and again; nobody is refused over that."""
    instance = serving(machine, application=versions.serving("one"))
    instance.deploy(versions.BROKEN["ImportError"][0])
    assert machine.attempt("systemctl", "restart", instance.service).code == 1
    assert "code=exited, status=3/" in machine.log(instance.service)
    with machine.network(), Connection(TCP) as waiting:
        waiting.send(request("GET", "/", "Connection: close"))
        assert machine.attempt("systemctl", "restart", instance.service).code == 1
        assert kept(instance) == 3
        instance.deploy(versions.serving("two"))
        machine.systemctl("restart", instance.service)
        assert waiting.receive().text == "two"
        for address in everywhere(machine):
            assert get(address).text == "two"


def test_a_file_that_systemd_removes_is_made_anew(machine: Machine) -> None:
    """In $RUNTIME_DIRECTORY: the stored socket, which nobody could reach any more, is given up."""
    path = "/run/stardust/myapp/http.sock"
    instance = serving(machine, listening(http=path))
    for _ in range(2):
        machine.systemctl("restart", instance.service)
        assert machine.get(path).text == "hello\n"
        machine.until(lambda: kept(instance) == 1, "systemd has forgotten the old one")


def test_what_the_supervisor_is_told(machine: Machine) -> None:
    """systemd 254 and later say that there is a store; the application hears nothing of either."""
    instance = serving(machine)
    machine.systemctl("restart", instance.service)
    told = handed(instance)
    version = int(machine.run("systemctl", "--version").split()[1])
    assert told.get("FDSTORE") == ("32" if version >= 254 else None)
    assert told["LISTEN_FDS"] == "3"
    assert all(name.startswith("bound-") for name in told["LISTEN_FDNAMES"].split(":"))
    with machine.network():
        environ = get(TCP, "/process").text
    assert "FDSTORE" not in environ
    assert "LISTEN_" not in environ
