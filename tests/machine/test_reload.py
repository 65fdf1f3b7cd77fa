"""`systemctl reload`: its verdict is the truth, and a reload that fails changes nothing."""

from __future__ import annotations

import pytest

from tests.live.apps import versions
from tests.machine.instance import Instance
from tests.machine.machine import Machine


def refused(instance: Instance, reason: str, result: str = "exit-code") -> None:
    """A reload fails, and all that must be true then is."""
    machine = instance.machine
    before = machine.journal(f"--unit={instance.service}")
    done = machine.attempt("systemctl", "reload", instance.service)
    assert done.code == 1
    assert "Job for stardust@myapp.service failed." in done.err
    assert machine.show(instance.service, "ReloadResult") == result
    assert machine.active(instance.service) == "active"
    assert instance.get().text == "one"
    machine.until(lambda: reason in instance.status_line, f"{reason} in STATUS=")
    assert "reload failed" in instance.status_line
    said = machine.journal(f"--unit={instance.service}")[len(before) :]
    assert any(reason in str(entry["MESSAGE"]) for entry in said)


@pytest.mark.parametrize(("text", "reason"), versions.BROKEN.values(), ids=versions.BROKEN)
def test_good_broken_mended(machine: Machine, text: str, reason: str) -> None:
    instance = Instance(machine, application=versions.serving("zero"))
    machine.systemctl("start", instance.socket)
    assert instance.wake().text == "zero"
    instance.deploy(versions.serving("one"))
    machine.systemctl("reload", instance.service)
    assert instance.get().text == "one"
    assert machine.show(instance.service, "ReloadResult") == "success"
    supervisor = instance.supervisor

    instance.deploy(text)
    refused(instance, reason)

    instance.deploy(versions.serving("two"))
    machine.systemctl("reload", instance.service)
    assert instance.get().text == "two"
    assert machine.show(instance.service, "ReloadResult") == "success"
    assert instance.supervisor == supervisor
    assert machine.show(instance.service, "NRestarts") == "0"


def test_a_broken_file(machine: Machine) -> None:
    instance = Instance(machine, application=versions.serving("one"))
    instance.start()
    instance.configure("max-workers = 3\n")  # given twice
    refused(instance, "/etc/stardust/myapp.toml")
    instance.configure("max-wrokers = 3\n")
    refused(instance, "did you mean max-workers?")
    instance.configure("threads = 2\n")
    machine.systemctl("reload", instance.service)
    assert machine.show(instance.service, "ReloadResult") == "success"


def test_a_reload_that_hangs_ends_at_the_time_limit_and_is_rolled_back(machine: Machine) -> None:
    instance = Instance(machine, application=versions.serving("one"), settings='boot-timeout = "3s"\n')
    instance.start()
    with instance.gate():
        instance.deploy(versions.waiting("two", instance.gate_path))
        refused(instance, "boot-timeout = 3 s")
        workers = instance.workers()
    assert len(workers) == 2


def test_a_client_that_systemd_gives_up_on_takes_the_reload_with_it(machine: Machine) -> None:
    """At its own time limit systemd kills the client, and believes the old code to go on."""
    instance = Instance(machine, application=versions.serving("one"))
    instance.start()
    with instance.gate() as gate:
        instance.deploy(versions.waiting("two", instance.gate_path))
        with machine.start("systemctl", "reload", instance.service) as reload:
            gate.arrival()
            machine.systemctl("kill", "--kill-whom=control", "--signal=KILL", instance.service)
            assert reload.wait(60) == 1
    assert machine.show(instance.service, "ReloadResult") == "signal"
    machine.until(
        lambda: "the client that asked for it has disconnected" in instance.status_line,
        "the reload was rolled back",
    )
    assert instance.get().text == "one"
    assert instance.status()["generation"] == 1


def test_sighup_reloads_as_well(machine: Machine) -> None:
    instance = Instance(machine, application=versions.serving("one"))
    instance.start()
    instance.deploy(versions.serving("two"))
    machine.systemctl("kill", "--kill-whom=main", "--signal=HUP", instance.service)
    machine.until(lambda: "last reload at" in instance.status_line, "the reload is over")
    assert machine.active(instance.service) == "active"
    assert instance.get().text == "two"


def test_the_target_reloads_and_stops_all(machine: Machine) -> None:
    instances = [Instance(machine, name, application=versions.serving("one")) for name in ("blog", "shop")]
    machine.systemctl("start", "stardust.target", *(each.service for each in instances))
    for each in instances:
        each.deploy(versions.serving("two"))
    machine.systemctl("reload", "stardust.target")
    for each in instances:
        machine.until(lambda each=each: each.get().text == "two", f"{each.name} was reloaded")  # type: ignore[misc]
        # A stop before that ends the reload's command too, and systemd calls the service failed.
        machine.until(lambda each=each: machine.active(each.service) == "active", "and knows it")  # type: ignore[misc]
    machine.systemctl("stop", "stardust.target", *(each.socket for each in instances))
    assert [machine.active(each.service) for each in instances] == ["inactive", "inactive"]
