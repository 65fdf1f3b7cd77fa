"""The pool keeps its size and its promises whatever happens to a worker, the zygote or the supervisor."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path

import pytest

from tests.live.client import MS, BrokenError, Connection, get, request
from tests.live.harness import Gate, Server, gated
from tests.live.load import Load

CLIENTS = 4


def test_p1_killed_workers_are_replaced(tmp_path: Path, listener: socket.socket) -> None:
    """`kill -9` under load: no request fails but those inside the killed worker."""
    settings = 'max-workers = 3\nmain-process-delay = "10ms"\n'
    with Server(tmp_path, settings, sockets={"http": listener}, trouble="kill|died|signal 9") as server:
        server.ready()
        kills = 3
        with Load(server.address, "/pid", clients=CLIENTS) as load:
            for _ in range(kills):
                killed = int(server.get("/pid").text)
                server.kill(killed)
                load.await_answers(100)
        assert len(load.failures) <= kills * CLIENTS
        status = server.status()
        assert (status["total"], status["generation"]) == (3, 1)
        assert killed not in server.workers()


def test_p1_a_killed_worker_fails_its_own_request_alone(
    tmp_path: Path, listener: socket.socket, gate: Gate
) -> None:
    """Its own: connections that it had let in before it was held up have gone to the other one."""
    settings = "max-workers = 2\n"
    with Server(tmp_path, settings, sockets={"http": listener}, trouble="kill|died|signal 9") as server:
        server.ready()
        with Connection(server.address) as connection, Load(server.address) as load:
            connection.send(request("GET", gated(gate.path)))
            held = gate.arrival()
            load.await_answers(200)
            server.kill(held.pid)
            held.lost()
            with pytest.raises((BrokenError, ConnectionError)):
                connection.receive()
            load.await_answers(20)
        assert not load.failures


def test_p1_a_crash_that_repeats_backs_off(tmp_path: Path, listener: socket.socket) -> None:
    """Every worker that serves /crash dies; the server does not, and serves again."""
    settings = 'max-workers = 1\nmain-process-delay = "10ms"\n'
    with Server(tmp_path, settings, sockets={"http": listener}, trouble="died|exit") as server:
        server.ready()
        for _ in range(3):
            with pytest.raises((BrokenError, ConnectionError)):
                server.get("/crash")
        assert server.get("/").text == "hello\n"


def test_p1_a_killed_zygote_is_replaced(tmp_path: Path, listener: socket.socket) -> None:
    """Its workers go on, and the next that is needed can be made."""
    settings = 'max-workers = 2\nmain-process-delay = "10ms"\n'
    with Server(
        tmp_path, settings, sockets={"http": listener}, trouble="kill|died|zygote|signal 9"
    ) as server:
        server.ready()
        with Load(server.address, clients=CLIENTS) as load:
            [zygote] = server.zygotes()
            server.kill(zygote)
            load.await_answers(50)
            server.kill(int(server.get("/pid").text))
            load.await_answers(50)
            while server.status()["ready"] < 2:
                load.await_answers(10)
        assert len(load.failures) <= CLIENTS


def test_a_stopped_zygote_is_replaced(tmp_path: Path, listener: socket.socket) -> None:
    """One that does not fork when it is told to is as good as dead."""
    settings = f'max-workers = 2\nmain-process-delay = "10ms"\nboot-timeout = {2000 * MS}\n'
    trouble = "killing|ended|failed|does not answer|signal 9"
    with Server(tmp_path, settings, sockets={"http": listener}, trouble=trouble) as server:
        server.ready()
        [zygote] = server.zygotes()
        os.kill(zygote, signal.SIGSTOP)
        server.kill(int(server.get("/pid").text))
        server.await_log("the zygote of generation 1 does not answer: killing it")
        server.await_log("generation 2 serves")
        assert server.get().status == 200
        assert server.zygotes() != [zygote]


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_p3_orphans_leave_by_themselves(
    tmp_path: Path, listener: socket.socket, gate: Gate, busy: bool
) -> None:
    """The supervisor is killed: workers finish what they hold, and go."""
    with Server(tmp_path, "max-workers = 2\n", sockets={"http": listener}) as server:
        server.ready()
        with Connection(server.address) as connection:
            if busy:
                connection.send(request("GET", gated(gate.path)))
                held = gate.arrival()
            server.kill(server.pid)
            assert server.wait() == -signal.SIGKILL
            if busy:
                held.release()
                assert connection.receive().text == "let go\n"
        server.gone()


def test_recycling_loses_nothing(tmp_path: Path, listener: socket.socket) -> None:
    """The default `max-reqs-per-child = 1000`; who was let in before it was reached is served by another."""
    with Server(tmp_path, "max-workers = 2\n", sockets={"http": listener}) as server:
        server.ready()
        with Load(server.address, "/pid", clients=CLIENTS) as load:
            for _ in range(7):
                load.await_answers(500)
        assert not load.failures
        assert len(load.answers) >= 4
        assert max(load.answers.values()) <= 1000


def test_recycling_can_be_off(tmp_path: Path, listener: socket.socket) -> None:
    settings = "max-workers = 1\nmax-reqs-per-child = 0\n"
    with Server(tmp_path, settings, sockets={"http": listener}) as server:
        server.ready()
        with Load(server.address, "/pid", clients=CLIENTS) as load:
            for _ in range(3):
                load.await_answers(400)
        assert not load.failures
        assert len(load.answers) == 1


def test_p6_a_request_that_takes_too_long(tmp_path: Path, listener: socket.socket, gate: Gate) -> None:
    """The stacks of all threads are logged, then the worker is replaced."""
    settings = f"max-workers = 1\nrequest-timeout = {500 * MS}\nmain-process-delay = 0.01\n"
    with Server(tmp_path, settings, sockets={"http": listener}, trouble=".") as server:
        server.ready()
        with Connection(server.address) as connection:
            connection.send(request("GET", gated(gate.path)))
            gate.arrival().lost()
        assert server.get().text == "hello\n"
        assert "request-timeout" in server.log
        assert "wait_at" in server.log  # where it hung


def test_p6_a_worker_that_cannot_answer(tmp_path: Path, listener: socket.socket) -> None:
    """It stopped itself inside a request, and hangs for real: no handler of its own can run."""
    settings = f"max-workers = 1\nrequest-timeout = {500 * MS}\nmain-process-delay = 0.01\n"
    with Server(tmp_path, settings, sockets={"http": listener}, trouble=".") as server:
        server.ready()
        with pytest.raises((BrokenError, ConnectionError)):
            server.get("/freeze")
        assert server.get().text == "hello\n"


def test_p6_a_lost_heartbeat(tmp_path: Path, listener: socket.socket) -> None:
    """A worker in no request that does not answer is replaced."""
    settings = f"max-workers = 1\nheartbeat-timeout = {500 * MS}\nmain-process-delay = 0.01\n"
    with Server(tmp_path, settings, sockets={"http": listener}, trouble=".") as server:
        server.ready()
        stopped = int(server.get("/pid").text)
        os.kill(stopped, signal.SIGSTOP)
        assert int(server.get("/pid").text) != stopped
        server.ended(stopped)


def test_a_stopped_supervisor_holds_nobody_up(tmp_path: Path, listener: socket.socket) -> None:
    with Server(tmp_path, "max-workers = 2\n", sockets={"http": listener}) as server:
        server.ready()
        server.signal(signal.SIGSTOP)
        with Load(server.address, clients=CLIENTS) as load:
            load.await_answers(100)
            server.signal(signal.SIGCONT)
            load.await_answers(100)
        assert not load.failures


def test_one_more_and_one_less(tmp_path: Path, listener: socket.socket) -> None:
    """TTIN and TTOU; STATUS= tells the size."""
    with Server(tmp_path, "max-workers = 2\n", sockets={"http": listener}) as server:
        server.ready()
        before = server.workers().keys()
        server.signal(signal.SIGTTIN)
        while len(server.workers()) < 3:
            server.expect("STATUS")
        assert before < server.workers().keys()
        server.signal(signal.SIGTTOU)
        while len(server.workers()) > 2:
            server.expect("STATUS")
        assert server.get().status == 200


def test_p12_signals_while_connections_come(tmp_path: Path, listener: socket.socket) -> None:
    """Any number of them, at any moment: none hides another, and nobody's request is lost."""
    settings = f"max-workers = 2\naccess-log = '{tmp_path / 'access'}'\n"
    with Server(tmp_path, settings, sockets={"http": listener}) as server:
        server.ready()
        for _ in range(50):
            server.signal(signal.SIGUSR1)
            assert server.get().status == 200
            server.signal(signal.SIGUSR1)
        server.signal(signal.SIGTTIN)
        while len(server.workers()) < 3:
            server.expect("STATUS")
        assert server.get().status == 200


def test_harakiri(tmp_path: Path, listener: socket.socket) -> None:
    """Starlight t/06harakiri.t: with harakiri.commit each of 23 requests is served by a different process."""
    settings = "max-workers = 5\n"
    with Server(tmp_path, settings, sockets={"http": listener}) as server:
        server.ready()
        assert len({server.get("/harakiri").text for _ in range(23)}) == 23


def test_no_harakiri(tmp_path: Path, listener: socket.socket) -> None:
    """Starlight t/06non_harakiri.t: without it no more processes than workers."""
    with Server(tmp_path, "max-workers = 5\n", sockets={"http": listener}) as server:
        server.ready()
        assert len({server.get("/pid").text for _ in range(23)}) <= 5


def test_logs_are_reopened(tmp_path: Path, listener: socket.socket) -> None:
    """USR1 after the file was moved away: later lines are in a new file, every request in one of the two."""
    log, moved = tmp_path / "access.log", tmp_path / "access.log.1"
    settings = f'max-workers = 1\naccess-log = "{log}"\naccess-log-format = "json"\n'
    with Server(tmp_path, settings, sockets={"http": listener}) as server:
        server.ready()
        assert get(server.address, "/first").status == 200
        log.rename(moved)
        server.signal(signal.SIGUSR1)
        server.status()
        assert get(server.address, "/second").status == 200
    lines = (moved.read_text() + log.read_text()).splitlines()
    assert [json.loads(line)["target"] for line in lines] == ["/first", "/second"]
