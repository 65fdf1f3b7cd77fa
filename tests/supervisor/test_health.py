"""Stuck or not: each rule as a row, then that judging is safe at any moment."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stardust.ipc import messages
from stardust.ipc.scoreboard import BUSY, EMPTY, IDLE, STARTING, Entry
from stardust.supervisor.health import Judgement, Limits, alive, judge, quiet_since
from stardust.supervisor.state import Phase
from stardust.supervisor.vocabulary import Event, QuietSince
from tests.supervisor.stage import Stage

NOW = 1000.0
BOTH = Limits(request_timeout=10.0, heartbeat_timeout=30.0)
REQUESTS = Limits(request_timeout=10.0, heartbeat_timeout=0.0)
HEARTBEATS = Limits(request_timeout=0.0, heartbeat_timeout=30.0)
NEITHER = Limits(0.0, 0.0)


def entry(state: int, *, since: float = NOW, deadline: float = 0.0, heartbeat: float = NOW) -> Entry:
    running = int(state == BUSY)
    return Entry(4711, 1, state, 5, 1, running, since, deadline, heartbeat, "127.0.0.1 GET / HTTP/1.1")


def calm(look_at: float) -> Judgement:
    return Judgement({}, frozenset(), look_at)


# name: the entry, the limits, when it was last pinged (None: never), the judgement
RULES: dict[str, tuple[Entry, Limits, float | None, Judgement]] = {
    "a request may run until its deadline": (
        entry(BUSY, deadline=NOW + 3),
        REQUESTS,
        None,
        calm(NOW + 3),
    ),
    "a request is overdue at its deadline": (
        entry(BUSY, deadline=NOW),
        REQUESTS,
        None,
        Judgement({7: "request-timeout"}, frozenset(), NOW + 10),
    ),
    "a request without a deadline may run for ever": (
        entry(BUSY, since=NOW - 9999),
        REQUESTS,
        None,
        calm(NOW + 10),
    ),
    "what begins now is overdue in request-timeout": (entry(IDLE), REQUESTS, None, calm(NOW + 10)),
    "the deadline of a request that is over is nothing": (
        entry(IDLE, deadline=NOW - 1),
        REQUESTS,
        None,
        calm(NOW + 10),
    ),
    "without request-timeout a deadline is nothing": (
        entry(BUSY, deadline=NOW - 1),
        NEITHER,
        None,
        calm(math.inf),
    ),
    "no limits, no looking": (entry(IDLE, since=NOW - 9999, heartbeat=0), NEITHER, 5.0, calm(math.inf)),
    "a worker is pinged as soon as it is known": (
        entry(IDLE),
        HEARTBEATS,
        None,
        Judgement({}, frozenset({7}), NOW + 10),
    ),
    "three pings in a heartbeat-timeout": (
        entry(IDLE, heartbeat=NOW - 10),
        HEARTBEATS,
        NOW - 10,
        Judgement({}, frozenset({7}), NOW + 10),
    ),
    "and not more": (entry(IDLE, heartbeat=NOW - 9), HEARTBEATS, NOW - 9, calm(NOW + 10)),
    "no second ping before the first is answered": (
        entry(IDLE, since=NOW - 99, heartbeat=NOW - 21),
        HEARTBEATS,
        NOW - 20,
        calm(NOW + 10),
    ),
    "a ping may stay unanswered for heartbeat-timeout": (
        entry(IDLE, since=NOW - 99, heartbeat=NOW - 40),
        HEARTBEATS,
        NOW - 30,
        calm(NOW + 10),
    ),
    "and not longer": (
        entry(IDLE, since=NOW - 99, heartbeat=NOW - 41),
        HEARTBEATS,
        NOW - 31,
        Judgement({7: "heartbeat-timeout"}, frozenset(), NOW + 10),
    ),
    "a busy worker cannot answer": (
        entry(BUSY, since=NOW - 99, heartbeat=NOW - 99),
        HEARTBEATS,
        NOW - 98,
        calm(NOW + 10),
    ),
    "a worker that was busy gets its time again": (
        entry(IDLE, since=NOW - 1, heartbeat=NOW - 99),
        HEARTBEATS,
        NOW - 98,
        calm(NOW + 10),
    ),
    "a suspended machine shoots nobody: a ping counts from when it was sent": (
        entry(IDLE, since=NOW - 9999, heartbeat=NOW - 9000),
        HEARTBEATS,
        NOW - 9000,
        Judgement({}, frozenset({7}), NOW + 10),
    ),
    "of two alarms the earlier one": (entry(BUSY, deadline=NOW + 3), BOTH, NOW, calm(NOW + 3)),
}


@pytest.mark.parametrize("rule", RULES)
def test_judge(rule: str) -> None:
    seen, limits, pinged, expected = RULES[rule]
    if pinged is not None and seen.heartbeat > pinged:
        pytest.fail("the row contradicts itself: the answer is younger than now")
    assert judge([(7, seen, limits)], {} if pinged is None else {7: pinged}, NOW) == expected


def test_nobody() -> None:
    assert judge([], {}, NOW) == calm(math.inf)


def test_each_worker_for_itself() -> None:
    workers = [
        (1, entry(BUSY, deadline=NOW - 1), REQUESTS),
        (2, entry(IDLE), HEARTBEATS),
        (3, entry(IDLE, since=NOW - 99, heartbeat=NOW - 60), HEARTBEATS),
    ]
    expected = Judgement({1: "request-timeout", 3: "heartbeat-timeout"}, frozenset({2}), NOW + 10)
    assert judge(workers, {3: NOW - 50}, NOW) == expected


ALIVE = {
    "idle, answered lately": (entry(IDLE, heartbeat=NOW - 29), True),
    "idle, silent for longer": (entry(IDLE, since=NOW - 99, heartbeat=NOW - 31), False),
    "idle, silent, but it was busy until now": (entry(IDLE, since=NOW - 1, heartbeat=NOW - 99), True),
    "busy within its time": (entry(BUSY, deadline=NOW + 1, heartbeat=0), True),
    "busy for ever": (entry(BUSY, since=0, heartbeat=0), True),
    "overdue": (entry(BUSY, deadline=NOW), False),
}


@pytest.mark.parametrize("name", ALIVE)
def test_alive(name: str) -> None:
    seen, expected = ALIVE[name]
    assert alive(seen, 30.0, NOW) is expected


QUIET = {
    "nobody": ([], NOW),
    "all idle": ([entry(IDLE, since=900.0), entry(IDLE, since=950.0)], 950.0),
    "one has just begun": ([entry(STARTING, since=990.0), entry(IDLE, since=900.0)], 990.0),
    "one runs a request": ([entry(IDLE, since=900.0), entry(BUSY, since=800.0)], NOW),
}


@pytest.mark.parametrize("name", QUIET)
def test_quiet_since(name: str) -> None:
    entries, moment = QUIET[name]
    assert quiet_since(entries, NOW) == moment


times = st.floats(0, NOW)
entries = st.builds(
    entry,
    st.sampled_from([EMPTY, STARTING, IDLE, BUSY]),
    since=times,
    deadline=st.just(0.0) | st.floats(1, 2 * NOW),
    heartbeat=times,
)
durations = st.just(0.0) | st.floats(0.1, 2 * NOW)


@given(entries, st.builds(Limits, durations, durations), st.none() | times)
def test_judging_again_at_the_same_moment_adds_nothing(
    seen: Entry, limits: Limits, pinged: float | None
) -> None:
    """The shell looks again whenever it likes; `look_at` lies ahead, so it does not spin."""
    first = judge([(7, seen, limits)], {} if pinged is None else {7: pinged}, NOW)
    assert first.look_at > NOW
    assert not (first.stuck and first.ping) or first.stuck == {7: "request-timeout"}
    asked = {7: NOW} if first.ping else {} if pinged is None else {7: pinged}
    again = judge([(7, seen, limits)], asked, NOW)
    assert again == Judgement(first.stuck, frozenset(), first.look_at)


@given(entries, st.builds(Limits, durations, durations), st.none() | times)
def test_whoever_answered_is_not_stuck(seen: Entry, limits: Limits, pinged: float | None) -> None:
    judged = judge([(7, seen, limits)], {} if pinged is None else {7: pinged}, NOW)
    if pinged is None or seen.heartbeat >= pinged:
        assert "heartbeat-timeout" not in judged.stuck.values()


# --- as it is done ---------------------------------------------------------------------------------------


def test_workers_are_pinged_and_who_does_not_answer_is_stuck(stage: Callable[..., Stage]) -> None:
    it = stage(max_workers=2, heartbeat_timeout=3)
    it.boot()
    it.settle()
    for worker in it.workers.values():
        assert worker.channel.receive() == messages.Ping()
    asked = it.supervisor.now
    it.supervisor.scoreboard.slot(it.workers[2].slot).beat(asked + 0.1)
    assert it.supervisor.settle() == asked + 1
    it.supervisor.now = asked + 3.1
    it.settle()
    phases = {number: worker.phase for number, worker in it.supervisor.state.workers.items()}
    assert (phases[1], phases[2]) == (Phase.CONDEMNED, Phase.READY)
    assert it.supervisor.state.workers[1].why == "heartbeat-timeout"
    assert it.workers[2].channel.receive() == messages.Ping()


def test_an_overdue_request_is_found_at_its_deadline(stage: Callable[..., Stage]) -> None:
    it = stage(max_workers=1, request_timeout=5)
    it.boot()
    now = it.supervisor.now
    it.supervisor.scoreboard.slot(0).busy(1, now, now + 2, b"192.0.2.1 GET / HTTP/1.1")
    it.supervisor.now += 5  # what begins cannot be overdue earlier, and nobody looked since
    it.settle()
    assert it.supervisor.state.workers[1].why == "request-timeout"


def test_without_limits_the_watchdog_asks(stage: Callable[..., Stage]) -> None:
    it = stage(max_workers=1, watchdog=30.0)
    it.boot()
    assert it.workers[1].channel.receive() == messages.Ping()
    it.supervisor.now += 10
    it.settle()
    it.workers[1].channel.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        it.workers[1].channel.receive()  # the first one is not answered
    it.supervisor.scoreboard.slot(0).beat(it.supervisor.now)
    it.supervisor.now += 10
    it.settle()
    assert it.workers[1].channel.receive() == messages.Ping()


def test_quiet_since_the_last_request(stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch) -> None:
    it = stage(max_workers=2)
    it.boot()
    seen: list[Event] = []
    for worker in it.workers.values():
        it.supervisor.scoreboard.slot(worker.slot).idle(1, 0, 100.0 + worker.number)
    with monkeypatch.context() as patch:
        patch.setattr(it.supervisor, "see", seen.append)
        it.supervisor.health.look_for_quiet()
    assert seen == [QuietSince(102.0)]
