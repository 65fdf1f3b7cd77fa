"""The guard: it acts only inside the application, only when that takes long, and sleeps when nothing happens.

Its thread is real, and so is time; but no test measures it: whatever is awaited has PATIENCE.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

import pytest

from stardust.worker import guard as guards
from stardust.worker.guard import Guard

PATIENCE = 20.0  # s; far beyond what anything takes


class Watched:
    """A loop that does nothing, and its guard. `relieved` has how long each turn had lasted."""

    def __init__(self, relieve: Callable[[float], object] = lambda lasted: None) -> None:
        self.looked = time.monotonic()
        self.relieved: list[float] = []
        self.inside = False
        self._then = relieve
        self._again = threading.Condition()
        self.guard = Guard(lambda: self.looked, self._relieve)
        self.guard.start()

    def _relieve(self, lasted: float) -> None:
        with self._again:
            assert self.inside
            self.relieved.append(lasted)
            self._again.notify_all()
        self._then(lasted)

    def enter(self) -> None:
        self.looked = time.monotonic()
        self.release()

    def release(self) -> None:
        self.inside = True
        self.guard.turn.release()
        if self.guard.asleep:
            self.guard.wake()

    def leave(self) -> None:
        self.guard.turn.acquire()
        self.inside = False

    def await_relief(self, count: int = 1) -> None:
        with self._again:
            goal = len(self.relieved) + count
            assert self._again.wait_for(lambda: len(self.relieved) >= goal, PATIENCE)

    def await_sleep(self) -> None:
        give_up = time.monotonic() + PATIENCE
        while not self.guard.asleep:
            assert time.monotonic() < give_up
            self._pause()

    def _pause(self) -> None:
        with self._again:
            self._again.wait(0.001)


def test_it_comes_again_and_again_while_the_application_runs() -> None:
    watched = Watched()
    watched.enter()
    watched.await_relief(3)
    watched.leave()
    assert watched.relieved == sorted(watched.relieved)
    assert watched.relieved[0] >= guards.PATIENCE


def test_not_outside_the_application() -> None:
    """The turn has lasted for long, but the loop itself is at work."""
    watched = Watched()
    watched.enter()
    watched.await_relief()
    watched.leave()
    count = len(watched.relieved)
    watched.looked -= 100
    watched.await_sleep()
    assert len(watched.relieved) == count


def test_a_turn_counts_from_its_beginning() -> None:
    """Many short requests in one turn make those wait who come last."""
    watched = Watched()
    watched.looked -= 100
    watched.release()
    watched.await_relief()
    watched.leave()
    assert watched.relieved[0] >= 100


def test_it_sleeps_and_wakes_up() -> None:
    watched = Watched()
    for _ in range(5):
        watched.await_sleep()
        watched.enter()
        assert not watched.guard.asleep
        watched.await_relief()
        watched.leave()


def test_the_application_comes_back_only_when_the_guard_is_done() -> None:
    done = []
    in_relief, go_on = threading.Event(), threading.Event()

    def relieve(lasted: float) -> None:
        in_relief.set()
        assert go_on.wait(PATIENCE)
        done.append(lasted)

    watched = Watched(relieve)
    watched.enter()
    assert in_relief.wait(PATIENCE)
    threading.Timer(0.01, go_on.set).start()
    watched.leave()
    assert done


def test_beside_one_that_computes() -> None:
    """It holds the interpreter all the time."""
    watched = Watched()
    watched.enter()
    give_up = time.monotonic() + PATIENCE
    while not watched.relieved:
        assert time.monotonic() < give_up
    watched.leave()


def test_the_switch_interval_is_left_as_it_was() -> None:
    before = sys.getswitchinterval()
    during: list[float] = []
    watched = Watched(lambda lasted: during.append(sys.getswitchinterval()))
    watched.enter()
    watched.await_relief()
    watched.leave()
    assert during[0] < before
    assert sys.getswitchinterval() == before


def test_a_fork_in_the_middle_leaves_no_hurry() -> None:
    """What the child does about it, which has no guard."""
    before = sys.getswitchinterval()
    after: list[float] = []

    def fork(lasted: float) -> None:
        watched.guard.forsake()
        after.append(sys.getswitchinterval())
        watched.guard.forsake()

    watched = Watched(fork)
    watched.enter()
    watched.await_relief()
    watched.leave()
    assert after[0] == before == sys.getswitchinterval()


def test_short_requests_are_left_alone() -> None:
    """However many there are: each has a turn of its own. A machine may stop for a moment in one of them."""
    watched = Watched()
    for _ in range(20_000):
        watched.enter()
        watched.leave()
    assert all(lasted >= guards.PATIENCE for lasted in watched.relieved)


@pytest.mark.parametrize(
    ("lasted", "late", "pause"),
    [
        pytest.param(0.0, 0.0, 0.02, id="a turn that has just begun"),
        pytest.param(0.005, 0.0, 0.015, id="one that may be too long in 15 ms"),
        pytest.param(0.015, 0.0, 0.01, id="one that may be so sooner"),
        pytest.param(5.0, 0.0, 0.01, id="one that is too long"),
        pytest.param(5.0, 0.01, 0.01, id="late by a tick, as beside one that computes"),
        pytest.param(5.0, 0.02, 0.04, id="twice as late"),
        pytest.param(0.0, 0.05, 0.25, id="far fewer cores than busy processes"),
        pytest.param(5.0, 30.0, 0.25, id="four times a second at least"),
    ],
)
def test_how_often_it_looks(lasted: float, late: float, pause: float) -> None:
    assert guards.until_next(lasted, late) == pytest.approx(pause)
