"""How many connections of whom: the counts against a model, and what the descriptors allow."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stardust.worker.admission import Admission, Peer, capacity, peer

HOSTS = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", ""]

# Somebody comes, or one of those that are there (if there is one) goes.
STEPS = st.lists(st.one_of(st.sampled_from(HOSTS), st.integers(0, 20)), max_size=80)


@given(most=st.integers(1, 4), given_away=st.booleans(), steps=STEPS)
def test_s6_behaves_as_a_count_by_peer(most: int, given_away: bool, steps: list[str | int]) -> None:
    admission = Admission(most)
    present: list[Peer] = []
    model: Counter[Peer] = Counter()
    for step in steps:
        if isinstance(step, str):
            full = admission.full(step)
            assert full == (step != "" and model[peer(step)] >= most)
            if not full or given_away:
                present.append(admission.enter(step))
                model[peer(step)] += step != ""
        elif present:
            gone = present.pop(step % len(present))
            model[gone] -= gone != ""
            if gone != "":
                admission.forget(gone)
        assert admission._counts == +model


@given(steps=STEPS)
def test_s6_without_a_limit_nothing_is_kept(steps: list[str | int]) -> None:
    admission = Admission(0)
    for step in steps:
        if isinstance(step, str):
            assert not admission.full(step)
            assert admission.enter(step) == ""
    assert admission._counts == {}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param("192.0.2.1", "192.0.2.1", True, id="S6-the-same-address"),
        pytest.param("192.0.2.1", "192.0.2.2", False, id="S6-neighbours"),
        pytest.param("2001:db8::1", "2001:db8::ffff:0:0:2", True, id="S6-one-subnet"),
        pytest.param("2001:db8:0:1::1", "2001:db8:0:2::1", False, id="S6-two-subnets"),
    ],
)
def test_peers(one: str, other: str, same: bool) -> None:
    assert (peer(one) == peer(other)) is same


@pytest.mark.parametrize(
    ("wanted", "descriptors", "most"),
    [
        pytest.param(10_000, 524_288, 10_000, id="S6-as-configured"),
        pytest.param(10_000, 1024, 864, id="S6-as-the-descriptors-allow"),
        pytest.param(0, 1024, 864, id="S6-no-limit-but-the-descriptors"),
        pytest.param(0, 20, 1, id="S6-at-least-one"),
    ],
)
def test_capacity(wanted: int, descriptors: int, most: int) -> None:
    assert capacity(wanted, descriptors) == most
