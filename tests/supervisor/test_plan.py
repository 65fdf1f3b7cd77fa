"""The supervisor's decisions: named stories as dialogues, then random histories in a simulated world.

In a dialogue, `>>` is what the supervisor sees and `<<` what it then does, in order and completely:

    assert serving(workers=1) >> Gone(1, "exit code 1") >> Wait(0.1) << Fork(2, 0, 1)

The simulation (`World`, `Histories`) plays zygotes and workers that load, fail, hang, leave and die in any
order, and judges each action by what it knows of them itself. A failure prints the whole dialogue.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Self

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from stardust.base.errors import Exit
from stardust.supervisor import plan
from stardust.supervisor.idle import ANSWER_WITHIN, Stage
from stardust.supervisor.plan import (
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
    Outcome,
    Overdue,
    Pause,
    Paused,
    Phase,
    Plan,
    Policy,
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
    State,
    StopAsked,
    WorkerFailed,
    ZygoteGone,
)

ROUNDS = 100  # in which a plan must settle without anything new


# --- dialogues ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wait:
    """So many seconds pass."""

    seconds: float


@dataclass(frozen=True)
class Asleep:
    """Nothing more is done, and without an event nothing will be for so many seconds."""

    seconds: float = math.inf


@dataclass
class Dialogue:
    """A supervisor under questioning. Each Start reads `policy`, as it reads the configuration."""

    policy: Policy = field(default_factory=Policy)
    state: State = field(default_factory=State)
    now: float = 0.0
    transcript: list[str] = field(default_factory=list)
    unheard: list[Action] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._settle()

    def __rshift__(self, seen: Event | Wait | tuple[Event | Wait, ...]) -> Self:
        """What is in a tuple is seen before anything is done about it."""
        self._nothing_unheard()
        for each in seen if isinstance(seen, tuple) else (seen,):
            self.transcript.append(f"{self.now:6g}  >> {each}")
            if isinstance(each, Wait):
                self.now += each.seconds
            else:
                self.state = plan.observe(self.state, each, self.now)
        self._settle()
        return self

    def __lshift__(self, expected: Action | Asleep) -> Self:
        if isinstance(expected, Asleep):
            self._nothing_unheard()
            found: object = Asleep(round(plan.plan(self.state, self.now).wake_at - self.now, 6))
        else:
            found = self.unheard.pop(0) if self.unheard else "nothing"
        self.transcript.append(f"{self.now:6g}  << {found}")
        if found != expected:
            pytest.fail("\n".join([*self.transcript, f"expected << {expected}"]), pytrace=False)
        return self

    def __bool__(self) -> bool:
        """The end of a story: nothing was done beside what was heard."""
        self._nothing_unheard()
        return True

    def _settle(self) -> None:
        """Do as the shell does."""
        for _ in range(ROUNDS):
            actions = plan.plan(self.state, self.now).actions
            for action in actions:
                self.state = plan.observe(self.state, Ordered(action), self.now)
                self.unheard.append(action)
                if isinstance(action, Start):
                    self.state = plan.observe(
                        self.state, Configured(action.generation, self.policy), self.now
                    )
            if not actions or isinstance(actions[-1], Leave):
                return
        pytest.fail("\n".join([*self.transcript, f"it never settles: {actions}"]), pytrace=False)

    def _nothing_unheard(self) -> None:
        if self.unheard:
            also = [f"        << {action}, which nobody expected" for action in self.unheard]
            pytest.fail("\n".join([*self.transcript, *also]), pytrace=False)


def booting(workers: int = 2, **times: float) -> Dialogue:
    """Generation 1 has been started, and loads."""
    return Dialogue(Policy(workers=workers, **times)) << Start(1)


def serving(workers: int = 2, **times: float) -> Dialogue:
    """Generation 1 serves with workers 1, 2, …"""
    dialogue = booting(workers, **times) >> Loaded(1)
    for number in range(1, workers + 1):
        dialogue <<= Fork(number, number - 1, 1)
    for number in range(1, workers + 1):
        dialogue >>= Ready(number)
    return dialogue << SayReady()


def reloading(workers: int = 2, **times: float) -> Dialogue:
    """The same, and generation 2 was asked for, and loads."""
    return serving(workers, **times) >> ReloadAsked() << SayReloading(2) << Start(2)


def served(generation: int, at: float = 0.0) -> Conclude:
    return Conclude(Outcome(True, "", "", generation, at))


def failed(reason: str, detail: str = "", *, serves: int = 1, at: float = 0.0) -> Conclude:
    return Conclude(Outcome(False, reason, detail, serves, at))


def test_boot() -> None:
    """READY=1 is true: it is said when all workers have loaded the application."""
    assert (
        booting(workers=3)
        << Asleep(60)
        >> Loaded(1)
        << Fork(1, 0, 1)
        << Fork(2, 1, 1)
        << Fork(3, 2, 1)
        << Asleep(60)
        >> Ready(2)
        >> Ready(1)
        >> Ready(3)
        << SayReady()
        << Asleep()
    )


BOOT_FAILURES: dict[str, tuple[Event | Wait, Exit]] = {
    "load": (Failed(1, "ImportError", "Traceback"), Exit.APPLICATION),
    "configuration": (Failed(1, "no such user", "", Exit.CONFIG), Exit.CONFIG),
    "zygote died": (ZygoteGone(1), Exit.FAILURE),
}


@pytest.mark.parametrize("name", BOOT_FAILURES)
def test_boot_that_fails(name: str) -> None:
    """There is nothing to fall back to: the server ends, and says why by its exit code."""
    cause, code = BOOT_FAILURES[name]
    dialogue = booting() >> cause << SayStopping()
    if not isinstance(cause, ZygoteGone):
        dialogue = dialogue << Close(1) >> ZygoteGone(1)
    assert dialogue << Leave(code)


def test_boot_that_takes_too_long() -> None:
    assert (
        booting(boot_timeout=5.0)
        >> Wait(5)
        << GiveUp(1, "the application did not load within boot-timeout = 5 s")
        << SayStopping()
        << Close(1)
        >> ZygoteGone(1)
        << Leave(Exit.APPLICATION)
    )


def test_boot_with_a_worker_that_cannot_load() -> None:
    """preload = false: the import fails in the worker."""
    dialogue = (
        booting()
        >> Loaded(1)
        << Fork(1, 0, 1)
        << Fork(2, 1, 1)
        >> WorkerFailed(1, "ImportError", "Traceback")
        << SayStopping()
        << Kill(1, "the server stops at once")
        << Kill(2, "the server stops at once")
        >> Gone(1, "exit code 3")
        >> Gone(2, "killed by SIGKILL")
        << Close(1)
        >> ZygoteGone(1)
        << Leave(Exit.APPLICATION)
    )
    assert dialogue
    assert dialogue.state.last == Outcome(False, "ImportError", "Traceback", 0, 0.0)


def test_reload() -> None:
    """Workers are exchanged one for one, and the verdict follows READY=1."""
    assert (
        reloading()
        >> Loaded(2)
        << Fork(3, 2, 2)
        >> Ready(3)
        << Fork(4, 3, 2)
        << Retire(1)
        >> Gone(1, "exit code 0")
        >> Wait(1)
        >> Ready(4)
        << Retire(2)
        << SayReady()
        << served(2, at=1)
        >> Gone(2, "exit code 0")
        << Close(1)
        >> ZygoteGone(1)
        << Asleep()
    )


def test_reload_to_more_workers() -> None:
    """No old worker goes before there are as many as the new configuration wants."""
    dialogue = reloading(workers=1)
    dialogue = dialogue >> Configured(2, Policy(workers=3)) >> Loaded(2) << Fork(2, 1, 2) >> Ready(2)
    dialogue = dialogue << Fork(3, 2, 2) >> Ready(3) << Fork(4, 3, 2) >> Ready(4) << Retire(1)
    assert dialogue << SayReady() << served(2) >> Gone(1, "exit code 0") << Close(1)


def test_reload_to_fewer_workers() -> None:
    dialogue = reloading(workers=3) >> Configured(2, Policy(workers=1)) >> Loaded(2) << Fork(4, 3, 2)
    assert dialogue >> Ready(4) << Retire(1) << Retire(2) << Retire(3) << SayReady() << served(2)


FAILURES_WHILE_LOADING: dict[str, tuple[Event, Conclude]] = {
    "configuration": (Failed(2, "x = 1: no such key", "", Exit.CONFIG), failed("x = 1: no such key")),
    "load": (Failed(2, "ImportError", "Traceback"), failed("ImportError", "Traceback")),
    "client gone": (ReloadAbandoned(), failed("whoever asked for it has gone")),
}


@pytest.mark.parametrize("name", FAILURES_WHILE_LOADING)
def test_reload_that_fails_while_it_loads(name: str) -> None:
    """READY=1 is owed also for a failed reload (sd_notify(3)), and no worker is touched."""
    cause, verdict = FAILURES_WHILE_LOADING[name]
    assert reloading() >> cause << Close(2) << SayReady() << verdict >> ZygoteGone(2) << Asleep()


def test_reload_whose_zygote_dies() -> None:
    assert reloading() >> ZygoteGone(2) << SayReady() << failed("its zygote died") << Asleep()


def test_reload_that_takes_too_long() -> None:
    reason = "the application did not load within boot-timeout = 5 s"
    dialogue = reloading(boot_timeout=5.0) << Asleep(5) >> Wait(5) << GiveUp(2, reason) << Close(2)
    # What it said before it was killed comes too late.
    assert dialogue << SayReady() << failed(reason, at=5) >> Loaded(2) >> ZygoteGone(2) << Asleep()


def test_reload_with_a_worker_that_dies_before_it_is_ready() -> None:
    dialogue = reloading() >> Loaded(2) << Fork(3, 2, 2) >> Gone(3, "killed by SIGSEGV")
    reason = "a worker ended before it was ready: killed by SIGSEGV"
    assert dialogue << Close(2) << SayReady() << failed(reason) >> ZygoteGone(2) << Asleep()


def test_reload_with_a_worker_that_never_gets_ready() -> None:
    dialogue = reloading(boot_timeout=5.0) >> Loaded(2) << Fork(3, 2, 2) >> Wait(5) << Kill(3, "boot-timeout")
    dialogue = dialogue << Fork(4, 3, 2) >> Gone(3, "killed by SIGKILL") << Kill(4, "its generation failed")
    reason = "a worker ended before it was ready: boot-timeout"
    dialogue = dialogue << SayReady() << failed(reason, at=5) >> Gone(4, "killed by SIGKILL")
    assert dialogue << Close(2) >> ZygoteGone(2) << Asleep()


def test_reload_with_a_worker_that_cannot_load() -> None:
    dialogue = reloading() >> Loaded(2) << Fork(3, 2, 2) >> WorkerFailed(3, "ImportError", "Traceback")
    dialogue = (
        dialogue << Kill(3, "its generation failed") << SayReady() << failed("ImportError", "Traceback")
    )
    assert dialogue >> Gone(3, "exit code 3") << Close(2) >> ZygoteGone(2) << Asleep()


def test_rollback_after_some_workers_were_exchanged() -> None:
    """The old generation gets its workers back, and those of the new one serve until they are there."""
    assert (
        reloading()
        >> Loaded(2)
        << Fork(3, 2, 2)
        >> Ready(3)
        << Fork(4, 3, 2)
        << Retire(1)
        >> Gone(1, "exit code 0")
        >> Gone(4, "exit code 1")
        << Fork(5, 0, 1)
        << SayReady()
        << failed("a worker ended before it was ready: exit code 1")
        >> Ready(5)
        << Retire(3)
        >> Gone(3, "exit code 0")
        << Close(2)
        >> ZygoteGone(2)
        << Asleep()
    )


def test_reloads_during_a_reload_queue_once() -> None:
    """Each begins after the verdict on the one before it: none is told of code that it did not ask for."""
    dialogue = reloading(workers=1) >> ReloadAsked() >> ReloadAsked() >> Loaded(2) << Fork(2, 1, 2)
    dialogue = dialogue >> Ready(2) << Retire(1) << SayReady() << served(2) << SayReloading(3) << Start(3)
    dialogue = dialogue >> Gone(1, "exit code 0") << Close(1) >> ZygoteGone(1) >> Loaded(3) << Fork(3, 0, 3)
    dialogue = dialogue >> Ready(3) << Retire(2) << SayReady() << served(3) >> Gone(2, "exit code 0")
    assert dialogue << Close(2) >> ZygoteGone(2) << Asleep()


def test_reload_after_a_failed_one_was_waiting() -> None:
    dialogue = reloading() >> ReloadAsked() >> Failed(2, "SyntaxError") << Close(2) << SayReady()
    assert dialogue << failed("SyntaxError") << SayReloading(3) << Start(3) >> ZygoteGone(2) << Asleep(60)


def test_reload_during_boot_waits_for_it() -> None:
    dialogue = booting(workers=1) >> ReloadAsked() >> Loaded(1) << Fork(1, 0, 1) >> Ready(1)
    assert dialogue << SayReady() << SayReloading(2) << Start(2)


def test_recycling_replaces_a_worker_at_once() -> None:
    dialogue = serving() >> Leaving(1) << Fork(3, 2, 1) << Asleep(30) >> Ready(3) >> Gone(1, "exit code 0")
    assert dialogue << Asleep()


def test_slow_leaver_is_killed() -> None:
    dialogue = serving(graceful_timeout=7.0) >> Leaving(1) << Fork(3, 2, 1) >> Ready(3) << Asleep(7)
    assert dialogue >> Wait(7) << Kill(1, "graceful-timeout") << Asleep() >> Gone(1, "killed by SIGKILL")


def test_crashes_are_replaced_ever_more_slowly() -> None:
    """main-process-delay is the least pause; it doubles to 30 s while workers keep dying."""
    dialogue = serving(workers=1)
    pauses = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]
    for number, pause in enumerate(pauses, 1):
        dialogue = dialogue >> Gone(number, "exit code 1") << Asleep(pause) >> Wait(pause)
        dialogue = dialogue << Fork(number + 1, 0, 1) >> Ready(number + 1)
    assert dialogue << Asleep()


def test_worker_that_lived_long_has_recovered() -> None:
    dialogue = serving(workers=1) >> Gone(1, "exit code 1") >> Wait(0.1) << Fork(2, 0, 1) >> Ready(2)
    assert dialogue >> Wait(0.3) >> Gone(2, "exit code 1") << Asleep(0.1)


def test_worker_that_never_gets_ready_is_replaced_with_back_off() -> None:
    dialogue = serving(workers=1) >> Gone(1, "exit code 1")
    for number, pause in enumerate([0.1, 0.2, 0.4, 0.8], 2):
        dialogue = (
            dialogue << Asleep(pause) >> Wait(pause) << Fork(number, 0, 1) >> Gone(number, "exit code 1")
        )
    assert dialogue << Asleep(1.6)


def test_fork_that_fails_is_tried_again() -> None:
    dialogue = serving(workers=1) >> Leaving(1) << Fork(2, 1, 1) >> ForkFailed(2) << Asleep(0.1) >> Wait(0.1)
    assert dialogue << Fork(3, 1, 1) >> ForkFailed(3) << Asleep(0.2)


def test_back_off_of_old_code_does_not_hold_up_new_code() -> None:
    """A crash loop is mended by a reload, and not half a minute later."""
    dialogue = serving(workers=1, respawn_pause=20.0) >> Gone(1, "exit code 1") << Asleep(20)
    dialogue = dialogue >> ReloadAsked() << SayReloading(2) << Start(2) >> Loaded(2) << Fork(2, 0, 2)
    assert dialogue >> Ready(2) << Close(1) << SayReady() << served(2)


def test_back_off_is_not_handed_down_to_new_code() -> None:
    """Worker 4 is the first of its generation to die, whatever happened before."""
    dialogue = reloading() >> Loaded(2) << Fork(3, 2, 2) >> Gone(1, "exit code 1") >> Wait(0.1) >> Ready(3)
    dialogue = dialogue << Fork(4, 0, 2) >> Ready(4) << Retire(2) << SayReady() << served(2, at=0.1)
    assert dialogue >> Gone(4, "exit code 1") << Asleep(0.1)


def test_hang() -> None:
    """A stuck worker is replaced at once, writes its stacks, and is killed half a second later."""
    dialogue = serving() >> Overdue(1, "request-timeout") << Dump(1, "request-timeout") << Fork(3, 2, 1)
    dialogue = dialogue >> Ready(3) << Asleep(0.5) >> Wait(0.5) << Kill(1, "request-timeout") << Asleep()
    assert dialogue >> Overdue(1, "request-timeout") >> Gone(1, "killed by SIGKILL") << Asleep()


def test_hang_while_leaving() -> None:
    dialogue = serving(workers=1) >> Leaving(1) << Fork(2, 1, 1) >> Ready(2)
    dialogue = dialogue >> Overdue(1, "request-timeout") << Dump(1, "request-timeout") >> Wait(0.5)
    assert dialogue << Kill(1, "request-timeout") >> Gone(1, "killed by SIGKILL") << Asleep()


def test_lost_zygote_is_repaired_by_a_new_generation() -> None:
    """Its workers serve on until then. Nobody asked, so nobody is told, systemd included."""
    dialogue = serving(workers=1) >> ZygoteGone(1) << Asleep(0.1) >> Wait(0.1) << Start(2) >> Loaded(2)
    dialogue = dialogue << Fork(2, 1, 2) >> Ready(2) << Retire(1) >> Gone(1, "exit code 0") << Asleep()
    assert dialogue
    assert list(dialogue.state.generations) == [2]


def test_nothing_is_forked_without_a_zygote() -> None:
    dialogue = serving(workers=1) >> ZygoteGone(1) >> Gone(1, "exit code 1") << Asleep(0.1) >> Wait(0.1)
    assert dialogue << Start(2) >> Loaded(2) << Fork(2, 0, 2) >> Ready(2) << Asleep()


def test_repair_is_nobody_s_to_abandon() -> None:
    dialogue = serving(workers=1) >> ZygoteGone(1) >> Wait(0.1) << Start(2)
    assert dialogue >> ReloadAbandoned() << Asleep(60)


def test_repair_that_fails_is_tried_again_ever_more_slowly() -> None:
    dialogue = serving(workers=1) >> ZygoteGone(1)
    for number, pause in enumerate([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0], 2):
        dialogue = dialogue << Asleep(pause) >> Wait(pause) << Start(number)
        dialogue = dialogue >> Failed(number, "ImportError") << Close(number) >> ZygoteGone(number)
    assert dialogue << Asleep(30)


def test_reload_repairs_a_lost_zygote() -> None:
    dialogue = serving(workers=1) >> ZygoteGone(1) >> ReloadAsked() << SayReloading(2) << Start(2)
    dialogue = dialogue >> Failed(2, "ImportError") << Close(2) << SayReady() << failed("ImportError")
    assert dialogue >> ZygoteGone(2) << Asleep(0.1) >> Wait(0.1) << Start(3)


def test_zygote_lost_after_a_failed_reload() -> None:
    """The failure is history: the repair waits for its own pause."""
    dialogue = reloading() >> ZygoteGone(2) << SayReady() << failed("its zygote died") >> Wait(100)
    assert dialogue >> ZygoteGone(1) << Asleep(0.1)


def test_ttin_and_ttou() -> None:
    dialogue = serving() >> Adjusted(+1) << Fork(3, 2, 1) >> Ready(3) >> Adjusted(-1) << Retire(3)
    dialogue = dialogue >> Gone(3, "exit code 0") >> Adjusted(-1) << Retire(2) >> Gone(2, "exit code 0")
    assert dialogue >> Adjusted(-1) << Asleep() >> Adjusted(+1) << Fork(4, 1, 1)


def test_ttou_takes_a_worker_that_is_not_ready_first() -> None:
    dialogue = serving() >> Gone(1, "exit code 1") >> Wait(0.1) << Fork(3, 0, 1) >> Adjusted(-1) << Retire(3)
    assert dialogue


def test_reload_forgets_ttou() -> None:
    """READY=1 is true: as many workers as the configuration says have loaded."""
    dialogue = serving() >> Adjusted(-1) << Retire(2) >> Gone(2, "exit code 0")
    dialogue = dialogue >> ReloadAsked() << SayReloading(2) << Start(2) >> Loaded(2) << Fork(3, 1, 2)
    dialogue = dialogue >> Ready(3) << Fork(4, 2, 2) >> Ready(4) << Retire(1) << SayReady() << served(2)
    assert dialogue


def test_exchange_takes_a_worker_that_is_not_ready_first() -> None:
    """With worker 1 gone instead of 3, one would be left."""
    dialogue = reloading() >> Gone(2, "exit code 1") >> Wait(0.1) << Fork(3, 1, 1) >> Loaded(2)
    assert dialogue << Fork(4, 2, 2) >> Ready(4) << Fork(5, 3, 2) << Retire(3)


def test_exchange_of_a_pool_that_is_not_ready() -> None:
    """The old worker, which is still starting, is retired like any other, and the verdict follows."""
    dialogue = serving(workers=1) >> Leaving(1) << Fork(2, 1, 1) >> ReloadAsked() << SayReloading(2)
    dialogue = dialogue << Start(2) >> Loaded(2) << Fork(3, 2, 2) >> Ready(3) << Retire(2) << SayReady()
    assert dialogue << served(2)


def test_stop() -> None:
    """Requests in flight are finished; the zygote goes after its workers, the supervisor last."""
    dialogue = serving() >> StopAsked() << SayStopping() << Retire(1, final=True) << Retire(2, final=True)
    dialogue = dialogue << Asleep(30) >> Gone(1, "exit code 0") >> Gone(2, "exit code 0") << Close(1)
    assert dialogue << Asleep() >> ZygoteGone(1) << Leave(Exit.OK)


def test_stop_kills_who_takes_longer_than_graceful_timeout() -> None:
    dialogue = serving(workers=1, graceful_timeout=7.0) >> StopAsked() << SayStopping()
    dialogue = dialogue << Retire(1, final=True) >> Wait(7) << Kill(1, "graceful-timeout")
    assert dialogue >> Gone(1, "killed by SIGKILL") << Close(1) >> ZygoteGone(1) << Leave(Exit.OK)


def test_stop_fast() -> None:
    dialogue = serving(workers=1) >> StopAsked(fast=True) << SayStopping()
    dialogue = dialogue << Kill(1, "the server stops at once") >> Gone(1, "killed by SIGKILL") << Close(1)
    assert dialogue >> ZygoteGone(1) << Leave(Exit.OK)


def test_stop_asked_twice_is_fast() -> None:
    dialogue = serving(workers=1) >> StopAsked() << SayStopping() << Retire(1, final=True)
    assert dialogue >> StopAsked() << Kill(1, "the server stops at once") >> StopAsked() << Asleep()


def test_stop_fast_kills_who_is_late_anyway_once() -> None:
    dialogue = serving(workers=1, graceful_timeout=7.0) >> Leaving(1) << Fork(2, 1, 1) >> Ready(2)
    dialogue = dialogue >> (Wait(7), StopAsked(fast=True)) << Kill(1, "graceful-timeout") << SayStopping()
    assert dialogue << Kill(2, "the server stops at once") >> Wait(99)


def test_stop_during_boot() -> None:
    dialogue = booting() >> Loaded(1) << Fork(1, 0, 1) << Fork(2, 1, 1) >> Ready(1) >> StopAsked()
    dialogue = dialogue << SayStopping() << Retire(1, final=True) << Kill(2, "the server stops")
    dialogue = dialogue >> Gone(2, "killed by SIGKILL") >> Gone(1, "exit code 0") << Close(1)
    assert dialogue >> ZygoteGone(1) << Leave(Exit.OK)


def test_stop_during_boot_stays_graceful_when_the_zygote_dies() -> None:
    """Nothing can fail any more: worker 1 may finish its request."""
    dialogue = booting() >> Loaded(1) << Fork(1, 0, 1) << Fork(2, 1, 1) >> Ready(1) >> StopAsked()
    dialogue = dialogue << SayStopping() << Retire(1, final=True) << Kill(2, "the server stops")
    dialogue = dialogue >> ZygoteGone(1) << Asleep(30) >> Gone(2, "") >> Gone(1, "exit code 0")
    assert dialogue << Leave(Exit.OK)


def test_stop_during_reload() -> None:
    dialogue = reloading(workers=1) >> ReloadAsked() >> Loaded(2) << Fork(2, 1, 2) >> StopAsked()
    dialogue = dialogue << SayStopping() << Retire(1, final=True) << Kill(2, "the server stops")
    dialogue = dialogue << failed("the server is stopping") >> ReloadAsked() >> Gone(2, "killed by SIGKILL")
    dialogue = dialogue << Close(2) >> ZygoteGone(2) >> Gone(1, "exit code 0") << Close(1)
    assert dialogue >> ZygoteGone(1) << Leave(Exit.OK)


def test_spawn_interval() -> None:
    """At least so much time lies between two forks."""
    dialogue = booting(workers=3, spawn_interval=2.0) >> Loaded(1) << Fork(1, 0, 1) >> Ready(1) << Asleep(2)
    dialogue = dialogue >> Wait(2) << Fork(2, 1, 1) >> Ready(2) >> Wait(1) << Asleep(1) >> Wait(5)
    assert dialogue << Fork(3, 2, 1) >> Ready(3) << SayReady() << Asleep()


def test_worker_past_boot_timeout_and_beyond_the_target_is_not_retired_as_well() -> None:
    dialogue = serving(boot_timeout=5.0) >> Leaving(1) << Fork(3, 2, 1) >> Gone(1, "exit code 0")
    dialogue = dialogue >> (Wait(5), Adjusted(-1)) << Kill(3, "boot-timeout") >> Gone(3, "killed by SIGKILL")
    assert dialogue >> Wait(99) << Asleep()


def paused(workers: int = 2, idle_timeout: float = 10.0) -> Dialogue:
    """Generation 1 serves, nobody came, and the workers were asked whether anybody is connected."""
    dialogue = serving(workers, idle_timeout=idle_timeout) << Asleep(idle_timeout)
    return dialogue >> (Wait(idle_timeout), QuietSince(0)) << Pause(1) << Asleep(ANSWER_WITHIN)


def empty(worker: int, pause: int = 1, since: float = 0.0) -> Paused:
    """The worker holds no connection."""
    return Paused(worker, pause, 0, since)


def test_idle() -> None:
    """STOPPING=1 is said when every worker accepts nothing and holds nothing: it cannot be taken back."""
    assert (
        paused()
        >> empty(2)
        << Asleep(ANSWER_WITHIN)
        >> empty(1)
        << LeaveIdle()
        << SayStopping()
        << Retire(1, final=True)
        << Retire(2, final=True)
        >> Gone(1, "exit code 0")
        >> Gone(2, "exit code 0")
        << Close(1)
        >> ZygoteGone(1)
        << Leave(Exit.OK)
    )


def test_idle_is_looked_for_when_it_could_be_true() -> None:
    """And by what is known then: a request that ended at 4; later one that runs."""
    dialogue = serving(idle_timeout=10.0) >> Wait(10) << CheckIdle() << Asleep(10)
    dialogue = dialogue >> QuietSince(4) << Asleep(4) >> Wait(4) << CheckIdle()
    dialogue = dialogue >> QuietSince(14) << Asleep(10) >> Wait(10) << CheckIdle() >> QuietSince(14)
    assert dialogue << Pause(1)


def test_never_idle() -> None:
    assert serving(idle_timeout=0.0) << Asleep() >> QuietSince(0) << Asleep()


@pytest.mark.parametrize(
    ("answer", "again"),
    [
        pytest.param(Paused(1, 1, 1, 0.0), 10, id="a connection is open"),
        pytest.param(empty(1, since=7.0), 7, id="one was closed at 7"),
    ],
)
def test_not_idle_after_all(answer: Event, again: float) -> None:
    assert paused() >> answer << Resume() << Asleep(again) >> empty(2) << Asleep(again)


def test_a_worker_that_does_not_answer() -> None:
    """It has just become busy: the others shall not wait. And its answer is too late for the next pause."""
    dialogue = paused() >> empty(1) >> Wait(ANSWER_WITHIN) << Resume() << Asleep(10)
    dialogue = dialogue >> (Wait(10), QuietSince(0)) << Pause(2)
    dialogue = dialogue >> empty(2, pause=1) >> empty(1, pause=2) << Asleep(ANSWER_WITHIN)
    assert dialogue >> empty(2, pause=2) << LeaveIdle() << SayStopping() << Retire(1, True) << Retire(2, True)


DISTURBANCES: dict[str, tuple[Event, tuple[Action, ...]]] = {
    "reload": (ReloadAsked(), (SayReloading(2), Start(2))),
    "worker died": (Gone(1, "killed by SIGKILL"), ()),
    "worker leaves": (Leaving(1), (Fork(3, 2, 1),)),
    "worker hangs": (Overdue(1, "heartbeat-timeout"), (Dump(1, "heartbeat-timeout"), Fork(3, 2, 1))),
    "zygote died": (ZygoteGone(1), ()),
    "one more": (Adjusted(+1), (Fork(3, 2, 1),)),
    "one less": (Adjusted(-1), (Retire(2),)),
}


@pytest.mark.parametrize("agreed", [False, True], ids=["asked", "agreed"])
@pytest.mark.parametrize("name", DISTURBANCES)
def test_idle_but_something_is_to_be_done(name: str, agreed: bool) -> None:
    """Also when it comes in the moment of the last answer: nothing is decided before it was acted upon."""
    cause, consequences = DISTURBANCES[name]
    dialogue = paused() >> empty(1)
    dialogue = dialogue >> ((empty(2), cause) if agreed else (cause, empty(2)))
    actions = [Resume(), *consequences]
    actions.sort(key=lambda action: not isinstance(action, Dump))  # who is late comes first, and alone
    for action in actions:
        dialogue <<= action
    assert dialogue


def test_a_stop_while_it_pauses() -> None:
    dialogue = paused(1) >> (empty(1), StopAsked()) << SayStopping() << Retire(1, final=True)
    assert dialogue >> Gone(1, "exit code 0") << Close(1) >> ZygoteGone(1) << Leave(Exit.OK)


def test_a_stop_while_it_leaves() -> None:
    """It is the first that was asked for: nobody is impatient."""
    dialogue = paused(1) >> empty(1) << LeaveIdle() << SayStopping() << Retire(1, final=True) >> StopAsked()
    dialogue = dialogue >> ReloadAsked() >> empty(1) >> StopAsked() << Kill(1, "the server stops at once")
    assert dialogue >> Gone(1, "killed by SIGKILL") << Close(1) >> ZygoteGone(1) << Leave(Exit.OK)


def test_idle_counts_from_the_last_reload() -> None:
    dialogue = serving(1, idle_timeout=10.0) >> Wait(9) >> ReloadAsked() << SayReloading(2) << Start(2)
    dialogue = dialogue << Asleep(60) >> Loaded(2) << Fork(2, 1, 2) >> Ready(2) << Retire(1) << SayReady()
    dialogue = dialogue << served(2, at=9) >> Wait(20) >> Gone(1, "exit code 0") << Close(1)
    assert dialogue >> ZygoteGone(1) << Asleep(10) >> Wait(10) << CheckIdle()


LATE_NEWS: list[Event] = [
    QuietSince(0.0),
    Paused(1, 1, 1, 0.0),
    Ready(9),
    Leaving(9),
    Overdue(9, "request-timeout"),
    Gone(9, "exit code 0"),
    ForkFailed(9),
    WorkerFailed(9, "ImportError"),
    Loaded(9),
    Configured(9, Policy()),
    Failed(9, "ImportError"),
    Failed(1, "it serves already"),
    ZygoteGone(9),
    ReloadAbandoned(),
    Ready(1),
]


@pytest.mark.parametrize("news", LATE_NEWS, ids=repr)
def test_late_news_change_nothing(news: Event) -> None:
    dialogue = serving()
    before = dialogue.state
    assert dialogue >> news << Asleep()
    assert dialogue.state == before


def test_target_leaves_a_slot_for_the_exchange() -> None:
    state = Dialogue(Policy(workers=8), State(slots=4)).state
    assert plan.target(plan.observe(state, Loaded(1), 0.0)) == 3


# --- the simulated world --------------------------------------------------------------------------------


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
    accepting: bool = True
    to_answer: list[int] = field(default_factory=list)  # pauses it was told of, and -1 for each resume
    connections: int = 0
    served: float = 0.0  # when its last request ended, by the scoreboard
    empty_since: float = 0.0

    @property
    def standing(self) -> str:
        if self.killed:
            return "killed"
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
    zygotes: dict[int, str] = field(default_factory=dict)  # never started | loading | loaded | closing | dead
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
    stopping_said: bool = False
    left: Exit | None = None
    halfway: bool = False  # through what happens now; it stays so if a rule is broken
    transcript: list[str] = field(default_factory=list)

    # --- what happens

    def see(self, event: Event) -> None:
        self.halfway = True
        self.transcript.append(f"{self.now:8g}  >> {event}")
        before = self.state.verdict
        self.state = plan.observe(self.state, event, self.now)
        self._judge_verdict(before)

    def settle(self) -> None:
        """Do as the shell does until it leaves, and judge all of it."""
        self.halfway = True
        if self.left is not None:
            return
        for _ in range(ROUNDS):
            decided = plan.plan(self.state, self.now)
            self.demand(decided == plan.plan(self.state, self.now), "plan gives different answers")
            if not decided.actions:
                self._judge_rest(decided)
                return
            self._judge_together(decided)
            for action in decided.actions:
                self.transcript.append(f"{self.now:8g}  << {action}")
                self.demand(self.left is None, "it acts after it left")
                before = self.state.verdict
                self.state = plan.observe(self.state, Ordered(action), self.now)
                self._act(action)
                self._judge_verdict(before)
            if isinstance(decided.actions[-1], Leave):
                return
        self.demand(False, "it never settles")

    def demand(self, true: bool, otherwise: str) -> None:
        if not true:
            raise BrokenRuleError("\n".join([*self.transcript, otherwise]))

    def gone(self, number: int) -> None:
        del self.workers[number]
        self.see(Gone(number, "it ended"))

    def zygote_gone(self, number: int) -> None:
        self.zygotes[number] = "dead"
        self.see(ZygoteGone(number))

    def active(self, generation: int | None = None) -> list[Process]:
        """The workers that count, of one generation or of all."""
        return [
            each for each in self.workers.values() if each.counts and generation in (None, each.generation)
        ]

    # --- what is done

    def _act(self, action: Action) -> None:
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
            case Close(number):
                self._close(number)
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
            case LeaveIdle():
                self._leave_idle()
            case SayReloading() | SayReady() | SayStopping() | Conclude():
                self._say(action)
            case Leave(code):
                gone = not self.workers and set(self.zygotes.values()) <= {"dead"}
                self.demand(gone, "it leaves others behind")
                self.demand(self.stopping_said and not self.reload_running, "it leaves without a word")
                self.left = code

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
                order.slot, order.generation, served=self.now, empty_since=self.now
            )

    def _kill(self, worker: Process) -> None:
        self.demand(not worker.killed, "it kills a worker twice")
        if worker.ready and worker.counts:
            self.demand(self.stopping, "it kills a worker that serves")
        worker.killed = True

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

    def _say(self, action: Action) -> None:
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
        self.demand(mine and len(ready) >= plan.target(self.state), "the verdict is not true")

    def _judge_together(self, decided: Plan) -> None:
        """Not more are forked than wanted; and ready ones go only if as many stay ready as are wanted."""
        if self.stopping or self.state.stop is not plan.Stop.NO:
            return
        for number in self.zygotes:
            forks = sum(isinstance(a, Fork) and a.generation == number for a in decided.actions)
            few = len(self.active(number)) + forks <= plan.target(self.state)
            self.demand(not forks or few, f"{decided.actions} fork more workers than wanted")
        leaving = [
            a.worker for a in decided.actions if isinstance(a, Retire) and self._living(a.worker).ready
        ]
        ready = sum(worker.ready for worker in self.active())
        enough = ready - len(leaving) >= plan.target(self.state)
        self.demand(not leaving or enough, f"{decided.actions} leave fewer ready workers than wanted")

    def _judge_rest(self, decided: Plan) -> None:
        """Nothing is left to do, and nothing will be before `wake_at`."""
        self.demand(decided.wake_at > self.now, "it sleeps into the past")
        last = math.nextafter(min(decided.wake_at, self.now + 1e6), 0.0)
        for moment in (self.now, (self.now + last) / 2, last):
            self.demand(plan.plan(self.state, moment) == decided, f"it would do something at {moment:g}")
        coming = self.state.coming
        if self.zygotes.get(coming) == "loaded" and self.active(coming):
            everyone, others = len(self.active()), len(self.active()) - len(self.active(coming))
            # One more than there are or are to be: who is being exchanged.
            most = max(plan.target(self.state), others) + 1
            self.demand(everyone <= most, f"{everyone} workers, where {most} would do")

    # --- a kind world: nothing fails, and everything ends that was told to

    def be_kind(self) -> None:
        """Let everything that can go on go on, until nothing more happens."""
        self.config = self.config or Policy(workers=2)
        self.fork_fails = False
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
            if standing == "closing":
                self.zygote_gone(number)
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
        wake_at = plan.plan(self.state, self.now).wake_at
        if wake_at == math.inf or (plan.calm(self.state) and self.state.idle.stage is Stage.WATCHING):
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
        self.stopping = True
        self.see(StopAsked(fast))


policies = st.builds(
    Policy,
    workers=st.integers(1, 4),
    spawn_interval=st.sampled_from([0.0, 0.0, 0.5]),
    respawn_pause=st.sampled_from([0.1, 1.0]),
    boot_timeout=st.sampled_from([3.0, 60.0]),
    graceful_timeout=st.sampled_from([0.0, 2.0, 30.0]),
    idle_timeout=st.sampled_from([0.0, 0.1, 0.1, 5.0]),
)
picks = st.integers(0, 15)


def chosen(numbers: list[int], pick: int) -> int:
    return numbers[pick % len(numbers)]


class Histories(RuleBasedStateMachine):
    """What may happen, in any order. A server that has left is started again."""

    @initialize(policy=policies, booted=st.booleans())
    def boot(self, policy: Policy, booted: bool) -> None:
        self.batching = False
        self.world = World(policy)
        if booted:
            self.world.be_kind()
            self.world.judge_peace()
        self.happen()

    def happen(self) -> None:
        """Something was seen: act on it, unless more is to be seen in the same moment."""
        if self.batching:
            self.batching = False
        else:
            self.world.settle()
        if self.world.left is not None:
            self.world = World(self.world.config or Policy())
            self.world.settle()
        self.world.halfway = False

    def workers(self, *wanted: str) -> list[int]:
        return [number for number, worker in self.world.workers.items() if worker.standing in wanted]

    def zygotes(self, *wanted: str) -> list[int]:
        return [number for number, standing in self.world.zygotes.items() if standing in wanted]

    @rule()
    def more_in_the_same_moment(self) -> None:
        self.batching = True

    @rule(
        share=st.sampled_from([1.0, 1.0, 0.3, 1.5]),
        more=st.sampled_from([0.0, 0.2, 100.0]),
        batch=st.booleans(),
    )
    def time_passes(self, share: float, more: float, batch: bool) -> None:
        """To the next alarm, not as far, or beyond it: the machine was suspended."""
        world = self.world
        wake_at = plan.plan(world.state, world.now).wake_at
        if wake_at == math.inf:
            world.now += more
        else:
            world.now = wake_at if share == 1.0 else world.now + share * (wake_at - world.now + more)
        self.batching = self.batching or batch
        self.happen()

    @rule(config=st.none() | policies)
    def configuration_changes(self, config: Policy | None) -> None:
        self.world.config = config

    @rule()
    def next_fork_fails(self) -> None:
        self.world.fork_fails = True

    @precondition(lambda self: self.zygotes("loading"))
    @rule(pick=picks, well=st.booleans())
    def zygote_loads(self, pick: int, well: bool) -> None:
        number = chosen(self.zygotes("loading"), pick)
        if well:
            self.world.zygotes[number] = "loaded"
            self.world.see(Loaded(number))
        else:
            self.world.see(Failed(number, "ImportError", "Traceback"))
        self.happen()

    @precondition(lambda self: self.zygotes("loading", "loaded", "closing"))
    @rule(pick=picks)
    def zygote_dies(self, pick: int) -> None:
        self.world.zygote_gone(chosen(self.zygotes("loading", "loaded", "closing"), pick))
        self.happen()

    @precondition(lambda self: self.zygotes("closing"))
    @rule(pick=picks)
    def zygote_speaks_too_late(self, pick: int) -> None:
        self.world.see(Loaded(chosen(self.zygotes("closing"), pick)))
        self.happen()

    @precondition(lambda self: self.workers("starting"))
    @rule(pick=picks, well=st.booleans())
    def worker_loads(self, pick: int, well: bool) -> None:
        number = chosen(self.workers("starting"), pick)
        if well:
            self.world.workers[number].ready = True
            self.world.see(Ready(number))
        else:
            self.world.see(WorkerFailed(number, "ImportError", "Traceback"))
        self.happen()

    @precondition(lambda self: self.workers("ready"))
    @rule(pick=picks)
    def worker_leaves(self, pick: int) -> None:
        number = chosen(self.workers("ready"), pick)
        self.world.workers[number].leaving = True
        self.world.see(Leaving(number))
        self.happen()

    @precondition(lambda self: self.workers("ready", "leaving"))
    @rule(pick=picks)
    def worker_hangs(self, pick: int) -> None:
        number = chosen(self.workers("ready", "leaving"), pick)
        self.world.workers[number].overdue = True
        self.world.see(Overdue(number, "request-timeout"))
        self.happen()

    @precondition(lambda self: self.workers("leaving", "killed"))
    @rule(pick=picks)
    def worker_ends_as_told(self, pick: int) -> None:
        self.world.gone(chosen(self.workers("leaving", "killed"), pick))
        self.happen()

    @precondition(lambda self: self.world.workers)
    @rule(pick=picks)
    def worker_dies(self, pick: int) -> None:
        self.world.gone(chosen(list(self.world.workers), pick))
        self.happen()

    @precondition(lambda self: self.workers("ready"))
    @rule(pick=picks)
    def client_comes(self, pick: int) -> None:
        """It says nothing yet, so the scoreboard does not know of it. While nobody accepts, it waits."""
        worker = self.world.workers[chosen(self.workers("ready"), pick)]
        worker.connections += worker.accepting

    @precondition(lambda self: any(worker.connections for worker in self.world.workers.values()))
    @rule(pick=picks, asks=st.booleans())
    def client_goes_again(self, pick: int, asks: bool) -> None:
        held = [number for number, worker in self.world.workers.items() if worker.connections]
        worker = self.world.workers[chosen(held, pick)]
        worker.connections -= 1
        worker.empty_since = self.world.now
        worker.served = self.world.now if asks else worker.served

    @precondition(lambda self: any(worker.to_answer for worker in self.world.workers.values()))
    @rule(pick=picks)
    def worker_answers(self, pick: int) -> None:
        told = [number for number, worker in self.world.workers.items() if worker.to_answer]
        self.world.answer(chosen(told, pick))
        self.happen()

    @rule(kind=st.booleans(), visited=st.booleans(), answers=st.integers(0, 6))
    def nobody_comes(self, kind: bool, visited: bool, answers: int) -> None:
        """Time passes until it is looked whether the server is idle, and so many orders are answered at once.
        Each worker may have been `visited` on the way, without a request."""
        if kind:
            self.times_are_kind()
        if visited:
            self.time_passes(0.3, 0.0, batch=False)
            for worker in self.world.workers.values():
                worker.empty_since = self.world.now if worker.accepting else worker.empty_since
        self.time_passes(1.0, 0.0, batch=False)
        for _ in range(answers):
            told = [number for number, worker in self.world.workers.items() if worker.to_answer]
            if told:
                self.world.answer(told[0])
                self.happen()

    @rule()
    def reload_is_asked(self) -> None:
        self.world.ask_reload()
        self.happen()

    @rule()
    def client_goes(self) -> None:
        self.world.see(ReloadAbandoned())
        self.happen()

    @rule(by=st.sampled_from([1, -1]))
    def pool_is_adjusted(self, by: int) -> None:
        self.world.see(Adjusted(by))
        self.happen()

    @precondition(lambda self: len(self.world.transcript) > 60)
    @rule(fast=st.booleans())
    def stop_is_asked(self, fast: bool) -> None:
        self.world.ask_stop(fast)
        self.happen()

    @rule()
    def times_are_kind(self) -> None:
        self.world.be_kind()
        self.happen()

    def teardown(self) -> None:
        """After any history a kind world comes to rest, reloads, and stops: with Leave(OK), once.

        Hypothesis comes here after an exception too: a broken rule, or a time limit of the test run. What was
        broken off is not judged, for a second verdict would hide the first.
        """
        world = self.world
        if world.halfway:
            return
        world.be_kind()
        if world.left is None:
            world.judge_peace()
            world.judge_reload()
            world.ask_stop(fast=False)
            world.be_kind()
            world.demand(world.left is Exit.OK, "it did not stop well")
        world.demand(world.left is not None, "it did not leave")


Histories.TestCase.settings = settings(max_examples=120, stateful_step_count=60)
TestHistories = Histories.TestCase
