"""Processes that hang or die: who notices, and what becomes of the others."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tests.machine.instance import Instance
from tests.machine.machine import Machine

IMPATIENT = "[Service]\nWatchdogSec=3s\n"


def signal(machine: Machine, name: str, *pids: int) -> None:
    machine.run("kill", f"-{name}", *map(str, pids))


def restarted_by_watchdog(instance: Instance, before: int) -> None:
    machine = instance.machine
    machine.until(
        lambda: instance.supervisor not in (0, before) and machine.active(instance.service) == "active",
        "the watchdog restarted the service",
    )
    assert "Watchdog timeout" in machine.log(instance.service)
    assert instance.get().status == 200


def zygote(instance: Instance) -> int:
    (found,) = [
        pid
        for pid in instance.processes()
        if instance.machine.path(f"/proc/{pid}/comm").read_text().startswith("stardust:g")
    ]
    return found


def test_a_stopped_supervisor_is_restarted(machine: Machine) -> None:
    instance = Instance(machine)
    instance.drop_in(IMPATIENT)
    instance.start()
    before = instance.supervisor
    signal(machine, "STOP", before)
    restarted_by_watchdog(instance, before)


def test_a_stopped_worker_is_replaced_and_the_service_stays(machine: Machine) -> None:
    instance = Instance(machine, settings='heartbeat-timeout = "1s"\n')
    instance.drop_in(IMPATIENT)
    instance.start()
    supervisor = instance.supervisor
    number, pid = next(iter(instance.workers().items()))
    signal(machine, "STOP", pid)
    machine.until(lambda: number not in instance.workers(), "the worker was replaced")
    machine.until(lambda: instance.status()["ready"] == 2, "the pool is whole")
    assert instance.supervisor == supervisor
    assert machine.show(instance.service, "NRestarts") == "0"
    assert instance.get().status == 200


def test_workers_that_all_hang_are_the_watchdogs_affair(machine: Machine) -> None:
    """With heartbeat-timeout off the supervisor itself replaces nobody."""
    instance = Instance(machine, settings="heartbeat-timeout = 0\n")
    instance.drop_in(IMPATIENT)
    instance.start()
    before = instance.supervisor
    signal(machine, "STOP", *instance.workers().values())
    restarted_by_watchdog(instance, before)


def test_a_stopped_zygote_is_replaced_with_its_workers(machine: Machine) -> None:
    """It neither reaps the killed workers nor forks new ones: a new generation takes over."""
    instance = Instance(machine, settings='heartbeat-timeout = "1s"\nboot-timeout = "2s"\n')
    instance.drop_in(IMPATIENT)
    instance.start()
    supervisor, before = instance.supervisor, instance.workers()
    signal(machine, "STOP", zygote(instance), *before.values())
    machine.until(
        lambda: instance.status()["generation"] > 1 and instance.workers().keys().isdisjoint(before),
        "a new generation serves",
    )
    machine.until(lambda: instance.status()["ready"] == 2, "the pool is whole")
    assert instance.supervisor == supervisor
    assert machine.show(instance.service, "NRestarts") == "0"
    assert instance.get().status == 200


def test_a_killed_supervisor_leaves_no_orphan_and_no_connection_unanswered(machine: Machine) -> None:
    instance = Instance(machine)
    # Time to connect while nobody serves.
    instance.drop_in("[Service]\nRestartSec=2s\n")
    machine.systemctl("start", instance.socket)
    assert instance.wake().status == 200
    before = instance.processes()
    assert len(machine.alive(before)) == len(before) >= 4
    signal(machine, "KILL", instance.supervisor)
    machine.until(lambda: machine.active(instance.service) == "activating", "it waits for its restart")
    assert machine.alive(before) == []
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda _: instance.get(), range(5)))
    assert [answer.status for answer in answers] == [200] * 5
    assert machine.show(instance.service, "NRestarts") == "1"
    assert set(instance.processes()).isdisjoint(before)
