"""What the rooms of the supervisor are given: a place in its loop, and what it was started with.

A room never has the shell itself. The shell tells it what to do; it watches descriptors of its own; what it
sees becomes an event. So each can be tried alone, with a host that a test makes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from stardust.base.records import dataclass
from stardust.config.arguments import Arguments
from stardust.control.server import Control
from stardust.logs.log import Log
from stardust.settings.table import Config
from stardust.supervisor.state import State
from stardust.supervisor.vocabulary import Event
from stardust.systemd.notify import Notifier


class Host(Protocol):
    """The loop, as a room has it. `now`: the moment of this turn, in seconds of the monotonic clock."""

    @property
    def state(self) -> State: ...

    @property
    def now(self) -> float: ...

    @property
    def log(self) -> Log: ...

    def see(self, event: Event) -> None:
        """Something was seen; what follows from it is planned when all that came with it is."""

    def watch(self, descriptor: int, react: Callable[[], object]) -> None:
        """Call `react` whenever `descriptor` is readable."""

    def unwatch(self, descriptor: int) -> None:
        """Do so no longer; nothing happens if it is not watched."""


@dataclass(slots=True)
class Surroundings:
    """What the supervisor is given at its start.

    `inherited`: descriptors of socket units, with their names; `stored` and `parked`: listeners and idle
    connections that an earlier run had stored. `room`: how many connections this one may store. `watchdog`:
    within how many seconds systemd wants a sign of life.
    """

    arguments: Arguments
    config: Config
    inherited: Sequence[tuple[int, str]]
    environ: Mapping[str, str]
    notifier: Notifier
    watchdog: float | None
    control: Control | None
    log: Log
    stored: Sequence[tuple[int, str]] = ()
    parked: Sequence[tuple[int, str]] = ()
    room: int = 0
