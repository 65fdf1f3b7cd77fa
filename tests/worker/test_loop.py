"""The worker's loop, whole: a real `Loop` on a thread, real sockets, a client that believes nothing.

The loop's clock stands still until a test moves it (`Server.advance`), so time limits are tested to the
moment and without waiting. Where the application must be somewhere, it stands at a `Gate`. Every wait has a
deadline, PATIENCE. Most tests run twice: the application on the loop's own thread, and on threads.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import gc
import gzip
import hashlib
import io
import json
import os
import random
import select
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any, NamedTuple, Self, TypeVar
from unittest import mock

import h11
import pytest

from stardust.base.address import Address, Peers
from stardust.base.errors import ClientGone
from stardust.base.records import replace
from stardust.ipc.handoff import Link, Passage
from stardust.ipc.scoreboard import BUSY, IDLE, Entry, Scoreboard
from stardust.logs import accesslog
from stardust.logs.accesslog import Record
from stardust.logs.log import Log
from stardust.logs.logfile import LogFile
from stardust.settings.table import Config
from stardust.worker import introduction, outbox
from stardust.worker.connection import Connection
from stardust.worker.loop import AccessLog, Door, Loop, _limit

PATIENCE = 20.0  # s; far beyond what anything takes
EPOCH = 1_800_000_000.0  # where the clock on the wall stands when the other one says 0

Environ = dict[str, Any]
StartResponse = Callable[..., Callable[[bytes], object]]
App = Callable[[Environ, StartResponse], Iterable[bytes]]
Answered = TypeVar("Answered")

PATTERN = bytes(range(251)) * 4178  # 1 MiB and a little; no two neighbouring pages are alike


# --- the server --------------------------------------------------------------------------------------------


class Clock:
    """The loop's time."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return EPOCH + self.now


class Gate:
    """Where the application waits until the test lets it go on."""

    def __init__(self) -> None:
        self._arrived = threading.Semaphore(0)
        self._open = threading.Event()

    def wait(self) -> None:
        self._arrived.release()
        assert self._open.wait(PATIENCE), "the gate stayed closed"

    def reached(self, count: int = 1) -> None:
        for _ in range(count):
            assert self._arrived.acquire(timeout=PATIENCE), "nobody is at the gate"

    def open(self) -> None:
        self._open.set()


class Server:
    """A loop at work. `records` are its access log, `announced` what it told the supervisor."""

    def __init__(
        self,
        app: App,
        config: Config,
        doors: Sequence[Door] = (),
        replaceable: Callable[[], bool] = lambda: True,
        link: Link | None = None,
        stopping: Callable[[], bool] = lambda: False,
        shelf: Link | None = None,
        storing: Callable[[], bool] = lambda: False,
    ) -> None:
        self.clock = Clock()
        self._records: list[Record] = []
        self.announced: list[str] = []
        self.board = Scoreboard.create()
        self.doors = doors or (tcp_door(),)
        self._patch = mock.patch("stardust.worker.loop.time", self.clock)
        self._patch.start()
        self._file = LogFile(os.memfd_create("log"), Log("worker", "critical"))
        self._said = os.memfd_create("said")
        self.loop = Loop(
            config,
            app,
            self.doors,
            Log("worker 0", "info", descriptor=self._said),
            slot=self.board.slot(0),
            access_log=AccessLog(self._file, self._recorded),
            link=link,
            replaceable=replaceable,
            stopping=stopping,
            shelf=shelf,
            storing=storing,
            announce=lambda message: self.announced.append(type(message).__name__.lower()),
        )
        self._orders: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._bell, self._ringer = socket.socketpair()
        self._ringer.settimeout(PATIENCE)
        self.loop.watch(self._bell.fileno(), self._obey)
        self._over = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="loop")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, failure: object, *_: object) -> None:
        loop = self.loop
        if failure is None:
            self.settled()
        self.order(self._abandon)
        self.ended()
        self._orders.put(None)
        self._thread.join(PATIENCE)
        for connection in loop.connections.values():
            connection.close()
        if loop.pool is not None:
            os.close(loop.pool._reader)  # its threads, which wait for work, are daemons
            os.close(loop.pool._writer)
        loop.epoll.close()
        for door in self.doors:
            door.socket.close()
        self._bell.close()
        self._ringer.close()
        self._file.close()
        os.close(self.board.descriptor)
        os.close(self._said)
        self._patch.stop()
        if self._failure is not None:
            raise self._failure

    @property
    def address(self) -> Any:
        return self.doors[0].socket.getsockname()

    @property
    def said(self) -> str:
        """The worker's own log."""
        return os.pread(self._said, 1 << 20, 0).decode()

    @property
    def records(self) -> list[Record]:
        """The access log, with all that the loop has begun to tell: a turn writes it last, when clients have
        their answers already."""
        if threading.current_thread() is self._thread or not self._thread.is_alive():
            return self._records
        return self.ask(lambda loop: self._records.copy())

    @property
    def entry(self) -> Entry:
        return self.board.read(0)

    def ask(self, question: Callable[[Loop], Answered]) -> Answered:
        """What `question` answers on the loop's own thread, when it has done what it is doing."""
        answer: SimpleQueue[Answered] = SimpleQueue()
        self.order(lambda: answer.put(question(self.loop)))
        return answer.get(timeout=PATIENCE)

    def until(self, condition: Callable[[Loop], object]) -> None:
        """Returns when `condition` holds."""
        give_up = time.monotonic() + PATIENCE
        while not self.ask(condition):
            assert time.monotonic() < give_up, "it never came true"

    def settled(self, running: int = 0) -> None:
        """Returns when the loop knows of every response: from a thread, the client may have it sooner."""
        self.until(lambda loop: len(loop.running) == running)

    def advance(self, seconds: float) -> None:
        """Returns when the loop has done all that is due then."""
        self.clock.now += seconds
        self.ask(bool)
        self.ask(bool)

    def leave(self, *, final: bool = False) -> None:
        self.ask(lambda loop: loop.leave(final=final))

    def ended(self) -> None:
        """Returns when the loop has."""
        assert self._over.wait(PATIENCE), "the loop goes on"

    def _run(self) -> None:
        try:
            self.loop.run()
        except BaseException as failure:
            self._failure = failure
        self._over.set()
        # Tests may go on asking. What was left unanswered comes first.
        while order := self._orders.get():
            order()

    def order(self, order: Callable[[], object]) -> None:
        self._orders.put(order)
        self._ringer.send(b"\0")

    def _obey(self) -> None:
        self._bell.recv(1)
        order = self._orders.get_nowait()
        assert order is not None
        order()

    def _abandon(self) -> None:
        self.loop.leaving, self.loop.leave_by = True, 0.0

    def _recorded(self, record: Record) -> str:
        self._records.append(record)
        return "a line"


Shared = Callable[[App, Config], Server]
"""Makes a server that has siblings, as far as it knows: the test holds the other end of the link."""


def tcp_door(own: bool = True, sock: socket.socket | None = None) -> Door:
    listener = sock or socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(200)
    listener.setblocking(False)
    return Door(listener, Address("tcp", "127.0.0.1", listener.getsockname()[1]), own)


def unix_door(name: str) -> Door:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(name)
    listener.listen(200)
    listener.setblocking(False)
    kind, path = ("abstract", name[1:]) if name.startswith("\0") else ("unix", name)
    return Door(listener, Address(kind, path=path), own=True)


# --- the client --------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """One response. `interim`: the 1xx responses before it, as (status, headers)."""

    status: int
    headers: dict[str, str]
    body: bytes
    interim: list[tuple[int, dict[str, str]]]

    @property
    def closes(self) -> bool:
        return self.headers.get("connection") == "close"


class Client:
    """One connection. `receive_buffer`: bytes the kernel keeps for a client that does not read."""

    def __init__(self, address: Any, receive_buffer: int = 0) -> None:
        self.socket = socket.socket(socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX)
        self.socket.settimeout(PATIENCE)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if isinstance(address, tuple):
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect(address)
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self, method: str = "GET") -> Answer:
        """The next response, read by h11, which raises RemoteProtocolError for all that is not as it must."""
        parser = h11.Connection(h11.CLIENT)
        parser.send(h11.Request(method=method, target="/", headers=[("Host", "test")]))
        parser.send(h11.EndOfMessage())
        if self._rest:
            parser.receive_data(self._rest)
        interim, final, body = [], None, bytearray()
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                parser.receive_data(self.socket.recv(1 << 18))
            elif isinstance(event, h11.InformationalResponse):
                interim.append((event.status_code, _headers(event)))
            elif isinstance(event, h11.Response):
                final = event
            elif isinstance(event, h11.Data):
                body += event.data
            else:
                assert isinstance(event, h11.EndOfMessage)
                assert final is not None
                self._rest = parser.trailing_data[0]
                return Answer(final.status_code, _headers(final), bytes(body), interim)

    def get(self, target: str = "/", *lines: str) -> Answer:
        self.send(request("GET", target, *lines))
        return self.receive()

    def ended(self) -> None:
        """The connection ends here, in order."""
        assert self._rest + self.socket.recv(1 << 16) == b""

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def _headers(event: h11.Response | h11.InformationalResponse) -> dict[str, str]:
    pairs = [(name.decode(), value.decode()) for name, value in event.headers]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def request(method: str, target: str, *lines: str, body: bytes = b"") -> bytes:
    head = [f"{method} {target} HTTP/1.1", "Host: test", *lines]
    if body:
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode() + body


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in [*pieces, b""])


# --- applications ------------------------------------------------------------------------------------------


def echo(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Says what was asked for, and gives the body back."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    line = f"{environ['REQUEST_METHOD']} {environ['RAW_URI']}\n".encode()
    return [line + environ["wsgi.input"].read()]


def answering(body: Iterable[bytes], *headers: tuple[str, str]) -> App:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", list(headers))
        return body

    return app


def gated(gate: Gate, inner: App = echo) -> App:
    """`inner`; but whoever asks for /wait waits at the gate first."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/wait":
            gate.wait()
        return inner(environ, start_response)

    return app


def with_large(inner: App = echo, size: int = 20) -> App:
    """`inner`; but /large is answered with so many times PATTERN."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/large":
            return answering([PATTERN * size])(environ, start_response)
        return inner(environ, start_response)

    return app


INLINE = Config(max_keepalive_reqs=0, max_reqs_per_child=0)
THREADS = replace(INLINE, threads=4)


@pytest.fixture(params=[INLINE, THREADS], ids=["inline", "threads"])
def kept(request: pytest.FixtureRequest) -> Config:
    """Connections and workers go on for ever."""
    config: Config = request.param
    return config


# --- before HTTP -------------------------------------------------------------------------------------------


class Word:
    """A greeting: the client says a word of three letters, and may be answered with what its socket does not
    take at once."""

    def __init__(self, connection: Connection, answer: bytes = b"") -> None:
        self.connection = connection
        self.said = b""
        self.answer = memoryview(answer)

    def go_on(self) -> int:
        sock = self.connection.socket
        try:
            while len(self.said) < 3:
                more = sock.recv(3 - len(self.said), socket.MSG_DONTWAIT)
                if not more:
                    raise ClientGone("it said nothing")
                self.said += more
        except BlockingIOError:
            return select.EPOLLIN
        if self.said == b"bad":
            raise ClientGone("a bad word")
        try:
            while self.answer:
                self.answer = self.answer[sock.send(self.answer, socket.MSG_DONTWAIT) :]
        except BlockingIOError:
            return select.EPOLLOUT
        self.connection.introduce({**self.connection.environ, "REMOTE_ADDR": self.said.decode()})
        return 0


def asking(*greetings: Callable[[Connection], Word]) -> Door:
    return tcp_door()._replace(greetings=greetings)


class TestGreeting:
    @pytest.mark.parametrize("size", [1, 3, 4, 1000], ids=str)
    def test_http_comes_behind_it(self, kept: Config, size: int) -> None:
        """However the bytes are cut: what is behind the greetings is HTTP, and they do not come again."""
        with Server(echo, kept, [asking(Word, Word)]) as server, Client(server.address) as client:
            stream = b"onetwo" + request("GET", "/a")
            for start in range(0, len(stream), size):
                client.send(stream[start : start + size])
                server.until(lambda loop: loop.connections)
            assert client.receive().body == b"GET /a\n"
            assert client.get("/b").body == b"GET /b\n"
        assert [record.peer for record in server.records] == ["two", "two"]

    def test_until_the_client_reads(self, kept: Config) -> None:
        door = asking(lambda connection: Word(connection, PATTERN * 20))
        with Server(echo, kept, [door]) as server, Client(server.address, 4096) as client:
            client.send(b"one")
            server.until(lambda loop: [each.interest for each in loop.greeting.members] == [select.EPOLLOUT])
            left = 20 * len(PATTERN)
            while left:
                left -= len(client.socket.recv(min(left, 1 << 20)))
            assert client.get("/a").body == b"GET /a\n"

    @pytest.mark.parametrize("begun", [b"", b"o"], ids=["nothing", "a part"])
    def test_it_has_its_time(self, kept: Config, begun: bytes) -> None:
        """One deadline for all of it; who has come to HTTP in time has its other limits."""
        with (
            Server(echo, kept, [asking(Word)]) as server,
            Client(server.address) as late,
            Client(server.address) as timely,
        ):
            server.until(lambda loop: len(loop.greeting.members) == 2)
            server.advance(5)
            late.send(begun)
            timely.send(b"one")
            server.until(lambda loop: loop.fresh.members)
            server.advance(5)
            late.ended()
            server.advance(20)
            assert timely.get("/a").body == b"GET /a\n"
        assert len(server.records) == 1

    def test_who_is_done_is_not_late(self, kept: Config) -> None:
        """The worker was busy: the client's word has come in time, and waited for somebody to look."""
        bell = Gate()
        with Server(echo, kept, [asking(Word)]) as server, Client(server.address) as client:
            server.until(lambda loop: loop.greeting.members)
            server.order(bell.wait)
            bell.reached()
            client.send(b"one" + request("GET", "/a"))
            ours = [connection.socket for connection in server.loop.connections.values()]
            assert select.select(ours, [], [], PATIENCE)[0]
            server.order(lambda: server.loop._sweep(server.clock.now))
            server.clock.now += 11
            bell.open()
            assert client.receive().body == b"GET /a\n"

    @pytest.mark.parametrize("how", ["bad", "gone", "reset"])
    def test_who_does_not_come_to_http(self, kept: Config, how: str) -> None:
        with Server(echo, kept, [asking(Word)]) as server, Client(server.address) as client:
            server.until(lambda loop: loop.greeting.members)
            if how == "bad":
                client.send(b"badGET / HTTP/1.1")
                with pytest.raises(ConnectionResetError):
                    client.ended()
            elif how == "gone":
                client.socket.close()
            else:
                client.reset()
            server.until(lambda loop: not loop.connections)
        assert server.records == []

    def test_a_stop_does_not_wait_for_it(self, kept: Config) -> None:
        with Server(echo, kept, [asking(Word)]) as server, Client(server.address) as client:
            server.until(lambda loop: loop.greeting.members)
            server.leave(final=True)
            server.advance(2)
            client.ended()
            server.ended()


# --- requests ----------------------------------------------------------------------------------------------


class TestRequests:
    def test_a_plain_one(self, kept: Config) -> None:
        with Server(echo, kept) as server, Client(server.address) as client:
            answer = client.get("/a?b")
            assert (answer.status, answer.body) == (200, b"GET /a?b\n")
            assert answer.headers["content-length"] == "9"
            assert not answer.closes

    @pytest.mark.parametrize("kind", ["path", "abstract"])
    def test_over_a_unix_socket(self, kept: Config, kind: str, tmp_path: Path) -> None:
        seen: list[Environ] = []

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            seen.append(environ)
            return echo(environ, start_response)

        name = str(tmp_path / "socket") if kind == "path" else f"\0stardust-test-{os.getpid()}"
        with Server(app, kept, [unix_door(name)]) as server, Client(server.address) as client:
            assert client.get("/a").status == 200
        assert (seen[0]["REMOTE_ADDR"], seen[0]["REMOTE_PORT"]) == ("", "")
        assert (seen[0]["SERVER_NAME"], seen[0]["SERVER_PORT"]) == ("localhost", "80")

    def test_several_doors(self, kept: Config, tmp_path: Path) -> None:
        doors = [tcp_door(), unix_door(str(tmp_path / "socket")), tcp_door()]
        with Server(echo, kept, doors):
            for door in doors:
                with Client(door.socket.getsockname()) as client:
                    assert client.get("/a").body == b"GET /a\n"

    @pytest.mark.parametrize(("most", "served"), [(1, 1), (3, 3), (0, 20)], ids=["one", "three", "no limit"])
    def test_s7_so_many_on_a_connection(self, kept: Config, most: int, served: int) -> None:
        with (
            Server(echo, replace(kept, max_keepalive_reqs=most)) as server,
            Client(server.address) as client,
        ):
            for number in range(1, served + 1):
                assert client.get(f"/{number}").closes is (number == most)
            if most:
                client.ended()

    @pytest.mark.parametrize(
        ("head", "connection"),
        [
            ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close", "close"),
            ("GET / HTTP/1.0", "close"),
            ("GET / HTTP/1.0\r\nConnection: keep-alive", "keep-alive"),
        ],
        ids=["close", "1.0", "1.0 keep-alive"],
    )
    def test_as_the_client_wants_it(self, kept: Config, head: str, connection: str) -> None:
        """RFC 9112 9.3."""
        with Server(echo, kept) as server, Client(server.address) as client:
            client.send(f"{head}\r\n\r\n".encode())
            assert client.receive().headers["connection"] == connection
            if connection == "close":
                client.ended()

    @pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000])
    def test_in_any_segments(self, kept: Config, size: int) -> None:
        stream = (
            request("GET", "/1")
            + request("POST", "/2", body=b"body")
            + request("POST", "/3", "Transfer-Encoding: chunked")
            + chunked(b"a chunk", b"and another")
            + request("GET", "/4")
        )
        with Server(echo, kept) as server, Client(server.address) as client:
            for start in range(0, len(stream), size):
                client.send(stream[start : start + size])
                server.settled()
            bodies = [client.receive().body for _ in range(4)]
        assert bodies == [b"GET /1\n", b"POST /2\nbody", b"POST /3\na chunkand another", b"GET /4\n"]

    def test_the_date_goes_with_the_time(self, kept: Config) -> None:
        with Server(echo, kept) as server, Client(server.address) as client:
            first = client.get().headers["date"]
            server.advance(0.999)
            assert client.get().headers["date"] == first == "Fri, 15 Jan 2027 08:16:40 GMT"
            server.advance(0.001)
            assert client.get().headers["date"] == "Fri, 15 Jan 2027 08:16:41 GMT"

    def test_a_connection_leaves_no_cycle(self, kept: Config) -> None:
        """Else its buffers live until the collector comes by."""

        gc.disable()
        try:
            with Server(echo, kept) as server:
                for _ in range(3):
                    with Client(server.address) as client:
                        client.get("/", "Connection: close")
                        client.ended()
                server.settled()
                port = str(server.address[1])
                kept_alive = [each for each in gc.get_objects() if type(each) is Connection]
                assert port not in [each.environ["SERVER_PORT"] for each in kept_alive]
        finally:
            gc.enable()


class TestPipelining:
    def test_s8_a_thousand_in_one_go(self, kept: Config) -> None:
        """Far more bytes than are read at once: heads are cut anywhere."""
        stream = b"".join(request("GET", f"/{number}", f"X: {'x' * 200}") for number in range(1000))
        with Server(echo, kept) as server, Client(server.address) as client:
            sender = threading.Thread(target=client.send, args=[stream])
            sender.start()
            for number in range(1000):
                assert client.receive().body == b"GET /%d\n" % number
            sender.join(PATIENCE)

    def test_s7_others_have_their_turn(self) -> None:
        """RFC 9112 9.3.2 lets a client send many; it does not let it come first with all of them."""
        gate, order = Gate(), []

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            order.append(environ["PATH_INFO"])
            return gated(gate)(environ, start_response)

        with Server(app, INLINE) as server, Client(server.address) as greedy, Client(server.address) as other:
            other.get("/first")
            greedy.send(request("GET", "/wait") + request("GET", "/greedy") * 100)
            gate.reached()
            other.send(request("GET", "/other"))
            gate.open()
            assert other.receive().body == b"GET /other\n"
            for _ in range(101):
                greedy.receive()
        assert order.index("/other") <= 3

    def test_s8_reading_stops_while_requests_wait(self) -> None:
        """Else a client could have its requests gathered in our memory without limit."""
        held: list[int] = []
        servers: list[Server] = []

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            held.extend(len(each.buffer) for each in servers[0].loop.connections.values())
            return echo(environ, start_response)

        stream = request("GET", "/", f"X: {'x' * 2000}") * 1000
        with Server(app, INLINE) as server, Client(server.address) as client:
            servers.append(server)
            sender = threading.Thread(target=client.send, args=[stream])
            sender.start()
            for _ in range(1000):
                client.receive()
            sender.join(PATIENCE)
        assert max(held) < 2 * 65536

    def test_f13_what_nobody_reads_takes_no_answer_along(self, kept: Config) -> None:
        """Closed with bytes unread, a connection is reset, and a response may be lost that is on its way."""
        gate = Gate()
        config = replace(kept, max_keepalive_reqs=1)
        with Server(gated(gate), config) as server, Client(server.address) as client:
            client.send(request("GET", "/wait"))
            gate.reached()
            client.send(request("GET", "/never"))
            gate.open()
            answer = client.receive()
            assert (answer.body, answer.closes) == (b"GET /wait\n", True)
            client.ended()
            assert len(server.records) == 1

    def test_behind_the_last_request_nothing_is_served(self, kept: Config) -> None:
        """RFC 9112 9.6; and the response is not lost by a reset although bytes were left unread."""
        with (
            Server(echo, replace(kept, max_keepalive_reqs=2)) as server,
            Client(server.address) as client,
        ):
            client.send(request("GET", "/a") * 5)
            assert not client.receive().closes
            assert client.receive().closes
            client.ended()
            server.settled()
            assert len(server.records) == 2


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
            monkeypatch.setattr("stardust.worker.loop.Spool", lambda **_: spool)
            client.send(request("POST", "/", body=b"body"))
            answer = client.receive()
            assert (answer.status, answer.closes) == (507, True)
            assert closed, "what was kept takes up room while the connection lingers"
            client.ended()
            monkeypatch.undo()
            with Client(server.address) as next_client:
                next_client.send(request("POST", "/", body=b"body"))
                assert next_client.receive().status == 200


# --- clients that leave ------------------------------------------------------------------------------------


class TestClientsThatLeave:
    @pytest.mark.parametrize("requests", [1, 3])
    def test_s9_half_close(self, kept: Config, requests: int) -> None:
        """A client may say that it has nothing more to ask; it still gets its answers."""
        with Server(echo, kept) as server, Client(server.address) as client:
            client.send(request("GET", "/a") * requests)
            client.socket.shutdown(socket.SHUT_WR)
            for _ in range(requests):
                assert client.receive().body == b"GET /a\n"
            client.ended()

    @pytest.mark.parametrize("how", ["end", "reset"])
    @pytest.mark.parametrize(
        ("stream", "logged"),
        [
            (b"", 0),
            (b"GET / HT", 0),
            (request("POST", "/", "Content-Length: 9") + b"bod", 1),
            (request("POST", "/", "Transfer-Encoding: chunked") + b"5\r\nbod", 1),
        ],
        ids=["before the head", "in the head", "in the body", "in a chunk"],
    )
    def test_s9_before_the_request_is_whole(self, kept: Config, how: str, stream: bytes, logged: int) -> None:
        """RFC 9112 8: an incomplete request is none, and the application never hears of it."""
        calls: list[Environ] = []

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            calls.append(environ)
            return echo(environ, start_response)

        with Server(app, kept) as server, Client(server.address) as client:
            client.send(stream)
            server.until(lambda loop: loop.connections)
            server.until(lambda loop: not stream or loop.reading_heads.members or loop.reading_bodies.members)
            if how == "reset":
                client.reset()
            else:
                client.socket.close()
            server.until(lambda loop: not loop.connections)
            assert calls == []
            assert [(each.status, each.note) for each in server.records] == [(0, "client gone")] * logged

    def test_s9_reset_while_parked(self, kept: Config) -> None:
        with Server(echo, kept) as server, Client(server.address) as client:
            client.get()
            client.reset()
            server.until(lambda loop: not loop.connections)

    def test_s9_reset_while_the_application_works(self, kept: Config) -> None:
        gate = Gate()
        with Server(gated(gate), kept) as server, Client(server.address) as client:
            client.send(request("GET", "/wait"))
            gate.reached()
            client.reset()
            gate.open()
            server.until(lambda loop: not loop.connections)
            assert [each.note for each in server.records] == ["client gone"]
            with Client(server.address) as other:
                assert other.get().status == 200

    def test_s9_reset_with_requests_waiting(self) -> None:
        gate = Gate()
        with Server(gated(gate), INLINE) as server, Client(server.address) as client:
            client.send(request("GET", "/wait") + request("GET", "/next") * 3)
            gate.reached()
            client.reset()
            gate.open()
            server.until(lambda loop: not loop.connections and not loop.ready)

    @pytest.mark.parametrize("how", ["end", "reset"])
    def test_s9_while_the_response_waits(self, kept: Config, how: str) -> None:
        with Server(with_large(), kept) as server, Client(server.address, 4096) as client:
            client.send(request("GET", "/large"))
            server.until(lambda loop: loop.sending.members)
            if how == "reset":
                client.reset()
            else:
                client.socket.close()
            server.until(lambda loop: not loop.connections)
            assert [(each.status, each.note) for each in server.records] == [(200, "client gone")]

    def test_an_application_that_closed_the_socket(self, kept: Config) -> None:
        """As after an upgrade to a protocol of its own, spoken over `stardust.socket`."""

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            if environ["PATH_INFO"] == "/own":
                environ["stardust.socket"].send(b"hello")
                environ["stardust.socket"].close()
            return echo(environ, start_response)

        with Server(app, kept) as server, Client(server.address) as client:
            client.get()
            client.send(request("GET", "/own"))
            assert client.socket.recv(100) == b"hello"
            client.ended()
            with Client(server.address) as other:
                assert other.get().status == 200


# --- time limits -------------------------------------------------------------------------------------------


class TestTimeLimits:
    def test_s1_a_connection_without_a_byte(self, kept: Config) -> None:
        """Nobody is told of a request that was never begun."""
        with Server(echo, kept) as server, Client(server.address) as client:
            server.until(lambda loop: loop.connections)
            server.advance(29.9)
            assert server.ask(lambda loop: len(loop.connections)) == 1
            server.advance(0.1)
            client.ended()
            assert server.records == []

    def test_s1_a_head_that_never_ends(self, kept: Config) -> None:
        """Bytes on the way do not extend it: the limit is for the whole head."""
        with Server(echo, kept) as server, Client(server.address) as client:
            client.send(b"GET / HTTP/1.1\r\n")
            server.until(lambda loop: loop.reading_heads.members)
            server.advance(20)
            client.send(b"Host: test\r\n")
            server.advance(9.9)
            client.send(b"X: y\r\n")
            server.advance(0.1)
            answer = client.receive()
            assert (answer.status, answer.closes) == (408, True)
            client.ended()
            assert [(each.status, each.note) for each in server.records] == [(408, "header-timeout")]

    def test_s2_a_body_that_stops(self, kept: Config) -> None:
        """Each byte extends it."""
        with Server(echo, replace(kept, min_body_rate=0)) as server, Client(server.address) as client:
            client.send(request("POST", "/", "Content-Length: 5"))
            server.until(lambda loop: loop.reading_bodies.members)
            for _ in range(3):
                server.advance(299)
                client.send(b"x")
                server.until(lambda loop: loop.reading_bodies.next() == server.clock.now + 300)
            server.advance(300)
            answer = client.receive()
            assert (answer.status, answer.closes) == (408, True)
            client.ended()
            assert [(each.status, each.note) for each in server.records] == [(408, "timeout")]

    def test_s1_a_connection_without_a_next_request(self, kept: Config) -> None:
        with Server(echo, kept) as server, Client(server.address) as client:
            for _ in range(2):
                client.get()
                server.settled()
                server.advance(1.9)
            assert server.ask(lambda loop: len(loop.connections)) == 1
            server.advance(0.1)
            client.ended()
            assert len(server.records) == 2

    def test_s1_the_head_of_a_next_request_has_its_own_time(self, kept: Config) -> None:
        with Server(echo, kept) as server, Client(server.address) as client:
            client.get()
            client.send(b"GET /slow HTTP/1.1\r\n")
            server.until(lambda loop: loop.reading_heads.members)
            server.advance(29)
            client.send(b"Host: test\r\n\r\n")
            assert client.receive().body == b"GET /slow\n"

    @pytest.mark.parametrize(
        ("begun", "wait"), [(b"", 10.0), (b"GET /b HTTP/1.1\r\n", 60.0)], ids=["parked", "in the head"]
    )
    def test_s1_what_came_while_the_application_worked_is_not_late(self, begun: bytes, wait: float) -> None:
        gate = Gate()
        whole = request("GET", "/b")
        with Server(gated(gate), INLINE) as server, Client(server.address) as a, Client(server.address) as b:
            b.get()
            b.send(begun)
            server.until(lambda loop: not begun or loop.reading_heads.members)
            a.send(request("GET", "/wait"))
            gate.reached()
            b.send(whole[len(begun) :])
            server.clock.now += wait
            gate.open()
            assert b.receive().body == b"GET /b\n"

    def test_s1_what_came_is_not_late_behind_many_others(self) -> None:
        """One poll reports so many events at most, and the application takes its time for each."""
        gate = Gate()
        servers: list[Server] = []

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            if environ["PATH_INFO"] == "/slow":
                servers[0].clock.now += 1.0
            return gated(gate)(environ, start_response)

        with Server(app, INLINE) as server, contextlib.ExitStack() as stack:
            servers.append(server)
            clients = [stack.enter_context(Client(server.address)) for _ in range(150)]
            for client in clients:
                client.get()
            with Client(server.address) as first:
                first.send(request("GET", "/wait"))
                gate.reached()
                for client in clients:
                    client.send(request("GET", "/slow"))
                gate.open()
                for client in clients:
                    assert client.receive().body == b"GET /slow\n"


# --- limits of pace ----------------------------------------------------------------------------------------


class TestPace:
    """The clock goes in steps of no more than a second here: what the loop looks at too late is forgiven."""

    def test_s2_a_body_that_drips(self, kept: Config) -> None:
        """Bytes on the way do not help who sends too few: a limit on silence would never end this."""
        with Server(echo, kept) as server, Client(server.address) as client:
            client.send(request("POST", "/", "Content-Length: 9999"))
            server.until(lambda loop: loop.reading_bodies.members)
            for _ in range(10):
                client.send(b"x" * 100)
                server.advance(1)
            answer = client.receive()
            assert (answer.status, answer.closes) == (408, True)
            client.ended()
            assert [(each.status, each.note) for each in server.records] == [(408, "min-body-rate")]
            assert "refused a request of 127.0.0.1: 408, min-body-rate" in server.said

    @pytest.mark.parametrize("framing", ["Content-Length: 9999", "Transfer-Encoding: chunked"])
    def test_s2_a_body_that_never_begins(self, kept: Config, framing: str) -> None:
        with Server(echo, kept) as server, Client(server.address) as client:
            client.send(request("POST", "/", framing))
            server.until(lambda loop: loop.reading_bodies.members)
            for _ in range(5):
                server.advance(1)
            assert server.records == []
            for _ in range(5):
                server.advance(1)
            assert client.receive().status == 408

    def test_s2_who_is_just_fast_enough(self, kept: Config) -> None:
        with Server(echo, kept) as server, Client(server.address) as client:
            client.send(request("POST", "/", "Content-Length: 14400"))
            server.until(lambda loop: loop.reading_bodies.members)
            for second in range(1, 61):
                client.send(b"x" * 240)
                server.until(functools.partial(has_received, second * 240))
                server.advance(1)
            assert client.receive().body == b"POST /\n" + b"x" * 14400

    def test_s2_who_was_fast_may_pause(self, kept: Config) -> None:
        with Server(echo, kept) as server, Client(server.address) as client:
            client.send(request("POST", "/", "Content-Length: 24001") + b"x" * 24000)
            server.until(lambda loop: received(loop) == 24000)
            for _ in range(100):
                server.advance(1)
            client.send(b"x")
            assert client.receive().status == 200

    def test_s2_time_in_which_the_worker_reads_nothing_is_forgiven(self) -> None:
        """The application had the loop; what came meanwhile waited in the kernel."""
        gate = Gate()
        with Server(gated(gate), INLINE) as server, Client(server.address) as a, Client(server.address) as b:
            b.send(request("POST", "/b", "Content-Length: 2") + b"x")
            server.until(lambda loop: loop.reading_bodies.members)
            a.send(request("GET", "/wait"))
            gate.reached()
            server.clock.now += 60
            gate.open()
            assert a.receive().status == 200
            server.advance(1)
            b.send(b"y")
            assert b.receive().body == b"POST /b\nxy"

    def test_s2_time_in_the_queue_for_a_thread_counts_for_nobody(self) -> None:
        gate = Gate()
        with Server(gated(gate), replace(THREADS, threads=2)) as server, contextlib.ExitStack() as stack:
            busy = [stack.enter_context(Client(server.address)) for _ in range(2)]
            waiting = stack.enter_context(Client(server.address))
            waiting.send(request("POST", "/", "Content-Length: 2") + b"x")
            server.until(lambda loop: loop.reading_bodies.members)
            for client in busy:
                client.send(request("GET", "/wait"))
            gate.reached(2)
            waiting.send(b"y")
            server.until(lambda loop: loop.queued)
            for _ in range(60):
                server.advance(1)
            gate.open()
            assert waiting.receive().body == b"POST /\nxy"

    def test_s2_without_a_limit(self, kept: Config) -> None:
        config = replace(kept, min_body_rate=0, min_response_rate=0)
        with Server(with_large(), config) as server, Client(server.address, 4096) as client:
            client.send(request("POST", "/", "Content-Length: 2") + b"x")
            server.until(lambda loop: loop.reading_bodies.members)
            for _ in range(60):
                server.advance(1)
            client.send(b"y" + request("GET", "/large"))
            assert client.receive().body == b"POST /\nxy"
            server.until(lambda loop: loop.sending.members)
            for _ in range(60):
                server.advance(1)
            assert client.receive().body == PATTERN * 20

    def test_s2_nobody_is_looked_at_who_is_through(self, kept: Config) -> None:
        with Server(with_large(), kept) as server, Client(server.address, 4096) as client:
            client.send(request("POST", "/", "Content-Length: 2") + b"x")
            server.until(lambda loop: loop.paced.members)
            client.send(b"y")
            client.receive()
            server.until(lambda loop: not loop.paced.members)
            client.send(request("GET", "/large"))
            server.until(lambda loop: loop.paced.members)
            client.receive()
            server.until(lambda loop: not loop.paced.members)
            client.send(request("POST", "/", "Content-Length: 2") + b"x")
            server.until(lambda loop: loop.paced.members)
            client.reset()
            server.until(lambda loop: not loop.paced.members)

    def test_s2_a_thousand_are_looked_at_together(self) -> None:
        """At whole seconds: what is slow may not wake the worker once for each of them."""
        with Server(echo, INLINE) as server, contextlib.ExitStack() as stack:
            server.advance(0.01)
            for _ in range(50):
                client = stack.enter_context(Client(server.address))
                client.send(request("POST", "/", "Content-Length: 2"))
                server.until(lambda loop: not loop.fresh.members)
                server.advance(0.019)
            assert len(server.ask(lambda loop: set(loop.paced.members.values()))) == 1

    def test_s3_a_reader_that_drips(self, kept: Config) -> None:
        with Server(with_large(), kept) as server, Client(server.address, 4096) as slow:
            slow.send(request("GET", "/large"))
            server.until(lambda loop: loop.sending.members)
            for _ in range(30):
                slow._rest += slow.socket.recv(10)
                server.advance(1)
            assert [(each.status, each.note) for each in server.records] == [(200, "min-response-rate")]
            with pytest.raises((h11.RemoteProtocolError, ConnectionResetError)):
                slow.receive()

    def test_s3_a_reader_that_is_fast_enough(self, kept: Config) -> None:
        with Server(with_large(), kept) as server, Client(server.address, 4096) as slow:
            slow.send(request("GET", "/large"))
            server.until(lambda loop: loop.sending.members)
            for _ in range(40):
                slow._rest += slow.socket.recv(1 << 16)
                server.advance(1)
            assert slow.receive().body == PATTERN * 20

    def test_s3_a_stream_whose_application_is_slow(self) -> None:
        """What has gone as far as there is anything is not slow, whatever the clock says."""
        gates = [Gate(), Gate()]

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", [("Content-Type", "text/event-stream")])
            for gate in gates:
                yield b"data: x\n\n"
                gate.wait()

        with Server(app, THREADS) as server, Client(server.address) as client:
            client.send(request("GET", "/events"))
            for gate in gates:
                gate.reached()
                for _ in range(60):
                    server.advance(1)
                gate.open()
            assert client.receive().body == b"data: x\n\n" * 2


def received(loop: Loop) -> int:
    """Bytes of the body that is on its way, 0 without one."""
    return sum(each.body.received for each in loop.reading_bodies.members if each.body is not None)


def has_received(size: int, loop: Loop) -> bool:
    """Whether so many bytes have come, or all."""
    return received(loop) in (size, 0)


# --- limits of number --------------------------------------------------------------------------------------


class TestAtOnce:
    """How many connections are let in before the first of them is served."""

    @pytest.mark.parametrize(("seconds", "most"), [(0.0, 16), (0.0005, 2), (0.01, 1)])
    def test_what_can_be_served_within_a_millisecond(self, seconds: float, most: int) -> None:
        gate = Gate()
        servers: list[Server] = []
        held: list[int] = []

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            servers[0].clock.now += seconds
            held.append(len(servers[0].loop.connections))
            return gated(gate)(environ, start_response)

        with Server(app, INLINE) as server, contextlib.ExitStack() as stack:
            servers.append(server)
            first = stack.enter_context(Client(server.address))
            for _ in range(20):
                first.get()
            first.send(request("GET", "/wait"))
            gate.reached()
            held.clear()
            clients = [stack.enter_context(Client(server.address)) for _ in range(16)]
            for client in clients:
                client.send(request("GET", "/"))
            gate.open()
            for client in (first, *clients):
                assert client.receive().status == 200
            assert held[0] == 1 + most


class TestAdmission:
    def test_s6_the_longest_idle_makes_room(self, kept: Config) -> None:
        config = replace(kept, max_connections=3)
        with Server(echo, config) as server, contextlib.ExitStack() as stack:
            clients = [stack.enter_context(Client(server.address)) for _ in range(3)]
            for client in (clients[1], clients[0], clients[2]):
                client.get()
                server.settled()
                server.advance(0.1)
            with Client(server.address) as late:
                assert late.get("/late").body == b"GET /late\n"
                clients[1].ended()
                assert clients[0].get().status == 200
                assert clients[2].get().status == 200
            assert server.said == ""

    def test_s6_silent_ones_are_idle_too(self, kept: Config) -> None:
        config = replace(kept, max_connections=3)
        with Server(echo, config) as server, contextlib.ExitStack() as stack:
            silent = [stack.enter_context(Client(server.address)) for _ in range(30)]
            for client in silent[:27]:
                client.ended()
            with Client(server.address) as good:
                assert good.get().status == 200

    def test_s6_whose_request_has_come_is_not_idle(self) -> None:
        gate = Gate()
        config = replace(INLINE, max_connections=2)
        with (
            Server(gated(gate), config) as server,
            Client(server.address) as idle,
            Client(server.address) as busy,
        ):
            idle.get()
            busy.send(request("GET", "/wait"))
            gate.reached()
            with Client(server.address) as late:
                late.send(request("GET", "/late"))
                idle.send(request("GET", "/idle"))
                gate.open()
                assert idle.receive().body == b"GET /idle\n"
                assert busy.receive().body == b"GET /wait\n"
                assert late.receive().body == b"GET /late\n"

    def test_s6_while_none_is_idle_new_ones_wait(self, kept: Config) -> None:
        config = replace(kept, max_connections=2)
        with Server(echo, config) as server, contextlib.ExitStack() as stack:
            slow = [stack.enter_context(Client(server.address)) for _ in range(2)]
            for client in slow:
                client.send(b"GET / HTTP/1.1\r\n")
            server.until(lambda loop: len(loop.reading_heads.members) == 2)
            late = stack.enter_context(Client(server.address))
            late.send(request("GET", "/late"))
            server.until(lambda loop: not loop.accepting)
            assert "takes no connections for 0.1 s: 2 connections, none of them idle" in server.said
            server.advance(0.1)
            server.until(lambda loop: not loop.accepting)
            slow[0].send(b"Host: test\r\n\r\n")
            assert slow[0].receive().status == 200
            server.settled()
            server.advance(0.1)
            assert late.receive().body == b"GET /late\n"

    def test_s6_a_connection_that_was_given_is_taken_when_there_is_room(
        self, kept: Config, shared: Shared, sibling: Sibling
    ) -> None:
        with (
            shared(echo, replace(kept, max_connections=1)) as server,
            Client(server.address) as slow,
        ):
            slow.send(b"GET / HTTP/1.1\r\n")
            server.until(lambda loop: loop.reading_heads.members)
            ours, theirs = socket.socketpair()
            with ours:
                sibling.link.give(theirs.fileno(), passage(request("GET", "/given")))
                theirs.close()
                server.until(lambda loop: not loop.accepting)
                slow.send(b"Host: test\r\n\r\n")
                assert slow.receive().status == 200
                server.settled()
                server.advance(0.1)
                ours.settimeout(PATIENCE)
                assert b"GET /given" in ours.recv(4096)

    def test_s6_one_too_many_of_a_peer(self, kept: Config) -> None:
        config = replace(kept, max_connections_per_peer=2)
        with Server(echo, config) as server, contextlib.ExitStack() as stack:
            two = [stack.enter_context(Client(server.address)) for _ in range(2)]
            for client in two:
                client.get()
            for _ in range(3):
                third = stack.enter_context(Client(server.address))
                answer = third.receive()
                assert (answer.status, answer.closes) == (503, True)
                third.ended()
            assert server.said.count("refused 127.0.0.1: max-connections-per-peer") == 1
            server.advance(1)
            assert "(2 like this within a second)" in server.said
            server.settled()
            assert len(server.records) == 2
            two[0].socket.close()
            server.until(lambda loop: len(loop.connections) == 1)
            with Client(server.address) as again:
                assert again.get().status == 200

    def test_s6_who_has_not_come_to_http_counts_too(self, kept: Config) -> None:
        """And is told nothing: there is no HTTP on that connection yet."""
        config = replace(kept, max_connections_per_peer=1)
        with (
            Server(echo, config, [tcp_door()._replace(greetings=(Word,))]) as server,
            Client(server.address) as first,
            Client(server.address) as second,
        ):
            server.until(lambda loop: loop.greeting.members)
            second.ended()
            first.send(b"::1")
            assert first.get().status == 200
            assert server.ask(lambda loop: len(loop.connections)) == 1

    def test_s6_who_comes_by_a_unix_socket_is_nobodys_peer(self, kept: Config, tmp_path: Path) -> None:
        config = replace(kept, max_connections_per_peer=1)
        with (
            Server(echo, config, [unix_door(str(tmp_path / "socket"))]) as server,
            contextlib.ExitStack() as stack,
        ):
            for _ in range(3):
                assert stack.enter_context(Client(server.address)).get().status == 200

    def test_s6_who_was_given_away_is_counted_and_stays(
        self, kept: Config, shared: Shared, sibling: Sibling
    ) -> None:
        with (
            shared(echo, replace(kept, max_connections_per_peer=1)) as server,
            contextlib.ExitStack() as stack,
        ):
            for _ in range(2):
                ours, theirs = map(stack.enter_context, socket.socketpair())
                ours.settimeout(PATIENCE)
                sibling.link.give(theirs.fileno(), passage(request("GET", "/given")))
                assert b"200 OK" in ours.recv(4096)
            server.settled()
            assert sum(server.ask(lambda loop: [*loop.admission._counts.values()])) == 2


# --- slow readers ------------------------------------------------------------------------------------------


class TestSlowReaders:
    def test_s4_the_worker_is_free_while_somebody_reads_slowly(self, kept: Config) -> None:
        with (
            Server(with_large(), kept) as server,
            Client(server.address, 4096) as slow,
            Client(server.address) as other,
        ):
            slow.send(request("GET", "/large"))
            server.until(lambda loop: loop.sending.members)
            assert other.get("/a").body == b"GET /a\n"
            assert slow.receive().body == PATTERN * 20
            assert slow.get("/b").body == b"GET /b\n"

    def test_memory_first_then_the_disk(self, kept: Config) -> None:
        pieces = [PATTERN[:65536]] * 320

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", [])
            return iter(pieces)

        with Server(app, kept) as server, Client(server.address, 4096) as slow:
            slow.send(request("GET", "/"))
            server.until(lambda loop: loop.sending.members)
            (connection,) = server.ask(lambda loop: list(loop.sending.members))
            assert connection.outbox is not None
            assert connection.unsent > 10 * outbox.MEMORY
            assert connection.outbox._share.held <= outbox.MEMORY
            assert slow.receive().body == b"".join(pieces)

    def test_the_application_waits_at_the_limit(self, kept: Config) -> None:
        unsent: list[int] = []
        servers: list[Server] = []

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", [])
            for _ in range(200):
                unsent.extend(each.unsent for each in list(servers[0].loop.connections.values()))
                yield PATTERN[:65536]

        config = replace(kept, max_response_buffer=4 * 65536)
        with Server(app, config) as server, Client(server.address, 4096) as slow:
            servers.append(server)
            slow.send(request("GET", "/"))
            assert slow.receive().body == PATTERN[:65536] * 200
        assert len(unsent) == 200
        assert max(unsent) <= 4 * 65536

    def test_s3_the_application_does_not_wait_for_ever(self, kept: Config) -> None:
        yielded: list[int] = []

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", [])
            for number in range(1000):
                yielded.append(number)
                yield PATTERN[:65536]

        config = replace(kept, max_response_buffer=65536, timeout=0.05)
        with Server(app, config) as server, Client(server.address, 4096) as slow:
            slow.send(request("GET", "/"))
            server.until(lambda loop: server.records)
            assert [each.note for each in server.records] == ["client gone"]
            assert len(yielded) < 1000
            with pytest.raises((h11.RemoteProtocolError, ConnectionResetError)):
                slow.receive()

    def test_s3_who_reads_nothing_is_cut_off(self, kept: Config) -> None:
        with Server(with_large(), kept) as server, Client(server.address, 4096) as slow:
            slow.send(request("GET", "/large"))
            server.until(lambda loop: loop.sending.members)
            server.advance(300)
            assert [(each.status, each.note) for each in server.records] == [(200, "timeout")]
            with pytest.raises((h11.RemoteProtocolError, ConnectionResetError)):
                slow.receive()

    def test_s3_no_part_is_taken_for_the_whole(self, kept: Config) -> None:
        """A body that the end of the connection ends (HTTP/1.0) must not end so when it was cut."""
        pieces = [PATTERN] * 20

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", [])
            return iter(pieces)

        with Server(app, kept) as server, Client(server.address, 4096) as slow:
            slow.send(b"GET / HTTP/1.0\r\n\r\n")
            server.until(lambda loop: loop.sending.members)
            server.advance(300)
            with pytest.raises(ConnectionResetError):
                slow.receive()

    def test_s3_who_reads_a_little_is_not(self, kept: Config) -> None:
        with Server(with_large(), kept) as server, Client(server.address, 4096) as slow:
            slow.send(request("GET", "/large"))
            server.until(lambda loop: loop.sending.members)
            (connection,) = server.ask(lambda loop: list(loop.sending.members))
            for _ in range(3):
                server.advance(299)
                before = connection.unsent
                while connection.unsent == before:
                    slow._rest += slow.socket.recv(1 << 16)
                server.settled()
            assert slow.receive().body == PATTERN * 20

    def test_the_next_request_waits_for_the_response(self, kept: Config) -> None:
        with Server(with_large(), kept) as server, Client(server.address, 4096) as slow:
            slow.send(request("GET", "/large") + request("GET", "/next"))
            server.until(lambda loop: loop.sending.members)
            assert slow.receive().body == PATTERN * 20
            assert slow.receive().body == b"GET /next\n"

    def test_p7_the_disk_is_full_for_a_response(self, kept: Config, monkeypatch: pytest.MonkeyPatch) -> None:
        with Server(with_large(), kept) as server, Client(server.address, 4096) as slow:
            monkeypatch.setattr(tempfile, "TemporaryFile", lambda buffering: io.FileIO("/dev/full", "wb"))
            slow.send(request("GET", "/large"))
            server.until(lambda loop: server.records)
            assert [each.note for each in server.records] == ["client gone"]
            with pytest.raises((h11.RemoteProtocolError, ConnectionResetError)):
                slow.receive()


# --- refused requests --------------------------------------------------------------------------------------


class TestRefusals:
    @pytest.mark.parametrize(
        ("stream", "status"),
        [
            (b"nonsense\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\n\r\n", 400),
            (b"GET / HTTP/2.0\r\n\r\n", 505),
            (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 501),
            (b"GET /" + b"a" * 9000, 414),
            (request("GET", "/", *["X: y"] * 101), 431),
            (request("GET", "/", "Expect: the unexpected"), 417),
            (request("POST", "/", "Transfer-Encoding: chunked") + b"no size\r\n", 400),
        ],
        ids=["nonsense", "no host", "2.0", "connect", "long", "many", "expect", "chunk"],
    )
    def test_the_client_reads_why(self, kept: Config, stream: bytes, status: int) -> None:
        """RFC 9112 9.6: closing with unread bytes resets the connection, and what the client has not read
        yet would be lost. So what it goes on sending is taken, for a while."""
        with Server(echo, kept) as server, Client(server.address) as client:
            client.send(stream)
            server.until(lambda loop: loop.lingering.members)
            client.send(PATTERN)
            server.until(lambda loop: loop.lingering.members)
            client.send(PATTERN)
            answer = client.receive()
            assert (answer.status, answer.closes) == (status, True)
            client.ended()
            client.socket.close()
            server.until(lambda loop: not loop.connections)
            assert [each.status for each in server.records] == [status]

    def test_not_for_ever(self, kept: Config) -> None:
        with Server(echo, kept) as server, Client(server.address) as client:
            client.send(b"nonsense\r\n\r\n")
            assert client.receive().status == 400
            server.until(lambda loop: loop.lingering.members)
            server.advance(1.9)
            client.send(b"still here")
            server.settled()
            server.advance(0.1)
            assert server.ask(lambda loop: len(loop.connections)) == 0

    def test_behind_a_good_request(self, kept: Config) -> None:
        with Server(echo, kept) as server, Client(server.address) as client:
            client.send(request("GET", "/good") + b"nonsense\r\n\r\n")
            assert client.receive().body == b"GET /good\n"
            assert client.receive().status == 400
            client.ended()


# --- what the application may do ---------------------------------------------------------------------------


class TestApplications:
    def test_it_fails_before_the_head(self, kept: Config) -> None:
        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            if environ["PATH_INFO"] == "/bad":
                raise RuntimeError("on purpose")
            return echo(environ, start_response)

        with Server(app, kept) as server, Client(server.address) as client:
            assert client.get("/bad").status == 500
            assert client.get("/good").status == 200
            assert [each.note for each in server.records][:1] == ["application error"]

    @pytest.mark.parametrize(
        ("head", "headers", "error"),
        [
            (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", [], (h11.RemoteProtocolError, ConnectionResetError)),
            (b"GET / HTTP/1.0\r\n\r\n", [], (ConnectionResetError,)),
            (
                b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                [("Content-Length", "9")],
                (h11.RemoteProtocolError, ConnectionResetError),
            ),
        ],
        ids=["chunked: no last chunk", "until close: reset", "length: too short"],
    )
    def test_it_fails_after_the_head(
        self, kept: Config, head: bytes, headers: list[tuple[str, str]], error: tuple[type[Exception], ...]
    ) -> None:
        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", headers)
            yield b"part"
            raise RuntimeError("on purpose")

        with Server(app, kept) as server, Client(server.address) as client:
            client.send(head)
            with pytest.raises(error):
                client.receive()
            server.settled()
            assert [(each.status, each.sent, each.note) for each in server.records] == [
                (200, 4, "application error")
            ]

    def test_it_gives_less_than_it_promised(self, kept: Config) -> None:
        app = answering(iter([b"1234"]), ("Content-Length", "5"))
        with Server(app, kept) as server, Client(server.address) as client:
            client.send(request("GET", "/"))
            with pytest.raises(h11.RemoteProtocolError):
                client.receive()
            server.settled()
            assert server.records[0].note == "body shorter than Content-Length"

    def test_it_streams(self, kept: Config) -> None:
        app = answering(str(number).encode() for number in range(100))
        with Server(app, kept) as server, Client(server.address) as client:
            answer = client.get()
            assert answer.headers["transfer-encoding"] == "chunked"
            assert answer.body == b"".join(b"%d" % number for number in range(100))

    def test_every_part_leaves_at_once(self, kept: Config) -> None:
        """PEP 3333: servers "must not delay the transmission of any block"."""
        gate = Gate()

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", [("Content-Length", "2")])
            yield b"1"
            gate.wait()
            yield b"2"

        with Server(app, kept) as server, Client(server.address) as client:
            client.send(request("GET", "/"))
            gate.reached()
            received = b""
            while not received.endswith(b"\r\n\r\n1"):
                received += client.socket.recv(1000)
            gate.open()
            assert client.socket.recv(1000) == b"2"

    @pytest.mark.parametrize("offset", [0, 1000])
    def test_a_file(self, kept: Config, offset: int, tmp_path: Path) -> None:
        """By sendfile(2), to a slow reader, from where the file stands; it is closed long before the end."""
        path = tmp_path / "file"
        path.write_bytes(PATTERN * 5)

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", [])
            file = path.open("rb")
            file.seek(offset)
            result: Iterable[bytes] = environ["wsgi.file_wrapper"](file)
            return result

        with Server(app, kept) as server, Client(server.address, 4096) as client:
            client.send(request("GET", "/"))
            server.until(lambda loop: loop.sending.members)
            path.unlink()
            answer = client.receive()
            assert answer.headers["content-length"] == str(len(PATTERN) * 5 - offset)
            assert answer.body == (PATTERN * 5)[offset:]

    def test_a_file_that_is_none_on_disk(self, kept: Config, tmp_path: Path) -> None:
        with gzip.open(tmp_path / "file.gz", "wb") as compressed:
            compressed.write(PATTERN)

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", [])
            result: Iterable[bytes] = environ["wsgi.file_wrapper"](gzip.GzipFile(tmp_path / "file.gz"))
            return result

        with Server(app, kept) as server, Client(server.address) as client:
            assert client.get().body == PATTERN

    def test_early_hints(self, kept: Config) -> None:
        """RFC 8297."""

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            environ["wsgi.early_hints"]([("Link", "</style.css>; rel=preload")])
            environ["stardust.informational"]("102 Processing", [])
            return echo(environ, start_response)

        with Server(app, kept) as server, Client(server.address) as client:
            answer = client.get()
            assert answer.interim == [(103, {"link": "</style.css>; rel=preload"}), (102, {})]
            assert answer.status == 200

    def test_w9_harakiri_that_cannot_be_asked(self, kept: Config) -> None:
        """It was set, so it is meant; what the application put there ends no loop."""

        class Moody:
            def __bool__(self) -> bool:
                raise SystemExit(1)

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            environ["stardust.harakiri.commit"] = Moody()
            return echo(environ, start_response)

        with Server(app, kept) as server, Client(server.address) as client:
            assert client.get().status == 200
            server.settled()
            assert server.announced == ["leaving"]

    def test_harakiri(self, kept: Config) -> None:
        """The worker leaves after this response, and says so."""

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            assert environ["stardust.harakiri"] is True
            environ["stardust.harakiri.commit"] = environ["PATH_INFO"] == "/commit"
            return echo(environ, start_response)

        with Server(app, kept) as server, Client(server.address) as client:
            client.get("/stay")
            assert server.announced == []
            assert client.get("/commit").status == 200
            server.settled()
            server.advance(2)
            server.ended()
            assert server.announced == ["leaving"]


# --- leaving -----------------------------------------------------------------------------------------------


class TestLeaving:
    def test_after_so_many_requests(self, kept: Config) -> None:
        with (
            Server(echo, replace(kept, max_reqs_per_child=3)) as server,
            Client(server.address) as client,
            Client(server.address) as late,
        ):
            assert not client.get("/1").closes
            assert not client.get("/2").closes
            assert server.announced == []
            assert client.get("/3").closes
            client.ended()
            # Connected before, without a request: its own is served yet.
            assert late.get("/4").closes
            late.ended()
            server.ended()
            assert server.announced == ["leaving"]

    def test_new_connections_are_left_to_others(self, kept: Config) -> None:
        with Server(echo, kept) as server, Client(server.address) as client:
            client.get()
            server.leave()
            with Client(server.address) as new:
                new.send(request("GET", "/new"))
                assert client.get().closes
                server.ended()
            assert server.loop.requests == 2

    def test_dismissed_it_accepts_nothing_even_before_it_is_told(self, kept: Config) -> None:
        with Server(echo, kept) as server, Client(server.address) as client:
            client.get()
            server.board.dismiss(0)
            with Client(server.address) as new:
                new.send(request("GET", "/new"))
                client.get()
                client.get()
                assert server.loop.requests == 3

    def test_told_to_look_it_takes_what_a_sibling_left_behind(self, kept: Config) -> None:
        """The wake-up went to another worker: this one hears nothing of the connection by itself."""
        with Server(echo, kept) as server:
            [descriptor] = server.loop.doors
            server.ask(lambda loop: loop.epoll.unregister(descriptor))
            with Client(server.address) as client:
                client.send(request("GET", "/"))

                def told(loop: Loop) -> int:
                    loop.epoll.register(descriptor, 0)
                    loop.look()
                    return len(loop.connections)

                assert server.ask(told) == 1
                assert client.receive().status == 200

    def test_not_while_nobody_could_follow(self, kept: Config) -> None:
        follows: list[bool] = []
        with (
            Server(echo, replace(kept, max_reqs_per_child=2), replaceable=lambda: bool(follows)) as server,
            Client(server.address) as client,
        ):
            for _ in range(5):
                assert not client.get().closes
            follows.append(True)
            assert client.get().closes
            server.ended()
            assert server.announced == ["leaving"]

    def test_each_worker_draws_its_limit(self) -> None:
        """Evenly, both ends included."""
        random.seed(1)
        drawn = [_limit(10, 5) for _ in range(600)]
        assert set(drawn) == {5, 6, 7, 8, 9, 10}
        assert min(drawn.count(value) for value in range(5, 11)) > 60
        assert _limit(10, 0) == 10
        assert _limit(0, 0) == _limit(0, 5) > 10**9

    def test_what_was_begun_is_finished(self, kept: Config) -> None:
        with (
            Server(with_large(), kept) as server,
            Client(server.address, 4096) as slow,
            Client(server.address) as head,
            Client(server.address) as fresh,
            Client(server.address) as parked,
        ):
            parked.get()
            slow.send(request("GET", "/large"))
            head.send(b"GET /head HTTP/1.1\r\nHo")
            server.until(lambda loop: loop.sending.members and loop.reading_heads.members)
            server.until(lambda loop: len(loop.connections) == 4)
            server.leave()
            server.advance(1.9)
            head.send(b"st: test\r\n\r\n")
            for client in (head, fresh, parked):
                if client is not head:
                    client.send(request("GET", "/a"))
                assert client.receive().closes
                client.ended()
            assert slow.receive().body == PATTERN * 20
            server.advance(2)
            slow.ended()
            server.ended()

    def test_who_begins_nothing_is_not_waited_for(self, kept: Config) -> None:
        with Server(echo, kept) as server, Client(server.address) as fresh, Client(server.address) as parked:
            parked.get()
            server.until(lambda loop: len(loop.connections) == 2)
            server.settled()
            server.leave()
            server.advance(2)
            fresh.ended()
            parked.ended()
            server.ended()

    def test_nobody_is_waited_for_beyond_the_limit(self, kept: Config) -> None:
        with Server(with_large(), kept) as server, Client(server.address, 4096) as slow:
            slow.send(request("GET", "/large"))
            server.until(lambda loop: loop.sending.members)
            server.leave()
            server.advance(29.9)
            assert not server._over.is_set()
            server.advance(0.1)
            server.ended()

    @pytest.mark.parametrize("own", [True, False], ids=["our own listener", "systemd's"])
    def test_for_good(self, kept: Config, own: bool) -> None:
        """Who queues at a listener that closes would be reset; at one that stays, the next process comes."""
        gate = Gate()
        with (
            Server(gated(gate), replace(kept, threads=1), [tcp_door(own)]) as server,
            Client(server.address) as busy,
            contextlib.ExitStack() as stack,
        ):
            busy.get()
            server.ask(lambda loop: loop._stop_accepting())  # else it might see them before it leaves
            busy.send(request("GET", "/wait", "Connection: close"))
            gate.reached()
            queued = [stack.enter_context(Client(server.address)) for _ in range(10)]
            for client in queued[1:]:
                client.send(request("GET", "/queued"))
            server.order(lambda: server.loop.leave(final=True))
            gate.open()
            busy.receive()
            if own:
                for client in queued[1:]:
                    assert client.receive().closes
                    client.ended()
                assert queued[0].get("/queued-too").closes
            server.ended()
            assert server.loop.requests == (12 if own else 2)

    def test_for_good_under_load(self) -> None:
        """Each connection that is let in brings the next: the queue never becomes empty."""
        clients: list[Client] = []
        servers: list[Server] = []

        def another(connection: Connection) -> Word:
            if len(clients) < 200:
                clients.append(Client(servers[0].address))
                clients[-1].send(b"you" + request("GET", "/"))
            return Word(connection)

        with Server(echo, replace(INLINE, backlog=10), [asking(another)]) as server:
            servers.append(server)
            server.ask(lambda loop: loop._stop_accepting())
            with Client(server.address) as first:
                first.send(b"you" + request("GET", "/"))
                server.leave(final=True)
                server.ended()
                assert first.receive().closes
            assert server.loop.requests == 11
            for client in clients:
                client.socket.close()

    def test_twice_is_once(self, kept: Config) -> None:
        with Server(echo, kept) as server, Client(server.address) as client:
            client.get()
            server.leave()
            server.leave()
            server.leave(final=True)
            assert client.get().closes
            server.ended()

    def test_at_once_when_nothing_is_held(self, kept: Config) -> None:
        with Server(echo, kept) as server:
            server.leave(final=True)
            server.ended()


# --- the pause before an idle exit -------------------------------------------------------------------------


# --- siblings ----------------------------------------------------------------------------------------------


@pytest.fixture
def sibling() -> Iterator[Sibling]:
    with Sibling() as sibling:
        yield sibling


@pytest.fixture
def shared(sibling: Sibling) -> Shared:
    return functools.partial(Server, link=sibling.link)


class Taken(NamedTuple):
    """A connection as a sibling gets it."""

    socket: socket.SocketType
    passage: Passage

    def answer(self) -> None:
        """Answers what came, which is to be a whole request, and ends the connection."""
        self.socket.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        self.socket.close()


class Sibling:
    """The other worker: it takes what this one gives, and gives what this one takes."""

    def __init__(self) -> None:
        self.link = Link.create()
        self._ends = socket.socketpair()
        self._held: list[socket.SocketType] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.link.close()
        for sock in [*self._ends, *self._held]:
            sock.close()

    def taken(self) -> Taken:
        assert select.select([self.link], [], [], PATIENCE)[0], "nothing was given"
        connection = self.link.take()
        assert connection is not None, "it is a nudge"
        self._held.append(connection[0])
        return Taken(*connection)

    def nothing(self) -> None:
        """Nothing more was given."""
        with pytest.raises(BlockingIOError):
            self.link.take()

    def have_it_leave(self, loop: Loop) -> None:
        """And find no room for anybody; `taken` makes some."""
        while self.link.give(self._ends[0].fileno(), passage(b"")):
            pass
        loop.leave()


def passage(data: bytes, **more: Any) -> Passage:
    return Passage(Address("tcp", "192.0.2.1", 80), "192.0.2.2", "4711", 2, 0.0, 1000.0, data)._replace(
        **more
    )


HALF = request("GET", "/half")
HALF_HEAD = HALF[:20]
WHOLE = request("POST", "/half", body=b"x" * 1000)
HALF_BODY = WHOLE[:-100]
LARGE_BODY = request("POST", "/large", body=bytes(100_000))


class TestGiving:
    """What a sibling gets from this worker."""

    def test_whoever_waits_goes_when_it_leaves(self, kept: Config, shared: Shared, sibling: Sibling) -> None:
        with (
            shared(echo, replace(kept, keepalive_timeout=10.0)) as server,
            Client(server.address) as parked,
            Client(server.address) as fresh,
            Client(server.address) as head,
            Client(server.address) as body,
        ):
            parked.get()
            parked.get()
            server.settled()
            server.until(lambda loop: len(loop.fresh.members) == 3)
            server.advance(1)
            head.send(HALF_HEAD)
            body.send(HALF_BODY)
            server.until(lambda loop: loop.reading_heads.members and loop.reading_bodies.members)
            server.advance(1)
            server.leave()
            server.ended()
            given = {client.socket.getsockname()[1]: client for client in (parked, fresh, head, body)}
            passages = {}
            for _ in given:
                sock, what = sibling.taken()
                assert what.listener == server.doors[0].address
                passages[given[int(what.port)]] = (what.requests, what.began, what.since, what.data)
                sock.close()
            assert passages == {
                parked: (2, 0.0, 1000.0, b""),
                fresh: (0, 0.0, 1000.0, b""),
                head: (0, 1001.0, 1001.0, HALF_HEAD),
                body: (0, 1001.0, 1001.0, HALF_BODY),
            }
            assert server.announced == ["leaving"]

    def test_who_comes_to_http_when_it_leaves_goes(self, kept: Config, sibling: Sibling) -> None:
        with (
            Server(echo, kept, [asking(Word)], link=sibling.link) as server,
            Client(server.address) as client,
        ):
            server.until(lambda loop: loop.greeting.members)
            server.leave()
            sibling.nothing()
            client.send(b"::1")
            assert sibling.taken().passage.host == "::1"
            server.ended()

    def test_a_request_is_finished_and_its_connection_goes(
        self, kept: Config, shared: Shared, sibling: Sibling
    ) -> None:
        """No response says that the connection ends, for it does not."""
        gate = Gate()
        with shared(gated(gate), kept) as server, Client(server.address) as client:
            client.send(request("GET", "/wait"))
            gate.reached()
            server.order(server.loop.leave)
            gate.open()
            answer = client.receive()
            assert (answer.body, answer.closes) == (b"GET /wait\n", False)
            client.send(request("GET", "/next"))
            assert sibling.taken().passage.requests == 1
            server.ended()

    def test_a_response_that_is_read_slowly_comes_first(
        self, kept: Config, shared: Shared, sibling: Sibling
    ) -> None:
        with shared(with_large(), kept) as server, Client(server.address, 4096) as client:
            client.send(request("GET", "/large") + request("GET", "/next"))
            server.until(lambda loop: loop.sending.members)
            server.leave()
            assert len(client.receive().body) == 20 * len(PATTERN)
            assert sibling.taken().passage.data == request("GET", "/next")
            server.ended()

    @pytest.mark.parametrize("coding", ["length", "chunked"])
    def test_a_larger_body_is_read_here(
        self, kept: Config, shared: Shared, sibling: Sibling, coding: str
    ) -> None:
        content = bytes(100_000)
        sent = request("POST", "/", body=content)
        if coding == "chunked":
            sent = request("POST", "/", "Transfer-Encoding: chunked") + chunked(content)
        with shared(echo, kept) as server, Client(server.address) as client:
            client.send(sent[:-1])
            server.until(lambda loop: [c for c in loop.reading_bodies.members if c.received is None])
            server.leave()
            client.send(sent[-1:])
            assert client.receive().body == b"POST /\n" + content
            sibling.taken()
            server.ended()

    @pytest.mark.parametrize("size", [1, 7, 1000, 100_000])
    def test_a_body_in_pieces_goes_as_it_came(
        self, kept: Config, shared: Shared, sibling: Sibling, size: int
    ) -> None:
        sent = request("POST", "/", "Transfer-Encoding: chunked") + chunked(b"abc" * 100, b"def" * 100)
        with shared(echo, kept) as server, Client(server.address) as client:
            for start in range(0, len(sent) - 1, size):
                client.send(sent[start : min(start + size, len(sent) - 1)])
            server.until(lambda loop: [c for c in loop.reading_bodies.members if c.received == sent[:-1]])
            server.leave()
            assert sibling.taken().passage.data == sent[:-1]
            server.ended()

    def test_who_finds_no_room_is_served_here(self, kept: Config, shared: Shared, sibling: Sibling) -> None:
        with shared(echo, kept) as server, Client(server.address) as client:
            client.get()
            server.ask(sibling.have_it_leave)
            assert not client.get("/2").closes
            server.advance(0.01)
            assert not client.get("/3").closes
            for _ in range(2):
                sibling.taken().socket.close()
            server.settled()
            server.advance(0.01)
            server.ended()
            given = sibling.taken()
            while given.passage.host != "127.0.0.1":
                given.socket.close()
                given = sibling.taken()
            assert given.passage.requests == 3
            given.socket.close()

    @pytest.mark.parametrize("first", ["server stops", "worker leaves"])
    def test_nothing_goes_when_the_server_stops(self, kept: Config, sibling: Sibling, first: str) -> None:
        stopping: list[bool] = []
        with (
            Server(echo, kept, link=sibling.link, stopping=lambda: bool(stopping)) as server,
            Client(server.address) as client,
        ):
            client.get()
            server.settled()
            if first == "worker leaves":
                server.ask(sibling.have_it_leave)
            stopping.append(True)
            while select.select([sibling.link], [], [], 0)[0]:
                sibling.taken().socket.close()
            if first == "worker leaves":
                server.advance(0.01)
            else:
                server.leave(final=True)
            assert client.get().closes
            server.ended()
            sibling.nothing()


class TestStoring:
    """What goes onto the shelf when the server stops, and may start again."""

    @pytest.fixture
    def shelf(self) -> Iterator[Sibling]:
        with Sibling() as shelf:
            yield shelf

    @pytest.fixture
    def stopping(self) -> list[bool]:
        """Not empty: the server stops."""
        return []

    @pytest.fixture
    def storing(self, sibling: Sibling, shelf: Sibling, stopping: list[bool]) -> Shared:
        stops = functools.partial(bool, stopping)
        return functools.partial(Server, link=sibling.link, stopping=stops, shelf=shelf.link, storing=stops)

    @pytest.fixture
    def stop(self, stopping: list[bool]) -> Callable[[Loop], None]:
        def stop(loop: Loop) -> None:
            stopping.append(True)
            loop.leave(final=True)

        return stop

    def test_who_has_sent_nothing(
        self, kept: Config, storing: Shared, sibling: Sibling, shelf: Sibling, stop: Callable[[Loop], None]
    ) -> None:
        with (
            storing(echo, kept) as server,
            Client(server.address) as parked,
            Client(server.address) as fresh,
        ):
            parked.get()
            server.settled()
            server.until(lambda loop: loop.fresh.members)
            server.ask(stop)
            server.ended()
            given = {shelf.taken().passage for _ in range(2)}
            assert {(int(each.port), each.requests, each.data) for each in given} == {
                (parked.socket.getsockname()[1], 1, b""),
                (fresh.socket.getsockname()[1], 0, b""),
            }
            sibling.nothing()

    def test_a_request_that_comes_is_left_in_its_socket(
        self, kept: Config, storing: Shared, shelf: Sibling, stop: Callable[[Loop], None]
    ) -> None:
        with storing(echo, kept) as server, Client(server.address) as client:
            client.get()
            server.settled()

            def come(loop: Loop) -> None:
                client.send(request("GET", "/late"))
                stop(loop)

            server.ask(come)
            server.ended()
            given = shelf.taken()
            assert given.passage.data == b""
            assert given.socket.recv(100) == request("GET", "/late")

    @pytest.mark.parametrize(
        "begun", [HALF_HEAD, HALF_BODY, LARGE_BODY[:-9]], ids=["head", "body", "large body"]
    )
    def test_what_was_begun_is_answered_first(
        self,
        kept: Config,
        storing: Shared,
        shelf: Sibling,
        stop: Callable[[Loop], None],
        begun: bytes,
    ) -> None:
        whole = next(each for each in (HALF, WHOLE, LARGE_BODY) if each.startswith(begun))
        with storing(echo, kept) as server, Client(server.address) as client:
            client.get()
            client.send(begun)
            server.until(lambda loop: loop.reading_heads.members or loop.reading_bodies.members)
            server.ask(stop)
            shelf.nothing()
            client.send(whole[len(begun) :])
            answer = client.receive()
            assert (answer.status, answer.closes) == (200, False)
            server.ended()
            assert shelf.taken().passage.requests == 2

    def test_two_requests_at_once(
        self, kept: Config, storing: Shared, shelf: Sibling, stop: Callable[[Loop], None]
    ) -> None:
        """Both have been read."""
        gate = Gate()
        with storing(gated(gate), kept) as server, Client(server.address) as client:
            client.send(request("GET", "/wait") + request("GET", "/2"))
            gate.reached()
            server.order(lambda: stop(server.loop))
            gate.open()
            assert [client.receive().body for _ in range(2)] == [b"GET /wait\n", b"GET /2\n"]
            server.ended()
            assert shelf.taken().passage.requests == 2

    def test_a_worker_that_leaves_already(
        self, kept: Config, storing: Shared, sibling: Sibling, shelf: Sibling, stopping: list[bool]
    ) -> None:
        """It learns of the stop by the scoreboard; what is on its way to a sibling is served here."""
        with storing(echo, kept) as server, Client(server.address) as client:
            client.get()
            server.settled()
            server.ask(sibling.have_it_leave)
            stopping.append(True)
            while select.select([sibling.link], [], [], 0)[0]:
                sibling.taken().socket.close()
            server.advance(0.01)
            server.ended()
            assert shelf.taken().passage.requests == 1
            sibling.nothing()

    def test_who_finds_no_room_is_served_here(
        self, kept: Config, storing: Shared, shelf: Sibling, stop: Callable[[Loop], None]
    ) -> None:
        with storing(echo, kept) as server, Client(server.address) as client:
            client.get()
            while shelf.link.give(client.socket.fileno(), passage(b"")):
                pass
            server.ask(stop)
            assert not client.get("/2").closes
            shelf.taken().socket.close()
            server.settled()
            server.advance(0.01)
            server.ended()

    def test_while_the_application_works(
        self, storing: Shared, sibling: Sibling, shelf: Sibling, stopping: list[bool]
    ) -> None:
        """The guard does it, before the worker has heard of the stop."""
        gate = Gate()
        with (
            storing(gated(gate), INLINE) as server,
            Client(server.address) as busy,
            Client(server.address) as waiting,
        ):
            waiting.get()
            busy.send(request("GET", "/wait"))
            gate.reached()
            stopping.append(True)
            server.loop.relieve(0.02)
            shelf.nothing()
            server.loop.relieve(1.0)
            assert shelf.taken().passage.port == str(waiting.socket.getsockname()[1])
            gate.open()
            assert busy.receive().status == 200
            sibling.nothing()

    def test_without_a_supervisor(
        self, kept: Config, storing: Shared, shelf: Sibling, stopping: list[bool]
    ) -> None:
        """Nobody would take anything from the shelf: it is a stop as any other."""
        with storing(echo, kept) as server, Client(server.address) as client:
            client.get()
            server.settled()
            stopping.append(True)
            server.ask(lambda loop: loop.abandon())
            assert client.get().closes
            server.ended()
            shelf.nothing()


class TestTaking:
    """What this worker gets from a sibling."""

    @pytest.fixture
    def guest(self) -> Iterator[tuple[Client, socket.socket]]:
        """A client and its connection, of which some sibling knew."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = Client(listener.getsockname())
            sock = listener.accept()[0]
        with client, sock:
            yield client, sock

    @pytest.mark.parametrize("here", [0, 3, 10, None], ids=lambda here: f"{here} bytes here")
    def test_a_request_goes_on(
        self,
        kept: Config,
        shared: Shared,
        sibling: Sibling,
        guest: tuple[Client, socket.socket],
        here: int | None,
    ) -> None:
        """Some of it came to the sibling, some waits in the socket, some is still to come."""
        client, sock = guest
        whole = request("POST", "/a", body=b"content")
        with shared(echo, kept) as server:
            client.send(whole[:20][here:] if here is not None else b"")
            sibling.link.give(sock.fileno(), passage(whole[:20][:here], began=999.0))
            sock.close()
            client.send(whole[20:])
            assert client.receive().body == b"POST /a\ncontent"
            assert client.get("/b").status == 200
            server.settled()
            assert server.records[0].when == EPOCH + 999.0

    @pytest.mark.parametrize("known", [False, True], ids=["unknown listener", "known listener"])
    def test_the_environ(
        self, kept: Config, shared: Shared, sibling: Sibling, guest: tuple[Client, socket.socket], known: bool
    ) -> None:
        """A listener that this generation is without still says what SERVER_NAME is."""
        seen: list[Environ] = []

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            seen.append(environ)
            return echo(environ, start_response)

        client, sock = guest
        with shared(app, kept) as server:
            where = server.doors[0].address if known else Address("tcp", "192.0.2.1", 8000)
            sibling.link.give(sock.fileno(), passage(request("GET", "/"), listener=where))
            assert client.receive().status == 200
        told = [seen[0][key] for key in ("SERVER_NAME", "SERVER_PORT", "REMOTE_ADDR", "REMOTE_PORT")]
        assert told == [where.host, str(where.port), "192.0.2.2", "4711"]
        assert seen[0]["wsgi.url_scheme"] == "http"

    def test_its_requests_count(
        self, kept: Config, shared: Shared, sibling: Sibling, guest: tuple[Client, socket.socket]
    ) -> None:
        client, sock = guest
        with shared(echo, replace(kept, max_keepalive_reqs=4)):
            sibling.link.give(sock.fileno(), passage(b"", requests=2))
            assert not client.get("/3").closes
            assert client.get("/4").closes

    def test_who_is_answered_waits_anew(
        self, kept: Config, shared: Shared, sibling: Sibling, guest: tuple[Client, socket.socket]
    ) -> None:
        """However long it had waited for this request, before it came here."""
        client, sock = guest
        with shared(echo, kept) as server:
            sibling.link.give(sock.fileno(), passage(request("GET", "/late"), since=1.0))
            assert not client.receive().closes
            server.settled()
            assert client.get().status == 200

    @pytest.mark.parametrize("came", ["nothing", "half a head"])
    def test_no_limit_begins_anew(
        self, kept: Config, shared: Shared, sibling: Sibling, guest: tuple[Client, socket.socket], came: str
    ) -> None:
        client, sock = guest
        config = replace(kept, keepalive_timeout=10.0, header_timeout=10.0)
        with shared(echo, config):
            if came == "nothing":
                sibling.link.give(sock.fileno(), passage(b"", since=990.0))
            else:
                sibling.link.give(sock.fileno(), passage(HALF_HEAD, began=990.0, since=1000.0))
            sock.close()
            if came == "half a head":
                assert client.receive().status == 408
            client.ended()

    def test_what_came_in_time_is_served(
        self, kept: Config, shared: Shared, sibling: Sibling, guest: tuple[Client, socket.socket]
    ) -> None:
        client, sock = guest
        with shared(echo, kept):
            client.send(request("GET", "/"))
            sibling.link.give(sock.fileno(), passage(b"", since=1.0))
            assert client.receive().status == 200

    def test_a_client_that_has_gone(
        self, kept: Config, shared: Shared, sibling: Sibling, guest: tuple[Client, socket.socket]
    ) -> None:
        client, sock = guest
        client.reset()
        with shared(echo, kept) as server:
            sibling.link.give(sock.fileno(), passage(b""))
            sock.close()
            server.until(lambda loop: not select.select([sibling.link], [], [], 0)[0])
            with Client(server.address) as other:
                assert other.get().status == 200
                assert len(server.loop.connections) == 1

    def test_what_is_no_connection(self, kept: Config, shared: Shared, sibling: Sibling) -> None:
        with shared(echo, kept) as server, Client(server.address) as client, open(os.devnull) as file:
            sibling.link.give(file.fileno(), passage(b""))
            sibling.link._writer.send(b"hello")
            sibling.link.nudge()
            server.until(lambda loop: not select.select([sibling.link], [], [], 0)[0])
            assert client.get().status == 200
            assert len(server.loop.connections) == 1

    def test_it_leaves_with_nothing_untaken(
        self, kept: Config, shared: Shared, sibling: Sibling, guest: tuple[Client, socket.socket]
    ) -> None:
        """Nobody follows who could: at the end of the server the last worker takes what is in between."""
        client, sock = guest
        with shared(echo, kept) as server:
            server.ask(lambda loop: loop.pause())
            sibling.link.give(sock.fileno(), passage(request("GET", "/")))
            sock.close()
            server.leave(final=True)
            assert client.receive().closes
            server.ended()

    def test_a_pause_counts_it(
        self, kept: Config, shared: Shared, sibling: Sibling, guest: tuple[Client, socket.socket]
    ) -> None:
        _, sock = guest
        with shared(echo, kept) as server:
            sibling.link.give(sock.fileno(), passage(b""))
            server.ask(lambda loop: loop.pause())
            assert len(server.loop.connections) == 1

    def test_nobody_leaves_it_in_a_pause(
        self, kept: Config, shared: Shared, sibling: Sibling, guest: tuple[Client, socket.socket]
    ) -> None:
        client, sock = guest
        with shared(echo, kept) as server:
            server.ask(lambda loop: loop.pause())
            sibling.link.give(sock.fileno(), passage(request("GET", "/")))
            assert server.ask(lambda loop: len(loop.connections)) == 0
            server.ask(lambda loop: loop.resume())
            assert client.receive().status == 200


def bound(connection: Connection) -> Word:
    """A greeting that ties the connection to its worker, as TLS does."""
    connection.movable = False
    return Word(connection)


class TestBound:
    """Connections that cannot move: those of TLS."""

    def test_they_end_with_their_next_response(self, kept: Config, sibling: Sibling) -> None:
        """Nobody gets them, and nobody is cut off: only what is idle for too long ends without a response."""
        kept = replace(kept, keepalive_timeout=10.0)
        with (
            Server(echo, kept, [asking(bound)], link=sibling.link) as server,
            Client(server.address) as parked,
            Client(server.address) as fresh,
            Client(server.address) as head,
            Client(server.address) as idle,
        ):
            for client in (parked, idle):
                client.send(b"one")
                assert not client.get().closes
            fresh.send(b"one")
            head.send(b"one" + HALF_HEAD)
            server.settled()
            server.until(lambda loop: loop.fresh.members and loop.reading_heads.members)
            server.leave()
            sibling.nothing()
            server.advance(9)
            assert parked.get().closes
            parked.ended()
            head.send(HALF[20:])
            assert head.receive().closes
            fresh.send(request("GET", "/a"))
            assert fresh.receive().closes
            server.until(lambda loop: len(loop.connections) == 1)
            server.advance(1)
            idle.ended()
            server.ended()
            sibling.nothing()

    def test_others_go_as_ever(self, kept: Config, sibling: Sibling) -> None:
        with (
            Server(echo, kept, [tcp_door(), asking(bound)], link=sibling.link) as server,
            Client(server.address) as free,
            Client(server.doors[1].socket.getsockname()) as tied,
        ):
            tied.send(b"one")
            tied.get()
            free.get()
            server.settled()
            server.leave()
            assert sibling.taken().passage.requests == 1
            server.until(lambda loop: len(loop.connections) == 1)
            assert tied.get().closes

    def test_the_guard_leaves_them_alone(self, sibling: Sibling) -> None:
        gate = Gate()
        with (
            Server(gated(gate), INLINE, [tcp_door(), asking(bound)], link=sibling.link) as server,
            Client(server.address) as busy,
            Client(server.doors[1].socket.getsockname()) as tied,
        ):
            tied.send(b"one")
            tied.get()
            busy.send(request("GET", "/wait"))
            gate.reached()
            tied.send(request("GET", "/a"))
            server.loop.relieve(0.02)
            server.loop.relieve(1.0)
            sibling.nothing()
            gate.open()
            assert busy.receive().status == 200
            assert tied.receive().body == b"GET /a\n"

    def test_they_wait_for_a_thread_of_their_own_worker(self, sibling: Sibling) -> None:
        gate = Gate()
        with (
            Server(
                gated(gate), replace(THREADS, threads=2), [tcp_door(), asking(bound)], link=sibling.link
            ) as server,
            Client(server.doors[1].socket.getsockname()) as tied,
            Client(server.address) as one,
            Client(server.address) as two,
        ):
            tied.send(b"one")
            tied.get()
            for client in (one, two):
                client.send(request("GET", "/wait"))
            gate.reached(2)
            tied.send(request("GET", "/a"))
            server.until(lambda loop: loop.queued)
            server.advance(1)
            sibling.nothing()
            gate.open()
            assert tied.receive().body == b"GET /a\n"
            assert {one.receive().status, two.receive().status} == {200}

    def test_nothing_of_them_is_stored(self, kept: Config, sibling: Sibling) -> None:
        """They have the time that idle connections have when nothing is: the others are stored at once."""
        kept = replace(kept, keepalive_timeout=10.0)
        with (
            Sibling() as shelf,
            Server(
                echo,
                kept,
                [tcp_door(), asking(bound)],
                link=sibling.link,
                shelf=shelf.link,
                stopping=lambda: True,
                storing=lambda: True,
            ) as server,
            Client(server.address) as free,
            Client(server.doors[1].socket.getsockname()) as tied,
            Client(server.doors[1].socket.getsockname()) as idle,
        ):
            for client in (tied, idle):
                client.send(b"one")
                client.get()
            free.get()
            server.settled()
            server.leave(final=True)
            assert shelf.taken().passage.requests == 1
            shelf.nothing()
            assert tied.get().closes
            server.advance(2)
            idle.ended()
            server.ended()


class TestRelief:
    """While the application has the loop for long: the guard's work, done here by the test's own thread."""

    def held(self, server: Server, client: Client, gate: Gate) -> None:
        client.send(request("GET", "/wait"))
        gate.reached()

    def test_who_asks_goes_and_who_waits_stays(self, shared: Shared, sibling: Sibling) -> None:
        gate = Gate()
        with (
            shared(gated(gate), INLINE) as server,
            Client(server.address) as busy,
            Client(server.address) as asking,
            Client(server.address) as waiting,
        ):
            waiting.get()
            asking.get()
            self.held(server, busy, gate)
            asking.send(request("GET", "/a"))
            busy.send(request("GET", "/more"))
            server.loop.relieve(0.02)
            given = sibling.taken()
            assert given.passage.port == str(asking.socket.getsockname()[1])
            given.answer()
            assert asking.receive().status == 204
            sibling.nothing()
            gate.open()
            assert busy.receive().body == b"GET /wait\n"
            assert busy.receive().body == b"GET /more\n"
            assert waiting.get().status == 200

    def test_nobody_goes_while_all_are_as_busy(self, shared: Shared, sibling: Sibling) -> None:
        """Nobody has taken what was given before."""
        gate = Gate()
        with (
            shared(gated(gate), INLINE) as server,
            Client(server.address) as busy,
            Client(server.address) as first,
            Client(server.address) as second,
        ):
            first.get()
            second.get()
            self.held(server, busy, gate)
            first.send(request("GET", "/a"))
            server.loop.relieve(0.02)
            second.send(request("GET", "/b"))
            server.loop.relieve(0.03)
            assert sibling.taken().passage.port == str(first.socket.getsockname()[1])
            assert sibling.link.take() is None  # for what waits in the link
            sibling.nothing()
            server.loop.relieve(0.04)
            assert sibling.taken().passage.port == str(second.socket.getsockname()[1])
            gate.open()
            assert busy.receive().status == 200

    def test_after_a_while_all_go(self, shared: Shared, sibling: Sibling) -> None:
        """A worker that is killed for its long request takes nobody with it."""
        gate = Gate()
        with (
            shared(gated(gate), INLINE) as server,
            Client(server.address) as busy,
            Client(server.address) as waiting,
        ):
            waiting.get()
            self.held(server, busy, gate)
            server.loop.relieve(1.0)
            assert sibling.taken().passage.requests == 1
            gate.open()
            assert busy.receive().status == 200

    def test_requests_that_follow_each_other_go_too(self, shared: Shared, sibling: Sibling) -> None:
        """The next of them is here already, and the kernel says nothing about it."""
        bell, gate = Gate(), Gate()
        with (
            shared(gated(gate), INLINE) as server,
            Client(server.address) as eager,
            Client(server.address) as busy,
        ):
            eager.get()
            server.until(lambda loop: len(loop.connections) == 2)
            server.order(bell.wait)
            bell.reached()
            eager.send(request("GET", "/1") + request("GET", "/2"))
            ours = [connection.socket for connection in server.loop.connections.values()]
            assert select.select(ours, [], [], PATIENCE)[0]  # its turn comes first
            busy.send(request("GET", "/wait"))
            bell.open()
            gate.reached()
            assert eager.receive().body == b"GET /1\n"
            server.loop.relieve(0.02)
            assert sibling.taken().passage.data == request("GET", "/2")
            gate.open()
            assert busy.receive().status == 200

    def test_who_has_not_come_to_http_stays(self, sibling: Sibling) -> None:
        gate = Gate()
        with (
            Server(gated(gate), INLINE, [tcp_door(), asking(Word)], link=sibling.link) as server,
            Client(server.doors[1].socket.getsockname()) as greeting,
            Client(server.address) as busy,
        ):
            server.until(lambda loop: loop.greeting.members)
            self.held(server, busy, gate)
            greeting.send(b"one" + request("GET", "/a"))
            server.loop.relieve(1.0)
            sibling.nothing()
            gate.open()
            assert busy.receive().status == 200
            assert greeting.receive().body == b"GET /a\n"

    def test_a_slow_reader_goes_on_reading(self, shared: Shared) -> None:
        gate = Gate()
        with (
            shared(with_large(gated(gate)), INLINE) as server,
            Client(server.address) as busy,
            Client(server.address, 4096) as slow,
        ):
            slow.send(request("GET", "/large"))
            server.until(lambda loop: loop.sending.members)
            self.held(server, busy, gate)
            received = 0
            while received < 20 * len(PATTERN):
                received += len(slow.socket.recv(1 << 20))
                server.loop.relieve(0.02)
            gate.open()
            assert busy.receive().status == 200

    def test_somebody_is_sent_to_the_listener(self, shared: Shared, sibling: Sibling) -> None:
        """This worker may have been the one that was woken for it; once is enough."""
        gate = Gate()
        with shared(gated(gate), INLINE) as server, Client(server.address) as busy:
            self.held(server, busy, gate)
            with Client(server.address) as new:
                new.send(request("GET", "/new"))
                server.loop.relieve(0.02)
                server.loop.relieve(0.03)
                assert sibling.link.take() is None
                sibling.nothing()
                gate.open()
                assert busy.receive().status == 200
                assert new.receive().status == 200

    def test_a_nudged_worker_looks(self, shared: Shared, sibling: Sibling) -> None:
        with shared(echo, INLINE) as server:
            [descriptor] = server.loop.doors
            server.ask(lambda loop: loop.epoll.unregister(descriptor))
            with Client(server.address) as client:
                client.send(request("GET", "/"))
                server.order(lambda: server.loop.epoll.register(descriptor, 0))
                sibling.link.nudge()
                assert client.receive().status == 200

    def test_nothing_goes_when_the_server_stops(self, sibling: Sibling) -> None:
        gate = Gate()
        with (
            Server(gated(gate), INLINE, link=sibling.link, stopping=lambda: True) as server,
            Client(server.address) as busy,
            Client(server.address) as asking,
        ):
            asking.get()
            self.held(server, busy, gate)
            asking.send(request("GET", "/a"))
            server.loop.relieve(5.0)
            gate.open()
            assert asking.receive().body == b"GET /a\n"


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
            first.send(request("GET", "/wait"))
            second.send(request("GET", "/wait"))
            gate.reached(2)
            third.send(request("GET", "/a"))
            server.until(lambda loop: loop.queued)
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
            server.until(lambda loop: not begun or loop.reading_bodies.members)
            first.send(request("GET", "/wait"))
            second.send(request("GET", "/wait"))
            gate.reached(2)
            third.send(whole[begun:])
            server.until(lambda loop: loop.queued)
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
            server.ask(lambda loop: loop.look())
            assert sibling.link.take() is None
            gate.open()
            assert first.receive().status == second.receive().status == 200


class TestPausing:
    def test_what_comes_meanwhile_waits(self, kept: Config) -> None:
        """And is served when it goes on, though nothing announces it a second time."""
        with Server(echo, kept) as server, Client(server.address) as here:
            here.get()
            server.ask(Loop.pause)
            with Client(server.address) as new:
                new.send(request("GET", "/new"))
                server.ask(Loop.look)
                for _ in range(3):
                    assert here.get("/here").body == b"GET /here\n"
                assert len(server.loop.connections) == 1
                server.ask(Loop.resume)
                assert new.receive().body == b"GET /new\n"

    def test_in_the_round_in_which_it_comes(self, kept: Config) -> None:
        """The order is read first, the connection is reported in the same breath: it is not accepted."""
        with Server(echo, kept) as server:
            clients: list[Client] = []

            def pause_and_connect(loop: Loop) -> None:
                clients.append(Client(server.address))
                poll = select.poll()
                poll.register(server.doors[0].socket, select.POLLIN)
                assert poll.poll(PATIENCE * 1000)
                loop.pause()

            server.ask(pause_and_connect)
            server.ask(bool)
            assert not server.loop.connections
            server.ask(Loop.resume)
            assert clients[0].get().status == 200
            clients[0].socket.close()

    @pytest.mark.parametrize("order", [Loop.pause, Loop.resume], ids=["pause", "resume"])
    def test_twice_is_once(self, kept: Config, order: Callable[[Loop], None]) -> None:
        with Server(echo, kept) as server:
            server.ask(order)
            server.ask(order)
            server.ask(Loop.resume)
            with Client(server.address) as client:
                assert client.get().status == 200

    def test_a_thread_that_becomes_free_does_not_end_it(self) -> None:
        gate = Gate()
        with Server(gated(gate), replace(THREADS, threads=2)) as server, Client(server.address) as first:
            with Client(server.address) as second:
                for client in (first, second):
                    client.send(request("GET", "/wait"))
                gate.reached(2)
                server.ask(Loop.pause)
                gate.open()
                assert first.receive().status == second.receive().status == 200
                server.settled()
            assert not server.ask(lambda loop: loop.accepting)
            server.ask(Loop.resume)
            assert server.ask(lambda loop: loop.accepting)

    def test_a_worker_that_leaves_never_goes_on(self, kept: Config) -> None:
        with Server(echo, kept) as server, Client(server.address) as client:
            client.get()
            server.ask(Loop.pause)
            server.leave()
            server.ask(Loop.resume)
            assert not server.ask(lambda loop: loop.accepting)

    def test_since_when_nobody_is_connected(self, kept: Config) -> None:
        with Server(echo, kept) as server:
            began = server.clock.now
            assert server.ask(lambda loop: loop.empty_since) == began
            with Client(server.address) as first, Client(server.address) as second:
                for client in (first, second):
                    assert client.get().status == 200
                server.settled()
                server.advance(1.0)
                first.socket.close()
                server.until(lambda loop: len(loop.connections) == 1)
                server.advance(0.5)
            server.until(lambda loop: not loop.connections)
            assert server.loop.empty_since == began + 1.5


# --- application threads -----------------------------------------------------------------------------------


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
            server.until(lambda loop: loop.queued)
            new = stack.enter_context(Client(server.address))
            new.send(request("GET", "/new"))
            assert server.ask(lambda loop: (loop.accepting, len(loop.connections))) == (False, 5)
            gate.open()
            assert [client.receive().body for client in clients] == [b"GET /wait\n"] * 5
            assert new.receive().body == b"GET /new\n"
            server.until(lambda loop: loop.accepting)

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
            assert server.ask(lambda loop: loop.requests) == 320

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
            server.until(lambda loop: loop.queued)
            server.leave()
            gate.open()
            answers = [client.receive() for client in clients]
            assert [answer.status for answer in answers] == [200] * 5
            assert [answer.closes for answer in answers].count(True) == 1
            server.settled()
            server.advance(2)
            server.ended()


# --- when the machine has no more --------------------------------------------------------------------------


class Short(socket.socket):
    """A listener that cannot accept as often as `faults` has entries."""

    faults: list[int]

    def _accept(self) -> Any:
        if self.faults:
            fault = self.faults.pop()
            raise OSError(fault, os.strerror(fault))
        return super()._accept()  # type: ignore[misc]


class TestShortage:
    @pytest.mark.parametrize("fault", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
    def test_s10_accepting_pauses_and_goes_on(self, kept: Config, fault: int) -> None:
        """And one of the idle connections has to give way."""
        listener = Short()
        listener.faults = []
        with (
            Server(echo, kept, [tcp_door(sock=listener)]) as server,
            Client(server.address) as idle,
            Client(server.address) as new,
        ):
            idle.get()
            new.send(b"GET /new HTTP/1.1\r\n")
            server.until(lambda loop: loop.parked.members and loop.reading_heads.members)
            listener.faults += [fault] * 2
            with Client(server.address) as late:
                late.send(request("GET", "/late"))
                server.until(lambda loop: not loop.accepting)
                idle.ended()
                new.send(b"Host: test\r\n\r\n")
                assert new.receive().body == b"GET /new\n"
                assert server.ask(lambda loop: loop.accepting) is False
                server.advance(0.1)
                assert late.receive().body == b"GET /late\n"
            assert f"takes no connections for 0.1 s: {os.strerror(fault)}" in server.said

    @pytest.mark.parametrize("fault", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
    def test_s10_while_somebody_is_idle_nobody_waits(self, kept: Config, fault: int) -> None:
        """Each time there is no room, the one that has been idle longest makes some."""
        listener = Short()
        listener.faults = []
        with (
            Server(echo, kept, [tcp_door(sock=listener)]) as server,
            Client(server.address) as first,
            Client(server.address) as second,
            Client(server.address) as third,
        ):
            for client in (second, first, third):
                client.get()
                server.settled()
                server.advance(0.1)
            listener.faults += [fault] * 2
            with Client(server.address) as late:
                assert late.get("/late").body == b"GET /late\n"
                second.ended()
                first.ended()
                assert third.get("/third").body == b"GET /third\n"
            assert server.said == ""

    def test_s10_one_line_a_second(self, kept: Config) -> None:
        """And a pause for each look, however long it lasts: no busy loop."""
        listener = Short()
        listener.faults = [errno.EMFILE] * 25
        with Server(echo, kept, [tcp_door(sock=listener)]) as server, Client(server.address) as client:
            client.send(request("GET", "/"))
            for left in range(24, -1, -1):
                server.until(lambda loop: not loop.accepting)
                assert len(listener.faults) == left
                server.advance(0.1)
            assert client.receive().status == 200
            server.advance(1)
            lines = server.said.splitlines()
            assert len(lines) == 4
            assert "(9 like this within a second)" in lines[1]

    def test_s10_p7_no_descriptor_for_a_body(self, kept: Config, monkeypatch: pytest.MonkeyPatch) -> None:
        """Who is idle goes first. If nobody is, this request is refused, and the next one is not."""
        faults: list[int] = []
        make = tempfile.TemporaryFile

        def short(**more: Any) -> Any:
            if faults:
                raise OSError(faults.pop(), "Too many open files")
            return make(**more)

        monkeypatch.setattr(tempfile, "TemporaryFile", short)
        large = request("POST", "/", body=PATTERN)
        with (
            Server(echo, kept) as server,
            Client(server.address) as idle,
            Client(server.address) as client,
        ):
            idle.get()
            server.until(lambda loop: loop.parked.members)
            faults.append(errno.EMFILE)
            client.send(large)
            assert client.receive().body == b"POST /\n" + PATTERN
            idle.ended()
            faults.append(errno.EMFILE)
            client.send(large)
            assert client.receive().status == 503
            assert "cannot keep a request's body" in server.said
            with Client(server.address) as other:
                other.send(large)
                assert other.receive().body == b"POST /\n" + PATTERN

    def test_s10_a_connection_that_failed_before_it_was_accepted(self, kept: Config) -> None:
        """accept(2): "already-pending network errors on the new socket", to be treated like EAGAIN."""
        listener = Short()
        listener.faults = [errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN]
        with Server(echo, kept, [tcp_door(sock=listener)]) as server, Client(server.address) as client:
            assert client.get().status == 200


# --- what is told about it ---------------------------------------------------------------------------------


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


class TestScoreboard:
    def test_busy_and_idle(self, kept: Config) -> None:
        gate = Gate()
        with (
            Server(gated(gate), replace(kept, request_timeout=60)) as server,
            Client(server.address) as client,
        ):
            server.settled()
            assert server.entry[2:8] == (IDLE, 0, 0, 0, 1000.0, 0.0)
            server.advance(5)
            client.send(request("GET", "/wait?a"))
            gate.reached()
            entry = server.entry
            assert (entry.state, entry.running, entry.since, entry.deadline) == (BUSY, 1, 1005.0, 1065.0)
            assert entry.text == "127.0.0.1 GET /wait?a HTTP/1.1"
            server.clock.now += 5
            gate.open()
            client.receive()
            server.settled()
            entry = server.entry
            assert (entry.state, entry.requests, entry.connections, entry.running) == (IDLE, 1, 1, 0)
            assert (entry.since, entry.deadline) == (1010.0, 0.0)

    def test_without_a_limit_there_is_no_deadline(self, kept: Config) -> None:
        gate = Gate()
        with Server(gated(gate), kept) as server, Client(server.address) as client:
            client.send(request("GET", "/wait"))
            gate.reached()
            assert server.entry.deadline == 0.0
            gate.open()
            client.receive()

    def test_the_oldest_stands_for_all(self) -> None:
        gates = {"/1": Gate(), "/2": Gate(), "/3": Gate()}

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            gates[environ["PATH_INFO"]].wait()
            return echo(environ, start_response)

        with Server(app, replace(THREADS, request_timeout=60)) as server, contextlib.ExitStack() as stack:
            clients = []
            for target, gate in gates.items():
                clients.append(stack.enter_context(Client(server.address)))
                clients[-1].send(request("GET", target))
                gate.reached()
                server.advance(1)
            for count, target, began in ((3, "/1", 1000.0), (2, "/2", 1001.0), (1, "/3", 1002.0)):
                entry = server.entry
                assert (entry.state, entry.running, entry.since, entry.deadline) == (
                    BUSY,
                    count,
                    began,
                    began + 60,
                )
                assert entry.text == f"127.0.0.1 GET {target} HTTP/1.1"
                gates[target].open()
                clients.pop(0).receive()
                server.settled(running=count - 1)
            assert server.entry.state == IDLE


# --- proxies -----------------------------------------------------------------------------------------------


def trusting(config: Config) -> Config:
    return replace(
        config,
        trusted_proxies=("127.0.0.1", "unix:", "192.0.2.2"),
        forwarded_headers=("x-forwarded-for", "x-forwarded-proto", "x-forwarded-prefix"),
    )


LIES = (
    "X-Forwarded-For: 6.6.6.6",
    "X-Forwarded-Proto: https",
    "X-Real-IP: 6.6.6.6",
    "Forwarded: for=6.6.6.6",
)


def seen(names: Iterable[str]) -> App:
    """Answers what these variables are."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps({name: environ[name] for name in names if name in environ}).encode()]

    return app


def introduced(door: Door, *trusted: str) -> Door:
    return door._replace(greetings=[introduction.greeting(Peers(trusted))])


LINE = b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 80\r\n"
WHO = ("REMOTE_ADDR", "REMOTE_PORT", "wsgi.url_scheme", "HTTPS", "SCRIPT_NAME", "PATH_INFO")
CLAIMED = ("HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_X_REAL_IP", "HTTP_FORWARDED")


class TestForwarded:
    """What a proxy says of its clients, if it is trusted."""

    def test_l14_of_a_stranger_nothing(self, kept: Config) -> None:
        with Server(seen([*WHO, *CLAIMED]), kept) as server, Client(server.address) as client:
            for _ in range(2):
                assert json.loads(client.get("/a", *LIES).body) == {
                    "REMOTE_ADDR": "127.0.0.1",
                    "REMOTE_PORT": str(client.socket.getsockname()[1]),
                    "wsgi.url_scheme": "http",
                    "SCRIPT_NAME": "",
                    "PATH_INFO": "/a",
                }
            server.settled()
            assert {record.peer for record in server.records} == {"127.0.0.1"}
            assert server.said.count("was removed") == 1
            told = "X-Forwarded-For of 127.0.0.1 was removed: 127.0.0.1 is not in trusted-proxies"
            assert told in server.said

    def test_nobody_is_told_of_what_is_believed(self, kept: Config) -> None:
        with Server(echo, trusting(kept)) as server, Client(server.address) as proxy:
            assert proxy.get("/", *LIES[:2]).status == 200
            server.settled()
            assert server.said == ""

    @pytest.mark.parametrize("kind", ["tcp", "unix"])
    def test_l14_of_a_proxy_what_it_added(self, kept: Config, kind: str, tmp_path: Path) -> None:
        door = tcp_door() if kind == "tcp" else unix_door(str(tmp_path / "socket"))
        with (
            Server(seen([*WHO, *CLAIMED]), trusting(kept), [door]) as server,
            Client(server.address) as proxy,
        ):
            for number in (1, 2):
                client = f"203.0.113.{number}"
                lines = [
                    f"X-Forwarded-For: 6.6.6.6, {client}, 127.0.0.1",
                    *LIES[1:],
                    "X-Forwarded-Prefix: /a",
                ]
                assert json.loads(proxy.get("/a/b", *lines).body) == {
                    "REMOTE_ADDR": client,
                    "REMOTE_PORT": "",
                    "wsgi.url_scheme": "https",
                    "HTTPS": "on",
                    "SCRIPT_NAME": "/a",
                    "PATH_INFO": "/b",
                    "HTTP_X_FORWARDED_FOR": f"{client}, 127.0.0.1",
                    "HTTP_X_FORWARDED_PROTO": "https",
                }
            own = json.loads(proxy.get("/c").body)
            assert (own["REMOTE_ADDR"], own["wsgi.url_scheme"]) == (
                "127.0.0.1" if kind == "tcp" else "",
                "http",
            )
            server.settled()
            peers = [record.peer for record in server.records]
            assert peers == ["203.0.113.1", "203.0.113.2", own["REMOTE_ADDR"]]

    def test_s6_a_proxy_has_the_connections_of_all_its_clients(self, kept: Config) -> None:
        config = replace(trusting(kept), max_connections_per_peer=1)
        with Server(echo, config) as server, Client(server.address) as one, Client(server.address) as other:
            assert one.get("/a").status == 200
            assert other.get("/b").status == 200

    def test_l14_what_nobody_understands(self, kept: Config) -> None:
        with Server(echo, trusting(kept)) as server, Client(server.address) as proxy:
            answer = proxy.get("/", "X-Forwarded-For: 203.0.113.9, somebody")
            assert (answer.status, answer.closes) == (400, True)
            proxy.ended()
            server.settled()
            assert [record.peer for record in server.records] == ["127.0.0.1"]
            assert "somebody" in server.records[0].note

    def test_the_label_names_the_client(self, kept: Config) -> None:
        gate = Gate()
        with Server(gated(gate), trusting(kept)) as server, Client(server.address) as proxy:
            proxy.send(request("GET", "/wait", "X-Forwarded-For: 203.0.113.9"))
            gate.reached()
            assert server.entry.text == "203.0.113.9 GET /wait HTTP/1.1"
            gate.open()
            assert proxy.receive().status == 200

    @pytest.mark.parametrize(
        ("host", "client"),
        [("192.0.2.2", "203.0.113.9"), ("192.0.2.3", "192.0.2.3")],
        ids=["proxy", "stranger"],
    )
    def test_l14_of_who_came_by_a_sibling(
        self, kept: Config, shared: Shared, sibling: Sibling, host: str, client: str
    ) -> None:
        """Trust is in the peer that the message names: the same here as there."""
        ours, theirs = socket.socketpair()
        with shared(seen(WHO), trusting(kept)) as server, ours, theirs:
            theirs.settimeout(PATIENCE)
            data = request("GET", "/", "X-Forwarded-For: 203.0.113.9", "Connection: close")
            assert sibling.link.give(ours.fileno(), passage(data, host=host))
            answer = theirs.recv(1 << 16)
            while not answer.endswith(b"}"):
                answer += theirs.recv(1 << 16)
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["REMOTE_ADDR"] == client
            server.settled()


class TestIntroduction:
    """PROXY headers before HTTP."""

    @pytest.mark.parametrize("size", [1, 50, 1000], ids=str)
    def test_l14_the_client_of_a_proxy(self, kept: Config, size: int) -> None:
        """For all requests of the connection; and what he says of himself is no word of the proxy."""
        door = introduced(tcp_door(), "127.0.0.1")
        with (
            Server(seen([*WHO, *CLAIMED]), trusting(kept), [door]) as server,
            Client(server.address) as client,
        ):
            stream = LINE + request("GET", "/a", *LIES)
            for start in range(0, len(stream), size):
                client.send(stream[start : start + size])
                server.until(lambda loop: loop.connections)
            for path in ("/a", "/b"):
                assert json.loads(client.receive().body) == {
                    "REMOTE_ADDR": "203.0.113.9",
                    "REMOTE_PORT": "4711",
                    "wsgi.url_scheme": "http",
                    "SCRIPT_NAME": "",
                    "PATH_INFO": path,
                }
                client.send(request("GET", "/b", *LIES))
            client.receive()
            server.settled()
            assert {record.peer for record in server.records} == {"203.0.113.9"}

    def test_l14_once_on_a_connection(self, kept: Config) -> None:
        """CVE-2026-47737."""
        door = introduced(tcp_door(), "127.0.0.1")
        with Server(echo, trusting(kept), [door]) as server, Client(server.address) as client:
            client.send(LINE)
            assert client.get("/a").status == 200
            client.send(LINE + request("GET", "/b"))
            assert client.receive().status == 400
            client.ended()

    def test_l14_a_header_that_names_a_proxy(self, kept: Config) -> None:
        """One that a proxy of bytes stands before: the fields of that one are believed."""
        door = introduced(tcp_door(), "127.0.0.1")
        with Server(seen(WHO), trusting(kept), [door]) as server, Client(server.address) as client:
            client.send(LINE.replace(b"203.0.113.9", b"192.0.2.2"))
            answer = client.get("/", "X-Forwarded-For: 203.0.113.1")
            assert json.loads(answer.body)["REMOTE_ADDR"] == "203.0.113.1"

    @pytest.mark.parametrize(
        "header", [LINE, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12)], ids=["L14-v1", "L14-v2"]
    )
    def test_of_a_stranger_it_is_no_request(self, kept: Config, header: bytes) -> None:
        door = introduced(tcp_door(), "192.0.2.7")
        with Server(echo, kept, [door]) as server, Client(server.address) as client:
            client.send(header + request("GET", "/a"))
            assert client.receive().status == 400
            client.ended()
            server.settled()
            assert [record.peer for record in server.records] == ["127.0.0.1"]

    def test_l14_a_proxy_without_one_is_turned_away(self, kept: Config) -> None:
        """And the log says so: once, for it would go on and on."""
        door = introduced(tcp_door(), "127.0.0.1")
        with Server(echo, trusting(kept), [door]) as server:
            for _ in range(2):
                with Client(server.address) as client:
                    client.send(request("GET", "/a"))
                    with pytest.raises(ConnectionResetError):
                        client.ended()
            server.until(lambda loop: not loop.connections)
            assert server.records == []
            why = "turned away a trusted proxy, 127.0.0.1: it does not begin with a PROXY header"
            assert server.said.count(why) == 1

    def test_s1_its_time_is_limited(self, kept: Config) -> None:
        door = introduced(tcp_door(), "127.0.0.1")
        with Server(echo, trusting(kept), [door]) as server, Client(server.address) as client:
            client.send(LINE[:-1])
            server.until(lambda loop: loop.greeting.members)
            server.advance(kept.handshake_timeout)
            client.ended()

    def test_who_is_introduced_while_the_application_is_busy_goes(self, sibling: Sibling) -> None:
        gate = Gate()
        door = introduced(tcp_door(), "127.0.0.1")
        with (
            Server(gated(gate), trusting(INLINE), [tcp_door(), door], link=sibling.link) as server,
            Client(door.socket.getsockname()) as client,
            Client(server.address) as busy,
        ):
            client.send(LINE[:5])
            server.until(lambda loop: loop.greeting.members)
            busy.send(request("GET", "/wait"))
            gate.reached()
            server.loop.relieve(0.02)
            sibling.nothing()
            client.send(LINE[5:] + request("GET", "/a"))
            server.loop.relieve(0.02)
            given = sibling.taken()
            assert (given.passage.host, given.passage.port, given.passage.data) == (
                "203.0.113.9",
                "4711",
                b"",
            )
            assert given.socket.recv(1000) == request("GET", "/a")
            gate.open()
            assert busy.receive().status == 200

    def test_it_stays_if_nobody_takes_it(self, sibling: Sibling) -> None:
        gate = Gate()
        door = introduced(tcp_door(), "127.0.0.1")
        with (
            Server(gated(gate), trusting(INLINE), [tcp_door(), door], link=sibling.link) as server,
            Client(door.socket.getsockname()) as client,
            Client(server.address) as busy,
        ):
            server.until(lambda loop: loop.greeting.members)
            busy.send(request("GET", "/wait"))
            gate.reached()
            client.send(LINE + request("GET", "/a"))
            with mock.patch.object(Link, "give", return_value=False):
                server.loop.relieve(0.02)
            gate.open()
            assert busy.receive().status == 200
            assert client.receive().body == b"GET /a\n"
