"""The pool of application threads: every task is done once, by a free thread, and told to the loop."""

from __future__ import annotations

import contextlib
import select
import threading
from collections.abc import Iterable

import pytest

from stardust.base.records import replace
from stardust.worker.loop import Loop
from stardust.worker.threads import Pool
from tests.worker.harness import (
    HALF_HEAD,
    LARGE_BODY,
    PATIENCE,
    THREADS,
    Client,
    Environ,
    Gate,
    Server,
    Shared,
    Sibling,
    StartResponse,
    echo,
    gated,
    queued,
    request,
)


def collected(pool: Pool[int], count: int) -> list[int]:
    """The next `count` tasks that are done; waits on the descriptor as the loop does."""
    poll = select.poll()
    poll.register(pool, select.POLLIN)
    done: list[int] = []
    while len(done) < count:
        assert poll.poll(PATIENCE * 1000), f"{len(done)} of {count} tasks were done"
        done += pool.done()
    return done


def test_as_many_at_once_as_there_are_threads() -> None:
    together = threading.Barrier(3)

    def meet(task: int) -> None:
        together.wait(PATIENCE)

    pool: Pool[int] = Pool(3, meet)
    for task in range(3):
        assert pool.free == 3 - task
        pool.submit(task)
    assert pool.free == 0
    assert sorted(collected(pool, 3)) == [0, 1, 2]
    assert pool.free == 3


def test_every_task_is_done_once() -> None:
    seen: list[int] = []
    pool: Pool[int] = Pool(4, seen.append)
    done: list[int] = []
    for task in range(2000):
        while not pool.free:
            done += collected(pool, 1)
        pool.submit(task)
    done += collected(pool, 2000 - len(done))
    assert sorted(done) == sorted(seen) == list(range(2000))
    assert pool.free == 4


def test_done_never_waits() -> None:
    pool: Pool[int] = Pool(1, lambda task: None)
    assert pool.done() == []


def test_a_full_pipe_of_wake_ups_stops_nobody() -> None:
    """The loop sleeps through more wake-ups than the pipe holds (64 KiB), and still hears of every task."""
    count = 70_000
    all_done = threading.Event()
    pool: Pool[int] = Pool(1, lambda task: all_done.set() if task == count else None)
    for task in range(1, count + 1):
        pool.submit(task)
    assert all_done.wait(PATIENCE)
    assert collected(pool, count) == list(range(1, count + 1))


class TestBusyThreads:
    """All threads have a request: who comes now waits for one of them, and soon for a sibling's too."""

    ONE_BUSY = replace(THREADS, threads=2)

    def test_a_thread_that_is_free_soon(self, shared: Shared, sibling: Sibling) -> None:
        gate = Gate()
        with (
            shared(gated(gate), self.ONE_BUSY) as server,
            Client(server.address) as first,
            Client(server.address) as second,
            Client(server.address) as third,
        ):
            third.get()
            server.settled()  # else a thread is busy as far as the loop knows, and it would nudge
            first.send(request("GET", "/wait"))
            second.send(request("GET", "/wait"))
            gate.reached(2)
            third.send(request("GET", "/a"))
            server.until(queued)
            server.advance(0.019)
            gate.open()
            assert third.receive().body == b"GET /a\n"
            sibling.nothing()

    @pytest.mark.parametrize("came", ["head", "body", "half", "large"])
    def test_a_sibling(self, shared: Shared, sibling: Sibling, came: str) -> None:
        """Nothing was read of a request without body; a body goes with its head, if it is small enough."""
        gate = Gate()
        whole = {
            "head": request("GET", "/a"),
            "body": request("POST", "/a", body=b"x" * 1000),
            "half": HALF_HEAD,
            "large": LARGE_BODY,
        }[came]
        with (
            shared(gated(gate), self.ONE_BUSY) as server,
            Client(server.address) as first,
            Client(server.address) as second,
            Client(server.address) as third,
        ):
            begun = 60 if came in ("body", "large") else 0
            third.get()
            third.send(whole[:begun])
            server.until(lambda loop: not begun or loop.book.reading_bodies.members)
            first.send(request("GET", "/wait"))
            second.send(request("GET", "/wait"))
            gate.reached(2)
            third.send(whole[begun:])
            server.until(queued)
            server.advance(0.02)
            if came == "large":
                gate.open()
                assert third.receive().body == b"POST /large\n" + bytes(100_000)
            else:
                sock, given = sibling.taken()
                assert given.data + (sock.recv(2000) if not begun else b"") == whole
                sock.close()
                gate.open()
            assert first.receive().status == second.receive().status == 200

    def test_somebody_is_sent_to_the_listener(self, shared: Shared, sibling: Sibling) -> None:
        """The last thread was taken in the same turn in which the kernel said that somebody comes."""
        gate = Gate()
        with (
            shared(gated(gate), self.ONE_BUSY) as server,
            Client(server.address) as first,
            Client(server.address) as second,
        ):
            for client in (first, second):
                client.send(request("GET", "/wait"))
            gate.reached(2)
            server.ask(lambda loop: loop.entrance.look())
            assert sibling.link.take() is None
            gate.open()
            assert first.receive().status == second.receive().status == 200


class TestThreads:
    def test_as_many_at_once_as_there_are_threads(self) -> None:
        together = threading.Barrier(4)

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            together.wait(PATIENCE)
            return echo(environ, start_response)

        with Server(app, THREADS) as server, contextlib.ExitStack() as stack:
            clients = [stack.enter_context(Client(server.address)) for _ in range(4)]
            for client in clients:
                client.send(request("GET", "/a"))
            assert [client.receive().status for client in clients] == [200] * 4

    def test_the_fifth_waits_and_new_connections_are_left_to_others(self) -> None:
        gate = Gate()
        with Server(gated(gate), THREADS) as server, contextlib.ExitStack() as stack:
            clients = [stack.enter_context(Client(server.address)) for _ in range(5)]
            for client in clients:
                client.get()
            for client in clients:
                client.send(request("GET", "/wait"))
            gate.reached(4)
            server.until(queued)
            new = stack.enter_context(Client(server.address))
            new.send(request("GET", "/new"))
            assert server.ask(lambda loop: (loop.accepting.on, len(loop.book.connections))) == (False, 5)
            gate.open()
            assert [client.receive().body for client in clients] == [b"GET /wait\n"] * 5
            assert new.receive().body == b"GET /new\n"
            server.until(lambda loop: loop.accepting.on)

    def test_responses_are_not_mixed(self) -> None:
        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            token = environ["wsgi.input"].read()
            start_response("200 OK", [("X-Token", token.decode())])
            for _ in range(5):
                yield token

        with Server(app, THREADS) as server:
            faults: list[str] = []

            def ask(name: int) -> None:
                with Client(server.address) as client:
                    for number in range(40):
                        token = b"%d-%d;" % (name, number)
                        client.send(request("POST", "/", body=token))
                        answer = client.receive()
                        if answer.body != token * 5 or answer.headers["x-token"] != token.decode():
                            faults.append(f"{token!r}: {answer}")

            threads = [threading.Thread(target=ask, args=[name]) for name in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE)
            assert faults == []
            assert server.ask(lambda loop: loop.serving.requests) == 320

    def test_the_loop_turns_meanwhile(self) -> None:
        gate = Gate()
        with Server(gated(gate), THREADS) as server, Client(server.address) as a, Client(server.address) as b:
            a.send(request("GET", "/wait"))
            gate.reached()
            assert b.get("/b").body == b"GET /b\n"
            server.advance(1)
            server.ask(Loop.beat)
            assert server.entry.heartbeat == server.clock.now
            gate.open()
            assert a.receive().status == 200

    def test_leaving_waits_for_them(self) -> None:
        gate = Gate()
        with Server(gated(gate), THREADS) as server, contextlib.ExitStack() as stack:
            clients = [stack.enter_context(Client(server.address)) for _ in range(5)]
            for client in clients:
                client.get()
            for client in clients:
                client.send(request("GET", "/wait"))
            gate.reached(4)
            server.until(queued)
            server.leave()
            gate.open()
            answers = [client.receive() for client in clients]
            assert [answer.status for answer in answers] == [200] * 5
            assert [answer.closes for answer in answers].count(True) == 1
            server.settled()
            server.advance(2)
            server.ended()
