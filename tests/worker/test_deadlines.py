"""Who waits and until when: the queue against a model of it, and its edges."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from stardust.worker.deadlines import Waiting

SECONDS = 5.0

# (who, what happens to it, how many seconds pass before)
STEPS = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from(["add", "discard", "look"]), st.integers(0, 4)), max_size=60
)


@given(steps=STEPS)
def test_behaves_as_a_table_of_deadlines(steps: list[tuple[int, str, int]]) -> None:
    queue: Waiting[int] = Waiting("test", SECONDS)
    model: dict[int, float] = {}
    now = 0.0
    for who, step, pause in steps:
        now += pause
        if step == "add":
            queue.add(who, now)
            model[who] = now + SECONDS
        elif step == "discard":
            queue.discard(who)
            model.pop(who, None)
        late = queue.expired(now)
        assert sorted(late) == sorted(each for each, deadline in model.items() if deadline <= now)
        assert [model[each] for each in late] == sorted(model[each] for each in late)
        assert queue.next() == min(model.values(), default=math.inf)


def test_a_deadline_passes_at_its_moment_not_after_it() -> None:
    queue: Waiting[str] = Waiting("test", SECONDS)
    queue.add("one", 1.0)
    assert queue.expired(5.999) == []
    assert queue.expired(6.0) == ["one"]


def test_who_is_late_waits_until_discarded() -> None:
    queue: Waiting[str] = Waiting("test", SECONDS)
    queue.add("one", 0.0)
    assert queue.expired(9.0) == queue.expired(9.0) == ["one"]
    queue.discard("one")
    assert queue.expired(9.0) == []


def test_waiting_anew_goes_to_the_end() -> None:
    queue: Waiting[str] = Waiting("test", SECONDS)
    queue.add("one", 0.0)
    queue.add("two", 1.0)
    queue.add("one", 2.0)
    assert queue.expired(6.0) == ["two"]
    assert queue.next() == 6.0
