"""The stages on the way to an idle exit, one answer at a time. Whole histories are in test_plan.py."""

from __future__ import annotations

import math

import pytest

from stardust.supervisor import idle
from stardust.supervisor.idle import ANSWER_WITHIN, Stage, Watch

TIMEOUT = 60.0
WATCHING = Watch(since=100.0)
DUE = idle.looked(WATCHING, 100.0, TIMEOUT, 160.0)
ASKED = idle.paused(DUE, [1, 2], 160.0)
AGREED = Watch(Stage.AGREED, 100.0, 1, frozenset(), ASKED.until)
OVER = idle.disturbed(ASKED, 160.0)


@pytest.mark.parametrize(
    ("since", "now", "stage"),
    [
        pytest.param(100.0, 160.0, Stage.DUE, id="to the moment"),
        pytest.param(100.0, 159.9, Stage.WATCHING, id="too early"),
        pytest.param(160.0, 160.0, Stage.WATCHING, id="a request runs"),
        pytest.param(math.inf, 1e9, Stage.WATCHING, id="nothing is known"),
    ],
)
def test_the_scoreboard_was_read(since: float, now: float, stage: Stage) -> None:
    assert idle.looked(WATCHING, since, TIMEOUT, now) == Watch(stage, since)


def test_it_never_leaves_without_a_limit() -> None:
    assert idle.looked(WATCHING, 0.0, math.inf, 1e9).stage is Stage.WATCHING


@pytest.mark.parametrize("order", [(1, 2), (2, 1)], ids=str)
def test_everybody_agrees(order: tuple[int, int]) -> None:
    first, second = order
    watch = idle.answered(ASKED, first, 1, 0, 100.0, TIMEOUT, 160.0)
    assert watch == Watch(Stage.ASKED, 100.0, 1, frozenset([second]), 160.0 + ANSWER_WITHIN)
    assert idle.answered(watch, second, 1, 0, 99.0, TIMEOUT, 160.0) == AGREED


@pytest.mark.parametrize(
    ("connections", "since", "known"),
    [
        pytest.param(1, 0.0, 160.1, id="a connection is open"),
        pytest.param(0, 130.0, 130.0, id="one has just been closed"),
    ],
)
def test_somebody_disagrees(connections: int, since: float, known: float) -> None:
    """One is enough. It is looked again when idleness could be true, by what was said."""
    watch = idle.answered(ASKED, 2, 1, connections, since, TIMEOUT, 160.1)
    assert (watch.stage, watch.since) == (Stage.OVER, known)
    assert idle.answered(watch, 1, 1, 0, 0.0, TIMEOUT, 160.1) == watch
    assert idle.resumed(watch, 160.2) == Watch(Stage.WATCHING, known, 1)


@pytest.mark.parametrize(
    ("worker", "pause"),
    [pytest.param(1, 0, id="of another pause"), pytest.param(3, 1, id="of somebody who was not asked")],
)
@pytest.mark.parametrize("connections", [0, 1])
def test_an_answer_that_does_not_count(worker: int, pause: int, connections: int) -> None:
    assert idle.answered(ASKED, worker, pause, connections, 0.0, TIMEOUT, 160.0) == ASKED


@pytest.mark.parametrize("watch", [WATCHING, DUE, OVER, AGREED], ids=lambda watch: str(watch.stage))
def test_an_answer_that_nobody_waits_for(watch: Watch) -> None:
    assert idle.answered(watch, 1, watch.number, 1, 0.0, TIMEOUT, 160.0) == watch


@pytest.mark.parametrize("watch", [DUE, ASKED, OVER, AGREED], ids=lambda watch: str(watch.stage))
def test_the_scoreboard_is_no_answer(watch: Watch) -> None:
    assert idle.looked(watch, 0.0, TIMEOUT, 1e9) == watch


@pytest.mark.parametrize(
    ("watch", "stage"),
    [
        (WATCHING, Stage.WATCHING),
        (DUE, Stage.WATCHING),
        (ASKED, Stage.OVER),
        (OVER, Stage.OVER),
        (AGREED, Stage.OVER),
    ],
    ids=str,
)
def test_a_disturbance(watch: Watch, stage: Stage) -> None:
    """Who was told to pause must be told to go on."""
    disturbed = idle.disturbed(watch, 170.0)
    assert (disturbed.stage, disturbed.since, disturbed.number) == (stage, 170.0, watch.number)


def test_nobody_answers() -> None:
    """Nothing is known then: it is looked again after the whole time."""
    assert idle.resumed(ASKED, 160.2) == Watch(Stage.WATCHING, 160.2, 1)


def test_every_pause_has_its_number() -> None:
    again = idle.looked(idle.resumed(ASKED, 170.0), 100.0, TIMEOUT, 230.0)
    assert idle.paused(again, [1], 230.0).number == 2
