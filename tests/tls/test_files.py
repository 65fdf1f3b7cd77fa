"""Files of TLS: what is read of them, and what is said of one that does not fit."""

from __future__ import annotations

from pathlib import Path

from stardust.base.records import replace
from stardust.settings.table import Config
from stardust.tls.identities import Identities
from tests.certificates import Authority
from tests.tls.given import Realm, config, der, refused, shake


class TestFiles:
    def test_a_pair_may_be_two_files_or_one(self, realm: Realm) -> None:
        site = realm.site
        parted = replace(Config(), ssl_cert_file=(str(site.certificate),), ssl_key_file=(str(site.key),))
        for each in (parted, config(site), config(site, ssl_key_file=(str(site.both),))):
            assert shake(Identities(each)).certificate == der(site)

    def test_files_that_hold_something_else(self, realm: Realm, tmp_path: Path) -> None:
        site = realm.site
        for setting, path, what in (
            ("ssl_cert_file", site.key, "it contains no certificate in PEM"),
            ("ssl_cert_file", site.certificate, "it contains no private key in PEM"),
            ("ssl_cert_file", tmp_path, "cannot be read: Is a directory"),
            ("ssl_key_file", tmp_path / "none", "cannot be read: No such file or directory"),
            ("ssl_ca_file", site.key, "it contains no certificate in PEM"),
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
