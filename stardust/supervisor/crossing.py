"""When idle connections cross a restart: the pure core of `store-connections`. `custody.py` carries them.

    STORED ─ it serves ─▶ HANDING ─ all handed on ─▶ NONE        the start
    any ─ a graceful stop ─▶ WANTED ─▶ STORING ─ no worker is left ─▶ LAST ─ all stored ─▶ the end

Rules:
- Until this start serves, systemd keeps what the run before stored: a start that fails loses none.
- Whatever finds no room, in the link to the workers or at systemd, is tried again a moment later.
- At the end everything on its way belongs to systemd. The end waits for it, though not for ever: no worker
  adds to it any more.

`observe.py` moves it on, `plan.py` turns it into actions. Times are seconds of the monotonic clock.
"""

from __future__ import annotations

import enum
import math

from stardust.base.records import dataclass, replace

AGAIN = 0.01  # s; until a connection that systemd, or the workers, had no room for is tried again
PATIENCE = 5.0  # s; how long connections that systemd has no room for may hold up the end


class Leg(enum.Enum):
    NONE = "none"
    STORED = "stored"  # systemd has those of the run before
    HANDING = "handing"  # they are here, and go to the workers
    WANTED = "wanted"  # this run is to store its own
    STORING = "storing"  # workers put them on the shelf, and they go to systemd
    LAST = "last"  # no worker can add to them any more


@dataclass(frozen=True, slots=True)
class Crossing:
    """`again`: when what waits is moved, inf if nothing waits; `until`: how long the end waits for it."""

    leg: Leg = Leg.NONE
    again: float = math.inf
    until: float = math.inf


def taken_up(now: float) -> Crossing:
    """What the run before stored is here."""
    return Crossing(Leg.HANDING, again=now)


def storing(now: float) -> Crossing:
    """From now on connections are stored."""
    return Crossing(Leg.STORING, again=now)


def tried(crossing: Crossing, now: float, *, last: bool = False) -> Crossing:
    """What waits is being moved; not all of it, for all that is known. `last`: nothing will be added."""
    if last and crossing.leg is not Leg.LAST:
        crossing = replace(crossing, leg=Leg.LAST, until=now + PATIENCE)
    return replace(crossing, again=now + AGAIN)


def moved(crossing: Crossing) -> Crossing:
    """Nothing waits any more."""
    return Crossing() if crossing.leg is Leg.HANDING else replace(crossing, again=math.inf)


def shelved(crossing: Crossing, now: float) -> Crossing:
    """A worker has put a connection on the shelf."""
    return replace(crossing, again=now) if crossing.leg is Leg.STORING else crossing


def holds_up(crossing: Crossing, now: float) -> bool:
    """Whether the end waits for connections. No worker can add to them any more."""
    if crossing.leg is Leg.LAST:
        return crossing.again < math.inf and now < crossing.until
    return crossing.leg is Leg.STORING
