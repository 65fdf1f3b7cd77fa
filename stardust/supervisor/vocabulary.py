"""What the supervisor can see (events) and do (actions): the words between its decisions and its deeds.

An event goes to `observe.observe`, an action comes from `plan.plan`. If you add one here, mypy names the
places that have to handle it: each `match` over these unions ends in `assert_never`. Pure.
"""

from __future__ import annotations

from stardust.base.errors import Exit
from stardust.base.records import dataclass
from stardust.supervisor.state import Outcome, Policy

# --- events: what can be seen ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Configured:
    """A starting generation has read its configuration."""

    generation: int
    policy: Policy


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
class ZygoteNonsense:
    """A zygote has sent `what`, an invalid message."""

    generation: int
    what: str


@dataclass(frozen=True, slots=True)
class Forked:
    """A zygote has forked a worker, and said its process id."""

    worker: int


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
class Nonsense:
    """A worker has sent `what`, an invalid message."""

    worker: int
    what: str


@dataclass(frozen=True, slots=True)
class Reaping:
    """A worker's process has ended, and its zygote was asked how."""

    worker: int


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
    """The client that asked for the reload has disconnected: systemd's time limit has passed, and systemd
    reports a failure. So the reload must fail."""


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
    """A worker accepts nothing any more, by order of pause `number`. It holds so many `connections`; if that
    is 0, it has held none since `since`."""

    worker: int
    number: int
    connections: int
    since: float


@dataclass(frozen=True, slots=True)
class Looked:
    """Whether, by the scoreboard, a worker is `alive`."""

    alive: bool


@dataclass(frozen=True, slots=True)
class Shelved:
    """A worker has put a connection on the shelf."""


@dataclass(frozen=True, slots=True)
class Moved:
    """Every connection that waited has found room."""


@dataclass(frozen=True, slots=True)
class StoringFailed:
    """Connections cannot be stored."""


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
    """Ask a worker to finish what it holds and exit; `final`: no worker follows it, since
    the whole server stops."""

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
class KillZygote:
    """Kill a zygote that cannot be relied on: it might fork nothing any more, and not report that a worker
    has ended."""

    generation: int
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
class ExitIdle:
    """No client is connected, and no worker accepts: stop. The next start serves new connections."""


@dataclass(frozen=True, slots=True)
class Conclude:
    """Tell all clients that wait for the reload how it ended."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class CheckAlive:
    """Find out by the scoreboard whether a worker is alive."""


@dataclass(frozen=True, slots=True)
class SayAlive:
    """Give systemd's watchdog a sign of life."""


@dataclass(frozen=True, slots=True)
class TakeUp:
    """Take back from systemd the connections that the run before stored."""


@dataclass(frozen=True, slots=True)
class HandOn:
    """Give them to the workers, as far as there is room."""


@dataclass(frozen=True, slots=True)
class Store:
    """From now on idle connections go to systemd, for the next start."""


@dataclass(frozen=True, slots=True)
class Collect:
    """Pass on to systemd what is on the shelf, as far as it has room; `last`: also what is in the link."""

    last: bool = False


@dataclass(frozen=True, slots=True)
class End:
    """Nothing is left to do: end the supervisor."""

    code: Exit


ToProcess = Start | GiveUp | Fork | Retire | Dump | Kill | KillZygote | Close
"""What is done to zygotes and workers."""

ToIdle = CheckIdle | Pause | Resume | ExitIdle
"""On the way to an idle exit."""

ToConnection = TakeUp | HandOn | Store | Collect
"""What is done to connections across a restart."""

ToTell = SayReloading | SayReady | SayStopping | SayAlive | Conclude
"""What systemd and clients of the control socket are told."""

Action = ToProcess | ToIdle | ToConnection | ToTell | CheckAlive | End


@dataclass(frozen=True, slots=True)
class Ordered:
    """An action is being carried out. If it fails, another event says so."""

    action: Action


OfZygote = Configured | Loaded | Failed | ZygoteGone | ZygoteNonsense
"""Of a generation as a whole."""

OfWorker = Forked | ForkFailed | Ready | WorkerFailed | Leaving | Overdue | Nonsense | Reaping | Gone
"""Of one worker."""

Asked = ReloadAsked | ReloadAbandoned | StopAsked | Adjusted
"""What people and systemd want."""

OfConnections = Shelved | Moved | StoringFailed
"""Of those that cross a restart."""

Event = Ordered | OfZygote | OfWorker | Asked | OfConnections | QuietSince | Paused | Looked
