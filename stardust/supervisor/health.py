"""Which workers are stuck, and whether all are quiet: a pure judgement of what they say on the scoreboard.

Two signs that one is stuck, and only these:
- A request runs longer than `request-timeout`. The worker writes the deadline when the request begins.
- A worker that runs no request does not answer a ping within `heartbeat-timeout`: it is stopped, or its
  loop hangs. One that runs a request is not asked: with one thread, it cannot answer then.

Suspend and clock jumps: all times are monotonic, and a ping counts only from when it was sent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from stardust.base.records import dataclass
from stardust.ipc.scoreboard import BUSY, Entry

ROUNDS = 3  # pings within one heartbeat-timeout


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds; 0 switches a check off."""

    request_timeout: float
    heartbeat_timeout: float


@dataclass(frozen=True, slots=True)
class Judgement:
    """`stuck`: worker → why; `ping`: workers to ping now; `look_at`: when to judge again, inf for never."""

    stuck: Mapping[int, str]
    ping: frozenset[int]
    look_at: float


def judge(workers: Iterable[tuple[int, Entry, Limits]], pinged: Mapping[int, float], now: float) -> Judgement:
    """Judge `workers` (number, what the scoreboard says, limits); `pinged` says when each was pinged last."""
    stuck: dict[int, str] = {}
    ping: set[int] = set()
    look_at = math.inf
    for number, entry, limits in workers:
        if limits.request_timeout:
            # What begins from now on cannot be overdue earlier than this.
            look_at = min(look_at, now + limits.request_timeout)
            if entry.state == BUSY and entry.deadline:
                if entry.deadline <= now:
                    stuck[number] = "request-timeout"
                look_at = min(look_at, entry.deadline) if entry.deadline > now else look_at
        if limits.heartbeat_timeout:
            pause = limits.heartbeat_timeout / ROUNDS
            look_at = min(look_at, now + pause)
            asked = pinged.get(number, -math.inf)
            if entry.heartbeat >= asked:
                if now >= asked + pause:
                    ping.add(number)
            elif entry.state != BUSY and now - max(asked, entry.since) > limits.heartbeat_timeout:
                stuck.setdefault(number, "heartbeat-timeout")
    return Judgement(stuck, frozenset(ping), look_at)


def alive(entry: Entry, patience: float, now: float) -> bool:
    """Whether a worker is at work, for all that can be seen: the watchdog wants one that is.

    `patience`: seconds within which one that runs no request must have answered a ping.
    """
    if entry.state == BUSY:
        return not entry.deadline or entry.deadline > now
    return now - max(entry.heartbeat, entry.since) <= patience


def quiet_since(entries: Iterable[Entry], now: float) -> float:
    """No worker has run a request after this moment; `now` if one does. Connections are not looked at: the
    scoreboard does not learn that one was closed."""
    return max((now if entry.state == BUSY else entry.since for entry in entries), default=now)
