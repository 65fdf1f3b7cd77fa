"""The zygote: a fresh interpreter that loads the application once and forks workers on the supervisor's word.

It is the process `config.python` with nothing of the server in it but this package, so that it may be any
interpreter and virtualenv. It waits in one place, `channel.receive`, and does what the message says:

    Generation  once, first: the configuration and all descriptors → load, look what the application holds
                                                                   → Loaded, Unforkable, Failed, Misconfigured
    Fork        a worker, with its end of a channel, and memory
                for its stacks                                     → Forked or ForkFailed
    Reap        a worker that the supervisor has seen ending       → Exited
    Mourn       a worker of another zygote's, which is gone
    Reopen      the access log, for workers to come

A worker's process id stays its own until it is reaped here, which happens only on the supervisor's word: so
the supervisor may open a pidfd for it without a race, whatever the interpreter here can do. End of file means
that the supervisor is gone, or wants no more of this generation: exit, without a word.

With `max-workers = 0` the process that was meant to be a zygote serves itself.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from functools import partial
from typing import Optional

from stardust.base import address, process, signals, streams, system
from stardust.base.errors import AppLoadError, ChannelError, ConfigError, Exit, assert_never
from stardust.base.pristine import os, socket, time
from stardust.ipc import messages
from stardust.ipc.channel import Channel
from stardust.ipc.handoff import Link
from stardust.ipc.scoreboard import Scoreboard
from stardust.logs.log import Log, Sink, instance
from stardust.settings import table as settings
from stardust.settings.kinds import AUTO
from stardust.settings.table import Config
from stardust.worker import forked, introduction
from stardust.worker import process as workers
from stardust.worker.entrance import Door
from stardust.worker.forked import LetGo
from stardust.worker.process import Inheritance
from stardust.zygote import holdings
from stardust.zygote.identity import become
from stardust.zygote.load import load, load_hooks
from stardust.zygote.mourning import Mourning

SupervisorChannel = Channel[messages.ToZygote, messages.FromZygote]


def main(descriptor: int) -> int:
    """Serve the supervisor at the other end of `descriptor`. Returns the exit code of this process, or of the
    worker that it has become."""
    code = _serve(descriptor)
    streams.finish()
    return code


def _serve(descriptor: int) -> int:
    channel = Channel.adopt(descriptor, messages.ZYGOTE, blocking=True)
    order = channel.receive()
    if order is None:
        return Exit.OK
    if not isinstance(order, messages.Generation):
        raise ChannelError(f"first comes a generation, not {order}")
    heritage = _inheritance(order)
    renamed = partial(process.name_process, *heritage.fork_s_name(f"generation {order.number}"))
    forked.own([heritage.forsake, channel.close, partial(_forsake_log, heritage), renamed])
    chld = signals.SetAside()
    holds: tuple[str, ...] = ()
    sys.meta_path.insert(0, process.Titles())
    try:
        heritage = _with_tls(heritage, [each.name for each in order.listeners])
        become(heritage.config)
        if heritage.config.preload:
            heritage, holds = _preloaded(heritage)
    except AppLoadError as failure:
        if forked.away:
            forked.end(failure.__context__)  # what the application raised
        channel.send(messages.Failed(failure.reason, messages.clipped(failure.detail)))
        return Exit.APPLICATION
    except ConfigError as failure:
        channel.send(messages.Misconfigured(str(failure)))
        return Exit.CONFIG
    if holds and heritage.config.preload == AUTO:
        holdings.end_children()
        channel.send(messages.Unforkable(holds))
        channel.receive()  # the end of file, if SIGKILL is not faster
        os._exit(Exit.OK)
    process.freeze_heap()
    channel.send(messages.Loaded(holds))
    if heritage.link is None:
        channel.close()
        return workers.run(heritage, 1, 0, None)
    chld.take()
    return _attend(channel, heritage, chld)


def _forsake_log(heritage: Inheritance) -> None:
    if heritage.log_descriptor is not None:
        system.close(heritage.log_descriptor)


def _preloaded(heritage: Inheritance) -> tuple[Inheritance, tuple[str, ...]]:
    """With the application; and what that holds that a fork would break. Raises AppLoadError."""
    known = holdings.descriptors()
    started = time.monotonic()
    heritage = heritage._replace(app=load(heritage.config.app))
    if forked.away:
        forked.end()
    load_hooks(heritage.config)
    if forked.away:
        forked.end()
    streams.ensure()
    _name(heritage.generation, heritage.config)
    heritage.log.debug(f"{heritage.config.app} loaded in {time.monotonic() - started:.3f} s")
    # Whoever serves alone forks nobody.
    return heritage, () if heritage.link is None else holdings.look(known)


def _attend(channel: SupervisorChannel, heritage: Inheritance, chld: signals.SetAside) -> int:
    """Do what the supervisor says, until it says no more."""
    let_go: list[LetGo] = [heritage.forsake, channel.close, partial(_forsake_log, heritage), chld.give_back]
    mourning = Mourning(heritage.config, heritage.log, let_go)
    while True:
        order = channel.receive()
        if order is None:
            # Without the interpreter's own end: what the application registered with atexit is for workers.
            os._exit(Exit.OK)
        elif isinstance(order, messages.Fork):
            if _fork(channel, order):
                channel.close()
                chld.give_back()
                forked.forget_children()
                system.setpgid(0, 0)  # so that what it leaves behind is known to be its own
                own = Channel.adopt(order.channel, messages.WORKER)
                return workers.run(heritage, order.worker, order.slot, own, order.stacks)
        elif isinstance(order, messages.Reap):
            _reap(channel, order, mourning)
        elif isinstance(order, messages.Mourn):
            mourning.call(order.pid, order.cause)
        elif isinstance(order, messages.Reopen):
            if heritage.log_descriptor is not None:
                system.dup2(order.access_log, heritage.log_descriptor, inheritable=False)
            system.close(order.access_log)
        elif isinstance(order, messages.Generation):
            raise ChannelError(f"a zygote has one generation, not {order.number} too")
        else:
            assert_never(order)


def _fork(channel: SupervisorChannel, order: messages.Fork) -> bool:
    """Whether this is the new worker."""
    streams.flush()
    try:
        with forked.ours():
            pid = system.fork()
    except OSError as fault:
        channel.send(messages.ForkFailed(order.worker, fault.strerror or str(fault)))
        pid = -1
    if pid == 0:
        return True
    if pid > 0:
        channel.send(messages.Forked(order.worker, pid))
    system.close(order.channel)
    system.close(order.stacks)
    return False


def _reap(channel: SupervisorChannel, order: messages.Reap, mourning: Mourning) -> None:
    """Wait for that very process: the application may have children of its own."""
    status: Optional[int]
    try:
        _, status = system.waitpid(order.pid, 0)
    except ChildProcessError:
        status = None  # the application has: with a thread of its own, or it ignores SIGCHLD again
    cause = "unknown" if status is None else process.described(status)
    mourning.call(order.pid, order.why or cause)
    channel.send(messages.Exited(order.worker, status))


def _inheritance(order: messages.Generation) -> Inheritance:
    """What came with the first message."""
    config = settings.load(order.config)
    introduced = [introduction.greeting(address.Peers(config.trusted_proxies))]
    doors = [
        Door(
            _listener(listener.socket),
            listener.address,
            listener.own,
            introduced if config.takes_introductions(listener.name) else (),
        )
        for listener in order.listeners
    ]
    log = Log(
        f"generation {order.number}",
        config.log_level,
        sink=Sink(order.journal, order.stamped),
        fields={**instance(config.source), "STARDUST_GENERATION": order.number},
    )
    # Of the generation, not of the zygote: workers that changed their user may not change their names, and
    # keep this one (proc(5), "dumpable").
    _name(order.number, config)
    return Inheritance(
        generation=order.number,
        config=config,
        doors=doors,
        scoreboard=Scoreboard(order.scoreboard),
        link=_link(order.link),
        shelf=_link(order.shelf),
        log=log,
        log_descriptor=order.access_log,
        app=None,
    )


def _name(number: int, config: Config) -> None:
    process.name_process(f"stardust:g{number}", f"stardust: generation {number}: {config.app}")


def _link(ends: Optional[messages.Ends]) -> Optional[Link]:
    return None if ends is None else Link.adopt(ends.reader, ends.writer)


def _listener(descriptor: int) -> socket.socket:
    sock = system.new_socket(fileno=descriptor)
    sock.setblocking(False)
    return sock


def _with_tls(heritage: Inheritance, names: Sequence[str]) -> Inheritance:
    """Have listeners speak TLS, if their settings say so; `names` are those of the doors. Raises ConfigError.

    This is done here because only root may be able to read the keys, and because all workers forked from here
    then have the same contexts (tls/identities.py).
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
