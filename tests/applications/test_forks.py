"""The application forks in a request: its child is no server, and no child outlives what it belongs to."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.live.client import PATIENCE, Connection, request
from tests.live.harness import Gate, Server, children, held_pidfd, listening, readable
from tests.live.proxies import guided, proxy

APPS = Path(__file__).parent / "apps"
FORKING = APPS / "forking.py"

KINDS = {
    "one thread": "max-workers = 1\nmax-keepalive-reqs = 0\nmax-reqs-per-child = 0",
    "threads": "max-workers = 1\nmax-keepalive-reqs = 0\nmax-reqs-per-child = 0\nthreads = 3",
    "no preload": "max-workers = 1\nmax-keepalive-reqs = 0\nmax-reqs-per-child = 0\npreload = false",
    "alone": "max-workers = 0\nmax-keepalive-reqs = 0",
}

# How the child goes on, and its exit code: what Python gives a program that ends so.
HOW = {"return": 0, "raise": 1, "sys.exit": 7, "message": 1, "os._exit": 8, "print": 0}
PLACES = ["call", "none", "write", "generator", "empty", "closing", "terminal"]


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest, tmp_path: Path, listener: socket.socket) -> Iterator[Server]:
    trouble = "in the child|Traceback|ClientGone|Bad file descriptor"
    given = {"http": listener}
    with Server(tmp_path, KINDS[request.param], app=FORKING, sockets=given, trouble=trouble) as run:
        run.ready()
        yield run


def text(connection: Connection, target: str, *headers: str) -> str:
    connection.send(request("GET", target, *headers))
    response = connection.receive()
    assert response.status == 200, response
    return response.text.strip("<>")


def test_one_response_a_request(server: Server) -> None:
    """On one kept connection, so a byte of a child's would be in the next response."""
    with Connection(server.address) as connection:
        pid = text(connection, "/pid")
        for number, (where, (how, code)) in enumerate((a, b) for a in PLACES for b in HOW.items()):
            if (where, how) == ("write", "return"):
                code = 1  # a client that is not its own is gone for it, as PEP 3333 has it
            if where == "write" and how == "print":
                code = 1
            told = text(connection, f"/fork?where={where}&how={how}", f"X-Id: {number}")
            assert told == f"{number} {code}", (where, how)
        for how in ("write", "socket"):
            assert text(connection, f"/fork?where=call&how={how}", "X-Id: x") == "x 1"
        assert text(connection, "/pid") == pid
    assert server.get("/pid").text == pid
    assert "printed by the child" in server.log
    assert "LookupError: in the child" in server.log
    assert "no more\n" in server.log


@pytest.mark.parametrize("threads", [1, 3])
def test_each_gets_its_own_through_nginx(tmp_path: Path, threads: int) -> None:
    """Twenty clients at a time, on kept connections on both sides of it."""
    told = guided("nginx")
    settings = f"max-reqs-per-child = 0\nthreads = {threads}\n"
    sides = [(where, how) for where in PLACES for how in ("return", "sys.exit", "os._exit")]
    with (
        listening(str(tmp_path / "app.sock")) as listener,
        Server(
            tmp_path,
            settings + told.settings,
            arguments=["--max-workers", "2", "--max-keepalive-reqs=0"],
            app=FORKING,
            sockets={"http": listener},
            trouble="Traceback|ClientGone",
        ) as server,
        proxy(tmp_path, told, server.address) as address,
    ):
        server.ready()

        def ask(client: int) -> None:
            with Connection(address) as connection:
                for number in range(10):
                    where, how = sides[(client + 7 * number) % len(sides)]
                    mine = f"{client}-{number}"
                    told = text(connection, f"/fork?where={where}&how={how}", f"X-Id: {mine}")
                    assert told.split()[0] == mine, (told, mine)

        with ThreadPoolExecutor(20) as clients:
            assert [*clients.map(ask, range(20))] == [None] * 20
        assert len(server.workers()) == 2


@pytest.mark.parametrize("where", ["close", "end"])
def test_fork_behind_the_response(server: Server, where: str) -> None:
    with Connection(server.address) as connection:
        for number, (how, code) in enumerate(HOW.items()):
            assert text(connection, f"/fork?where={where}&how={how}", f"X-Id: {number}") == "0"
            assert text(connection, "/last") == f"{number} {code}", how


@pytest.mark.parametrize("how", ["process", "thread", "later"])
def test_a_child_that_lives_has_nothing_of_the_server(server: Server, gate: Gate, how: str) -> None:
    """Its parent's clients see their end, and it has no socket but its own."""
    with Connection(server.address) as kept:
        pid = int(text(kept, "/pid"))
        assert int(server.get(f"/leave?how={how}&gate={gate.path}").text) == pid  # it sees its end
        if how == "later":
            gate.arrival().release()
        child = gate.arrival()
        sockets = [link for link in descriptors(child.pid) if link.startswith(("socket:", "anon_inode:"))]
        assert len(sockets) == 1, sockets  # the gate's
        assert not [link for link in descriptors(child.pid) if "stardust" in link]
        assert dispositions(child.pid)["SigCgt"] == {signal.SIGINT}  # Python's own: KeyboardInterrupt
        assert dispositions(child.pid)["SigBlk"] == set()
        assert text(kept, "/pid") == str(pid)
        child.release()


def test_a_child_can_be_terminated(server: Server) -> None:
    """And its parent goes on."""
    pid = server.get("/pid").text
    assert server.get("/terminate").text == str(-signal.SIGTERM)
    assert server.get("/pool").text == "285"
    assert server.get("/pid").text == pid


def test_a_thousand_forks(server: Server) -> None:
    with Connection(server.address) as connection:
        pid = int(text(connection, "/forks?count=1"))
        before, processes = descriptors(pid), server.processes()
        for _ in range(10):
            assert int(text(connection, "/forks?count=100")) == pid
        assert descriptors(pid) == before
        assert server.processes() == processes


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1]
)
def test_programs_have_the_usual_signals(tmp_path: Path, listener: socket.socket, number: int) -> None:
    """SIGTTIN and SIGTTOU would stop it: only that they are not ignored can be seen."""
    with Server(tmp_path, KINDS["one thread"], app=FORKING, sockets={"http": listener}) as server:
        server.ready()
        pid = int(server.get("/pid").text)
        assert number not in dispositions(pid)["SigIgn"]
        if number not in (signal.SIGTTIN, signal.SIGTTOU):
            assert server.get(f"/killed-by?signal={number}").text == str(-number)


@pytest.mark.parametrize("how", ["closed", "open"])
@pytest.mark.parametrize("kind", ["one thread", "alone"])
def test_sigterm_when_the_application_has_taken_the_wakeup(
    tmp_path: Path, listener: socket.socket, kind: str, how: str
) -> None:
    with Server(tmp_path, KINDS[kind], app=FORKING, sockets={"http": listener}, trouble="Warning") as server:
        server.ready()
        pid = int(server.get(f"/wakeup?how={how}").text)
        os.kill(pid, signal.SIGTERM)
        if kind == "alone":
            assert server.wait() == 0
        else:
            server.ended(pid)
            assert int(server.get("/pid").text) != pid


@pytest.mark.parametrize("how", ["process", "fork", "group", "stubborn", "exec"])
def test_a_killed_worker_leaves_nobody(tmp_path: Path, listener: socket.socket, gate: Gate, how: str) -> None:
    with Server(
        tmp_path, KINDS["one thread"], app=FORKING, sockets={"http": listener}, trouble="SIGKILL"
    ) as server:
        server.ready()
        pid = int(server.get(f"/leave?how={how}&gate={gate.path}").text)
        child = gate.arrival()
        server.kill(pid)
        child.lost()
        server.ended(child.pid)
        assert re.search(rf"ending process {child.pid} \(.*\), which was left behind", server.log)
        assert int(server.get("/pid").text) != pid


@pytest.mark.parametrize("how", ["session", "exec-session"])
def test_a_session_of_its_own_outlives_its_worker(
    tmp_path: Path, listener: socket.socket, gate: Gate, how: str
) -> None:
    """And the server."""
    with Server(
        tmp_path, KINDS["one thread"], app=FORKING, sockets={"http": listener}, trouble="SIGKILL"
    ) as server:
        server.ready()
        pid = int(server.get(f"/leave?how={how}&gate={gate.path}").text)
        child = gate.arrival()
        server.kill(pid)
        assert int(server.get("/pid").text) != pid
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        with held_pidfd(child.pid) as pidfd:
            assert pidfd is not None
            assert not readable(pidfd, 0)
            child.release()
            assert readable(pidfd, 20)


def test_who_was_let_go_stays_while_its_worker_does(
    tmp_path: Path, listener: socket.socket, gate: Gate
) -> None:
    """A double fork: it is the supervisor's child already, when another worker is killed."""
    with Server(
        tmp_path, "max-workers = 2", app=FORKING, sockets={"http": listener}, trouble="SIGKILL"
    ) as server:
        server.ready()
        pid = int(server.get(f"/leave?how=twice&gate={gate.path}").text)
        child = gate.arrival()
        [other] = server.workers().keys() - {pid}
        server.kill(other)
        while len([each for each in server.workers().values() if each["state"] == "idle"]) < 2:
            server.expect("STATUS")
        with held_pidfd(child.pid) as pidfd:
            assert pidfd is not None
            assert not readable(pidfd, 0)
        server.kill(pid)
        child.lost()


@pytest.mark.parametrize("how", ["process", "daemon", "fork", "stubborn", "twice", "exec"])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_stop_leaves_nobody(tmp_path: Path, gate: Gate, how: str, threads: int, unused_port: int) -> None:
    """And waits for no child that a stop of Python would not wait for."""
    timeout = 2 if how == "process" else 1000
    settings = f'max-workers = 1\nthreads = {threads}\ngraceful-timeout = "{timeout}s"\n'
    settings += f'[listen.http]\naddress = "127.0.0.1:{unused_port}"\n'
    with Server(tmp_path, settings, app=FORKING, trouble="graceful-timeout") as server:
        server.ready()
        address = "127.0.0.1", unused_port
        with Connection(address) as connection:
            text(connection, f"/leave?how={how}&gate={gate.path}")
        child = gate.arrival()
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        child.lost()
        assert not server.processes()
        with socket.socket() as again:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind(address)
            again.listen()


@pytest.fixture
def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


@pytest.mark.parametrize("preload", ["true", "false"])
def test_children_of_the_import_end_with_their_generation(
    tmp_path: Path, listener: socket.socket, preload: str
) -> None:
    """What was started while the application was loaded, where it ignores SIGCHLD too."""
    settings = f"max-workers = 1\npreload = {preload}"
    with Server(
        tmp_path, settings, app=APPS / "managed.py", sockets={"http": listener}, trouble="SIGKILL"
    ) as server:
        server.ready()
        count, pid, ignored = server.get().text.split()
        assert (count, ignored) == ("1", "True")
        size = len(server.processes())
        for _ in range(3):
            assert server.control("reload").code == 0
            assert server.get().text.split()[0] == "1"
            left_over(server, size)
        [zygote] = server.zygotes()
        pid = server.get().text.split()[1]
        server.kill(int(pid))
        assert server.get().text.split()[1] != pid
        assert "exit code 0" not in server.log
        assert "killed by SIGKILL" in server.log
        assert zygote in children(server.pid)


def left_over(server: Server, size: int) -> None:
    """Waits until there are no more processes than that: proc(5) can only be asked."""
    deadline = time.monotonic() + PATIENCE
    while len(server.processes()) > size:
        assert time.monotonic() < deadline, server.processes()


def descriptors(pid: int) -> list[str]:
    found = []
    for each in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(os.readlink(each))
        except FileNotFoundError:
            continue
    return found


def dispositions(pid: int) -> dict[str, set[int]]:
    """Blocked, ignored and caught signals, as proc(5) has them."""
    status = Path(f"/proc/{pid}/status").read_text()
    masks = dict(re.findall(r"^(Sig(?:Blk|Ign|Cgt)):\s+([0-9a-f]+)$", status, re.MULTILINE))
    return {
        name: {number for number in range(1, 32) if int(mask, 16) >> (number - 1) & 1}
        for name, mask in masks.items()
    }
