"""Who has served more than most leaves some of it to others, until all have their share; then it stops."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stardust.worker.balance import AFTER, INTERVAL, Balance

counts = st.integers(0, 10**6)


def looked(own: int, others: dict[int, int]) -> Balance:
    """One that has looked once."""
    balance = Balance()
    assert balance.excess(own, others, 1.0) == 0.0
    return balance


@pytest.mark.parametrize(
    ("own", "others", "excess"),
    [
        (100, {1: 100}, 0.0),
        (100, {}, 0.0),
        (0, {1: 0, 2: 0}, 0.0),
        (100, {1: 0}, 0.5),
        (400, {1: 0, 2: 0, 3: 0}, 0.75),
        (100, {1: 70}, 0.0),
        (100, {1: 50}, 0.25),
        (50, {1: 100}, 0.0),
    ],
    ids=[
        "even",
        "alone",
        "nothing",
        "all of two",
        "all of four",
        "nearly even",
        "uneven",
        "less than others",
    ],
)
def test_the_share_to_leave(own: int, others: dict[int, int], excess: float) -> None:
    """Of what was served since the look before."""
    balance = looked(1000, {slot: 5000 * slot for slot in others})
    later = {slot: 5000 * slot + more for slot, more in others.items()}
    assert balance.excess(1000 + own, later, 2.0) == excess


def test_new_workers_say_nothing_yet() -> None:
    """Neither one in a slot that was empty, nor one in the slot of another that had served more."""
    balance = looked(0, {1: 500})
    assert balance.excess(100, {1: 3, 2: 0}, 2.0) == 0.0
    assert balance.excess(200, {1: 3, 2: 0}, 3.0) > 0.0


def test_the_next_look() -> None:
    balance = looked(1000, {})
    assert (balance.after, balance.again) == (1000 + AFTER, 1.0 + INTERVAL)


@given(st.lists(st.tuples(counts, st.dictionaries(st.integers(0, 9), counts), st.floats(0, 1e9)), max_size=6))
def test_it_is_a_share(looks: list[tuple[int, dict[int, int], float]]) -> None:
    balance = Balance()
    own = 0
    for more, others, now in looks:
        own += more
        assert 0.0 <= balance.excess(own, others, now) < 1.0


@given(
    st.lists(st.integers(0, 60), min_size=2, max_size=10).filter(lambda start: sum(start) >= 4 * len(start)),
    st.integers(0, 1000),
)
@settings(max_examples=50)
def test_it_settles(start: list[int], seed: int) -> None:
    """However connections were spread: after a while no worker has twice its share of those in use."""
    chance = random.Random(seed)
    connections = [*start]
    served = [0] * len(start)
    balances = [Balance() for _ in start]
    for step in range(300):
        served = [before + 10 * mine for before, mine in zip(served, connections, strict=True)]
        for number, balance in enumerate(balances):
            others = {slot: count for slot, count in enumerate(served) if slot != number}
            if served[number] >= balance.after:
                excess = balance.excess(served[number], others, float(step))
                for _ in range(math.ceil(excess * chance.randint(0, connections[number]))):
                    connections[number] -= 1
                    connections[chance.randrange(len(start))] += 1
    assert max(connections) <= 2 * sum(connections) / len(connections)
