"""The four layers of an environ: one table for each rule of PEP 3333 and RFC 3875 that it obeys."""

from __future__ import annotations

import sys
from typing import Any, Optional
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

import stardust
from stardust.base.address import Address, parse
from stardust.http1.head import CHUNKED, Head
from stardust.wsgi import environ

SERVER = environ.server(multithread=False, multiprocess=True, errors=sys.stderr, file_wrapper=iter)


def head(target: str = "/", fields: Optional[dict[str, str]] = None, length: int = 0) -> Head:
    path, _, query = target.partition("?")
    return Head("GET", target, path, query, "HTTP/1.1", fields or {}, length, False, True)


def build(request: Head, received: Optional[int] = None) -> environ.Environ:
    """All four layers."""
    listening = environ.listener(SERVER, Address("tcp", "127.0.0.1", 5000), "")
    connected = environ.connection(listening, "192.0.2.1", "4711")
    request.fields = {**connected, **request.fields}  # as HeadReader does with its base
    result = environ.environ(request)
    if request.length == CHUNKED:
        environ.unchunked(result, received or 0)
    return result


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("wsgi.version", (1, 0)),
        ("wsgi.url_scheme", "http"),
        ("wsgi.errors", sys.stderr),
        ("wsgi.multithread", False),
        ("wsgi.multiprocess", True),
        ("wsgi.run_once", False),
        ("wsgi.input_terminated", True),
        ("wsgi.file_wrapper", iter),
        ("stardust.harakiri", True),
        ("stardust.input_buffered", True),
        ("REQUEST_METHOD", "GET"),
        ("REQUEST_URI", "/a%20b?c=%20"),
        ("RAW_URI", "/a%20b?c=%20"),
        ("SCRIPT_NAME", ""),
        ("PATH_INFO", "/a b"),
        ("QUERY_STRING", "c=%20"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("SERVER_NAME", "127.0.0.1"),
        ("SERVER_PORT", "5000"),
        ("SERVER_SOFTWARE", f"stardust/{stardust.__version__}"),
        ("REMOTE_ADDR", "192.0.2.1"),
        ("REMOTE_PORT", "4711"),
        ("HTTP_HOST", "example.org"),
        ("HTTP_CONNECTION", "close"),
        ("CONTENT_TYPE", "text/plain"),
        ("CONTENT_LENGTH", "3"),
    ],
)
def test_every_key(key: str, value: object) -> None:
    fields = {
        "HTTP_HOST": "example.org",
        "HTTP_CONNECTION": "close",
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "3",
    }
    assert build(head("/a%20b?c=%20", fields, 3))[key] == value


def test_no_body_no_length() -> None:
    """PEP 3333: "missing variables [...] should be left out of the environ dictionary"."""
    assert "CONTENT_LENGTH" not in build(head())
    assert "CONTENT_TYPE" not in build(head())


def test_it_is_a_plain_dict_of_native_strings() -> None:
    """PEP 3333: "must be a builtin Python dictionary"; CGI variables are of type str."""
    result = build(head("/?x", {"HTTP_X": "\xff"}))
    assert type(result) is dict
    assert all(type(value) is str for key, value in result.items() if key[0].isupper())


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/", "/"),
        ("/plain", "/plain"),
        ("/%2c", "/,"),
        ("/%252c", "/%2c"),
        ("/%e9", "/\xe9"),
        ("/%C3%A9", "/\xc3\xa9"),
        ("/a%2Fb", "/a/b"),
        ("/a%00b", "/a\0b"),
        ("/a%0d%0ab", "/a\r\nb"),
        ("/%", "/%"),
        ("/%4", "/%4"),
        ("/%zz%41", "/%zzA"),
        ("//a///b", "//a///b"),
        ("/a/../b/./c", "/a/../b/./c"),
        ("/a+b", "/a+b"),
        ("/;a=b", "/;a=b"),
        ("/a?b?c", "/a"),
    ],
)
def test_the_path_is_decoded_once(target: str, path: str) -> None:
    result = build(head(target))
    assert result["PATH_INFO"] == path
    assert result["REQUEST_URI"] == result["RAW_URI"] == target


def test_options_asterisk_has_no_path() -> None:
    """http.md 3: `OPTIONS *`: PATH_INFO is empty, RAW_URI `*`."""
    request = Head("OPTIONS", "*", "", "", "HTTP/1.1", {}, 0, False, True)
    result = build(request)
    assert (result["PATH_INFO"], result["RAW_URI"]) == ("", "*")


@given(path=st.binary())
def test_any_bytes_of_a_path_come_through(path: bytes) -> None:
    assert build(head("/" + quote(path)))["PATH_INFO"] == "/" + path.decode("latin-1")


class TestChunkedBody:
    """PEP 3333: servers "must handle any supported inbound "hop-by-hop" headers on their own"."""

    def test_its_length_is_what_was_received(self) -> None:
        result = build(head("/", {"HTTP_TRANSFER_ENCODING": "chunked"}, CHUNKED), received=12)
        assert result["CONTENT_LENGTH"] == "12"
        assert "HTTP_TRANSFER_ENCODING" not in result

    def test_it_may_be_empty(self) -> None:
        result = build(head("/", {"HTTP_TRANSFER_ENCODING": "chunked"}, CHUNKED), received=0)
        assert result["CONTENT_LENGTH"] == "0"


@pytest.mark.parametrize(
    ("address", "host", "expected"),
    [
        ("127.0.0.1:5000", "h", ("127.0.0.1", "5000")),
        ("example.org:80", "h", ("example.org", "80")),
        ("[2001:db8::1]:80", "h", ("[2001:db8::1]", "80")),
        (":8080", "web1", ("web1", "8080")),
        ("0.0.0.0:8080", "web1", ("web1", "8080")),
        ("[::]:8080", "web1", ("web1", "8080")),
        (":8080", "2001:db8::1", ("[2001:db8::1]", "8080")),
        (":8080", "", ("localhost", "8080")),
        (":8080", "*", ("localhost", "8080")),
        (":8080", "0.0.0.0", ("localhost", "8080")),
        ("/run/app.sock", "web1", ("localhost", "80")),
        ("@app", "web1", ("localhost", "80")),
    ],
)
def test_the_server_has_a_name_and_a_port(address: str, host: str, expected: tuple[str, str]) -> None:
    """PEP 3333: they "are required strings and must never be empty"; RFC 3875 4.1.14 brackets IPv6."""
    result = environ.listener(SERVER, parse(address), host)
    assert (result["SERVER_NAME"], result["SERVER_PORT"]) == expected


def test_the_scheme_may_be_another() -> None:
    assert environ.listener(SERVER, parse(":443"), "", "https")["wsgi.url_scheme"] == "https"


JO = {
    "subject": (
        (("countryName", "AT"),),
        (("organizationName", "Doe, Sons + Co"),),
        (("commonName", "Jö"), ("emailAddress", "jo@example.org")),
    ),
    "issuer": ((("domainComponent", "example"),), (("commonName", "Authority"),)),
    "serialNumber": "0ABC",
    "notBefore": "Nov 25 12:00:00 2026 GMT",
    "notAfter": "Nov 25 12:00:00 2027 GMT",
}


def of_tls(certificate: Optional[dict[str, Any]], *, resumed: bool = False) -> environ.Environ:
    pem = "PEM" if certificate else ""
    return environ.secured(
        {"REMOTE_ADDR": "192.0.2.1", "wsgi.url_scheme": "http"},
        protocol="TLSv1.3",
        cipher="ROT13",
        name="a.example",
        resumed=resumed,
        certificate=certificate,
        pem=pem,
    )


def test_tls_without_a_client_certificate() -> None:
    assert of_tls(None) == {
        "REMOTE_ADDR": "192.0.2.1",
        "wsgi.url_scheme": "https",
        "HTTPS": "on",
        "SSL_PROTOCOL": "TLSv1.3",
        "SSL_CIPHER": "ROT13",
        "SSL_TLS_SNI": "a.example",
        "SSL_SESSION_RESUMED": "Initial",
        "SSL_CLIENT_VERIFY": "NONE",
        "SSL_CLIENT_CERT": "",
        "SSL_CLIENT_S_DN": "",
        "SSL_CLIENT_I_DN": "",
        "SSL_CLIENT_M_SERIAL": "",
        "SSL_CLIENT_V_START": "",
        "SSL_CLIENT_V_END": "",
    }


def test_tls_with_a_client_certificate() -> None:
    assert of_tls(JO, resumed=True) == {
        "REMOTE_ADDR": "192.0.2.1",
        "wsgi.url_scheme": "https",
        "HTTPS": "on",
        "SSL_PROTOCOL": "TLSv1.3",
        "SSL_CIPHER": "ROT13",
        "SSL_TLS_SNI": "a.example",
        "SSL_SESSION_RESUMED": "Resumed",
        "SSL_CLIENT_VERIFY": "SUCCESS",
        "SSL_CLIENT_CERT": "PEM",
        "SSL_CLIENT_S_DN": "CN=J\xc3\xb6+emailAddress=jo@example.org,O=Doe\\, Sons \\+ Co,C=AT",
        "SSL_CLIENT_I_DN": "CN=Authority,DC=example",
        "SSL_CLIENT_M_SERIAL": "0ABC",
        "SSL_CLIENT_V_START": "Nov 25 12:00:00 2026 GMT",
        "SSL_CLIENT_V_END": "Nov 25 12:00:00 2027 GMT",
    }


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("#1", "\\#1"),
        ("a#", "a#"),
        (" a b ", "\\ a b\\ "),
        (" ", "\\ "),
        ('"<;>"', '\\"\\<\\;\\>\\"'),
        ("a\\b=c", "a\\\\b=c"),
        ("a\0b", "a\\00b"),
        ("CN=other,CN=", "CN=other\\,CN="),
    ],
)
def test_nothing_in_a_name_poses_as_another_part(value: str, written: str) -> None:
    subject = ((("commonName", value),),)
    assert of_tls({**JO, "subject": subject})["SSL_CLIENT_S_DN"] == f"CN={written}"


def test_no_layer_changes_the_one_below() -> None:
    before = dict(SERVER)
    result = build(head())
    result.clear()
    assert before == SERVER


@given(name=st.from_regex(r"HTTP_[A-Z_]+", fullmatch=True), value=st.text(max_size=5))
def test_a_client_reaches_no_key_but_its_own(name: str, value: str) -> None:
    ours = build(head())
    theirs = build(head("/", {name: value}))
    theirs.pop(name)
    assert {key: value for key, value in theirs.items() if key != "wsgi.input"} == {
        key: value for key, value in ours.items() if key != "wsgi.input"
    }
