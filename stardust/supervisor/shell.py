"""The supervisor: wait → observe → plan → act.

`Supervisor.run` is the loop. It waits in one place; what it hears becomes an event for `plan.observe`; what
`plan.plan` answers is carried out by the `_do_…` methods, one for each action. What is to be done is decided
in `plan.py` and nowhere here.

The supervisor never imports the application and must survive everything it does. It owns the listeners,
the scoreboard, the control socket and the talk with systemd; workers and zygotes have a channel each.
"""

from __future__ import annotations

import math
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stardust.base import address
from stardust.base.errors import ChannelError, Exit, StardustError
from stardust.base.records import dataclass
from stardust.base.system import STACKS_SIGNAL
from stardust.config import reading as configs
from stardust.config.reading import Arguments
from stardust.control.server import Control
from stardust.ipc.channel import Channel, Message, pair
from stardust.ipc.handoff import Link, Passage
from stardust.ipc.scoreboard import BUSY, SLOTS, Entry, Scoreboard
from stardust.listeners import listeners as listener
from stardust.listeners.keeper import Keeper
from stardust.listeners.listeners import Listener
from stardust.logs.events import (
    IDLE_EXIT,
    RELOAD_FAILED,
    RELOADED,
    STARTED,
    WORKER_DIED,
    WORKER_TIMED_OUT,
    Event,
)
from stardust.logs.log import Log
from stardust.settings.table import Config
from stardust.supervisor import deaths, health, processes, report, vocabulary
from stardust.supervisor.clients import Clients
from stardust.supervisor.custody import Custody
from stardust.supervisor.generation import Generation
from stardust.supervisor.observe import observe
from stardust.supervisor.plan import plan
from stardust.supervisor.state import (
    Outcome,
    Phase,
    State,
    Stop,
    Zygote,
    in_progress,
    members,
    preferred,
    target,
)
from stardust.systemd.notify import Notifier

_EXTENSION = 15.0  # s; by how much systemd's time limit is moved while there is progress,
_EXTEND_EVERY = 5.0  # s; and how often
_RETRY = 0.1  # s; until a message that systemd had no room for is offered again
_MOVE_AGAIN = 0.01  # s; until a connection that systemd, or the workers, had no room for is
_STORING = 5.0  # s; how long connections that systemd has no room for may hold up the end
_AT_WORK = (Phase.STARTING, Phase.READY, Phase.STUCK, Phase.CONDEMNED)  # nobody asked it to end
_NO_STACKS = "It wrote no stacks: it is stopped, or hangs in the kernel."
_SIGNALS = (
    signal.SIGCHLD,
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGUSR1,
)


@dataclass(slots=True)
class Child:
    """A worker as a process. `pid` and `pidfd` are known when its zygote has told them.

    `stacks` is the memory that it writes its stacks to when it is asked: once it is `stuck`, and then this
    says why, and in which `request`.
    """

    number: int
    slot: int
    generation: int
    channel: Channel
    stacks: int
    pid: int = 0
    pidfd: int | None = None
    doomed: bool = False  # to be killed as soon as its process is known
    pinged: float = 0.0
    stuck: str = ""
    request: str = ""

    def fields(self, request: str = "") -> dict[str, object]:
        """Of a record about it, and about what it was doing."""
        about: dict[str, object] = {"STARDUST_WORKER": self.number, "STARDUST_GENERATION": self.generation}
        return {**about, "STARDUST_REQUEST": request} if request else about


@dataclass(slots=True)
class Surroundings:
    """What the supervisor is given at its start.

    `inherited`, `stored`, `left`: descriptors and their names, those of socket units, and what an earlier run
    had stored: listeners and idle connections. `room`: how many connections this one may store.
    """

    arguments: Arguments
    config: Config
    inherited: Sequence[tuple[int, str]]
    environ: Mapping[str, str]
    notifier: Notifier
    watchdog: float | None
    control: Control | None
    log: Log
    stored: Sequence[tuple[int, str]] = ()
    left: Sequence[tuple[int, str]] = ()
    room: int = 0


class Supervisor:
    """One server; `run` it once."""

    def __init__(self, given: Surroundings) -> None:
        self.given = given
        self.log = given.log
        self.state = State(slots=SLOTS)
        self.generations: dict[int, Generation] = {}
        self.children: dict[int, Child] = {}
        self.scoreboard = Scoreboard.create()
        self.link = Link.create()
        self.kills = deaths.own_kills()
        self.epoll = select.epoll()
        self.watched: dict[int, Callable[[], object]] = {}
        self.exit: Exit | None = None
        self.gone_by = math.inf
        self.started = self.now = time.monotonic()
        self.clients = Clients(given.control, self)
        self.keeper = Keeper(given.notifier, given.stored)
        self.custody = Custody(given.notifier, given.left, given.room, given.log)
        self.said_last: Outcome | None = None
        self.said_serving = 0
        self.judge_at = self.watchdog_at = self.extend_at = math.inf
        if given.watchdog is not None:
            self.watchdog_at = self.now

    # --- the loop ----------------------------------------------------------------------------------------

    def run(self) -> Exit:
        """Serve until told to stop; the exit code."""
        processes.become_subreaper()
        self._watch_signals()
        while True:
            wake_at = self._settle()
            if self.exit is not None and self._may_go():
                break
            self._wait(wake_at)
        self._close()
        return self.exit

    def _settle(self) -> float:
        """Plan and act until nothing is left to do; when to look again."""
        while True:
            decided = plan(self.state, self.now)
            for action in decided.actions:
                # The state first: what the act itself reveals, above all that it failed, comes after.
                self.see(vocabulary.Ordered(action))
                self._act(action)
            self._speak()
            if self.exit is not None or not decided.actions:
                return min(decided.wake_at, self._timers())

    def _wait(self, wake_at: float) -> None:
        """The one blocking call."""
        wait = None if wake_at == math.inf else max(0.0, wake_at - time.monotonic())
        ready = [(descriptor, self.watched[descriptor]) for descriptor, _ in self.epoll.poll(wait)]
        self.now = time.monotonic()
        for descriptor, react in ready:
            # One before it may have closed it, and a new descriptor have taken its number.
            if self.watched.get(descriptor) is react:
                react()

    def see(self, event: vocabulary.Event) -> None:
        """Something was seen; what follows from it is planned when all that came with it is."""
        self.state = observe(self.state, event, self.now)

    def watch(self, descriptor: int, react: Callable[[], object]) -> None:
        """Call `react` whenever `descriptor` is readable."""
        self.watched[descriptor] = react
        self.epoll.register(descriptor, select.EPOLLIN)

    def unwatch(self, descriptor: int) -> None:
        if self.watched.pop(descriptor, None) is not None:
            self.epoll.unregister(descriptor)

    # --- timers ------------------------------------------------------------------------------------------

    def _timers(self) -> float:
        """Do what time asks for, beside the plan; when time asks next."""
        if self.given.notifier.pending:
            self.given.notifier.flush()
        if self.now >= self.judge_at:
            self._judge()
        if self.now >= self.watchdog_at and self.given.watchdog is not None:
            if self._healthy(self.given.watchdog):
                self.given.notifier.watchdog()
            self.watchdog_at = self.now + self.given.watchdog / 3
        if not in_progress(self.state):
            self.extend_at = math.inf
        elif self.extend_at == math.inf or self.now >= self.extend_at:
            self.given.notifier.extend(_EXTENSION)
            self.extend_at = self.now + _EXTEND_EVERY
        retry = self.now + _RETRY if self.given.notifier.pending else math.inf
        timers = (self.judge_at, self._judge_zygotes(), self.watchdog_at, self.extend_at)
        return min(*timers, retry, self._move_connections())

    def _move_connections(self) -> float:
        """Those of the run before to the workers, those of this one to systemd: as there is room. When to
        try again."""
        if self.custody.storing:
            return math.inf if self._collected() else self.now + _MOVE_AGAIN
        if self.state.stop is Stop.NO and not self.custody.hand_on(self.link):
            return self.now + _MOVE_AGAIN
        return math.inf

    def _collected(self) -> bool:
        """Whether systemd has all that workers left for the next start; while it has no room, nobody looks
        at the shelf. At the end, what was on its way to a worker belongs to it too."""
        if not self.custody.storing:
            return True
        shelf = self.custody.shelf
        done = self.custody.collect(shelf) and (self.exit is None or self.custody.collect(self.link))
        if not done:
            self.unwatch(shelf.fileno())
        elif shelf.fileno() not in self.watched:
            self.watch(shelf.fileno(), lambda: None)  # to wake up: it is the timers that collect
        return done

    def _may_go(self) -> bool:
        """Connections that systemd has no room for hold the end up, though not for ever."""
        return self._collected() or self.now >= self.gone_by

    def _limits(self, generation: int) -> health.Limits:
        config = self.generations[generation].config
        return health.Limits(config.request_timeout, config.heartbeat_timeout)

    def _judge(self) -> None:
        """Find stuck workers; ping those that run nothing."""
        judged = [
            (number, self.scoreboard.read(child.slot), self._limits(child.generation))
            for number, child in self.children.items()
            if self.state.workers[number].phase in (Phase.READY, Phase.LEAVING)
        ]
        pinged = {number: child.pinged for number, child in self.children.items()}
        judgement = health.judge(judged, pinged, self.now)
        for number in judgement.ping:
            self._ping(self.children[number])
        self.judge_at = judgement.look_at
        for number, why in judgement.stuck.items():
            self.see(vocabulary.Overdue(number, why))
        if judgement.stuck:
            self.judge_at = self.now

    def _judge_zygotes(self) -> float:
        """One that does not do as it was told is as good as dead: nothing could be forked any more, and of
        a worker that ended nobody would hear. When to look again."""
        for generation in self.generations.values():
            if self.now >= generation.deaf_at:
                self.log.error(f"the zygote of generation {generation.number} does not answer: killing it")
                generation.owes.clear()
                os.kill(generation.pid, signal.SIGKILL)
        return min((generation.deaf_at for generation in self.generations.values()), default=math.inf)

    def _ping(self, child: Child) -> None:
        child.pinged = self.now
        child.channel.send("ping")

    def _healthy(self, interval: float) -> bool:
        """Whether the pool works, or is on its way to: what the watchdog's ping says.

        Workers are asked here too: with `heartbeat-timeout = 0` nobody else does.
        """
        alive = False
        for number, child in self.children.items():
            if self.state.workers[number].phase is Phase.READY:
                entry = self.scoreboard.read(child.slot)
                patience = self._limits(child.generation).heartbeat_timeout or interval
                alive = alive or health.alive(entry, patience, self.now)
                if entry.heartbeat >= child.pinged:
                    self._ping(child)
        starting = any(worker.phase is Phase.STARTING for worker in self.state.workers.values())
        return alive or starting or in_progress(self.state)

    # --- what is heard -----------------------------------------------------------------------------------

    def _watch_signals(self) -> None:
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, lambda number, frame: None)

        def react(keep: socket.socket = writer) -> None:
            # Signals that came together are each acted upon once, in the order of this tuple.
            numbers = set(reader.recv(4096))
            for number in _SIGNALS:
                if number in numbers:
                    self._signalled(number)

        self.watch(reader.fileno(), react)

    def _signalled(self, number: signal.Signals) -> None:
        match number:
            case signal.SIGCHLD:
                self._reap()
            case signal.SIGHUP:
                self.see(vocabulary.ReloadAsked())
            case signal.SIGTERM | signal.SIGINT:
                self.see(vocabulary.StopAsked())
            case signal.SIGQUIT:
                self.see(vocabulary.StopAsked(fast=True))
            case signal.SIGTTIN:
                self.see(vocabulary.Adjusted(+1))
            case signal.SIGTTOU:
                self.see(vocabulary.Adjusted(-1))
            case signal.SIGUSR1:
                self._reopen_logs()

    def _reap(self) -> None:
        """Wait for our own children: zygotes, workers whose zygote is gone, orphans of the application."""
        zygotes = {
            generation.pid: number for number, generation in self.generations.items() if generation.pid
        }
        orphans = {child.pid: child for child in self.children.values() if child.pid}
        for pid, status in processes.ended_children():
            if pid in zygotes:
                self._zygote_ended(zygotes[pid], processes.told(status))
            elif pid in orphans:
                self._worker_died(orphans[pid], status)

    def _zygote_ended(self, number: int, how: str) -> None:
        generation = self.generations[number]
        generation.pid = 0
        if generation.channel is not None:
            # What it said before it died is still to be heard: above all "failed", with the traceback.
            self._hear_zygote(number, generation.channel)
            self.unwatch(generation.channel.fileno())
            generation.channel.close()
            generation.channel = None
        generation.owes.clear()
        how = f"the zygote of generation {number} ({generation.interpreter}) ended: {how}"
        if number == self.state.serving and self.state.generations[number].zygote is not Zygote.CLOSING:
            self.log.error(how)
        for child in [child for child in self.children.values() if child.generation == number]:
            self._orphaned(child)
        self.see(vocabulary.ZygoteGone(number, how))
        self._forget_generations()

    def _orphaned(self, child: Child) -> None:
        """A worker's zygote died. If it had not told the worker's process id, the scoreboard may know it."""
        if not child.pid:
            pid = self.scoreboard.read(child.slot).pid
            if pid:
                self._forked(child, pid)
            else:
                self._worker_ended(child, "its zygote died first")

    def _hear_zygote(self, number: int, channel: Channel) -> None:
        try:
            while (message := _next_message(channel)) is not None:
                self._zygote_said(number, message)
        except ChannelError as fault:
            self.unwatch(channel.fileno())
            self.log.error(f"the zygote of generation {number} has sent {fault}: killing it")
            if self.generations[number].pid:
                os.kill(self.generations[number].pid, signal.SIGKILL)

    def _zygote_said(self, number: int, message: Message) -> None:
        content = message.content
        child = self.children.get(content.get("worker", 0))
        self.generations[number].owes.pop(content.get("worker", 0), None)
        match message.kind:
            case "loaded":
                self.see(vocabulary.Loaded(number))
            case "failed":
                self.see(vocabulary.Failed(number, content["reason"], content["detail"]))
            case "misconfigured":
                self.see(vocabulary.Failed(number, content["reason"], "", Exit.CONFIG))
            case "forked" if child is not None:
                self._forked(child, content["pid"])
            case "fork-failed" if child is not None:
                reason = f"cannot fork worker {child.number}: {content['reason']}"
                self.log.error(reason, fields=child.fields())
                self._forget_child(child)
                self.see(vocabulary.ForkFailed(child.number))
            case "exited" if child is not None:
                self._worker_died(child, content["status"])

    def _forked(self, child: Child, pid: int) -> None:
        child.pid = pid
        child.pidfd = processes.open_pidfd(pid, self.generations[child.generation].pid)
        if child.pidfd is None:
            self._worker_ended(child, "it ended at once")
            return
        self.watch(child.pidfd, lambda: self._worker_ending(child))
        if child.doomed:
            processes.signal_process(child.pidfd, signal.SIGKILL)

    def _worker_ending(self, child: Child) -> None:
        """A worker has ended, and waits for its parent to ask how."""
        assert child.pidfd is not None
        self.unwatch(child.pidfd)
        self._hear_worker(child)
        self._order(child, "reap", {"worker": child.number, "pid": child.pid})

    def _hear_worker(self, child: Child) -> None:
        try:
            while (message := _next_message(child.channel)) is not None:
                self._worker_said(child, message)
        except ChannelError as fault:
            self.unwatch(child.channel.fileno())
            self._do_kill(child.number, f"it has sent {fault}")

    def _worker_said(self, child: Child, message: Message) -> None:
        content = message.content
        match message.kind:
            case "ready":
                self.see(vocabulary.Ready(child.number))
                self._tell_progress(child)
            case "leaving":
                self.see(vocabulary.Leaving(child.number))
                self._have_others_look()
            case "paused":
                pause, connections, since = content["pause"], content["connections"], content["since"]
                self.see(vocabulary.Paused(child.number, pause, connections, since))
            case "failed":
                failure = f"worker {child.number}: {content['reason']}\n{content['detail']}"
                self.log.error(failure, fields=child.fields())
                self.see(vocabulary.WorkerFailed(child.number, content["reason"], content["detail"]))

    def _have_others_look(self) -> None:
        """A listener wakes one worker (EPOLLEXCLUSIVE): the one that has just left may have been the one."""
        if any(worker.phase is Phase.READY for worker in self.state.workers.values()):
            self.link.nudge()

    def _worker_died(self, child: Child, status: int) -> None:
        self._worker_ended(child, *self.kills.explain(status, ours=child.doomed))

    def _worker_ended(self, child: Child, how: str, event: Event = WORKER_DIED) -> None:
        worker = self.state.workers.get(child.number)
        entry = self.scoreboard.read(child.slot)
        if (worker is not None and worker.phase in _AT_WORK) or entry.state == BUSY:
            self.log.error(
                f"worker {child.number} (process {child.pid}) ended: {how}",
                None if child.doomed else event,
                child.fields(_request(entry)),
            )
        if entry.state == BUSY:
            why = worker.why if worker is not None and worker.why else how
            requests = self.generations[child.generation].requests
            if requests is not None:
                requests.killed(entry, why, now=self.now, wall=time.time() - self.now)
        self._forget_child(child)
        self.see(vocabulary.Gone(child.number, how))
        self._have_others_look()
        self._forget_generations()

    # --- what is known -----------------------------------------------------------------------------------

    def _entries(self) -> dict[int, Entry]:
        return {number: self.scoreboard.read(worker.slot) for number, worker in self.state.workers.items()}

    def status(self) -> dict[str, object]:
        """All there is to know, for `stardustctl status`."""
        generation = self.generations.get(self.state.serving or self.state.coming)
        return report.whole(
            self.state,
            self._entries(),
            [(each.name, str(each.address)) for each in generation.listeners] if generation else [],
            pid=os.getpid(),
            started=self.started,
            now=self.now,
            wall=time.time() - self.now,
        )

    def _status_line(self) -> str:
        return report.line(self.state, self._entries(), time.time() - self.now)

    def _tell_progress(self, child: Child) -> None:
        if child.generation == self.state.coming:
            ready = len(members(self.state, child.generation, Phase.READY))
            wanted = target(self.state)
            self.clients.progress(f"generation {child.generation}: {ready}/{wanted} workers ready")

    # --- what is done ------------------------------------------------------------------------------------

    def _act(self, action: vocabulary.Action) -> None:
        match action:
            case vocabulary.Start(number):
                self._do_start(number)
            case vocabulary.GiveUp(number, reason):
                self.log.error(f"generation {number}: {reason}")
            case vocabulary.Fork(number, slot, generation):
                self._do_fork(number, slot, generation)
            case vocabulary.Retire(number, final):
                self._do_retire(number, "stop" if final else "retire")
            case vocabulary.Dump(number, why):
                self._do_dump(number, why)
            case vocabulary.Kill(number, why):
                self._do_kill(number, why)
            case vocabulary.Close(number):
                self._do_close(number)
            case vocabulary.SayReloading(number):
                self.log.info(f"reloading: generation {number}")
                stamp = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
                self.given.notifier.reloading(stamp)
            case vocabulary.SayReady():
                self._do_say_ready()
            case vocabulary.SayStopping():
                self.log.info("stopping")
                self._store_connections()
                self.scoreboard.stopping = True
                self.given.notifier.stopping(self._status_line())
            case vocabulary.CheckIdle():
                self.see(vocabulary.QuietSince(health.quiet_since(self._entries().values(), self.now)))
            case vocabulary.Pause(number):
                self.log.debug("no request for idle-timeout: asking the workers whether anybody is connected")
                self._tell_everybody("pause", {"pause": number})
            case vocabulary.Resume():
                self.log.debug("not idle: going on")
                self._tell_everybody("resume")
            case vocabulary.LeaveIdle():
                timeout = self.generations[self.state.serving].config.idle_timeout
                text = f"idle for {timeout:g} s: leaving; the next connection starts the server again"
                self.log.info(text, IDLE_EXIT)
            case vocabulary.Conclude(outcome):
                self.clients.conclude(outcome)
            case vocabulary.Leave(code):
                self.exit = code
                self.gone_by = min(self.gone_by, self.now + _STORING)

    def _tell_everybody(self, order: str, content: dict[str, object] | None = None) -> None:
        for child in self.children.values():
            child.channel.send(order, content)

    def _store_connections(self) -> None:
        """The next start is to have the idle ones. Until this one serves, systemd still has all there are."""
        generation = self.generations.get(self.state.serving)
        if (
            generation is None
            or not generation.config.store_connections
            or not self.given.notifier.connected
            or self.state.stop is not Stop.GRACEFUL
        ):
            return
        try:
            self.custody.open()
        except OSError as fault:
            self.log.error(f"idle connections will not outlive this stop: {fault.strerror}")
        self.scoreboard.storing = self.custody.storing

    def _do_retire(self, number: int, order: str) -> None:
        """The flag first: a busy worker reads its orders only when it has accepted the next connection."""
        child = self.children.get(number)
        if child is not None:
            self.scoreboard.dismiss(child.slot)
            child.channel.send(order)

    def _do_start(self, number: int) -> None:
        """Everything that can fail without touching what serves: settings, listeners, log, interpreter."""
        try:
            config = self.given.config if number == 1 else self._configuration()
            listeners = self.keeper.open(config, self.given.inherited, self._bound())
            generation = self.generations[number] = Generation(number, config, listeners)
            self.see(vocabulary.Configured(number, generation.policy))
            self._warn_of_idle_timeout(generation)
            self._warn_of_backlog(generation)
            generation.open_request_log(self.log)
            environ = configs.application_environment(config, self.given.environ)
            generation.pid, channel = processes.start_zygote(generation.interpreter, environ)
        except StardustError as fault:
            self.see(vocabulary.Failed(number, str(fault), "", Exit(fault.exit)))
            return
        except OSError as fault:
            what = fault.filename or generation.interpreter
            self.see(vocabulary.Failed(number, f"{what}: {fault.strerror}", "", Exit.FAILURE))
            return
        generation.channel = channel
        links = (self.link, self.custody.shelf)
        channel.send("generation", *generation.first_message(self.scoreboard, self.log.sink, links))
        self.watch(channel.fileno(), lambda: self._hear_zygote(number, channel))

    def _configuration(self) -> Config:
        """Read anew. Raises ConfigError."""
        return configs.read(self.given.arguments, self.given.environ).config

    def _warn_of_backlog(self, generation: Generation) -> None:
        wanted, most = generation.config.backlog, listener.most_backlog()
        if wanted > most and generation.own_listeners:
            self.log.warning(
                f"backlog = {wanted}, and the kernel keeps no more than {most} connections waiting: raise "
                f"net.core.somaxconn to {wanted} (sysctl.d(5)), or lower backlog"
            )

    def _warn_of_idle_timeout(self, generation: Generation) -> None:
        timeout = generation.config.idle_timeout
        if timeout and generation.own_listeners:
            own = generation.own_listeners[0]
            self.log.warning(
                f"idle-timeout = {timeout:g} has no effect: systemd does not listen on {own.name} "
                f"{own.address}, and no connection there could start the server again; give it a socket unit "
                "(systemd.socket(5))"
            )

    def _bound(self) -> list[Listener]:
        """Every open listener, once."""
        everyone = [each for generation in self.generations.values() for each in generation.listeners]
        return list({each.socket.fileno(): each for each in everyone}.values())

    def _do_fork(self, number: int, slot: int, generation: int) -> None:
        ours, theirs = pair()
        stacks = processes.memory_for_stacks()
        child = self.children[number] = Child(number, slot, generation, Channel(ours), stacks)
        self.scoreboard.clear(slot)
        with theirs:
            order = {"worker": number, "slot": slot}
            if not self._order(child, "fork", order, theirs.fileno(), stacks):
                self._forget_child(child)
                self.see(vocabulary.ForkFailed(number))
                return
        self.watch(child.channel.fileno(), lambda: self._worker_speaks(child))

    def _order(self, child: Child, order: str, content: dict[str, Any], *descriptors: int) -> bool:
        """Tell a child's zygote what it has to answer. False if there is none, or it takes no more."""
        generation = self.generations[child.generation]
        if generation.channel is None or not generation.channel.send(order, content, descriptors):
            return False
        generation.owes[child.number] = self.now
        return True

    def _worker_speaks(self, child: Child) -> None:
        self._hear_worker(child)
        if child.channel.at_end:
            # It ends, or the application closed all of its descriptors: its pidfd will tell.
            self.unwatch(child.channel.fileno())

    def _do_dump(self, number: int, why: str) -> None:
        """It is told of when it is killed, a moment later and with its stacks."""
        child = self.children[number]
        child.stuck, child.request = why, _request(self.scoreboard.read(child.slot))
        if child.pidfd is not None:
            processes.signal_process(child.pidfd, STACKS_SIGNAL)

    def _do_kill(self, number: int, why: str) -> None:
        child = self.children[number]
        if child.stuck:
            self._tell_stuck(child)
        else:
            text = f"killing worker {child.number} (process {child.pid}): {why}"
            self.log.warning(text, fields=child.fields())
        child.doomed = True
        if child.pidfd is not None:
            processes.signal_process(child.pidfd, signal.SIGKILL)

    def _tell_stuck(self, child: Child) -> None:
        about = f" in {child.request}" if child.request else ""
        stacks = processes.read_stacks(child.stacks) or _NO_STACKS
        self.log.error(
            f"killing worker {child.number} (process {child.pid}), stuck{about}: {child.stuck}\n{stacks}",
            WORKER_TIMED_OUT,
            child.fields(child.request),
        )

    def _do_close(self, number: int) -> None:
        generation = self.generations.get(number)
        if generation is not None and generation.pid:
            os.kill(generation.pid, signal.SIGKILL)
        else:
            self.see(vocabulary.ZygoteGone(number))
            self._forget_generations()

    def _do_say_ready(self) -> None:
        self.given.notifier.ready(self._status_line())
        if self.given.watchdog is not None:
            self.given.notifier.watchdog()

    def _speak(self) -> None:
        """Say what has changed: in the log, on the scoreboard, to systemd."""
        state = self.state
        source = preferred(state)
        loaded = source is not None and source.zygote is Zygote.LOADED
        self.scoreboard.replaceable = loaded and state.stop is Stop.NO
        if state.last is not self.said_last and state.last is not None and not state.last.ok:
            self.said_last = state.last
            self._tell_failure(state.last)
        if state.serving != self.said_serving:
            event = RELOADED if self.said_serving else STARTED
            self.said_serving = state.serving
            self._tell_serving(event)
            self._take_up_connections()
        if state.serving:
            self.given.notifier.status(self._status_line())
        if self.judge_at == math.inf and self.children:
            self.judge_at = self.now

    def _tell_failure(self, outcome: Outcome) -> None:
        failed, serving = self.state.next_generation - 1, self.state.serving
        text = f"generation {failed} failed: {outcome.reason}"
        if serving:
            text += f"; generation {serving} goes on"
        # A start that failed is an event of the service manager's, not of ours.
        event = RELOAD_FAILED if serving else None
        self.log.error(f"{text}\n{outcome.detail}", event, {"STARDUST_GENERATION": failed})

    def _tell_serving(self, event: Event) -> None:
        number = self.state.serving
        generation = self.generations[number]
        places = ", ".join(f"{each.name} {each.address}" for each in generation.listeners)
        self.log.info(
            f"generation {number} serves {generation.config.app} with "
            f"{target(self.state)} workers on {places}",
            event,
            {"STARDUST_GENERATION": number},
        )

    def _take_up_connections(self) -> None:
        """Those that the run before left, now that their next request would be answered."""
        generation = self.generations[self.state.serving]
        wanted = generation.listeners if generation.config.store_connections else []
        count = self.custody.take_up([each.address for each in wanted], self.now)
        if count:
            self.log.info(f"connections that outlived the restart: {count}")

    def _reopen_logs(self) -> None:
        """The access log was renamed (logrotate): everybody goes on in a new file of the old name."""
        for number, generation in self.generations.items():
            if generation.requests is None:
                continue
            try:
                generation.requests.reopen()
            except OSError as fault:
                self.log.error(f"cannot reopen {generation.config.access_log}: {fault.strerror}")
                continue
            writers = [child.channel for child in self.children.values() if child.generation == number]
            if generation.channel is not None:
                writers.append(generation.channel)
            for channel in writers:
                channel.send("reopen", None, [generation.requests.descriptor])

    # --- forgetting --------------------------------------------------------------------------------------

    def _forget_child(self, child: Child) -> None:
        if self.children.pop(child.number, None) is None:
            return
        self.unwatch(child.channel.fileno())
        child.channel.close()
        os.close(child.stacks)
        if child.pidfd is not None:
            self.unwatch(child.pidfd)
            os.close(child.pidfd)
        self.scoreboard.clear(child.slot)

    def _forget_generations(self) -> None:
        """Give back what belongs to generations that are over: their logs, and listeners nobody else has."""
        let_go = self.keeper.close if self.state.stop is Stop.NO else self.keeper.leave
        for number in [number for number in self.generations if number not in self.state.generations]:
            generation = self.generations.pop(number)
            for each in listener.superseded(generation.listeners, self._bound()):
                if self.state.stop is Stop.NO and not each.inherited:
                    self._pass_on(each)
                let_go(each)
            if generation.requests is not None:
                generation.requests.close()

    def _pass_on(self, each: Listener) -> None:
        """Give what queues at a listener that is given up to the workers that stay, who do not have it."""
        for sock, accepted in listener.accept_all(each):
            with sock:
                passage = Passage(each.address, *address.peer(accepted), 0, 0.0, self.now, b"")
                self.link.give(sock.fileno(), passage)

    def _close(self) -> None:
        """Leave last, and leave nothing."""
        self.given.notifier.flush()
        if self.custody.stored:
            self.log.info(f"idle connections left to systemd, for the next start: {self.custody.stored}")
        if self.custody.surplus:
            self.log.warning(
                f"idle connections closed, for the next start could not be given them: {self.custody.surplus}"
                "; raise LimitNOFILE= of the unit"
            )
        self.custody.close()
        self.clients.close()
        self.link.close()


def _request(entry: Entry) -> str:
    """The request line that a worker is busy with, as far as the scoreboard has it; "" if it is not busy."""
    return entry.text.partition(" ")[2] if entry.state == BUSY else ""


def _next_message(channel: Channel) -> Message | None:
    """The next message, None if there is none now, or never will be one (`channel.at_end`)."""
    if channel.at_end:
        return None
    try:
        message = channel.receive()
    except BlockingIOError:
        return None
    for descriptor in message.descriptors if message else ():
        os.close(descriptor)  # nobody below has one to give
    return message
