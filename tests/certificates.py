"""Certificates for tests, made by openssl(1) as an administrator would make them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
RSA = ("-newkey", "rsa:2048")


class Issued(NamedTuple):
    """Files in PEM: a certificate, its key, and both in one."""

    certificate: Path
    key: Path
    both: Path

    def replace(self, other: Issued) -> None:
        """Put another one in its place, as certbot does: each file in one step, one after the other."""
        for ours, theirs in zip(self, other, strict=True):
            copy = ours.with_suffix(".new")
            shutil.copy(theirs, copy)
            copy.replace(ours)


class Authority:
    """Issues certificates into a directory. `issuer` makes it an intermediate one."""

    def __init__(self, place: Path, name: str = "authority", issuer: Authority | None = None) -> None:
        self._place = place
        self.name = name
        usage = ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign"]
        issued = _issue(place / name, f"/CN={name}", usage, issuer, days=30)
        self.certificate, self.key, _ = issued

    def issue(
        self,
        name: str = "localhost",
        *,
        file: str = "",
        subject: str = "",
        sans: Sequence[str] | None = None,
        days: int = 30,
        kind: Sequence[str] = EC,
        client: bool = False,
        password: str = "",
    ) -> Issued:
        """A certificate for `name`: of a server, by default with that as its only dNSName, or of a client.

        `file` names its files, by default as it is named; `subject` is the whole one in openssl's way.
        """
        usage = ["basicConstraints=CA:FALSE", f"extendedKeyUsage={'clientAuth' if client else 'serverAuth'}"]
        sans = [f"DNS:{name}"] if sans is None and not client else sans
        if sans:
            usage.append(f"subjectAltName={','.join(sans)}")
        base = self._place / (file or name.replace("*", "wildcard"))
        return _issue(base, subject or f"/CN={name}", usage, self, days=days, kind=kind, password=password)


def _issue(
    base: Path,
    subject: str,
    extensions: Sequence[str],
    issuer: Authority | None,
    *,
    days: int,
    kind: Sequence[str] = EC,
    password: str = "",
) -> Issued:
    certificate, key, both = (base.with_name(f"{base.name}.{end}") for end in ("crt", "key", "pem"))
    request, extra = base.with_name(f"{base.name}.csr"), base.with_name(f"{base.name}.ext")
    extra.write_text("\n".join(extensions) + "\n")
    secret = ("-passout", f"pass:{password}") if password else ("-noenc",)
    _openssl("req", "-new", "-utf8", *kind, *secret, "-keyout", key, "-out", request, "-subj", subject)
    signer: tuple[str | Path, ...] = ("-signkey", key)
    if issuer is not None:
        signer = ("-CA", issuer.certificate, "-CAkey", issuer.key)
    _openssl(
        *("x509", "-req", "-in", request, "-out", certificate, *signer, "-CAcreateserial"),
        *("-days", str(days), "-sha256", "-extfile", extra),
    )
    key.chmod(0o600)
    both.touch(mode=0o600)
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    return Issued(certificate, key, both)


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=60)
