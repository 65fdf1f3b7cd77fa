"""The zygote: a fresh interpreter that loads the application once and forks workers when told to.

It is the process `config.python` with nothing of the server in it but this package, so that it may be any
interpreter and virtualenv. It waits in one place, `channel.receive`, and does what the message says:

    generation  once, first: the configuration and all descriptors → load → "loaded" or "failed",
                                                                       or "misconfigured"
    fork        a worker, with its end of a channel, and memory
                for its stacks                                     → "forked" or "fork-failed"
    reap        a worker that the supervisor has seen ending       → "exited"
    reopen      the access log, for workers to come

A worker's process id stays its own until it is reaped here, which happens only on the supervisor's word: so
the supervisor may open a pidfd for it without a race, whatever the interpreter here can do. End of file means
that the supervisor is gone, or wants no more of this generation: exit, without a word.

With `max-workers = 0` the process that was meant to be a zygote serves itself.
"""

from __future__ import annotations

import grp
import importlib
import os
import pwd
import socket
import sys
import threading
import time
from collections.abc import Sequence

from stardust.base import address, system
from stardust.base.errors import AppLoadError, ConfigError, Exit
from stardust.ipc.channel import Channel, Message, clipped
from stardust.ipc.handoff import Link
from stardust.ipc.scoreboard import Scoreboard
from stardust.logs.log import Log, Sink, instance
from stardust.settings import table as settings
from stardust.settings.table import Config
from stardust.worker import introduction, process
from stardust.worker.loop import Door
from stardust.worker.process import Inheritance
from stardust.zygote.load import load


def main(descriptor: int) -> int:
    """Serve the supervisor at the other end of `descriptor`. Returns the exit code of this process, or of the
    worker that it has become."""
    channel = Channel.adopt(descriptor, blocking=True)
    order = channel.receive()
    if order is None:
        return Exit.OK
    heritage = _inheritance(order)
    try:
        heritage = _with_tls(heritage, [each["name"] for each in order.content["listeners"]])
        _become(heritage.config)
        if heritage.config.preload:
            started = time.monotonic()
            heritage = heritage._replace(app=load(heritage.config.app))
            _warn_of_threads(heritage.log)
            heritage.log.debug(f"{heritage.config.app} loaded in {time.monotonic() - started:.3f} s")
    except AppLoadError as failure:
        channel.send("failed", {"reason": failure.reason, "detail": clipped(failure.detail)})
        return Exit.APPLICATION
    except ConfigError as failure:
        channel.send("misconfigured", {"reason": str(failure)})
        return Exit.CONFIG
    system.freeze_heap()
    channel.send("loaded")
    if heritage.link is None:
        return process.run(heritage, 1, 0, None)
    return _attend(channel, heritage)


def _attend(channel: Channel, heritage: Inheritance) -> int:
    """Do what the supervisor says, until it says no more."""
    while True:
        order = channel.receive()
        if order is None:
            # Without the interpreter's own end: what the application registered with atexit is for workers.
            os._exit(Exit.OK)
        if order.kind == "fork":
            if _fork(channel, order):
                link, stacks = order.descriptors
                channel.close()
                number, slot = order.content["worker"], order.content["slot"]
                return process.run(heritage, number, slot, Channel.adopt(link), stacks)
        elif order.kind == "reap":
            _reap(channel, order)
        elif order.kind == "reopen" and heritage.log_descriptor is not None:
            system.dup2(order.descriptors[0], heritage.log_descriptor, inheritable=False)
            system.close(order.descriptors[0])


def _fork(channel: Channel, order: Message) -> bool:
    """Whether this is the new worker."""
    number = order.content["worker"]
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        pid = system.fork()
    except OSError as fault:
        channel.send("fork-failed", {"worker": number, "reason": fault.strerror})
        pid = -1
    if pid == 0:
        return True
    if pid > 0:
        channel.send("forked", {"worker": number, "pid": pid})
    for descriptor in order.descriptors:
        system.close(descriptor)
    return False


def _reap(channel: Channel, order: Message) -> None:
    """Wait for that very process: the application may have children of its own."""
    pid = order.content["pid"]
    try:
        _, status = system.waitpid(pid, 0)
    except ChildProcessError:
        status = 0  # the application ignores SIGCHLD, so the kernel has reaped it
    channel.send("exited", {"worker": order.content["worker"], "status": status})


def _inheritance(order: Message) -> Inheritance:
    """What came with the first message: descriptors of scoreboard, links (if any), access log (if any)
    and listeners."""
    content = order.content
    config = settings.load(content["config"])
    descriptors = iter(order.descriptors)
    scoreboard = Scoreboard(next(descriptors))
    link = Link.adopt(next(descriptors), next(descriptors)) if content["links"] else None
    shelf = Link.adopt(next(descriptors), next(descriptors)) if content["links"] else None
    log_descriptor = next(descriptors) if content["access_log"] else None
    introduced = [introduction.greeting(address.Peers(config.trusted_proxies))]
    doors = [
        Door(
            _listener(descriptor),
            address.Address(*listener["address"]),
            listener["own"],
            introduced if config.takes_introductions(listener["name"]) else (),
        )
        for descriptor, listener in zip(descriptors, content["listeners"])  # noqa: B905 - Python 3.9
    ]
    log = Log(
        f"generation {content['generation']}",
        config.log_level,
        sink=Sink(*content["sink"]),
        fields={**instance(config.source), "STARDUST_GENERATION": content["generation"]},
    )
    number = content["generation"]
    # Of the generation, not of the zygote: workers that changed their user may not change their names, and
    # keep this one (proc(5), "dumpable").
    system.name_process(f"stardust:g{number}", f"stardust: generation {number}: {config.app}")
    return Inheritance(number, config, doors, scoreboard, link, shelf, log, log_descriptor, None)


def _listener(descriptor: int) -> socket.socket:
    sock = system.new_socket(fileno=descriptor)
    sock.setblocking(False)
    return sock


def _with_tls(heritage: Inheritance, names: Sequence[str]) -> Inheritance:
    """Have those listeners speak TLS that are to; `names` are those of the doors. Raises ConfigError.

    Here, because the keys may be for root's eyes only, and because all workers that are forked from here then
    have the same contexts (tls.py).
    """
    config, log = heritage.config, heritage.log
    speaking = [config.speaks_tls(name) for name in names]
    if not any(speaking):
        return heritage
    # Not above: with `ssl` they cost 5 MiB and 10 ms, and most servers leave TLS to a proxy.
    tls = importlib.import_module("stardust.tls.identities")
    secure = importlib.import_module("stardust.worker.secure")
    tls.be_quiet_about_names()
    identities = tls.Identities(config)
    for warning in identities.warnings():
        log.warning(warning)
    greet = secure.greeting(identities, log)
    doors = [
        door._replace(greetings=(*door.greetings, greet)) if speaks else door
        for door, speaks in zip(heritage.doors, speaking)  # noqa: B905 - Python 3.9
    ]
    return heritage._replace(doors=doors)


def _become(config: Config) -> None:
    """Take on the group, user, umask and directory that the application is to have, and its module path."""
    try:
        if config.group or config.user:
            _change_identity(config)
        if config.umask is not None:
            os.umask(config.umask)
        if config.chdir:
            system.chdir(config.chdir)
    except (OSError, KeyError) as fault:
        raise AppLoadError(f"cannot prepare the application's process: {fault}") from None
    system.point_stdin_at_nothing()
    system.raise_descriptor_limit()
    sys.path[:0] = [*config.pythonpath, system.getcwd()]


def _change_identity(config: Config) -> None:
    """Group before user: afterwards there is no right to change groups any more (setgid(2))."""
    account = _account(config.user) if config.user else None
    if config.group:
        gid = int(config.group) if config.group.isdigit() else grp.getgrnam(config.group).gr_gid
    else:
        gid = account.pw_gid if account is not None else os.getgid()
    if account is not None:
        system.initgroups(account.pw_name, gid)
    system.setgid(gid)
    if account is not None:
        system.setuid(account.pw_uid)
        os.environ.update(HOME=account.pw_dir, USER=account.pw_name, LOGNAME=account.pw_name)


def _account(user: str) -> pwd.struct_passwd:
    if not user.isdigit():
        return pwd.getpwnam(user)
    try:
        return pwd.getpwuid(int(user))
    except KeyError:
        # A number that nobody has is a user all the same, without a name and a home (containers use that).
        return pwd.struct_passwd((user, "x", int(user), int(user), "", "/", "/bin/sh"))


def _warn_of_threads(log: Log) -> None:
    """fork(2) copies the calling thread only: those that were started at import are missing in workers."""
    others = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    if others:
        log.warning(
            f"the application started threads while it was loaded ({', '.join(others)}); workers will not "
            "have them. Start them on the first request, or set preload = false"
        )
