"""Whether the server may exit because no client needs it: the pure core of `idle-timeout`.

A connection that waits in systemd's socket cannot be lost: the next start serves it. One that was accepted
can. So what counts is that no worker holds a connection, and that none accepts one any more:

    WATCHING ─ quiet for so long ─▶ DUE ─ Pause ─▶ ASKED ─ all: nothing held ─▶ AGREED ─ ExitIdle ─▶ the stop
        ▲                                            │                            │
        └───────────────── Resume ───────────────── OVER ◀─ any other answer, or anything else to do

Rules:
- The scoreboard only says when asking is worth it: it knows of requests, not of connections.
- A worker that is asked stops watching its listeners (it closes none), and then counts: what came before is
  counted, what comes later waits in the kernel.
- An answer holds for the pause whose number it bears. A worker that answers late may have accepted since.
- Until all have agreed, anything ends a pause: a worker that dies or does not answer, a reload.

`plan.py` turns stages into actions. Times are seconds of the monotonic clock.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable

from stardust.base.records import dataclass, replace

ANSWER_WITHIN = 0.2  # s; an idle worker needs milliseconds, and meanwhile none accepts


class Stage(enum.Enum):
    WATCHING = "watching"
    DUE = "due"
    ASKED = "asked"
    OVER = "over"
    AGREED = "agreed"


@dataclass(frozen=True, slots=True)
class Watch:
    """`since`: from then on no client has needed the server, as far as is known. `number`: that of the last
    pause; `missing`: the workers that have not answered yet; `until`: when it ends without them."""

    stage: Stage = Stage.WATCHING
    since: float = math.inf
    number: int = 0
    missing: frozenset[int] = frozenset()
    until: float = math.inf


def disturbed(watch: Watch, now: float) -> Watch:
    """The server was needed just now."""
    unpaused = watch.stage in (Stage.WATCHING, Stage.DUE)
    return replace(watch, stage=Stage.WATCHING if unpaused else Stage.OVER, since=now)


def looked(watch: Watch, since: float, timeout: float, now: float) -> Watch:
    """The scoreboard was read: no request has run after `since`."""
    if watch.stage is not Stage.WATCHING:
        return watch
    return replace(watch, stage=Stage.DUE if since + timeout <= now else Stage.WATCHING, since=since)


def paused(watch: Watch, workers: Iterable[int], now: float) -> Watch:
    """All `workers` have been asked."""
    return Watch(Stage.ASKED, watch.since, watch.number + 1, frozenset(workers), now + ANSWER_WITHIN)


def answered(
    watch: Watch, worker: int, number: int, connections: int, since: float, timeout: float, now: float
) -> Watch:
    """A worker holds so many connections; if none, then since `since`."""
    if watch.stage is not Stage.ASKED or number != watch.number or worker not in watch.missing:
        return watch
    if connections or since + timeout > now:
        return replace(watch, stage=Stage.OVER, since=now if connections else since)
    missing = watch.missing - {worker}
    return replace(watch, stage=Stage.ASKED if missing else Stage.AGREED, missing=missing)


def resumed(watch: Watch, now: float) -> Watch:
    """All accept again. After an answer it is known since when no client is connected; else it is not."""
    return Watch(Stage.WATCHING, watch.since if watch.stage is Stage.OVER else now, watch.number)
