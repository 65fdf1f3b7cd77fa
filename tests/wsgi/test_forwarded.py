"""Who is believed: a row for each rule, and that nothing a client sends is ever taken for a proxy's word."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stardust.base.address import Peers
from stardust.base.errors import ClaimError, ProtocolError
from stardust.http1.head import Head, HeadReader, Limits
from stardust.settings.kinds import FORWARDED_HEADERS
from stardust.wsgi import forwarded
from stardust.wsgi.forwarded import Forwarding

PROXIES = ["10.0.0.0/8", "2001:db8:1::/48", "unix:"]
ALL = [name for name in FORWARDED_HEADERS if name != "forwarded"]
BASE = {
    "REMOTE_ADDR": "10.0.0.1",
    "REMOTE_PORT": "5",
    "wsgi.url_scheme": "http",
    "SERVER_NAME": "localhost",
    "SERVER_PORT": "5000",
    "SCRIPT_NAME": "",
}
LIMITS = Limits(8190, 100, 65536)


def told(
    *lines: str,
    headers: Any = ALL,
    hops: int = 0,
    proxies: Any = PROXIES,
    path: str = "/p/q",
    base: Any = BASE,
) -> dict[str, str]:
    """All that a request with these lines changes, its fields included, read as from a trusted peer."""
    forwarding = Forwarding(Peers(proxies), headers, hops)
    data = "\r\n".join([f"GET {path} HTTP/1.1", "Host: a", *lines, "", ""]).encode("latin-1")
    found = HeadReader(LIMITS, forwarding.unheard).read(data)
    assert found is not None
    head: Head = found[0]
    return {**head.fields, **forwarding.changes(base, head)}


def client(*lines: str, **options: Any) -> tuple[str, str]:
    environ = {**BASE, **told(*lines, **options)}
    return environ["REMOTE_ADDR"], environ["REMOTE_PORT"]


@pytest.mark.parametrize(
    ("chain", "host", "kept"),
    [
        pytest.param("203.0.113.9", "203.0.113.9", "203.0.113.9", id="L14-one"),
        pytest.param("6.6.6.6, 203.0.113.9", "203.0.113.9", "203.0.113.9", id="L14-a-lie-before-it"),
        pytest.param(
            "6.6.6.6, 203.0.113.9, 10.0.0.3", "203.0.113.9", "203.0.113.9, 10.0.0.3", id="L14-two-proxies"
        ),
        pytest.param('junk", \\, 203.0.113.9', "203.0.113.9", "203.0.113.9", id="L14-junk-before-it"),
        pytest.param("10.0.0.9, 10.0.0.3", "10.0.0.9", "10.0.0.9, 10.0.0.3", id="L14-all-trusted"),
        pytest.param("6.6.6.6, unix:, 10.0.0.3", "6.6.6.6", "6.6.6.6, unix:, 10.0.0.3", id="L14-unix"),
        pytest.param("unix:", "", "unix:", id="L14-unix-alone"),
        pytest.param("6.6.6.6, unknown", "", "unknown", id="L14-unknown"),
        pytest.param("203.0.113.9,, ,", "203.0.113.9", "203.0.113.9,, ,", id="L14-empty-elements"),
        pytest.param("2001:DB8::1", "2001:db8::1", "2001:DB8::1", id="L14-six"),
        pytest.param("::ffff:203.0.113.9", "203.0.113.9", "::ffff:203.0.113.9", id="L14-mapped"),
        pytest.param(
            "6.6.6.6, ::ffff:10.0.0.3", "6.6.6.6", "6.6.6.6, ::ffff:10.0.0.3", id="L14-mapped-proxy"
        ),
        pytest.param("[2001:db8::1]", "2001:db8::1", "[2001:db8::1]", id="L14-six-in-brackets"),
    ],
)
def test_x_forwarded_for(chain: str, host: str, kept: str) -> None:
    environ = told(f"X-Forwarded-For: {chain}")
    assert environ["REMOTE_ADDR"] == host
    assert environ["HTTP_X_FORWARDED_FOR"] == kept
    assert environ["REMOTE_PORT"] == "0"


def test_l14_lines_are_one_list() -> None:
    assert client("X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 203.0.113.9") == ("203.0.113.9", "0")


@pytest.mark.parametrize(
    ("chain", "port"),
    [
        pytest.param("203.0.113.9:4711", "4711", id="L14-port"),
        pytest.param("[2001:db8::1]:65535", "65535", id="L14-six-with-port"),
        pytest.param("203.0.113.9:_x", "0", id="L14-hidden-port"),
    ],
)
def test_port_of_the_client(chain: str, port: str) -> None:
    assert client(f"X-Forwarded-For: {chain}")[1] == port


@pytest.mark.parametrize(
    ("hops", "chain", "host"),
    [
        pytest.param(1, "203.0.113.9, 10.0.0.3", "10.0.0.3", id="L14-one-hop"),
        pytest.param(2, "6.6.6.6, 203.0.113.9, 198.51.100.1", "203.0.113.9", id="L14-two-hops"),
        pytest.param(3, "203.0.113.9, 198.51.100.1", "203.0.113.9", id="L14-fewer-than-that"),
        pytest.param(2, "unknown, 198.51.100.1", "", id="L14-unknown-at-its-place"),
    ],
)
def test_hops(hops: int, chain: str, host: str) -> None:
    """So many proxies, whatever their addresses are."""
    assert client(f"X-Forwarded-For: {chain}", hops=hops)[0] == host
    elements = ", ".join(f"for={each}" for each in chain.split(", "))
    assert client(f"Forwarded: {elements}", hops=hops, headers=["forwarded"])[0] == host


def test_l14_what_nobody_says_stays() -> None:
    assert told() == {"HTTP_HOST": "a"}
    assert told(headers=["forwarded"]) == {"HTTP_HOST": "a"}
    assert told("X-Forwarded-For:", "X-Forwarded-Proto: ") == {
        "HTTP_HOST": "a",
        "HTTP_X_FORWARDED_FOR": "",
        "HTTP_X_FORWARDED_PROTO": "",
    }


@pytest.mark.parametrize(
    ("line", "changes"),
    [
        pytest.param(
            "X-Forwarded-Proto: https",
            {"wsgi.url_scheme": "https", "HTTPS": "on", "SERVER_PORT": "443"},
            id="L14-https",
        ),
        pytest.param(
            "X-Forwarded-Proto: http", {"wsgi.url_scheme": "http", "SERVER_PORT": "80"}, id="L14-http"
        ),
        pytest.param(
            "X-Forwarded-Proto: WSS",
            {
                "wsgi.url_scheme": "https",
                "HTTPS": "on",
                "SERVER_PORT": "443",
                "HTTP_X_FORWARDED_PROTO": "https",
            },
            id="L14-wss",
        ),
        pytest.param(
            "X-Forwarded-Proto: https, http",
            {"wsgi.url_scheme": "http", "SERVER_PORT": "80", "HTTP_X_FORWARDED_PROTO": "http"},
            id="L14-last-scheme",
        ),
        pytest.param(
            "X-Forwarded-Host: example.org",
            {"HTTP_HOST": "example.org", "SERVER_NAME": "example.org", "SERVER_PORT": "80"},
            id="L14-host",
        ),
        pytest.param(
            "X-Forwarded-Host: evil, [2001:db8::1]:8080",
            {
                "HTTP_HOST": "[2001:db8::1]:8080",
                "SERVER_NAME": "[2001:db8::1]",
                "SERVER_PORT": "8080",
                "HTTP_X_FORWARDED_HOST": "[2001:db8::1]:8080",
            },
            id="L14-last-host",
        ),
        pytest.param("X-Forwarded-Port: 8443", {"SERVER_PORT": "8443"}, id="L14-port"),
        pytest.param("X-Forwarded-Prefix: /p", {"SCRIPT_NAME": "/p", "PATH_INFO": "/q"}, id="L14-prefix"),
        pytest.param("X-Forwarded-Prefix: /p/", {"SCRIPT_NAME": "/p", "PATH_INFO": "/q"}, id="L14-slash"),
        pytest.param("X-Forwarded-Prefix: /p/q", {"SCRIPT_NAME": "/p/q", "PATH_INFO": ""}, id="L14-whole"),
        pytest.param("X-Forwarded-Prefix: /%70", {"SCRIPT_NAME": "/p", "PATH_INFO": "/q"}, id="L14-escape"),
        pytest.param("X-Forwarded-Prefix: /e, /p/q/r", {"SCRIPT_NAME": "/p/q/r"}, id="L14-taken-off"),
        pytest.param("X-Forwarded-Prefix: /p/", {"SCRIPT_NAME": "/p"}, id="L14-not-half-a-segment"),
        pytest.param("X-Forwarded-Prefix: /", {}, id="L14-root"),
    ],
)
def test_where_the_client_sees_it(line: str, changes: dict[str, str]) -> None:
    path = "/pq" if changes == {"SCRIPT_NAME": "/p"} else "/p/q"
    name, _, value = line.partition(": ")
    key = forwarded.key_of(name)
    assert told(line, path=path) == {"HTTP_HOST": "a", key: value.rpartition(", ")[2], **changes}


def test_l14_scheme_and_host_and_port_agree() -> None:
    lines = ["X-Forwarded-Proto: https", "X-Forwarded-Host: b:81", "X-Forwarded-Port: 82"]
    assert told(*lines)["SERVER_PORT"] == "82"
    assert told(*lines[:2])["SERVER_PORT"] == "81"
    secure = {**BASE, "HTTPS": "on", "wsgi.url_scheme": "https"}
    assert told("X-Forwarded-Proto: https", base=secure)["HTTPS"] == "on"
    assert told("X-Forwarded-Proto: http", base=secure)["HTTPS"] == ""
    assert told("X-Forwarded-Host: b", base=secure)["SERVER_PORT"] == "443"


def test_what_is_remembered_is_right() -> None:
    """The same for the next request, and another for another one, by the same reader."""
    forwarding = Forwarding(Peers(PROXIES), ALL, 0)

    def changes(client: str, path: str = "/p/q") -> Any:
        fields = {"HTTP_HOST": "a", "HTTP_X_FORWARDED_FOR": client, "HTTP_X_FORWARDED_PREFIX": "/p"}
        found = forwarding.changes(BASE, Head("GET", path, path, "", "HTTP/1.1", fields, 0, False, True))
        return found["REMOTE_ADDR"], found.get("PATH_INFO")

    for _ in range(2):
        assert changes("203.0.113.1") == ("203.0.113.1", "/q")
        assert changes("203.0.113.2") == ("203.0.113.2", "/q")
        assert changes("203.0.113.1", path="/p/r") == ("203.0.113.1", "/r")
        assert changes("203.0.113.1", path="/r") == ("203.0.113.1", None)
        assert changes("x" * 600 + ", 203.0.113.1") == ("203.0.113.1", "/q")
    assert forwarding._known.cache_info().currsize == 2


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("X-Forwarded-For: example.org", id="L14-name"),
        pytest.param("X-Forwarded-For: 203.0.113.9:", id="L14-empty-port"),
        pytest.param("X-Forwarded-For: 203.0.113.9:65536", id="L14-client-port-above"),
        pytest.param("X-Forwarded-For: 203.0.113.999", id="L14-no-address"),
        pytest.param("X-Forwarded-For: [203.0.113.9]", id="L14-four-in-brackets-is-none"),
        pytest.param("X-Forwarded-For: 203.0.113.9 10.0.0.1", id="L14-blank"),
        pytest.param("X-Forwarded-For: fe80::1%eth0", id="L14-zone"),
        pytest.param("X-Forwarded-For: _" + "a" * 500, id="L14-long"),
        pytest.param("X-Forwarded-For: oops, 10.0.0.3", id="L14-reached-by-the-walk"),
        pytest.param("X-Forwarded-Proto: gopher", id="L14-scheme"),
        pytest.param("X-Forwarded-Host: a/b", id="L14-path-in-host"),
        pytest.param("X-Forwarded-Host: u@b", id="L14-user-in-host"),
        pytest.param("X-Forwarded-Host: a:65536", id="L14-port-of-host"),
        pytest.param("X-Forwarded-Port: 0", id="L14-port-zero"),
        pytest.param("X-Forwarded-Port: 65536", id="L14-port-above"),
        pytest.param("X-Forwarded-Port: +80", id="L14-signed-port"),
        pytest.param("X-Forwarded-Port: \xb2", id="L14-digits-are-ascii"),
        pytest.param("X-Forwarded-Prefix: p", id="L14-relative-prefix"),
        pytest.param("X-Forwarded-Prefix: /p/../q", id="L14-dots"),
        pytest.param("X-Forwarded-Prefix: /p/%2e%2E", id="L14-dots-escaped"),
        pytest.param("X-Forwarded-Prefix: //evil.example", id="L14-other-host"),
        pytest.param("X-Forwarded-Prefix: /%2fevil.example", id="L14-other-host-escaped"),
        pytest.param("X-Forwarded-Prefix: /p%0d%0aX", id="L14-line-end-in-prefix"),
        pytest.param("X-Forwarded-Prefix: /%5cevil", id="L14-backslash"),
        pytest.param("X-Forwarded-Prefix: /p%09", id="L14-tab-in-prefix"),
        pytest.param("X-Forwarded-Prefix: /p?q", id="L14-query-in-prefix"),
        pytest.param("X-Forwarded-Prefix: //", id="L14-slashes"),
    ],
)
def test_a_proxy_that_nobody_understands(line: str) -> None:
    with pytest.raises(ProtocolError) as refused:
        told(line)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("value", "changes"),
    [
        pytest.param("for=203.0.113.9", {"REMOTE_ADDR": "203.0.113.9"}, id="L14-token"),
        pytest.param('FOR="203.0.113.9:4711"', {"REMOTE_PORT": "4711"}, id="L14-quoted-with-port"),
        pytest.param('for="[2001:DB8::1]"', {"REMOTE_ADDR": "2001:db8::1"}, id="L14-rfc7239-6-six"),
        pytest.param('for="\\2\\0\\3.0.113.9"', {"REMOTE_ADDR": "203.0.113.9"}, id="L14-quoted-pairs"),
        pytest.param("for=_hidden", {"REMOTE_ADDR": "", "REMOTE_PORT": "0"}, id="L14-rfc7239-6.3-obfuscated"),
        pytest.param('for="_hidden:_port"', {"REMOTE_ADDR": ""}, id="L14-rfc7239-6-obfuscated-port"),
        pytest.param("for=unknown", {"REMOTE_ADDR": ""}, id="L14-rfc7239-6.2-unknown"),
        pytest.param(
            "for=6.6.6.6;proto=https , for=203.0.113.9;by=10.0.0.2",
            {"REMOTE_ADDR": "203.0.113.9", "HTTP_FORWARDED": "for=203.0.113.9;by=10.0.0.2"},
            id="L14-a-lie-before-it",
        ),
        pytest.param(
            'for=6.6.6.6,for=203.0.113.9;proto=https;host="b:81",for=10.0.0.2;proto=http;host=c',
            {
                "REMOTE_ADDR": "203.0.113.9",
                "wsgi.url_scheme": "https",
                "HTTPS": "on",
                "HTTP_HOST": "b:81",
                "SERVER_NAME": "b",
                "SERVER_PORT": "81",
            },
            id="L14-of-the-proxy-that-saw-the-client",
        ),
        pytest.param('for=6.6.6.6, x=", for=10.0.0.2",', {"SERVER_PORT": "5000"}, id="L14-comma-in-quotes"),
        pytest.param("for=203.0.113.9, proto=https", {"REMOTE_ADDR": "10.0.0.1"}, id="L14-without-for"),
        pytest.param(
            "for=6.6.6.6, proto=https, for=10.0.0.7", {"REMOTE_ADDR": "10.0.0.7"}, id="L14-inner-without-for"
        ),
        pytest.param(";;for=203.0.113.9;, ,", {"REMOTE_ADDR": "203.0.113.9"}, id="L14-rfc7239-4-empty"),
    ],
)
def test_forwarded(value: str, changes: dict[str, str]) -> None:
    environ = {**BASE, **told(f"Forwarded: {value}", headers=["forwarded"])}
    assert {key: environ[key] for key in changes} == changes


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("for", id="L14-no-pair"),
        pytest.param("for=", id="L14-no-value"),
        pytest.param("for =203.0.113.9", id="L14-blank-before-equals"),
        pytest.param("for=203.0.113.9; proto=http", id="L14-blank-after-semicolon"),
        pytest.param("for=[2001:db8::1]", id="L14-brackets-unquoted"),
        pytest.param('for="203.0.113.9', id="L14-open-quote"),
        pytest.param('for="a"b', id="L14-behind-a-quote"),
        pytest.param("for=203.0.113.9;For=6.6.6.6", id="L14-rfc7239-4-twice"),
        pytest.param("for=203.0.113.9 for=6.6.6.6", id="L14-no-comma"),
        pytest.param('for="a\x80\\"', id="L14-quote-escaped"),
        pytest.param("for=example", id="L14-name"),
        pytest.param('for=203.0.113.9;host="a/b"', id="L14-host"),
        pytest.param("for=203.0.113.9;proto=gopher", id="L14-scheme"),
        pytest.param('y=", for=203.0.113.9', id="L14-quote-that-swallows-the-proxys"),
    ],
)
def test_forwarded_refused(value: str) -> None:
    with pytest.raises(ProtocolError) as refused:
        told(f"Forwarded: {value}", headers=["forwarded"])
    assert refused.value.status == 400


# --- what is removed ---------------------------------------------------------------------------------------

WIRE = sorted(key[len("HTTP_") :].replace("_", "-") for key in forwarded.CLAIMS)


@pytest.mark.parametrize("name", [*WIRE, "X-Forwarded-User", "x-forwarded-tls-client-cert"])
def test_l14_nothing_of_a_client_s(name: str) -> None:
    data = f"GET / HTTP/1.1\r\nHost: a\r\n{name}: 192.0.2.1\r\n\r\n".encode()
    reader = HeadReader(LIMITS, forwarded.claims)
    for _ in range(2):  # the second time from the table
        found = reader.read(data)
        assert found is not None
        assert found[0].fields == {"HTTP_HOST": "a"}


def test_l14_the_first_claim_is_told_of() -> None:
    unheard = forwarded.Unheard()
    assert not unheard("HTTP_HOST")
    with pytest.raises(ClaimError) as told:
        unheard("HTTP_X_REAL_IP")
    assert forwarded.header_of(told.value.key) == "X-Real-Ip"
    assert unheard("HTTP_X_REAL_IP")


@pytest.mark.parametrize("name", WIRE)
def test_l14_of_a_proxy_only_what_is_believed(name: str) -> None:
    key = forwarded.key_of(name)
    for headers in (ALL, ["forwarded"], []):
        heard = name.lower() in headers
        value = {"X-FORWARDED-PROTO": "http", "X-FORWARDED-PORT": "1", "X-FORWARDED-PREFIX": "/x"}
        value |= {"FORWARDED": "for=192.0.2.1"}
        environ = told(f"{name}: {value.get(name, '192.0.2.1')}", headers=headers)
        assert (key in environ) is heard


def test_l14_of_a_proxy_what_is_no_claim_stays() -> None:
    """X-Forwarded-User is the word of a proxy that checks passwords."""
    assert told("X-Forwarded-User: me")["HTTP_X_FORWARDED_USER"] == "me"


def test_the_table_has_what_can_be_believed() -> None:
    assert set(map(forwarded.key_of, FORWARDED_HEADERS)) <= forwarded.CLAIMS


# --- lies --------------------------------------------------------------------------------------------------

LIE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=60)
PROXY = st.sampled_from(["10.0.0.3", "2001:db8:1::5", "::ffff:10.9.9.9", "unix:"])


def answer(*lines: str, **options: Any) -> dict[str, str] | int:
    try:
        return told(*lines, **options)
    except ProtocolError as refusal:
        return refusal.status


@given(LIE, st.ip_addresses(), st.lists(PROXY, max_size=4))
def test_l14_no_client_names_its_address(lie: str, address: Any, proxies: list[str]) -> None:
    if str(address) in Peers(PROXIES) or getattr(address, "ipv4_mapped", None):
        return
    honest = ", ".join([str(address), *proxies])
    environ = told(f"X-Forwarded-For: {lie}, {honest}")
    assert environ["REMOTE_ADDR"] == str(address)
    assert environ == {**told(f"X-Forwarded-For: {honest}")}
    hops = told(f"X-Forwarded-For: {lie}, {honest}", hops=len(proxies) + 1, proxies=["10.0.0.1"])
    assert hops == environ


@given(LIE, st.sampled_from(ALL[1:]), st.sampled_from(["https", "example.org", "80", "/pre"]))
def test_l14_no_client_names_scheme_or_host_or_prefix(lie: str, name: str, honest: str) -> None:
    truth = answer(f"{name}: {honest}")
    assert answer(f"{name}: {lie}", f"{name}: {honest}") == truth
    assert answer(f"{name}: {lie}, {honest}") == truth


PAIRS = st.lists(
    st.sampled_from(['for="a,b"', "for=6.6.6.6", "proto=https", 'x="\\",for=1.1.1.1"', "host=evil", ""])
)


@given(PAIRS, LIE, st.ip_addresses(v=4), st.lists(st.sampled_from(["10.0.0.3", "10.1.1.1"]), max_size=3))
def test_l14_forwarded_is_the_truth_or_refused(
    pairs: list[str], junk: str, address: Any, proxies: list[str]
) -> None:
    if str(address) in Peers(PROXIES):
        return
    honest = ", ".join([f"for={address};proto=http", *(f"for={each};proto=http" for each in proxies)])
    truth = told(f"Forwarded: {honest}", headers=["forwarded"])
    assert told(f"Forwarded: {','.join(pairs)}, {honest}", headers=["forwarded"]) == truth
    assert answer(f"Forwarded: {junk}, {honest}", headers=["forwarded"]) in (truth, 400)


@given(st.text(st.characters(max_codepoint=0xFF, exclude_categories=["Cc"])), st.sampled_from([0, 1, 3]))
def test_nothing_but_a_protocol_error(value: str, hops: int) -> None:
    for name in ALL:
        answer(f"{name}: {value}", hops=hops)
    answer(f"Forwarded: {value}", hops=hops, headers=["forwarded"])
