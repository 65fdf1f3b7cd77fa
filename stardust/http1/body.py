"""Bytes behind a request head to the bytes of its body, and where it ends (RFC 9112 6 and 7).

How it works:

- `reader(head, limit)` chooses the reader; `feed` it whatever arrives. It hands the bytes of the body to
  `write` and returns how many bytes it took; what it left belongs to the next request.
- `complete` says whether the body has ended. A connection that ends before sent a truncated request (RFC 9112
  8), and no application should hear of it.
- Any cut of the same bytes gives the same body, the same end, or a refusal with the same status. After a
  refusal the reader is not to be used again.
- Work is linear in the bytes, and framing may exceed the body by no more than FRAMING_ALLOWANCE, so that
  tiny chunks end early.

The module runs in the application's interpreter: Python 3.9.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Union

from stardust.base.errors import ProtocolError
from stardust.http1 import grammar
from stardust.http1.head import CHUNKED, Head

Write = Callable[[bytes], object]

# "A server ought to limit the total length of chunk extensions received in a request to an amount reasonable
# for the services provided"  RFC 9112 7.1.1. No use of them is known; attacks are (CVE-2024-22019).
EXTENSION_BYTES = 4096

# Bytes of chunk-size lines and CRLFs that may exceed the bytes of the body: 4,096 one-byte chunks.
FRAMING_ALLOWANCE = 16384

# Trailer fields are read to find the end of the body, and dropped. What sends them sends a checksum or two.
TRAILER_COUNT = 64
TRAILER_BYTES = 8192

_CHUNK_LINE_BYTES = 16 + EXTENSION_BYTES + 2

# What a ChunkedReader waits for: the size of a chunk, the line end behind a chunk, a trailer field.
_SIZE, _CHUNK_END, _TRAILER = range(3)

# "Many fields cannot be processed outside the header section because their evaluation is necessary prior to
# receiving the content, such as those that describe message framing, routing, authentication, request
# modifiers, response controls, or content format"  RFC 9110 6.5.1
FORBIDDEN_TRAILERS = frozenset(
    (
        "authorization",
        "cache-control",
        "connection",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "cookie",
        "expect",
        "host",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "keep-alive",
        "max-forwards",
        "pragma",
        "proxy-authorization",
        "proxy-connection",
        "range",
        "set-cookie",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)


class LengthReader:
    """A body of a known number of bytes. `received` are the bytes written so far."""

    __slots__ = ("_length", "complete", "received")

    def __init__(self, length: int) -> None:
        self._length = length
        self.received = 0
        self.complete = length == 0

    def feed(self, data: bytes, write: Write) -> int:
        """Takes what belongs to the body from the beginning of `data`; returns its size in bytes."""
        taken = min(len(data), self._length - self.received)
        if taken:
            write(data if taken == len(data) else data[:taken])
            self.received += taken
            self.complete = self.received == self._length
        return taken


class ChunkedReader:
    """A body in chunks (RFC 9112 7.1). `received` are the bytes written so far, framing not counted."""

    __slots__ = (
        "_expect",
        "_extensions",
        "_framing",
        "_left",
        "_limit",
        "_line",
        "_trailer_bytes",
        "_trailers",
        "complete",
        "received",
    )

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._expect = _SIZE
        self._line = b""  # the beginning of a line whose end has not arrived
        self._left = 0  # bytes of the current chunk still to come
        self._framing = 0
        self._extensions = 0
        self._trailers = 0
        self._trailer_bytes = 0
        self.received = 0
        self.complete = False

    def feed(self, data: bytes, write: Write) -> int:
        """Takes what belongs to the body, framing included, from the beginning of `data`; returns its size.

        Raises ProtocolError: 413 as soon as a chunk is announced that exceeds the limit, 400 for all else.
        """
        position = 0
        end = len(data)
        while position < end and not self.complete:
            if self._left:
                taken = min(end - position, self._left)
                write(data if taken == end else data[position : position + taken])
                self._left -= taken
                self.received += taken
                position += taken
            else:
                position = self._take_line(data, position)
        return position

    def _take_line(self, data: bytes, position: int) -> int:
        """Takes one line of framing, or the part of it that is there; returns the position behind it."""
        room = TRAILER_BYTES if self._expect == _TRAILER else _CHUNK_LINE_BYTES
        stop = data.find(b"\n", position, position + room - len(self._line)) + 1
        if not stop:
            self._line += data[position : position + room]
            if len(self._line) >= room:
                raise ProtocolError(400, "chunked: line too long")
            return len(data)
        line = self._line + data[position:stop]
        self._line = b""
        # "A recipient MAY recognize a single LF as a line terminator"  RFC 9112 2.2. Not here: who disagrees
        # about the end of a line disagrees about where the next request begins (CVE-2025-22871).
        if not line.endswith(b"\r\n"):
            raise ProtocolError(400, "chunked: line ends without CRLF")
        if self._expect == _SIZE:
            self._size(line[:-2])
        elif self._expect == _CHUNK_END:
            self._chunk_end(line[:-2])
        else:
            self._trailer(line[:-2])
        return stop

    def _size(self, line: bytes) -> None:
        """chunk = chunk-size [ chunk-ext ] CRLF chunk-data CRLF ; last-chunk = 1*"0" [ chunk-ext ] CRLF"""
        match = grammar.CHUNK_LINE.fullmatch(line.decode("latin-1"))
        if match is None:
            raise ProtocolError(400, "chunked: expected a chunk size")
        size = int(match[1], 16)
        self._extensions += len(match[2])
        if self._extensions > EXTENSION_BYTES:
            raise ProtocolError(400, f"chunked: extensions larger than {EXTENSION_BYTES} bytes")
        self._framing += len(line) + 4
        if self._framing > FRAMING_ALLOWANCE + self.received:
            raise ProtocolError(400, "chunked: more framing than body")
        if self._limit and self.received + size > self._limit:
            raise ProtocolError(413, f"chunked body larger than {self._limit} bytes")
        self._left = size
        self._expect = _CHUNK_END if size else _TRAILER

    def _chunk_end(self, line: bytes) -> None:
        """The CRLF behind chunk-data; unchecked, it let two bytes of a chunk vanish (CVE-2025-43859)."""
        if line:
            raise ProtocolError(400, "chunked: chunk longer than its size")
        self._expect = _SIZE

    def _trailer(self, line: bytes) -> None:
        """trailer-section = *( field-line CRLF ), then the CRLF that ends the body (RFC 9112 7.1.2)."""
        if not line:
            self.complete = True
            return
        self._trailers += 1
        self._trailer_bytes += len(line) + 2
        if self._trailers > TRAILER_COUNT or self._trailer_bytes > TRAILER_BYTES:
            raise ProtocolError(
                400, f"more than {TRAILER_COUNT} trailer fields, or {TRAILER_BYTES} bytes of them"
            )
        match = grammar.FIELD_LINE.fullmatch(line.decode("latin-1"))
        if match is None:
            raise ProtocolError(400, "trailer is not name: value")
        if match[1].lower() in FORBIDDEN_TRAILERS:
            raise ProtocolError(400, f"{match[1]} in the trailer section")


BodyReader = Union[LengthReader, ChunkedReader]


def reader(head: Head, limit: int) -> BodyReader:
    """The reader of the body that `head` announces. `limit`: bytes it may have, 0 for any number.

    Raises ProtocolError(413) if it is announced larger.
    """
    if head.length == CHUNKED:
        return ChunkedReader(limit)
    if head.length > limit > 0:
        raise ProtocolError(413, f"body of {head.length} bytes, at most {limit} are accepted")
    return LengthReader(head.length)
