"""Where stardust and its oracles differ: the rows of "Where we differ from h11 and llhttp" in docs/http.md.

`ROWS` is the table. test_oracles.py fails for a difference without a row, for a row whose example shows no
difference, and for a page that says something else.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from tests.http1.oracles import Difference, compared

H11, LLHTTP = ("h11",), ("llhttp",)
BOTH = H11 + LLHTTP


class Row(NamedTuple):
    """`kinds`: a pattern of `Difference.kind`; `oracles`: those that say otherwise; `example`: bytes that
    show it."""

    rule: str
    what: str
    kinds: str
    oracles: tuple[str, ...]
    why: str
    example: bytes

    def covers(self, difference: Difference) -> bool:
        return difference.oracle in self.oracles and bool(
            re.fullmatch(self.kinds, difference.kind, re.DOTALL)
        )

    @property
    def text(self) -> str:
        """The row on the page. An oracle that is not named says what stardust says, or says nothing."""
        others = " and ".join(self.oracles)
        mine = "refused" if self.kinds.startswith("taken") else "accepted"
        theirs = "accepted by" if mine == "refused" else "refused by"
        if self.kinds.startswith("read"):
            theirs = "read otherwise by"
        return f"| {self.rule} | {self.what} | {mine}; {theirs} {others} | {self.why} |"


def get(*lines: bytes, line: bytes = b"GET / HTTP/1.1", body: bytes = b"") -> bytes:
    return b"\r\n".join([line, b"Host: a.example", *lines, b"", b""]) + body


def chunked(body: bytes, *lines: bytes) -> bytes:
    return get(*lines, b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.1", body=body)


ROWS = (
    # What stardust refuses.
    Row(
        "F1",
        "Content-Length beside Transfer-Encoding",
        r"taken: Content-Length beside Transfer-Encoding",
        H11,
        "RFC 9112 6.1 lets a server reject it; only request smuggling needs it",
        chunked(b"0\r\n\r\n", b"Content-Length: 5"),
    ),
    Row(
        "F2",
        "Transfer-Encoding in HTTP/1.0",
        r"taken: Transfer-Encoding in HTTP/1\.0",
        BOTH,
        "RFC 9112 6.1: its framing is faulty; a proxy that knows only HTTP/1.0 sees another end",
        get(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.0", body=b"0\r\n\r\n"),
    ),
    Row(
        "F3",
        "a coding before chunked, as in `gzip, chunked`",
        r"taken: Transfer-Encoding has a coding other than chunked: .*",
        LLHTTP,
        "501: WSGI has no way to tell the application of the coding",
        get(b"Transfer-Encoding: gzip, chunked", line=b"POST / HTTP/1.1", body=b"0\r\n\r\n"),
    ),
    Row(
        "F3",
        "empty elements around chunked, as in `,chunked`",
        r"taken: Transfer-Encoding is not chunked: .*",
        LLHTTP,
        "no client sends them; a front end may not see the coding after them",
        get(b"Transfer-Encoding: ,chunked", line=b"POST / HTTP/1.1", body=b"0\r\n\r\n"),
    ),
    Row(
        "F3",
        "`chunked` on a folded line",
        r"taken: Transfer-Encoding is not chunked: .*",
        H11,
        "lines are not folded (L6)",
        get(b"Transfer-Encoding:", b" chunked", line=b"POST / HTTP/1.1", body=b"0\r\n\r\n"),
    ),
    Row(
        "F4",
        "the same Content-Length in several lines, or as a list",
        r"taken: (CONTENT_LENGTH more than once|Content-Length is not a number .*)",
        H11,
        "RFC 9110 8.6 lets a recipient reject it; the next server in the chain may use another one",
        get(b"Content-Length: 2", b"Content-Length: 2", line=b"POST / HTTP/1.1", body=b"ab"),
    ),
    Row(
        "F4",
        "a Content-Length of more than 18 digits, leading zeros included",
        r"taken: Content-Length is not a number .*",
        LLHTTP,
        "any 18 digits fit in 64 bits; a server that reads fewer digits reads another number",
        get(b"Content-Length: 00000000000000000005", line=b"POST / HTTP/1.1", body=b"hello"),
    ),
    Row(
        "F5",
        "a blank after the size of a chunk, or anything but tokens in an extension",
        r"taken: chunked: expected a chunk size",
        H11,
        "not in the grammar of RFC 9112 7.1",
        chunked(b"5 \r\nhello\r\n0\r\n\r\n"),
    ),
    Row(
        "F5",
        "a chunk size of more than 16 digits",
        r"taken: chunked: expected a chunk size",
        LLHTTP,
        "64 bits hold no more; endless leading zeros cost time",
        chunked(b"00000000000000005\r\nhello\r\n0\r\n\r\n"),
    ),
    Row(
        "F6",
        "chunk extensions of more than 4,096 bytes",
        r"taken: chunked: (extensions larger than|line too long).*",
        BOTH,
        "RFC 9112 7.1.1 asks for a limit (CVE-2024-22019)",
        chunked(b"1;" + b"a" * 4096 + b"\r\nx\r\n0\r\n\r\n"),
    ),
    Row(
        "F7",
        "far more framing than body",
        r"taken: chunked: more framing than body",
        BOTH,
        "endless chunks of one byte cost more than they carry",
        chunked(b"1\r\na\r\n" * 4200 + b"0\r\n\r\n"),
    ),
    Row(
        "F8",
        "more than 64 trailer fields, or 8,192 bytes of them",
        r"taken: (more than 64 trailer fields.*|chunked: line too long)",
        BOTH,
        "they are dropped, so nobody sends many",
        chunked(b"0\r\n" + b"A: b\r\n" * 65 + b"\r\n"),
    ),
    Row(
        "F8",
        "trailers that frame, route or authorize",
        r"taken: \S+ in the trailer section",
        BOTH,
        "RFC 9110 6.5.1: they are needed before the content",
        chunked(b"0\r\nHost: b\r\n\r\n"),
    ),
    Row(
        "F8",
        "a folded trailer, or a control character in one",
        r"taken: trailer is not name: value",
        H11,
        "as in the head: L6, L7",
        chunked(b"0\r\nA: b\r\n c\r\n\r\n"),
    ),
    Row(
        "F14",
        "an expectation other than 100-continue",
        r"taken: Expect is not 100-continue: .*",
        BOTH,
        "RFC 9110 10.1.1: 417",
        get(b"Expect: 200-ok"),
    ),
    Row(
        "L1",
        "lines that end with LF alone",
        r"taken: (CR or LF that is not part of CRLF|chunked: line ends without CRLF)",
        H11,
        "RFC 9112 2.2 leaves it open; two servers that disagree about the end of a line disagree about where "
        "the next request begins (CVE-2019-16785, CVE-2025-22871)",
        b"GET / HTTP/1.1\nHost: a\n\n",
    ),
    Row(
        "L1",
        "a request line of HTTP/0.9 that ends with LF",
        r"taken: CR or LF that is not part of CRLF",
        LLHTTP,
        "L1 and L4",
        b"GET /\nHost: a\r\n\r\n",
    ),
    Row(
        "L1",
        "more than two empty lines before a request line",
        r"taken: does not begin with a method of at most 32 characters",
        LLHTTP,
        "RFC 9112 2.2 asks for one; an endless number would hold a connection for nothing",
        b"\r\n\r\n\r\n" + get(),
    ),
    Row(
        "L3",
        "a method of more than 32 characters",
        r"taken: (does not begin with a method of at most 32 characters|method is not a token.*)",
        H11,
        "the longest registered one has 17",
        get(line=b"M" * 33 + b" / HTTP/1.1"),
    ),
    Row(
        "L4",
        "versions other than HTTP/1.0 and HTTP/1.1",
        r"taken: HTTP/[0-9]\.[0-9]: only HTTP/1\.0 and HTTP/1\.1 are supported",
        BOTH,
        "505: their framing may differ",
        get(line=b"GET / HTTP/2.0"),
    ),
    Row(
        "L4",
        "a request line without a version, HTTP/0.9",
        r"taken: (request line is not method, target and version|no HTTP version at the end).*",
        LLHTTP,
        "nothing uses it, and its request ends elsewhere",
        b"GET /\r\n\r\n",
    ),
    Row(
        "L5",
        "targets in none of the four forms, or in a form that does not belong to the method",
        r"taken: target is neither /path nor http://host/path",
        BOTH,
        "RFC 9112 3.2: other servers route them elsewhere",
        get(line=b"GET * HTTP/1.1"),
    ),
    Row(
        "L5",
        "CONNECT",
        r"taken: CONNECT: this is not a proxy",
        H11,
        "501",
        get(line=b"CONNECT a:80 HTTP/1.1"),
    ),
    Row(
        "L6",
        "folded lines",
        r"taken: field line begins with a blank .*",
        H11,
        "RFC 9112 5.2: reject or unfold; a server that does neither reads another field",
        get(b"X: y", b" z"),
    ),
    Row(
        "L7",
        "control characters in a value",
        r"taken: control character in the value of .*",
        H11,
        "RFC 9110 5.5: invalid; they would reach logs and terminals",
        get(b"X: \x7f"),
    ),
    Row(
        "L9",
        "two of a field that is not a list: Content-Type, Authorization, Referer …",
        r"taken: (?!CONTENT_LENGTH|HTTP_HOST)\w+ more than once",
        BOTH,
        "RFC 9110 5.3: one server would believe the first, another the last",
        get(b"Content-Type: a/b", b"Content-Type: c/d"),
    ),
    Row(
        "L9",
        "two Host fields",
        r"taken: HTTP_HOST more than once",
        LLHTTP,
        "RFC 9112 3.2: 400",
        get(b"Host: a.example"),
    ),
    Row(
        "L10",
        "HTTP/1.1 without Host",
        r"taken: HTTP/1\.1 without Host",
        LLHTTP,
        "RFC 9112 3.2: 400",
        b"GET / HTTP/1.1\r\n\r\n",
    ),
    Row(
        "L10",
        "a Host that is empty, a list, or has a path or userinfo",
        r"taken: host is not name, .*",
        BOTH,
        "RFC 9112 3.2: 400; applications build links from it",
        b"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n",
    ),
    Row(
        "L11",
        "a request line longer than `max-request-line`, more fields than `max-header-count`, a head larger "
        "than `max-header-bytes`",
        r"taken: (request line longer than|more than [0-9]+ fields|head larger than).*",
        BOTH,
        "414, 431; the oracles have no limit configured",
        get(line=b"GET /" + b"a" * 9000 + b" HTTP/1.1"),
    ),
    Row(
        "R7.6.1",
        "a Connection field with something that is not a token",
        r"taken: Connection is not a list of tokens: .*",
        BOTH,
        "RFC 9110 7.6.1: it decides whether another request follows",
        get(b"Connection: close;foo"),
    ),
    # What stardust accepts.
    Row(
        "F6",
        "a blank after the `;` of a chunk extension",
        r"not taken: Invalid character in chunk extensions",
        LLHTTP,
        "RFC 9110 5.6.3: a recipient must read and drop it; extensions are dropped anyway",
        chunked(b"5; a=b\r\nhello\r\n0\r\n\r\n"),
    ),
    Row(
        "L1",
        "one or two empty lines before a request line",
        r"not taken: no request line received",
        H11,
        "RFC 9112 2.2: ignore at least one",
        b"\r\n" + get(),
    ),
    Row(
        "L3",
        "methods that are not registered",
        r"not taken: (Invalid method encountered|Expected (HTTP/2 Connection Preface|space after method))",
        LLHTTP,
        "RFC 9110 9.1: any token; the application decides",
        get(line=b"BREW / HTTP/1.1"),
    ),
    Row(
        "R7.8",
        "`Connection: Upgrade` with Upgrade",
        r"not taken: another protocol follows the head",
        LLHTTP,
        "RFC 9110 7.8: a server may ignore it; the request is framed like any other",
        get(b"Connection: Upgrade", b"Upgrade: websocket"),
    ),
    # What stardust reads differently.
    Row(
        "R9.3",
        "HTTP/1.0 with `Connection: keep-alive`: may another request follow?",
        r"read differently: persistent",
        H11,
        "RFC 9112 9.3 and C.2.2; h11 ends every HTTP/1.0 connection",
        get(b"Connection: keep-alive", line=b"GET / HTTP/1.0"),
    ),
    Row(
        "R9.3",
        "HTTP/1.0 with `Connection: keep-alive, close`: may another request follow?",
        r"read differently: persistent",
        LLHTTP,
        "RFC 9112 9.3: close takes precedence",
        get(b"Connection: keep-alive, close", line=b"GET / HTTP/1.0"),
    ),
)


def differences(data: bytes) -> list[Difference]:
    """The differences about the requests in `data`. Each must have its row."""
    _, found = compared(data)
    unknown = [each for each in found if not any(row.covers(each) for row in ROWS)]
    assert not unknown, [(each.oracle, each.kind, each.data) for each in unknown]
    return found


def page() -> str:
    """The table as docs/http.md has it."""
    head = ["| rule | what | verdicts | why |", "|---|---|---|---|"]
    return "\n".join([*head, *(row.text for row in ROWS)]) + "\n"
