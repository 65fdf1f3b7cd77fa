"""idle-timeout: the service leaves, its socket stays, and the next connection starts it again."""

from __future__ import annotations

import select
from concurrent.futures import ThreadPoolExecutor

import pytest

from stardust.logs.events import IDLE_EXIT
from tests.live.apps import versions
from tests.live.attack import SPREAD, TIMEOUT, Attack
from tests.live.client import Connection, request
from tests.machine.instance import Instance
from tests.machine.machine import Machine

SOON = 'idle-timeout = "100ms"\n'

# From before the decision to after it: so long after the last request a command is given.
MOMENTS = [0.02 * step for step in range(8)]  # s

# The attack comes at the decision, or any time after it: while the service ends and while its socket
# listens again. A start takes so long that TriggerLimitBurst= (20 in 2 s) is far.
SPREADS = [SPREAD, (0.0, 0.15)]  # s
ROUNDS = 100
TCP = ("127.0.0.1", 8000)


def exits(instance: Instance) -> list[str]:
    """What the journal says of each time the service has left by itself."""
    unit = f"_SYSTEMD_UNIT={instance.service}"
    return [entry["MESSAGE"] for entry in instance.machine.journal(f"MESSAGE_ID={IDLE_EXIT.id}", unit)]


def left(instance: Instance) -> None:
    """Waits until the service has left by itself, and checks what is seen of it then."""
    machine = instance.machine
    machine.until(lambda: machine.active(instance.service) == "inactive", "the service has left")
    assert instance.status_line == "Idle, exiting"
    well(instance)


def well(instance: Instance) -> None:
    """The service has never failed, and its socket waits for the next connection, or serves."""
    machine = instance.machine
    assert machine.show(instance.service, "Result") == "success"
    assert machine.show(instance.service, "NRestarts") == "0"
    assert machine.active(instance.socket) == "active"


def test_it_leaves_and_is_started_again(machine: Machine) -> None:
    instance = Instance(machine, settings=SOON)
    machine.systemctl("start", instance.socket)
    for runs in (1, 2):
        assert instance.get().text == "hello\n"
        left(instance)
        assert machine.show(instance.socket, "SubState") == "listening"
        assert len(exits(instance)) == runs
    said = "supervisor: idle for 0.1 s: exiting; the next connection starts the server again"
    assert exits(instance) == [said] * 2


def test_an_open_connection_keeps_the_service(machine: Machine) -> None:
    """Systemd is told nothing while it is asked again and again whether anybody is connected."""
    settings = SOON + 'max-keepalive-reqs = 0\nkeepalive-timeout = "1h"\nlog-level = "debug"\n'
    instance = Instance(machine, settings=settings)
    machine.systemctl("start", instance.socket)
    with Connection(str(machine.path(instance.address))) as parked:
        for times in (1, 2, 3):
            parked.send(request("GET", "/"))
            assert parked.receive().text == "hello\n"
            machine.until(
                lambda times=times: machine.log(instance.service).count("not idle: continuing") >= times,  # type: ignore[misc]
                "it was asked",
            )
        assert machine.active(instance.service) == "active"
        assert exits(instance) == []
    left(instance)


# Why a command may fail then, in the words of systemctl: nobody is there; or a connection asks for a start
# while the service stops, which replaces that order.
EXCUSES = {"reload": "is not active, cannot reload.", "restart": "no excuse", "stop": "canceled."}


@pytest.mark.parametrize("command", EXCUSES)
def test_a_command_at_the_moment_of_leaving(machine: Machine, command: str) -> None:
    """It succeeds, or finds nobody, or a connection overtakes it; and the code it was given for serves."""
    instance = Instance(machine, application=versions.serving("0"), settings=SOON)
    machine.systemctl("start", instance.socket)
    with ThreadPoolExecutor() as pool:
        for version, moment in enumerate(MOMENTS, 1):
            assert instance.get().text == str(version - 1)
            # A start that is still under way has loaded the old code, and takes a reload for its own.
            machine.until(lambda: machine.active(instance.service) != "activating", "the start is over")
            instance.deploy(versions.serving(str(version)))
            select.select([], [], [], moment)
            asked = pool.submit(machine.attempt, "systemctl", command, instance.service)
            assert instance.get().status == 200
            done = asked.result()
            if done.code:
                assert done.code == 1
                assert EXCUSES[command] in done.err
            assert instance.get().text == str(version)
    well(instance)


def test_connections_at_the_very_moment_of_leaving(machine: Machine) -> None:
    """By TCP and by the UNIX socket: 0 refused, 0 reset, 0 unanswered."""
    instance = Instance(machine, settings=f"max-keepalive-reqs = 0\nidle-timeout = {TIMEOUT}\n")
    instance.drop_in(f"[Socket]\nListenStream={TCP[0]}:{TCP[1]}\n", instance.socket)
    machine.systemctl("start", instance.socket)
    path = str(machine.path(instance.address))
    with machine.network(), Attack([TCP, path], SPREADS) as attack:
        attack.await_rounds(ROUNDS)
    assert attack.failures == []
    left(instance)
    assert len(exits(instance)) >= ROUNDS / 2
