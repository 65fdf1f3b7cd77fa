"""Who is presented to whom, what keys and settings are refused, and renewal."""

from __future__ import annotations

import errno
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stardust.base import system
from stardust.base.records import replace
from stardust.tls.certificate import decode
from stardust.tls.identities import Identities
from tests.certificates import Issued
from tests.tls.given import Journal, Realm, config, der, pair, refused, shake, trusting


class TestRefusals:
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


def raising(error: Exception) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail


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
            scarce.setattr(system, "memfd_create", raising(OSError(errno.EMFILE, "Too many open files")))
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
            closed.setattr(system, "stat", raising(PermissionError(errno.EACCES, "Permission denied")))
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
        assert log.lines == [f"warning: {file} has changed; reload to use the new authorities"]
