"""An HTTP/1.1 client that trusts nothing: raw bytes out, every rule of framing checked on the way in.

It knows no redirects, no pools and no retries: what it returns is what was on the wire, and anything out of
order is a BrokenError. Every wait has a deadline, PATIENCE.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Generator
from typing import NamedTuple, Self, TypeVar

# All waits are multiples of one unit, so that a slow machine is one variable: STARDUST_TEST_SLOW=5.
MS = 0.001 * float(os.environ.get("STARDUST_TEST_SLOW", "1"))
PATIENCE = 20_000 * MS  # seconds; far beyond what anything takes, for no test measures time

# What socket.connect() and getsockname() use: a tuple for TCP, a path, or bytes for an abstract name.
Address = tuple[str, int] | tuple[str, int, int, int] | str | bytes

STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9]) ([\t\x20-\x7e\x80-\xff]*)")
FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?([\t\x20-\x7e\x80-\xff]*)")
CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,8}")


Read = TypeVar("Read")
# A generator that is sent bytes as they come, b"" at their end, until it has what it returns.
Reading = Generator[None, bytes, Read]


class BrokenError(Exception):
    """The server broke HTTP, or the connection ended where it must not."""


class Response(NamedTuple):
    """One final response. `interim` holds the heads of the 1xx responses before it, as sent."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes
    interim: list[bytes]

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        """The only value of a header, None without one."""
        values = self.values(name)
        assert len(values) <= 1, f"{name} {len(values)} times"
        return values[0] if values else None

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def closes(self) -> bool:
        return self.header("Connection") == "close"


class Connection:
    """One connection to a server; a context manager that closes it."""

    def __init__(self, address: Address, source: str = "") -> None:
        """Connects. `source` is the local IPv4 address to come from, "" for any."""
        self.socket = socket.socket(family(address), socket.SOCK_STREAM)
        self.socket.settimeout(PATIENCE)
        self._buffer = b""
        try:
            if source:
                self.socket.bind((source, 0))
            self.socket.connect(address)
        except OSError:
            self.socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self, method: str = "GET") -> Response:
        """The next final response; `method` is that of its request, for HEAD has no body.

        Raises BrokenError, ConnectionError, TimeoutError.
        """
        return self._fed(self.reading(method))

    def receive_interim(self) -> bytes:
        """The head of a 1xx response that must come before anything else."""
        head = self._fed(self._until(b"\r\n\r\n"))
        if parsed(head)[0] >= 200:
            raise BrokenError(f"{head!r} where an interim response was due")
        return head

    def receive_into(self, take: Callable[[bytes], object]) -> int:
        """`receive` for a body that is too large to be held, in a 200 with a Content-Length; its size."""
        head = Response(*parsed(self._fed(self._until(b"\r\n\r\n"))), b"", [])
        assert head.status == 200
        size = left = int(head.header("Content-Length") or "")
        data, self._buffer = self._buffer, b""
        while True:
            take(data)
            left -= len(data)
            if not left:
                return size
            data = self.socket.recv(min(left, 1 << 20))
            if not data:
                raise BrokenError(f"end of the connection, {left} of {size} bytes before that of the body")

    def ended(self) -> None:
        """Waits for the end of the connection; raises BrokenError if bytes come instead."""
        self._fed(self.ending())

    def _fed(self, reading: Reading[Read]) -> Read:
        try:
            next(reading)
            while True:
                reading.send(self.socket.recv(65536))
        except StopIteration as done:
            read: Read = done.value
            return read

    # What is read, whoever receives the bytes.

    def reading(self, method: str = "GET") -> Reading[Response]:
        """`receive` for whom it must not keep waiting."""
        interim: list[bytes] = []
        while True:
            head = yield from self._until(b"\r\n\r\n")
            status, reason, headers = parsed(head)
            if status >= 200:
                break
            interim.append(head)
        response = Response(status, reason, headers, b"", interim)
        if response.header("Date") is None:
            raise BrokenError(f"no Date in {headers}")
        body = yield from self._body(response, method)
        return response._replace(body=body)

    def ending(self) -> Reading[None]:
        """`ended` for whom it must not keep waiting."""
        rest = self._buffer or (yield)
        if rest:
            raise BrokenError(f"{rest[:80]!r} after the last response")

    def _body(self, response: Response, method: str) -> Reading[bytes]:
        """RFC 9112 6.3, Message Body Length, from the client's side."""
        length, coding = response.header("Content-Length"), response.header("Transfer-Encoding")
        if coding is not None and length is not None:
            raise BrokenError("both Content-Length and Transfer-Encoding")
        if response.status in (204, 304) and coding is not None:
            raise BrokenError(f"{response.status} with a Transfer-Encoding")
        if method == "HEAD" or response.status in (204, 304):
            return b""
        if coding is not None:
            if coding != "chunked":
                raise BrokenError(f"Transfer-Encoding: {coding}")
            return (yield from self._chunks())
        if length is not None:
            if not re.fullmatch("[0-9]+", length):
                raise BrokenError(f"Content-Length: {length}")
            return (yield from self._exactly(int(length)))
        if not response.closes:
            raise BrokenError("a body without length on a connection that persists")
        return (yield from self._rest())

    def _chunks(self) -> Reading[bytes]:
        body = b""
        while True:
            line = yield from self._until(b"\r\n")
            size = line[:-2]
            if not CHUNK_SIZE.fullmatch(size):
                raise BrokenError(f"chunk size {size!r}")
            data = yield from self._exactly(int(size, 16) + 2)
            if data[-2:] != b"\r\n":
                raise BrokenError(f"chunk ends with {data[-2:]!r}")
            if len(data) == 2:
                return body
            body += data[:-2]

    def _until(self, mark: bytes) -> Reading[bytes]:
        while mark not in self._buffer:
            yield from self._more(mark)
        data, _, self._buffer = self._buffer.partition(mark)
        return data + mark

    def _exactly(self, count: int) -> Reading[bytes]:
        while len(self._buffer) < count:
            yield from self._more(f"{count} bytes")
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    def _rest(self) -> Reading[bytes]:
        data, self._buffer = self._buffer, b""
        while more := (yield):
            data += more
        return data

    def _more(self, wanted: object) -> Reading[None]:
        data = yield
        if not data:
            raise BrokenError(f"end of the connection after {self._buffer[-80:]!r}, waiting for {wanted!r}")
        self._buffer += data


def family(address: Address) -> socket.AddressFamily:
    if not isinstance(address, tuple):
        return socket.AF_UNIX
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET


def parsed(head: bytes) -> tuple[int, str, list[tuple[str, str]]]:
    """A response head, to its empty line, as status, reason and headers."""
    first, *lines = head[:-4].split(b"\r\n")
    status = STATUS_LINE.fullmatch(first)
    if status is None:
        raise BrokenError(f"status line {first!r}")
    headers = []
    for line in lines:
        field = FIELD.fullmatch(line)
        if field is None:
            raise BrokenError(f"header line {line!r}")
        headers.append((field[1].decode(), field[2].decode("latin-1")))
    return int(status[1]), status[2].decode("latin-1"), headers


def request(method: str, target: str, *headers: str, body: bytes = b"") -> bytes:
    """A request as bytes; `headers` are whole lines. A body brings its Content-Length."""
    lines = [f"{method} {target} HTTP/1.1", "Host: test", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def exchange(address: Address, data: bytes, method: str = "GET", source: str = "") -> Response:
    """One request on one connection, which must end after the response if it says so."""
    with Connection(address, source) as connection:
        connection.send(data)
        response = connection.receive(method)
        if response.closes:
            connection.ended()
        return response


def get(address: Address, target: str = "/", *headers: str, source: str = "") -> Response:
    return exchange(address, request("GET", target, "Connection: close", *headers), source=source)
