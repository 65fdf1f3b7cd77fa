"""Where connections are on their way across a restart, one step at a time. Histories: test_histories.py."""

from __future__ import annotations

import math

import pytest

from stardust.supervisor import crossing
from stardust.supervisor.crossing import AGAIN, PATIENCE, Crossing, Leg

NOW = 100.0
HANDING = Crossing(Leg.HANDING, NOW)
STORING = Crossing(Leg.STORING, NOW)
LAST = Crossing(Leg.LAST, NOW + AGAIN, NOW + PATIENCE)


def test_in() -> None:
    assert crossing.taken_up(NOW) == HANDING
    assert crossing.tried(HANDING, NOW) == Crossing(Leg.HANDING, NOW + AGAIN)
    assert crossing.moved(HANDING) == Crossing()


def test_out() -> None:
    assert crossing.storing(NOW) == STORING
    waiting = crossing.tried(STORING, NOW)
    assert waiting == Crossing(Leg.STORING, NOW + AGAIN)
    stored = crossing.moved(waiting)
    assert stored == Crossing(Leg.STORING)
    assert crossing.shelved(stored, NOW + 1) == Crossing(Leg.STORING, NOW + 1)
    assert crossing.tried(stored, NOW, last=True) == LAST
    assert crossing.moved(LAST) == Crossing(Leg.LAST, math.inf, NOW + PATIENCE)


def test_the_patience_with_systemd_is_not_renewed() -> None:
    assert crossing.tried(LAST, NOW + 1, last=True) == Crossing(Leg.LAST, NOW + 1 + AGAIN, NOW + PATIENCE)


@pytest.mark.parametrize("way", [Crossing(leg) for leg in Leg if leg is not Leg.STORING], ids=str)
def test_only_who_stores_looks_at_the_shelf(way: Crossing) -> None:
    assert crossing.shelved(way, NOW) == way


@pytest.mark.parametrize(
    ("way", "now", "waits"),
    [
        pytest.param(STORING, NOW, True, id="the last are not collected yet"),
        pytest.param(LAST, NOW, True, id="no room"),
        pytest.param(LAST, NOW + PATIENCE, False, id="no room for too long"),
        pytest.param(crossing.moved(LAST), NOW, False, id="all are stored"),
        *(pytest.param(Crossing(leg), NOW, False, id=leg.value) for leg in list(Leg)[:4]),
    ],
)
def test_the_end_waits(way: Crossing, now: float, waits: bool) -> None:
    assert crossing.holds_up(way, now) is waits
