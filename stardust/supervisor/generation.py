"""Generations: what belongs to one, how one is opened, and how it is forgotten.

What is opened here is closed here. A generation is in the book from when its listeners are open until the
state has forgotten it (`reconcile`). `plan.py` decides, not this module.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from stardust.base import address
from stardust.base.errors import Exit, StardustError
from stardust.base.records import dataclass, replace
from stardust.config.environment import application_environment
from stardust.config.reading import read
from stardust.ipc import messages
from stardust.ipc.handoff import Link, Passage
from stardust.ipc.scoreboard import Scoreboard
from stardust.listeners import listeners as listener
from stardust.listeners.keeper import Keeper
from stardust.listeners.listeners import Listener
from stardust.logs.log import Log, Sink
from stardust.settings import table as settings
from stardust.settings.table import Config
from stardust.supervisor import processes, vocabulary
from stardust.supervisor.host import Host, Surroundings
from stardust.supervisor.processes import ZygoteChannel
from stardust.supervisor.requests import RequestLog
from stardust.supervisor.state import Policy, Stop


@dataclass(slots=True)
class Generation:
    """`pid` and `channel` are its zygote's: 0 and None before it was started and after it ended.

    `holds`: what of the application's a fork would break, in words. `apart`: that is why each worker loads
    for itself.
    """

    number: int
    config: Config
    listeners: list[Listener]
    pid: int = 0
    channel: ZygoteChannel | None = None
    requests: RequestLog | None = None
    holds: tuple[str, ...] = ()
    apart: bool = False

    @property
    def interpreter(self) -> str:
        """The application's own, or the one that runs the server."""
        return self.config.python or sys.executable

    @property
    def policy(self) -> Policy:
        """What decisions depend on."""
        return Policy(
            workers=self.config.max_workers,
            spawn_interval=self.config.spawn_interval,
            least_backoff=self.config.main_process_delay,
            boot_timeout=self.config.boot_timeout,
            graceful_timeout=self.config.graceful_timeout,
            idle_timeout=0.0 if self.own_listeners else self.config.idle_timeout,
            store=self.config.store_connections,
        )

    @property
    def own_listeners(self) -> list[Listener]:
        """Those that close with the server: nothing would start it again for a connection there."""
        return [each for each in self.listeners if not each.inherited]

    def open_request_log(self, log: Log) -> None:
        """Raises OSError, with the path in it."""
        if self.config.access_log:
            self.requests = RequestLog(self.config, log)

    def first_message(self, scoreboard: Scoreboard, sink: Sink, links: Sequence[Link]) -> messages.Generation:
        """The first message to its zygote. `sink` is that of its log; `links` are the link and the shelf,
        without which it serves by itself, alone."""
        link, shelf = tuple(messages.Ends(*each.descriptors) for each in links) or (None, None)
        return messages.Generation(
            number=self.number,
            config=settings.dump(replace(self.config, preload=False) if self.apart else self.config),
            journal=sink.journal,
            stamped=sink.stamped,
            scoreboard=scoreboard.descriptor,
            link=link,
            shelf=shelf,
            access_log=None if self.requests is None else self.requests.descriptor,
            listeners=tuple(
                messages.Listener(each.name, each.address, not each.inherited, each.socket.fileno())
                for each in self.listeners
            ),
        )


class Generations:
    """The book of them, by number. `link` leads from worker to worker, `shelf` to the next start."""

    def __init__(
        self, host: Host, given: Surroundings, scoreboard: Scoreboard, link: Link, shelf: Link
    ) -> None:
        self.book: dict[int, Generation] = {}
        self._host = host
        self._given = given
        self._scoreboard = scoreboard
        self._link = link
        self._shelf = shelf
        self._keeper = Keeper(given.notifier, given.stored)

    def open(self, number: int) -> Generation | None:
        """Do all that can fail, without touching the generation that serves: settings, listeners, log,
        interpreter. None if it has failed; then an event says so."""
        see = self._host.see
        try:
            generation = self._configured(number)
            generation.open_request_log(self._host.log)
        except StardustError as fault:
            see(vocabulary.Failed(number, str(fault), "", Exit(fault.exit)))
            return None
        except OSError as fault:
            see(vocabulary.Failed(number, f"{fault.filename}: {fault.strerror}", "", Exit.FAILURE))
            return None
        return generation if self.start(generation) else None

    def start(self, generation: Generation) -> bool:
        """Start its zygote, the first or another one in its place. False if that has failed, which was seen
        then."""
        interpreter = generation.interpreter
        try:
            environ = application_environment(generation.config, self._given.environ)
            generation.pid, generation.channel = processes.start_zygote(interpreter, environ)
        except StardustError as fault:
            self._host.see(vocabulary.Failed(generation.number, str(fault), "", Exit(fault.exit)))
            return False
        except OSError as fault:
            reason = f"{fault.filename or interpreter}: {fault.strerror}"
            self._host.see(vocabulary.Failed(generation.number, reason, "", Exit.FAILURE))
            return False
        links = (self._link, self._shelf)
        generation.channel.send(generation.first_message(self._scoreboard, self._host.log.sink, links))
        return True

    def _configured(self, number: int) -> Generation:
        """Raises ConfigError, and what opening listeners raises."""
        given = self._given
        config = given.config if number == 1 else read(given.arguments, given.environ).config
        listeners = self._keeper.open(config, given.inherited, self._bound())
        generation = self.book[number] = Generation(number, config, listeners)
        policy = generation.policy
        store = policy.store and given.notifier.connected
        self._host.see(vocabulary.Configured(number, replace(policy, store=store)))
        self._warn_of_idle_timeout(generation)
        self._warn_of_backlog(generation)
        return generation

    def _warn_of_backlog(self, generation: Generation) -> None:
        wanted, most = generation.config.backlog, listener.most_backlog()
        if wanted > most and generation.own_listeners:
            self._host.log.warning(
                f"backlog = {wanted}, but the kernel allows only {most} waiting connections: raise "
                f"net.core.somaxconn to {wanted} (sysctl.d(5)), or lower backlog"
            )

    def _warn_of_idle_timeout(self, generation: Generation) -> None:
        timeout = generation.config.idle_timeout
        if timeout and generation.own_listeners:
            own = generation.own_listeners[0]
            self._host.log.warning(
                f"idle-timeout = {timeout:g} has no effect: systemd does not listen on {own.name} "
                f"{own.address}, and no connection there could start the server again; give it a socket unit "
                "(systemd.socket(5))"
            )

    def _bound(self) -> list[Listener]:
        """Every open listener, once."""
        everyone = [each for generation in self.book.values() for each in generation.listeners]
        return list({each.socket.fileno(): each for each in everyone}.values())

    def reconcile(self) -> None:
        """Close what belongs to generations that are over: logs, and listeners that no other one has."""
        state = self._host.state
        keeper = self._keeper
        let_go = keeper.close if state.stop is Stop.NO else keeper.spare
        for number in self.book.keys() - state.generations.keys():
            generation = self.book.pop(number)
            for each in listener.superseded(generation.listeners, self._bound()):
                if state.stop is Stop.NO and not each.inherited:
                    self._pass_on(each)
                let_go(each)
            if generation.requests is not None:
                generation.requests.close()

    def _pass_on(self, each: Listener) -> None:
        """Accept what queues at a listener that is given up, and give it to the workers that stay: they do
        not have that listener."""
        for sock, accepted in listener.accept_all(each):
            with sock:
                passage = Passage(each.address, *address.peer(accepted), 0, 0.0, self._host.now, b"")
                self._link.give(sock.fileno(), passage)
