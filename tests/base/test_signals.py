"""Signals as something to wait for: each once, in order, and nothing is done before somebody asks."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Iterator

import pytest

from stardust.base import signals
from stardust.base.signals import SetAside, Wakeup

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


@pytest.mark.parametrize("taken", ["left", "in use"])
def test_an_event_loop_of_the_application_takes_its_place(wakeup: Wakeup, taken: str) -> None:
    """asyncio's add_signal_handler(), which leaves -1 when the loop is closed."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    theirs = writer if taken == "in use" else -1
    ours = signal.set_wakeup_fd(theirs)
    os.kill(os.getpid(), signal.SIGHUP)
    assert wakeup.take() == [signal.SIGHUP]
    # A loop that runs keeps it; else it is ours again.
    assert signal.set_wakeup_fd(ours, warn_on_full_buffer=False) == (theirs if taken == "in use" else ours)
    os.close(reader)
    os.close(writer)


def test_what_is_ignored_is_not_ignored_by_programs() -> None:
    """execve(2): "the dispositions of any signals that are being caught are reset to the default"."""
    before = signal.getsignal(signal.SIGHUP)
    signals.ignore([signal.SIGHUP])
    os.kill(os.getpid(), signal.SIGHUP)
    process = subprocess.Popen(["sleep", "1000"])
    process.send_signal(signal.SIGHUP)
    assert process.wait(20) == -signal.SIGHUP
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("theirs", [signal.SIG_IGN, signal.SIG_DFL, lambda number, frame: None])
def test_what_the_application_does_with_its_children_waits(theirs: signal.Handlers) -> None:
    before = signal.signal(signal.SIGCHLD, theirs)
    aside = SetAside()
    aside.take()
    assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
    aside.give_back()
    assert signal.getsignal(signal.SIGCHLD) == theirs
    signal.signal(signal.SIGCHLD, before)
