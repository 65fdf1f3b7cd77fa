"""What is wrong with a configuration as a whole: settings that contradict each other, files that are missing.

Only this module knows single settings; the rest of the package follows the table.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterator

from stardust.base import address as addresses
from stardust.base import system
from stardust.base.errors import ConfigError
from stardust.config.environment import bindings
from stardust.config.origins import LISTEN, Loaded, Origin
from stardust.settings.kinds import toml
from stardust.settings.table import BY_NAME, Config, Listen


def contradictions(loaded: Loaded, app_required: bool) -> Iterator[ConfigError]:
    """What is wrong with the settings taken together. Pure."""
    config = loaded.config
    if app_required and not config.app:
        yield loaded.origin("app").error(f"must be given: {BY_NAME['app'].help}")
    if 0 < config.max_reqs_per_child < config.min_reqs_per_child:
        most = f"max-reqs-per-child = {config.max_reqs_per_child}"
        reason = f"must be at most {most}, not {config.min_reqs_per_child}"
        yield loaded.origin("min-reqs-per-child").error(reason)
    if not config.trusted_proxies:
        if config.proxy_hops:
            reason = "needs trusted-proxies: name the last of the proxies there"
            yield loaded.origin("proxy-hops").error(reason)
        for key in _proxy_protocol_keys(config):
            reason = "needs trusted-proxies: name the proxies there that send a PROXY header"
            yield loaded.origin(key).error(reason)
    yield from _tls_contradictions(loaded)
    seen: dict[addresses.Address, str] = {}
    for listen in config.listen:
        yield from _listen_contradictions(loaded, listen)
        if listen.address is not None and (listen.address.kind != addresses.TCP or listen.address.port):
            first = seen.setdefault(listen.address, listen.name)
            if first != listen.name:
                reason = f"{listen.address} is already the address of {LISTEN}.{first}"
                yield loaded.origin(f"{LISTEN}.{listen.name}.address").error(reason)


def _proxy_protocol_keys(config: Config) -> Iterator[str]:
    """The keys that turn the PROXY protocol on."""
    if config.proxy_protocol:
        yield "proxy-protocol"
    yield from (f"{LISTEN}.{each.name}.proxy-protocol" for each in config.listen if each.proxy_protocol)


def _tls_contradictions(loaded: Loaded) -> Iterator[ConfigError]:
    config = loaded.config
    wanted = _tls_wanted(loaded)
    certificates, keys = len(config.ssl_cert_file), len(config.ssl_key_file)
    if wanted and not certificates:
        yield loaded.origin(wanted).error("needs ssl-cert-file: there is no TLS without a certificate")
    if keys and keys != certificates:
        reason = f"must be {certificates} files, one for each ssl-cert-file in the same order, not {keys}"
        yield loaded.origin("ssl-key-file").error(reason)
    if config.ssl_verify_mode != "none" and not (config.ssl_client_ca_file or config.ssl_ca_file):
        reason = "needs ssl-client-ca-file or ssl-ca-file: the authorities that issue client certificates"
        yield loaded.origin("ssl-verify-mode").error(reason)
    if config.ssl_verify_mode == "none" and config.ssl_client_ca_file:
        reason = 'has no effect while ssl-verify-mode is "none"; set that to "optional" or "required"'
        yield loaded.origin("ssl-client-ca-file").error(reason)
    # "ssl = false" is meant. Without any "ssl", the certificates make it seem that this is encrypted.
    if certificates and not wanted and not any(key in loaded.origins for key in _switches_of_tls(config)):
        yield loaded.origin("ssl-cert-file").error(
            "has no effect while ssl is off; set ssl = true, here or in a [listen.NAME] table"
        )


def _tls_wanted(loaded: Loaded) -> str:
    """The dotted key that turns TLS on for a listener; "" if none does."""
    config = loaded.config
    for listen in config.listen:
        if config.speaks_tls(listen.name):
            return "ssl" if listen.ssl is None else f"{LISTEN}.{listen.name}.ssl"
    return "ssl" if config.ssl and not config.listen else ""


def _switches_of_tls(config: Config) -> Iterator[str]:
    yield "ssl"
    for listen in config.listen:
        yield f"{LISTEN}.{listen.name}.ssl"


def _listen_contradictions(loaded: Loaded, listen: Listen) -> Iterator[ConfigError]:
    address, prefix = listen.address, f"{LISTEN}.{listen.name}."
    if address is not None and ":" in address.host and not loaded.config.ipv6:
        yield loaded.origin(prefix + "address").error(f"{address} is an IPv6 address, but ipv6 is off")
    if address is None or address.kind != addresses.UNIX:
        where = "a socket from systemd (see SocketMode= of its unit)" if address is None else str(address)
        for key in ("mode", "owner", "group"):
            if getattr(listen, key) not in (None, ""):
                yield loaded.origin(prefix + key).error(
                    f"applies to the path of a UNIX socket, not to {where}"
                )


def missing(loaded: Loaded) -> Iterator[ConfigError]:
    """What the settings name and this machine does not have."""
    config = loaded.config
    if config.chdir and not os.path.isdir(config.chdir):
        yield loaded.origin("chdir").error(
            f"must be a directory, not {toml(config.chdir)}: there is no such directory"
        )
    if config.control_socket:
        try:
            addresses.parse(config.control_socket)
        except ValueError as error:
            yield loaded.origin("control-socket").error(str(error))
    for path in config.env_file:
        try:
            bindings(path)
        except ConfigError as error:
            yield loaded.origin("env-file").error(str(error))
    yield from _bad_tls_files(loaded)
    yield from _unknown_account(loaded.origin("user"), config.user, "user")
    yield from _unknown_account(loaded.origin("group"), config.group, "group")
    for listen in config.listen:
        prefix = f"{LISTEN}.{listen.name}."
        yield from _unknown_account(loaded.origin(prefix + "owner"), listen.owner, "user")
        yield from _unknown_account(loaded.origin(prefix + "group"), listen.group, "group")


def _bad_tls_files(loaded: Loaded) -> Iterator[ConfigError]:
    """Files that cannot be read, and keys that others can. What is in them, only `tls` knows."""
    config = loaded.config
    password, authorities = config.ssl_key_password_file, config.ssl_ca_file
    for key, paths, secret in (
        ("ssl-cert-file", config.ssl_cert_file, not config.ssl_key_file),
        ("ssl-key-file", config.ssl_key_file, True),
        ("ssl-key-password-file", filter(None, [password]), True),
        ("ssl-ca-file", filter(None, [authorities]), False),
        ("ssl-client-ca-file", filter(None, [config.ssl_client_ca_file]), False),
    ):
        for path in paths:
            reason = _unfit(path, secret)
            if reason:
                yield loaded.origin(key).error(f"{path}: {reason}")


# Of a secret: others may do nothing, its group may read. Debian's way with keys is root:ssl-cert 0640.
_NOT_FOR_SECRETS = 0o027


def _unfit(path: str, secret: bool) -> str:
    """Why the file at `path` cannot be used; "" if it can."""
    try:
        mode = stat.S_IMODE(system.stat(path).st_mode)
        system.read_file(path, 1)
    except OSError as error:
        return f"cannot be read: {os.strerror(error.errno or 0)}"
    if secret and mode & _NOT_FOR_SECRETS:
        return f"others may use this secret: change its mode from {mode:04o} to 0600, or to 0640 for a group"
    return ""


def _unknown_account(origin: Origin, name: str, what: str) -> Iterator[ConfigError]:
    # A number needs no entry: containers run under numbers without a name.
    if name == "" or name.isdecimal():
        return
    try:
        pwd.getpwnam(name) if what == "user" else grp.getgrnam(name)
    except KeyError:
        yield origin.error(f"there is no {what} {toml(name)} on this machine")
