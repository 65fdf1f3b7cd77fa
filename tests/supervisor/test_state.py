"""Questions about a state."""

from __future__ import annotations

from stardust.supervisor.observe import observe
from stardust.supervisor.state import Policy, State, target
from stardust.supervisor.vocabulary import Loaded
from tests.supervisor.dialogue import Dialogue


def test_target_leaves_a_slot_for_the_exchange() -> None:
    state = Dialogue(Policy(workers=8), State(slots=4)).state
    assert target(observe(state, Loaded(1), 0.0)) == 3
