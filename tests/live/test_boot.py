"""Boot: READY=1 is true, a failure says why, and the application sees nothing of how it was started."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path

import pytest

from tests.live.apps.versions import BROKEN, install, waiting
from tests.live.client import MS, Connection, exchange, get, request
from tests.live.harness import PROBE, Gate, Server


@pytest.mark.parametrize("preload", ["true", "false"])
def test_serves_when_ready(tmp_path: Path, listener: socket.socket, preload: str) -> None:
    settings = f"max-workers = 2\npreload = {preload}\n"
    with Server(tmp_path, settings, sockets={"http": listener}) as server:
        server.ready()
        response = server.get("/")
        assert (response.status, response.reason, response.text) == (200, "OK", "hello\n")
        assert response.header("Server") == "stardust"


def test_ready_means_that_every_worker_has_loaded(
    tmp_path: Path, listener: socket.socket, gate: Gate
) -> None:
    """Without preload each worker loads for itself, here at a gate; two of three are not enough."""
    app = tmp_path / "shop.py"
    install(app, waiting("one", gate.path))
    settings = "max-workers = 3\npreload = false\n"
    with Server(tmp_path, settings, app=app, sockets={"http": listener}) as server:
        first, second, last = gate.arrival(), gate.arrival(), gate.arrival()
        first.release()
        second.release()
        assert server.get().text == "one"  # so those two did load, and have had time to say so
        assert not server.manager.said("READY")
        last.release()
        server.ready()
        status = server.status()
        assert (status["ready"], status["total"]) == (3, 3)


def test_a_long_boot_asks_for_more_time(tmp_path: Path, listener: socket.socket, gate: Gate) -> None:
    app = tmp_path / "shop.py"
    install(app, waiting("one", gate.path))
    with Server(tmp_path, "max-workers = 1\n", app=app, sockets={"http": listener}) as server:
        held = gate.arrival()
        server.expect("EXTEND_TIMEOUT_USEC")
        held.release()
        server.ready()


def test_p12_a_signal_while_the_application_loads(
    tmp_path: Path, listener: socket.socket, gate: Gate
) -> None:
    """It is not forgotten: the reload that it asks for follows the boot."""
    app = tmp_path / "shop.py"
    install(app, waiting("one", gate.path))
    with Server(tmp_path, "max-workers = 1\n", app=app, sockets={"http": listener}) as server:
        held = gate.arrival()
        server.signal(signal.SIGHUP)
        held.release()
        server.ready()
        server.expect("RELOADING", "1")
        gate.arrival().release()
        server.ready()
        assert server.status()["generation"] == 2


def test_connections_wait_for_the_boot(tmp_path: Path, listener: socket.socket, gate: Gate) -> None:
    """What arrives before READY=1 waits in the queue of the socket; nothing is refused."""
    app = tmp_path / "shop.py"
    install(app, waiting("one", gate.path))
    with (
        Server(tmp_path, "max-workers = 1\n", app=app, sockets={"http": listener}) as server,
        socket.create_connection(listener.getsockname()) as early,
    ):
        early.sendall(request("GET", "/", "Connection: close"))
        gate.arrival().release()
        server.ready()
        assert early.recv(15) == b"HTTP/1.1 200 OK"


@pytest.mark.parametrize("preload", ["true", "false"])
@pytest.mark.parametrize("name", BROKEN)
def test_an_application_that_does_not_load(
    tmp_path: Path, listener: socket.socket, name: str, preload: str
) -> None:
    """Exit 3, STATUS= says why, nothing serves."""
    text, reason = BROKEN[name]
    app = tmp_path / "shop.py"
    install(app, text)
    settings = f"max-workers = 2\npreload = {preload}\n"
    with Server(tmp_path, settings, app=app, sockets={"http": listener}, trouble=".") as server:
        assert server.wait() == 3
        assert reason in server.log
        assert any(reason in status for status in server.manager.said("STATUS"))
        assert not server.manager.said("READY")


def test_an_application_that_takes_too_long(tmp_path: Path, listener: socket.socket, gate: Gate) -> None:
    app = tmp_path / "shop.py"
    install(app, waiting("one", gate.path))
    settings = f"max-workers = 1\nboot-timeout = {2000 * MS}\n"
    with Server(tmp_path, settings, app=app, sockets={"http": listener}, trouble=".") as server:
        gate.arrival().lost()
        assert server.wait() == 3
        assert "boot-timeout" in server.log


@pytest.mark.parametrize(
    ("settings", "code", "wanted"),
    [
        pytest.param("max-workers = -1\n", 6, ["max-workers", "-1"], id="bounds"),
        pytest.param("max-wrokers = 1\n", 6, ["max-wrokers", "max-workers"], id="unknown-key"),
        pytest.param('timeout = "soon"\n', 6, ["timeout", "soon"], id="type"),
        pytest.param("threads = \n", 6, ["stardust.toml:3"], id="not-toml"),
    ],
)
def test_a_wrong_setting(tmp_path: Path, settings: str, code: int, wanted: list[str]) -> None:
    with Server(tmp_path, settings, trouble=".") as server:
        assert server.wait() == code
        assert "stardust.toml" in server.log
        for text in wanted:
            assert text in server.log


def test_an_unknown_flag(tmp_path: Path) -> None:
    with Server(tmp_path, None, arguments=["--max-wrokers=2", str(PROBE)], trouble=".") as server:
        assert server.wait() == 2
        assert "--max-workers" in server.log


def test_flags_alone(tmp_path: Path) -> None:
    """`stardust APP --socket PATH`: no file, no systemd."""
    path = str(tmp_path / "http.sock")
    arguments = [str(PROBE), "--socket", path, "--max-workers=1"]
    with Server(tmp_path, None, arguments=arguments) as server:
        server.ready()
        assert get(path).text == "hello\n"


def test_the_environment_is_the_applications(tmp_path: Path, listener: socket.socket) -> None:
    """What systemd told the server is not the application's business; what the settings say is."""
    (tmp_path / "one.env").write_text("FIRST=1\nSECOND=from the file\n")
    (tmp_path / "here").mkdir()
    settings = """
        max-workers = 1
        chdir = "here"
        env-file = ["one.env"]
        [environment]
        SECOND = "from the table"
    """
    outside = {"THIRD": "inherited", "WATCHDOG_USEC": "60000000", "INVOCATION_ID": "0123"}
    with Server(tmp_path, settings, sockets={"http": listener}, environ=outside) as server:
        server.ready()
        process = json.loads(server.get("/process").body)
        environ = process["environ"]
        assert environ["FIRST"] == "1"
        assert environ["SECOND"] == "from the table"
        assert (environ["THIRD"], environ["INVOCATION_ID"]) == ("inherited", "0123")
        private = ("LISTEN_", "NOTIFY_SOCKET", "WATCHDOG_")
        assert not [name for name in environ if name.startswith(private)]
        assert process["cwd"] == str(tmp_path / "here")
        assert process["pid"] != server.pid


def test_an_env_file_that_is_a_credential(tmp_path: Path, listener: socket.socket) -> None:
    """$CREDENTIALS_DIRECTORY is read at every reload, and stays for the application; stardustctl lacks it."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "app.env").write_text("SECRET=one\n")
    settings = 'max-workers = 1\nenv-file = "credential:app.env"\n'
    environ = {"CREDENTIALS_DIRECTORY": str(credentials)}
    with Server(tmp_path, settings, sockets={"http": listener}, environ=environ) as server:
        server.ready()
        found = json.loads(server.get("/process").body)["environ"]
        assert (found["SECRET"], found["CREDENTIALS_DIRECTORY"]) == ("one", str(credentials))
        (credentials / "app.env").write_text("SECRET=two\n")
        assert server.control("reload").code == 0
        assert json.loads(server.get("/process").body)["environ"]["SECRET"] == "two"


def test_the_workers_have_no_foreign_descriptors(tmp_path: Path, listener: socket.socket) -> None:
    """The application cannot reach the notify socket, nor the control socket's listening end."""
    with Server(tmp_path, "max-workers = 1\n", sockets={"http": listener}) as server:
        server.ready()
        worker = int(server.get("/pid").text)
        inodes = {os.readlink(entry) for entry in Path(f"/proc/{worker}/fd").iterdir()}
        for line in Path("/proc/net/unix").read_text().splitlines():
            path, inode = line.split()[-1], line.split()[6]
            if path in (server.manager.path, str(server.socket_path)):
                assert f"socket:[{inode}]" not in inodes, path


def test_a_foreign_listen_pid(tmp_path: Path, listener: socket.socket) -> None:
    """A wrapper that forks gives the descriptors to the wrong process: an error, not a silent default."""
    environ = {"LISTEN_PID": "1"}
    with Server(tmp_path, "", sockets={"http": listener}, environ=environ, trouble=".") as server:
        assert "LISTEN_PID=1" in server.expect("STATUS").fields["STATUS"]
        assert server.wait() == 6
        assert "LISTEN_PID" in server.log


def test_a_broken_file(tmp_path: Path, listener: socket.socket) -> None:
    """`systemctl status` shows why it did not start."""
    with Server(tmp_path, "max-wrokers = 2\n", sockets={"http": listener}, trouble=".") as server:
        status = server.expect("STATUS").fields["STATUS"]
        assert status.startswith("could not start: ")
        assert "did you mean max-workers?" in status
        assert server.wait() == 6


@pytest.mark.parametrize("heartbeat", ["30s", "0s"])
def test_the_watchdog_is_fed(tmp_path: Path, listener: socket.socket, heartbeat: str) -> None:
    """For several times its interval: idle workers are asked for its sake, whoever else asks them or not."""
    settings = f'max-workers = 1\nheartbeat-timeout = "{heartbeat}"\n'
    environ = {"WATCHDOG_USEC": str(round(200_000 * MS * 1000))}
    with Server(tmp_path, settings, sockets={"http": listener}, environ=environ) as server:
        server.ready()
        for _ in range(10):
            server.expect("WATCHDOG", "1")


def test_no_workers_is_one_process(tmp_path: Path, listener: socket.socket) -> None:
    """`max-workers = 0`: no fork, for the debugger."""
    with Server(tmp_path, "max-workers = 0\n", sockets={"http": listener}) as server:
        server.ready()
        assert server.get("/pid").text == str(server.pid)
        assert server.processes() == {server.pid}


def test_threads(tmp_path: Path, listener: socket.socket, gate: Gate) -> None:
    """`threads = 2`: one worker answers while a request is held, and says so to the application."""
    settings = "max-workers = 1\nthreads = 2\n"
    with Server(tmp_path, settings, sockets={"http": listener}) as server:
        server.ready()
        with socket.create_connection(listener.getsockname()) as waiting_client:
            waiting_client.sendall(request("GET", f"/hold?gate={gate.path}", "Connection: close"))
            held = gate.arrival()
            variables = json.loads(server.get("/variables").body)
            assert variables["wsgi.multithread"] is True
            assert int(server.get("/pid").text) == held.pid
            held.release()
            assert waiting_client.recv(15) == b"HTTP/1.1 200 OK"


def test_check_config_starts_nothing(tmp_path: Path, listener: socket.socket) -> None:
    sockets = {"http": listener}
    with Server(tmp_path, "max-workers = 1\n", arguments=["--check-config"], sockets=sockets) as server:
        assert server.wait() == 0
        assert not server.manager.messages


def test_keep_alive(tmp_path: Path, listener: socket.socket) -> None:
    """The limit of requests a connection is announced on the last one, before the connection ends."""
    settings = "max-workers = 1\nmax-keepalive-reqs = 3\n"
    with Server(tmp_path, settings, sockets={"http": listener}) as server:
        server.ready()
        with Connection(server.address) as connection:
            closes = []
            for _ in range(3):
                connection.send(request("GET", "/"))
                closes.append(connection.receive().closes)
            assert closes == [False, False, True]
            connection.ended()


def test_one_request_a_connection_is_the_default(tmp_path: Path, listener: socket.socket) -> None:
    with Server(tmp_path, "max-workers = 1\n", sockets={"http": listener}) as server:
        server.ready()
        assert exchange(server.address, request("GET", "/")).closes
