"""Request bodies: where they end, what is refused, and that no cut of the bytes makes a difference."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stardust.base.errors import ProtocolError
from stardust.http1 import body as module
from stardust.http1.body import ChunkedReader, LengthReader, reader
from stardust.http1.head import CHUNKED, Head


def head(length: int) -> Head:
    return Head("POST", "/", "/", "", "HTTP/1.1", {}, length, False, True)


class Fed(NamedTuple):
    body: bytes
    complete: bool
    left: bytes  # what the reader did not take
    status: int  # 0: not refused


def feed(pieces: Iterable[bytes], length: int = CHUNKED, limit: int = 0) -> Fed:
    """What becomes of a body whose bytes arrive in these pieces."""
    parts: list[bytes] = []
    left = b""
    body = reader(head(length), limit)
    try:
        for piece in pieces:
            left += piece
            left = left[body.feed(left, parts.append) :]
    except ProtocolError as error:
        return Fed(b"".join(parts), False, b"", error.status)
    assert body.received == len(b"".join(parts))
    return Fed(b"".join(parts), body.complete, left, 0)


@pytest.mark.parametrize(
    ("length", "data", "fed"),
    [
        pytest.param(0, b"next", Fed(b"", True, b"next", 0), id="9112-6.3-none"),
        pytest.param(5, b"hello", Fed(b"hello", True, b"", 0), id="9112-6.3-length"),
        pytest.param(5, b"hellonext", Fed(b"hello", True, b"next", 0), id="9112-6.3-next-follows"),
        pytest.param(5, b"hell", Fed(b"hell", False, b"", 0), id="F9-cut-off"),
    ],
)
def test_length(length: int, data: bytes, fed: Fed) -> None:
    assert feed([data], length) == fed
    assert feed([data[i : i + 1] for i in range(len(data))], length) == fed


def test_length_zero_is_complete_at_once() -> None:
    assert LengthReader(0).complete
    assert not LengthReader(1).complete


def test_whole_pieces_are_not_copied() -> None:
    data = b"x" * 1000
    parts: list[bytes] = []
    LengthReader(5000).feed(data, parts.append)
    assert parts[0] is data
    chunked = ChunkedReader(0)
    chunked.feed(b"1388\r\n", parts.append)
    chunked.feed(data, parts.append)
    assert parts[1] is data


@pytest.mark.parametrize(
    ("length", "limit", "refused"),
    [
        pytest.param(10, 10, False, id="at-limit"),
        pytest.param(11, 10, True, id="over-limit"),
        pytest.param(10**18 - 1, 0, False, id="no-limit"),
        pytest.param(CHUNKED, 1, False, id="chunked-not-known-yet"),
    ],
)
def test_413_at_once(length: int, limit: int, refused: bool) -> None:
    if not refused:
        reader(head(length), limit)
        return
    with pytest.raises(ProtocolError, match=r"413: body of 11 bytes, at most 10"):
        reader(head(length), limit)


CUT_OFF = b"5\r\nhello\r\n0\r\nA: b\r\n\r\n"


@pytest.mark.parametrize("size", range(len(CUT_OFF)))
def test_f9_never_complete_before_the_last_byte(size: int) -> None:
    fed = feed([CUT_OFF[:size]])
    assert not fed.complete
    assert fed.status == 0


@pytest.mark.parametrize(
    ("data", "body", "left"),
    [
        pytest.param(b"0\r\n\r\n", b"", b"", id="F5-empty"),
        pytest.param(b"5\r\nhello\r\n0\r\n\r\nnext", b"hello", b"next", id="F5-next-follows"),
        pytest.param(
            b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", b"0123456789" * 2, b"", id="F5-both-cases"
        ),
        pytest.param(b"0" * 15 + b"1\r\na\r\n" + b"0" * 16 + b"\r\n\r\n", b"a", b"", id="F5-16-digits"),
        pytest.param(b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n", b"", id="F5-line-end-in-data"),
        pytest.param(b'1;a="\\"";b = c ; d\r\nx\r\n0\r\n\r\n', b"x", b"", id="F6-extensions"),
        pytest.param(b"1;" + b"a" * 4095 + b"\r\nx\r\n0\r\n\r\n", b"x", b"", id="F6-at-limit"),
        pytest.param(b"1\r\na\r\n" * 4000 + b"0\r\n\r\n", b"a" * 4000, b"", id="F7-below-limit"),
        pytest.param(b"5\r\naaaaa\r\n" * 50_000 + b"0\r\n\r\n", b"a" * 250_000, b"", id="F7-five-bytes-each"),
        pytest.param(b"0\r\nA: b\r\nC:\r\n\r\nnext", b"", b"next", id="F8-trailers"),
        pytest.param(b"0\r\n" + b"A: b\r\n" * 64 + b"\r\n", b"", b"", id="F8-at-limit"),
    ],
)
def test_chunked(data: bytes, body: bytes, left: bytes) -> None:
    assert feed([data]) == Fed(body, True, left, 0)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        pytest.param(b"1\nx\r\n0\r\n\r\n", 400, id="F5-bare-lf-after-size"),
        pytest.param(b"1\r\nx\n0\r\n\r\n", 400, id="F5-bare-lf-after-data"),
        pytest.param(b"1\r\nxy\r\n0\r\n\r\n", 400, id="F5-too-much-data"),
        pytest.param(b"1\r\n\r\n\r\n\r\n", 400, id="F5-size-missing"),
        pytest.param(b"1\r\r\nx\r\n0\r\n\r\n", 400, id="F5-two-cr"),
        pytest.param(b"0x1\r\nx\r\n0\r\n\r\n", 400, id="F5-0x"),
        pytest.param("１\r\nx\r\n0\r\n\r\n".encode(), 400, id="L12-full-width-digit"),
        pytest.param(b"1;" + b"a" * 4096 + b"\r\nx\r\n0\r\n\r\n", 400, id="F6-over-limit"),
        pytest.param((b"1;" + b"a" * 511 + b"\r\nx\r\n") * 9, 400, id="F6-over-limit-in-sum"),
        pytest.param(b"1;" + b"a" * 100_000, 400, id="F6-endless"),
        pytest.param(b"1\r\na\r\n" * 4200, 400, id="F7-one-byte-chunks"),
        pytest.param(b"0\r\n" + b"A: b\r\n" * 65, 400, id="F8-too-many"),
        pytest.param(b"0\r\nA: " + b"a" * 100_000, 400, id="F8-endless"),
        pytest.param(b"0\r\n" + (b"A: " + b"a" * 4000 + b"\r\n") * 3, 400, id="F8-too-long"),
        pytest.param(b"0\r\nA : b\r\n", 400, id="F8-grammar"),
        pytest.param(b"65\r\n", 413, id="over-limit"),
        pytest.param(b"64\r\n" + b"a" * 100 + b"\r\n1\r\n", 413, id="over-limit-in-sum"),
    ],
)
def test_chunked_refused(data: bytes, status: int) -> None:
    limit = 100 if status == 413 else 0
    assert feed([data], limit=limit).status == status
    assert feed([data[i : i + 1] for i in range(len(data))], limit=limit).status == status


@pytest.mark.parametrize("name", sorted(module.FORBIDDEN_TRAILERS))
def test_f8_forbidden_trailers(name: str) -> None:
    assert feed([f"0\r\n{name.title()}: x\r\n\r\n".encode()]).status == 400


CHUNKS = st.lists(st.binary(min_size=1, max_size=40), max_size=20)
EXTENSIONS = st.sampled_from(["", ";a", "; a=b", '; a="b;c"', ";a;b"])


@given(CHUNKS, EXTENSIONS, st.binary(max_size=10), st.lists(st.integers(0, 1000), max_size=10))
def test_l13_any_cut_gives_the_same_body(
    chunks: list[bytes], extension: str, rest: bytes, positions: list[int]
) -> None:
    """What is written in chunks is read again, and the bytes behind it stay where they are."""
    data = b"".join(b"%x%s\r\n%b\r\n" % (len(c), extension.encode(), c) for c in chunks) + b"0\r\n\r\n" + rest
    edges = [0, *sorted(position % len(data) for position in positions), len(data)]
    pieces = [data[edges[i] : edges[i + 1]] for i in range(len(edges) - 1)]
    assert feed(pieces) == Fed(b"".join(chunks), True, rest, 0)


ODD = st.lists(
    st.sampled_from(
        [b"0", b"1", b"5", b"\r\n", b"\n", b"\r", b";a", b"=b", b'"', b" ", b"x", b"hello", b"A: b", b"\xff"]
    ),
    max_size=30,
)


@given(ODD)
def test_l13_any_cut_gives_the_same_refusal(pieces: list[bytes]) -> None:
    """Nothing but ProtocolError is raised; whole, in pieces, in bytes: the same body, end and status."""
    data = b"".join(pieces)
    whole = feed([data], limit=1000)
    assert feed(pieces, limit=1000) == whole
    assert feed([data[i : i + 1] for i in range(len(data))], limit=1000) == whole


@given(st.binary(min_size=1, max_size=50), st.integers(0, 60), st.integers(1, 7))
def test_l13_length_any_cut(data: bytes, length: int, step: int) -> None:
    fed = feed([data[i : i + step] for i in range(0, len(data), step)], length)
    assert fed == Fed(data[:length], length <= len(data), data[length:], 0)
