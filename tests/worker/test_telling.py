"""The access log of a worker."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable

import pytest

from stardust.base.records import replace
from stardust.logs import accesslog
from stardust.logs.accesslog import Record
from stardust.settings.table import Config
from tests.worker.harness import (
    EPOCH,
    Client,
    Environ,
    Gate,
    Server,
    StartResponse,
    echo,
    gated,
    request,
)


class TestAccessLog:
    def test_a_record(self, kept: Config) -> None:
        gate = Gate()
        with Server(gated(gate), kept) as server, Client(server.address) as client:
            client.send(request("GET", "/wait?q", "Referer: http://r/", "User-Agent: test/1"))
            gate.reached()
            began = server.clock.now
            server.clock.now += 0.25
            gate.open()
            client.receive()
            server.settled()
            assert server.records == [
                Record(
                    when=EPOCH + began,
                    duration=0.25,
                    peer="127.0.0.1",
                    user="",
                    method="GET",
                    target="/wait?q",
                    version="HTTP/1.1",
                    status=200,
                    sent=12,
                    referer="http://r/",
                    agent="test/1",
                    host="test",
                    note="",
                    pid=os.getpid(),
                )
            ]

    @pytest.mark.parametrize(
        ("close", "value", "user"),
        [
            (False, "jo", "jo"),
            (True, "jo", "jo"),
            (False, "", ""),
            (False, None, ""),
            (False, 5, ""),
            (False, b"jo", ""),
        ],
    )
    def test_who_the_application_says_it_was(
        self, kept: Config, close: bool, value: object, user: str
    ) -> None:
        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            environ["REMOTE_USER"] = value
            return echo(environ, start_response)

        lines = ["Remote-User: mallory", *(["Connection: close"] if close else [])]
        with Server(app, kept) as server, Client(server.address) as client:
            client.send(request("GET", "/", *lines))
            client.receive()
            server.settled()
            assert [record.user for record in server.records] == [user]

    def test_nobody_is_a_user_by_a_field_of_the_request(self, kept: Config) -> None:
        with Server(echo, kept) as server, Client(server.address) as client:
            client.send(request("GET", "/", "Remote-User: mallory"))
            client.receive()
            server.settled()
            assert [record.user for record in server.records] == [""]

    @pytest.mark.parametrize("name", accesslog.FORMATS)
    def test_every_request_has_a_line(self, kept: Config, name: str) -> None:
        streams = [
            request("GET", "/good", "Connection: close"),
            request("GET", "/bad", "Connection: close"),
            b"nonsense\r\n\r\n",
            request("POST", "/refused", "Content-Length: 2000"),
        ]

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            if environ["PATH_INFO"] == "/bad":
                raise RuntimeError("on purpose")
            return echo(environ, start_response)

        with Server(app, replace(kept, max_body=1000)) as server:
            for stream in streams:
                with Client(server.address) as client:
                    client.send(stream)
                    client.receive()
                    client.ended()
            server.settled()
            assert [each.status for each in server.records] == [200, 500, 400, 413]
            line = accesslog.formatter(name)
            lines = [line(each) for each in server.records]
            assert len(set(lines)) == 4
            if name == "json":
                notes = [json.loads(each)["note"] for each in lines]
                assert notes[:2] == ["", "application error"]
                assert all(notes[2:])

    def test_lines_are_written_in_batches(self, kept: Config) -> None:
        """All of one turn of the loop together, and before it waits again."""
        with Server(echo, kept) as server, Client(server.address) as client:
            client.send(request("GET", "/a") * 10)
            for _ in range(10):
                client.receive()
            server.settled()
            server.settled()
            assert os.pread(server._file._descriptor, 1000, 0) == b"a line\n" * 10


def test_w2_a_field_that_is_left_out_is_logged_once(kept: Config) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Transfer-Encoding", "chunked"), ("Trailer", environ["PATH_INFO"])])
        return [b"x"]

    with Server(app, kept) as server, Client(server.address) as client:
        for number in range(3):
            answer = client.get(f"/{number}")
            assert (answer.status, answer.body) == (200, b"x")
        logged = server.said
    for name in ("transfer-encoding", "trailer"):
        assert logged.count(f"removed {name} from a response") == 1
