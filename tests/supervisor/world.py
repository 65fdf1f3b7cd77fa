"""A simulated world around the supervisor's decisions: zygotes and workers that load, fail, hang, leave and
die in any order. It judges each action by what it knows of them itself. A failure prints the whole dialogue.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import assert_never

from stardust.base.errors import Exit
from stardust.base.records import replace
from stardust.supervisor.crossing import AGAIN, PATIENCE, Crossing, Leg
from stardust.supervisor.idle import Stage
from stardust.supervisor.observe import LOOKS, observe
from stardust.supervisor.plan import Plan, plan
from stardust.supervisor.state import Outcome, Phase, Policy, State, Stop, Watchdog, calm, target
from stardust.supervisor.vocabulary import (
    Action,
    CheckAlive,
    CheckIdle,
    Close,
    Collect,
    Conclude,
    Configured,
    Dump,
    End,
    Event,
    ExitIdle,
    Failed,
    Fork,
    Forked,
    ForkFailed,
    GiveUp,
    Gone,
    HandOn,
    Kill,
    KillZygote,
    Loaded,
    Looked,
    Moved,
    Ordered,
    Pause,
    Paused,
    QuietSince,
    Ready,
    Reaping,
    ReloadAsked,
    Resume,
    Retire,
    SayAlive,
    SayReady,
    SayReloading,
    SayStopping,
    Start,
    StopAsked,
    Store,
    StoringFailed,
    TakeUp,
    ToConnection,
    ToIdle,
    ToProcess,
    ZygoteGone,
)
from tests.supervisor.dialogue import ROUNDS

WATCHDOG = 30.0  # s


class BrokenRuleError(AssertionError):
    """The supervisor did what it must not do."""


@dataclass
class Process:
    """A simulated worker: what it told, and what was done to it."""

    slot: int
    generation: int
    ready: bool = False
    leaving: bool = False  # it said so
    retired: bool = False
    overdue: bool = False
    dumped: bool = False
    killed: bool = False
    babbling: bool = False  # it has sent what is no message
    ended: bool = False  # its zygote was asked how, and has not answered
    unanswered: float = math.inf  # since when its zygote owes word of it
    accepting: bool = True
    to_answer: list[int] = field(default_factory=list)  # pauses it was told of, and -1 for each resume
    connections: int = 0
    served: float = 0.0  # when its last request ended, by the scoreboard
    empty_since: float = 0.0

    @property
    def standing(self) -> str:
        if self.killed:
            return "killed"
        if self.babbling:
            return "babbling"
        if self.overdue:
            return "stuck"
        if self.leaving or self.retired:
            return "leaving"
        return "ready" if self.ready else "starting"

    @property
    def counts(self) -> bool:
        """Whether it takes work, or will, for all that the supervisor can know."""
        return self.standing in ("starting", "ready")


@dataclass
class World:
    """Zygotes, workers, systemd and clients, as far as the supervisor meets them, with a memory."""

    config: Policy | None = field(default_factory=lambda: Policy(workers=2))  # None: it cannot be read
    state: State = field(default_factory=lambda: State(slots=7))
    now: float = 1000.0
    zygotes: dict[int, str] = field(default_factory=dict)
    """never started | loading | loaded | closing | killed | dead"""
    silent: set[int] = field(default_factory=set)  # zygotes that answer nothing
    foul: set[int] = field(default_factory=set)  # and those that have sent what is no message
    policies: dict[int, Policy] = field(default_factory=dict)
    workers: dict[int, Process] = field(default_factory=dict)
    started: int = 0  # the highest number of a generation so far
    forked: int = 0  # and of a worker
    fork_fails: bool = False
    ready_owed: int = 1  # for the boot
    reloads_asked: int = 0
    reload_unanswered: bool = False  # one was asked for, and none has begun since
    reload_running: bool = False
    pauses: int = 0  # the number of the last one
    pausing: bool = False
    stopping: bool = False
    graceful: bool = False  # somebody asked for it, once
    stopping_said: bool = False
    left: Exit | None = None
    alone_since: float = math.inf  # when the last connections began to be collected
    # Connections: with systemd, from the run before; here, on their way to the workers; on the shelf.
    kept: int = 0
    held: int = 0
    shelf: int = 0
    stored: int = 0
    storing: bool = False
    workers_have_room: bool = True
    systemd_has_room: bool = True
    storing_fails: bool = False
    # The watchdog: when the pool was looked at, what was seen, and since when a sign of life is due.
    looked: float = -math.inf
    alive: bool = False
    sign_due: bool = False
    halfway: bool = False  # through what happens now; it stays so if a rule is broken
    transcript: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        leg = Leg.STORED if self.kept else Leg.NONE
        self.state = replace(self.state, crossing=Crossing(leg), watchdog=Watchdog(WATCHDOG, self.now))

    # --- what happens

    def see(self, event: Event) -> None:
        self.halfway = True
        self.transcript.append(f"{self.now:8g}  >> {event}")
        before = self.state.verdict
        self.state = observe(self.state, event, self.now)
        self._judge_verdict(before)

    def settle(self) -> None:
        """Do as the shell does until it leaves, and judge all of it."""
        self.halfway = True
        if self.left is not None:
            return
        for _ in range(ROUNDS):
            decided = plan(self.state, self.now)
            self.demand(decided == plan(self.state, self.now), "plan gives different answers")
            if not decided.actions:
                self._judge_rest(decided)
                return
            self._judge_together(decided)
            for action in decided.actions:
                self.transcript.append(f"{self.now:8g}  << {action}")
                self.demand(self.left is None, "it acts after it left")
                before = self.state.verdict
                self.state = observe(self.state, Ordered(action), self.now)
                self._act(action)
                self._judge_verdict(before)
            if isinstance(decided.actions[-1], End):
                return
        self.demand(False, "it never settles")

    def demand(self, true: bool, otherwise: str) -> None:
        if not true:
            raise BrokenRuleError("\n".join([*self.transcript, otherwise]))

    def gone(self, number: int) -> None:
        """A worker has ended; who asks how is answered, if its zygote is not silent."""
        worker = self.workers[number]
        generation = worker.generation
        if not worker.ended and self.zygotes[generation] == "loaded":
            worker.ended, worker.unanswered = True, self.now
            self.see(Reaping(number))
        if generation not in self.silent or self.zygotes[generation] != "loaded":
            self._buried(number)

    def _buried(self, number: int) -> None:
        del self.workers[number]
        self.see(Gone(number, "it ended"))

    def zygote_gone(self, number: int) -> None:
        """Who of its workers has ended is told by the kernel now."""
        self.zygotes[number] = "dead"
        for orphan, worker in list(self.workers.items()):
            if worker.generation == number:
                worker.unanswered = math.inf
                if worker.ended:
                    self._buried(orphan)
        self.see(ZygoteGone(number))

    @property
    def deserted(self) -> bool:
        return not self.workers and set(self.zygotes.values()) <= {"dead"}

    def zygote_answers(self, number: int) -> None:
        """Whatever it owes."""
        self.silent.discard(number)
        for child, worker in list(self.workers.items()):
            if worker.generation == number and worker.unanswered < math.inf:
                worker.unanswered = math.inf
                if worker.ended:
                    self._buried(child)
                else:
                    self.see(Forked(child))

    def active(self, generation: int | None = None) -> list[Process]:
        """The workers that count, of one generation or of all."""
        return [
            each for each in self.workers.values() if each.counts and generation in (None, each.generation)
        ]

    # --- what is done

    def _act(self, action: Action) -> None:
        if isinstance(action, ToProcess):
            self._act_on_process(action)
        elif isinstance(action, ToIdle):
            self._idle(action)
        elif isinstance(action, ToConnection):
            self._carry(action)
        elif isinstance(action, CheckAlive | SayAlive):
            self._vouch(action)
        elif isinstance(action, End):
            self._leave(action.code)
        else:
            self._say(action)

    def _act_on_process(self, action: ToProcess) -> None:
        match action:
            case Start(number):
                self._start(number)
            case GiveUp(number):
                self.demand(self.zygotes[number] == "loading", "it gives up what does not load")
            case Fork():
                self._fork(action)
            case Retire(number, final):
                worker = self._living(number)
                self.demand(worker.counts, "it retires a worker that leaves already")
                self.demand(final == self.stopping, "final and stopping differ")
                worker.retired = True
            case Dump(number):
                worker = self._living(number)
                self.demand(worker.overdue and not worker.dumped, "one dump for each stuck worker")
                worker.dumped = True
            case Kill(number):
                self._kill(self._living(number))
            case KillZygote(number):
                self._kill_zygote(number)
            case Close(number):
                self._close(number)
            case _:
                assert_never(action)

    def _idle(self, action: ToIdle) -> None:
        match action:
            case CheckIdle():
                self.see(QuietSince(max(worker.served for worker in self.workers.values())))
            case Pause(number):
                self.demand(number > self.pauses, "a pause's number is used twice")
                self.demand(self.state.coming == 0 and not self.stopping, "it pauses though there is work")
                self.pauses, self.pausing = number, True
                self._tell_everybody(number)
            case Resume():
                self.demand(self.pausing, "it resumes what never paused")
                self.pausing = False
                self._tell_everybody(-1)
            case ExitIdle():
                self._leave_idle()
            case _:
                assert_never(action)

    def _leave(self, code: Exit) -> None:
        self.demand(self.deserted, "it leaves others behind")
        self.demand(self.stopping_said and not self.reload_running, "it leaves without a word")
        patient = self.alone_since + PATIENCE <= self.now
        self.demand(not self.storing or not self.shelf or patient, "it leaves connections behind")
        self.left = code

    def _vouch(self, action: CheckAlive | SayAlive) -> None:
        match action:
            case CheckAlive():
                standing = {worker.standing for worker in self.workers.values() if not worker.ended}
                self.looked, self.alive = self.now, "ready" in standing
                busy = self.stopping or self.state.coming
                self.sign_due = bool(self.alive or busy or "starting" in standing)
                self.see(Looked(self.alive))
            case SayAlive():
                busy = self.stopping or self.reload_running or self.state.coming
                starting = any(worker.standing == "starting" for worker in self.workers.values())
                # What changes in the moment between is forgiven.
                healthy = self.sign_due or self.alive or busy or starting
                self.demand(bool(healthy), "it gives a sign of life, and nobody lives")
                self.sign_due = False
            case _:
                assert_never(action)

    def _carry(self, action: ToConnection) -> None:
        match action:
            case TakeUp():
                booted = self.state.serving > 0 and (not self.ready_owed or self.reload_running)
                self.demand(booted and not self.stopping, "it takes connections up before it serves")
                self.demand(self.kept > 0, "it takes up what nobody left")
                self.held, self.kept = self.kept, 0
            case HandOn():
                self.demand(not self.stopping, "it gives connections to workers that leave")
                self.held = 0 if self.workers_have_room else self.held
                if not self.held:
                    self.see(Moved())
            case Store():
                self.demand(self.graceful and not self.stopping_said, "it stores, and nobody asked")
                self.demand(self.policies[self.state.serving].store, "it stores what it was told not to")
                self.storing = not self.storing_fails
                if self.storing_fails:
                    self.see(StoringFailed())
                self.shelf += self.held if self.storing else 0
                self.held = 0
            case Collect(last):
                self.demand(self.storing, "it collects what it never stored")
                self.demand(last == self.deserted, "the last are collected last")
                if last:
                    self.alone_since = min(self.alone_since, self.now)
                if self.systemd_has_room:
                    self.stored, self.shelf = self.stored + self.shelf, 0
                    self.see(Moved())
            case _:
                assert_never(action)

    def _tell_everybody(self, order: int) -> None:
        for worker in self.workers.values():
            worker.to_answer.append(order)

    def _leave_idle(self) -> None:
        """This is what the pause is for: nobody can be lost any more, and nobody was here for so long."""
        timeout = self.policies[self.state.serving].idle_timeout
        for number, worker in self.workers.items():
            quiet = not worker.connections and not worker.accepting
            self.demand(quiet, f"worker {number} may lose a connection")
            self.demand(worker.empty_since + timeout <= self.now, f"worker {number} was not idle for so long")
        undone = self.reload_unanswered or self.reload_running or self.ready_owed or self.state.coming
        self.demand(not undone and timeout > 0, "it leaves, and something is to be done")
        self.stopping = True

    def answer(self, number: int) -> None:
        """A worker reads one order: to pause, or to resume."""
        worker = self.workers[number]
        pause = worker.to_answer.pop(0)
        worker.accepting = pause < 0
        if pause > 0:
            self.see(Paused(number, pause, worker.connections, worker.empty_since))

    def _start(self, number: int) -> None:
        self.demand(number > self.started, "a generation's number is used twice")
        self.demand(not self.stopping, "it starts a generation while it stops")
        others = [
            n for n, standing in self.zygotes.items() if standing == "loading" and n == self.state.coming
        ]
        self.demand(not others, "two generations come at once")
        self.started = number
        if self.config is None:
            self.zygotes[number] = "never started"
            self.see(Failed(number, "the configuration is wrong", "", Exit.CONFIG))
        else:
            self.zygotes[number] = "loading"
            self.policies[number] = self.config
            self.see(Configured(number, self.config))

    def _fork(self, order: Fork) -> None:
        self.demand(self.zygotes[order.generation] == "loaded", "it forks from no zygote")
        self.demand(order.worker > self.forked, "a worker's number is used twice")
        slots = {worker.slot for worker in self.workers.values()}
        self.demand(0 <= order.slot < self.state.slots and order.slot not in slots, "the slot is taken")
        self.forked = order.worker
        if self.fork_fails:
            self.fork_fails = False
            self.see(ForkFailed(order.worker))
        else:
            self.workers[order.worker] = Process(
                order.slot,
                order.generation,
                served=self.now,
                empty_since=self.now,
                unanswered=self.now,
            )
            if order.generation not in self.silent:
                self.zygote_answers(order.generation)

    def _kill(self, worker: Process) -> None:
        self.demand(not worker.killed, "it kills a worker twice")
        if worker.ready and worker.counts:
            self.demand(self.stopping, "it kills a worker that serves")
        worker.killed = True

    def _kill_zygote(self, number: int) -> None:
        standing = self.zygotes[number]
        self.demand(standing in ("loading", "loaded"), f"it kills a zygote that is {standing}")
        mine = [worker for worker in self.workers.values() if worker.generation == number]
        since = min((worker.unanswered for worker in mine), default=math.inf)
        silent = since + self.policies[number].boot_timeout <= self.now
        self.demand(number in self.foul or silent, "it kills a zygote that did nothing wrong")
        self.zygotes[number] = "killed"

    def _close(self, number: int) -> None:
        standing = self.zygotes[number]
        self.demand(
            standing in ("never started", "loading", "loaded"), f"it closes a zygote that is {standing}"
        )
        mine = [worker for worker in self.workers.values() if worker.generation == number]
        self.demand(not mine, "it closes a zygote that has workers")
        self.zygotes[number] = "closing"
        if standing == "never started":
            self.zygote_gone(number)

    def _say(self, action: SayReloading | SayReady | SayStopping | Conclude) -> None:
        match action:
            case SayReloading():
                self.demand(self.reloads_asked > 0, "it reloads, and nobody asked")
                self.demand(self.ready_owed == 0, "it says RELOADING=1 twice, and READY=1 not between")
                self.demand(not self.reload_running, "two reloads run at once")
                self.reloads_asked -= 1
                self.reload_unanswered = False
                self.reload_running = True
                self.ready_owed = 1
            case SayReady():
                self.demand(self.ready_owed == 1, "it says READY=1 without need")
                self.ready_owed = 0
            case Conclude():
                if not self.reload_running and not self.stopping:
                    # Asked for and abandoned in the same moment: it never began.
                    self.demand(self.reload_unanswered, "a verdict that nobody waits for")
                    self.reloads_asked -= 1
                    self.reload_unanswered = False
                self.demand(self.ready_owed == 0 or self.stopping, "the verdict comes before READY=1")
                self.reload_running = False
            case SayStopping():
                self.demand(not self.stopping_said, "it says STOPPING=1 twice")
                self.stopping = self.stopping_said = True
            case _:
                assert_never(action)

    def _living(self, number: int) -> Process:
        self.demand(number in self.workers, "no such worker lives")
        return self.workers[number]

    # --- judgements of the whole

    def _judge_verdict(self, before: Outcome | None) -> None:
        """What is told of a reload that succeeded is true when it is decided. Before it is told, a worker may
        die."""
        outcome = self.state.verdict
        if outcome is None or outcome is before or not outcome.ok or self.stopping:
            return
        ready = [worker for worker in self.active() if worker.ready]
        mine = {worker.generation for worker in ready} == {outcome.generation}
        self.demand(mine and len(ready) >= target(self.state), "the verdict is not true")

    def _judge_together(self, decided: Plan) -> None:
        """Not more are forked than wanted; and ready ones go only if as many stay ready as are wanted."""
        if self.stopping or self.state.stop is not Stop.NO:
            return
        for number in self.zygotes:
            forks = sum(isinstance(a, Fork) and a.generation == number for a in decided.actions)
            few = len(self.active(number)) + forks <= target(self.state)
            self.demand(not forks or few, f"{decided.actions} fork more workers than wanted")
        leaving = [
            a.worker for a in decided.actions if isinstance(a, Retire) and self._living(a.worker).ready
        ]
        ready = sum(worker.ready for worker in self.active())
        enough = ready - len(leaving) >= target(self.state)
        self.demand(not leaving or enough, f"{decided.actions} leave fewer ready workers than wanted")

    def _judge_rest(self, decided: Plan) -> None:
        """Nothing is left to do, and nothing will be before `wake_at`."""
        self.demand(decided.wake_at > self.now, "it sleeps into the past")
        last = math.nextafter(min(decided.wake_at, self.now + 1e6), 0.0)
        for moment in (self.now, (self.now + last) / 2, last):
            self.demand(plan(self.state, moment) == decided, f"it would do something at {moment:g}")
        for worker in self.workers.values():
            self.demand(worker.killed or not worker.babbling, "who talks nonsense is trusted")
        for number in self.foul:
            self.demand(self.zygotes[number] not in ("loading", "loaded"), "a foul zygote is trusted")
        self.demand(not self.sign_due, "the pool is healthy, and no sign of life was given")
        self.demand(decided.wake_at <= self.looked + WATCHDOG / LOOKS, "it looks at the pool too rarely")
        waits = (self.held and not self.stopping) or (self.storing and self.shelf)
        self.demand(not waits or decided.wake_at <= self.now + AGAIN, "connections wait, and are forgotten")
        coming = self.state.coming
        if self.zygotes.get(coming) == "loaded" and self.active(coming):
            everyone, others = len(self.active()), len(self.active()) - len(self.active(coming))
            # One more than there are or are to be: who is being exchanged.
            most = max(target(self.state), others) + 1
            self.demand(everyone <= most, f"{everyone} workers, where {most} would do")

    # --- a kind world: nothing fails, and everything ends that was told to

    def be_kind(self) -> None:
        """Let everything that can go on go on, until nothing more happens."""
        self.config = self.config or Policy(workers=2)
        self.fork_fails = self.storing_fails = False
        self.workers_have_room = self.systemd_has_room = True
        self.settle()
        for _ in range(2000):
            if self.left is not None or not self._goes_on():
                return
            self.settle()
        self.demand(False, "it never comes to rest")

    def _goes_on(self) -> bool:
        for number, standing in list(self.zygotes.items()):
            if standing == "loading":
                self.zygotes[number] = "loaded"
                self.see(Loaded(number))
                return True
            if standing in ("closing", "killed"):
                self.zygote_gone(number)
                return True
            if number in self.silent:
                self.zygote_answers(number)
                return True
        for number, worker in list(self.workers.items()):
            if worker.standing in ("leaving", "killed"):
                self.gone(number)
                return True
            if worker.standing == "starting":
                worker.ready = True
                self.see(Ready(number))
                return True
            if worker.to_answer and worker.ready:
                self.answer(number)
                return True
        wake_at = plan(self.state, self.now).wake_at
        if wake_at == math.inf or (calm(self.state) and self.state.idle.stage is Stage.WATCHING):
            return False  # nothing would happen, or only an idle exit
        self.now = wake_at
        return True

    def judge_peace(self) -> None:
        """After kind times: one generation serves, complete, and nobody is owed anything."""
        state, number = self.state, self.state.serving
        self.demand(state.coming == 0 and list(state.generations) == [number], "not one generation serves")
        self.demand({n for n, s in self.zygotes.items() if s != "dead"} == {number}, "zygotes are left")
        phases = {worker.phase for worker in state.workers.values()}
        self.demand(
            phases == {Phase.READY} and state.workers.keys() == self.workers.keys(), "not all are ready"
        )
        wanted = min(state.slots - 1, max(1, self.policies[number].workers + state.adjust))
        mine = [worker for worker in self.workers.values() if worker.generation == number]
        self.demand(len(mine) == len(self.workers) == wanted, f"not {wanted} workers")
        open_for_all = all(worker.accepting for worker in self.workers.values()) and not self.pausing
        self.demand(open_for_all, "somebody still pauses")
        owing = self.ready_owed or self.reload_running or self.reload_unanswered
        self.demand(not owing and state.verdict is None, "somebody still waits")
        self.demand(not self.kept and not self.held, "connections were not handed on")

    def judge_reload(self) -> None:
        """Whatever has happened before, a good reload succeeds, and exactly what is configured serves."""
        self.ask_reload()
        self.be_kind()
        self.judge_peace()
        self.demand(self.state.serving == self.started, "the last good generation does not serve")
        self.demand(self.state.last is not None and self.state.last.ok, "the reload failed")
        self.demand(not self.state.vacancies, "it remembers the deaths of old code")
        self.demand(
            len(self.workers) == min(6, self.policies[self.started].workers), "the pool is not complete"
        )

    def ask_reload(self) -> None:
        self.reloads_asked += 1
        self.reload_unanswered = True
        self.see(ReloadAsked())

    def ask_stop(self, fast: bool) -> None:
        self.stopping, self.graceful = True, not fast and not self.stopping
        self.see(StopAsked(fast))
