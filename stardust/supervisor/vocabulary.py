"""What the supervisor can see (events) and do (actions): the words between its decisions and its deeds.

An event goes to `observe.observe`, an action comes from `plan.plan`. Add one here, and mypy names the places
that have to learn it: each `match` over these unions ends in `assert_never`. Pure.
"""

from __future__ import annotations

from stardust.base.errors import Exit
from stardust.base.records import dataclass
from stardust.supervisor.state import Outcome, Policy

# --- events: what can be seen ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Loaded:
    """The zygote of a generation has loaded the application (or would, with preload off)."""

    generation: int


@dataclass(frozen=True, slots=True)
class Failed:
    """A generation cannot be brought up, for whatever reason. `detail` may be a traceback."""

    generation: int
    reason: str
    detail: str = ""
    exit: Exit = Exit.APPLICATION


@dataclass(frozen=True, slots=True)
class ZygoteGone:
    generation: int
    how: str = "its zygote died"


@dataclass(frozen=True, slots=True)
class Ready:
    worker: int


@dataclass(frozen=True, slots=True)
class WorkerFailed:
    """A worker could not load the application (preload off). It exits by itself."""

    worker: int
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Leaving:
    """A worker reached its own limit: it takes nothing new, finishes and exits."""

    worker: int


@dataclass(frozen=True, slots=True)
class Overdue:
    """A worker is stuck, and why: "request-timeout" or "heartbeat-timeout"."""

    worker: int
    why: str


@dataclass(frozen=True, slots=True)
class Gone:
    """A worker's process has ended; `how` says how, for people."""

    worker: int
    how: str


@dataclass(frozen=True, slots=True)
class ForkFailed:
    worker: int


@dataclass(frozen=True, slots=True)
class ReloadAsked:
    pass


@dataclass(frozen=True, slots=True)
class ReloadAbandoned:
    """Who asked for the reload has gone (systemd's time limit): what it believes must become true."""


@dataclass(frozen=True, slots=True)
class StopAsked:
    fast: bool = False


@dataclass(frozen=True, slots=True)
class Adjusted:
    """One worker more (+1) or less (-1)."""

    by: int


@dataclass(frozen=True, slots=True)
class QuietSince:
    """By the scoreboard, no worker has run a request after that moment."""

    moment: float


@dataclass(frozen=True, slots=True)
class Paused:
    """A worker accepts nothing any more, by order of pause number `pause`. It holds so many `connections`;
    if none, then it has held none since `since`."""

    worker: int
    pause: int
    connections: int
    since: float


@dataclass(frozen=True, slots=True)
class Configured:
    """A starting generation has read its configuration."""

    generation: int
    policy: Policy


# --- actions: what can be done --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    """Read the configuration, open the listeners, start the zygote."""

    generation: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """A coming generation takes too long."""

    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class Fork:
    worker: int
    slot: int
    generation: int


@dataclass(frozen=True, slots=True)
class Retire:
    """Ask a worker to finish what it holds and exit; `final`: nobody follows it, the whole server stops."""

    worker: int
    final: bool = False


@dataclass(frozen=True, slots=True)
class Dump:
    """Have a stuck worker write the stacks of its threads."""

    worker: int
    why: str


@dataclass(frozen=True, slots=True)
class Kill:
    worker: int
    why: str


@dataclass(frozen=True, slots=True)
class Close:
    """End a zygote: nothing will be forked from it, and none of its workers is left."""

    generation: int


@dataclass(frozen=True, slots=True)
class SayReloading:
    generation: int


@dataclass(frozen=True, slots=True)
class SayReady:
    pass


@dataclass(frozen=True, slots=True)
class SayStopping:
    pass


@dataclass(frozen=True, slots=True)
class CheckIdle:
    """Read off the scoreboard since when no request has run."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Have every worker accept nothing, and say what it holds."""

    number: int


@dataclass(frozen=True, slots=True)
class Resume:
    """Have every worker accept again."""


@dataclass(frozen=True, slots=True)
class LeaveIdle:
    """Nobody is connected, and nobody accepts: stop, and leave new connections to the next start."""


@dataclass(frozen=True, slots=True)
class Conclude:
    """Tell everybody who waits for the reload how it ended."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Leave:
    """Nothing is left to do: end the supervisor."""

    code: Exit


Action = (
    Start
    | GiveUp
    | Fork
    | Retire
    | Dump
    | Kill
    | Close
    | SayReloading
    | SayReady
    | SayStopping
    | CheckIdle
    | Pause
    | Resume
    | LeaveIdle
    | Conclude
    | Leave
)


@dataclass(frozen=True, slots=True)
class Ordered:
    """An action is being carried out; that it failed, if it does, comes as another event."""

    action: Action


Event = (
    Ordered
    | Loaded
    | Failed
    | ZygoteGone
    | Ready
    | WorkerFailed
    | Leaving
    | Overdue
    | Gone
    | ForkFailed
    | ReloadAsked
    | ReloadAbandoned
    | StopAsked
    | Adjusted
    | QuietSince
    | Paused
    | Configured
)
