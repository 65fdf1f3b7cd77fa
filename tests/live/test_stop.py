"""Stop: what was begun is finished, what waits in systemd's sockets is kept, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from tests.live.apps.versions import install, waiting
from tests.live.client import Connection, get, request
from tests.live.harness import Gate, Server, gated, listening
from tests.live.load import Load

SETTINGS = "max-workers = 2\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_p4_the_request_being_served_is_finished(
    tmp_path: Path, listener: socket.socket, gate: Gate, number: signal.Signals
) -> None:
    settings = SETTINGS + "max-keepalive-reqs = 0\n"
    with Server(tmp_path, settings, sockets={"http": listener}) as server:
        server.ready()
        with Connection(server.address) as connection:
            connection.send(request("GET", gated(gate.path)))
            held = gate.arrival()
            server.signal(number)
            server.expect("STOPPING", "1")
            held.release()
            response = connection.receive()
            assert response.text == "let go\n"
            connection.ended()
        assert server.wait() == 0


@pytest.mark.parametrize("threads", [1, 2])
def test_a_draining_server_asks_for_more_time(
    tmp_path: Path, listener: socket.socket, gate: Gate, threads: int
) -> None:
    settings = SETTINGS + f"threads = {threads}\n"
    with Server(tmp_path, settings, sockets={"http": listener}) as server:
        server.ready()
        with Connection(server.address) as connection:
            connection.send(request("GET", gated(gate.path)))
            held = gate.arrival()
            server.signal(signal.SIGTERM)
            server.expect("STOPPING", "1")
            server.expect("EXTEND_TIMEOUT_USEC")
            held.release()
            assert connection.receive().text == "let go\n"
        assert server.wait() == 0


def test_p4_the_graceful_time_is_limited(tmp_path: Path, listener: socket.socket, gate: Gate) -> None:
    settings = SETTINGS + 'graceful-timeout = "200ms"\n'
    with Server(tmp_path, settings, sockets={"http": listener}, trouble="graceful-timeout|kill") as server:
        server.ready()
        with Connection(server.address) as connection:
            connection.send(request("GET", gated(gate.path)))
            held = gate.arrival()
            server.signal(signal.SIGTERM)
            held.lost()
        assert server.wait() == 0


@pytest.mark.parametrize(
    "numbers",
    [
        pytest.param([signal.SIGQUIT], id="QUIT"),
        pytest.param([signal.SIGTERM, signal.SIGTERM], id="TERM-twice"),
        pytest.param([signal.SIGINT, signal.SIGINT], id="INT-twice"),
    ],
)
def test_p4_the_fast_stop(
    tmp_path: Path, listener: socket.socket, gate: Gate, numbers: list[signal.Signals]
) -> None:
    """A second signal, or QUIT, does not wait for anybody."""
    with Server(tmp_path, SETTINGS, sockets={"http": listener}, trouble="kill") as server:
        server.ready()
        with Connection(server.address) as connection:
            connection.send(request("GET", gated(gate.path)))
            held = gate.arrival()
            server.signal(numbers[0])
            server.expect("STOPPING", "1")
            for number in numbers[1:]:
                server.signal(number)
            held.lost()
        assert server.wait() == 0


def test_control_c(tmp_path: Path, listener: socket.socket, gate: Gate) -> None:
    """A terminal sends INT to its whole foreground group: still only the supervisor decides."""
    with Server(tmp_path, SETTINGS, sockets={"http": listener}) as server:
        server.ready()
        with Connection(server.address) as connection:
            connection.send(request("GET", gated(gate.path)))
            held = gate.arrival()
            os.killpg(server.pid, signal.SIGINT)
            server.expect("STOPPING", "1")
            held.release()
            assert connection.receive().text == "let go\n"
        assert server.wait() == 0


def test_the_command_waits(tmp_path: Path, listener: socket.socket) -> None:
    with Server(tmp_path, SETTINGS, sockets={"http": listener}) as server:
        server.ready()
        assert server.control("stop").code == 0
        assert server.wait() == 0
        server.expect("STOPPING", "1")
        assert server.control("status").code == 1


def test_stop_while_the_application_loads(tmp_path: Path, listener: socket.socket, gate: Gate) -> None:
    app = tmp_path / "shop.py"
    install(app, waiting("one", gate.path))
    with Server(tmp_path, SETTINGS, app=app, sockets={"http": listener}) as server:
        held = gate.arrival()
        server.signal(signal.SIGTERM)
        held.lost()
        assert server.wait() == 0
        assert not server.manager.said("READY")


def test_a_restart_loses_nothing(tmp_path: Path, listener: socket.socket) -> None:
    """The socket is systemd's: what arrives between two runs waits in it. 0 refused, 0 reset."""
    with Load(listener.getsockname()) as load:
        for run in range(3):
            place = tmp_path / str(run)
            place.mkdir()
            with Server(place, SETTINGS, sockets={"http": listener}) as server:
                server.ready()
                load.await_answers(50)
                server.signal(signal.SIGTERM)
                assert server.wait() == 0
        last = tmp_path / "last"
        last.mkdir()
        with Server(last, SETTINGS, sockets={"http": listener}) as server:
            server.ready()
            load.await_answers(50)
            load.end()
    assert not load.failures


def test_own_sockets_are_cleared_away(tmp_path: Path) -> None:
    """But for a listener's file: it may be half of a restart, through which systemd keeps the socket."""
    path = tmp_path / "http.sock"
    with Server(tmp_path, SETTINGS + f'[listen.http]\naddress = "{path}"\n') as server:
        server.ready()
        assert get(str(path)).status == 200
        assert server.socket_path.is_socket()
    assert path.is_socket()
    assert not server.socket_path.exists()


def test_inherited_sockets_are_left_alone(tmp_path: Path) -> None:
    """They are duplicates of what PID 1 keeps: never shut down, never unlinked."""
    path = tmp_path / "http.sock"
    with listening(str(path)) as listener:
        with Server(tmp_path, SETTINGS, sockets={"http": listener}) as server:
            server.ready()
            assert get(str(path)).status == 200
        assert path.is_socket()
        with Connection(str(path)):
            listener.accept()[0].close()


def test_idle_connections_end_in_order(tmp_path: Path, listener: socket.socket) -> None:
    """A parked connection may begin one more request, whose response says that it is the last: no reset."""
    settings = SETTINGS + 'max-keepalive-reqs = 0\nkeepalive-timeout = "1h"\n'
    with Server(tmp_path, settings, sockets={"http": listener}) as server:
        server.ready()
        with Connection(server.address) as connection:
            connection.send(request("GET", "/"))
            assert not connection.receive().closes
            server.signal(signal.SIGTERM)
            server.expect("STOPPING", "1")
            last = False
            while not last:  # the worker may hear of it a request later
                connection.send(request("GET", "/"))
                last = connection.receive().closes
            connection.ended()
        assert server.wait() == 0


@pytest.mark.parametrize("timeout", ["100ms", "1h"])
def test_idle_connections_do_not_hold_the_stop_up(
    tmp_path: Path, listener: socket.socket, timeout: str
) -> None:
    """A long `keepalive-timeout` is for a server that goes on."""
    settings = (
        SETTINGS + f'max-keepalive-reqs = 0\nkeepalive-timeout = "{timeout}"\ngraceful-timeout = "1h"\n'
    )
    with Server(tmp_path, settings, sockets={"http": listener}) as server:
        server.ready()
        with Connection(server.address) as connection:
            connection.send(request("GET", "/"))
            assert not connection.receive().closes
            server.signal(signal.SIGTERM)
            connection.ended()
        assert server.wait() == 0
