"""Signals as something to wait for: each once, in order, and nothing is done before somebody asks."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator

import pytest

from stardust.base.signals import Wakeup

NUMBERS = (signal.SIGUSR1, signal.SIGHUP)


@pytest.fixture
def wakeup() -> Iterator[Wakeup]:
    before = {number: signal.getsignal(number) for number in NUMBERS}
    wakeup = Wakeup(NUMBERS)
    yield wakeup
    wakeup.close()
    for number, handler in before.items():
        signal.signal(number, handler)


def test_nothing_has_come(wakeup: Wakeup) -> None:
    assert select.select([wakeup], [], [], 0)[0] == []
    assert wakeup.take() == []


def test_each_once_and_in_order(wakeup: Wakeup) -> None:
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGHUP):
        os.kill(os.getpid(), number)
    assert select.select([wakeup], [], [], 20)[0] == [wakeup]
    assert wakeup.take() == [signal.SIGUSR1, signal.SIGHUP]
    assert wakeup.take() == []


def test_what_nobody_waits_for_is_left_out(wakeup: Wakeup) -> None:
    """Another signal that has a handler reaches the same descriptor."""
    before = signal.signal(signal.SIGUSR2, lambda number, frame: None)
    os.kill(os.getpid(), signal.SIGUSR2)
    os.kill(os.getpid(), signal.SIGHUP)
    assert select.select([wakeup], [], [], 20)[0] == [wakeup]
    assert wakeup.take() == [signal.SIGHUP]
    signal.signal(signal.SIGUSR2, before)


def test_more_than_it_can_hold(wakeup: Wakeup) -> None:
    """The handler of Python says nothing then, and what came first is still known."""
    for _ in range(3000):
        os.kill(os.getpid(), signal.SIGHUP)
    assert wakeup.take() == [signal.SIGHUP]


def test_at_the_end_signals_wake_nobody(wakeup: Wakeup) -> None:
    wakeup.close()
    os.kill(os.getpid(), signal.SIGHUP)
    assert signal.set_wakeup_fd(-1) == -1
