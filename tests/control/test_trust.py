"""Who may command: root, and the supervisor's user unless it is the application."""

from __future__ import annotations

import os
import socket
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stardust.base import process
from stardust.control import trust
from stardust.control.trust import Peer

SUPERVISOR, UID = 100, 1000

# pid: its parent. 100 is the supervisor, 110 its zygote, 120 a worker, 130 what the application started.
TREE = {1: 0, 50: 1, 60: 50, 100: 50, 110: 100, 120: 110, 130: 120, 70: 0, 200: 201, 201: 200}


def family(pid: int) -> int:
    if pid not in TREE:
        raise FileNotFoundError(pid)
    return TREE[pid]


def may(peer: Peer, supervisor: int = SUPERVISOR) -> bool:
    return not trust.refusal(peer, pid=supervisor, uid=UID, parent=family)


@pytest.mark.parametrize(
    ("peer", "allowed"),
    [
        pytest.param(Peer(60, 0), True, id="root"),
        pytest.param(Peer(130, 0), True, id="root, whoever it descends from"),
        pytest.param(Peer(60, 1001), False, id="another user"),
        pytest.param(Peer(60, UID), True, id="own user, a sibling of the supervisor"),
        pytest.param(Peer(50, UID), True, id="own user, above the supervisor"),
        pytest.param(Peer(1, UID), True, id="process 1"),
        pytest.param(Peer(70, UID), True, id="entered the container: no parent there"),
        pytest.param(Peer(100, UID), False, id="the supervisor itself"),
        pytest.param(Peer(110, UID), False, id="the zygote"),
        pytest.param(Peer(120, UID), False, id="a worker"),
        pytest.param(Peer(130, UID), False, id="a grandchild of a worker"),
        pytest.param(Peer(999, UID), False, id="gone already, or hidden"),
        pytest.param(Peer(0, UID), False, id="of an outer pid namespace"),
        pytest.param(Peer(200, UID), False, id="a circle of reused process ids"),
    ],
)
def test_refusal(peer: Peer, allowed: bool) -> None:
    assert may(peer) == allowed


def test_a_supervisor_that_is_process_1_has_descendants_too() -> None:
    assert not may(Peer(60, UID), supervisor=1)
    assert may(Peer(70, UID), supervisor=1)


@given(st.lists(st.integers(min_value=2, max_value=30), min_size=1, max_size=20, unique=True), st.data())
def test_no_descendant_is_ever_trusted(chain: list[int], data: st.DataObject) -> None:
    """`chain` leads from a peer up to process 1; wherever in it the supervisor is, the peer is refused."""
    parents = dict(zip(chain, [*chain[1:], 1], strict=True))
    supervisor = data.draw(st.sampled_from(chain))
    assert trust.refusal(Peer(chain[0], UID), pid=supervisor, uid=UID, parent=parents.__getitem__)


def test_peer_of_a_socket() -> None:
    a, b = socket.socketpair()
    with a, b:
        assert trust.peer(a) == Peer(os.getpid(), os.geteuid())


def test_real_processes() -> None:
    us = Peer(os.getpid(), UID)
    refused = trust.refusal(us, pid=os.getppid(), uid=UID, parent=process.parent)
    assert refused == f"process {us.pid} belongs to the server, and the application may not command it"
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        assert trust.refusal(us, pid=child.pid, uid=UID, parent=process.parent) == ""
        child.communicate()
