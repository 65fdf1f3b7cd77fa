"""Makes up what clients send: mostly valid requests, many that nearly are, some that mean harm.

A `Client` draws from the grammar of RFC 9112 (request lines, fields, framing, chunks, trailers, pipelines of
them), with an odd part here and there, and then damages some of what it made: bytes flipped, line ends
exchanged, lines doubled or moved, pieces of the corpus spliced in. The same random numbers give the same
bytes. It is made to be fast: millions are drawn from it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from tests.http1.conversations import SEEDS

Part = TypeVar("Part")

# What is right comes first in each pair, what is odd second.
# fmt: off
METHODS = (
    (
        b"GET", b"GET", b"GET", b"HEAD", b"POST", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH",
        b"PROPFIND",
    ),
    (
        b"get", b"CONNECT", b"PRI", b"TRACE", b"X" * 32, b"X" * 33, b"", b"G(T", b"G\x00T", b"\xc9T",
        b"!#$%&'*+",
    ),
)
TARGETS = (
    (
        b"/", b"/a", b"/a/b?c=d&e", b"//a//", b"/%00%0d%0a", b"/a?", b"/" + b"a" * 50,
        b"http://a.example/b?c",
    ),
    (
        b"*", b"", b"a", b"/#a", b"/\\", b"/ a", b"/\x00", b"/\xff", b"/\x7f", b"http://", b"https://a:b/",
        b"http://u@a/", b"http://a?b", b"HTTP://[::1]:80/", b"a.example:80", b"/" + b"a" * 8200, b"ftp://a/",
    ),
)
VERSIONS = (
    (b"HTTP/1.1",) * 7 + (b"HTTP/1.0",),
    (
        b"HTTP/1.2",
        b"HTTP/2.0",
        b"HTTP/0.9",
        b"http/1.1",
        b"HTTP/1.1 ",
        b"HTTP/1.",
        b"HTTP/11",
        b"ICE/1.0",
        b"",
    ),
)
BLANKS = ((b" ",), (b"  ", b"\t", b"", b"\x0b", b"\x0c", b"\xa0"))
LINE_ENDS = ((b"\r\n",), (b"\n", b"\r", b"\r\r\n", b"\r\n ", b"\n\r", b"\x0b\r\n", b""))
HOSTS = (
    (
        b"Host: a.example", b"Host: a.example:80", b"host:a", b"Host: [::1]:8080", b"HOST: 127.0.0.1",
    ),
    (
        b"Host:", b"Host: a,b", b"Host: a b", b"Host: u@a", b"Host: a/b", b"Host: [", b"Host: a:99999",
        b"X: y", b"Host: a\r\nHost: a", b"Host : a", b" Host: a", b"H\xf6st: a",
    ),
)
FIELDS = (
    (
        b"Accept: */*", b"User-Agent: fuzz/1.0 (a; b)", b"Cookie: a=b; c=d", b"Cookie: e=f", b"X-Empty:",
        b"Accept-Encoding: gzip, deflate, br", b"Referer: http://b.example/?q", b"X-Tab:\ta\tb\t",
        b"Via: 1.1 x", b"Connection: keep-alive", b"TE: trailers", b"Trailer: X-Sum",
        b"Content-Type: text/plain", b"Authorization: Basic YTpi", b"X-Latin: \xe4\xf6\xfc",
        b"Content-Encoding: gzip",
        b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAA\r\nConnection: Upgrade, HTTP2-Settings",
        b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ),
    (
        b"X_Y: z", b"Proxy: evil", b": empty", b"no colon", b"A B: c", b"A\t: b", b"X: a\x00b", b"X: a\rb",
        b"X: a\nb", b"X: a\x7f", b"X: \x1b[31m", b"X: a\r\n folded", b"X\xff: y", b"(X): y", b"__proto__: a",
        b"Connection: close", b"Connection: , close", b"Connection: a b", b"Expect: 100-continue",
        b"Expect: x", b"X: " + b"a" * 9000, b"Content-Type: a\r\nContent-Type: b", b"Keep-Alive: timeout=5",
        b"\r\n", b"Sec-Websocket-Key1: x", b"X-Forwarded-For: 1.2.3.4", b"X-Forwarded_For: 5.6.7.8",
        b"\x0bX: y",
    ),
)
LENGTHS = (
    b"+%d", b"-%d", b"0x%x", b"%d, %d", b"%d_0", b"%d.", b"", b" %d", b"0%d", b"%d\x0b",
    b"%d\r\nContent-Length: %d", b"99999999999999999999", b"1000001", b"%d;", b"\xb2",
)
CODINGS = (
    b"gzip, chunked", b"chunked, gzip", b"chunked, chunked", b"identity", b"", b",chunked", b"chunked;a",
    b"xchunked", b'"chunked"', b"chunked\r\nTransfer-Encoding: chunked", b"chunked\r\nContent-Length: 5",
    b"\x0bchunked", b"Chunked", b"chunked\r\n\tx", b"chunked\r\nTransfer-Encoding: identity", b"chun\x00ked",
    b"chunked,",
)
SIZES = (
    b"%x ;a", b"0x%x", b"+%x", b"-%x", b" %x", b"%x ", b"%x_0", b"%x;", b"%x;=a", b'%x;a="', b"%x;a\x00",
    b"%x\x00", b"", b"000000000000%x", b"00000000000000000%x", b"%x;a\nb", b"%x\rX", b"g",
    b"fffffffffffffffff", b"ffffffff",
)
EXTENSIONS = (b"", b"", b"", b";a", b";a=b", b'; a = "b;\\"c"', b"; a=b;c", b";a=" + b"b" * 300)
TRAILERS = (
    (
        b"X-Sum: 1", b"X-Empty:", b"x-sum:\t2 ",
    ),
    (
        b"Content-Length: 5", b"Host: b", b"no colon", b" X: folded", b"X: \x00", b"X : y", b"X: y\n",
        b"Cookie: a=b",
    ),
)
FRAGMENTS = (
    b"\r\n", b"\n", b"\r", b" ", b"\t", b"\x00", b"\x0b", b"\x7f", b"\xa0", b"\xff", b":", b",", b";", b"=",
    b"0", b"5", b"f", b"-", b"+", b"_", b"0x", b"#", b"\\", b"@", b"[", b"]", b'"', b"%", b"*", b"/", b"?",
    b"\r\n\r\n", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n", b"Expect: 100-continue\r\n", b"Host: b.example\r\n",
    b"X_Y: z\r\n", b" HTTP/1.0", b"0\r\n\r\n", b"3;a=b\r\nabc\r\n", b"GET / HTTP/1.1\r\nHost: c\r\n\r\n",
)
# fmt: on
KEPT = 500  # requests that may come again

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Client:
    """Draws from `chance`; `oddity` is how likely a part is odd, `damage` how likely a whole stream is."""

    def __init__(self, chance: random.Random, oddity: float = 0.01, damage: float = 0.35) -> None:
        self._random = chance.random
        self._oddity = oddity
        self._damage = damage
        self._earlier: list[bytes] = []

    def stream(self, most: int = 8) -> bytes:
        """What one connection sends: up to `most` requests, whole or not."""
        data = b"".join([self._next() for _ in range(self.below(most) + 1)])
        while self._random() < self._damage:
            data = self.pick(DAMAGES)(self, data)
        return data

    def _next(self) -> bytes:
        """A new request, or mostly one that was made before: in other company it means something else, and to
        make one takes longer than to read it."""
        earlier = self._earlier
        if len(earlier) < KEPT:
            earlier.append(self.request())
            return earlier[-1]
        where = self.below(4 * KEPT)
        if where < KEPT:
            earlier[where] = self.request()
            return earlier[where]
        return earlier[where % KEPT]

    def request(self) -> bytes:
        """One request with its body."""
        part, random = self._part, self._random
        method, version, end = part(METHODS), part(VERSIONS), part(LINE_ENDS)
        lines = [method + part(BLANKS) + part(TARGETS) + part(BLANKS) + version, part(HOSTS)]
        for _ in range(self.below(5)):
            lines.append(part(FIELDS))
        body = b""
        if method not in (b"GET", b"HEAD") or random() < 0.1:
            line, body = self._body()
            lines.insert(1 + self.below(len(lines)), line)
        if random() < self._oddity:
            lines += [self.pick(lines)] * self.pick((1, 1, 1, 120))
        if random() < self._oddity:
            return PREFACE
        return end.join(lines) + part(LINE_ENDS) + part(LINE_ENDS) + body

    def below(self, number: int) -> int:
        return int(self._random() * number)

    def pick(self, parts: Sequence[Part]) -> Part:
        return parts[int(self._random() * len(parts))]

    def _part(self, both: tuple[Sequence[bytes], Sequence[bytes]]) -> bytes:
        parts = both[self._random() < self._oddity]
        return parts[int(self._random() * len(parts))]

    def _body(self) -> tuple[bytes, bytes]:
        """The line that frames a body, and the body."""
        content = self.pick(
            (b"", b"a", b"hello", b"\r\n\r\n", b"0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"x" * 300)
        )
        odd = self._random() < 5 * self._oddity
        if self._random() < 0.5:
            value = self.pick(LENGTHS) if odd else b"%d"
            count = value.count(b"%")
            return b"Content-Length: " + value % ((len(content),) * count), content
        coding = self.pick(CODINGS) if odd else b"chunked"
        return b"Transfer-Encoding: " + coding, self._chunks(content)

    def _chunks(self, content: bytes) -> bytes:
        pieces = []
        while content:
            size = self.below(len(content)) + 1
            pieces.append(self._chunk(content[:size]))
            content = content[size:]
        pieces.append(b"0" + self.pick(EXTENSIONS) + self._part(LINE_ENDS))
        while self._random() < 0.2:
            pieces.append(self._part(TRAILERS) + self._part(LINE_ENDS))
        pieces.append(self._part(LINE_ENDS))
        return b"".join(pieces)

    def _chunk(self, data: bytes) -> bytes:
        form = b"%x"
        if self._random() < self._oddity:
            form = self.pick(SIZES)
        size = form % (len(data),) if b"%" in form else form
        return size + self.pick(EXTENSIONS) + self._part(LINE_ENDS) + data + self._part(LINE_ENDS)

    # What may happen to it on its way.

    def flip(self, data: bytes) -> bytes:
        where = self.below(len(data))
        return data[:where] + bytes([self.below(256)]) + data[where + 1 :]

    def insert(self, data: bytes) -> bytes:
        where = self.below(len(data) + 1)
        return data[:where] + self.pick(FRAGMENTS) + data[where:]

    def remove(self, data: bytes) -> bytes:
        where = self.below(len(data))
        return data[:where] + data[where + self.pick((1, 1, 2, 5, 40)) :]

    def double(self, data: bytes) -> bytes:
        where = self.below(len(data))
        end = where + self.pick((1, 2, 5, 40, 400))
        return data[:end] + data[where:]

    def exchange_line_end(self, data: bytes) -> bytes:
        where = data.find(b"\r\n", self.below(len(data)))
        return data if where < 0 else data[:where] + self.pick(LINE_ENDS[1]) + data[where + 2 :]

    def double_line(self, data: bytes) -> bytes:
        """A line stands once more, there or elsewhere."""
        lines = data.split(b"\r\n")
        lines.insert(self.below(len(lines)), self.pick(lines))
        return b"\r\n".join(lines)

    def splice(self, data: bytes) -> bytes:
        """The beginning of this, and the end of a file of the corpus; or the other way round."""
        other = self.pick(SEEDS)
        first, second = (data, other) if self._random() < 0.5 else (other, data)
        return first[: self.below(len(first) + 1)] + second[self.below(len(second) + 1) :]

    def cut_off(self, data: bytes) -> bytes:
        return data[: self.below(len(data) + 1)]


def cuts(data: bytes, number: int) -> list[bytes]:
    """`data` in pieces, whole, by the byte, or cut anywhere: in one of 2 ** 32 ways."""
    how, number = number % 200, number // 200
    if how < 80:
        return [data]
    if how == 80 and len(data) < 1000:
        return [data[i : i + 1] for i in range(len(data))]
    edges = []
    for _ in range(how % 5 + 1):
        number, edge = divmod(number * 2_654_435_761 % (1 << 40), len(data) + 1)
        edges.append(edge)
    edges.sort()
    return [data[start:end] for start, end in zip([0, *edges], [*edges, len(data)], strict=True)]


DAMAGES: Sequence[Callable[[Client, bytes], bytes]] = (
    *(Client.flip, Client.insert, Client.remove, Client.double, Client.exchange_line_end),
    *(Client.double_line, Client.splice, Client.cut_off),
)
