"""Questions about a state."""

from __future__ import annotations

import math

from stardust.base.errors import Exit
from stardust.base.records import replace
from stardust.supervisor.crossing import Crossing, Leg
from stardust.supervisor.observe import observe
from stardust.supervisor.plan import plan
from stardust.supervisor.state import Policy, State, calm, deserted, silent_since, target
from stardust.supervisor.vocabulary import End, Gone, Loaded, Reaping, SayStopping, ZygoteGone
from tests.supervisor.dialogue import Dialogue, Wait, booting, serving


def test_target_leaves_a_slot_for_the_exchange() -> None:
    state = Dialogue(Policy(workers=8), State(slots=4)).state
    assert target(observe(state, Loaded(1), 0.0)) == 3


def test_of_several_debts_of_a_zygote_the_oldest_counts() -> None:
    """Without one, it may be silent for ever."""
    dialogue = serving(workers=2, boot_timeout=60.0)
    assert silent_since(dialogue.state, 1) == math.inf
    assert dialogue >> Wait(10) >> Reaping(2) >> Wait(20) >> Reaping(1)
    assert silent_since(dialogue.state, 1) == 10.0
    assert plan(dialogue.state, 30.0).wake_at == 70.0
    assert dialogue >> Gone(2, "exit code 0")
    assert silent_since(dialogue.state, 1) == 30.0
    assert silent_since(dialogue.state, 2) == math.inf


def test_who_is_left() -> None:
    assert deserted(State())
    assert not deserted(booting().state)
    dialogue = booting() >> ZygoteGone(1) << SayStopping() << End(Exit.FAILURE)
    assert deserted(dialogue.state)


def test_connections_on_their_way_disturb_the_calm() -> None:
    state = serving().state
    assert calm(state)
    assert not calm(replace(state, crossing=Crossing(Leg.HANDING)))
