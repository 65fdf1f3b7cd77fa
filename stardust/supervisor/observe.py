"""Book-keeping: observe(state, event, now) → state, what is known after something was seen.

- The shell gives each action back as `Ordered(action)` and carries it out; only then does the state know of
  it. What the act itself reveals comes as another event.
- A generation fails as a whole, once, whatever the cause (bad config, no load, a worker that dies before it
  is ready, a time limit, the client of the reload gone): then `coming` is 0 again, and the rules of `plan.py`
  roll back.
- Events about what is no longer known are late news, and change nothing.

Pure. Times are seconds of the monotonic clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeVar, assert_never

from stardust.base.errors import Exit
from stardust.base.records import replace
from stardust.supervisor import idle
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
    members,
    preferred,
    target,
)
from stardust.supervisor.vocabulary import (
    Action,
    Adjusted,
    CheckIdle,
    Close,
    Conclude,
    Configured,
    Dump,
    Event,
    Failed,
    Fork,
    ForkFailed,
    GiveUp,
    Gone,
    Kill,
    Leave,
    LeaveIdle,
    Leaving,
    Loaded,
    Ordered,
    Overdue,
    Pause,
    Paused,
    QuietSince,
    Ready,
    ReloadAbandoned,
    ReloadAsked,
    Resume,
    Retire,
    SayReady,
    SayReloading,
    SayStopping,
    Start,
    StopAsked,
    WorkerFailed,
    ZygoteGone,
)

V = TypeVar("V")

LONGEST_PAUSE = 30.0  # s; between replacements of something that keeps dying


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
            return replace(state, idle=idle.looked(state.idle, moment, idle_timeout(state), now))
        case Paused(number, pause, connections, since):
            answers = idle.answered(state.idle, number, pause, connections, since, idle_timeout(state), now)
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


def _respawn_pause(state: State) -> float:
    generation = preferred(state)
    return generation.policy.respawn_pause if generation else Policy().respawn_pause


def _longer(pause: float, least: float) -> float:
    return min(LONGEST_PAUSE, max(least, 2 * pause))


def _put(mapping: Mapping[int, V], key: int, value: V) -> Mapping[int, V]:
    return MappingProxyType({**mapping, key: value})


def _drop(mapping: Mapping[int, V], key: int) -> Mapping[int, V]:
    return MappingProxyType({k: v for k, v in mapping.items() if k != key})
