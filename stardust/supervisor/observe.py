"""Book-keeping: observe(state, event, now) → state, what is known after something was seen.

- The shell gives each action back as `Ordered(action)` and carries it out; only then does the state know of
  it. What the act itself reveals comes as another event.
- A generation fails as a whole, once, whatever the cause (bad config, no load, a worker that dies before it
  is ready, a time limit, the client of the reload gone): then `coming` is 0 again, and the rules of `plan.py`
  roll back.
- An event about something that was forgotten comes too late, and changes nothing.

Pure. Times are seconds of the monotonic clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeVar, assert_never

from stardust.base.errors import Exit
from stardust.base.records import replace
from stardust.supervisor import crossing, idle
from stardust.supervisor.crossing import Crossing, Leg
from stardust.supervisor.state import (
    Generation,
    Outcome,
    Phase,
    Policy,
    State,
    Stop,
    Vacancy,
    Worker,
    Zygote,
    active,
    calm,
    idle_timeout,
    in_progress,
    members,
    preferred,
    target,
)
from stardust.supervisor.vocabulary import (
    Action,
    Adjusted,
    Asked,
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
    Leaving,
    Loaded,
    Looked,
    Moved,
    Nonsense,
    OfConnections,
    OfWorker,
    OfZygote,
    Ordered,
    Overdue,
    Pause,
    Paused,
    QuietSince,
    Ready,
    Reaping,
    ReloadAbandoned,
    ReloadAsked,
    Resume,
    Retire,
    SayAlive,
    SayReady,
    SayReloading,
    SayStopping,
    Shelved,
    Start,
    StopAsked,
    Store,
    StoringFailed,
    TakeUp,
    ToConnection,
    ToIdle,
    ToProcess,
    ToTell,
    WorkerFailed,
    ZygoteGone,
    ZygoteNonsense,
)

V = TypeVar("V")

LONGEST_BACKOFF = 30.0  # s; between replacements of something that keeps dying
LOOKS = 3  # at the pool's health within one interval of the watchdog


def observe(state: State, event: Event, now: float) -> State:
    """The state after `event`. One about something that was forgotten changes nothing."""
    return _watched(_next_reload(_swept(_taken_over(_observed(state, event, now), now))), now)


def _observed(state: State, event: Event, now: float) -> State:
    if isinstance(event, Ordered):
        return _ordered(state, event.action, now)
    if isinstance(event, OfZygote):
        return _of_zygote(state, event, now)
    if isinstance(event, OfWorker):
        return _of_worker(state, event, now)
    if isinstance(event, Asked):
        return _asked(state, event, now)
    if isinstance(event, OfConnections):
        return replace(state, crossing=_of_connections(state.crossing, event, now))
    match event:
        case QuietSince(moment):
            return replace(state, idle=idle.looked(state.idle, moment, idle_timeout(state), now))
        case Paused(worker, number, connections, since):
            timeout = idle_timeout(state)
            answers = idle.answered(state.idle, worker, number, connections, since, timeout, now)
            return replace(state, idle=answers)
        case Looked(alive):
            starting = any(worker.phase is Phase.STARTING for worker in state.workers.values())
            healthy = alive or starting or in_progress(state)
            return replace(state, watchdog=replace(state.watchdog, owed=healthy))
        case _:
            assert_never(event)


def _of_zygote(state: State, event: OfZygote, now: float) -> State:
    match event:
        case Configured(number, policy):
            return _with_generation(state, number, policy=policy)
        case Loaded(number):
            return _zygote_moved(state, number, (Zygote.STARTING,), Zygote.LOADED, now)
        case Failed(number, reason, detail, code):
            return _fail(state, number, reason, detail, code, now)
        case ZygoteGone(number, how):
            return _zygote_gone(state, number, how, now)
        case ZygoteNonsense(number, what):
            alive = (Zygote.STARTING, Zygote.LOADED)
            return _zygote_moved(state, number, alive, Zygote.CONDEMNED, now, f"has sent {what}")
        case _:
            assert_never(event)


def _of_worker(state: State, event: OfWorker, now: float) -> State:
    match event:
        case Forked(number):
            return _with_worker(state, number, unanswered=math.inf)
        case ForkFailed(number):
            return _gone(state, number, "it could not be forked", now)
        case Ready(number):
            return _moved(state, number, (Phase.STARTING,), Phase.READY, now)
        case WorkerFailed(number, reason, detail):
            worker = state.workers.get(number)
            return _fail(state, worker.generation if worker else 0, reason, detail, Exit.APPLICATION, now)
        case Leaving(number):
            return _moved(state, number, (Phase.STARTING, Phase.READY), Phase.LEAVING, now)
        case Overdue(number, why):
            return _moved(state, number, (Phase.READY, Phase.LEAVING), Phase.STUCK, now, why)
        case Nonsense(number, what):
            return _doomed(state, number, f"it has sent {what}", now)
        case Reaping(number):
            return _with_worker(state, number, unanswered=now)
        case Gone(number, how):
            return _gone(state, number, how, now)
        case _:
            assert_never(event)


def _asked(state: State, event: Asked, now: float) -> State:
    match event:
        case ReloadAsked():
            return _reload_asked(state)
        case ReloadAbandoned():
            if not state.asked:
                return state
            return _fail(
                state, state.coming, "the client that asked for it has disconnected", "", Exit.FAILURE, now
            )
        case StopAsked(fast):
            return _stop_asked(state, Stop.FAST if fast else Stop.GRACEFUL, Exit.OK, now)
        case Adjusted(by):
            return replace(state, adjust=state.adjust + by) if target(state) + by >= 1 else state
        case _:
            assert_never(event)


def _of_connections(way: Crossing, event: OfConnections, now: float) -> Crossing:
    match event:
        case Shelved():
            return crossing.shelved(way, now)
        case Moved():
            return crossing.moved(way)
        case StoringFailed():
            return Crossing()
        case _:
            assert_never(event)


def _ordered(state: State, action: Action, now: float) -> State:
    if isinstance(action, ToProcess):
        return _done_to_process(state, action, now)
    if isinstance(action, ToIdle):
        return _done_to_idle(state, action, now)
    if isinstance(action, ToConnection):
        return replace(state, crossing=_done_to_connections(state.crossing, action, now))
    if isinstance(action, ToTell):
        return _done_to_tell(state, action, now)
    match action:
        case CheckAlive():
            watchdog = state.watchdog
            return replace(state, watchdog=replace(watchdog, look_at=now + watchdog.interval / LOOKS))
        case End():
            return state
        case _:
            assert_never(action)


def _done_to_process(state: State, action: ToProcess, now: float) -> State:
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
            backoff = due.backoff if due else 0.0
            born = Worker(number, slot, generation, Phase.STARTING, now, backoff, unanswered=now)
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
        case KillZygote(number, why):
            return _zygote_moved(state, number, tuple(Zygote), Zygote.KILLED, now, why)
        case Close(number):
            return _zygote_moved(state, number, tuple(Zygote), Zygote.CLOSING, now)
        case _:
            assert_never(action)


def _done_to_idle(state: State, action: ToIdle, now: float) -> State:
    match action:
        case CheckIdle():
            # For all that is known until it answers.
            return replace(state, idle=idle.disturbed(state.idle, now))
        case Pause():
            return replace(state, idle=idle.paused(state.idle, state.workers, now))
        case Resume():
            return replace(state, idle=idle.resumed(state.idle, now))
        case ExitIdle():
            return _stop_asked(state, Stop.IDLE, Exit.OK, now)
        case _:
            assert_never(action)


def _done_to_connections(way: Crossing, action: ToConnection, now: float) -> Crossing:
    match action:
        case TakeUp():
            return crossing.taken_up(now)
        case HandOn():
            return crossing.tried(way, now)
        case Store():
            return crossing.storing(now)
        case Collect(last):
            return crossing.tried(way, now, last=last)
        case _:
            assert_never(action)


def _done_to_tell(state: State, action: ToTell, now: float) -> State:
    watchdog = state.watchdog
    match action:
        case SayReloading():
            return replace(state, announced=True)
        case SayReady():
            # systemd counts from here: look at once.
            look_at = now if watchdog.interval < math.inf else math.inf
            return replace(state, owed=False, watchdog=replace(watchdog, look_at=look_at))
        case SayStopping():
            return replace(state, stopping_said=True)
        case SayAlive():
            return replace(state, watchdog=replace(watchdog, owed=False))
        case Conclude():
            return replace(state, verdict=None)
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
    """A reload that was asked for during a takeover begins when the verdict on that one was given."""
    return _reload_asked(replace(state, queued=False)) if state.queued else state


def _taken_over(state: State, now: float) -> State:
    """The coming generation serves as soon as it is complete and no other worker takes work."""
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
    backoff = _longer(state.repair.backoff if state.repair else 0.0, _least_backoff(state))
    return replace(
        state,
        coming=0,
        owed=state.owed or state.announced,
        announced=False,
        verdict=outcome if state.asked else None,
        last=outcome,
        asked=False,
        repair=Vacancy(state.serving, now + backoff, backoff),
    )


def _zygote_gone(state: State, number: int, how: str, now: float) -> State:
    generation = state.generations.get(number)
    if generation is None:
        return state
    if number == state.serving:
        backoff = generation.policy.least_backoff
        state = replace(state, repair=Vacancy(number, now + backoff, backoff))
    state = _zygote_moved(state, number, tuple(Zygote), Zygote.LOST, now)
    return _fail(state, number, how, "", Exit.FAILURE, now)


def _gone(state: State, number: int, how: str, now: float) -> State:
    worker = state.workers.get(number)
    if worker is None:
        return state
    state = replace(state, workers=_drop(state.workers, number))
    late = worker.phase is Phase.KILLED and worker.why == "boot-timeout"
    if late or worker.phase in (Phase.STARTING, Phase.READY):
        return _bereaved(state, worker, worker.why or how, now)
    return state


def _doomed(state: State, number: int, why: str, now: float) -> State:
    """It counts as dead at once, though it lives until it is killed: what it says now may be wrong too."""
    worker = state.workers.get(number)
    if worker is None or worker.phase in (Phase.DOOMED, Phase.KILLED):
        return state
    doomed = replace(worker, phase=Phase.DOOMED, since=now, why=why)
    state = replace(state, workers=_put(state.workers, number, doomed))
    if worker.phase in (Phase.STARTING, Phase.READY):
        return _bereaved(state, worker, why, now)
    return state


def _bereaved(state: State, worker: Worker, how: str, now: float) -> State:
    """The death of `worker` (as it was) was not expected: its generation fails, or its place stays empty for
    a while."""
    if worker.generation == state.coming and worker.phase is not Phase.READY:
        reason = f"a worker ended before it was ready: {how}"
        return _fail(state, worker.generation, reason, "", Exit.FAILURE, now)
    # The back-off is over if the worker lived for more than twice as long; else it grows.
    lived = now - worker.since if worker.phase is Phase.READY else 0.0
    backoff = _least_backoff(state)
    if lived <= 2 * max(worker.backoff, backoff):
        backoff = _longer(worker.backoff, backoff)
    vacancy = Vacancy(worker.generation, now + backoff, backoff)
    return replace(state, vacancies=(*state.vacancies, vacancy))


def _stop_asked(state: State, stop: Stop, code: Exit, now: float) -> State:
    if state.stop in (Stop.GRACEFUL, Stop.FAST):
        return replace(state, stop=Stop.FAST)  # asked twice: no more patience
    outcome = Outcome(False, "the server is stopping", "", state.serving, now)
    serving = state.generations.get(state.serving)
    store = stop is Stop.GRACEFUL and serving is not None and serving.policy.store
    return replace(
        state,
        coming=0,
        stop=stop,
        exit_code=code,
        verdict=outcome if state.asked else state.verdict,
        asked=False,
        crossing=Crossing(Leg.WANTED) if store and not state.stopping_said else state.crossing,
    )


def _watched(state: State, now: float) -> State:
    """While anything else is going on, the server is not idle."""
    return state if calm(state) else replace(state, idle=idle.disturbed(state.idle, now))


def _swept(state: State) -> State:
    """A generation whose zygote is gone is forgotten with its last worker, unless it has to serve."""
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


def _with_worker(state: State, number: int, *, unanswered: float) -> State:
    worker = state.workers.get(number)
    if worker is None:
        return state
    return replace(state, workers=_put(state.workers, number, replace(worker, unanswered=unanswered)))


def _zygote_moved(
    state: State, number: int, expected: tuple[Zygote, ...], zygote: Zygote, now: float, why: str = ""
) -> State:
    old = state.generations.get(number)
    if old is None or old.zygote not in expected:
        return state
    moved = replace(old, zygote=zygote, since=now, why=why)
    return replace(state, generations=_put(state.generations, number, moved))


def _with_generation(state: State, number: int, *, policy: Policy) -> State:
    old = state.generations.get(number)
    if old is None:
        return state
    return replace(state, generations=_put(state.generations, number, replace(old, policy=policy)))


def _least_backoff(state: State) -> float:
    generation = preferred(state)
    return generation.policy.least_backoff if generation else Policy().least_backoff


def _longer(backoff: float, least: float) -> float:
    return min(LONGEST_BACKOFF, max(least, 2 * backoff))


def _put(mapping: Mapping[int, V], key: int, value: V) -> Mapping[int, V]:
    return MappingProxyType({**mapping, key: value})


def _drop(mapping: Mapping[int, V], key: int) -> Mapping[int, V]:
    return MappingProxyType({k: v for k, v in mapping.items() if k != key})
