"""Which workers are stuck, whether one is alive, and whether all are quiet: a judgement of the scoreboard.

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
from stardust.ipc.scoreboard import BUSY, Entry, Scoreboard
from stardust.supervisor import vocabulary
from stardust.supervisor.children import Child, Children
from stardust.supervisor.generation import Generations
from stardust.supervisor.host import Host
from stardust.supervisor.state import Phase

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
            interval = limits.heartbeat_timeout / ROUNDS
            look_at = min(look_at, now + interval)
            asked = pinged.get(number, -math.inf)
            if entry.heartbeat >= asked:
                if now >= asked + interval:
                    ping.add(number)
            elif entry.state != BUSY and now - max(asked, entry.since) > limits.heartbeat_timeout:
                stuck.setdefault(number, "heartbeat-timeout")
    return Judgement(stuck, frozenset(ping), look_at)


def alive(entry: Entry, patience: float, now: float) -> bool:
    """Whether a worker is at work, as far as the scoreboard says. One is enough for the watchdog.

    `patience`: seconds within which one that runs no request must have answered a ping.
    """
    if entry.state == BUSY:
        return not entry.deadline or entry.deadline > now
    return now - max(entry.heartbeat, entry.since) <= patience


def quiet_since(entries: Iterable[Entry], now: float) -> float:
    """No worker has run a request after this moment; `now` if one does. Connections are not looked at: the
    scoreboard does not learn that one was closed."""
    return max((now if entry.state == BUSY else entry.since for entry in entries), default=now)


class Health:
    """Looks at the scoreboard, and pings."""

    def __init__(
        self, host: Host, generations: Generations, children: Children, scoreboard: Scoreboard
    ) -> None:
        self._host = host
        self._generations = generations
        self._children = children
        self._scoreboard = scoreboard
        self._look_at = math.inf

    def turn(self) -> float:
        """Find stuck workers, and ping those that run nothing, if it is time for that. When it is next."""
        now = self._host.now
        if self._look_at == math.inf and self._children.book:
            self._look_at = now
        if now >= self._look_at:
            self._judge(now)
        return self._look_at

    def _judge(self, now: float) -> None:
        book = self._children.book
        judged = [
            (child.number, self._scoreboard.read(child.slot), self._limits(child))
            for child in self._of(Phase.READY, Phase.LEAVING)
        ]
        judgement = judge(judged, {number: child.pinged for number, child in book.items()}, now)
        for number in judgement.ping:
            self._children.ping(book[number])
        self._look_at = judgement.look_at
        for number, why in judgement.stuck.items():
            self._host.see(vocabulary.Overdue(number, why))

    def look(self) -> None:
        """Whether a worker is alive, for the watchdog. This pings all of them too, because with
        `heartbeat-timeout = 0` nothing else does."""
        found = False
        for child in self._of(Phase.READY):
            entry = self._scoreboard.read(child.slot)
            patience = self._limits(child).heartbeat_timeout or self._host.state.watchdog.interval
            found = found or alive(entry, patience, self._host.now)
            if entry.heartbeat >= child.pinged:
                self._children.ping(child)
        self._host.see(vocabulary.Looked(found))

    def look_for_quiet(self) -> None:
        """Since when no request has run."""
        entries = [self._scoreboard.read(worker.slot) for worker in self._host.state.workers.values()]
        self._host.see(vocabulary.QuietSince(quiet_since(entries, self._host.now)))

    def _of(self, *phases: Phase) -> list[Child]:
        workers = self._host.state.workers
        return [child for number, child in self._children.book.items() if workers[number].phase in phases]

    def _limits(self, child: Child) -> Limits:
        config = self._generations.book[child.generation].config
        return Limits(config.request_timeout, config.heartbeat_timeout)
