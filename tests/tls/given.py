"""Certificates that tests of TLS are given, a client that shakes hands, a log that can be read."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from stardust.base.errors import ConfigError, Exit
from stardust.logs.log import Log
from stardust.settings.table import Config
from stardust.tls.identities import Identities, Session
from tests.certificates import Authority, Issued


class Realm(NamedTuple):
    """Who issues, and what was issued: for the whole module, not to be changed."""

    place: Path
    root: Authority
    middle: Authority
    site: Issued
    other: Issued
    rsa: Issued
    old: Issued
    locked: Issued


def config(*certificates: Issued, **more: Any) -> Config:
    names = tuple(str(each.both) for each in certificates)
    return Config(**{"source": "/etc/stardust.toml", "ssl_cert_file": names, **more})


def pair(issued: Issued) -> Config:
    return Config(ssl_cert_file=(str(issued.certificate),), ssl_key_file=(str(issued.key),))


def refused(config: Config) -> str:
    with pytest.raises(ConfigError) as caught:
        Identities(config)
    assert caught.value.exit is Exit.CONFIG
    return str(caught.value)


class Journal(Log):
    """A log that a test reads."""

    __slots__ = ("lines",)

    def __init__(self) -> None:
        super().__init__("worker 1")
        self.lines: list[str] = []

    def _write(self, level: str, text: str, event: object, fields: object) -> None:
        self.lines.append(f"{level}: {text}")


class Client(NamedTuple):
    """What a client has seen of a handshake."""

    certificate: bytes
    chain: int
    session: ssl.SSLSession
    object: ssl.SSLObject
    server: Session


def shake(
    identities: Identities,
    name: str | None = None,
    *,
    version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    resume: ssl.SSLSession | None = None,
    context: ssl.SSLContext | None = None,
) -> Client:
    """A handshake in memory, and a byte each way, so that the client has got its tickets."""
    if context is None:
        context = trusting(version)
    ours, theirs = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = identities.session(ours, theirs)
    client = context.wrap_bio(theirs, ours, server_hostname=name, session=resume)
    waiting: list[Any] = [client, server]
    while waiting:
        for each in waiting[:]:
            try:
                each.do_handshake()
                waiting.remove(each)
            except ssl.SSLWantReadError:
                pass
    server.write(b"x")
    assert client.read(1) == b"x"
    certificate = client.getpeercert(binary_form=True)
    assert certificate is not None
    session = client.session
    assert session is not None
    chain = client._sslobj.get_unverified_chain()  # type: ignore[attr-defined]
    return Client(certificate, len(chain or ()), session, client, server)


def trusting(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    """A client's context that takes any server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    return context


def der(issued: Issued) -> bytes:
    return ssl.PEM_cert_to_DER_cert(issued.certificate.read_text())
