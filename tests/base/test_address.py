"""stardust.address: text to Address and back."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stardust.base.address import ABSTRACT, TCP, UNIX, Address, Peers, ip, parse, peer

RIGHT = [
    pytest.param("127.0.0.1:5000", Address(TCP, "127.0.0.1", 5000), "127.0.0.1:5000", id="IPv4"),
    pytest.param("example.org:80", Address(TCP, "example.org", 80), "example.org:80", id="host name"),
    pytest.param(
        "my_host-1:80", Address(TCP, "my_host-1", 80), "my_host-1:80", id="host name as resolvers take it"
    ),
    pytest.param("[::1]:80", Address(TCP, "::1", 80), "[::1]:80", id="IPv6, RFC 3986 3.2.2"),
    pytest.param("[0:0::1]:080", Address(TCP, "::1", 80), "[::1]:80", id="IPv6, canonical text"),
    pytest.param("[fe80::1%lo]:80", Address(TCP, "fe80::1%lo", 80), "[fe80::1%lo]:80", id="IPv6 with a zone"),
    pytest.param(":80", Address(TCP, "", 80), ":80", id="wildcard"),
    pytest.param("localhost:0", Address(TCP, "localhost", 0), "localhost:0", id="any free port"),
    pytest.param("/run/x.sock", Address(UNIX, path="/run/x.sock"), "/run/x.sock", id="path"),
    pytest.param("./x.sock", Address(UNIX, path="./x.sock"), "./x.sock", id="relative path"),
    pytest.param("run/a:80", Address(UNIX, path="run/a:80"), "run/a:80", id="path with a colon"),
    pytest.param("@name", Address(ABSTRACT, path="name"), "@name", id="abstract, unix(7)"),
    pytest.param("@a/b:1", Address(ABSTRACT, path="a/b:1"), "@a/b:1", id="abstract with a slash and a colon"),
    pytest.param("\0name", Address(ABSTRACT, path="name"), "@name", id="abstract, the original's NUL"),
    pytest.param(
        r"\0name", Address(ABSTRACT, path="name"), "@name", id="abstract, the original's NUL as typed"
    ),
    pytest.param("/" + 106 * "x", Address(UNIX, path="/" + 106 * "x"), "/" + 106 * "x", id="longest path"),
]

WRONG = [
    pytest.param("", "it has no port", id="empty"),
    pytest.param("5000", "it has no port", id="port alone"),
    pytest.param("app.sock", "a UNIX socket's path needs a slash", id="path without a slash"),
    pytest.param("localhost:", 'port "" is not', id="no port"),
    pytest.param("localhost:http", 'port "http" is not', id="service name"),
    pytest.param("localhost:65536", 'port "65536" is not', id="port too high"),
    pytest.param("localhost:-1", 'port "-1" is not', id="port below 0"),
    pytest.param("localhost:٨٠", "is not a number from 0 to 65535", id="digits that are not ASCII"),
    pytest.param("::1:80", "needs brackets", id="IPv6 without brackets"),
    pytest.param("[::g]:80", "is not an IPv6 address", id="no IPv6 address"),
    pytest.param("256.0.0.1:80", "is not an IPv4 address", id="no IPv4 address"),
    pytest.param("-a:80", '"-a" is not a host name', id="host begins with a hyphen"),
    pytest.param("a b:80", '"a b" is not a host name', id="host with a space"),
    pytest.param("*:80", '"*" is not a host name', id="star"),
    pytest.param("@", "the name after the mark is empty", id="empty abstract name"),
    pytest.param("@a\0b", "NUL", id="NUL in an abstract name"),
    pytest.param("/a\0b", "NUL", id="NUL in a path"),
    pytest.param("/run/", "names a directory", id="directory"),
    pytest.param("/" + 107 * "x", "it has 108 bytes", id="path too long, unix(7)"),
    pytest.param("/" + 54 * "é", "it has 109 bytes", id="too long in bytes"),
]


@pytest.mark.parametrize(("text", "address", "canonical"), RIGHT)
def test_right_text_is_an_address(text: str, address: Address, canonical: str) -> None:
    assert parse(text) == address
    assert str(address) == canonical
    assert parse(canonical) == address


@pytest.mark.parametrize(("text", "reason"), WRONG)
def test_wrong_text_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        parse(text)


@given(st.one_of(st.text(), st.from_regex(r"[@\[]?[0-9a-f:./%]*\]?:?[0-9]{0,5}", fullmatch=True)))
def test_any_text_is_refused_or_has_a_canonical_form(text: str) -> None:
    try:
        address = parse(text)
    except ValueError:
        return
    assert parse(str(address)) == address


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        (("192.0.2.1", 4711), ("192.0.2.1", "4711")),
        (("2001:db8::1", 4711, 0, 0), ("2001:db8::1", "4711")),
        (("::ffff:192.0.2.1", 4711, 0, 0), ("192.0.2.1", "4711")),
        (("::ffff:c000:201", 4711, 0, 0), ("::ffff:c000:201", "4711")),
        (("fe80::1%eth0", 4711, 0, 2), ("fe80::1", "4711")),
        ("", ("", "")),
        (b"", ("", "")),
        (b"\0abstract", ("", "")),
        (None, ("", "")),
    ],
    ids=[
        "ipv4",
        "ipv6",
        "mapped",
        "mapped in hex is not what getnameinfo gives",
        "zone",
        "unix",
        "unnamed",
        "abstract",
        "none",
    ],
)
def test_the_peer(accepted: object, expected: tuple[str, str]) -> None:
    assert peer(accepted) == expected


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::ffff:c000:201", "192.0.2.1"),
    ],
)
def test_ip(text: str, canonical: str) -> None:
    assert str(ip(text)) == canonical


@pytest.mark.parametrize("text", ["", "192.0.2", "192.0.2.01", "fe80::1%lo", "example.org", "192.0.2.1/32"])
def test_what_is_no_ip_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"does not appear|zone"):
        ip(text)


PEERS = Peers(["192.0.2.1", "198.51.100.0/24", "2001:db8::/32", "unix:"])


@pytest.mark.parametrize(
    ("host", "named"),
    [
        pytest.param("192.0.2.1", True, id="L14-address"),
        pytest.param("192.0.2.2", False, id="L14-another"),
        pytest.param("198.51.100.255", True, id="L14-network"),
        pytest.param("198.51.101.0", False, id="L14-beside-the-network"),
        pytest.param("2001:db8:ffff::1", True, id="L14-network-of-IPv6"),
        pytest.param("2001:db9::1", False, id="L14-beside-the-network-of-IPv6"),
        pytest.param("", True, id="L14-unix"),
        pytest.param("192.0.2.1.", False, id="L14-no-address"),
    ],
)
def test_peers(host: str, named: bool) -> None:
    for _ in range(2):
        assert (host in PEERS) is named


def test_l14_nobody() -> None:
    assert not Peers([])
    assert "" not in Peers([])
    assert "" not in Peers(["0.0.0.0/0", "::/0"])
    assert Peers(["unix:"])
    assert "127.0.0.1" not in Peers(["unix:"])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("10.0.0.1/8", "the network is 10.0.0.0/8", id="bits behind the prefix"),
        pytest.param("2001:db8::1/64", "the network is 2001:db8::/64", id="bits behind the prefix of IPv6"),
        pytest.param("10.0.0.0/33", "from /0 to /32", id="prefix too long"),
        pytest.param("::/129", "from /0 to /128", id="prefix of IPv6 too long"),
        pytest.param("10.0.0.0/255.0.0.0", "a number of bits", id="mask"),
        pytest.param("10.0.0.0/", "a number of bits", id="no prefix"),
        pytest.param("10.0.0.0/+8", "a number of bits", id="signed prefix"),
        pytest.param("example.org", "names are not looked up", id="name"),
        pytest.param("unix", '"unix:" means whoever connects', id="unix without its colon"),
        pytest.param("unix:/run/x.sock", '"unix:" means whoever connects', id="unix with a path"),
        pytest.param("", "is not an IP address", id="empty"),
        pytest.param("*", "is not an IP address", id="star"),
        pytest.param("fe80::1%eth0", "has a zone", id="zone"),
        pytest.param("::ffff:10.0.0.0/104", "write it as IPv4", id="IPv4 in IPv6"),
    ],
)
def test_who_is_no_peer(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        Peers(["10.0.0.1", text])
