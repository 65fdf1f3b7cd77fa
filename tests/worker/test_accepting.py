"""When the machine has no more: accepting pauses for a moment."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

import pytest

from stardust.base import system
from stardust.settings.table import Config
from stardust.wsgi import input as spools
from tests.worker.harness import (
    PATTERN,
    Client,
    Server,
    echo,
    request,
)


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """accept(2) fails as often as this has entries."""
    faults: list[int] = []
    accept = system.bare_accept

    def short(listener: socket.socket) -> Any:
        if faults:
            fault = faults.pop()
            raise OSError(fault, os.strerror(fault))
        return accept(listener)

    monkeypatch.setattr(system, "bare_accept", short)
    return faults


class TestShortage:
    @pytest.mark.parametrize("fault", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
    def test_s10_accepting_pauses_and_goes_on(self, kept: Config, fault: int, faults: list[int]) -> None:
        """And one of the idle connections has to give way."""
        with (
            Server(echo, kept) as server,
            Client(server.address) as idle,
            Client(server.address) as new,
        ):
            idle.get()
            new.send(b"GET /new HTTP/1.1\r\n")
            server.until(lambda loop: loop.book.parked.members and loop.book.reading_heads.members)
            faults += [fault] * 2
            with Client(server.address) as late:
                late.send(request("GET", "/late"))
                server.until(lambda loop: not loop.accepting.on)
                idle.ended()
                new.send(b"Host: test\r\n\r\n")
                assert new.receive().body == b"GET /new\n"
                assert server.ask(lambda loop: loop.accepting.on) is False
                server.advance(0.1)
                assert late.receive().body == b"GET /late\n"
            assert f"accepts no connections for 0.1 s: {os.strerror(fault)}" in server.said

    @pytest.mark.parametrize("fault", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
    def test_s10_while_somebody_is_idle_nobody_waits(
        self, kept: Config, fault: int, faults: list[int]
    ) -> None:
        """Each time there is no room, the one that has been idle longest makes some."""
        with (
            Server(echo, kept) as server,
            Client(server.address) as first,
            Client(server.address) as second,
            Client(server.address) as third,
        ):
            for client in (second, first, third):
                client.get()
                server.settled()
                server.advance(0.1)
            faults += [fault] * 2
            with Client(server.address) as late:
                assert late.get("/late").body == b"GET /late\n"
                second.ended()
                first.ended()
                assert third.get("/third").body == b"GET /third\n"
            assert server.said == ""

    def test_s10_one_line_a_second(self, kept: Config, faults: list[int]) -> None:
        """And a pause for each look, however long it lasts: no busy loop."""
        faults += [errno.EMFILE] * 25
        with Server(echo, kept) as server, Client(server.address) as client:
            client.send(request("GET", "/"))
            for left in range(24, -1, -1):
                server.until(lambda loop: not loop.accepting.on)
                assert len(faults) == left
                server.advance(0.1)
            assert client.receive().status == 200
            server.advance(1)
            lines = server.said.splitlines()
            assert len(lines) == 4
            assert "(9 like this within a second)" in lines[1]

    def test_s10_p7_no_descriptor_for_a_body(self, kept: Config, monkeypatch: pytest.MonkeyPatch) -> None:
        """Who is idle goes first. If nobody is, this request is refused, and the next one is not."""
        faults: list[int] = []
        make = spools.temporary_file

        def short() -> Any:
            if faults:
                raise OSError(faults.pop(), "Too many open files")
            return make()

        monkeypatch.setattr(spools, "temporary_file", short)
        large = request("POST", "/", body=PATTERN)
        with (
            Server(echo, kept) as server,
            Client(server.address) as idle,
            Client(server.address) as client,
        ):
            idle.get()
            server.until(lambda loop: loop.book.parked.members)
            faults.append(errno.EMFILE)
            client.send(large)
            assert client.receive().body == b"POST /\n" + PATTERN
            idle.ended()
            faults.append(errno.EMFILE)
            client.send(large)
            assert client.receive().status == 503
            assert "cannot buffer a request's body" in server.said
            with Client(server.address) as other:
                other.send(large)
                assert other.receive().body == b"POST /\n" + PATTERN

    def test_s10_a_connection_that_failed_before_it_was_accepted(
        self, kept: Config, faults: list[int]
    ) -> None:
        """accept(2): "already-pending network errors on the new socket", to be treated like EAGAIN."""
        faults += [errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN]
        with Server(echo, kept) as server, Client(server.address) as client:
            assert client.get().status == 200
