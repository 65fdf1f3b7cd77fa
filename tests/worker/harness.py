"""What the tests of a worker share: a real `Loop` on a thread, real sockets, a client that believes nothing.

The loop's clock stands still until a test moves it (`Server.advance`), so time limits are tested to the
moment and without waiting. Where the application must be somewhere, it stands at a `Gate`. Every wait has a
deadline, PATIENCE. Most tests run twice: the application on the loop's own thread, and on threads.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from queue import SimpleQueue
from typing import Any, NamedTuple, Self, TypeVar
from unittest import mock

import h11
import pytest

from stardust.base.address import Address
from stardust.base.errors import ClientGone
from stardust.base.records import replace
from stardust.ipc.handoff import Link, Passage
from stardust.ipc.scoreboard import Entry, Scoreboard
from stardust.logs.accesslog import Record
from stardust.logs.log import Log
from stardust.logs.logfile import LogFile
from stardust.settings.table import Config
from stardust.worker.connection import Connection
from stardust.worker.entrance import Door
from stardust.worker.loop import Loop
from stardust.worker.standing import Surroundings
from stardust.worker.telling import AccessLog
from tests import pools

PATIENCE = 20.0  # s; far beyond what anything takes


EPOCH = 1_800_000_000.0  # where the clock on the wall stands when the other one says 0


Environ = dict[str, Any]


StartResponse = Callable[..., Callable[[bytes], object]]


App = Callable[[Environ, StartResponse], Iterable[bytes]]


Answered = TypeVar("Answered")


PATTERN = bytes(range(251)) * 4178  # 1 MiB and a little; no two neighbouring pages are alike


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
        self._patches = contextlib.ExitStack()
        for reader in ("clock", "serving"):
            self._patches.enter_context(mock.patch(f"stardust.worker.{reader}.time", self.clock))
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
            shelf=shelf,
            surroundings=Surroundings(
                replaceable=replaceable,
                stopping=stopping,
                storing=storing,
                announce=lambda message: self.announced.append(type(message).__name__.lower()),
            ),
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
        for connection in loop.book.connections.values():
            connection.close()
        if loop.threads is not None and failure is None:  # else an application may go on
            pools.end(loop.threads.pool)
        loop.epoll.close()
        for door in self.doors:
            door.socket.close()
        self._bell.close()
        self._ringer.close()
        self._file.close()
        os.close(self.board.descriptor)
        os.close(self._said)
        self._patches.close()
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

    def settled(self, count: int = 0) -> None:
        """Returns when the loop knows of every response: from a thread, the client may have it sooner."""
        self.until(lambda loop: len(running(loop)) == count)

    def advance(self, seconds: float) -> None:
        """Returns when the loop has done all that is due then."""
        self.clock.now += seconds
        self.ask(bool)
        self.ask(bool)

    def leave(self, *, final: bool = False) -> None:
        self.ask(lambda loop: loop.parting.leave(final=final))

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
        self.loop.standing.leaving, self.loop.standing.leave_by = True, 0.0

    def _recorded(self, record: Record) -> str:
        self._records.append(record)
        return "a line"


Shared = Callable[[App, Config], Server]


"""Makes a server that has siblings, as far as it knows: the test holds the other end of the link."""


def running(loop: Loop) -> dict[Connection, float]:
    """Those whose request is with an application thread."""
    return {} if loop.threads is None else loop.threads.running


def queued(loop: Loop) -> dict[Connection, float]:
    """Those that wait for one."""
    return {} if loop.threads is None else loop.threads.queued


def pause(loop: Loop) -> None:
    loop.parting.pause()


def resume(loop: Loop) -> None:
    loop.parting.resume()


def tcp_door(own: bool = True) -> Door:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(200)
    listener.setblocking(False)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as all of ours have it
    return Door(listener, Address("tcp", "127.0.0.1", listener.getsockname()[1]), own)


def unix_door(name: str) -> Door:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(name)
    listener.listen(200)
    listener.setblocking(False)
    kind, path = ("abstract", name[1:]) if name.startswith("\0") else ("unix", name)
    return Door(listener, Address(kind, path=path), own=True)


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
        self.connection.identify({**self.connection.environ, "REMOTE_ADDR": self.said.decode()})
        return 0


def asking(*greetings: Callable[[Connection], Word]) -> Door:
    return tcp_door()._replace(greetings=greetings)


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
        loop.parting.leave()


def passage(data: bytes, **more: Any) -> Passage:
    return Passage(Address("tcp", "192.0.2.1", 80), "192.0.2.2", "4711", 2, 0.0, 1000.0, data)._replace(
        **more
    )


HALF = request("GET", "/half")


HALF_HEAD = HALF[:20]


WHOLE = request("POST", "/half", body=b"x" * 1000)


HALF_BODY = WHOLE[:-100]


LARGE_BODY = request("POST", "/large", body=bytes(100_000))
