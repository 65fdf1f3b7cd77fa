"""A worker as a process: what it drops and sets up after the fork, and its end.

The order after the fork: names and signals first, then the application (if it was not preloaded), then
`after-fork`, then "ready", then the loop, then `before-exit`.

Runs in the application's interpreter too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Optional

from stardust.base import process, signals, streams, system
from stardust.base.errors import AppLoadError, Exit
from stardust.base.pristine import faulthandler, os, signal, time
from stardust.ipc import messages
from stardust.ipc.handoff import Link
from stardust.ipc.scoreboard import Scoreboard
from stardust.logs import accesslog
from stardust.logs.log import Log
from stardust.logs.logfile import LogFile
from stardust.settings.table import Config
from stardust.worker import chance, complaints, forked, orders
from stardust.worker.entrance import Door
from stardust.worker.loop import Loop
from stardust.worker.orders import SupervisorChannel
from stardust.worker.standing import Surroundings
from stardust.worker.telling import AccessLog
from stardust.zygote.load import call_hook, load, load_hooks

# Alone, a worker has the terminal: its signals do what they do to other programs, and INT has it leave.
_IGNORED_ALONE = (signal.SIGHUP, signal.SIGUSR1)


class Inheritance(NamedTuple):
    """What every worker of a generation gets from its zygote. `app` is None if each worker loads its own;
    `log_descriptor` is that of the access log, or None; `link` leads to its siblings, `shelf`
    to the next start of the server, None if it is alone."""

    generation: int
    config: Config
    doors: Sequence[Door]
    scoreboard: Scoreboard
    link: Optional[Link]
    shelf: Optional[Link]
    log: Log
    log_descriptor: Optional[int]
    app: Optional[Callable[..., Any]]

    def forsake(self) -> None:
        """In a child that the application forks: none of it is its own. The access log is not closed here,
        for a worker changes it."""
        for door in self.doors:
            door.socket.close()
        for link in (self.link, self.shelf):
            if link is not None:
                link.close()
        self.scoreboard.forsake()

    def fork_s_name(self, parent: str) -> tuple[str, str]:
        """What a child is called that the application forks in the process `parent`."""
        return "stardust:fork", f"forked by {self.config.app} in {parent}"


def run(
    heritage: Inheritance,
    number: int,
    slot_number: int,
    channel: Optional[SupervisorChannel],
    stacks: int = 2,
) -> Exit:
    """Be worker `number` until it is time to leave. `channel` is None if there is no supervisor; `stacks` is
    the descriptor that the stacks of a stuck worker are written to.

    Returns the process's exit code; what went wrong was sent to the supervisor, or logged.
    """
    config, scoreboard = heritage.config, heritage.scoreboard
    log = heritage.log.named(f"worker {number}", {"STARDUST_WORKER": number})
    title = f"stardust: worker {number}, generation {heritage.generation}: {config.app}"
    process.name_process(f"stardust:w{number}", title)
    slot = scoreboard.slot(slot_number)
    slot.born(os.getpid(), heritage.generation, time.monotonic())
    faulthandler.register(process.STACKS_SIGNAL, file=stacks, all_threads=True, chain=False)
    signals.ignore(_IGNORED_ALONE if channel is None else signals.MEANT_FOR_OTHERS)
    file = None if heritage.log_descriptor is None else LogFile(heritage.log_descriptor, log)
    forked.own([slot.forsake, *_belongings(heritage, channel, file, stacks)])
    forked.own_too(partial(process.name_process, *heritage.fork_s_name(f"worker {number}")))

    app = _application(heritage, channel, log)
    if app is None:
        return Exit.APPLICATION
    if heritage.app is None:
        streams.ensure()
        process.name_process(f"stardust:w{number}", title)  # once more, unless there is another one now

    loop = Loop(
        config,
        app,
        heritage.doors,
        log,
        slot=slot,
        access_log=None if file is None else AccessLog(file, accesslog.formatter(config.access_log_format)),
        link=heritage.link,
        shelf=heritage.shelf,
        surroundings=_surroundings(scoreboard, slot_number, channel),
        report=complaints.recorder(log) if log.sink.journal else None,
    )
    forked.own_too(loop.forsake)
    forked.own_too(orders.watch_termination(loop, alone=channel is None).forsake)
    if channel is not None:
        loop.watch(channel.fileno(), orders.Orders(channel, loop, file).take)
        channel.send(messages.Ready())
    if loop.guard is not None:
        loop.guard.start()
    loop.run()
    if file is not None:
        file.flush()
    _take_leave(config, log)
    return Exit.OK


def _application(
    heritage: Inheritance, channel: Optional[SupervisorChannel], log: Log
) -> Optional[Callable[..., Any]]:
    """The application, loaded here unless the zygote has, and set up by `after-fork`; None if that fails,
    which is then reported."""
    config, app = heritage.config, heritage.app
    try:
        if app is None:
            app = load(config.app)
            load_hooks(config)
            if forked.away:
                forked.end()
        elif channel is not None:
            chance.seed()
        if config.after_fork:
            call_hook("after-fork", config.after_fork)
            if forked.away:
                forked.end()
        return app
    except AppLoadError as failure:
        if forked.away:
            forked.end(failure.__context__)  # what the application raised
        if channel is None:
            log.error(f"{failure.reason}\n{failure.detail}")
        else:
            channel.send(messages.Failed(failure.reason, messages.clipped(failure.detail)))
        return None


def _take_leave(config: Config, log: Log) -> None:
    """What the application wants to do at the end. It has until the supervisor has no patience any more."""
    if not config.before_exit:
        return
    try:
        call_hook("before-exit", config.before_exit)
        if forked.away:
            forked.end()
    except AppLoadError as failure:
        if forked.away:
            forked.end(failure.__context__)  # what the application raised
        log.error(f"{failure.reason}\n{failure.detail}")


def _surroundings(
    scoreboard: Scoreboard, slot_number: int, channel: Optional[SupervisorChannel]
) -> Surroundings:
    return Surroundings(
        served=lambda since: scoreboard.served(since, slot_number),
        replaceable=lambda: channel is None or scoreboard.replaceable,
        stopping=lambda: scoreboard.stopping,
        storing=lambda: scoreboard.storing,
        announce=lambda message: channel is not None and _announced(channel, message),
    )


def _announced(channel: SupervisorChannel, message: messages.Leaving) -> bool:
    try:
        return channel.send(message)
    except OSError:
        return False  # the application has closed the channel, which is why this worker leaves (vitals.py)


def _belongings(
    heritage: Inheritance, channel: Optional[SupervisorChannel], file: Optional[LogFile], stacks: int
) -> list[Callable[[], object]]:
    """What no child of the application's may have: see forked.py."""

    def forsake_stacks() -> None:
        faulthandler.unregister(process.STACKS_SIGNAL)
        if stacks > 2:
            system.close(stacks)

    let_go: list[Callable[[], object]] = [heritage.forsake, forsake_stacks]
    if channel is not None:
        let_go.append(channel.close)
    if file is not None:
        let_go.append(file.forsake)
    return let_go
