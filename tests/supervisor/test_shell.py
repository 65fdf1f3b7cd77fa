"""The loop: what is heard is acted upon, and what is done is known. With a zygote that the test plays."""

from __future__ import annotations

import math
import select
import signal
from collections.abc import Callable
from functools import partial

import pytest

from stardust.ipc import messages
from stardust.ipc.channel import pair
from stardust.supervisor import vocabulary
from stardust.supervisor.crossing import Crossing
from stardust.supervisor.state import Phase, State, Stop, Watchdog
from tests.supervisor.stage import Stage


def test_boot(stage: Callable[..., Stage]) -> None:
    it = stage()
    it.boot()
    assert {worker.phase for worker in it.supervisor.state.workers.values()} == {Phase.READY}
    assert it.supervisor.scoreboard.replaceable
    assert "generation 1 serves shop with 2 workers on http " in it.log.read_text()


def test_reload_retires_old_workers(stage: Callable[..., Stage]) -> None:
    it = stage(max_workers=1)
    it.boot()
    it.supervisor.see(vocabulary.ReloadAsked())
    it.settle()
    it.briefed(generation=2)
    it.zygotes[1].send(messages.Loaded())
    it.until(lambda: 2 in it.supervisor.children.book)
    it.start_worker(generation=2)
    it.until(lambda: it.supervisor.state.serving == 2)
    assert it.workers[1].channel.receive() == messages.Retire()
    # The order may be read late; this is read before each accept.
    assert it.supervisor.scoreboard.slot(0).retired
    it.workers[1].channel.send(messages.Leaving())
    it.until(lambda: bool(select.select([it.supervisor.link], [], [], 0)[0]))
    assert it.supervisor.link.take() is None  # a nudge


def test_descriptor_that_takes_the_number_of_a_closed_one_is_not_taken_for_it(
    stage: Callable[..., Stage],
) -> None:
    """Two are ready in one round; the one heard first closes the other, and another takes its number."""
    supervisor = stage().supervisor
    heard: list[str] = []
    ends = [pair() for _ in range(2)]

    def hear(other: int) -> None:
        heard.append("first" if not heard else "stranger")
        supervisor.unwatch(other)
        supervisor.watch(other, partial(heard.append, "newcomer"))

    for mine, other in (ends, ends[::-1]):
        mine[1].send(b"x")
        supervisor.watch(mine[0].fileno(), partial(hear, other[0].fileno()))
    supervisor.wait(math.inf)
    assert heard == ["first"]
    for ours, theirs in ends:
        with ours, theirs:
            supervisor.unwatch(ours.fileno())


@pytest.mark.parametrize(
    ("number", "follows"),
    [
        pytest.param(signal.SIGHUP, lambda state: state.coming == 2, id="reload"),
        pytest.param(signal.SIGTERM, lambda state: state.stop is Stop.GRACEFUL, id="stop"),
        pytest.param(signal.SIGINT, lambda state: state.stop is Stop.GRACEFUL, id="Ctrl-C"),
        pytest.param(signal.SIGQUIT, lambda state: state.stop is Stop.FAST, id="stop at once"),
        pytest.param(signal.SIGTTIN, lambda state: state.adjust == 1, id="one more"),
        pytest.param(signal.SIGTTOU, lambda state: state.adjust == -1, id="one less"),
    ],
)
def test_signals(
    stage: Callable[..., Stage], number: signal.Signals, follows: Callable[[State], bool]
) -> None:
    it = stage(max_workers=2)
    it.boot()
    assert not follows(it.supervisor.state)
    it.supervisor._signalled([number])
    assert follows(it.supervisor.state)


def test_what_it_begins_with(stage: Callable[..., Stage]) -> None:
    """Without a manager nobody wants a sign of life, and no connections are left."""
    state = stage().supervisor.state
    assert (state.watchdog, state.crossing) == (Watchdog(), Crossing())
