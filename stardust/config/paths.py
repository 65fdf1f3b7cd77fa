"""Paths as settings name them: made absolute; credentials and commands found."""

from __future__ import annotations

import os
import re
import shutil
from typing import Any

from stardust.base import address as addresses
from stardust.settings import kinds
from stardust.settings.row import Setting

# systemd's credential_name_valid(): a valid name of a file and of a descriptor.
_CREDENTIAL_NAME = re.compile(r"(?!\.{1,2}$)[ -.0-9;-~]{1,255}")


def resolved(setting: Setting, value: Any, base: str, credentials: str) -> Any:
    """`value` with its paths made absolute, its credentials and its command found; ValueError if one is not.

    A relative path starts at `base`; `credentials` is the directory of the service's credentials, or "".
    """
    if setting.kind is kinds.PATH and value not in ("", "-"):
        if value.startswith(kinds.CREDENTIAL):
            raise ValueError(_wrong(setting, value, "only a file that the server reads can be a credential"))
        return joined(base, value)
    if setting.kind is kinds.FILES:
        return tuple(_file(setting, path, base, credentials) for path in value)
    if setting.kind is kinds.FILE and value:
        return _file(setting, value, base, credentials)
    if setting.kind is kinds.ADDRESS and value is not None and value.kind == addresses.UNIX:
        return addresses.parse(joined(base, value.path))
    if setting.kind is kinds.COMMAND and value:
        found = shutil.which(joined(base, value) if "/" in value else value)
        if found is None:
            raise ValueError(_wrong(setting, value, "there is no such file"))
        return os.path.join(base, found)
    return value


def _file(setting: Setting, path: str, base: str, credentials: str) -> str:
    """The absolute path of a file that is read: `path` from `base`, or the credential it names."""
    if not path.startswith(kinds.CREDENTIAL):
        return joined(base, path)
    name = path[len(kinds.CREDENTIAL) :]
    if not _CREDENTIAL_NAME.fullmatch(name):
        rule = 'the name must have 1 to 255 printable ASCII characters, none of them "/" or ":"'
        raise ValueError(_wrong(setting, path, rule))
    found = os.path.join(credentials, name)
    if credentials and os.path.isfile(found):
        return found
    missing = f"there is no {found}" if credentials else "only a service has credentials"
    rule = f"{missing}; start its unit with LoadCredential={name}:PATH"
    raise ValueError(_wrong(setting, path, rule))


def _wrong(setting: Setting, value: str, reason: str) -> str:
    return f"must be {setting.right()}, not {kinds.toml(value)}: {reason}"


def joined(base: str, path: str) -> str:
    return os.path.normpath(os.path.join(base, path))
