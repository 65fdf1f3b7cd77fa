"""Book-keeping: what is late news, and what a death costs."""

from __future__ import annotations

import pytest

from stardust.supervisor.state import Policy
from stardust.supervisor.vocabulary import (
    Configured,
    Event,
    Failed,
    ForkFailed,
    Gone,
    Leaving,
    Loaded,
    Overdue,
    Paused,
    QuietSince,
    Ready,
    ReloadAbandoned,
    WorkerFailed,
    ZygoteGone,
)
from tests.supervisor.dialogue import Asleep, serving

LATE_NEWS: list[Event] = [
    QuietSince(0.0),
    Paused(1, 1, 1, 0.0),
    Ready(9),
    Leaving(9),
    Overdue(9, "request-timeout"),
    Gone(9, "exit code 0"),
    ForkFailed(9),
    WorkerFailed(9, "ImportError"),
    Loaded(9),
    Configured(9, Policy()),
    Failed(9, "ImportError"),
    Failed(1, "it serves already"),
    ZygoteGone(9),
    ReloadAbandoned(),
    Ready(1),
]


@pytest.mark.parametrize("news", LATE_NEWS, ids=repr)
def test_late_news_change_nothing(news: Event) -> None:
    dialogue = serving()
    before = dialogue.state
    assert dialogue >> news << Asleep()
    assert dialogue.state == before
