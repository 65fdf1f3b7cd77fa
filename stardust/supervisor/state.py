"""What the supervisor knows: one value that is replaced, never changed, and questions about it.

A *generation* is one zygote and the workers forked from it. `serving` is the one that is to serve, `coming`
the one that is to take over (0: none). A boot is a takeover from nothing.

`observe.py` makes states of events, `plan.py` reads from them what is to be done. Pure. Times are seconds of
the monotonic clock.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from types import MappingProxyType

from stardust.base.errors import Exit
from stardust.base.records import dataclass, field
from stardust.supervisor.crossing import Crossing, Leg
from stardust.supervisor.idle import Watch


class Phase(enum.Enum):
    """Where a worker stands. Only STARTING and READY ones count towards the target."""

    STARTING = "starting"
    READY = "ready"
    LEAVING = "leaving"  # it was retired, or reached its own limit, and finishes
    STUCK = "stuck"  # it is to write its stacks
    CONDEMNED = "condemned"  # it was asked to write its stacks, and is killed a moment later
    DOOMED = "doomed"  # it has sent an invalid message, and is killed at once
    KILLED = "killed"


class Zygote(enum.Enum):
    """Where the zygote of a generation stands."""

    STARTING = "starting"
    LOADED = "loaded"
    CONDEMNED = "condemned"  # it has sent an invalid message, and is to be killed
    KILLED = "killed"
    LOST = "lost"  # it died by itself; its workers live on, but nothing can be forked
    CLOSING = "closing"


class Stop(enum.Enum):
    NO = "no"
    IDLE = "idle"  # graceful, by its own decision: no client needs the server
    GRACEFUL = "graceful"
    FAST = "fast"


@dataclass(frozen=True, slots=True)
class Policy:
    """The settings of one generation that decisions depend on; seconds, and a number of workers.

    `idle_timeout` 0: it never exits by itself. `store`: idle connections are to outlive a stop.
    """

    workers: int = 10
    spawn_interval: float = 0.0
    least_backoff: float = 0.1
    boot_timeout: float = 60.0
    graceful_timeout: float = 30.0
    idle_timeout: float = 0.0
    store: bool = False


@dataclass(frozen=True, slots=True)
class Generation:
    """`why`: the reason why its zygote is condemned."""

    number: int
    zygote: Zygote
    since: float
    policy: Policy
    why: str = ""


@dataclass(frozen=True, slots=True)
class Worker:
    """`number` is never reused, `slot` is. `backoff`: so many seconds its place had stayed empty.

    `unanswered`: since when its zygote owes an answer about it (it was forked, or how it ended); else inf.
    """

    number: int
    slot: int
    generation: int
    phase: Phase
    since: float
    backoff: float = 0.0
    why: str = ""
    unanswered: float = math.inf


@dataclass(frozen=True, slots=True)
class Vacancy:
    """A place that must stay empty until `until`, for `backoff` seconds, because a worker of `generation`
    died in it. It counts for that generation only: new code does not wait because old code died."""

    generation: int
    until: float
    backoff: float


@dataclass(frozen=True, slots=True)
class Watchdog:
    """systemd wants a sign of life each `interval` seconds (inf: never), and gets it from a healthy pool.

    `look_at`: when to look at the pool; `owed`: it is healthy, and the sign is to be given.
    """

    interval: float = math.inf
    look_at: float = math.inf
    owed: bool = False


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
    asked: bool = False  # a client asked for the present takeover, and waits for its verdict
    queued: bool = False  # another one was asked for meanwhile
    announced: bool = False  # RELOADING=1 was said for it
    owed: bool = False  # READY=1 is to be said
    verdict: Outcome | None = None  # of the reload that just ended, until the client knows it
    last: Outcome | None = None
    repair: Vacancy | None = None  # when a lost zygote may be tried again
    idle: Watch = Watch()
    crossing: Crossing = Crossing()
    watchdog: Watchdog = Watchdog()
    stop: Stop = Stop.NO
    stopping_said: bool = False
    exit_code: Exit = Exit.OK


# --- questions ----------------------------------------------------------------------------------------


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
    """Whether one generation serves, complete, and nothing is to be done but wait: it may exit if idle."""
    serving = state.generations.get(state.serving)
    return (
        state.stop is Stop.NO
        and not state.coming
        and not state.owed
        and state.verdict is None
        and state.crossing.leg is Leg.NONE
        and serving is not None
        and serving.zygote is Zygote.LOADED
        and len(state.generations) == 1
        and len(state.workers) == len(members(state, serving.number, Phase.READY)) == target(state)
    )


def deserted(state: State) -> bool:
    """Whether no worker and no zygote is left."""
    return not state.workers and not state.generations


def silent_since(state: State, generation: int) -> float:
    """Since when the zygote owes an answer: of several the oldest counts. inf if it owes none."""
    return min((worker.unanswered for worker in members(state, generation)), default=math.inf)


def idle_timeout(state: State) -> float:
    """How long it is to be idle before it exits, in seconds: inf if it never is to."""
    generation = state.generations.get(state.serving)
    return generation.policy.idle_timeout if generation and generation.policy.idle_timeout else math.inf
