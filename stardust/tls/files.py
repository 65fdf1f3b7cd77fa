"""The files that the settings of TLS name: certificates and keys in PEM, and whether they have changed.

Runs in the application's interpreter too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from stardust.base import system
from stardust.base.errors import ConfigError
from stardust.settings.table import COMMAND_LINE, Config
from stardust.tls.certificate import Certificate, pems, read

_MOST_FILE = 4 * 1024 * 1024  # bytes; a bundle of all authorities of the web has 200 KiB
_KEY = b"PRIVATE KEY-----"


class Pair(NamedTuple):
    """A certificate and its key as they were read. `chain` is PEM, the certificate first."""

    certificate: Certificate
    chain: bytes
    key: bytes
    password: bytes


Look = tuple[object, ...]
"""What tells whether files have changed."""

UNSEEN = "in a directory that is closed to this process"
"""In the place of what cannot be seen any more, once the rights of the start are given up."""


def look_at(paths: Sequence[str]) -> Look:
    """How the files at `paths` look now."""
    return tuple(map(_status, paths))


def _status(path: str) -> object:
    try:
        found = system.stat(path)
    except PermissionError:
        return UNSEEN
    except OSError as fault:
        return fault.errno
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


class Files:
    """Reads what the settings name. Raises ConfigError, with the key and the file in it."""

    __slots__ = ("_config",)

    def __init__(self, config: Config) -> None:
        self._config = config

    def pair(self, certificate_path: str, key_path: str) -> Pair:
        parts = self._certificates("ssl-cert-file", certificate_path)
        chain = [*map(read, parts)]
        if self._config.ssl_ca_file:
            parts += self._issuers(chain)
        key_setting = "ssl-key-file" if self._config.ssl_key_file else "ssl-cert-file"
        key = self._read(key_setting, key_path)
        if _KEY not in key:
            raise self._wrong(key_setting, f"{key_path}: it contains no private key in PEM")
        return Pair(chain[0], b"\n".join([*parts, b""]), key, self._password())

    def authorities(self) -> str:
        """All that client certificates may come from, in PEM."""
        key = "ssl-client-ca-file" if self._config.ssl_client_ca_file else "ssl-ca-file"
        path = self._config.ssl_client_ca_file or self._config.ssl_ca_file
        return b"\n".join(self._certificates(key, path)).decode("ascii", "replace")

    def _issuers(self, chain: Sequence[Certificate]) -> list[bytes]:
        """What of `ssl-ca-file` is missing between the last certificate of a chain and its root. The root is
        left out: a peer without it does not trust it."""
        parts = self._certificates("ssl-ca-file", self._config.ssl_ca_file)
        known = {found.subject: (found, pem) for found, pem in zip(map(read, parts), parts)}  # noqa: B905
        missing = []
        last = chain[-1]
        while last.issuer != last.subject and last.issuer in known:
            last, pem = known.pop(last.issuer)
            if last.issuer != last.subject:
                missing.append(pem)
        return missing

    def _certificates(self, key: str, path: str) -> list[bytes]:
        found = pems(self._read(key, path))
        if not found:
            raise self._wrong(key, f"{path}: it contains no certificate in PEM")
        for number, pem in enumerate(found, 1):
            try:
                read(pem)
            except ValueError as fault:
                raise self._wrong(key, f"{path}: certificate {number} in it is damaged: {fault}") from None
        return found

    def _password(self) -> bytes:
        path = self._config.ssl_key_password_file
        return self._read("ssl-key-password-file", path).partition(b"\n")[0].rstrip(b"\r") if path else b""

    def _read(self, key: str, path: str) -> bytes:
        try:
            return system.read_file(path, _MOST_FILE)
        except OSError as fault:
            raise self._wrong(key, f"{path}: cannot be read: {fault.strerror}") from None

    def _wrong(self, key: str, reason: str) -> ConfigError:
        return ConfigError(reason, source=self._config.source or COMMAND_LINE, key=key)
