"""Addresses a server listens on: text to `Address` and back.

    127.0.0.1:5000   example.org:80     a host and a port
    [::1]:5000                          an IPv6 address stands in brackets (RFC 3986, 3.2.2: IP-literal)
    :5000                               the wildcard address: every interface
    /run/app.sock    ./app.sock         a UNIX socket's path; it contains a "/"
    @app                                an abstract UNIX socket (unix(7)); no file

And addresses of peers: `peer` makes one of what accept() gives, `Peers` is a set of them.

Pure: no name is resolved and no file looked at. `str(address)` is the canonical text, and
`parse(str(address)) == address`. Runs in the application's interpreter too: Python 3.9.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Iterable
from typing import NamedTuple, Union

TCP = "tcp"
UNIX = "unix"
ABSTRACT = "abstract"

# unix(7): sun_path has 108 bytes; a path needs one of them for its final NUL, an abstract name for its first.
PATH_BYTES = 107

# The original takes "@" or "\0" as the mark of an abstract name. A command line cannot carry a NUL, so its
# two-character spelling counts as well.
_ABSTRACT_MARKS = ("@", "\0", "\\0")

# RFC 952 and RFC 1123, 2.1: letters, digits, hyphens, dots; "_" because resolvers and /etc/hosts take it.
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_DOTTED_DIGITS = re.compile(r"[0-9.]+")
_PORT = re.compile(r"[0-9]{1,5}")
_PREFIX = re.compile(r"[0-9]{1,3}")

# How `Peers` names peers that connect by a UNIX socket.
BY_UNIX = "unix:"

# Peers that are looked up once and remembered.
_KEPT_PEERS = 1024

IP = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]


class Address(NamedTuple):
    """Where to listen. `kind` is "tcp" (`host`, `port`; host "" is the wildcard), "unix" (`path`, the
    file) or "abstract" (`path`, the name without its mark). The fields of the other kinds are "" and 0.
    """

    kind: str
    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.kind == ABSTRACT:
            return "@" + self.path
        if self.kind == UNIX:
            return self.path
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse(text: str) -> Address:
    """The address `text` names. ValueError says which part is wrong and what would be right."""
    for mark in _ABSTRACT_MARKS:
        if text.startswith(mark):
            return Address(ABSTRACT, path=_socket_name(text[len(mark) :]))
    if "/" in text:
        if text.endswith("/"):
            raise ValueError("it names a directory")
        return Address(UNIX, path=_socket_name(text))
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError("it has no port; a UNIX socket's path needs a slash, as in ./app.sock")
    return Address(TCP, host=_host(host), port=_port(port))


def peer(accepted: object) -> tuple[str, str]:
    """Host and port in the address that accept() gave: a plain IP address, and digits.

    TCP gives (host, port, …); anything else is of a UNIX socket: "" and "".
    """
    if not isinstance(accepted, tuple):
        return "", ""
    host, port = str(accepted[0]), str(accepted[1])
    if ":" not in host:
        return host, port
    # RFC 4291 2.5.5.2: on a dual-stack listener an IPv4 client appears as ::ffff:192.0.2.1.
    if host.startswith("::ffff:") and "." in host:
        host = host[7:]
    # RFC 4007 11: what follows "%" is a zone of this machine, no part of the client's address.
    return host.partition("%")[0], port


def ip(text: str) -> IP:
    """The IP address in `text`; ValueError if it is not one, or has a zone ("%eth0"): that is known on one
    machine only."""
    if "%" in text:
        raise ValueError(f"{text} has a zone")
    address = ipaddress.ip_address(text)
    # RFC 4291 2.5.5.2, as in `peer`: one client shall have one address.
    return getattr(address, "ipv4_mapped", None) or address


class Peers:
    """A set of peers: named addresses and networks, and peers at UNIX sockets ("unix:").

        Peers(["192.0.2.1", "2001:db8::/32", "unix:"])

    `host in peers`: `host` is one as `peer` gives it, "" for a UNIX socket's. ValueError says which text is
    none of the three, and what would be right.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        named = [*texts]
        self._unix = BY_UNIX in named
        self._networks = [_network(text) for text in named if text != BY_UNIX]
        self._known = functools.lru_cache(_KEPT_PEERS)(self._look_up)

    def __contains__(self, host: str) -> bool:
        return self._known(host)

    def __bool__(self) -> bool:
        return self._unix or bool(self._networks)

    def _look_up(self, host: str) -> bool:
        if host == "":
            return self._unix
        try:
            address = ip(host)
        except ValueError:  # a sibling says so, and may say anything
            return False
        return any(address in network for network in self._networks)


def _network(text: str) -> Union[ipaddress.IPv4Network, ipaddress.IPv6Network]:
    address, slash, prefix = text.partition("/")
    try:
        first = ipaddress.ip_address(address)
    except ValueError:
        hint = f'; "{BY_UNIX}" means whoever connects by a UNIX socket' if "unix" in text else ""
        raise ValueError(f'"{text}" is not an IP address or network; names are not looked up{hint}') from None
    if "%" in address:
        raise ValueError(f'"{text}" has a zone, which the address of a peer never has')
    if getattr(first, "ipv4_mapped", None):
        raise ValueError(f'"{text}" is an IPv4 address in IPv6; write it as IPv4')
    if slash and (not _PREFIX.fullmatch(prefix) or int(prefix) > first.max_prefixlen):
        raise ValueError(f'"{text}" must end with a number of bits from /0 to /{first.max_prefixlen}')
    network = ipaddress.ip_network(text, strict=False)
    if network.network_address != first:
        raise ValueError(f'"{text}" has bits after its prefix; the network is {network}')
    return network


def _host(text: str) -> str:
    if text.startswith("[") and text.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(text[1:-1]))
        except ValueError:
            raise ValueError(f"{text} is not an IPv6 address") from None
    if ":" in text:
        raise ValueError("an IPv6 address needs brackets, as in [::1]:5000")
    if text == "":
        return text
    if _DOTTED_DIGITS.fullmatch(text):
        try:
            return str(ipaddress.IPv4Address(text))
        except ValueError:
            raise ValueError(f"{text} is not an IPv4 address") from None
    if not _HOST.fullmatch(text):
        raise ValueError(f'"{text}" is not a host name')
    return text


def _port(text: str) -> int:
    if not _PORT.fullmatch(text) or int(text) > 65535:
        raise ValueError(f'port "{text}" is not a number from 0 to 65535')
    return int(text)


def _socket_name(text: str) -> str:
    if text == "":
        raise ValueError("the name after the mark is empty")
    if "\0" in text:
        raise ValueError("it contains a NUL character")
    size = len(text.encode("utf-8", "surrogateescape"))
    if size > PATH_BYTES:
        raise ValueError(f"it has {size} bytes; a UNIX socket's name has at most {PATH_BYTES}")
    return text
