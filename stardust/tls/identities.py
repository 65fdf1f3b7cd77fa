"""TLS contexts, made from the settings: protocols, ciphers, certificates, authorities.

How it works: a zygote makes `Identities` before it gives up rights and before the application is loaded. So
key files may be root's, and all workers of a generation, being forked from it, have the same contexts: among
other things the keys of session tickets, so that a client resumes its session at any of them. Each
certificate has a context of its own; the client's wish (SNI) chooses among them.

Rules:
- Nothing is loaded that does not fit together. OpenSSL, told to load a certificate and the key of another
  one, would drop the key it has; so each pair is tried in a context that is not in use, and from memory, for
  files may change between two looks.
- Files that change are read again into the context that is there, which keeps its ticket keys, and so do
  connections. What does not fit, or cannot be read with the rights that are left, changes nothing.
- An authority can be added to a context, and never be taken out again: those wait for a reload.
- No question is ever asked on a terminal, which OpenSSL would do for a password.

Importing `ssl` costs 5 MiB and 10 ms. So no module imports it by its name; `importlib` loads it where TLS is
wanted.

Runs in the application's interpreter too.
"""

from __future__ import annotations

import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Optional

from stardust.base import files, system
from stardust.base.errors import ConfigError
from stardust.base.pristine import time
from stardust.logs.log import Log
from stardust.settings.table import COMMAND_LINE, Config
from stardust.tls.files import UNSEEN, Files, Look, Pair, look_at

_LOOK_AGAIN = 1.0  # s; between two looks at the files

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_VERIFY = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
# Compression tells an observer about secrets (CRIME); renegotiation lets a client make us work, and mixes up
# whose request it is (RFC 5746). PyPy does not name the latter.
_OPTIONS = (
    ssl.OP_NO_COMPRESSION
    | getattr(ssl, "OP_NO_RENEGOTIATION", 1 << 30)
    | ssl.OP_CIPHER_SERVER_PREFERENCE
    | ssl.OP_SINGLE_DH_USE
    | ssl.OP_SINGLE_ECDH_USE
)


@contextmanager
def _at_a_path(data: bytes) -> Iterator[str]:
    """A path where `data` is, for a library that reads files only. It is nowhere but in memory."""
    memory = system.memfd_create("stardust")
    try:
        files.write_all(memory, data)
        yield f"/proc/self/fd/{memory}"
    finally:
        system.close(memory)


class Session(ssl.SSLObject):
    """The TLS of one connection. `name` is what the client asked for by SNI, "" for nothing."""

    name = ""


class Identity:
    """A certificate with its key, and the context that presents it. After a ConfigError it is as before.

    `read`: how its files looked when they were read; `warned`: how they looked when it was said that they
    cannot be, None for never.
    """

    __slots__ = ("_config", "_key_path", "certificate", "context", "path", "read", "warned")

    def __init__(self, config: Config, number: int) -> None:
        self._config = config
        self.path = config.ssl_cert_file[number]
        self._key_path = config.ssl_key_file[number] if config.ssl_key_file else self.path
        self.read = self.look()
        self.warned: Optional[Look] = None
        pair = Files(config).pair(self.path, self._key_path)
        self.context = _context(config)
        self._put(pair, self.context)
        self.certificate = pair.certificate

    def look(self) -> Look:
        """How the files look now."""
        return look_at([self.path, self._key_path])

    def renew(self, look: Look) -> None:
        """Read the files again, which look so. Connections go on with what they have."""
        pair = Files(self._config).pair(self.path, self._key_path)
        self._put(pair, _empty_context(self._config))
        # A context has a place for each kind of key, so the old certificate would stay beside the new one.
        if pair.certificate.kind != self.certificate.kind:
            self.context = _context(self._config)
        self._put(pair, self.context)
        self.certificate = pair.certificate
        self.read = look

    def expired(self) -> str:
        """That it is too old, if it is, for the log; else ""."""
        if self.certificate.expires >= time.time():
            return ""
        day = time.strftime("%Y-%m-%d", time.gmtime(self.certificate.expires))
        return f"{self.path}: the certificate has expired on {day}; clients will refuse it"

    def _put(self, pair: Pair, context: ssl.SSLContext) -> None:
        asked: list[bool] = []

        def password() -> bytes:
            asked.append(True)
            return pair.password

        try:
            with _at_a_path(pair.chain) as chain, _at_a_path(pair.key) as key:
                context.load_cert_chain(chain, key, password)
        # An ssl.SSLError is an OSError; so is what comes of too few descriptors.
        except (OSError, ValueError) as fault:
            raise self._refusal(fault, asked=bool(asked)) from None

    def _refusal(self, fault: Exception, *, asked: bool) -> ConfigError:
        config = self._config
        reason = getattr(fault, "reason", None) or str(fault)
        key = "ssl-key-file" if config.ssl_key_file else "ssl-cert-file"
        if "MISMATCH" in reason or reason == "NO_CERTIFICATE_ASSIGNED":
            text = f"{self._key_path}: this key does not belong to the certificate in {self.path}"
        elif asked and config.ssl_key_password_file:
            key = "ssl-key-password-file"
            text = f"{config.ssl_key_password_file}: its first line is not the password of {self._key_path}"
        elif asked:
            text = f"{self._key_path}: the key is encrypted, and there is no ssl-key-password-file"
        else:
            text = f"{self._key_path}: cannot be used for {self.path}: {reason.replace('_', ' ').lower()}"
        return ConfigError(text, source=config.source or COMMAND_LINE, key=key)


class Identities:
    """All certificates of a generation. ConfigError says which setting and which file is wrong."""

    __slots__ = ("_authorities", "_by_name", "_identities", "_look_at", "_seen")

    def __init__(self, config: Config) -> None:
        self._identities = [Identity(config, number) for number in range(len(config.ssl_cert_file))]
        self._authorities = [path for path in (config.ssl_ca_file, config.ssl_client_ca_file) if path]
        self._seen = look_at(self._authorities)
        self._look_at = 0.0
        self._by_name: dict[str, Identity] = {}
        self._name()

    def warnings(self) -> list[str]:
        """What is not wrong, and still not right."""
        return [text for text in (each.expired() for each in self._identities) if text]

    def session(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> Session:
        """The server's side of a new connection, whose bytes come and go by these."""
        session: Any = self._identities[0].context.wrap_bio(incoming, outgoing, server_side=True)
        return session  # type: ignore[no-any-return]

    def renew(self, now: float, log: Log) -> None:
        """Take over files that have changed; but look at them once a second at most.

        What cannot be taken over is tried again and again, but logged only once: it may be half of a change,
        or a shortage of the moment.
        """
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_AGAIN
        for each in self._identities:
            look = each.look()
            if look == each.read or UNSEEN in look:
                continue
            try:
                each.renew(look)
            except ConfigError as fault:
                if look != each.warned:
                    each.warned = look
                    log.warning(
                        f"{each.path} or its key has changed, and cannot be taken over: {fault}. What was "
                        "read before stays in use; a reload reads it with the rights of the server's start"
                    )
                continue
            self._name()
            log.info(f"{each.path}: new connections get this certificate")
            if each.expired():
                log.warning(each.expired())
        seen = look_at(self._authorities)
        if seen != self._seen and UNSEEN not in seen:
            self._seen = seen
            log.warning(f"{' or '.join(self._authorities)} has changed; reload to use the new authorities")

    def _name(self) -> None:
        """Which identity presents which name: of several with one name, the first."""
        self._by_name.clear()
        for each in self._identities:
            each.context.sslobject_class = Session
            each.context.sni_callback = self._choose
            for name in each.certificate.names:
                self._by_name.setdefault(name, each)

    def _choose(self, session: Any, name: Optional[str], context: ssl.SSLContext) -> None:
        """Called within a handshake. A server that does not know the name may go on (RFC 6066 3)."""
        if name:
            session.name = name
            wanted = name.lower()
            # RFC 9525 6.3: a wildcard is the whole leftmost label, and stands for one.
            chosen = self._by_name.get(wanted) or self._by_name.get("*." + wanted.partition(".")[2])
            if chosen is not None and chosen.context is not context:
                session.context = chosen.context


def _empty_context(config: Config) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[config.ssl_min_version]
    context.options |= _OPTIONS
    # A client that knows none of these goes on without; what it then speaks, it will see that it is answered
    # in HTTP/1.1.
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.set_ciphers(config.ssl_ciphers)
    except ssl.SSLError:
        reason = "must be a list of ciphers that this OpenSSL knows (openssl-ciphers(1)), not "
        raise ConfigError(
            f'{reason}"{config.ssl_ciphers}"', source=config.source or COMMAND_LINE, key="ssl-ciphers"
        ) from None
    return context


def _context(config: Config) -> ssl.SSLContext:
    context = _empty_context(config)
    if config.ssl_verify_mode != "none":
        context.verify_mode = _VERIFY[config.ssl_verify_mode]
        context.load_verify_locations(cadata=Files(config).authorities())
    return context


def be_quiet_about_names() -> None:
    """A name in SNI that is not ASCII ends its handshake, and has Python write a traceback that nobody can
    catch: anybody could fill the log. For the whole process; call it once."""
    show = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        name = unraisable.exc_type is UnicodeDecodeError and isinstance(unraisable.object, bytes)
        # PyPy stumbles over it once more, where it goes on without the name.
        if not name and "'servername_str' referenced" not in str(unraisable.exc_value):
            show(unraisable)

    sys.unraisablehook = hook
