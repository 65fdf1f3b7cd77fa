"""What is fuzzed: functions that take any bytes, and raise if a promise is broken.

Each gives back how many requests it has judged. What it does depends on the bytes alone, so a finding is a
file. `TARGETS` names them; `python -m tests.fuzz` runs them, test_fuzz.py for a moment in every test run.
"""

from __future__ import annotations

import io
import os
import random
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h11

from stardust.base.address import Address
from stardust.http1.head import Head, HeadReader
from stardust.http1.response import ResponseWriter
from stardust.wsgi import environ as environs
from stardust.wsgi.gateway import FAILED, Exchange, FileWrapper
from tests.fuzz.applications import Script
from tests.fuzz.streams import Client, cuts
from tests.fuzz.worker import Worker
from tests.http1.conversations import ACCEPT, LIMITS, REJECT, conversation, every_byte, summary
from tests.http1.differences import differences

Target = Callable[[bytes], int]

# One in so many is also read byte by byte, and by h11 and llhttp, which take ten times as long.
THOROUGH = 128

HEADS = HeadReader(LIMITS)
DATE = b"Sun, 22 Nov 2026 16:50:00 GMT"
NAMES = {
    b"date",
    b"server",
    b"content-length",
    b"transfer-encoding",
    b"connection",
    b"content-type",
    b"x-error",
}


def http1(data: bytes) -> int:
    """Heads and bodies: nothing but ProtocolError is raised, no cut makes a difference, and whatever is taken
    h11 or llhttp takes too, and reads alike."""
    number = zlib.crc32(data)
    talk = conversation(cuts(data, number), HEADS)
    if number % THOROUGH == 0:
        whole = summary(talk)
        assert summary(conversation([data])) == whole
        if len(data) < 4000:
            assert summary(conversation(every_byte(data))) == whole
            differences(data)
    return len(talk.requests) + (talk.refusal is not None)


def worker(data: bytes) -> int:
    """A whole worker: see `Worker`."""
    return _worker().serve(data)


def response(data: bytes) -> int:
    """Whatever an application does, its client reads one response, or can tell that it is not whole; and the
    next response is where it must be."""
    script = Script(data)
    wire, errors = bytearray(), io.StringIO()
    head = Head(script.method, "/", "/", "", script.version, {}, 0, False, script.kept)
    exchange = _exchange(head, wire)
    exchange.run(script, _environ(head, errors, exchange))

    if script.closable:
        assert script.closed == 1, "close() was not called once"
    if exchange.persistent:
        assert exchange.complete
        second = Head("GET", "/", "/", "", "HTTP/1.1", {}, 0, False, True)
        following = _exchange(second, wire)
        following.run(_second, _environ(second, errors, following))
        assert following.complete
    _read(script, exchange, bytes(wire))
    return 1


def _read(script: Script, exchange: Exchange, wire: bytes) -> None:
    """The client's side of `response`."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=script.method, target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(wire)
    ended = not exchange.persistent
    if ended:
        client.receive_data(b"")
    body, final, cut = b"", None, ""
    try:
        while not isinstance(event := client.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.Response):
                final = event
            else:
                assert isinstance(event, h11.InformationalResponse), (event, wire)
                assert event.status_code != 101
    except h11.RemoteProtocolError as error:
        cut = str(error)
    if cut:
        # Only where the connection is cut, and only because it ends.
        assert not exchange.complete, (cut, wire)
        assert "closed connection" in cut or "without sending complete" in cut, (cut, wire)
        return
    assert final is not None
    assert final.status_code == exchange.status
    if not exchange.complete:
        # The client would take this for whole; so the connection must be reset.
        assert exchange.note == FAILED, (exchange.note, wire)
        assert not any(name in (b"content-length", b"transfer-encoding") for name, _ in final.headers)
        return
    assert {name for name, _ in final.headers} <= script.named | NAMES, wire
    assert len(body) == exchange.sent
    assert client.their_state is h11.DONE or not exchange.persistent, wire
    rest = client.trailing_data[0]
    if ended:
        assert rest == b"", wire
    else:
        assert rest.startswith(b"HTTP/1.1 200 Second\r\n"), wire
        assert rest.endswith(b"\r\n\r\nsecond"), wire


def _exchange(head: Head, wire: bytearray) -> Exchange:
    def send_file(descriptor: int, offset: int, count: int) -> None:
        wire.extend(os.pread(descriptor, count, offset))

    return Exchange(head, ResponseWriter(), wire.extend, send_file, True, DATE)


def _environ(head: Head, errors: io.StringIO, exchange: Exchange) -> dict[str, Any]:
    base = environs.server(multithread=False, multiprocess=True, errors=errors, file_wrapper=FileWrapper)
    listening = environs.listener(base, Address("tcp", "127.0.0.1", 5000), "")
    environ = {**environs.connection(listening, "192.0.2.1", "4711"), **environs.environ(head)}
    environ["wsgi.input"] = io.BytesIO()
    environ["wsgi.early_hints"] = exchange.early_hints
    return environ


def _second(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 Second", [])
    return [b"second"]


_workers: list[Worker] = []


def _worker() -> Worker:
    if not _workers:
        _workers.append(Worker())
    return _workers[0]


TARGETS: dict[str, Target] = {"http1": http1, "worker": worker, "response": response}

FINDINGS = Path(__file__).parent / "findings"


def seeds(name: str) -> list[bytes]:
    """What a target begins with: the corpus, and what was found before."""
    paths = [*ACCEPT, *REJECT] if name != "response" else []
    paths += sorted(path for path in (FINDINGS / name).glob("*") if path.is_file())
    return [path.read_bytes() for path in paths]


def draw(name: str, chance: random.Random) -> Iterator[bytes]:
    """Inputs for a target without end."""
    client = Client(chance)
    while True:
        yield client.stream() if name != "response" else chance.randbytes(10 + int(60 * chance.random()))
