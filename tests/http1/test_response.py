"""Responses: what goes over the wire, what an application may not send, and what h11 reads of it all."""

from __future__ import annotations

from email.utils import formatdate
from typing import Any, Optional

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stardust.base.errors import ApplicationError
from stardust.http1 import response as module
from stardust.http1.head import CHUNKED, Head
from stardust.http1.response import (
    ERRORS,
    LAST_CHUNK,
    UNTIL_CLOSE,
    LineTable,
    Opening,
    ResponseWriter,
    chunk,
    error,
    informational,
)

DATE = b"Sun, 22 Nov 2026 16:50:00 GMT"

Headers = list[tuple[str, str]]


def head(method: str = "GET", version: str = "HTTP/1.1", persistent: bool = True) -> Head:
    return Head(method, "/", "/", "", version, {}, 0, False, persistent)


def opening(
    headers: Any = (),
    request: Optional[Head] = None,
    *,
    status: Any = "200 OK",
    length: Optional[int] = None,
    persistent: bool = True,
) -> Opening:
    writer = ResponseWriter()
    return writer.opening(status, headers, request or head(), length=length, persistent=persistent, date=DATE)


def lines(made: Opening) -> list[str]:
    """The fields beside Date and Server."""
    text = made.head.decode("latin-1")
    assert text.endswith("\r\n\r\n")
    return [line for line in text[:-4].split("\r\n")[1:] if not line.startswith(("Date:", "Server:"))]


def test_all_bytes_in_order() -> None:
    headers = [("Content-Length", "5"), ("X-A", "b"), ("Content-Type", "text/plain"), ("X-A", "c")]
    assert opening(headers, persistent=False) == Opening(
        b"HTTP/1.1 200 OK\r\n"
        b"Date: Sun, 22 Nov 2026 16:50:00 GMT\r\n"
        b"Server: stardust\r\n"
        b"X-A: b\r\n"
        b"Content-Type: text/plain\r\n"
        b"X-A: c\r\n"
        b"Content-Length: 5\r\n"
        b"Connection: close\r\n"
        b"\r\n",
        200,
        5,
        False,
    )


LENGTH = ("Content-Length", "5")


@pytest.mark.parametrize(
    ("status", "request_head", "headers", "length", "sent", "body"),
    [
        pytest.param("200 OK", head(), [LENGTH], None, ["Content-Length: 5"], 5, id="9112-6.2-declared"),
        pytest.param("200 OK", head(), [], 7, ["Content-Length: 7"], 7, id="9112-6.2-known"),
        pytest.param("200 OK", head(), [], 0, ["Content-Length: 0"], 0, id="9112-6.2-empty"),
        pytest.param("200 OK", head(), [LENGTH], 9, ["Content-Length: 5"], 5, id="W3-longer-is-cut-later"),
        pytest.param(
            "200 OK", head(), [("content-length", "05")], 5, ["Content-Length: 5"], 5, id="W3-normal-form"
        ),
        pytest.param(
            "200 OK", head(), [], None, ["Transfer-Encoding: chunked"], CHUNKED, id="9112-7.1-unknown"
        ),
        pytest.param("200 OK", head("HEAD"), [LENGTH], None, ["Content-Length: 5"], 0, id="W4-head-declared"),
        pytest.param(
            "200 OK", head("HEAD"), [LENGTH], 0, ["Content-Length: 5"], 0, id="W4-head-declared-empty"
        ),
        pytest.param("200 OK", head("HEAD"), [], 7, ["Content-Length: 7"], 0, id="W4-head-known"),
        pytest.param("200 OK", head("HEAD"), [], 0, [], 0, id="W4-head-empty-says-nothing"),
        pytest.param("200 OK", head("HEAD"), [], None, [], 0, id="W4-head-unknown"),
        pytest.param("204 No Content", head(), [LENGTH], 5, [], 0, id="W4-204"),
        pytest.param("204 No Content", head(), [], None, [], 0, id="W4-204-unknown"),
        pytest.param("304 Not Modified", head(), [LENGTH], 0, ["Content-Length: 5"], 0, id="W4-304-declared"),
        pytest.param("304 Not Modified", head(), [], 5, [], 0, id="W4-304-adds-none"),
        pytest.param("304 Not Modified", head("HEAD"), [], 5, [], 0, id="W4-304-head"),
        pytest.param("205 Reset Content", head(), [], 0, ["Content-Length: 0"], 0, id="9110-15.3.6-205"),
        pytest.param(
            "205 Reset Content",
            head(),
            [LENGTH],
            5,
            ["Content-Length: 0"],
            0,
            id="9110-15.3.6-205-no-content",
        ),
    ],
)
def test_framing(
    status: str, request_head: Head, headers: Headers, length: int | None, sent: list[str], body: int
) -> None:
    made = opening(headers, request_head, status=status, length=length)
    assert lines(made) == sent
    assert made.body == body
    assert made.persistent


@pytest.mark.parametrize(
    ("request_head", "headers", "length", "sent", "persistent"),
    [
        pytest.param(head(), [], 1, [], True, id="9112-9.3-1.1"),
        pytest.param(
            head(persistent=False), [], 1, ["Connection: close"], False, id="9112-9.3-client-closes"
        ),
        pytest.param(
            head(version="HTTP/1.0"), [], 1, ["Connection: keep-alive"], True, id="9112-9.3-1.0-keep-alive"
        ),
        pytest.param(
            head(version="HTTP/1.0", persistent=False), [], 1, ["Connection: close"], False, id="9112-9.3-1.0"
        ),
        pytest.param(
            head(), [("Connection", "Close")], 1, ["Connection: close"], False, id="W2-close-is-heard"
        ),
        pytest.param(
            head(), [("Connection", "x, close")], 1, ["Connection: close"], False, id="W2-close-in-list"
        ),
        pytest.param(head(), [("Connection", "keep-alive")], 1, [], True, id="W2-keep-alive-left-out"),
        pytest.param(
            head(), [("Keep-Alive", "timeout=9, close")], 1, [], True, id="W2-keep-alive-field-left-out"
        ),
        pytest.param(
            head(), [("Content-Length", "2")], 1, ["Connection: close"], False, id="W3-shorter-closes"
        ),
        pytest.param(
            head("HEAD"), [("Content-Length", "2")], 0, [], True, id="W3-shorter-means-nothing-for-head"
        ),
        pytest.param(
            head(version="HTTP/1.0"), [], None, ["Connection: close"], False, id="9112-6.3-1.0-until-close"
        ),
    ],
)
def test_persistent(
    request_head: Head, headers: Headers, length: int | None, sent: list[str], persistent: bool
) -> None:
    made = opening(headers, request_head, length=length)
    assert [line for line in lines(made) if not line.startswith("Content-Length")] == sent
    assert made.persistent is persistent


def test_until_close() -> None:
    made = opening([], head(version="HTTP/1.0"))
    assert (made.body, made.persistent) == (UNTIL_CLOSE, False)


def test_request_that_could_not_be_read() -> None:
    """Answered as HTTP/1.1, and the connection ends; without a length, so does the body."""
    writer = ResponseWriter()
    made = writer.opening("400 Bad Request", [], None, length=3, persistent=True, date=DATE)
    assert lines(made) == ["Content-Length: 3", "Connection: close"]
    assert (made.body, made.persistent) == (3, False)
    made = writer.opening("400 Bad Request", [], None, length=None, persistent=True, date=DATE)
    assert (made.body, made.persistent) == (UNTIL_CLOSE, False)


@pytest.mark.parametrize(
    ("headers", "count"),
    [
        pytest.param([], (1, 1), id="W12-both-added"),
        pytest.param([("date", "x")], (0, 1), id="W12-date-of-the-application"),
        pytest.param([("SERVER", "x")], (1, 0), id="9110-10.2.4-server-of-the-application"),
    ],
)
def test_date_and_server(headers: Headers, count: tuple[int, int]) -> None:
    made = opening(headers, length=0)
    assert (made.head.count(b"\r\nDate: " + DATE), made.head.count(b"\r\nServer: stardust")) == count
    assert all(f"\r\n{name}: {value}\r\n".encode() in made.head for name, value in headers)


def test_date_follows_the_clock_of_the_caller() -> None:
    writer = ResponseWriter()
    for seconds in (0, 0, 1, 2):
        now = module.date(seconds)
        made = writer.opening("200 OK", [], head(), length=0, persistent=True, date=now)
        assert b"\r\nDate: " + now + b"\r\n" in made.head


@pytest.mark.parametrize(
    ("status", "headers", "rule"),
    [
        *(
            pytest.param(status, [], "PEP 3333", id=f"W1-status-{status!a}")
            for status in (
                "20",
                "OK",
                "20 OK",
                "0200 OK",
                "200 a\nb",
                "200 OK\r\n",
                "200 \x1b",
                "²00 OK",
                "200 €",
                200,
            )
        ),
        pytest.param(None, [], "PEP 3333", id="W1-status-none"),
        pytest.param(b"200 OK", [], "PEP 3333", id="W1-status-bytes"),
        pytest.param(["200 OK"], [], "PEP 3333", id="W1-status-list"),
        pytest.param("100 Continue", [], "informational", id="W4-100"),
        pytest.param("101 Switching Protocols", [], "informational", id="W4-101"),
        *(
            pytest.param("200 OK", [(name, "v")], "token", id=f"W1-name-{name!a}")
            for name in ("", "a b", "a:", "a\r\nb", "é", "a\n")
        ),
        *(
            pytest.param("200 OK", [("a", value)], "control character", id=f"W1-value-{value!a}")
            for value in ("a\rb", "a\nb", "a\r\nb: c", "\x00", "\x1b", "\x7f", "€")
        ),
        *(
            pytest.param("200 OK", headers, "PEP 3333", id=f"W1-headers-{headers!a}")
            for headers in (
                [("a", 1)],
                [("a", b"b")],
                [(b"a", "b")],
                [["a"]],
                [["a", 1], ("b", "c")],
                [("a",)],
                [("a", "b", "c")],
                ["ab"],
                [None],
                None,
                1,
            )
        ),
        *(
            pytest.param("200 OK", [("Content-Length", value)], "digits", id=f"W3-length-{value!a}")
            for value in ("", "+5", "-1", "5, 5", "0x5", "1_0", " 5", "5.0", "²", "9" * 19)
        ),
        pytest.param("200 OK", [LENGTH, LENGTH], "more than once", id="W3-length-twice"),
        pytest.param("200 OK", [LENGTH, ("content-length", "6")], "more than once", id="W3-two-lengths"),
    ],
)
def test_refused(status: Any, headers: Any, rule: str) -> None:
    with pytest.raises(ApplicationError, match=rule):
        opening(headers, status=status)


@pytest.mark.parametrize("status", ["200 ", "299 Ganz gut", "404 Nicht gefunden: é", "999 Message here"])
def test_status_taken(status: str) -> None:
    assert opening([], status=status).head.startswith(f"HTTP/1.1 {status}\r\n".encode("latin-1"))


def test_a_status_without_a_reason_keeps_its_space() -> None:
    assert opening([], status="200").head.startswith(b"HTTP/1.1 200 \r\n")


@pytest.mark.parametrize("name", sorted(module.HOP_BY_HOP))
@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
def test_w2_hop_by_hop_fields_are_left_out_and_told_once(name: str, version: str) -> None:
    told: list[str] = []
    writer = ResponseWriter(told.append)
    for _ in range(3):
        headers = [("A", "b"), (name.title(), "x"), (name, "y")]
        made = writer.opening("200 OK", headers, head(version=version), 1, True, DATE)
        assert [line for line in lines(made) if not line.startswith("Connection")] == [
            "A: b",
            "Content-Length: 1",
        ]
    assert told == [name]


@pytest.mark.parametrize(
    ("status", "name", "sent"),
    [
        ("407 Who is it", "Proxy-Authenticate", ["Proxy-Authenticate: x"]),
        ("426 Upgrade Required", "Upgrade", ["Upgrade: x", "Connection: upgrade"]),
    ],
    ids=["W2-challenge-of-a-proxy", "W2-another-protocol"],
)
def test_w2_what_a_status_is_about_is_kept(status: str, name: str, sent: list[str]) -> None:
    told: list[str] = []
    made = ResponseWriter(told.append).opening(status, [(name, "x")], head(), 1, True, DATE)
    assert lines(made) == [*sent, "Content-Length: 1"]
    assert made.persistent
    assert told == []


def test_pairs_may_be_lists() -> None:
    headers: Any = [["A", "b"], ("C", "d"), ["Content-Length", "1"]]
    for _ in range(2):
        assert lines(opening(headers, length=1)) == ["A: b", "C: d", "Content-Length: 1"]


def test_headers_may_be_any_iterable_of_tuples() -> None:
    assert lines(opening((("A", "b"), ("C", "")), length=0)) == ["A: b", "C: ", "Content-Length: 0"]


TEXT = st.text(st.characters(max_codepoint=0x17F), max_size=12)
PAIRS = st.tuples(
    st.one_of(
        TEXT, st.sampled_from(["Content-Length", "Connection", "Date", "Server", "Vary", "Set-Cookie"])
    ),
    st.one_of(TEXT, st.sampled_from(["5", "0", "close", "keep-alive"])),
)


@given(
    status=st.one_of(
        st.sampled_from(["200 OK", "204 No Content", "304 Not Modified", "404 Not Found"]), TEXT
    ),
    headers=st.lists(PAIRS, max_size=4),
    method=st.sampled_from(["GET", "HEAD"]),
    version=st.sampled_from(["HTTP/1.0", "HTTP/1.1"]),
    parts=st.one_of(st.none(), st.lists(st.binary(max_size=10), max_size=4)),
    known=st.booleans(),
)
def test_w1_h11_reads_what_was_meant(
    status: str, headers: Headers, method: str, version: str, parts: list[bytes] | None, known: bool
) -> None:
    """Whatever an application says: it is refused, or an HTTP client reads one response with that body."""
    content = b"".join(parts or [])
    length = len(content) if known else None
    request = head(method, version)
    try:
        made = opening(headers, request, status=status, length=length)
    except ApplicationError:
        return
    if made.body > 100:
        return  # the application promised more than it has; `short` is what `test_persistent` is about
    wire = {CHUNKED: b"".join(map(chunk, parts or [])) + LAST_CHUNK, UNTIL_CLOSE: content}
    body = content if made.body < 0 else content[: made.body].ljust(made.body, b"x")

    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(made.head + wire.get(made.body, body))
    if made.body == UNTIL_CLOSE:
        client.receive_data(b"")
    answer = client.next_event()
    assert isinstance(answer, h11.Response)
    assert answer.status_code == int(status[:3])
    read = b""
    while isinstance(event := client.next_event(), h11.Data):
        read += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert read == body
    assert (client.their_state is h11.DONE) is made.persistent


@given(st.lists(PAIRS, max_size=6), st.data())
def test_tables_never_change_an_answer(pairs: Headers, data: st.DataObject) -> None:
    used = ResponseWriter()
    requests = [head(), head(), head("HEAD"), head(version="HTTP/1.0"), head(persistent=False), None]
    for _ in range(6):
        some = data.draw(st.lists(st.sampled_from(pairs or [("A", "b")]), max_size=4))
        status = data.draw(st.sampled_from(["200 OK", "204 No Content", "404 Not Found"]))
        length, date = data.draw(st.sampled_from([None, 1, 2])), data.draw(st.sampled_from([DATE, b"then"]))
        request, persistent = data.draw(st.sampled_from(requests)), data.draw(st.booleans())
        answers: list[Any] = []
        for writer in (used, ResponseWriter()):
            try:
                answers.append(writer.opening(status, some, request, length, persistent, date))
            except ApplicationError as refused:
                answers.append(str(refused))
        assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("pair", "kept"),
    [
        (("Vary", "Cookie"), True),
        (("A", "b" * 255), True),
        (("A", "b" * 256), False),
        (("Set-Cookie", "a=b"), False),
        (("location", "/"), False),
    ],
    ids=lambda value: str(value)[:20],
)
def test_table_keeps_what_repeats(pair: tuple[str, str], kept: bool) -> None:
    table = LineTable()
    assert table[pair] == table[pair] == module.encoded(pair)
    assert (pair in table) is kept


class Chameleon(str):
    """Equal to whatever it is compared with."""

    def __eq__(self, _: object) -> bool:
        return True

    def __hash__(self) -> int:
        return hash("200 OK")


def test_tables_keep_no_key_of_an_application() -> None:
    """It could be found in the place of another."""

    class Pair(tuple[str, str]):
        __slots__ = ()

    table, statuses = LineTable(), module.StatusTable()
    writer = ResponseWriter()
    for pair in (Pair(("A", "b")), (Chameleon("A"), "b"), ("A", Chameleon("b"))):
        assert table[pair].encoded == b"A: b\r\n"
        assert b"\r\nA: b\r\n" in writer.opening("200 OK", [pair], head(), 0, True, DATE).head
    writer.opening(Chameleon("404 No"), [], head(), 0, True, DATE)
    assert not writer._second.staying
    assert statuses[Chameleon("404 No")] == (404, b"HTTP/1.1 404 No\r\n")
    assert (len(table), len(statuses)) == (0, 0)


def test_tables_are_bounded() -> None:
    table = LineTable()
    for number in range(3 * module.KEPT_PAIRS):
        assert table["A", str(number)].encoded == b"A: %d\r\n" % number
        assert len(table) <= module.KEPT_PAIRS
    statuses = module.StatusTable()
    for number in range(3 * module.KEPT_STATUSES):
        assert statuses[f"200 {number}"] == (200, b"HTTP/1.1 200 %d\r\n" % number)
        assert len(statuses) <= module.KEPT_STATUSES
    writer = ResponseWriter()
    for number in range(3 * module.KEPT_OPENINGS):
        made = writer.opening("200 OK", [("A", str(number))], head(), 0, True, DATE)
        assert f"\r\nA: {number}\r\n".encode() in made.head
        assert len(writer._second.staying) <= module.KEPT_OPENINGS
    large = [(f"A{number}", "x" * 200) for number in range(module.KEPT_OPENING_BYTES // 200)]
    writer.opening("200 OK", large, head(), 0, False, DATE)
    assert not writer._second.closing
    long = "200 " + "x" * module.KEPT_CHARACTERS
    assert statuses[long][0] == 200
    assert long not in statuses


@pytest.mark.parametrize(
    ("status", "headers", "sent"),
    [
        ("100 Continue", [], b"HTTP/1.1 100 Continue\r\n\r\n"),
        (
            "103 Early Hints",
            [("Link", "</a>; rel=preload"), ("Link", "</b>")],
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nLink: </b>\r\n\r\n",
        ),
    ],
    ids=["9110-15.2.1", "8297-2"],
)
def test_informational(status: str, headers: Headers, sent: bytes) -> None:
    assert informational(status, headers) == sent


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        pytest.param("200 OK", [], id="not-1xx"),
        pytest.param("101 Switching Protocols", [], id="9110-15.2.2-101"),
        pytest.param("10", [], id="W1-status"),
        pytest.param("103 Early Hints", [("Link", "a\r\nb: c")], id="W1-value"),
        pytest.param("103 Early Hints", [LENGTH], id="W4-length"),
        pytest.param("103 Early Hints", [("Transfer-Encoding", "chunked")], id="W4-coding"),
        pytest.param("103 Early Hints", [("Connection", "close")], id="W2-connection"),
    ],
)
def test_informational_refused(status: str, headers: Headers) -> None:
    with pytest.raises(ApplicationError):
        informational(status, headers)


@pytest.mark.parametrize(
    ("data", "sent"),
    [(b"", b""), (b"a", b"1\r\na\r\n"), (b"a" * 26, b"1a\r\n" + b"a" * 26 + b"\r\n")],
    ids=["W8-empty", "one", "hexadecimal"],
)
def test_chunk(data: bytes, sent: bytes) -> None:
    assert chunk(data) == sent


@pytest.mark.parametrize("status", [400, 408, 411, 413, 414, 417, 431, 500, 501, 503, 504, 505, 507])
def test_w10_w12_error_texts(status: int) -> None:
    line, headers, body = error(status)
    assert line == f"{status} {ERRORS[status][0]}"
    assert body.startswith(line.encode() + b"\n")
    made = opening(headers, status=line, length=len(body))
    assert lines(made) == ["Content-Type: text/plain; charset=utf-8", f"Content-Length: {len(body)}"]


def test_error_headers_are_the_callers_own() -> None:
    error(400)[1].append(("Retry-After", "1"))
    assert len(error(400)[1]) == 1


@given(st.floats(0, 253402300799))
def test_date_is_imf_fixdate(seconds: float) -> None:
    """9110-5.6.7, beside the standard library's own."""
    assert module.date(seconds) == formatdate(int(seconds), usegmt=True).encode()


def test_date_of_the_rfc() -> None:
    assert module.date(784111777.9) == b"Sun, 06 Nov 1994 08:49:37 GMT"
