"""What a certificate says."""

from __future__ import annotations

import ipaddress
import ssl
import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stardust.tls.certificate import decode
from tests.tls.given import Realm, der

LABEL = st.text(string.ascii_letters + string.digits, min_size=1, max_size=20)


DNS_NAME = st.builds(".".join, st.lists(LABEL, min_size=1, max_size=4))


ADDRESSES = st.ip_addresses().map(str)


class TestDecode:
    def test_it_says_what_openssl_says(self, realm: Realm) -> None:
        for issued in (realm.site, realm.other, realm.rsa, realm.old, realm.locked):
            found = decode(der(issued))
            expected = ssl._ssl._test_decode_cert(str(issued.certificate))  # type: ignore[attr-defined]
            assert found.expires == ssl.cert_time_to_seconds(expected["notAfter"])
            assert sorted(found.names) == sorted(
                name.lower() if kind == "DNS" else str(ipaddress.ip_address(name))
                for kind, name in expected["subjectAltName"]
            )

    def test_issuers_are_found_by_name(self, realm: Realm) -> None:
        root, middle = (
            decode(ssl.PEM_cert_to_DER_cert(each.certificate.read_text()))
            for each in (realm.root, realm.middle)
        )
        assert decode(der(realm.site)).issuer == middle.subject
        assert middle.issuer == root.subject == root.issuer
        assert root.names == ()

    def test_keys_of_different_kinds_are_told_apart(self, realm: Realm) -> None:
        kinds = [decode(der(each)).kind for each in (realm.site, realm.other, realm.rsa)]
        assert kinds[0] == kinds[1] != kinds[2]

    @given(names=st.lists(DNS_NAME | ADDRESSES, max_size=5), data=st.data())
    def test_names_come_back(self, realm: Realm, names: list[str], data: st.DataObject) -> None:
        """Certificates of our own making: openssl(1) would take too long for so many."""
        kind, expires, issuer = data.draw(st.binary(min_size=1, max_size=9)), "20991231235959Z", b"0\0"
        made = certificate(names, kind, issuer, expires)
        found = decode(made)
        assert list(found.names) == [plain(name) for name in names]
        assert (found.kind, found.issuer, found.subject) == (kind, issuer, b"")
        assert time.strftime("%Y%m%d%H%M%SZ", time.gmtime(found.expires)) == expires

    @given(data=st.data())
    def test_damage_is_refused_or_harmless(self, realm: Realm, data: st.DataObject) -> None:
        whole = bytearray(der(realm.site))
        for _ in range(data.draw(st.integers(1, 3))):
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
        try:
            assert decode(bytes(whole)).names is not None
        except ValueError:
            pass

    @given(size=st.integers(0))
    def test_a_part_is_refused(self, realm: Realm, size: int) -> None:
        whole = der(realm.site)
        with pytest.raises(ValueError, match=r"."):
            decode(whole[: size % len(whole)])

    @given(junk=st.binary(max_size=200))
    def test_junk_is_refused(self, junk: bytes) -> None:
        with pytest.raises(ValueError, match=r"."):
            decode(junk)

    @pytest.mark.parametrize(
        "junk",
        [
            pytest.param(b"\x30\x80\0\0", id="indefinite length"),
            pytest.param(b"\x30\x81\x02\x05\0", id="length longer than needed"),
            pytest.param(b"\x30\x82\0\x80" + bytes(128), id="length with a zero before it"),
            pytest.param(b"\x30\x85\1\0\0\0\0", id="length beyond all reason"),
            pytest.param(b"\x3f\x81\x01\0", id="tag of several bytes"),
            pytest.param(b"\x30\0", id="nothing in it"),
            pytest.param(b"\x30\x02\x05\0\0", id="something behind it"),
        ],
    )
    def test_der_has_one_form(self, junk: bytes) -> None:
        with pytest.raises(ValueError, match=r"."):
            decode(junk)


def element(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    if len(body) < 0x80:
        return bytes([tag, len(body)]) + body
    size = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(size)]) + size + body


def certificate(names: list[str], kind: bytes, issuer: bytes, expires: str) -> bytes:
    """A certificate with nothing in it but what `decode` looks at."""
    alternatives = element(0x30, *map(general_name, names)) if names else b""
    extension = element(0x30, element(0x06, b"\x55\x1d\x11"), element(0x04, alternatives))
    fields = [
        element(0xA0, element(0x02, b"\2")),
        element(0x02, b"\1"),
        element(0x30, element(0x06, b"*")),
        element(0x30, issuer),
        element(0x30, element(0x17, b"260101000000Z"), element(0x18, expires.encode())),
        element(0x30),
        element(0x30, element(0x30, element(0x06, kind)), element(0x03, b"\0")),
        *([element(0xA3, element(0x30, extension))] if names else []),
    ]
    return element(0x30, element(0x30, *fields), element(0x30), element(0x03, b"\0"))


def general_name(name: str) -> bytes:
    try:
        return element(0x87, ipaddress.ip_address(name).packed)
    except ValueError:
        return element(0x82, name.encode())


def plain(name: str) -> str:
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name.lower()
