"""The rules, as stories (dialogue.py). Random histories are in test_histories.py."""

from __future__ import annotations

import pytest

from stardust.base.errors import Exit
from stardust.supervisor.crossing import AGAIN, PATIENCE, Crossing, Leg
from stardust.supervisor.idle import ANSWER_WITHIN
from stardust.supervisor.state import Outcome, Policy, State, Watchdog
from stardust.supervisor.vocabulary import (
    Action,
    Adjusted,
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
    WorkerFailed,
    ZygoteGone,
    ZygoteNonsense,
)
from tests.supervisor.dialogue import (
    Asleep,
    Dialogue,
    Wait,
    booting,
    empty,
    failed,
    paused,
    reloading,
    served,
    serving,
)


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
    assert dialogue << End(code)


def test_boot_that_takes_too_long() -> None:
    assert (
        booting(boot_timeout=5.0)
        >> Wait(5)
        << GiveUp(1, "the application did not load within boot-timeout = 5 s")
        << SayStopping()
        << Close(1)
        >> ZygoteGone(1)
        << End(Exit.APPLICATION)
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
        << End(Exit.APPLICATION)
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
    "client gone": (ReloadAbandoned(), failed("the client that asked for it has disconnected")),
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
    dialogue = serving(workers=1, least_backoff=20.0) >> Gone(1, "exit code 1") << Asleep(20)
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
    assert dialogue << Asleep() >> ZygoteGone(1) << End(Exit.OK)


def test_stop_kills_who_takes_longer_than_graceful_timeout() -> None:
    dialogue = serving(workers=1, graceful_timeout=7.0) >> StopAsked() << SayStopping()
    dialogue = dialogue << Retire(1, final=True) >> Wait(7) << Kill(1, "graceful-timeout")
    assert dialogue >> Gone(1, "killed by SIGKILL") << Close(1) >> ZygoteGone(1) << End(Exit.OK)


def test_stop_fast() -> None:
    dialogue = serving(workers=1) >> StopAsked(fast=True) << SayStopping()
    dialogue = dialogue << Kill(1, "the server stops at once") >> Gone(1, "killed by SIGKILL") << Close(1)
    assert dialogue >> ZygoteGone(1) << End(Exit.OK)


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
    assert dialogue >> ZygoteGone(1) << End(Exit.OK)


def test_stop_during_boot_stays_graceful_when_the_zygote_dies() -> None:
    """Nothing can fail any more: worker 1 may finish its request."""
    dialogue = booting() >> Loaded(1) << Fork(1, 0, 1) << Fork(2, 1, 1) >> Ready(1) >> StopAsked()
    dialogue = dialogue << SayStopping() << Retire(1, final=True) << Kill(2, "the server stops")
    dialogue = dialogue >> ZygoteGone(1) << Asleep(30) >> Gone(2, "") >> Gone(1, "exit code 0")
    assert dialogue << End(Exit.OK)


def test_stop_during_reload() -> None:
    dialogue = reloading(workers=1) >> ReloadAsked() >> Loaded(2) << Fork(2, 1, 2) >> StopAsked()
    dialogue = dialogue << SayStopping() << Retire(1, final=True) << Kill(2, "the server stops")
    dialogue = dialogue << failed("the server is stopping") >> ReloadAsked() >> Gone(2, "killed by SIGKILL")
    dialogue = dialogue << Close(2) >> ZygoteGone(2) >> Gone(1, "exit code 0") << Close(1)
    assert dialogue >> ZygoteGone(1) << End(Exit.OK)


def test_spawn_interval() -> None:
    """At least so much time lies between two forks."""
    dialogue = booting(workers=3, spawn_interval=2.0) >> Loaded(1) << Fork(1, 0, 1) >> Ready(1) << Asleep(2)
    dialogue = dialogue >> Wait(2) << Fork(2, 1, 1) >> Ready(2) >> Wait(1) << Asleep(1) >> Wait(5)
    assert dialogue << Fork(3, 2, 1) >> Ready(3) << SayReady() << Asleep()


def test_worker_past_boot_timeout_and_beyond_the_target_is_not_retired_as_well() -> None:
    dialogue = serving(boot_timeout=5.0) >> Leaving(1) << Fork(3, 2, 1) >> Gone(1, "exit code 0")
    dialogue = dialogue >> (Wait(5), Adjusted(-1)) << Kill(3, "boot-timeout") >> Gone(3, "killed by SIGKILL")
    assert dialogue >> Wait(99) << Asleep()


def test_idle() -> None:
    """STOPPING=1 is said when every worker accepts nothing and holds nothing: it cannot be taken back."""
    assert (
        paused()
        >> empty(2)
        << Asleep(ANSWER_WITHIN)
        >> empty(1)
        << ExitIdle()
        << SayStopping()
        << Retire(1, final=True)
        << Retire(2, final=True)
        >> Gone(1, "exit code 0")
        >> Gone(2, "exit code 0")
        << Close(1)
        >> ZygoteGone(1)
        << End(Exit.OK)
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
    dialogue = dialogue >> empty(2, number=1) >> empty(1, number=2) << Asleep(ANSWER_WITHIN)
    assert dialogue >> empty(2, number=2) << ExitIdle() << SayStopping() << Retire(1, True) << Retire(2, True)


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
    assert dialogue >> Gone(1, "exit code 0") << Close(1) >> ZygoteGone(1) << End(Exit.OK)


def test_a_stop_while_it_leaves() -> None:
    """It is the first that was asked for: nobody is impatient."""
    dialogue = paused(1) >> empty(1) << ExitIdle() << SayStopping() << Retire(1, final=True) >> StopAsked()
    dialogue = dialogue >> ReloadAsked() >> empty(1) >> StopAsked() << Kill(1, "the server stops at once")
    assert dialogue >> Gone(1, "killed by SIGKILL") << Close(1) >> ZygoteGone(1) << End(Exit.OK)


def test_idle_counts_from_the_last_reload() -> None:
    dialogue = serving(1, idle_timeout=10.0) >> Wait(9) >> ReloadAsked() << SayReloading(2) << Start(2)
    dialogue = dialogue << Asleep(60) >> Loaded(2) << Fork(2, 1, 2) >> Ready(2) << Retire(1) << SayReady()
    dialogue = dialogue << served(2, at=9) >> Wait(20) >> Gone(1, "exit code 0") << Close(1)
    assert dialogue >> ZygoteGone(1) << Asleep(10) >> Wait(10) << CheckIdle()


# --- who is not to be relied on --------------------------------------------------------------------------


def test_a_zygote_that_does_not_answer_is_killed() -> None:
    """It may have forked the worker or not. Its generation ends as if it had died by itself."""
    dialogue = serving(boot_timeout=5.0)
    dialogue.silent = True
    dialogue = dialogue >> Leaving(1) << Fork(3, 2, 1) >> Ready(3) >> Wait(5)
    dialogue = dialogue << KillZygote(1, "does not answer") << Asleep(25) >> ZygoteGone(1) << Asleep(0.1)
    assert dialogue >> Wait(0.1) << Start(2)


def test_a_zygote_that_does_not_say_how_a_worker_ended_is_killed() -> None:
    """The oldest debt counts."""
    dialogue = serving(workers=3, boot_timeout=5.0) >> Reaping(2) << Asleep(5) >> Wait(3) >> Reaping(1)
    assert dialogue << Asleep(2) >> Gone(2, "exit code 0") << Asleep(0.1) >> Wait(0.1) << Fork(4, 1, 1)
    assert dialogue >> Ready(4) << Asleep(4.9) >> Wait(4.9) << KillZygote(1, "does not answer")


def test_nothing_is_forked_from_a_zygote_that_is_being_killed() -> None:
    dialogue = serving(workers=1) >> ZygoteNonsense(1, "this") << KillZygote(1, "has sent this")
    dialogue = dialogue >> Leaving(1) << Asleep(30) >> ZygoteGone(1) << Asleep(0.1) >> Wait(0.1) << Start(2)
    assert dialogue


def test_a_zygote_that_is_being_killed_is_not_closed_as_well() -> None:
    """Its generation fails when it is dead, by its own fault or another."""
    dialogue = reloading() >> ZygoteNonsense(2, "this") << KillZygote(2, "has sent this") >> Loaded(2)
    assert (
        dialogue >> ReloadAbandoned() << SayReady() << failed("the client that asked for it has disconnected")
    )
    assert dialogue >> ZygoteNonsense(2, "that") >> ZygoteGone(2) << Asleep()


def test_boot_with_a_zygote_that_talks_nonsense() -> None:
    dialogue = booting() >> ZygoteNonsense(1, "this") << KillZygote(1, "has sent this") << Asleep()
    assert dialogue >> ZygoteGone(1) << SayStopping() << End(Exit.FAILURE)


def test_a_worker_that_talks_nonsense_is_killed_and_replaced_with_back_off() -> None:
    """As if it had crashed: it may do so again and again."""
    dialogue = serving(workers=1)
    for number, backoff in enumerate([0.1, 0.2, 0.4], 1):
        dialogue = dialogue >> Nonsense(number, "this") << Kill(number, "it has sent this") << Asleep(backoff)
        dialogue = (
            dialogue >> Nonsense(number, "that") >> Gone(number, "killed by SIGKILL") << Asleep(backoff)
        )
        dialogue = dialogue >> Wait(backoff) << Fork(number + 1, 0, 1) >> Ready(number + 1)
    assert dialogue << Asleep()


def test_a_worker_that_leaves_and_talks_nonsense_has_a_successor_already() -> None:
    dialogue = serving(workers=1) >> Leaving(1) << Fork(2, 1, 1) >> Ready(2) >> Nonsense(1, "this")
    assert dialogue << Kill(1, "it has sent this") << Asleep() >> Gone(1, "killed by SIGKILL") << Asleep()


def test_a_stuck_worker_that_talks_nonsense_is_killed_at_once() -> None:
    dialogue = serving(workers=1) >> Overdue(1, "request-timeout") << Dump(1, "request-timeout")
    dialogue = dialogue << Fork(2, 1, 1) >> Ready(2) >> Nonsense(1, "this") << Kill(1, "it has sent this")
    assert dialogue << Asleep()


def test_reload_with_a_worker_that_talks_nonsense_before_it_is_ready() -> None:
    dialogue = reloading() >> Loaded(2) << Fork(3, 2, 2) >> Nonsense(3, "this") << Kill(3, "it has sent this")
    dialogue = dialogue << SayReady() << failed("a worker ended before it was ready: it has sent this")
    assert dialogue >> Gone(3, "killed by SIGKILL") << Close(2) >> ZygoteGone(2) << Asleep()


# --- the watchdog ----------------------------------------------------------------------------------------


def guarded() -> Dialogue:
    """One worker serves, and systemd wants a sign of life each 30 s."""
    dialogue = Dialogue(Policy(workers=1), State(watchdog=Watchdog(30.0, 0.0)))
    dialogue = dialogue << CheckAlive() << Start(1) >> Looked(False) << SayAlive()
    dialogue = dialogue >> Loaded(1) << Fork(1, 0, 1) << Asleep(10) >> Ready(1) << SayReady() << CheckAlive()
    return dialogue >> Looked(True) << SayAlive() << Asleep(10)


def test_a_healthy_pool_gives_signs_of_life() -> None:
    """Three in each interval. A boot is one too, though no worker is there."""
    dialogue = guarded() >> Wait(10) << CheckAlive() << Asleep(10) >> Looked(True) << SayAlive() << Asleep(10)
    assert dialogue


def test_a_dead_pool_gives_none() -> None:
    dialogue = guarded() >> Wait(10) << CheckAlive() >> Looked(False) << Asleep(10) >> Wait(10)
    assert dialogue << CheckAlive() >> Looked(False) << Asleep(10)


def test_a_pool_that_starts_is_healthy() -> None:
    dialogue = guarded() >> Gone(1, "exit code 1") >> Wait(0.1) << Fork(2, 0, 1) >> Wait(9.9) << CheckAlive()
    assert dialogue >> Looked(False) << SayAlive()


@pytest.mark.parametrize(
    ("event", "actions"),
    [
        pytest.param(ReloadAsked(), [SayReloading(2), Start(2)], id="reload"),
        pytest.param(StopAsked(), [SayStopping(), Retire(1, final=True)], id="stop"),
    ],
)
def test_what_is_in_progress_is_healthy(event: Event, actions: list[Action]) -> None:
    dialogue = guarded() >> event
    for action in actions:
        dialogue <<= action
    assert dialogue >> Wait(10) << CheckAlive() >> Looked(False) << SayAlive()


# --- connections across a restart ------------------------------------------------------------------------


def test_what_the_run_before_left_is_taken_up_when_this_one_serves() -> None:
    """What the workers have no room for is offered again."""
    dialogue = Dialogue(Policy(workers=1), State(crossing=Crossing(Leg.STORED))) << Start(1) >> Loaded(1)
    dialogue = dialogue << Fork(1, 0, 1) >> Ready(1) << SayReady() << TakeUp() << HandOn() << Asleep(AGAIN)
    dialogue = dialogue >> Wait(AGAIN) << HandOn() >> Moved() << Asleep()
    assert dialogue >> Moved() >> Shelved() << Asleep()


@pytest.mark.parametrize("cause", [StopAsked(), Failed(1, "ImportError")], ids=["stop", "failure"])
def test_a_start_that_comes_to_nothing_takes_nothing_up(cause: Event) -> None:
    dialogue = Dialogue(Policy(store=True), State(crossing=Crossing(Leg.STORED))) << Start(1) >> cause
    code = Exit.OK if isinstance(cause, StopAsked) else Exit.APPLICATION
    assert dialogue << SayStopping() << Close(1) >> ZygoteGone(1) << End(code)


def storing() -> Dialogue:
    """The only worker was told to stop, and to leave its connections for the next start."""
    dialogue = serving(workers=1, store=True) >> StopAsked() << Store() << SayStopping()
    return dialogue << Retire(1, final=True) << Collect() << Asleep(AGAIN) >> Moved() << Asleep(30)


def test_idle_connections_are_stored() -> None:
    """What is under way when the last worker has gone is collected too."""
    dialogue = storing() >> Shelved() << Collect() << Asleep(AGAIN) >> Moved() << Asleep(30)
    dialogue = dialogue >> Gone(1, "exit code 0") << Close(1) << Asleep() >> ZygoteGone(1)
    assert dialogue << Collect(last=True) >> Moved() << End(Exit.OK)


def test_what_systemd_has_no_room_for_holds_the_end_up() -> None:
    dialogue = storing() >> Shelved() << Collect() >> Wait(AGAIN) << Collect() >> Gone(1, "exit code 0")
    dialogue = dialogue << Close(1) >> ZygoteGone(1) << Collect(last=True) << Asleep(AGAIN) >> Wait(AGAIN)
    assert dialogue << Collect(last=True) << Asleep(AGAIN) >> Moved() << End(Exit.OK)


def test_but_not_for_ever() -> None:
    dialogue = storing() >> Gone(1, "exit code 0") << Close(1) >> ZygoteGone(1) << Collect(last=True)
    dialogue = dialogue >> Wait(PATIENCE - AGAIN / 2) << Collect(last=True) << Asleep(AGAIN / 2)
    assert dialogue >> Wait(AGAIN / 2) << End(Exit.OK)


def test_what_was_not_handed_on_is_stored_again() -> None:
    dialogue = Dialogue(Policy(workers=1, store=True), State(crossing=Crossing(Leg.STORED))) << Start(1)
    dialogue = dialogue >> Loaded(1) << Fork(1, 0, 1) >> Ready(1) << SayReady() << TakeUp() << HandOn()
    assert dialogue >> StopAsked() << Store() << SayStopping() << Retire(1, final=True) << Collect()


def test_where_nothing_can_be_stored_the_end_waits_for_nothing() -> None:
    dialogue = serving(workers=1, store=True) >> StopAsked() << Store() << SayStopping()
    dialogue = dialogue << Retire(1, final=True) << Collect() >> StoringFailed() << Asleep(30)
    assert dialogue >> Gone(1, "exit code 0") << Close(1) >> ZygoteGone(1) << End(Exit.OK)


@pytest.mark.parametrize("twice", [False, True], ids=["fast", "twice at once"])
def test_a_fast_stop_stores_nothing(twice: bool) -> None:
    cause = (StopAsked(), StopAsked()) if twice else (StopAsked(fast=True),)
    dialogue = serving(workers=1, store=True) >> cause << SayStopping()
    dialogue = dialogue << Kill(1, "the server stops at once") >> Gone(1, "killed by SIGKILL") << Close(1)
    assert dialogue >> ZygoteGone(1) << End(Exit.OK)


def test_an_idle_exit_stores_nothing_though_a_stop_is_asked_for() -> None:
    """Nobody is connected."""
    dialogue = serving(workers=1, store=True, idle_timeout=10.0) >> Wait(10) << CheckIdle() >> QuietSince(0)
    dialogue = dialogue << Pause(1) >> empty(1) << ExitIdle() << SayStopping() << Retire(1, final=True)
    assert dialogue >> StopAsked() >> Gone(1, "exit code 0") << Close(1) >> ZygoteGone(1) << End(Exit.OK)
