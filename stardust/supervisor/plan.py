"""What the supervisor decides: a pure function from what was seen to what is to be done.

    observe(state, event, now) -> State    book-keeping: what has been seen
    plan(state, now)           -> Plan     actions in order, and when to look again

`plan` looks at the difference between what is wanted and what is there; it is no script of steps. So
merged signals, a suspended machine or a reload during a reload need no special case, and there is no
polling: `Plan.wake_at` is the next moment at which time alone changes the answer.

Rules:
- Nothing here touches a process, a clock or a socket. The shell (`shell.py`) gives each action back as
  `Ordered(action)` and carries it out; only then does the state know of it, so calling `plan` twice is safe.
- A *generation* is one zygote and the workers forked from it. `serving` is the one that is to serve,
  `coming` the one that is to take over (0: none). A boot is a takeover from nothing.
- One rule fills and one rule empties the pool, for boot, refill, reload and rollback alike: workers are
  forked from the *preferred* generation up to the target, and a worker of another generation is retired
  for each preferred one that is ready. Hence never fewer ready workers than the target by our own doing.
- A generation fails as a whole, once, whatever the cause (bad config, no load, a worker that dies before
  it is ready, a time limit, the client of the reload gone): then `coming` is 0 again, and the same two
  rules roll back.
- systemd is owed a READY=1 after every RELOADING=1, also after a failed one (sd_notify(3)).
- A server that nobody needs leaves (`idle.py`) only from a state in which nothing else is to be done.

Times are seconds of the monotonic clock. Add an event or an action here, and `shell.py` must learn it.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TypeVar, assert_never

from stardust.base.errors import Exit
from stardust.base.records import dataclass, field, replace
from stardust.supervisor import idle
from stardust.supervisor.idle import Stage, Watch

V = TypeVar("V")

LONGEST_PAUSE = 30.0  # s; between replacements of something that keeps dying
STACKS_GRACE = 0.5  # s; between asking a stuck worker for its stacks and killing it


class Phase(enum.Enum):
    """Where a worker stands. Only STARTING and READY ones count towards the target."""

    STARTING = "starting"
    READY = "ready"
    LEAVING = "leaving"  # it drains: it was retired, or reached its own limit
    STUCK = "stuck"  # it is to write its stacks
    CONDEMNED = "condemned"  # it was told to write its stacks, and is killed a moment later
    KILLED = "killed"


class Zygote(enum.Enum):
    """Where the zygote of a generation stands."""

    STARTING = "starting"
    LOADED = "loaded"
    LOST = "lost"  # it died by itself; its workers live on, but nothing can be forked
    CLOSING = "closing"


class Stop(enum.Enum):
    NO = "no"
    IDLE = "idle"  # graceful, by its own decision: nobody needs the server
    GRACEFUL = "graceful"
    FAST = "fast"


@dataclass(frozen=True, slots=True)
class Policy:
    """The settings of one generation that decisions depend on; seconds, and a number of workers.

    `idle_timeout` 0: it never leaves by itself.
    """

    workers: int = 10
    spawn_interval: float = 0.0
    respawn_pause: float = 0.1
    boot_timeout: float = 60.0
    graceful_timeout: float = 30.0
    idle_timeout: float = 0.0


@dataclass(frozen=True, slots=True)
class Generation:
    number: int
    zygote: Zygote
    since: float
    policy: Policy


@dataclass(frozen=True, slots=True)
class Worker:
    """`number` is never reused, `slot` is. `pause` is the back-off, in seconds, that preceded the worker."""

    number: int
    slot: int
    generation: int
    phase: Phase
    since: float
    pause: float = 0.0
    why: str = ""


@dataclass(frozen=True, slots=True)
class Vacancy:
    """A place that must stay empty until `until`, because who of `generation` held it died; `pause` is how
    long that is. New code does not pay for the deaths of old code."""

    generation: int
    until: float
    pause: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the last asked-for reload ended. `at` is monotonic; `generation` the one that serves since."""

    ok: bool
    reason: str
    detail: str
    generation: int
    at: float


@dataclass(frozen=True, slots=True)
class State:
    generations: Mapping[int, Generation] = field(default_factory=lambda: MappingProxyType({}))
    workers: Mapping[int, Worker] = field(default_factory=lambda: MappingProxyType({}))
    serving: int = 0
    coming: int = 1
    next_generation: int = 2
    next_worker: int = 1
    slots: int = 1024  # how many the scoreboard has
    adjust: int = 0  # TTIN and TTOU; forgotten when a new generation takes over
    vacancies: tuple[Vacancy, ...] = ()
    last_fork: float = -math.inf
    asked: bool = False  # the takeover under way was asked for: somebody waits for its verdict
    queued: bool = False  # another one was asked for meanwhile
    announced: bool = False  # RELOADING=1 was said for it
    owed: bool = False  # READY=1 is to be said
    verdict: Outcome | None = None  # of the reload that just ended, until it was told
    last: Outcome | None = None
    repair: Vacancy | None = None  # when a lost zygote may be tried again
    idle: Watch = Watch()
    stop: Stop = Stop.NO
    stopping_said: bool = False
    exit_code: Exit = Exit.OK


# --- events: what can be seen ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Loaded:
    """The zygote of a generation has loaded the application (or would, with preload off)."""

    generation: int


@dataclass(frozen=True, slots=True)
class Failed:
    """A generation cannot be brought up, for whatever reason. `detail` may be a traceback."""

    generation: int
    reason: str
    detail: str = ""
    exit: Exit = Exit.APPLICATION


@dataclass(frozen=True, slots=True)
class ZygoteGone:
    generation: int
    how: str = "its zygote died"


@dataclass(frozen=True, slots=True)
class Ready:
    worker: int


@dataclass(frozen=True, slots=True)
class WorkerFailed:
    """A worker could not load the application (preload off). It exits by itself."""

    worker: int
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Leaving:
    """A worker reached its own limit: it takes nothing new, finishes and exits."""

    worker: int


@dataclass(frozen=True, slots=True)
class Overdue:
    """A worker is stuck, and why: "request-timeout" or "heartbeat-timeout"."""

    worker: int
    why: str


@dataclass(frozen=True, slots=True)
class Gone:
    """A worker's process has ended; `how` says how, for people."""

    worker: int
    how: str


@dataclass(frozen=True, slots=True)
class ForkFailed:
    worker: int


@dataclass(frozen=True, slots=True)
class ReloadAsked:
    pass


@dataclass(frozen=True, slots=True)
class ReloadAbandoned:
    """Who asked for the reload has gone (systemd's time limit): what it believes must become true."""


@dataclass(frozen=True, slots=True)
class StopAsked:
    fast: bool = False


@dataclass(frozen=True, slots=True)
class Adjusted:
    """One worker more (+1) or less (-1)."""

    by: int


@dataclass(frozen=True, slots=True)
class QuietSince:
    """By the scoreboard, no worker has run a request after that moment."""

    moment: float


@dataclass(frozen=True, slots=True)
class Paused:
    """A worker accepts nothing any more, by order of pause number `pause`. It holds so many `connections`;
    if none, then it has held none since `since`."""

    worker: int
    pause: int
    connections: int
    since: float


@dataclass(frozen=True, slots=True)
class Configured:
    """A starting generation has read its configuration."""

    generation: int
    policy: Policy


# --- actions: what can be done --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    """Read the configuration, open the listeners, start the zygote."""

    generation: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """A coming generation takes too long."""

    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class Fork:
    worker: int
    slot: int
    generation: int


@dataclass(frozen=True, slots=True)
class Retire:
    """Ask a worker to finish what it holds and exit; `final`: nobody follows it, the whole server stops."""

    worker: int
    final: bool = False


@dataclass(frozen=True, slots=True)
class Dump:
    """Have a stuck worker write the stacks of its threads."""

    worker: int
    why: str


@dataclass(frozen=True, slots=True)
class Kill:
    worker: int
    why: str


@dataclass(frozen=True, slots=True)
class Close:
    """End a zygote: nothing will be forked from it, and none of its workers is left."""

    generation: int


@dataclass(frozen=True, slots=True)
class SayReloading:
    generation: int


@dataclass(frozen=True, slots=True)
class SayReady:
    pass


@dataclass(frozen=True, slots=True)
class SayStopping:
    pass


@dataclass(frozen=True, slots=True)
class CheckIdle:
    """Read off the scoreboard since when no request has run."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Have every worker accept nothing, and say what it holds."""

    number: int


@dataclass(frozen=True, slots=True)
class Resume:
    """Have every worker accept again."""


@dataclass(frozen=True, slots=True)
class LeaveIdle:
    """Nobody is connected, and nobody accepts: stop, and leave new connections to the next start."""


@dataclass(frozen=True, slots=True)
class Conclude:
    """Tell everybody who waits for the reload how it ended."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Leave:
    """Nothing is left to do: end the supervisor."""

    code: Exit


Action = (
    Start
    | GiveUp
    | Fork
    | Retire
    | Dump
    | Kill
    | Close
    | SayReloading
    | SayReady
    | SayStopping
    | CheckIdle
    | Pause
    | Resume
    | LeaveIdle
    | Conclude
    | Leave
)


@dataclass(frozen=True, slots=True)
class Ordered:
    """An action is being carried out; that it failed, if it does, comes as another event."""

    action: Action


Event = (
    Ordered
    | Loaded
    | Failed
    | ZygoteGone
    | Ready
    | WorkerFailed
    | Leaving
    | Overdue
    | Gone
    | ForkFailed
    | ReloadAsked
    | ReloadAbandoned
    | StopAsked
    | Adjusted
    | QuietSince
    | Paused
    | Configured
)


@dataclass(frozen=True, slots=True)
class Plan:
    actions: tuple[Action, ...]
    wake_at: float  # monotonic seconds; inf: only an event changes anything


# --- questions about a state ----------------------------------------------------------------------------


def preferred(state: State) -> Generation | None:
    """The generation to fork from: the coming one once it has loaded, else the serving one."""
    coming = state.generations.get(state.coming)
    if coming is not None and coming.zygote is Zygote.LOADED:
        return coming
    return state.generations.get(state.serving)


def target(state: State) -> int:
    """How many ready workers are wanted now; at least 1 unless stopping, and a slot is left to exchange them.

    A generation that takes over brings its own number: READY=1 means that all of them have loaded.
    """
    generation = preferred(state)
    if generation is None or state.stop is not Stop.NO:
        return 0
    adjust = 0 if state.serving and generation.number == state.coming else state.adjust
    return min(max(1, generation.policy.workers + adjust), state.slots - 1)


def members(state: State, generation: int, *phases: Phase) -> list[Worker]:
    """The workers of a generation in one of `phases` (in any, if none is named), oldest first."""
    return [
        worker
        for worker in state.workers.values()
        if worker.generation == generation and (not phases or worker.phase in phases)
    ]


def active(state: State) -> list[Worker]:
    """The workers that count: starting or ready, of every generation, oldest first."""
    return [worker for worker in state.workers.values() if worker.phase in (Phase.STARTING, Phase.READY)]


def in_progress(state: State) -> bool:
    """Whether a boot, a reload or a stop is under way: systemd's time limits are to be extended."""
    return bool(state.coming) or state.stop is not Stop.NO


def calm(state: State) -> bool:
    """Whether one generation serves, complete, and nothing is to be done but wait: it may leave if idle."""
    serving = state.generations.get(state.serving)
    return (
        state.stop is Stop.NO
        and not state.coming
        and not state.owed
        and state.verdict is None
        and serving is not None
        and serving.zygote is Zygote.LOADED
        and len(state.generations) == 1
        and len(state.workers) == len(members(state, serving.number, Phase.READY)) == target(state)
    )


# --- observe --------------------------------------------------------------------------------------------


def observe(state: State, event: Event, now: float) -> State:
    """The state after `event`. Events about what is no longer known are late news, and change nothing."""
    return _watched(_next_reload(_swept(_taken_over(_observed(state, event, now), now))), now)


def _observed(state: State, event: Event, now: float) -> State:
    match event:
        case Ordered(action):
            return _ordered(state, action, now)
        case Configured(number, policy):
            return _with_generation(state, number, policy=policy)
        case Loaded(number):
            generation = state.generations.get(number)
            if generation is None or generation.zygote is not Zygote.STARTING:
                return state
            return _with_generation(state, number, zygote=Zygote.LOADED, since=now)
        case Failed(number, reason, detail, code):
            return _fail(state, number, reason, detail, code, now)
        case ZygoteGone(number, how):
            return _zygote_gone(state, number, how, now)
        case Ready(number):
            return _moved(state, number, (Phase.STARTING,), Phase.READY, now)
        case WorkerFailed(number, reason, detail):
            worker = state.workers.get(number)
            number = worker.generation if worker else 0
            return _fail(state, number, reason, detail, Exit.APPLICATION, now)
        case Leaving(number):
            return _moved(state, number, (Phase.STARTING, Phase.READY), Phase.LEAVING, now)
        case Overdue(number, why):
            return _moved(state, number, (Phase.READY, Phase.LEAVING), Phase.STUCK, now, why)
        case Gone(number, how):
            return _gone(state, number, how, now)
        case ForkFailed(number):
            return _gone(state, number, "it could not be forked", now)
        case ReloadAsked():
            return _reload_asked(state)
        case ReloadAbandoned():
            if not state.asked:
                return state
            return _fail(state, state.coming, "whoever asked for it has gone", "", Exit.FAILURE, now)
        case StopAsked(fast):
            return _stop_asked(state, Stop.FAST if fast else Stop.GRACEFUL, Exit.OK, now)
        case Adjusted(by):
            return replace(state, adjust=state.adjust + by) if target(state) + by >= 1 else state
        case QuietSince(moment):
            return replace(state, idle=idle.looked(state.idle, moment, _idle_timeout(state), now))
        case Paused(number, pause, connections, since):
            answers = idle.answered(state.idle, number, pause, connections, since, _idle_timeout(state), now)
            return replace(state, idle=answers)
        case _:
            assert_never(event)


def _ordered(state: State, action: Action, now: float) -> State:
    match action:
        case Start(number):
            fresh = Generation(number, Zygote.STARTING, now, Policy())
            return replace(
                state,
                generations=_put(state.generations, number, fresh),
                coming=number,
                next_generation=max(state.next_generation, number + 1),
            )
        case GiveUp(number, reason):
            return _fail(state, number, reason, "", Exit.APPLICATION, now)
        case Fork(number, slot, generation):
            due = next((v for v in state.vacancies if v.generation == generation and v.until <= now), None)
            born = Worker(number, slot, generation, Phase.STARTING, now, due.pause if due else 0.0)
            return replace(
                state,
                workers=_put(state.workers, number, born),
                next_worker=number + 1,
                vacancies=tuple(v for v in state.vacancies if v is not due),
                last_fork=now,
            )
        case Retire(number):
            return _moved(state, number, tuple(Phase), Phase.LEAVING, now)
        case Dump(number, why):
            return _moved(state, number, tuple(Phase), Phase.CONDEMNED, now, why)
        case Kill(number, why):
            return _moved(state, number, tuple(Phase), Phase.KILLED, now, why)
        case Close(number):
            return _with_generation(state, number, zygote=Zygote.CLOSING, since=now)
        case SayReloading():
            return replace(state, announced=True)
        case SayReady():
            return replace(state, owed=False)
        case SayStopping():
            return replace(state, stopping_said=True)
        case CheckIdle():
            return replace(
                state, idle=idle.disturbed(state.idle, now)
            )  # for all that is known till it answers
        case Pause():
            return replace(state, idle=idle.paused(state.idle, state.workers, now))
        case Resume():
            return replace(state, idle=idle.resumed(state.idle, now))
        case LeaveIdle():
            return _stop_asked(state, Stop.IDLE, Exit.OK, now)
        case Conclude():
            return replace(state, verdict=None)
        case Leave():
            return state
        case _:
            assert_never(action)


def _reload_asked(state: State) -> State:
    if state.stop is not Stop.NO:
        return state
    if state.coming or state.verdict is not None or state.owed:
        return replace(state, queued=True)
    number = state.next_generation
    return replace(state, coming=number, next_generation=number + 1, asked=True, announced=False, repair=None)


def _next_reload(state: State) -> State:
    """A reload that was asked for during a takeover begins when the verdict on that one has been told."""
    return _reload_asked(replace(state, queued=False)) if state.queued else state


def _taken_over(state: State, now: float) -> State:
    """The coming generation serves as soon as it is complete and nobody else takes work."""
    coming = state.generations.get(state.coming)
    if coming is None or coming.zygote is not Zygote.LOADED or state.stop is not Stop.NO:
        return state
    ready = len(members(state, coming.number, Phase.READY))
    if ready < target(state) or len(active(state)) > ready:
        return state
    outcome = Outcome(True, "", "", coming.number, now)
    boot = state.serving == 0
    return replace(
        state,
        serving=coming.number,
        coming=0,
        adjust=state.adjust if boot else 0,
        vacancies=(),
        owed=boot or state.announced,
        announced=False,
        verdict=outcome if state.asked else None,
        last=outcome if state.asked else state.last,
        asked=False,
    )


def _fail(state: State, number: int, reason: str, detail: str, code: Exit, now: float) -> State:
    """Only the coming generation can fail. On a boot there is nothing to fall back to: the server stops."""
    if not number or number != state.coming:
        return state
    outcome = Outcome(False, reason, detail, state.serving, now)
    if state.serving == 0:
        return _stop_asked(replace(state, last=outcome), Stop.FAST, code, now)
    pause = _longer(state.repair.pause if state.repair else 0.0, _respawn_pause(state))
    return replace(
        state,
        coming=0,
        owed=state.owed or state.announced,
        announced=False,
        verdict=outcome if state.asked else None,
        last=outcome,
        asked=False,
        repair=Vacancy(state.serving, now + pause, pause),
    )


def _zygote_gone(state: State, number: int, how: str, now: float) -> State:
    generation = state.generations.get(number)
    if generation is None:
        return state
    if number == state.serving:
        pause = generation.policy.respawn_pause
        state = replace(state, repair=Vacancy(number, now + pause, pause))
    state = _with_generation(state, number, zygote=Zygote.LOST, since=now)
    return _fail(state, number, how, "", Exit.FAILURE, now)


def _gone(state: State, number: int, how: str, now: float) -> State:
    worker = state.workers.get(number)
    if worker is None:
        return state
    state = replace(state, workers=_drop(state.workers, number))
    late = worker.phase is Phase.KILLED and worker.why == "boot-timeout"
    if worker.generation == state.coming and (late or worker.phase is Phase.STARTING):
        reason = f"a worker ended before it was ready: {worker.why or how}"
        return _fail(state, worker.generation, reason, "", Exit.FAILURE, now)
    if not late and worker.phase not in (Phase.STARTING, Phase.READY):
        return state
    # A worker that outlived twice the pause before it has recovered; one that did not keeps dying.
    lived = now - worker.since if worker.phase is Phase.READY else 0.0
    pause = _respawn_pause(state)
    if lived <= 2 * max(worker.pause, pause):
        pause = _longer(worker.pause, pause)
    return replace(state, vacancies=(*state.vacancies, Vacancy(worker.generation, now + pause, pause)))


def _stop_asked(state: State, stop: Stop, code: Exit, now: float) -> State:
    if state.stop in (Stop.GRACEFUL, Stop.FAST):
        return replace(state, stop=Stop.FAST)  # asked twice: no more patience
    outcome = Outcome(False, "the server is stopping", "", state.serving, now)
    return replace(
        state,
        coming=0,
        stop=stop,
        exit_code=code,
        verdict=outcome if state.asked else state.verdict,
        asked=False,
    )


def _watched(state: State, now: float) -> State:
    """Whatever else is under way, the server is needed for it."""
    return state if calm(state) else replace(state, idle=idle.disturbed(state.idle, now))


def _swept(state: State) -> State:
    """A generation whose zygote is gone is forgotten with its last worker, unless it still is to serve."""
    kept = {
        number: generation
        for number, generation in state.generations.items()
        if members(state, number)
        or generation.zygote is not Zygote.LOST
        or (number == state.serving and state.stop is Stop.NO)
    }
    return (
        state if len(kept) == len(state.generations) else replace(state, generations=MappingProxyType(kept))
    )


def _moved(
    state: State, number: int, expected: tuple[Phase, ...], phase: Phase, now: float, why: str = ""
) -> State:
    worker = state.workers.get(number)
    if worker is None or worker.phase not in expected:
        return state
    moved = replace(worker, phase=phase, since=now, why=why or worker.why)
    return replace(state, workers=_put(state.workers, number, moved))


def _with_generation(
    state: State,
    number: int,
    *,
    zygote: Zygote | None = None,
    since: float | None = None,
    policy: Policy | None = None,
) -> State:
    old = state.generations.get(number)
    if old is None:
        return state
    new = Generation(
        number, zygote or old.zygote, old.since if since is None else since, policy or old.policy
    )
    return replace(state, generations=_put(state.generations, number, new))


def _idle_timeout(state: State) -> float:
    """How long it is to be idle before it leaves: for ever, if it never is to."""
    generation = state.generations.get(state.serving)
    return generation.policy.idle_timeout if generation and generation.policy.idle_timeout else math.inf


def _respawn_pause(state: State) -> float:
    generation = preferred(state)
    return generation.policy.respawn_pause if generation else Policy().respawn_pause


def _longer(pause: float, least: float) -> float:
    return min(LONGEST_PAUSE, max(least, 2 * pause))


def _put(mapping: Mapping[int, V], key: int, value: V) -> Mapping[int, V]:
    return MappingProxyType({**mapping, key: value})


def _drop(mapping: Mapping[int, V], key: int) -> Mapping[int, V]:
    return MappingProxyType({k: v for k, v in mapping.items() if k != key})


# --- plan -----------------------------------------------------------------------------------------------


def plan(state: State, now: float) -> Plan:
    """What is to be done now, in order, and when to look again if nothing happens.

    Who is late comes first and alone: what else is to be done is decided when that is known to the state,
    so no worker is in two minds.
    """
    actions: list[Action] = []
    alarms: list[float] = []
    for step in (_deadlines, _stopping if state.stop is not Stop.NO else _running):
        for item in step(state, now):
            if isinstance(item, float):
                alarms.append(item)
            else:
                actions.append(item)
        if actions:
            break
    return Plan(tuple(actions), min(alarms, default=math.inf))


def _deadlines(state: State, now: float) -> Iterator[Action | float]:
    """Whoever is too late: stuck workers, slow starters, slow leavers, a zygote that does not load."""
    for worker in state.workers.values():
        generation = state.generations.get(worker.generation)
        policy = generation.policy if generation else Policy()
        match worker.phase:
            case Phase.STUCK:
                yield Dump(worker.number, worker.why)
            case Phase.CONDEMNED:
                yield from _at(worker.since + STACKS_GRACE, now, Kill(worker.number, worker.why))
            case Phase.STARTING:
                yield from _at(worker.since + policy.boot_timeout, now, Kill(worker.number, "boot-timeout"))
            case Phase.LEAVING:
                late = Kill(worker.number, "graceful-timeout")
                yield from _at(worker.since + policy.graceful_timeout, now, late)
            case Phase.READY | Phase.KILLED:
                pass
    coming = state.generations.get(state.coming)
    if coming is not None and coming.zygote is Zygote.STARTING:
        limit = coming.policy.boot_timeout
        reason = f"the application did not load within boot-timeout = {limit:g} s"
        yield from _at(coming.since + limit, now, GiveUp(coming.number, reason))


def _running(state: State, now: float) -> Iterator[Action | float]:
    yield from _idling(state, now)
    if state.asked and not state.announced:
        yield SayReloading(state.coming)
    if state.coming and state.coming not in state.generations:
        yield Start(state.coming)
    serving = state.generations.get(state.serving)
    if serving is not None and serving.zygote is Zygote.LOST and not state.coming and state.repair:
        yield from _at(state.repair.until, now, Start(state.next_generation))
    yield from _fill(state, now)
    yield from _empty(state)
    yield from _close(state)
    if state.owed:
        yield SayReady()
    if state.verdict is not None:
        yield Conclude(state.verdict)


def _idling(state: State, now: float) -> Iterator[Action | float]:
    match state.idle.stage:
        case Stage.WATCHING:
            if calm(state) and (timeout := _idle_timeout(state)) < math.inf:
                yield from _at(state.idle.since + timeout, now, CheckIdle())
        case Stage.DUE:
            yield Pause(state.idle.pause + 1)
        case Stage.ASKED:
            yield from _at(state.idle.until, now, Resume())
        case Stage.OVER:
            yield Resume()
        case Stage.AGREED:
            yield LeaveIdle()


def _stopping(state: State, now: float) -> Iterator[Action | float]:
    if not state.stopping_said:
        yield SayStopping()
    for worker in state.workers.values():
        if state.stop is Stop.FAST and worker.phase is not Phase.KILLED:
            yield Kill(worker.number, "the server stops at once")
        elif worker.phase is Phase.STARTING:
            yield Kill(worker.number, "the server stops")
        elif worker.phase is Phase.READY:
            yield Retire(worker.number, final=True)
    yield from _close(state)
    if state.verdict is not None:
        yield Conclude(state.verdict)
    if not state.workers and not state.generations:
        yield Leave(state.exit_code)


def _fill(state: State, now: float) -> Iterator[Action | float]:
    """Fork from the preferred generation up to the target: one by one beside another one, else at once."""
    source = preferred(state)
    if source is None or source.zygote is not Zygote.LOADED:
        return
    ours = members(state, source.number, Phase.STARTING, Phase.READY)
    missing = target(state) - len(ours)
    mine = [vacancy for vacancy in state.vacancies if vacancy.generation == source.number]
    blocked = [vacancy.until for vacancy in mine if vacancy.until > now]
    room = missing - len(blocked)
    if missing > 0 and blocked:
        yield min(blocked)
    if source.number == state.coming and len(active(state)) > len(ours):
        room = min(room, 1 - sum(worker.phase is Phase.STARTING for worker in ours))
    interval = source.policy.spawn_interval
    if room > 0 and interval:
        if state.last_fork + interval > now:
            yield state.last_fork + interval
            return
        room = 1
    taken = {worker.slot for worker in state.workers.values()}
    free = (slot for slot in range(state.slots) if slot not in taken)
    for number, slot in zip(range(state.next_worker, state.next_worker + room), free, strict=False):
        yield Fork(number, slot, source.number)


def _empty(state: State) -> Iterator[Action]:
    """Retire workers of other generations for ready ones of the preferred; then what is over the target.

    Those that are not ready yet go first: nobody would miss them.
    """
    source = preferred(state)
    if source is None:
        return
    ours = members(state, source.number, Phase.STARTING, Phase.READY)
    ready = [worker for worker in ours if worker.phase is Phase.READY]
    others = [worker for worker in active(state) if worker.generation != source.number]
    for worker in others:
        # A failed generation's worker that never got ready may hang in the application's import.
        if worker.phase is Phase.STARTING and worker.generation not in (state.serving, state.coming):
            yield Kill(worker.number, "its generation failed")
    others = [
        worker for worker in others if worker.phase is Phase.READY or worker.generation == state.serving
    ]
    others.sort(key=lambda worker: worker.phase is Phase.READY)
    if ready:
        for worker in others[: max(0, len(ready) + len(others) - target(state))]:
            yield Retire(worker.number)
    if not others:
        starting = [worker for worker in ours if worker.phase is Phase.STARTING]
        for worker in [*ready, *starting][target(state) :]:
            yield Retire(worker.number)


def _close(state: State) -> Iterator[Action]:
    wanted = (state.serving, state.coming) if state.stop is Stop.NO else ()
    for generation in state.generations.values():
        idle = not members(state, generation.number) and generation.number not in wanted
        if idle and generation.zygote in (Zygote.STARTING, Zygote.LOADED):
            yield Close(generation.number)


def _at(moment: float, now: float, action: Action) -> Iterator[Action | float]:
    """The action if its moment has come, else the moment."""
    yield action if moment <= now else moment
