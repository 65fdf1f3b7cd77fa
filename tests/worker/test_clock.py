"""The moment, and when to wake up: with time in the hands of the test."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from stardust.worker import clock as clocks
from stardust.worker.clock import FOREVER, Alarm, Clock


class Time:
    now = 100.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1_800_000_000.25 + self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(clocks, "time", SimpleNamespace(monotonic=time.monotonic, time=time.time))
    return time


def test_it_stands_still_between_two_looks(time: Time) -> None:
    clock = Clock()
    time.now += 5
    assert (clock.now, clock.looked) == (100.0, 100.0)
    assert clock.tick() == clock.now == 105.0
    assert clock.looked == 100.0


def test_a_date_holds_for_the_rest_of_its_second(time: Time) -> None:
    clock = Clock()
    assert clock.date == b"Fri, 15 Jan 2027 08:01:40 GMT"
    assert clock.date_until == 100.75
    assert clock.now + clock.wall == time.time()
    time.now += 0.74
    clock.tick()
    assert clock.date == b"Fri, 15 Jan 2027 08:01:40 GMT"
    time.now += 0.01
    clock.tick()
    assert clock.date == b"Fri, 15 Jan 2027 08:01:41 GMT"


def test_the_earliest_wake_up_counts(time: Time) -> None:
    clock = Clock()
    assert clock.wake_at == FOREVER
    for moment in (107.0, 103.0, 105.0):
        clock.wake_by(moment)
    assert clock.wake_at == 103.0


def test_an_alarm_rings_once(time: Time) -> None:
    clock = Clock()
    alarm = Alarm(clock)
    assert not alarm.rings(1e9)
    alarm.within(5.0)
    alarm.within(2.0)
    alarm.within(9.0)
    assert clock.wake_at == alarm.at == 102.0
    assert not alarm.rings(101.9)
    assert alarm.rings(102.0)
    assert alarm.at == FOREVER
    assert not alarm.rings(1e9)
