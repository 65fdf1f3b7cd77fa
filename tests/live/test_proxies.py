"""Behind a proxy that keeps its connections to the server and never retries, no request is lost either."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.live.client import Address
from tests.live.harness import Server
from tests.live.load import Load
from tests.live.proxies import haproxy, nginx
from tests.live.sockdiag import peers

Proxy = Callable[[Path, str], AbstractContextManager[Address]]
PROXIES: list[Proxy] = [haproxy, nginx]

WORKERS = 4
RELOADS = 20
SETTINGS = f"""
max-workers = {WORKERS}
max-keepalive-reqs = 0
keepalive-timeout = "1h"
graceful-timeout = "1h"
max-reqs-per-child = 100
"""


@pytest.mark.parametrize("proxy", PROXIES, ids=["haproxy", "nginx"])
def test_reloads(tmp_path: Path, listener: socket.socket, proxy: Proxy) -> None:
    with Server(tmp_path, SETTINGS, sockets={"http": listener}) as server:
        server.ready()
        with proxy(tmp_path, "{}:{}".format(*listener.getsockname())) as address:
            with Load(address, "/pid", 16, keeping=16, varied=True) as load:
                for _ in range(RELOADS):
                    assert server.control("reload").code == 0
                    load.await_answers(100)
            assert any(map(peers, server.workers())), "the proxy has kept no connection"
    assert load.failures == []
    assert load.dismissals == 0
