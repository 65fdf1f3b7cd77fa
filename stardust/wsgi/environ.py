"""The environ of PEP 3333, built in four layers: worker, listener, connection, request.

Rules:
- Each layer is a copy of the one below with its own keys added, so that a request pays only for what is
  new, and no application can change what the next request sees.
- A client decides about HTTP_*, CONTENT_*, and the request's own lines, about nothing else: no field of a
  head can reach a key without the HTTP_ prefix (CONTENT_TYPE and CONTENT_LENGTH aside).
- Text is PEP 3333's "native string": code points up to U+00FF, each one byte of the client.

Keys of our own, listed here and nowhere else:
    REQUEST_URI, RAW_URI         the request target as it was sent, never decoded
    wsgi.input_terminated        True: reading wsgi.input to its end gives the body, chunked or not
    stardust.input_buffered      True: wsgi.input is seekable and complete before the application is called
    stardust.harakiri            True: the application may set stardust.harakiri.commit, and its worker leaves
                                 after this response
    stardust.socket              the client's socket                                  (added by the worker)
    stardust.informational       callable(status, headers), sends a 1xx response      (added by the worker)
    wsgi.early_hints             callable(headers), sends 103 Early Hints             (added by the worker)
    gunicorn.socket              the client's socket, of a request that asks for WebSocket: libraries look for
                                 it under this name                                   (added by the worker)

On TLS connections, named as in Apache's mod_ssl; "" for what there is not. No client can set one of them:
    HTTPS                        "on"
    SSL_PROTOCOL, SSL_CIPHER     "TLSv1.3", "TLS_AES_256_GCM_SHA384"
    SSL_TLS_SNI                  the name that the client asked for
    SSL_SESSION_RESUMED          "Initial" or "Resumed"
    SSL_CLIENT_VERIFY            "SUCCESS": it has a certificate, of an authority that is trusted; or "NONE"
    SSL_CLIENT_CERT              its certificate in PEM, and what that says:
    SSL_CLIENT_S_DN, _I_DN       subject and issuer, as "CN=Jo Doe,O=Example" (RFC 4514)
    SSL_CLIENT_M_SERIAL          serial number in hexadecimal digits
    SSL_CLIENT_V_START, _V_END   validity, as "Nov 25 12:00:00 2026 GMT"
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Optional, TextIO
from urllib.parse import unquote

from stardust import __version__
from stardust.base.address import Address
from stardust.http1.head import Head

Environ = dict[str, Any]

PER_REQUEST = (
    "REQUEST_METHOD",
    "REQUEST_URI",
    "RAW_URI",
    "PATH_INFO",
    "QUERY_STRING",
    "SERVER_PROTOCOL",
    "wsgi.input",
    "wsgi.early_hints",
    "stardust.socket",
    "stardust.informational",
)
"""Keys that every request fills in. They are there from the first layer on: a dict whose keys are all there
is copied in one piece, and never has to grow."""

WILDCARDS = frozenset(("", "*", "0", "0.0.0.0", "::"))
"""Hosts to listen on that name no machine."""


def server(
    *, multithread: bool, multiprocess: bool, errors: TextIO, file_wrapper: Callable[..., object]
) -> Environ:
    """What holds for every request of a worker. `errors` becomes `wsgi.errors`."""
    return {
        "wsgi.version": (1, 0),
        "wsgi.errors": errors,
        "wsgi.multithread": multithread,
        "wsgi.multiprocess": multiprocess,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        "wsgi.file_wrapper": file_wrapper,
        "stardust.input_buffered": True,
        "stardust.harakiri": True,
        "SERVER_SOFTWARE": f"stardust/{__version__}",
        # PEP 3333: "may be an empty string, if the application corresponds to the "root" of the server."
        "SCRIPT_NAME": "",
        **dict.fromkeys(PER_REQUEST, ""),
    }


def listener(base: Environ, address: Address, host: str, scheme: str = "http") -> Environ:
    """What holds for every connection of a listener at `address`.

    `host` is the name to give for an address that names no machine (":80"). A UNIX socket has no name and
    port to give: "localhost" and "80" then.
    """
    # PEP 3333: "SERVER_NAME and SERVER_PORT are required strings and must never be empty."
    name, port = "localhost", "80"
    if address.kind == "tcp":
        name = host if address.host in WILDCARDS else address.host
        name = "localhost" if name in WILDCARDS else name
        port = str(address.port)
    return {**base, "SERVER_NAME": _bracketed(name), "SERVER_PORT": port, "wsgi.url_scheme": scheme}


def connection(base: Environ, host: str, port: str) -> Environ:
    """What holds for every request of a connection; `host` and `port` are what `address.peer` says.

    REMOTE_ADDR is a plain IP address, and "" for a UNIX socket's peer. REMOTE_PORT is its port in digits, and
    "0" where nobody knows it: applications make a number of it (a2wsgi does).
    """
    result = base.copy()
    result["REMOTE_ADDR"] = host
    result["REMOTE_PORT"] = port or "0"
    return result


def secured(
    base: Environ,
    *,
    protocol: str,
    cipher: str,
    name: str,
    resumed: bool,
    certificate: Optional[Mapping[str, Any]],
    pem: str,
) -> Environ:
    """What holds for every request of a connection that speaks TLS, when its handshake is over.

    `certificate` is the client's, as `ssl` describes it (getpeercert()), None for none; `pem` is its text.
    """
    found = certificate or {}
    return {
        **base,
        "wsgi.url_scheme": "https",
        "HTTPS": "on",
        "SSL_PROTOCOL": protocol,
        "SSL_CIPHER": cipher,
        "SSL_TLS_SNI": name,
        "SSL_SESSION_RESUMED": "Resumed" if resumed else "Initial",
        "SSL_CLIENT_VERIFY": "SUCCESS" if found else "NONE",
        "SSL_CLIENT_CERT": pem,
        "SSL_CLIENT_S_DN": _distinguished(found.get("subject", ())),
        "SSL_CLIENT_I_DN": _distinguished(found.get("issuer", ())),
        "SSL_CLIENT_M_SERIAL": found.get("serialNumber", ""),
        "SSL_CLIENT_V_START": found.get("notBefore", ""),
        "SSL_CLIENT_V_END": found.get("notAfter", ""),
    }


def environ(head: Head) -> Environ:
    """The environ of one request, but for its body: the fields of `head`, which was read with a
    `connection(...)` as its base, and what else it says. Hot path: nothing decoded that needs no decoding.
    """
    path = head.path
    if "%" in path:
        # Each escape once; one that is none ("%zz") is left as it is; "//" and "%2F" as the client had them.
        path = unquote(path, "latin-1")
    result = head.fields
    result["REQUEST_METHOD"] = head.method
    result["REQUEST_URI"] = result["RAW_URI"] = head.target
    result["PATH_INFO"] = path
    result["QUERY_STRING"] = head.query
    result["SERVER_PROTOCOL"] = head.version
    return result


def unchunked(environ: Environ, length: int) -> None:
    """The body of the request came in chunks, and has `length` bytes.

    RFC 9112 7.1.3: a decoder sets Content-Length to the length it found and removes "chunked" from
    Transfer-Encoding, where it is the only coding here.
    """
    del environ["HTTP_TRANSFER_ENCODING"]
    environ["CONTENT_LENGTH"] = str(length)


def _bracketed(host: str) -> str:
    # RFC 3875 4.1.14: server-name = hostname | ipv4-address | ( "[" ipv6-address "]" )
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


# RFC 4514 3, and the attributes that certificates have beside those; `ssl` has OpenSSL's long names.
_SHORT = {
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
    "givenName": "GN",
    "surname": "SN",
}

# RFC 4514 2.4: to be escaped wherever they stand, or at the beginning, or at the end.
_SPECIAL = re.compile(r'[",+;<>\\\x00]|^[ #]| $')

Names = Iterable[Iterable[tuple[str, str]]]


def _distinguished(names: Names) -> str:
    """A distinguished name as RFC 4514 writes it: from the last of its parts to the first.

    As native string: each byte of its UTF-8 one code point.
    """
    parts = [
        "+".join(f"{_SHORT.get(kind, kind)}={_SPECIAL.sub(_escaped, value)}" for kind, value in part)
        for part in names
    ]
    return ",".join(reversed(parts)).encode("utf-8", "replace").decode("latin-1")


def _escaped(special: re.Match[str]) -> str:
    return "\\00" if special[0] == "\0" else "\\" + special[0]
