"""The table of a connection's life, against the code and against what really happens.

That no test of this folder sees a step without a row is held by a fixture (conftest.py); that no row is
without its step, by the walks here, one for each.
"""

from __future__ import annotations

import ast
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stardust.base.records import replace
from stardust.settings.table import Config
from stardust.worker.entrance import Door
from stardust.worker.life import (
    CLOSED,
    GREETING,
    LIFE,
    LINGERING,
    NEW,
    READING,
    SENDING,
    SERVING,
    STAGES,
    Step,
)
from stardust.worker.loop import Loop
from tests.worker.harness import (
    INLINE,
    Client,
    Server,
    Word,
    asking,
    echo,
    request,
    tcp_door,
    unix_door,
    with_large,
)
from tests.worker.steps import WORKER, Steps, Taken

LARGE = request("GET", "/large")
ONCE = replace(INLINE, max_keepalive_reqs=1)


def setters() -> Iterator[tuple[str, str]]:
    """Who sets the stage of a connection, and to what, as it is written."""
    for path in Path(WORKER).glob("*.py"):
        for room in ast.walk(ast.parse(path.read_text())):
            for function in room.body if isinstance(room, ast.ClassDef) else []:
                for node in ast.walk(function):
                    targets = node.targets if isinstance(node, ast.Assign) else []
                    if any(isinstance(each, ast.Attribute) and each.attr == "stage" for each in targets):
                        assert isinstance(function, ast.FunctionDef)
                        assert isinstance(room, ast.ClassDef)
                        assert isinstance(node, ast.Assign)
                        yield f"{room.name}.{function.name}", ast.unparse(node.value)


def test_the_code_takes_these_steps_and_no_others() -> None:
    def written(step: Step) -> tuple[str, str]:
        return step.by, "stage" if step.stage == NEW else STAGES[step.next].upper()

    assert set(setters()) == {written(step) for step in LIFE}


def test_a_row_for_each_pair_of_stages() -> None:
    assert len({(step.stage, step.next) for step in LIFE}) == len(LIFE)
    assert {step.next for step in LIFE} == {*range(len(STAGES))} - {NEW}
    assert {step.stage for step in LIFE} == {*range(len(STAGES))} - {CLOSED}


@contextmanager
def connected(config: Config = INLINE, door: Door | None = None, *, slow: bool = False) -> Iterator[Both]:
    door = door or tcp_door()
    with (
        Server(with_large(echo), config, [door]) as server,
        Client(server.address, 4096 if slow else 0) as client,
    ):
        server.until(lambda loop: loop.book.connections)
        yield server, client
        server.settled()


Both = tuple[Server, Client]


def comes_and_goes(door: Door) -> None:
    with connected(INLINE, door) as (server, client):
        client.socket.close()
        server.until(lambda loop: not loop.book.connections)


def is_greeted() -> None:
    with connected(INLINE, asking(Word)) as (_, client):
        client.send(b"one")
        assert client.get().status == 200


def asks_twice() -> None:
    with connected() as (_, client):
        assert [client.get().status for _ in range(2)] == [200, 200]


def asks_once(config: Config = INLINE, *lines: str) -> None:
    with connected(config) as (_, client):
        client.send(request("GET", "/", *lines))
        assert client.receive().closes
        client.ended()


def asks_for_too_much() -> None:
    with connected(ONCE) as (_, client):
        client.send(request("GET", "/") * 2)
        assert client.receive().closes
        client.ended()


def reads_slowly(config: Config, stream: bytes, *, closes: bool) -> None:
    with connected(config, slow=True) as (server, client):
        client.send(stream)
        server.until(lambda loop: loop.book.sending.members)
        assert client.receive().closes == closes
        server.until(lambda loop: not loop.book.sending.members)


def is_refused() -> None:
    with connected() as (server, client):
        client.send(b"nonsense\r\n\r\n")
        assert client.receive().status == 400
        server.until(lambda loop: loop.book.lingering.members)


def is_refused_and_leaves() -> None:
    with connected() as (server, client):
        client.send(b"nonsense\r\n\r\n")
        assert client.receive().status == 400
        client.ended()
        client.socket.close()
        server.until(lambda loop: not loop.book.connections)


def is_refused_with_a_full_socket() -> None:
    def fill(loop: Loop) -> int:
        [connection] = loop.book.connections.values()
        size = 0
        try:
            while True:
                size += connection.socket.send(bytes(1 << 16), socket.MSG_DONTWAIT)
        except BlockingIOError:
            return size

    # Not over TCP: there the kernel finds room for more.
    with connected(INLINE, unix_door(f"\0stardust-test-{os.getpid()}")) as (server, client):
        left = server.ask(fill)
        client.send(b"nonsense\r\n\r\n")
        server.until(lambda loop: loop.book.sending.members)
        while left:
            left -= len(client.socket.recv(left))
        assert client.receive().status == 400


WALKS: dict[tuple[int, int], Callable[[], None]] = {
    (NEW, GREETING): is_greeted,
    (NEW, READING): asks_twice,
    (GREETING, READING): is_greeted,
    (GREETING, CLOSED): lambda: comes_and_goes(asking(Word)),
    (READING, SERVING): asks_twice,
    (READING, SENDING): is_refused_with_a_full_socket,
    (READING, LINGERING): is_refused,
    (READING, CLOSED): lambda: comes_and_goes(tcp_door()),
    (SERVING, READING): asks_twice,
    (SERVING, SENDING): lambda: reads_slowly(INLINE, LARGE, closes=False),
    (SERVING, LINGERING): asks_for_too_much,
    (SERVING, CLOSED): lambda: asks_once(INLINE, "Connection: close"),
    (SENDING, READING): lambda: reads_slowly(INLINE, LARGE, closes=False),
    (SENDING, LINGERING): lambda: reads_slowly(ONCE, LARGE * 2, closes=True),
    (SENDING, CLOSED): lambda: reads_slowly(ONCE, LARGE, closes=True),
    (LINGERING, CLOSED): is_refused_and_leaves,
}


def test_every_row_is_walked() -> None:
    assert WALKS.keys() == {(step.stage, step.next) for step in LIFE}


@pytest.mark.parametrize("step", LIFE, ids=lambda step: f"{STAGES[step.stage]} to {STAGES[step.next]}")
def test_a_walk(step: Step, steps: Steps) -> None:
    steps.taken.clear()
    WALKS[step.stage, step.next]()
    taken: Taken = (step.stage, step.next, step.by)
    assert taken in steps.taken
