"""Reload: the new code serves when the command returns, or the old one goes on and everybody is told why."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest

from tests.live.apps.versions import BROKEN, install, serving, waiting
from tests.live.client import MS, Connection, get, request
from tests.live.harness import Gate, Server, gated, outcome
from tests.live.load import Load

RELOADS = 20
WORKERS = 2
SETTINGS = f"max-workers = {WORKERS}\nmax-reqs-per-child = 0\n"


@pytest.fixture
def app(tmp_path: Path) -> Path:
    path = tmp_path / "shop.py"
    install(path, serving("one"))
    return path


def answers(server: Server) -> set[str]:
    """What the server answers, asked often enough to meet every worker."""
    return {server.get().text for _ in range(4 * WORKERS)}


def test_p4_reloads_under_load(tmp_path: Path, listener: socket.socket, app: Path) -> None:
    """The command returns when the new version answers, nobody is answered by the old one after that, and
    no request fails."""
    with Server(tmp_path, SETTINGS, app=app, sockets={"http": listener}) as server:
        server.ready()
        with Load(server.address) as load:
            for number in range(RELOADS):
                version = f"version {number}"
                install(app, serving(version))
                assert server.control("reload").code == 0
                assert answers(server) == {version}
                load.await_answers(10)
        assert not load.failures
        status = server.status()
        assert status["generation"] == RELOADS + 1
        assert status["pid"] == server.pid


@pytest.mark.parametrize("preload", ["true", "false"])
def test_p5_reloads_that_fail(tmp_path: Path, listener: socket.socket, app: Path, preload: str) -> None:
    """Exit 1 with the reason; the old version never stops answering; the next good reload succeeds."""
    settings = SETTINGS + f"preload = {preload}\n"
    with Server(tmp_path, settings, app=app, sockets={"http": listener}, trouble=".") as server:
        server.ready()
        with Load(server.address) as load:
            for text, reason in BROKEN.values():
                before = server.workers().keys()
                install(app, text)
                verdict = server.control("reload")
                assert verdict.code == 1
                assert reason in verdict.err
                server.expect("RELOADING", "1")
                server.ready()  # owed after a failure too, or the unit stays "reloading"
                assert any(reason in status for status in server.manager.said("STATUS"))
                assert reason in server.status()["reload"]["reason"]
                assert server.workers().keys() == before
                assert answers(server) == {"one"}
                load.await_answers(10)
            install(app, serving("two"))
            assert server.control("reload").code == 0
            assert answers(server) == {"two"}
        assert not load.failures
        assert load.answers.keys() <= {"one", "two"}


def test_the_traceback_reaches_the_command(tmp_path: Path, listener: socket.socket, app: Path) -> None:
    with Server(tmp_path, SETTINGS, app=app, sockets={"http": listener}, trouble=".") as server:
        server.ready()
        install(app, "def broken():\n    raise RuntimeError('out of luck')\n\nbroken()\n")
        verdict = server.control("reload")
        assert verdict.code == 1
        assert "RuntimeError: out of luck" in verdict.err
        assert f'File "{app}", line 2, in broken' in verdict.err


def test_p5_reload_with_a_wrong_configuration(tmp_path: Path, listener: socket.socket, app: Path) -> None:
    with Server(tmp_path, SETTINGS, app=app, sockets={"http": listener}, trouble=".") as server:
        server.ready()
        server.configure("max-workers = -1\n")
        verdict = server.control("reload")
        assert verdict.code == 1
        assert "stardust.toml:3" in verdict.err
        assert "max-workers" in verdict.err
        server.ready()
        assert answers(server) == {"one"}


def test_reload_changes_settings_and_listeners(tmp_path: Path, listener: socket.socket, app: Path) -> None:
    """A listener that the new configuration names serves when the command returns; one it drops goes."""
    first, second = str(tmp_path / "first.sock"), str(tmp_path / "second.sock")
    with Server(tmp_path, SETTINGS + f'[listen.side]\naddress = "{first}"\n', app=app) as server:
        server.ready()
        assert get(first).text == "one"
        old = server.workers()
        server.configure(f'max-workers = 3\n[listen.side]\naddress = "{second}"\n')
        assert server.control("reload").code == 0
        assert get(second).text == "one"
        for pid in old:
            server.ended(pid)
        assert server.status()["total"] == 3
        assert [each["address"] for each in server.status()["listeners"]] == [second]
    assert not Path(first).exists()


def test_hangup(tmp_path: Path, listener: socket.socket, app: Path) -> None:
    """SIGHUP is the same reload without a client: RELOADING=1 with its time, then READY=1."""
    with Server(tmp_path, SETTINGS, app=app, sockets={"http": listener}) as server:
        server.ready()
        install(app, serving("two"))
        server.signal(signal.SIGHUP)
        message = server.expect("RELOADING", "1")
        assert int(message.fields["MONOTONIC_USEC"]) > 0
        server.ready()
        assert answers(server) == {"two"}


def test_hangup_that_fails(tmp_path: Path, listener: socket.socket, app: Path) -> None:
    with Server(tmp_path, SETTINGS, app=app, sockets={"http": listener}, trouble=".") as server:
        server.ready()
        install(app, BROKEN["ImportError"][0])
        server.signal(signal.SIGHUP)
        server.expect("RELOADING", "1")
        server.ready()
        assert answers(server) == {"one"}
        assert "no_such_module_anywhere" in server.log


def test_reload_during_reload_queues_once(
    tmp_path: Path, listener: socket.socket, app: Path, gate: Gate
) -> None:
    """Three requests while generation 2 loads make one generation 3, with the newest code."""
    with Server(tmp_path, SETTINGS, app=app, sockets={"http": listener}) as server:
        server.ready()
        install(app, waiting("two", gate.path))
        server.signal(signal.SIGHUP)
        second = gate.arrival()
        install(app, waiting("three", gate.path))
        for _ in range(3):
            server.signal(signal.SIGHUP)
            server.status()  # an answer proves that the loop went round, and took the signal
        second.release()
        third = gate.arrival()
        install(app, waiting("four", gate.path))
        third.release()
        while answers(server) != {"three"}:
            server.ready()  # each reload owes one
        assert server.status()["generation"] == 3
        assert gate.quiet()


def test_p4_a_request_outlives_the_reload(
    tmp_path: Path, listener: socket.socket, app: Path, gate: Gate
) -> None:
    """The command returns while an old worker still serves a long request, which then ends in full."""
    with Server(tmp_path, SETTINGS, sockets={"http": listener}) as server:
        server.ready()
        with Connection(server.address) as connection:
            connection.send(request("GET", gated(gate.path)))
            held = gate.arrival()
            assert server.control("reload").code == 0
            assert int(server.get("/pid").text) != held.pid
            assert held.pid in server.processes()
            held.release()
            response = connection.receive()
            assert response.text == "let go\n"
            assert response.closes


def test_p5_code_that_does_not_come_up_in_time(
    tmp_path: Path, listener: socket.socket, app: Path, gate: Gate
) -> None:
    settings = SETTINGS + f"boot-timeout = {2000 * MS}\n"
    with Server(tmp_path, settings, app=app, sockets={"http": listener}, trouble=".") as server:
        server.ready()
        install(app, waiting("two", gate.path))
        verdict = server.control("reload")
        assert verdict.code == 1
        assert "boot-timeout" in verdict.err
        gate.arrival().lost()
        assert answers(server) == {"one"}


def test_a_client_that_gives_up_takes_its_reload_back(
    tmp_path: Path, listener: socket.socket, app: Path, gate: Gate
) -> None:
    """systemd kills the command at its time limit and says that the old configuration goes on: so it does."""
    with Server(tmp_path, SETTINGS, app=app, sockets={"http": listener}, trouble=".") as server:
        server.ready()
        install(app, waiting("two", gate.path))
        command = server.start_control("reload")
        held = gate.arrival()
        command.kill()
        outcome(command)
        held.lost()
        server.expect("RELOADING", "1")
        server.ready()
        assert answers(server) == {"one"}
        assert server.status()["generation"] == 1
