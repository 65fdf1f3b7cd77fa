"""Bodies of requests: they arrive whole, or are refused."""

from __future__ import annotations

import errno
import hashlib
import io
from collections.abc import Iterable
from types import SimpleNamespace

import pytest

from stardust.base.records import replace
from stardust.settings.table import Config
from tests.worker.harness import (
    PATTERN,
    Client,
    Environ,
    Server,
    StartResponse,
    answering,
    chunked,
    echo,
    request,
)


class TestBodies:
    @pytest.mark.parametrize(
        ("size", "on_disk"),
        [(10, False), (1 << 20, False), (5 << 19, True)],
        ids=["small", "1 MiB", "2.5 MiB"],
    )
    @pytest.mark.parametrize("framing", ["length", "chunked"])
    def test_they_arrive_whole(self, kept: Config, size: int, on_disk: bool, framing: str) -> None:
        found: list[tuple[str, bool, str]] = []

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            body = environ["wsgi.input"]
            found.append(
                (
                    hashlib.sha256(body.read()).hexdigest(),
                    not isinstance(body, io.BytesIO),
                    environ["CONTENT_LENGTH"],
                )
            )
            return answering([b"thanks"])(environ, start_response)

        body = (PATTERN * 3)[:size]
        with Server(app, kept) as server, Client(server.address) as client:
            for _ in range(2):
                if framing == "length":
                    client.send(request("POST", "/", body=body))
                else:
                    client.send(
                        request("POST", "/", "Transfer-Encoding: chunked") + chunked(body[:5], body[5:])
                    )
                assert client.receive().body == b"thanks"
        assert found == [(hashlib.sha256(body).hexdigest(), on_disk, str(size))] * 2

    def test_continue_is_said_when_it_is_waited_for(self, kept: Config) -> None:
        """RFC 9110 10.1.1."""
        with Server(echo, kept) as server, Client(server.address) as client:
            client.send(request("POST", "/", "Expect: 100-continue", "Content-Length: 4"))
            assert client.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.send(b"body")
            assert client.receive().body == b"POST /\nbody"

    def test_continue_is_not_said_when_the_body_has_come(self, kept: Config) -> None:
        """RFC 9110 10.1.1: a server "MAY omit sending a 100 (Continue) response if it has already received
        some or all of the content"."""
        with Server(echo, kept) as server, Client(server.address) as client:
            client.send(request("POST", "/", "Expect: 100-continue", body=b"body"))
            assert client.receive().interim == []

    @pytest.mark.parametrize(
        "head",
        [
            request("POST", "/", "Content-Length: 1001"),
            request("POST", "/", "Content-Length: 1001", "Expect: 100-continue"),
            request("POST", "/", "Transfer-Encoding: chunked") + b"3e9\r\n",
        ],
        ids=["length", "expect", "chunked"],
    )
    def test_too_large(self, kept: Config, head: bytes) -> None:
        with Server(echo, replace(kept, max_body=1000)) as server, Client(server.address) as client:
            client.send(head)
            answer = client.receive()
            assert (answer.status, answer.closes, answer.interim) == (413, True, [])
            client.ended()

    @pytest.mark.parametrize("fails", ["write", "finish"])
    def test_p7_the_disk_is_full_for_a_body(
        self, kept: Config, fails: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        closed: list[bool] = []
        spool = SimpleNamespace(write=lambda data: None, finish=io.BytesIO, close=lambda: closed.append(True))
        setattr(spool, fails, full)
        with Server(echo, kept) as server, Client(server.address) as client:
            monkeypatch.setattr("stardust.worker.bodies.Spool", lambda **_: spool)
            client.send(request("POST", "/", body=b"body"))
            answer = client.receive()
            assert (answer.status, answer.closes) == (507, True)
            assert closed, "what was kept takes up room while the connection lingers"
            client.ended()
            monkeypatch.undo()
            with Client(server.address) as next_client:
                next_client.send(request("POST", "/", body=b"body"))
                assert next_client.receive().status == 200
