"""Start, status, stop and restart, by systemctl alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tests.live.load import Load
from tests.machine.instance import Instance
from tests.machine.machine import Machine


def test_the_first_request_starts_the_service(machine: Machine) -> None:
    instance = Instance(machine)
    machine.systemctl("start", instance.socket)
    assert machine.active(instance.service) == "inactive"
    assert instance.wake().text == "hello\n"


def test_status_reads_like_a_dashboard(machine: Machine) -> None:
    instance = Instance(machine)
    instance.start()
    machine.systemctl("reload", instance.service)
    report = machine.run("systemctl", "status", "--no-pager", instance.service)
    assert 'Status: "Generation 2, 2/2 workers ready, 0 busy; last reload at ' in report
    with instance.gate() as gate, ThreadPoolExecutor() as pool:
        held = pool.submit(instance.get, instance.held_at)
        gate.arrival().release()
        assert held.result().text == "let go\n"


def test_without_its_file_both_units_refuse(machine: Machine) -> None:
    for unit in ("stardust@nothing.socket", "stardust@nothing.service"):
        done = machine.attempt("systemctl", "start", unit)
        assert done.code == 1
        assert "Assertion failed" in done.err


def test_restart_under_load_refuses_and_resets_nobody(machine: Machine) -> None:
    instance = Instance(machine)
    machine.systemctl("start", instance.socket)
    with Load(str(machine.path(instance.address)), "/pid") as load:
        load.await_answers(50)
        for _ in range(3):
            before = instance.supervisor
            machine.systemctl("restart", instance.service)
            assert instance.supervisor != before
            load.await_answers(50)
    assert load.failures == []


def test_stop_waits_for_the_request_in_flight(machine: Machine) -> None:
    instance = Instance(machine)
    instance.start()
    with instance.gate() as gate, ThreadPoolExecutor() as pool:
        answer = pool.submit(instance.get, instance.held_at)
        held = gate.arrival()
        with machine.start("systemctl", "stop", instance.service) as stop:
            machine.until(lambda: machine.active(instance.service) == "deactivating", "it stops")
            assert stop.poll() is None
            held.release()
            assert answer.result().text == "let go\n"
            assert stop.wait(60) == 0
    assert machine.show(instance.service, "Result") == "success"


def test_stopping_the_socket_too_leaves_nothing_behind(machine: Machine) -> None:
    instance = Instance(machine)
    machine.systemctl("start", instance.socket)
    assert instance.wake().status == 200
    pids = instance.processes()
    assert len(machine.alive(pids)) == len(pids) >= 4
    machine.systemctl("stop", instance.socket, instance.service)
    assert machine.active(instance.service) == "inactive"
    assert machine.alive(pids) == []
    assert not machine.path("/run/stardust/myapp").exists()
    assert machine.attempt("curl", "--unix-socket", instance.address, "http://x/").code == 7
