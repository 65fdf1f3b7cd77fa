"""What head and body reader together make of the bytes of a connection, and the corpus of such bytes.

`corpus/accept/NAME.http` holds the bytes of a client, `NAME.json` the requests in them; in `corpus/reject`
the JSON says with which status the bytes are refused, and how many requests come before that. A name begins
with the rule it is about. A new smuggling report is two new files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from stardust.base.errors import ProtocolError
from stardust.http1 import body
from stardust.http1.head import Head, HeadReader, Limits

CORPUS = Path(__file__).parent / "corpus"
ACCEPT = sorted((CORPUS / "accept").glob("*.http"))
REJECT = sorted((CORPUS / "reject").glob("*.http"))

LIMITS = Limits(line=8190, count=100, size=32768)
MAX_BODY = 1 << 20

# What mutations begin with: long ones would leave them little to hit.
SEEDS = [path.read_bytes() for path in (*ACCEPT, *REJECT) if path.stat().st_size < 1000]


class Request(NamedTuple):
    head: Head
    body: bytes
    raw: bytes  # all bytes of the request, from its first leading empty line to the end of its body


class Conversation(NamedTuple):
    requests: list[Request]
    refusal: ProtocolError | None
    head: Head | None  # of the request whose body did not end, or was refused

    @property
    def status(self) -> int | None:
        """Of the refusal, None if there was none."""
        return self.refusal.status if self.refusal is not None else None


def conversation(pieces: Iterable[bytes], heads: HeadReader | None = None) -> Conversation:
    """What a connection makes of bytes that arrive in these pieces. Catches nothing but ProtocolError."""
    reader = heads or HeadReader(LIMITS)
    requests: list[Request] = []
    buffer, searched, raw = bytearray(), 0, b""
    head: Head | None = None
    rest: body.BodyReader = body.LengthReader(0)
    parts: list[bytes] = []
    refusal = None
    try:
        for piece in pieces:
            buffer += piece
            while True:
                if head is None:
                    found = reader.read(buffer, searched)
                    if found is None:
                        searched = len(buffer)
                        break
                    head, taken = found
                    searched, parts, rest = 0, [], body.reader(head, MAX_BODY)
                else:
                    taken = rest.feed(bytes(buffer), parts.append)
                raw += buffer[:taken]
                del buffer[:taken]
                if rest.complete:
                    requests.append(Request(head, b"".join(parts), raw))
                    head, raw = None, b""
                elif not buffer:
                    break
    except ProtocolError as error:
        refusal = error
    return Conversation(requests, refusal, head)


def summary(talk: Conversation) -> tuple[Any, ...]:
    """Everything about a conversation that must not depend on how its bytes were cut."""
    heads = [[*(getattr(r.head, name) for name in Head.__slots__), r.body, r.raw] for r in talk.requests]
    return heads, talk.status


def cut(data: bytes, positions: Sequence[int]) -> list[bytes]:
    """`data` in pieces, cut at these positions."""
    edges = [0, *sorted(position % (len(data) + 1) for position in positions), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def every_byte(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def lines(data: bytes) -> list[bytes]:
    return data.splitlines(keepends=True)
