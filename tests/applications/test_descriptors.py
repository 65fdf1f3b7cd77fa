"""Descriptors that an application closes though they are none of its own, and those that it needs."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

import pytest

from tests.live.client import Connection
from tests.live.harness import Server

CARELESS = Path(__file__).parent / "apps" / "careless.py"
THREADS = pytest.mark.parametrize("threads", [1, 3])
KEPT = "max-keepalive-reqs = 1000\nkeepalive-timeout = 60\n"


@THREADS
@pytest.mark.parametrize("how", ["close", "replace"])
@pytest.mark.parametrize("kind", ["listener-all", "epoll-all", "packets-0", "packets-1", "packets-4"])
def test_a_worker_without_them_is_replaced(
    tmp_path: Path, listener: socket.socket, how: str, kind: str, threads: int
) -> None:
    """It says so in one line, nobody waits for it, and it does not turn in circles."""
    settings = f"max-workers = 2\nthreads = {threads}\n" + KEPT
    trouble = "closed or replaced|exit code"
    with Server(tmp_path, settings, app=CARELESS, sockets={"http": listener}, trouble=trouble) as server:
        server.ready()
        with Connection(server.address) as connection:
            connection.send(f"GET /{how}-{kind} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            careless = int(connection.receive().body)
            for _ in range(4):
                server.get("/")
            server.ended(careless)
        assert int(server.get("/").body) != careless
    assert server.log.count("the application closed or replaced") == 1


def test_a_listener_that_would_block_is_mended(tmp_path: Path, listener: socket.socket) -> None:
    with Server(
        tmp_path, "max-workers = 1\n", app=CARELESS, sockets={"http": listener}, trouble="made the listener"
    ) as server:
        server.ready()
        server.get("/block-listener-all")
        server.await_log("made the listener 127.0.0.1:.* block")
        assert not os.get_blocking(listener.fileno())
        server.get("/")


@THREADS
def test_select_beside_a_crowd(tmp_path: Path, listener: socket.socket, threads: int) -> None:
    """select(2) knows no descriptor above 1023: those that remain are the application's."""
    settings = f"max-workers = 1\nthreads = {threads}\nheader-timeout = 60\n"
    with (
        Server(tmp_path, settings, app=CARELESS, sockets={"http": listener}) as server,
        contextlib.ExitStack() as stack,
    ):
        server.ready()
        for _ in range(1200):
            connection = stack.enter_context(Connection(server.address))
            connection.send(b"GET / HTTP/1.1\r\n")
        assert server.get("/select").status == 200
