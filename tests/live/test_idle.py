"""Idle exit: a server on systemd's sockets leaves when nobody needs it, and no connection is lost over it."""

from __future__ import annotations

import os
import select
import signal
import socket
from pathlib import Path

import pytest

from tests.live.attack import CLIENTS, SPREAD, TIMEOUT, Attack
from tests.live.client import PATIENCE, Connection, get, request
from tests.live.harness import Gate, Server, gated

SETTINGS = "max-workers = 2\nmax-keepalive-reqs = 0\n"
SOON = 'idle-timeout = "50ms"\n'

EXITS = 40  # of the server under attack


def left(server: Server) -> None:
    """Waits until the server has left by itself, and checks that it said so."""
    assert server.expect("STOPPING", "1").fields["STATUS"] == "Idle, exiting"
    assert server.wait() == 0
    assert server.manager.said("STOPPING") == ["1"]


@pytest.mark.parametrize("threads", [1, 2])
def test_nobody_comes(tmp_path: Path, listener: socket.socket, threads: int) -> None:
    settings = SETTINGS + SOON + f"threads = {threads}\n"
    with Server(tmp_path, settings, sockets={"http": listener}) as server:
        server.ready()
        left(server)
        assert "idle for 0.05 s: exiting; the next connection starts the server again" in server.log


def test_the_next_connection_is_for_the_next_start(tmp_path: Path, listener: socket.socket) -> None:
    for run in range(2):
        place = tmp_path / str(run)
        place.mkdir()
        with Connection(listener.getsockname()) as first:
            first.send(request("GET", "/", "Connection: close"))
            with Server(place, SETTINGS + SOON, sockets={"http": listener}) as server:
                assert first.receive().text == "hello\n"
                left(server)


def test_an_idle_connection_holds_it(tmp_path: Path, listener: socket.socket) -> None:
    """Until it has ended: then nobody is connected, and that for so long."""
    settings = SETTINGS + SOON + 'keepalive-timeout = "1h"\nheader-timeout = "1h"\nlog-level = "debug"\n'
    with Server(tmp_path, settings, sockets={"http": listener}) as server:
        with Connection(server.address) as parked, Connection(server.address):
            for pauses in range(1, 4):
                parked.send(request("GET", "/"))
                assert parked.receive().text == "hello\n"
                server.await_log(rf"(?s)(asking.*continuing.*){{{pauses}}}")
                assert get(server.address).text == "hello\n"
        left(server)


def test_a_request_holds_it(tmp_path: Path, listener: socket.socket, gate: Gate) -> None:
    with Server(tmp_path, SETTINGS + SOON, sockets={"http": listener}) as server:
        with Connection(server.address) as connection:
            connection.send(request("GET", gated(gate.path), "Connection: close"))
            held = gate.arrival()
            for _ in range(5):
                assert get(server.address).text == "hello\n"
            held.release()
            assert connection.receive().text == "let go\n"
        left(server)


def test_a_worker_that_does_not_answer(tmp_path: Path, listener: socket.socket) -> None:
    """Nobody knows what it holds, so the server stays; and the others do not wait for its answer."""
    settings = SETTINGS + SOON + 'heartbeat-timeout = 0\nlog-level = "debug"\n'
    with Connection(listener.getsockname()) as first:
        first.send(request("GET", "/"))
        with Server(tmp_path, settings, sockets={"http": listener}) as server:
            assert first.receive().text == "hello\n"
            stopped = min(server.workers())
            os.kill(stopped, signal.SIGSTOP)
            first.socket.close()
            server.await_log("(?s)(asking.*continuing.*){3}")
            assert not server.manager.said("STOPPING")
            os.kill(stopped, signal.SIGCONT)
            left(server)


def test_a_reload_takes_it_over(tmp_path: Path, listener: socket.socket) -> None:
    with Server(tmp_path, SETTINGS, sockets={"http": listener}) as server:
        server.ready()
        server.configure(SETTINGS + 'idle-timeout = "1h"\n')
        assert server.control("reload").code == 0
        server.ready()  # the kernel keeps eleven messages that nobody has read, and no more
        server.configure(SETTINGS + SOON)
        assert server.control("reload").code == 0
        server.ready()
        left(server)


def test_without_systemd_it_has_no_effect(tmp_path: Path, listener: socket.socket) -> None:
    """One listener that is not systemd's is enough: no connection there could start the server again."""
    path = str(tmp_path / "http.sock")
    settings = SETTINGS + SOON + f'[listen.http]\n[listen.own]\naddress = "{path}"\n'
    with Server(tmp_path, settings, sockets={"http": listener}) as server:
        server.ready()
        warning = f"idle-timeout = 0.05 has no effect: systemd does not listen on own {path}"
        assert server.log.count(warning) == 1
        for address in (server.address, path):
            assert get(address).text == "hello\n"


def test_connections_at_the_very_moment_of_leaving(tmp_path: Path, listener: socket.socket) -> None:
    """The test plays systemd: the next connection starts the server that has ended. 0 refused, 0 reset."""
    settings = f"max-workers = 2\nmax-keepalive-reqs = 0\nidle-timeout = {TIMEOUT}\n"
    with Attack([listener.getsockname()], [SPREAD]) as attack:
        for run in range(EXITS):
            assert select.select([listener], [], [], PATIENCE)[0]
            place = tmp_path / str(run)
            place.mkdir()
            with Server(place, settings, sockets={"http": listener}) as server:
                left(server)
        with Server(tmp_path, SETTINGS, sockets={"http": listener}) as server:
            server.ready()
            attack.end()
    assert not attack.failures
    assert attack.attacks >= EXITS * CLIENTS
