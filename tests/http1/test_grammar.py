"""The grammar alone: what each pattern takes and what it leaves, and that no input makes it slow."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stardust.http1 import grammar

FULL: list[tuple[str, re.Pattern[str], list[str], list[str]]] = [
    (
        "9110-5.6.2-token",
        grammar.TOKEN,
        ["a", "!#$%&'*+-.^_`|~09azAZ"],
        ["", "a b", "a:", "é", "a\n", "(", "\x7f"],
    ),
    ("9112-3.1-method", grammar.METHOD, ["GET", "M" * 32], ["", "M" * 33, "G T", "GET\n"]),
    (
        "9112-2.3-version",
        grammar.VERSION,
        ["HTTP/1.1", "HTTP/9.0"],
        ["http/1.1", "HTTP/1.10", "HTTP/1", "HTTP/١.1"],
    ),
    (
        "9112-3.2.1-origin-line",
        grammar.ORIGIN_LINE,
        ["GET / HTTP/1.1", "GET /a?b HTTP/1.0", "X //?? HTTP/1.1", "CONNECTED / HTTP/1.1"],
        ["GET / HTTP/1.2", "GET /#a HTTP/1.1", "CONNECT / HTTP/1.1", "GET a HTTP/1.1", "GET / HTTP/1.1\n"],
    ),
    (
        "9112-3.2.2-absolute",
        grammar.ABSOLUTE_TARGET,
        ["http://a", "HTTPS://a:1/b?c", "http://?q", "http://[::1]/"],
        ["http:/a", "ftp://a", "http://a/#b", "http://a/ b", "/http://a"],
    ),
    (
        "9110-7.2-host",
        grammar.HOST,
        ["a", "a.b:80", "a:", "[::1]", "[::ffff:192.0.2.1]:1", "[v1.a:b]", "%41", "a_b"],
        ["", ":80", "a,b", "a@b", "[", "[]", "::1", "a:123456", "a:-1", "a b", "%4", "é", "[v1]", "a/"],
    ),
    (
        "9112-5-field-line",
        grammar.FIELD_LINE,
        ["a:", "a: b", "a:\tb \t", "a:b:c", "a: é\xff"],
        ["", ":", "a", " a:b", "a :b", "a:\x00", "a:b\n", "a:b\r", "a:\x7f", "é:a", "a:\u0100"],
    ),
    (
        "9110-5.5-field-value",
        grammar.FIELD_VALUE,
        ["", "a\tb ", "é"],
        ["\r", "\n", "a\n", "\x00", "\x1b", "\x7f", "€"],
    ),
    (
        "F4-content-length",
        grammar.CONTENT_LENGTH,
        ["0", "007", "9" * 18],
        ["", "9" * 19, "+1", "1_0", "²", "1\n", "١"],
    ),
    (
        "F3-codings-then-chunked",
        grammar.CODINGS_THEN_CHUNKED,
        ["gzip, chunked", "a,b ,\tCHUNKED", "chunkedx,chunked"],
        [
            "chunked",
            "chunked, chunked",
            "gzip",
            "gzip;q=1, chunked",
            ", chunked",
            "gzip,,chunked",
            "a,Chunked ,chunked",
        ],
    ),
    (
        "9112-7.1-chunk-line",
        grammar.CHUNK_LINE,
        ["0", "f" * 16, "5;a", "5; a = b ;c", '5;a="b\\"; c"', '5;a=""'],
        [
            "",
            "f" * 17,
            "5 ",
            " 5",
            "5 ;a",
            "5\t;a",
            "5;",
            "5;=a",
            '5;a="',
            '5;a="b"c',
            "5;a\n",
            "5;a=\x00",
            "0x5",
            "5;a=b c",
        ],
    ),
    (
        "3333-status",
        grammar.STATUS,
        ["200 OK", "999 ", "404 Nicht da: é", "200"],
        ["20", "20 OK", "2000 OK", "099 a", "200 a\n", "²00 a"],
    ),
]


@pytest.mark.parametrize(
    ("pattern", "text"),
    [pytest.param(p, text, id=f"{name}-{text!a:.40}") for name, p, good, _ in FULL for text in good],
)
def test_takes(pattern: re.Pattern[str], text: str) -> None:
    assert pattern.fullmatch(text)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [pytest.param(p, text, id=f"{name}-{text!a:.40}") for name, p, _, bad in FULL for text in bad],
)
def test_leaves(pattern: re.Pattern[str], text: str) -> None:
    assert not pattern.fullmatch(text)


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("GET /a/b?c=d HTTP/1.1", ("GET", "/a/b?c=d", "/a/b", "c=d", "1")),
        ("GET /a HTTP/1.0", ("GET", "/a", "/a", None, "0")),
        ("GET /a??b HTTP/1.1", ("GET", "/a??b", "/a", "?b", "1")),
        ("GET /? HTTP/1.1", ("GET", "/?", "/", "", "1")),
    ],
)
def test_origin_line_parts(text: str, groups: tuple[Any, ...]) -> None:
    match = grammar.ORIGIN_LINE.fullmatch(text)
    assert match is not None
    assert match.groups() == groups


@pytest.mark.parametrize(
    ("data", "position"),
    [
        (b"a\r\nb\r\n", None),
        (b"a\r", None),
        (b"\n", 1),
        (b"a\nb", 2),
        (b"a\rb", 3),
        (b"a\r\r\n", 3),
        (b"a\r\n\n", 4),
    ],
)
def test_l1_bare_line_end(data: bytes, position: int | None) -> None:
    """The match ends with the byte that gives the verdict, so that it falls when that byte arrives."""
    match = grammar.BARE_LINE_END.search(data)
    assert (match and match.end()) == position


# Long runs of what makes careless patterns backtrack. A quadratic one would not finish within the time limit.
LONG = [
    *(
        "a",
        " ",
        "\t",
        "x ",
        ";a",
        "; a = b ",
        ";a=b",
        '"',
        '\\"',
        ",",
        "a,",
        "a ,",
        "%41",
        "[",
        ":",
        "/",
        "?",
        "0",
    ),
]


@pytest.mark.parametrize("pattern", [pytest.param(row[1], id=row[0]) for row in FULL])
@pytest.mark.parametrize("end", ["\x10", "\n", "é", ""])
def test_l11_no_pattern_backtracks(pattern: re.Pattern[str], end: str) -> None:
    for unit in LONG:
        for start in ("", "a:", "5", '5;a="', "http://a", "GET /"):
            pattern.fullmatch(start + unit * 20_000 + end)


@given(st.text(st.characters(max_codepoint=0x2FF), max_size=20))
def test_l12_never_beyond_latin_1(text: str) -> None:
    """What has a character that is no byte matches nothing: Unicode's digits and blanks do not count."""
    if any(ord(character) > 0xFF for character in text):
        assert not any(pattern.fullmatch(text) for _, pattern, _, _ in FULL)
