"""How fast is fast enough: the average, what is free, and what is forgiven."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stardust.worker.pace import Pace

RATE, GRACE, BEGAN = 240, 5.0, 1000.0

MOMENTS = st.floats(0, 10_000).map(lambda seconds: BEGAN + seconds)
BYTES = st.integers(0, 1 << 24)


@pytest.mark.parametrize(
    ("moved", "after", "late"),
    [
        pytest.param(0, 5.0, False, id="S2-nothing-is-due-within-the-grace"),
        pytest.param(0, 5.1, True, id="S2-nothing-came"),
        pytest.param(2400, 15.0, False, id="S2-just-fast-enough"),
        pytest.param(2399, 15.0, True, id="S2-a-byte-too-few"),
        pytest.param(240_000, 1000.0, False, id="S2-a-pause-of-who-was-fast"),
        pytest.param(240_000, 1006.0, True, id="S2-too-long-a-pause"),
    ],
)
def test_late(moved: int, after: float, late: bool) -> None:
    assert Pace(RATE, GRACE, BEGAN).late(moved, BEGAN + after) is late


@given(now=MOMENTS, later=st.floats(0, 1000), moved=BYTES, more=BYTES)
def test_s2_bytes_help_and_time_does_not(now: float, later: float, moved: int, more: int) -> None:
    pace = Pace(RATE, GRACE, BEGAN)
    if pace.late(moved + more, now):
        assert pace.late(moved, now)
    if pace.late(moved, now):
        assert pace.late(moved, now + later)


@given(rate=st.integers(1, 1 << 20), seconds=st.integers(0, 10_000))
def test_s2_who_keeps_the_rate_is_never_late(rate: int, seconds: int) -> None:
    assert not Pace(rate, GRACE, BEGAN).late(rate * seconds, BEGAN + GRACE + seconds)


@given(now=MOMENTS, moved=BYTES, lost=st.integers(0, 5000))
def test_s2_what_is_forgiven_did_not_pass(now: float, moved: int, lost: int) -> None:
    forgiven = Pace(RATE, GRACE, BEGAN)
    forgiven.forgive(lost)
    assert forgiven.late(moved, now + lost + 0.001) >= Pace(RATE, GRACE, BEGAN).late(moved, now)
    assert forgiven.late(moved, now + lost - 0.001) <= Pace(RATE, GRACE, BEGAN).late(moved, now)
