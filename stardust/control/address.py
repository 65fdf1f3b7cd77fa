"""Where the control socket is. Supervisor and stardustctl ask the same functions, so that they meet.

Light on purpose: stardustctl loads nothing heavier.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping

# A UNIX socket's path has 107 bytes at most; a long file name must not use them up. The checksum tells
# files apart.
STEM_CHARACTERS = 40


def default(config_path: str, setting: str, environ: Mapping[str, str], uid: int) -> str | None:
    """Where the supervisor binds its control socket; None if there is no place for one.

    `config_path` is "" for a server started from flags alone. `setting` is `control-socket`; a relative one
    is relative to the file. Next comes the unit's RuntimeDirectory=, then a name made of the file's path:

        $RUNTIME_DIRECTORY/control
        /run/stardust/myapp-1f0c2a9b.control               root
        $XDG_RUNTIME_DIR/stardust/myapp-1f0c2a9b.control   others
    """
    if setting:
        return os.path.join(os.path.dirname(os.path.abspath(config_path)) if config_path else "", setting)
    # systemd.exec(5), RuntimeDirectory=: several directories are separated by colons.
    runtime = environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    if runtime:
        return os.path.join(runtime, "control")
    base = _base(environ, uid)
    if not config_path or base is None:
        return None
    # Not the real path: a link to the current release must not change the name at a deployment.
    path = os.path.abspath(config_path)
    return os.path.join(base, f"{_stem(path)[:STEM_CHARACTERS]}-{_digest(path)}.control")


def candidates(config_path: str, setting: str, environ: Mapping[str, str], uid: int) -> list[str]:
    """Where stardustctl looks, best first: `default`, then where stardust@.service has it.

    The second is for an administrator's shell, which has no $RUNTIME_DIRECTORY: the unit that serves
    /etc/stardust/%i.toml has RuntimeDirectory=stardust/%i. The third is for a shell that has another
    program's $RUNTIME_DIRECTORY.
    """
    first = default(config_path, setting, environ, uid)
    found = [] if first is None else [first]
    base = _base(environ, uid)
    if config_path and base is not None and not setting:
        found.append(os.path.join(base, _stem(config_path), "control"))
        found.append(default(config_path, "", {**environ, "RUNTIME_DIRECTORY": ""}, uid) or "")
    return list(dict.fromkeys(found))


def _base(environ: Mapping[str, str], uid: int) -> str | None:
    runtime = "/run" if uid == 0 else environ.get("XDG_RUNTIME_DIR")
    return os.path.join(runtime, "stardust") if runtime else None


def _digest(path: str) -> str:
    # Nothing cryptographic: for that, hashlib loads OpenSSL, 3.5 MiB of each supervisor.
    return f"{zlib.crc32(os.fsencode(path)):08x}"


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]
