"""What trusted proxies say about the client of a request: their header fields to changes of its environ.

    X-Forwarded-For: 203.0.113.9, 10.0.0.3      each proxy adds who connected to it, at the end
    Forwarded: for=203.0.113.9;proto=https, for=10.0.0.3                                       (RFC 7239)

Whatever a client sends, proxies pass on: it stands at the left, and what proxies have added at the right.
So the list is walked from the right, one proxy after the other, and what is left of the first element that
names no proxy is the client's own invention: it is not even looked at. Rules:

- Only what comes from a trusted peer is looked at, and only the fields that the configuration names. All
  others of `CLAIMS`, and everything that begins like them, never reach an environ (`unheard`).
- The application sees the believed part of a field, and no more: whichever end it reads from, it reads the
  truth.
- What nobody says stays as the connection has it.
- What a trusted proxy says and nobody can understand is a ProtocolError (400). To leave it out would be to
  serve a client under the name of the proxy.

Pure. Runs in the application's interpreter too.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, Optional
from urllib.parse import unquote

from stardust.base import address
from stardust.base.address import Peers
from stardust.base.errors import ClaimError, ProtocolError
from stardust.http1 import grammar
from stardust.http1.head import Head, check_host
from stardust.wsgi.environ import Environ

CLAIMS = frozenset(
    (
        "HTTP_CF_CONNECTING_IP",
        "HTTP_CF_CONNECTING_IPV6",
        "HTTP_CLIENT_IP",
        "HTTP_FASTLY_CLIENT_IP",
        "HTTP_FLY_CLIENT_IP",
        "HTTP_FORWARDED",
        "HTTP_FRONT_END_HTTPS",
        "HTTP_TRUE_CLIENT_IP",
        "HTTP_X_AZURE_CLIENTIP",
        "HTTP_X_CLIENT_IP",
        "HTTP_X_CLUSTER_CLIENT_IP",
        "HTTP_X_ENVOY_EXTERNAL_ADDRESS",
        "HTTP_X_FORWARDED",
        "HTTP_X_FORWARDED_BY",
        "HTTP_X_FORWARDED_FOR",
        "HTTP_X_FORWARDED_HOST",
        "HTTP_X_FORWARDED_PORT",
        "HTTP_X_FORWARDED_PREFIX",
        "HTTP_X_FORWARDED_PROTO",
        "HTTP_X_FORWARDED_PROTOCOL",
        "HTTP_X_FORWARDED_SCHEME",
        "HTTP_X_FORWARDED_SERVER",
        "HTTP_X_FORWARDED_SSL",
        "HTTP_X_ORIGINAL_FORWARDED_FOR",
        "HTTP_X_ORIGINAL_HOST",
        "HTTP_X_ORIGINATING_IP",
        "HTTP_X_PROXYUSER_IP",
        "HTTP_X_REAL_IP",
        "HTTP_X_SCHEME",
        "HTTP_X_SCRIPT_NAME",
        "HTTP_X_URL_SCHEME",
    )
)
"""Fields that say who the client is, or how and where it came in. Applications and their frameworks believe
one or the other, so no client may send any, and of a proxy only those arrive that the configuration names."""

_FAMILY = "HTTP_X_FORWARDED"  # of a client all are removed, X-Forwarded-User of who checks passwords included

# What is no chain: of several values, the last is from who connected to us.
_SAID = (
    "HTTP_X_FORWARDED_PROTO",
    "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_PORT",
    "HTTP_X_FORWARDED_PREFIX",
)

# The schemes of websockets are those of the requests that ask for them.
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_PORTS = {"http": "80", "https": "443"}

_PORT = re.compile(r"[0-9]{1,5}")
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
_NEVER_IN_PATH = re.compile(r"[\x00-\x1f\x7f\\]")
_LONGEST_NODE = 100
_LONGEST_KEPT = 512
_KEPT = 1024


def claims(key: str) -> bool:
    """Whether only a proxy may send this field. `key` is as in an environ."""
    return key in CLAIMS or key.startswith(_FAMILY)


class Unheard:
    """What is removed from heads of strangers. `unheard(key)`: `claims(key)`, but the first that is one
    raises ClaimError instead: somebody may wonder where it has gone."""

    __slots__ = ("_logged",)

    def __init__(self) -> None:
        self._logged = False

    def __call__(self, key: str) -> bool:
        if not claims(key):
            return False
        if not self._logged:
            self._logged = True
            raise ClaimError(key)
        return True


def header_of(key: str) -> str:
    """From "HTTP_X_FORWARDED_FOR" to "X-Forwarded-For"."""
    return key[len("HTTP_") :].title().replace("_", "-")


def key_of(header: str) -> str:
    """From "x-forwarded-for" to its key in an environ."""
    return "HTTP_" + header.upper().replace("-", "_")


class Node(NamedTuple):
    """Who connected to a proxy, as `address.peer` tells it. `hidden`: the proxy keeps it to itself."""

    host: str
    port: str
    hidden: bool = False


class Hop(NamedTuple):
    """What one proxy has added: who connected to it, None if it does not say; where that begins in the field;
    the rest of what it says."""

    name: Optional[str]
    start: int
    pairs: Mapping[str, str]


class Forwarding:
    """Who is believed, and what. `headers` are names of fields as in the configuration; `hops` is how many
    proxies there are, 0 if they are told by their addresses."""

    def __init__(self, proxies: Peers, headers: Iterable[str], hops: int) -> None:
        self.proxies = proxies
        self._heard = frozenset(map(key_of, headers))
        self._hops = hops
        self._keys = (*sorted(self._heard), "HTTP_HOST")  # of what changes depend on
        self._known = functools.lru_cache(_KEPT)(self._read)

    def unheard(self, key: str) -> bool:
        """Whether a field is to be removed though a trusted proxy sent it."""
        return key in CLAIMS and key not in self._heard

    def changes(self, base: Environ, head: Head) -> Mapping[str, str]:
        """What `head` says about its client: keys of the environ to set. `base` is the environ of the
        connection, whose peer is trusted; `head.fields` has no field that is `unheard`.

        Raises ProtocolError (400). Clients come with more than one request: what was read is remembered.
        """
        said = tuple(map(head.fields.get, self._keys))
        scheme: str = base["wsgi.url_scheme"]
        known = sum(map(len, filter(None, said))) <= _LONGEST_KEPT
        changes = self._known(scheme, said) if known else self._read(scheme, said)
        if "SCRIPT_NAME" in changes:
            return {**changes, **_below(changes["SCRIPT_NAME"], head.path)}
        return changes

    def _read(self, scheme: str, said: tuple[Optional[str], ...]) -> Mapping[str, str]:
        """What the values of `_keys` say, on a connection of this scheme."""
        fields = {key: value for key, value in zip(self._keys, said) if value is not None}  # noqa: B905 - 3.9
        told = self._forwarded if "HTTP_FORWARDED" in self._heard else self._x_forwarded
        return told(scheme, fields)

    def _x_forwarded(self, own: str, fields: Mapping[str, str]) -> dict[str, str]:
        changes: dict[str, str] = {}
        chain = fields.get("HTTP_X_FORWARDED_FOR", "")
        node, first = self._walk(_addresses(chain))
        if node is not None and first is not None:
            changes["REMOTE_ADDR"], changes["REMOTE_PORT"] = node.host, node.port or "0"
            changes["HTTP_X_FORWARDED_FOR"] = chain[first.start :].strip(grammar.BLANKS)
        said = {key: fields[key].rpartition(",")[2].strip(grammar.BLANKS) for key in _SAID if key in fields}
        if said:
            changes.update(said)
            scheme, host, port, prefix = (said.get(key, "") for key in _SAID)
            changes.update(_location(own, fields, scheme, host, port))
            if prefix not in ("", "/"):
                changes["SCRIPT_NAME"] = _mounted(prefix)
            if scheme:
                changes["HTTP_X_FORWARDED_PROTO"] = changes["wsgi.url_scheme"]
        return changes

    def _forwarded(self, own: str, fields: Mapping[str, str]) -> dict[str, str]:
        changes: dict[str, str] = {}
        chain = fields.get("HTTP_FORWARDED", "")
        node, first = self._walk(reversed(_elements(chain)))
        if node is not None:
            changes["REMOTE_ADDR"], changes["REMOTE_PORT"] = node.host, node.port or "0"
        if first is not None:
            changes["HTTP_FORWARDED"] = chain[first.start :].strip(grammar.BLANKS)
            scheme, host = first.pairs.get("proto", ""), first.pairs.get("host", "")
            changes.update(_location(own, fields, scheme, host, ""))
        return changes

    def _walk(self, hops: Iterable[Hop]) -> tuple[Optional[Node], Optional[Hop]]:
        """The client, None if nobody tells, and the hop of the proxy that it came to, None without any.

        If there are fewer hops than there should be, who asks has gone around the outermost proxies: the
        first hop tells of him.
        """
        node: Optional[Node] = None
        last: Optional[Hop] = None
        for number, last in enumerate(hops, 1):
            node = node if last.name is None else _node(last.name)
            if self._hops:
                if number == self._hops:
                    break
            elif last.name is None or node is None or node.hidden or node.host not in self.proxies:
                break
        return node, last


def _addresses(chain: str) -> Iterator[Hop]:
    """The elements of X-Forwarded-For from the right. Empty ones count for nothing (RFC 9110 5.6.1.2)."""
    end = len(chain)
    while end >= 0:
        comma = chain.rfind(",", 0, end)
        name = chain[comma + 1 : end].strip(grammar.BLANKS)
        if name:
            yield Hop(name, comma + 1, {})
        end = comma


def _elements(chain: str) -> list[Hop]:
    """The elements of Forwarded, from the left: inside of quotes a comma is none."""
    hops: list[Hop] = []
    position = 0
    while position < len(chain):
        match = grammar.FORWARDED_ELEMENT.match(chain, position)
        assert match is not None  # an element may be empty
        text, position = match[1], match.end()
        if position < len(chain) and chain[position] != ",":
            raise ProtocolError(400, f"Forwarded is malformed from here: {chain[position:][:64]!a}")
        position += 1
        found = grammar.FORWARDED_PAIR.findall(text)
        pairs = {name.lower(): token or _QUOTED_PAIR.sub(r"\1", quoted) for name, token, quoted in found}
        # "Each parameter MUST NOT occur more than once per field-value."  RFC 7239 4
        if len(pairs) < len(found):
            raise ProtocolError(400, f"Forwarded has a parameter twice: {text[:64]!a}")
        if pairs:
            hops.append(Hop(pairs.get("for"), match.start(1), pairs))
    return hops


def _node(name: str) -> Node:
    """The node that a proxy names, in the form of RFC 7239 6, or as X-Forwarded-For has it: an IPv6 address
    bare, and "unix:" as nginx says. Raises ProtocolError."""
    if len(name) > _LONGEST_NODE:
        raise _unknown(name)
    return _short_node(name)


@functools.lru_cache(_KEPT)
def _short_node(name: str) -> Node:
    if name == address.BY_UNIX:
        return Node("", "")
    match = grammar.NODE.fullmatch(name)
    try:
        if match is None:
            return Node(str(address.ip(name)), "")
        four, six, port = match.groups("")
        if not four and not six:
            return Node("", "", hidden=True)
        if int(port or "0") > 65535:
            raise ValueError
        return Node(str(address.ip(four or six)), port)
    except ValueError:
        raise _unknown(name) from None


def _unknown(name: str) -> ProtocolError:
    return ProtocolError(400, f"a proxy sent an invalid address of its client: {name[:64]!a}")


def _location(own: str, fields: Mapping[str, str], scheme: str, host: str, port: str) -> dict[str, str]:
    """Scheme, host and port as the client has them; "" for what nobody says. `own`: the connection's scheme.

    PEP 3333 has HTTP_HOST before SERVER_NAME and SERVER_PORT in the URL, and all of them have to agree.
    """
    if not (scheme or host or port):
        return {}
    changes = {}
    if scheme:
        known = _SCHEMES.get(scheme.lower())
        if known is None:
            raise ProtocolError(400, f"a proxy sent a scheme other than http or https: {scheme[:64]!a}")
        changes["wsgi.url_scheme"] = scheme = known
        if scheme == "https":
            changes["HTTPS"] = "on"
        elif own == "https":
            changes["HTTPS"] = ""  # the connection's own is "on"
    if host:
        check_host(host)
        changes["HTTP_HOST"] = host
    name, its_port = _split(host or fields.get("HTTP_HOST", ""))
    if host:
        changes["SERVER_NAME"] = name
    if port and (not _PORT.fullmatch(port) or not 0 < int(port) <= 65535):
        raise ProtocolError(400, f"a proxy sent an invalid port: {port[:64]!a}")
    changes["SERVER_PORT"] = port or its_port or _PORTS[scheme or own]
    return changes


def _split(host: str) -> tuple[str, str]:
    """Name and port of a Host field, which is valid."""
    match = grammar.HOST.fullmatch(host)
    return (match[1], match[2] or "") if match else ("", "")


def _mounted(prefix: str) -> str:
    """SCRIPT_NAME for an application that its client sees below `prefix`."""
    raw = prefix[:-1] if prefix.endswith("/") else prefix
    name = unquote(raw, "latin-1")
    segments = name.split("/")[1:]
    # "//" would have links lead to another host; what is below ".." is not below the prefix.
    if (
        not grammar.PREFIX.fullmatch(raw)
        or not {"", ".", ".."}.isdisjoint(segments)
        or _NEVER_IN_PATH.search(name)
    ):
        raise ProtocolError(400, f"a proxy sent an invalid path prefix: {prefix[:64]!a}")
    return name


def _below(name: str, path: str) -> dict[str, str]:
    """PATH_INFO without SCRIPT_NAME. Some proxies have taken that off the path, others leave it to us."""
    whole = unquote(path, "latin-1")
    return {"PATH_INFO": whole[len(name) :]} if whole == name or whole.startswith(name + "/") else {}
