"""What a server whose application is tests/live/apps/judge.py must answer to the bytes of a client."""

from __future__ import annotations

from typing import NamedTuple

import h11

from stardust.http1.head import CHUNKED
from tests.http1.conversations import Conversation, Request
from tests.live.apps.judge import testimony

HOST = [("Host", "a")]


class Answer(NamedTuple):
    """A response that is due; `body` is None if any will do."""

    method: str
    status: int
    body: bytes | None
    closes: bool


def due(talk: Conversation) -> list[Answer]:
    """The responses to a conversation, in their order."""
    answers = []
    for request in talk.requests:
        head = request.head
        answers.append(Answer(head.method, 200, told(request), not head.persistent))
        if not head.persistent:
            return answers
    if talk.status is not None:
        method = talk.head.method if talk.head is not None else "GET"
        answers.append(Answer(method, talk.status, None, True))
    return answers


def told(request: Request) -> bytes:
    head = request.head
    fields = dict(head.fields)
    if head.length == CHUNKED:
        del fields["HTTP_TRANSFER_ENCODING"]
        fields["CONTENT_LENGTH"] = str(len(request.body))
    return testimony(f"{head.method} {head.target} {head.version}", fields, request.body)


def check(wire: bytes, answers: list[Answer], *, whole: bool = True) -> None:
    """Fails unless `wire` is these responses and nothing else; or, if it is not `whole`, begins them."""
    for answer in answers:
        if size := _usual(wire, answer):
            wire = wire[size:]
            continue
        client = h11.Connection(h11.CLIENT)
        method = "HEAD" if answer.method == "HEAD" else "GET"
        client.send(h11.Request(method=method, target="/", headers=HOST))
        client.send(h11.EndOfMessage())
        if wire:
            client.receive_data(wire)
        body, status = b"", 0
        while not isinstance(event := client.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA and not whole:
                return
            if isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.Response):
                status = event.status_code
            else:
                assert isinstance(event, h11.InformationalResponse), (event, wire, answer)
                assert event.status_code == 100
        assert status == answer.status, (wire, answer)
        assert answer.body is None or body == (b"" if method == "HEAD" else answer.body), (wire, answer)
        assert (client.their_state is h11.MUST_CLOSE) == answer.closes, (wire, answer)
        wire = client.trailing_data[0]
    assert wire == b"", wire


def check_framing(wire: bytes, answers: list[Answer], *, whole: bool = True) -> None:
    """Fails unless `wire` is one response to each request, whatever it says; the last may be cut off, and may
    come early if it ends the connection. If it is not `whole`, it begins them."""
    for answer in answers:
        if not wire:
            break
        client = h11.Connection(h11.CLIENT)
        client.send(
            h11.Request(method="HEAD" if answer.method == "HEAD" else "GET", target="/", headers=HOST)
        )
        client.send(h11.EndOfMessage())
        client.receive_data(wire)
        if whole:
            client.receive_data(b"")
        try:
            while not isinstance(event := client.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    return
        except h11.RemoteProtocolError as error:
            if "closed connection" in str(error) or "without sending complete" in str(error):
                return
            raise
        wire = client.trailing_data[0]
        if client.their_state is not h11.DONE:
            break
    assert wire == b"", wire


def _usual(wire: bytes, answer: Answer) -> int:
    """The bytes that a response takes up, if it is as most are, to the byte; else 0. h11 takes thirty times
    as long to say the same."""
    if answer.body is None:
        return 0
    head = FORM % (len(answer.body), b"Connection: close\r\n" if answer.closes else b"")
    rest = b"" if answer.method == "HEAD" else answer.body
    before, after = head.split(b"DATE")
    size = len(head) - len(b"DATE") + DATE_BYTES + len(rest)
    usual = wire.startswith(before) and wire[len(before) + DATE_BYTES : size] == after + rest
    return size if usual else 0


FORM = (
    b"HTTP/1.1 200 OK\r\nDate: DATE\r\nServer: stardust\r\nContent-Type: text/plain\r\n"
    b"Content-Length: %d\r\n%b\r\n"
)
DATE_BYTES = 29
