"""Memory for what waits: a budget that never promises more than it has, whoever takes and gives."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from stardust.base.budget import FREE, JOINED, UNLIMITED, Budget, Share, gather

SIZE = 50_000
MOST = 30_000

# Which of the shares, and by how many bytes it is to grow, or to shrink as far as it can.
STEPS = st.lists(st.tuples(st.integers(0, 3), st.integers(-20_000, 20_000)), max_size=60)


@given(steps=STEPS)
def test_s3_what_is_counted_never_exceeds_it(steps: list[tuple[int, int]]) -> None:
    budget = Budget(SIZE)
    shares = [Share(budget, MOST) for _ in range(4)]
    for number, change in steps:
        share = shares[number]
        held = share.held
        if change < 0:
            share.drop(min(-change, held))
        elif share.add(change):
            assert share.held == held + change
        else:
            rest = SIZE - sum(max(0, each.held - FREE) for each in shares)
            assert share.held == held
            assert held + change > MOST or max(0, held + change - FREE) - max(0, held - FREE) > rest
        assert sum(max(0, each.held - FREE) for each in shares) <= SIZE
        assert max(each.held for each in shares) <= MOST
    for share in shares:
        share.drop(share.held)
    assert budget.take(SIZE)
    assert not budget.take(1)


def test_what_is_free_is_free_for_all() -> None:
    none = Budget(0)
    for _ in range(3):
        share = Share(none, MOST)
        assert share.add(FREE)
        assert not share.add(1)


def test_who_is_alone_has_all_there_is() -> None:
    assert Share(UNLIMITED, MOST).add(MOST)


@given(st.lists(st.binary(max_size=40).map(lambda data: data * 700), max_size=30), st.sampled_from([1, 4096]))
def test_pieces_are_gathered_in_order_and_small_ones_joined(several: list[bytes], large: int) -> None:
    pieces: list[bytes | bytearray] = []
    for data in several:
        gather(pieces, data, large)
    assert b"".join(pieces) == b"".join(several)
    small = [isinstance(piece, bytearray) and len(piece) < JOINED for piece in pieces]
    assert not any(one and other for one, other in itertools.pairwise(small))
