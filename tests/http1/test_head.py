"""Request heads, one row per rule; the ids name it as in the source, or by its RFC section."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stardust.base.errors import ProtocolError
from stardust.http1 import head as module
from stardust.http1.head import CHUNKED, FieldTable, Head, HeadReader, Limits

LIMITS = Limits(line=60, count=4, size=300)


def read(data: bytes, limits: Limits = LIMITS) -> Head:
    found = HeadReader(limits).read(data)
    assert found is not None
    assert found[1] == len(data)
    return found[0]


def request(*lines: str, first: str = "GET / HTTP/1.1") -> bytes:
    return "\r\n".join([first, "Host: a", *lines, "", ""]).encode("latin-1")


def refusal(data: bytes, limits: Limits = LIMITS) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        HeadReader(limits).read(data)
    return caught.value


def test_all_parts() -> None:
    head = read(
        b"PUT /a%20b?c=d HTTP/1.1\r\nHost: a\r\nContent-Type: x/y\r\n"
        b"Content-Length: 3\r\nAccept:  z\t\r\n\r\n"
    )
    assert (head.method, head.target, head.path, head.query) == ("PUT", "/a%20b?c=d", "/a%20b", "c=d")
    assert head.version == "HTTP/1.1"
    assert head.fields == {
        "HTTP_HOST": "a",
        "CONTENT_TYPE": "x/y",
        "CONTENT_LENGTH": "3",
        "HTTP_ACCEPT": "z",
    }
    assert (head.length, head.expects_continue, head.persistent) == (3, False, True)


def test_repr_names_the_request() -> None:
    assert repr(read(request())) == "<Head GET / HTTP/1.1 length=0 {'HTTP_HOST': 'a'}>"


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_what_follows_is_left(kind: type[bytes]) -> None:
    data = request()
    found = HeadReader(LIMITS).read(kind(data + b"\x00\n" * 500))
    assert found is not None
    assert found[1] == len(data)


@pytest.mark.parametrize(
    ("lines", "length"),
    [
        pytest.param((), 0, id="9112-6.3-neither"),
        pytest.param(("Content-Length: 0",), 0, id="F4-zero"),
        pytest.param(("Content-Length: 0012",), 12, id="F4-leading-zeros"),
        pytest.param(("Content-Length: " + "9" * 18,), 10**18 - 1, id="F4-largest"),
        pytest.param(("Transfer-Encoding: Chunked",), CHUNKED, id="F3-chunked"),
    ],
)
def test_length(lines: tuple[str, ...], length: int) -> None:
    assert read(request(*lines)).length == length


@pytest.mark.parametrize(
    ("first", "lines", "persistent"),
    [
        pytest.param("GET / HTTP/1.1", (), True, id="9112-9.3-1.1"),
        pytest.param("GET / HTTP/1.1", ("Connection: keep-alive",), True, id="9112-9.3-1.1-keep-alive"),
        pytest.param("GET / HTTP/1.1", ("Connection: Close",), False, id="9112-9.3-1.1-close"),
        pytest.param("GET / HTTP/1.1", ("Connection: keep-alive,\tclose",), False, id="9112-9.3-both"),
        pytest.param(
            "GET / HTTP/1.1", ("Connection: a", "Connection: close"), False, id="9112-9.3-two-lines"
        ),
        pytest.param("GET / HTTP/1.1", ("Connection: closed",), True, id="9110-7.6.1-whole-token"),
        pytest.param("GET / HTTP/1.1", ("Connection:",), True, id="9110-5.6.1.2-empty-list"),
        pytest.param("GET / HTTP/1.0", (), False, id="9112-9.3-1.0"),
        pytest.param("GET / HTTP/1.0", ("Connection: keep-alive",), True, id="9112-9.3-1.0-keep-alive"),
        pytest.param("GET / HTTP/1.0", ("Connection: Keep-Alive, TE",), True, id="9112-9.3-1.0-list"),
    ],
)
def test_persistent(first: str, lines: tuple[str, ...], persistent: bool) -> None:
    assert read(request(*lines, first=first)).persistent is persistent


@pytest.mark.parametrize(
    ("first", "length", "expects"),
    [
        pytest.param("PUT / HTTP/1.1", "5", True, id="F14-1.1"),
        pytest.param("PUT / HTTP/1.1", "0", False, id="F14-no-body"),
        pytest.param("PUT / HTTP/1.0", "5", False, id="F14-1.0"),
    ],
)
def test_expects_continue(first: str, length: str, expects: bool) -> None:
    head = read(request("Expect: 100-continue", f"Content-Length: {length}", first=first))
    assert head.expects_continue is expects


@pytest.mark.parametrize(
    ("target", "path", "query", "host"),
    [
        pytest.param("/", "/", "", "a", id="9112-3.2.1"),
        pytest.param("//b//c?d?e", "//b//c", "d?e", "a", id="L5-slashes-stay"),
        pytest.param("http://b:1/c?d", "/c", "d", "b:1", id="9112-3.2.2-host-overridden"),
        pytest.param("http://b", "/", "", "b", id="9110-4.2.3-empty-path"),
        pytest.param("http://b?c", "/", "c", "b", id="9110-4.2.3-empty-path-with-query"),
    ],
)
def test_target(target: str, path: str, query: str, host: str) -> None:
    head = read(request(first=f"GET {target} HTTP/1.1"))
    assert (head.target, head.path, head.query, head.fields["HTTP_HOST"]) == (target, path, query, host)


def test_l5_asterisk() -> None:
    head = read(request(first="OPTIONS * HTTP/1.1"))
    assert (head.target, head.path, head.query) == ("*", "", "")


@pytest.mark.parametrize(
    ("lines", "fields"),
    [
        pytest.param(("A: 1", "a: 2", "A:"), {"HTTP_A": "1, 2, "}, id="9110-5.3-list"),
        pytest.param(("Cookie: a=1", "Cookie: b=2"), {"HTTP_COOKIE": "a=1; b=2"}, id="9113-8.2.3-cookie"),
        pytest.param(("A_B: 1", "A-B: 2"), {"HTTP_A_B": "2"}, id="L8-underscore"),
        pytest.param(("A-B: 2", "A_B: 1", "A__B: 1"), {"HTTP_A_B": "2"}, id="L8-two-underscores"),
        pytest.param(("pROXY: x",), {}, id="L8-proxy"),
        pytest.param(("Host_: b", "Content_Length: 9"), {}, id="L8-never-framing"),
        pytest.param(("X: caf\xe9 \xff",), {"HTTP_X": "caf\xe9 \xff"}, id="L7-obs-text"),
        pytest.param(("X:\t a\tb \t",), {"HTTP_X": "a\tb"}, id="L7-blanks"),
        pytest.param(("X: \xa0a\x85",), {"HTTP_X": "\xa0a\x85"}, id="L7-only-sp-and-htab-are-blanks"),
    ],
)
def test_fields(lines: tuple[str, ...], fields: dict[str, str]) -> None:
    assert read(request(*lines)).fields == {"HTTP_HOST": "a", **fields}


@pytest.mark.parametrize("name", sorted(module.SINGLETONS))
def test_l9_singletons(name: str) -> None:
    wire = name.replace("HTTP_", "", 1).replace("_", "-")
    value = {"EXPECT": "100-continue", "TRANSFER-ENCODING": "chunked"}.get(wire, "1")
    lines = [f"{wire}: {value}"] * 2
    assert refusal(("GET / HTTP/1.0\r\n" + "\r\n".join(lines) + "\r\n\r\n").encode()).status == 400


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        pytest.param(" X: y", "folding", id="L6-obs-fold"),
        pytest.param("X", "without a colon", id="L6-no-colon"),
        pytest.param("X : y", "not a token: 'X '", id="L6-blank-before-colon"),
        pytest.param(": y", "not a token: ''", id="L6-empty-name"),
        pytest.param("X: secret\x00", "control character in the value of X", id="L7-control"),
    ],
)
def test_reasons_name_the_rule_and_no_value(line: str, reason: str) -> None:
    error = refusal(request(line))
    assert error.status == 400
    assert reason in error.reason
    assert "secret" not in error.reason


FOUR = ("A: 1", "B: 2", "C: 3")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        pytest.param(request(first="GET /" + "a" * 46 + " HTTP/1.1"), None, id="L11-line-at-limit"),
        pytest.param(request(first="GET /" + "a" * 47 + " HTTP/1.1"), 414, id="L11-line-over-limit"),
        pytest.param(request(*FOUR), None, id="L11-count-at-limit"),
        pytest.param(request(*FOUR, "D: 4"), 431, id="L11-count-over-limit"),
        pytest.param(request(*FOUR, first="GET / HTTP/1.2"), 505, id="L11-count-at-limit-is-no-reason"),
        pytest.param(request("A: " + "a" * 268), None, id="L11-size-at-limit"),
        pytest.param(request("A: " + "a" * 269), 431, id="L11-size-over-limit"),
        pytest.param(b"\r\n\r\n" + request("A: " + "a" * 268), None, id="L11-empty-lines-do-not-count"),
    ],
)
def test_limits(data: bytes, status: int | None) -> None:
    if status is None:
        read(data)
    else:
        assert refusal(data).status == status


@pytest.mark.parametrize(
    ("data", "status", "needed"),
    [
        pytest.param(b"GET / HTTP/1.1\r\nA\n", 400, 18, id="L1-bare-lf"),
        pytest.param(b"GET / HTTP/1.1\rX", 400, 16, id="L1-bare-cr"),
        pytest.param(b"\r\n\r\n\r\nGET", 400, 5, id="L1-third-empty-line"),
        pytest.param(b"GET\t/", 400, 4, id="L2-tab"),
        pytest.param(b"\x16\x03\x01", 400, 1, id="L3-tls"),
        pytest.param(b"M" * 40, 400, 33, id="L3-method-too-long"),
        pytest.param(b"GET /" + b"a" * 90, 414, 61, id="L11-line"),
        pytest.param(b"GET / HTTP/1.1\r\n" + b"A: 1\r\n" * 9, 431, 46, id="L11-count"),
        pytest.param(b"GET / HTTP/1.1\r\nA: " + b"1" * 900, 431, 300, id="L11-size"),
        pytest.param(
            b"GET / HTTP/1.1\r\n" + b"A: 1\r\n" * 3 + b"\n" + b"A: 1\r\n" * 9, 400, 35, id="first-wins"
        ),
    ],
)
def test_early_refusal(data: bytes, status: int, needed: int) -> None:
    """A head that no further bytes can mend is refused with the byte that spoils it, and not before."""
    assert HeadReader(LIMITS).read(data[: needed - 1]) is None
    assert refusal(data[:needed]).status == status
    assert refusal(data).status == status
    assert refusal(data + b"\r\n\r\n").status == status


@pytest.mark.parametrize(
    "beginning", [b"", b"\r", b"\r\n", b"\r\n\r", b"\r\n\r\n", b"G", b"GET ", b"GET /\r"]
)
def test_beginnings_are_no_errors(beginning: bytes) -> None:
    assert HeadReader(LIMITS).read(beginning) is None


def test_l11_a_head_in_single_bytes() -> None:
    """Every search resumes where it stopped. Starting over each time would be two billion steps."""
    data = request("X: " + "x" * 60_000)
    reader = HeadReader(Limits(8190, 100, 1 << 20))
    buffer = bytearray()
    for position in range(len(data) - 1):
        buffer.append(data[position])
        assert reader.read(buffer, position) is None
    assert reader.read(data, len(data) - 1) is not None


@given(st.lists(st.text(st.characters(max_codepoint=0xFF), max_size=30), max_size=6), st.data())
def test_table_never_changes_an_answer(lines: list[str], data: st.DataObject) -> None:
    """A reader that has seen lines before answers as one that has not."""
    used = HeadReader(LIMITS)
    lines = [line if ":" in line else f"X-{len(line)}:{line}" for line in lines]
    for _ in range(3):
        some = data.draw(st.lists(st.sampled_from(lines or ["A: b"]), max_size=4))
        answers: list[Any] = []
        for reader in (used, HeadReader(LIMITS)):
            try:
                found = reader.read(request(*some))
                answers.append(found and (found[0].fields, found[0].length, found[1]))
            except ProtocolError as error:
                answers.append((error.status, error.reason))
        assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("Accept: */*", True),
        ("X: " + "a" * 253, True),
        ("X: " + "a" * 254, False),
        ("Cookie: a=b", False),
        ("authorization: Basic eDp5", False),
        ("Proxy-Authorization: Basic eDp5", False),
    ],
    ids=lambda value: str(value)[:20],
)
def test_table_keeps_no_secrets_and_no_long_lines(line: str, kept: bool) -> None:
    table = FieldTable()
    assert table[line] == table[line] == module.field(line)
    assert (line in table) is kept


PARTS = st.sampled_from(
    ["A", "Foo", "Host", "Cookie", "Proxy", "a_b", ":", ": ", " ", "\t", "x", "é", "\x7f", ""]
)


@example(["A: ", "A"])
@given(st.lists(st.lists(PARTS, max_size=6).map("".join), max_size=12))
def test_table_says_what_field_says(lines: list[str]) -> None:
    """Whatever it has seen before: a name, a value, the same bytes cut at another colon."""
    table = FieldTable()
    for line in lines:
        try:
            expected: object = module.field(line)
        except ProtocolError as refusal:
            expected = str(refusal)
        try:
            found: object = table[line]
        except ProtocolError as refusal:
            found = str(refusal)
        assert found == expected


@pytest.mark.parametrize("first", ["Foo:bar: x", "Foo:bar"])
def test_a_colon_without_a_blank_teaches_no_name(first: str) -> None:
    table = FieldTable()
    assert table[first] == module.field(first)
    assert table["Foo:bar: y"] == ("HTTP_FOO", "bar: y")


def test_table_is_bounded() -> None:
    table = FieldTable()
    for number in range(3 * module.KEPT_LINES):
        assert table[f"X: {number}"] == ("HTTP_X", str(number))
        assert len(table) <= module.KEPT_LINES


def test_table_keeps_no_refused_line() -> None:
    table = FieldTable()
    for _ in range(2):
        with pytest.raises(ProtocolError):
            table["Host: a b"]
    assert not table


@pytest.mark.parametrize(
    ("line", "refused"),
    [
        pytest.param("A_B: 1", True, id="L8-refuse"),
        pytest.param("A_B:1", True, id="L8-refuse-without-a-blank"),
        pytest.param("Content_Length: 9", True, id="L8-refuse-framing"),
        pytest.param("X: a_b", False, id="L8-refuse-no-value"),
        pytest.param("Proxy: a_b", False, id="L8-refuse-not-what-is-dropped-for-another-reason"),
        pytest.param("A-B: 1", False, id="L8-refuse-no-dash"),
    ],
)
def test_underscores_refused(line: str, refused: bool) -> None:
    """Each time: what was refused once is not remembered as something to drop."""
    reader = HeadReader(LIMITS, refuse_underscores=True)
    for _ in range(2):
        if refused:
            with pytest.raises(ProtocolError, match="underscore in a field name") as caught:
                reader.read(request(line))
            assert caught.value.status == 400
        else:
            assert reader.read(request(line)) is not None
