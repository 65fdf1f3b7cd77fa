"""The rules: plan(state, now) → actions in order, and when to look again.

    observe(state, event, now) -> State    observe.py: what is known
    plan(state, now)           -> Plan     what is to be done about it

`plan` compares what is wanted with what is there; it is not a sequence of steps. So
merged signals, a suspended machine or a reload during a reload need no special case, and there is no
polling: `Plan.wake_at` is the next moment at which time alone changes the answer.

Rules:
- Nothing here touches a process, a clock or a socket. The shell (`shell.py`) gives each action back as
  `Ordered(action)` and carries it out; only then does the state know of it, so calling `plan` twice is safe.
- One rule fills and one rule empties the pool, for boot, refill, reload and rollback alike: workers are
  forked from the *preferred* generation up to the target, and a worker of another generation is retired
  for each preferred one that is ready. Hence never fewer ready workers than the target by our own doing.
- systemd is owed a READY=1 after every RELOADING=1, also after a failed one (sd_notify(3)).
- A server that nobody needs exits (`idle.py`) only from a state in which nothing else is to be done.

Times are seconds of the monotonic clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import assert_never

from stardust.base.records import dataclass
from stardust.supervisor import crossing
from stardust.supervisor.crossing import Crossing, Leg
from stardust.supervisor.idle import Stage
from stardust.supervisor.state import (
    Phase,
    Policy,
    State,
    Stop,
    Zygote,
    active,
    calm,
    deserted,
    idle_timeout,
    members,
    preferred,
    silent_since,
    target,
)
from stardust.supervisor.vocabulary import (
    Action,
    CheckAlive,
    CheckIdle,
    Close,
    Collect,
    Conclude,
    Dump,
    End,
    ExitIdle,
    Fork,
    GiveUp,
    HandOn,
    Kill,
    KillZygote,
    Pause,
    Resume,
    Retire,
    SayAlive,
    SayReady,
    SayReloading,
    SayStopping,
    Start,
    Store,
    TakeUp,
)

STACKS_GRACE = 0.5  # s; between asking a stuck worker for its stacks and killing it


@dataclass(frozen=True, slots=True)
class Plan:
    actions: tuple[Action, ...]
    wake_at: float  # monotonic seconds; inf: only an event changes anything


def plan(state: State, now: float) -> Plan:
    """What is to be done now, in order, and when to look again if nothing happens.

    Processes that are late, or cannot be relied on, come first and alone. The rest is decided when the state
    knows of that, so no worker gets two contradicting orders.
    """
    actions: list[Action] = []
    alarms: list[float] = []
    for step in (_overdue, _stopping if state.stop is not Stop.NO else _running):
        for item in step(state, now):
            if isinstance(item, float):
                alarms.append(item)
            else:
                actions.append(item)
        if actions:
            break
    return Plan(tuple(actions), min(alarms, default=math.inf))


def _overdue(state: State, now: float) -> Iterator[Action | float]:
    """Processes that are too late: workers that are stuck, slow to start or slow to leave; a zygote that does
    not load or answer. And those that have sent an invalid message."""
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
            case Phase.DOOMED:
                yield Kill(worker.number, worker.why)
            case Phase.READY | Phase.KILLED:
                pass
            case _:
                assert_never(worker.phase)
    yield from _overdue_zygotes(state, now)


def _overdue_zygotes(state: State, now: float) -> Iterator[Action | float]:
    for generation in state.generations.values():
        number, limit = generation.number, generation.policy.boot_timeout
        match generation.zygote:
            case Zygote.STARTING:
                if number == state.coming:
                    reason = f"the application did not load within boot-timeout = {limit:g} s"
                    yield from _at(generation.since + limit, now, GiveUp(number, reason))
            case Zygote.LOADED:
                silent = KillZygote(number, "does not answer")
                yield from _at(silent_since(state, number) + limit, now, silent)
            case Zygote.CONDEMNED:
                yield KillZygote(number, generation.why)
            case Zygote.KILLED | Zygote.LOST | Zygote.CLOSING:
                pass
            case _:
                assert_never(generation.zygote)


def _running(state: State, now: float) -> Iterator[Action | float]:
    yield from _vouching(state, now)
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
    if state.serving and not state.owed:
        yield from _moving_in(state.crossing, now)


def _idling(state: State, now: float) -> Iterator[Action | float]:
    match state.idle.stage:
        case Stage.WATCHING:
            if calm(state) and (timeout := idle_timeout(state)) < math.inf:
                yield from _at(state.idle.since + timeout, now, CheckIdle())
        case Stage.DUE:
            yield Pause(state.idle.number + 1)
        case Stage.ASKED:
            yield from _at(state.idle.until, now, Resume())
        case Stage.OVER:
            yield Resume()
        case Stage.AGREED:
            yield ExitIdle()
        case _:
            assert_never(state.idle.stage)


def _vouching(state: State, now: float) -> Iterator[Action | float]:
    """Signs of life for systemd's watchdog, which kills a server that gives none."""
    yield from _at(state.watchdog.look_at, now, CheckAlive())
    if state.watchdog.owed:
        yield SayAlive()


def _moving_in(way: Crossing, now: float) -> Iterator[Action | float]:
    """Connections of the run before, to the workers."""
    match way.leg:
        case Leg.STORED:
            yield TakeUp()
        case Leg.HANDING:
            yield from _at(way.again, now, HandOn())
        case Leg.NONE | Leg.WANTED | Leg.STORING | Leg.LAST:
            pass
        case _:
            assert_never(way.leg)


def _moving_out(state: State, now: float) -> Iterator[Action | float]:
    """Connections of this run, to systemd."""
    way = state.crossing
    match way.leg:
        case Leg.WANTED:
            if state.stop is Stop.GRACEFUL:
                yield Store()
        case Leg.STORING:
            if deserted(state):
                yield Collect(last=True)
            else:
                yield from _at(way.again, now, Collect())
        case Leg.LAST:
            if crossing.holds_up(way, now):
                yield from _at(way.again, now, Collect(last=True))
                yield way.until
        case Leg.NONE | Leg.STORED | Leg.HANDING:
            pass
        case _:
            assert_never(way.leg)


def _stopping(state: State, now: float) -> Iterator[Action | float]:
    yield from _vouching(state, now)
    yield from _moving_out(state, now)
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
    if deserted(state) and not crossing.holds_up(state.crossing, now):
        yield End(state.exit_code)


def _fill(state: State, now: float) -> Iterator[Action | float]:
    """Fork from the preferred generation up to the target: one by one beside another generation, else all at
    once."""
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
    """Retire workers of other generations for ready ones of the preferred; then those above the target.

    Workers that are not ready yet go first: they serve nothing.
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
