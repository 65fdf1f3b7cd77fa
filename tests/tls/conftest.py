"""Certificates for the tests of TLS."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.certificates import RSA, Authority, Issued
from tests.tls.given import Realm


@pytest.fixture(scope="module")
def realm(tmp_path_factory: pytest.TempPathFactory) -> Realm:
    place = tmp_path_factory.mktemp("realm")
    root = Authority(place, "root")
    middle = Authority(place, "middle", root)
    return Realm(
        place,
        root,
        middle,
        middle.issue("www.example.com", sans=["DNS:www.Example.com", "DNS:*.shop.example", "IP:::1"]),
        middle.issue("other.example"),
        root.issue("rsa.example", kind=RSA),
        root.issue("old.example", days=-1),
        root.issue("locked.example", password="pass word"),
    )


@pytest.fixture
def served(realm: Realm, tmp_path: Path) -> Issued:
    """A certificate that may be changed."""
    copies = [tmp_path / each.name for each in realm.site]
    for copy, original in zip(copies, realm.site, strict=True):
        copy.write_bytes(original.read_bytes())
    return Issued(*copies)
