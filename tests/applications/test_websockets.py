"""WebSocket by libraries for threads: they find their socket, take the connection over, and give it back.

Client and application have the same library, and each an interpreter of its own.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import pytest

from tests.certificates import Authority
from tests.live.client import PATIENCE, Connection, request
from tests.live.harness import Server

APPS = Path(__file__).parent / "apps"
CHAT = APPS / "chat.py"
THREADS = pytest.mark.parametrize("threads", [1, 4])
# RFC 6455 1.3, with its key and the answer to it.
ASKING = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
ACCEPTED = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
JSON_LOG = 'access-log = "log.json"\naccess-log-format = "json"\n'


class Dialogue:
    """One client. `say` returns what it heard."""

    def __init__(self, packages: Path, server: Server, target: str, *authority: Path) -> None:
        assert isinstance(server.address, tuple)
        url = f"{'wss' if authority else 'ws'}://127.0.0.1:{server.address[1]}{target}"
        self._process = subprocess.Popen(
            [packages, APPS / "dialogue.py", url, *authority],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        assert self.heard() == "open"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(PATIENCE)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def heard(self) -> str:
        assert self._process.stdout is not None
        assert select.select([self._process.stdout], [], [], PATIENCE)[0], "it says nothing"
        return self._process.stdout.readline().strip()

    def tell(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")

    def say(self, word: str) -> str:
        self.tell(word)
        return self.heard()

    def leave(self) -> str:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.stdin = open(os.devnull, "w")  # noqa: SIM115
        return self.heard()


def settings(packages: Path, threads: int, *more: str) -> str:
    return "\n".join([f'python = "{packages}"\nmax-workers = 1\nthreads = {threads}', *more, ""])


def descriptors(server: Server) -> int:
    [worker] = server.workers()
    return len(os.listdir(f"/proc/{worker}/fd"))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), "root")


@pytest.fixture(params=["plain", "tls"])
def secured(request: pytest.FixtureRequest, authority: Authority) -> Iterator[tuple[str, Sequence[Path]]]:
    """A line for the settings, and what the client is to trust."""
    if request.param == "plain":
        yield "", ()
        return
    paths = [str(authority.issue("localhost", sans=["DNS:localhost", "IP:127.0.0.1"]).both)]
    yield f"ssl = true\nssl-cert-file = {json.dumps(paths)}", (authority.certificate,)


@THREADS
@pytest.mark.parametrize(
    ("target", "last", "end"),
    [
        ("/sock", "leave", "closed 1000"),
        ("/sock", "close", "closed 4000"),
        ("/sock", "fail", "closed 1005"),
        ("/view", "leave", "closed 1005"),
        ("/view", "close", "closed 4000"),
        ("/ping", "one word", "closed 1005"),
    ],
)
def test_they_speak(
    tmp_path: Path,
    listener: socket.socket,
    packages: Path,
    secured: tuple[str, Sequence[Path]],
    threads: int,
    target: str,
    last: str,
    end: str,
) -> None:
    """Small words and large ones, several times; whoever ends it, nothing is left, and HTTP goes on."""
    line, trusted = secured
    with Server(
        tmp_path,
        settings(packages, threads, line, JSON_LOG.replace("log.json", str(tmp_path / "log.json"))),
        app=CHAT,
        sockets={"http": listener},
        trouble="LookupError|Traceback|/sock|Exception on",
    ) as server:
        server.ready()
        before = descriptors(server)
        for _ in range(3):
            with Dialogue(packages, server, target, *trusted) as client:
                if target != "/ping":
                    for word in ("hello", "!300000", "", "!70000", "again"):
                        assert client.say(word or "empty") == (word or "empty")
                    assert client.say(last) == end
                else:
                    assert client.say(last) == last
                    assert client.say("?") == end
        if threads > 1 and target == "/sock":
            with Dialogue(packages, server, target, *trusted) as client:
                assert client.say("hello") == "hello"
                assert client.leave() == "left"
        give_up = time.monotonic() + PATIENCE
        while descriptors(server) > before:
            assert time.monotonic() < give_up, "descriptors are left"
    lines = [json.loads(each) for each in (tmp_path / "log.json").read_text().splitlines()]
    assert {(each["status"], each["note"]) for each in lines} == {(101, "taken over")}


def test_several_at_once(tmp_path: Path, listener: socket.socket, packages: Path) -> None:
    """Each has a thread, and the server answers others meanwhile."""
    with Server(tmp_path, settings(packages, 4), app=CHAT, sockets={"http": listener}) as server:
        server.ready()
        with (
            Dialogue(packages, server, "/sock") as one,
            Dialogue(packages, server, "/sock") as two,
            Dialogue(packages, server, "/view") as three,
        ):
            for client in (one, two, three, one, two, three):
                assert client.say("hello") == "hello"
                assert int(server.get("/pid").text) in server.workers()
            assert two.say("leave") == "closed 1000"
            assert one.say("hello") == three.say("hello") == "hello"


@THREADS
def test_nothing_behind_it_is_a_request(
    tmp_path: Path, listener: socket.socket, packages: Path, threads: int
) -> None:
    """A request that was sent behind the handshake gets no answer: it could be anything."""
    with Server(tmp_path, settings(packages, threads), app=CHAT, sockets={"http": listener}) as server:
        server.ready()
        with Connection(server.address) as connection:
            connection.send(request("GET", "/sock", *ASKING, KEY) + request("GET", "/pid"))
            data = b""
            while not data.endswith(b"\r\n\r\n"):
                data += connection.socket.recv(1)
            assert data.startswith(b"HTTP/1.1 101 ")
            assert ACCEPTED.encode() in data
            connection.socket.send(b"\x81\x85\0\0\0\0leave")  # text, masked by zeros
            rest = b""
            while more := connection.socket.recv(4096):
                rest += more
            assert rest == b"\x88\x02\x03\xe8"  # Close, 1000
            assert b"HTTP" not in rest
        assert int(server.get("/pid").text) in server.workers()


@THREADS
def test_it_may_refuse(tmp_path: Path, listener: socket.socket, packages: Path, threads: int) -> None:
    """Who asks and is refused gets an answer in HTTP; who raises StopIteration unasked has made a mistake."""
    with Server(
        tmp_path,
        settings(packages, threads, "max-keepalive-reqs = 0"),
        app=CHAT,
        sockets={"http": listener},
        trouble="StopIteration|/lazy|Traceback",
    ) as server:
        server.ready()
        with Connection(server.address) as connection:
            for _ in range(2):
                connection.send(request("GET", "/refused", *ASKING, KEY))
                response = connection.receive()
                assert (response.status, response.closes) == (403, False)
        assert server.get("/lazy").status == 500


@THREADS
@pytest.mark.parametrize("how", ["stop", "reload"])
def test_it_counts_as_a_request(
    tmp_path: Path, listener: socket.socket, packages: Path, threads: int, how: str
) -> None:
    """A worker that leaves waits for it as long as for any, and cuts it off when that is over."""
    there = tmp_path / "there"
    os.mkfifo(there)
    limit = settings(packages, threads, 'graceful-timeout = "300ms"')
    with Server(
        tmp_path, limit, app=CHAT, sockets={"http": listener}, trouble="graceful-timeout|kill"
    ) as server:
        server.ready()
        [worker] = server.workers()
        with Dialogue(packages, server, f"/hold?{there}") as client:
            assert there.read_text() == "here"
            if how == "reload":
                assert server.control("reload").code == 0
            else:
                server.signal(signal.SIGTERM)
            client.tell("?")
            assert client.heard().startswith("closed")
        server.ended(worker)
        if how == "reload":
            assert int(server.get("/pid").text) in server.workers()
        else:
            assert server.wait() == 0


@THREADS
@pytest.mark.parametrize("how", ["stop", "reload"])
def test_it_may_end_in_peace(
    tmp_path: Path, listener: socket.socket, packages: Path, threads: int, how: str
) -> None:
    with Server(tmp_path, settings(packages, threads), app=CHAT, sockets={"http": listener}) as server:
        server.ready()
        [worker] = server.workers()
        with Dialogue(packages, server, "/sock") as client:
            assert client.say("hello") == "hello"
            if how == "reload":
                assert server.control("reload").code == 0
            else:
                server.signal(signal.SIGTERM)
                server.expect("STOPPING", "1")
            assert client.say("still here") == "still here"
            assert client.say("leave") == "closed 1000"
        server.ended(worker)
        if how == "stop":
            assert server.wait() == 0
