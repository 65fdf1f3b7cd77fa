"""What the Perl servers of the family promise, over a real server: Plack::Test::Suite and Starlight's t/.

The test ids carry the names of the cases there. One server serves the whole module, with one worker that
keeps connections, so that a case which breaks the framing breaks the next one, too.
"""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Iterator

import pytest

from tests.live.client import Address, BrokenError, Connection, Response, exchange, get, request
from tests.live.harness import APPS, Server, listening

SETTINGS = """
max-workers = 1
max-reqs-per-child = 0
max-keepalive-reqs = 0
keepalive-timeout = "1h"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("parity")
    sockets: dict[str, socket.socket] = {"http": listening()}
    with sockets["http"]:
        # Some cases are applications that fail, as they should.
        with Server(place, SETTINGS, app=APPS / "parity.py", sockets=sockets, trouble=".") as running:
            running.ready()
            yield running
        assert "Exception ignored" not in running.log


@pytest.fixture
def address(server: Server) -> Address:
    return server.address


@pytest.fixture
def connection(server: Server) -> Iterator[Connection]:
    """A kept connection that must still be good after the case, unless the case closed it."""
    with Connection(server.address) as opened:
        yield opened
        opened.send(request("GET", "/after"))
        assert json.loads(opened.receive().body)["PATH_INFO"] == "/after"


def ask(
    connection: Connection, target: str, *headers: str, method: str = "GET", body: bytes = b""
) -> Response:
    connection.send(request(method, target, *headers, body=body))
    return connection.receive(method)


def environ(connection: Connection, target: str, *headers: str) -> dict[str, str]:
    response = ask(connection, target, *headers)
    assert response.status == 200
    variables: dict[str, str] = json.loads(response.body)
    return variables


# Plack::Test::Suite: what the application is told.

TOLD = [
    pytest.param("/foo/?dankogai=kogaidan", [], {"QUERY_STRING": "dankogai=kogaidan"}, id="GET"),
    pytest.param("/foo", [], {"QUERY_STRING": ""}, id="no-query"),
    pytest.param("/foo", [], {"SCRIPT_NAME": "", "PATH_INFO": "/foo"}, id="SCRIPT_NAME"),
    pytest.param("/", [], {"wsgi.url_scheme": "http", "REQUEST_METHOD": "GET"}, id="url_scheme"),
    pytest.param("/", [], {"SERVER_PROTOCOL": "HTTP/1.1", "SERVER_NAME": "127.0.0.1"}, id="env"),
    pytest.param("/", ["Foo: Bar"], {"HTTP_FOO": "Bar"}, id="HTTP-header"),
    pytest.param("/", ["Cookie: foo"], {"HTTP_COOKIE": "foo"}, id="cookie"),
    pytest.param("/", ["Foo: bar", "Foo: baz"], {"HTTP_FOO": "bar, baz"}, id="multi-headers"),
    pytest.param("/", ["Foo: " + "x" * 200], {"HTTP_FOO": "x" * 200}, id="long-header"),
    pytest.param("/", ["Authorization: Basic XXX"], {"HTTP_AUTHORIZATION": "Basic XXX"}, id="Authorization"),
    pytest.param("/foo/bar%2cbaz", [], {"PATH_INFO": "/foo/bar,baz"}, id="%2c"),
    pytest.param("/foo/bar%252cbaz", [], {"PATH_INFO": "/foo/bar%2cbaz"}, id="%252c-once"),
    pytest.param("/foo%E3%81%82", [], {"PATH_INFO": "/foo\xe3\x81\x82"}, id="bytes-as-latin-1"),
    pytest.param("/foo//bar///baz", [], {"PATH_INFO": "/foo//bar///baz"}, id="slashes-kept"),
    pytest.param("/foo%20bar?x%20y", [], {"REQUEST_URI": "/foo%20bar?x%20y"}, id="REQUEST_URI-raw"),
    pytest.param("/foo%20bar?x%20y", [], {"RAW_URI": "/foo%20bar?x%20y"}, id="RAW_URI"),
]


@pytest.mark.parametrize(("target", "headers", "wanted"), TOLD)
def test_told(connection: Connection, target: str, headers: list[str], wanted: dict[str, str]) -> None:
    told = environ(connection, target, *headers)
    assert {name: told.get(name) for name in wanted} == wanted


def test_no_plain_cookie_key(connection: Connection) -> None:
    told = environ(connection, "/", "Cookie: foo=bar")
    assert "COOKIE" not in told
    assert "HTTP_CONTENT_LENGTH" not in told


def test_remote_port(connection: Connection) -> None:
    """Starlight t/07remote_port.t."""
    told = environ(connection, "/")
    host, port = connection.socket.getsockname()
    assert (told["REMOTE_ADDR"], told["REMOTE_PORT"]) == (host, str(port))
    assert told["SERVER_PORT"] == str(connection.socket.getpeername()[1])


# Plack::Test::Suite: request bodies.


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"name=tatsuhiko", id="POST"),
        pytest.param(b"0", id="single_zero"),
        pytest.param(b"\r\n\r\n", id="CRLF"),
        pytest.param(bytes(range(256)), id="all-bytes"),
    ],
)
def test_body(connection: Connection, body: bytes) -> None:
    response = ask(connection, "/echo", method="POST", body=body)
    assert response.body == body
    assert response.header("X-Content-Length") == str(len(body))


@pytest.mark.parametrize("size", [96_000, 3 << 20], ids=["in-memory", "in-a-file"])
def test_large_body(connection: Connection, size: int) -> None:
    body = bytes(size // 2) + b"x" * (size // 2)
    response = ask(connection, "/digest", method="POST", body=body)
    assert response.text == hashlib.sha256(body).hexdigest()


def chunked(body: bytes, size: int) -> bytes:
    pieces = (body[start : start + size] for start in range(0, len(body), size))
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@pytest.mark.parametrize("size", [7, 4096, 100_000])
def test_chunked_request(connection: Connection, size: int) -> None:
    """Starlight t/08chunked_req.t: the length is told, the body is whole."""
    body = b"0123456789" * 10_000 if size > 7 else b"0123456789" * 100
    connection.send(request("POST", "/digest", "Transfer-Encoding: chunked") + chunked(body, size))
    response = connection.receive()
    assert response.header("X-Content-Length") == str(len(body))
    assert response.text == hashlib.sha256(body).hexdigest()


def test_chunk_and_its_end_apart(connection: Connection) -> None:
    """Starman t/chunked_termination.t: a chunk's data and its CRLF may come in separate packets."""
    data = request("POST", "/echo", "Transfer-Encoding: chunked") + chunked(b"abc", 3)
    for byte in data:
        connection.send(bytes([byte]))
    assert connection.receive().body == b"abc"


def test_input_on_get_is_empty(connection: Connection) -> None:
    response = ask(connection, "/echo")
    assert response.body == b""


def test_input_is_seekable(connection: Connection) -> None:
    assert ask(connection, "/seek", method="POST", body=b"body").body == b"body|body"


def test_input_has_lines(connection: Connection) -> None:
    assert ask(connection, "/lines", method="POST", body=b"a\nb\nc").body == b"a\n<b\n<c"


def test_client_that_leaves_before_its_body(address: Address) -> None:
    """Starlight t/03post.t: the server takes no harm."""
    with Connection(address) as leaving:
        leaving.send(b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 6\r\n\r\n")
    assert exchange(address, request("POST", "/echo", body=b"a=1")).body == b"a=1"


@pytest.mark.parametrize("value", ["100-continue", "100-Continue", "100-CONTINUE"])
def test_expect(connection: Connection, value: str) -> None:
    """Starlet t/13expect.t: 100 comes before the body is sent, whatever the case."""
    connection.send(
        b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\nExpect: %b\r\n\r\n" % value.encode()
    )
    interim = connection.receive_interim()
    assert interim.startswith(b"HTTP/1.1 100 ")
    connection.send(b"body")
    assert connection.receive().body == b"body"


# Plack::Test::Suite: responses.


@pytest.mark.parametrize(
    ("target", "body"),
    [
        pytest.param("/streamed", b"one\ntwo\nthree\r\n\r\n", id="streaming"),
        pytest.param("/written", b"written and returned", id="writer"),
        pytest.param("/delayed", b"late", id="delayed"),
        pytest.param("/empty_string", b"", id="chunked_zero_length"),
        pytest.param("/nothing", b"", id="no-body"),
        pytest.param("/file", (APPS / "parity.py").read_bytes(), id="file-handle"),
        pytest.param("/file?length", (APPS / "parity.py").read_bytes(), id="file-with-length"),
        pytest.param("/file_like", b"x" * 100_000, id="file-like"),
    ],
)
@pytest.mark.parametrize("version", ["1.1", "1.0", "HEAD"])
def test_answered(connection: Connection, address: Address, target: str, body: bytes, version: str) -> None:
    if version == "HEAD":
        assert ask(connection, target, method="HEAD").body == b""
    elif version == "1.0":
        response = exchange(address, f"GET {target} HTTP/1.0\r\n\r\n".encode())
        assert (response.body, response.header("Transfer-Encoding")) == (body, None)
    else:
        assert ask(connection, target).body == body


def test_status_line(connection: Connection) -> None:
    response = ask(connection, "/not_found")
    assert (response.status, response.reason, response.text) == (404, "Not Found", "Not Found")


def test_repeated_response_headers(connection: Connection) -> None:
    response = ask(connection, "/headers")
    assert response.values("X-Foo") == ["bar", "baz"]
    assert response.header("X-Long") == "l" * 2000


def test_server_header(connection: Connection) -> None:
    """Starlight t/05server-header.t: ours by default, the application's instead, never two."""
    assert ask(connection, "/").header("Server") == "stardust"
    assert ask(connection, "/own_server").header("Server") == "myself/1.0"


@pytest.mark.parametrize(("target", "status"), [("/not_modified", 304), ("/no_content", 204)])
def test_no_body_no_framing(connection: Connection, target: str, status: int) -> None:
    response = ask(connection, target)
    assert response.status == status
    for name in ("Content-Type", "Content-Length", "Transfer-Encoding"):
        assert response.header(name) is None


def test_close_is_called(connection: Connection) -> None:
    before = ask(connection, "/closed").text.split()
    ask(connection, "/streamed")
    ask(connection, "/streamed", method="HEAD")
    after = ask(connection, "/closed").text.split()
    assert after == [*before, "/streamed", "/streamed"]


def test_exception_is_500(address: Address) -> None:
    response = exchange(address, request("GET", "/raises", "Connection: close"))
    assert response.status == 500
    assert b"as it was told" not in response.body


def test_exception_in_the_body_cuts(address: Address) -> None:
    """Half a body must not look like a whole one."""
    with Connection(address) as cut:
        cut.send(request("GET", "/raises_late"))
        with pytest.raises((BrokenError, ConnectionError)):
            cut.receive()


def test_exc_info_replaces_the_head(connection: Connection) -> None:
    response = ask(connection, "/error_page")
    assert (response.status, response.text) == (503, "sorry")


def test_header_injection_is_500(address: Address) -> None:
    response = exchange(address, request("GET", "/split_header", "Connection: close"))
    assert response.status == 500
    assert response.header("X-Injected") is None


def test_body_longer_than_said_is_cut(address: Address) -> None:
    assert exchange(address, request("GET", "/too_long", "Connection: close")).body == b"ok"


def test_body_shorter_than_said_is_seen(address: Address) -> None:
    with pytest.raises((BrokenError, ConnectionError)):
        get(address, "/too_short")


def test_errors_stream(server: Server, connection: Connection) -> None:
    assert ask(connection, "/errors").status == 200
    assert "written to the stream of complaints" in server.log


def test_early_hints(connection: Connection) -> None:
    """Starman t/early-hints.t: 103 with its Link, then the response."""
    response = ask(connection, "/early_hints")
    [interim] = response.interim
    assert interim.startswith(b"HTTP/1.1 103 ")
    assert b"\r\nLink: </style.css>; rel=preload\r\n" in interim
    assert response.text == "ok"


def test_informational(connection: Connection) -> None:
    """Starlet t/14interim_response.t: an exact interim head."""
    assert ask(connection, "/informational").interim == [b"HTTP/1.1 102 Processing\r\n\r\n"]


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_wsgiref_validates(connection: Connection, method: str) -> None:
    body = b"body" if method == "POST" else b""
    response = ask(connection, "/valid", method=method, body=body)
    assert response.status == 200
    assert response.body == (b"" if method == "HEAD" else body + b"!")


# Starlet t/12, t/15, t/16: what must not pass.

REFUSED = [
    pytest.param(b"GET /foo bar HTTP/1.1\r\nHost: test\r\n\r\n", 400, id="bad-request-line"),
    pytest.param(
        b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n0\r\n\r\n",
        400,
        id="smuggling-CL-and-TE",
    ),
    pytest.param(
        b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        400,
        id="smuggling-two-CL",
    ),
    pytest.param(b"GET / HTTP/1.1\nHost: test\n\n", 400, id="bare-LF"),
    pytest.param(b"GET / HTTP/1.1\r\n\r\n", 400, id="no-Host"),
    pytest.param(b"GET / HTTP/3.0\r\nHost: test\r\n\r\n", 505, id="version"),
    pytest.param(b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: test\r\n\r\n", 414, id="long-line"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: test\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431, id="many-headers"),
]


@pytest.mark.parametrize(("data", "status"), REFUSED)
def test_refused(address: Address, data: bytes, status: int) -> None:
    response = exchange(address, data)
    assert response.status == status
    assert response.closes


def test_pipelined(connection: Connection) -> None:
    """Three requests in one packet get three responses in order, a body among them."""
    connection.send(request("GET", "/one") + request("POST", "/echo", body=b"two") + request("GET", "/three"))
    assert json.loads(connection.receive().body)["PATH_INFO"] == "/one"
    assert connection.receive().body == b"two"
    assert json.loads(connection.receive().body)["PATH_INFO"] == "/three"
