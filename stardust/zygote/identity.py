"""As whom the application runs, and where: group, user, umask, directory, standard input, module path.

Runs in the application's interpreter, before the application is loaded.
"""

from __future__ import annotations

import grp
import pwd
import sys
from collections.abc import Mapping

from stardust.base import process, system
from stardust.base.errors import AppLoadError
from stardust.base.pristine import os
from stardust.settings.table import Config
from stardust.zygote import terminal


def become(config: Config) -> None:
    """Take on the group, user, umask and directory that the application is to have, and its module path.
    Raises AppLoadError."""
    try:
        if config.group or config.user:
            _change_identity(config)
        if config.umask is not None:
            os.umask(config.umask)
        if config.chdir:
            system.chdir(config.chdir)
    except (OSError, KeyError) as fault:
        raise AppLoadError(f"cannot prepare the application's process: {fault}") from None
    if config.max_workers:
        process.point_stdin_at_nothing()
        terminal.refuse()
    else:
        terminal.lend()
    process.raise_descriptor_limit()
    sys.path[:0] = [*config.pythonpath, system.getcwd()]


def _change_identity(config: Config) -> None:
    """Group before user: afterwards there is no right to change groups any more (setgid(2))."""
    account = account_of(config.user) if config.user else None
    if config.group:
        gid = int(config.group) if config.group.isdigit() else grp.getgrnam(config.group).gr_gid
    else:
        gid = account.pw_gid if account is not None else os.getgid()
    if account is not None:
        system.initgroups(account.pw_name, gid)
    system.setgid(gid)
    if account is not None:
        system.setuid(account.pw_uid)
        # Not earlier: what Python loads from a home at its start would run with the rights of the server.
        os.environ.update(own_variables(account, config))


def own_variables(account: pwd.struct_passwd, config: Config) -> Mapping[str, str]:
    """What every user has of his own in his environment, as far as [environment] says nothing else."""
    given = {name for name, _ in config.environment}
    theirs = {"HOME": account.pw_dir, "USER": account.pw_name, "LOGNAME": account.pw_name}
    return {name: value for name, value in theirs.items() if name not in given}


def account_of(user: str) -> pwd.struct_passwd:
    if not user.isdigit():
        return pwd.getpwnam(user)
    try:
        return pwd.getpwuid(int(user))
    except KeyError:
        # A number that nobody has is a user all the same, without a name and a home (containers use that).
        return pwd.struct_passwd((user, "x", int(user), int(user), "", "/", "/bin/sh"))
