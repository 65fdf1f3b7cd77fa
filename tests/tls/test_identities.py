"""stardust.tls: what a certificate says, what is wrong with files, who is presented to whom, and renewal."""

from __future__ import annotations

import errno
import ipaddress
import ssl
import string
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stardust.base.errors import ConfigError, Exit
from stardust.base.records import replace
from stardust.logs.log import Log
from stardust.settings.table import Config
from stardust.tls import identities as tls
from stardust.tls.identities import Identities, decode
from tests.certificates import RSA, Authority, Issued


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


def config(*certificates: Issued, **more: Any) -> Config:
    names = tuple(str(each.both) for each in certificates)
    return Config(**{"source": "/etc/stardust.toml", "ssl_cert_file": names, **more})


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
    server: tls.Session


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


# ── What a certificate says ───────────────────────────────────────────────────────────────────────────


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


# ── Files ─────────────────────────────────────────────────────────────────────────────────────────────


def refused(config: Config) -> str:
    with pytest.raises(ConfigError) as caught:
        Identities(config)
    assert caught.value.exit is Exit.CONFIG
    return str(caught.value)


class TestFiles:
    def test_a_pair_may_be_two_files_or_one(self, realm: Realm) -> None:
        site = realm.site
        parted = replace(Config(), ssl_cert_file=(str(site.certificate),), ssl_key_file=(str(site.key),))
        for each in (parted, config(site), config(site, ssl_key_file=(str(site.both),))):
            assert shake(Identities(each)).certificate == der(site)

    def test_passwords(self, realm: Realm, tmp_path: Path) -> None:
        right, wrong = tmp_path / "right", tmp_path / "wrong"
        right.write_bytes(b"pass word\r\nof the key\n")
        wrong.write_bytes(b"\npass word\n")
        locked = config(realm.locked)
        found = Identities(replace(locked, ssl_key_password_file=str(right)))
        assert shake(found).certificate == der(realm.locked)
        assert refused(locked) == (
            f"/etc/stardust.toml: ssl-cert-file: {realm.locked.both}: the key is encrypted, and there is no "
            "ssl-key-password-file"
        )
        assert refused(replace(locked, ssl_key_password_file=str(wrong))) == (
            f"/etc/stardust.toml: ssl-key-password-file: {wrong}: its first line is not the password of "
            f"{realm.locked.both}"
        )

    @pytest.mark.parametrize("key", ["other", "rsa"])
    def test_a_key_of_another_certificate(self, realm: Realm, key: str) -> None:
        stranger: Issued = getattr(realm, key)
        assert refused(config(realm.site, ssl_key_file=(str(stranger.key),))) == (
            f"/etc/stardust.toml: ssl-key-file: {stranger.key}: this key does not belong to the certificate "
            f"in {realm.site.both}"
        )

    def test_files_that_hold_something_else(self, realm: Realm, tmp_path: Path) -> None:
        site = realm.site
        for setting, path, what in (
            ("ssl_cert_file", site.key, "there is no certificate in it, in PEM"),
            ("ssl_cert_file", site.certificate, "there is no private key in it, in PEM"),
            ("ssl_cert_file", tmp_path, "cannot be read: Is a directory"),
            ("ssl_key_file", tmp_path / "none", "cannot be read: No such file or directory"),
            ("ssl_ca_file", site.key, "there is no certificate in it, in PEM"),
        ):
            value = str(path) if setting == "ssl_ca_file" else (str(path),)
            key = setting.replace("_", "-")
            found = refused(config(site, **{setting: value}))
            assert found == f"/etc/stardust.toml: {key}: {path}: {what}"

    def test_damage_is_told_with_its_place(self, realm: Realm, tmp_path: Path) -> None:
        damaged = tmp_path / "chain.pem"
        lines = realm.middle.certificate.read_text().splitlines()
        lines[2:4] = []
        damaged.write_text(realm.site.both.read_text() + "\n".join(lines))
        site = replace(config(realm.site), ssl_cert_file=(str(damaged),))
        assert f"ssl-cert-file: {damaged}: certificate 2 in it is damaged: " in refused(site)

    def test_ciphers_that_nobody_knows(self, realm: Realm) -> None:
        assert refused(config(realm.site, ssl_ciphers="ROT13")) == (
            "/etc/stardust.toml: ssl-ciphers: must be a list of ciphers that this OpenSSL knows "
            '(openssl-ciphers(1)), not "ROT13"'
        )

    def test_without_a_file_the_command_line_is_named(self, realm: Realm) -> None:
        assert refused(config(realm.site, source="", ssl_ciphers="x")).startswith(
            "command line: ssl-ciphers:"
        )

    def test_an_expired_certificate_is_served_with_a_warning(self, realm: Realm) -> None:
        found = Identities(config(realm.site, realm.old))
        [warning] = found.warnings()
        day = time.strftime("%Y-%m-%d", time.gmtime(decode(der(realm.old)).expires))
        assert warning == (f"{realm.old.both}: the certificate has expired on {day}; clients will refuse it")
        assert Identities(config(realm.site)).warnings() == []

    def test_the_chain_is_completed_from_the_authorities(self, realm: Realm, tmp_path: Path) -> None:
        """Up to the root, which is left out; and no more than that of a bundle."""
        bundle = tmp_path / "bundle.pem"
        stranger = Authority(tmp_path, "stranger")
        authorities = [stranger.certificate, realm.root.certificate, realm.middle.certificate]
        bundle.write_text("".join(each.read_text() for each in authorities))
        assert shake(Identities(config(realm.site))).chain == 1
        assert shake(Identities(config(realm.site, ssl_ca_file=str(bundle)))).chain == 2
        whole = tmp_path / "whole.pem"
        whole.write_text(realm.site.both.read_text() + realm.middle.certificate.read_text())
        complete = replace(config(realm.site, ssl_ca_file=str(bundle)), ssl_cert_file=(str(whole),))
        assert shake(Identities(complete)).chain == 2


# ── Who is presented to whom ──────────────────────────────────────────────────────────────────────────


class TestNames:
    @pytest.mark.parametrize(
        ("name", "chosen"),
        [
            pytest.param("www.example.com", "site", id="as it stands"),
            pytest.param("WWW.EXAMPLE.COM", "site", id="case does not matter"),
            pytest.param("a.shop.example", "site", id="wildcard"),
            pytest.param("a.b.shop.example", "rsa", id="a wildcard is one label"),
            pytest.param("shop.example", "rsa", id="a wildcard is not nothing"),
            pytest.param("other.example", "other", id="another one"),
            pytest.param("nobody.example", "rsa", id="unknown: the first"),
            pytest.param(None, "rsa", id="none: the first"),
        ],
    )
    def test_the_name_chooses(self, realm: Realm, name: str | None, chosen: str) -> None:
        identities = Identities(config(realm.rsa, realm.site, realm.other))
        client = shake(identities, name)
        assert client.certificate == der(getattr(realm, chosen))
        assert client.server.name == (name or "")

    def test_of_two_with_one_name_the_first(self, realm: Realm, tmp_path: Path) -> None:
        twin = realm.root.issue("other.example", file="twin")
        assert shake(Identities(config(realm.site, twin, realm.other)), "other.example").certificate == der(
            twin
        )


class TestProtocols:
    def test_tls_12_and_13_by_default(self, realm: Realm) -> None:
        identities = Identities(config(realm.site))
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            assert shake(identities, version=version).object.version() == version.name.replace("_", ".")

    def test_13_only(self, realm: Realm) -> None:
        identities = Identities(config(realm.site, ssl_min_version="1.3"))
        with pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL"):
            shake(identities, version=ssl.TLSVersion.TLSv1_2)

    def test_ciphers_are_the_server_s_choice(self, realm: Realm) -> None:
        identities = Identities(config(realm.site, ssl_ciphers="ECDHE-ECDSA-CHACHA20-POLY1305"))
        found = shake(identities, version=ssl.TLSVersion.TLSv1_2).object.cipher()
        assert found is not None
        assert found[0] == "ECDHE-ECDSA-CHACHA20-POLY1305"

    def test_the_default_ciphers_have_forward_secrecy_and_authentication(self, realm: Realm) -> None:
        identities = Identities(config(realm.site))
        for cipher in identities.session(ssl.MemoryBIO(), ssl.MemoryBIO()).context.get_ciphers():
            assert cipher["aead"], cipher
            assert cipher["kea"] in ("kx-ecdhe", "kx-any"), cipher

    @pytest.mark.parametrize(
        ("offered", "agreed"), [(["h2", "http/1.1"], "http/1.1"), (["http/1.1"], "http/1.1"), (["h2"], None)]
    )
    def test_alpn(self, realm: Realm, offered: list[str], agreed: str | None) -> None:
        context = trusting()
        context.set_alpn_protocols(offered)
        assert (
            shake(Identities(config(realm.site)), context=context).object.selected_alpn_protocol() == agreed
        )

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    def test_sessions_are_resumed_whatever_the_name(self, realm: Realm, version: ssl.TLSVersion) -> None:
        identities = Identities(config(realm.rsa, realm.site))
        context = trusting(version)
        first = shake(identities, "www.example.com", context=context)
        assert not first.server.session_reused
        assert shake(
            identities, "www.example.com", context=context, resume=first.session
        ).server.session_reused


# ── Renewal ───────────────────────────────────────────────────────────────────────────────────────────


def raising(error: Exception) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail


@pytest.fixture
def served(realm: Realm, tmp_path: Path) -> Issued:
    """A certificate that may be changed."""
    copies = [tmp_path / each.name for each in realm.site]
    for copy, original in zip(copies, realm.site, strict=True):
        copy.write_bytes(original.read_bytes())
    return Issued(*copies)


def pair(issued: Issued) -> Config:
    return Config(ssl_cert_file=(str(issued.certificate),), ssl_key_file=(str(issued.key),))


class TestRenewal:
    def test_new_handshakes_get_the_new_one_and_old_sessions_are_resumed(
        self, realm: Realm, served: Issued
    ) -> None:
        log, context = Journal(), trusting(ssl.TLSVersion.TLSv1_2)
        identities = Identities(pair(served))
        first = shake(identities, context=context)
        served.replace(realm.other)
        identities.renew(100.0, log)
        assert shake(identities).certificate == der(realm.other)
        assert shake(identities, context=context, resume=first.session).server.session_reused
        assert log.lines == [f"info: {served.certificate}: new connections get this certificate"]

    def test_a_key_of_another_kind_replaces_the_old_one(self, realm: Realm, served: Issued) -> None:
        """OpenSSL would keep both, and present the old one to whoever prefers its kind."""
        identities = Identities(pair(served))
        served.replace(realm.rsa)
        identities.renew(100.0, Journal())
        assert shake(identities).certificate == der(realm.rsa)
        context = trusting(ssl.TLSVersion.TLSv1_2)
        context.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384")
        with pytest.raises(ssl.SSLError, match=r"HANDSHAKE_FAILURE|NO_SHARED_CIPHER"):
            shake(identities, context=context)

    def test_names_follow(self, realm: Realm, served: Issued) -> None:
        identities = Identities(config(realm.rsa, served))
        assert shake(identities, "www.example.com").certificate == der(realm.site)
        served.replace(realm.other)
        identities.renew(100.0, Journal())
        assert shake(identities, "www.example.com").certificate == der(realm.rsa)
        assert shake(identities, "other.example").certificate == der(realm.other)

    def test_files_are_looked_at_once_a_second(self, realm: Realm, served: Issued) -> None:
        log = Journal()
        identities = Identities(pair(served))
        identities.renew(100.0, log)
        served.replace(realm.other)
        identities.renew(100.9, log)
        assert shake(identities).certificate == der(realm.site)
        identities.renew(101.0, log)
        assert shake(identities).certificate == der(realm.other)

    def test_half_a_change_changes_nothing_and_is_told_once(self, realm: Realm, served: Issued) -> None:
        log = Journal()
        identities = Identities(pair(served))
        served.certificate.write_bytes(realm.other.certificate.read_bytes())
        identities.renew(100.0, log)
        identities.renew(200.0, log)
        assert shake(identities).certificate == der(realm.site)
        [line] = log.lines
        assert line.startswith(
            f"warning: {served.certificate} or its key has changed, and cannot be taken over"
        )
        assert f"{served.key}: this key does not belong to the certificate in" in line
        served.key.write_bytes(realm.other.key.read_bytes())
        identities.renew(300.0, log)
        assert shake(identities).certificate == der(realm.other)

    def test_a_shortage_of_the_moment_passes(
        self, realm: Realm, served: Issued, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As when there is no descriptor left: it is tried again, though the files do not change any more."""
        log = Journal()
        identities = Identities(pair(served))
        served.replace(realm.other)
        with monkeypatch.context() as scarce:
            scarce.setattr("os.memfd_create", raising(OSError(errno.EMFILE, "Too many open files")))
            identities.renew(100.0, log)
            identities.renew(101.0, log)
        assert shake(identities).certificate == der(realm.site)
        identities.renew(102.0, log)
        assert shake(identities).certificate == der(realm.other)
        assert [line.partition(":")[0] for line in log.lines] == ["warning", "info"]
        assert "too many open files" in log.lines[0]

    def test_a_directory_that_was_closed_is_no_change(
        self, realm: Realm, served: Issued, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Keys for root only, after the rights of root were given up: nobody can tell, so nothing is told."""
        log = Journal()
        authority = str(realm.root.certificate)
        identities = Identities(replace(pair(served), ssl_ca_file=authority, ssl_verify_mode="optional"))
        with monkeypatch.context() as closed:
            closed.setattr("os.stat", raising(PermissionError(errno.EACCES, "Permission denied")))
            identities.renew(100.0, log)
        assert log.lines == []
        served.replace(realm.other)
        identities.renew(200.0, log)
        assert shake(identities).certificate == der(realm.other)

    def test_files_that_are_gone_stay_in_use(self, realm: Realm, served: Issued) -> None:
        log = Journal()
        identities = Identities(pair(served))
        served.key.unlink()
        for now in (100.0, 200.0):
            identities.renew(now, log)
        assert shake(identities).certificate == der(realm.site)
        assert len(log.lines) == 1
        assert "cannot be read: No such file or directory" in log.lines[0]

    def test_an_expired_one_is_taken_over_with_a_warning(self, realm: Realm, served: Issued) -> None:
        log = Journal()
        identities = Identities(pair(served))
        served.replace(realm.old)
        identities.renew(100.0, log)
        assert [line.partition(":")[0] for line in log.lines] == ["info", "warning"]

    def test_authorities_wait_for_a_reload(self, realm: Realm, tmp_path: Path) -> None:
        log, file = Journal(), tmp_path / "ca.pem"
        file.write_bytes(realm.root.certificate.read_bytes())
        identities = Identities(config(realm.site, ssl_client_ca_file=str(file), ssl_verify_mode="optional"))
        file.write_bytes(realm.middle.certificate.read_bytes())
        for now in (100.0, 200.0):
            identities.renew(now, log)
        assert log.lines == [f"warning: {file} has changed; a reload takes the authorities over"]
