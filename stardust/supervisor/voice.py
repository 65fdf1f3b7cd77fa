"""What the supervisor says: in the log, on the scoreboard, to systemd and `stardustctl`.

What it has to say by decision comes as an action (`act`); the rest is what has changed (`speak`), and that
systemd's time limits are extended while there is progress (`turn`).
"""

from __future__ import annotations

import math
import os
import time
from typing import assert_never

from stardust.ipc.scoreboard import Entry, Scoreboard
from stardust.logs.events import RELOAD_FAILED, RELOADED, STARTED, Event
from stardust.supervisor import report
from stardust.supervisor.clients import Clients
from stardust.supervisor.generation import Generations
from stardust.supervisor.host import Host
from stardust.supervisor.state import Outcome, Stop, Zygote, in_progress, preferred, target
from stardust.supervisor.vocabulary import Conclude, SayAlive, SayReady, SayReloading, SayStopping, ToTell
from stardust.systemd.notify import Notifier

_EXTENSION = 15.0  # s; by how much systemd's time limit is moved while there is progress,
_EXTEND_EVERY = 5.0  # s; and how often
_RETRY = 0.1  # s; until a message that systemd had no room for is offered again


class Voice:
    """The one of a server, and to `clients` of its control socket."""

    def __init__(
        self, host: Host, notifier: Notifier, scoreboard: Scoreboard, generations: Generations
    ) -> None:
        self._host = host
        self._notifier = notifier
        self._scoreboard = scoreboard
        self._generations = generations
        self._started = host.now
        self._said_last: Outcome | None = None
        self._said_serving = 0
        self._extend_at = math.inf

    def act(self, action: ToTell, clients: Clients) -> None:
        match action:
            case SayReloading(number):
                self._host.log.info(f"reloading: generation {number}")
                self._notifier.reloading(time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)
            case SayReady():
                self._notifier.ready(self._line())
            case SayStopping():
                self._host.log.info("stopping")
                self._scoreboard.stopping = True
                self._notifier.stopping(self._line())
            case SayAlive():
                self._notifier.watchdog()
            case Conclude(outcome):
                clients.conclude(outcome)
            case _:
                assert_never(action)

    def speak(self) -> None:
        """Say what has changed."""
        state = self._host.state
        source = preferred(state)
        loaded = source is not None and source.zygote is Zygote.LOADED
        self._scoreboard.replaceable = loaded and state.stop is Stop.NO
        if state.last is not self._said_last and state.last is not None and not state.last.ok:
            self._said_last = state.last
            self._tell_failure(state.last)
        if state.serving != self._said_serving:
            event = RELOADED if self._said_serving else STARTED
            self._said_serving = state.serving
            self._tell_serving(event)
        if state.serving:
            self._notifier.status(self._line())

    def turn(self) -> float:
        """Do what time asks for; when it asks next."""
        now = self._host.now
        if not in_progress(self._host.state):
            self._extend_at = math.inf
        elif self._extend_at == math.inf or now >= self._extend_at:
            self._notifier.extend(_EXTENSION)
            self._extend_at = now + _EXTEND_EVERY
        return min(self._extend_at, now + _RETRY if self._notifier.pending else math.inf)

    def status(self) -> dict[str, object]:
        """All there is to know, for `stardustctl status`."""
        state, now = self._host.state, self._host.now
        generation = self._generations.book.get(state.serving or state.coming)
        return report.whole(
            state,
            self._entries(),
            [(each.name, str(each.address)) for each in generation.listeners] if generation else [],
            self._preload(),
            pid=os.getpid(),
            started=self._started,
            now=now,
            wall=time.time() - now,
        )

    def _line(self) -> str:
        return report.line(self._host.state, self._entries(), time.time() - self._host.now, self._preload())

    def _preload(self) -> report.Preload:
        state = self._host.state
        generation = self._generations.book.get(state.serving or state.coming)
        return report.Preload(generation.apart, generation.holds) if generation else report.PRELOADED

    def _entries(self) -> dict[int, Entry]:
        workers = self._host.state.workers
        return {number: self._scoreboard.read(worker.slot) for number, worker in workers.items()}

    def _tell_failure(self, outcome: Outcome) -> None:
        state = self._host.state
        failed, serving = state.next_generation - 1, state.serving
        text = f"generation {failed} failed: {outcome.reason}"
        if serving:
            text += f"; generation {serving} keeps serving"
        # A start that failed is an event of the service manager's, not of ours.
        event = RELOAD_FAILED if serving else None
        self._host.log.error(f"{text}\n{outcome.detail}", event, {"STARDUST_GENERATION": failed})

    def _tell_serving(self, event: Event) -> None:
        state = self._host.state
        generation = self._generations.book[state.serving]
        places = ", ".join(f"{each.name} {each.address}" for each in generation.listeners)
        self._host.log.info(
            f"generation {state.serving} serves {generation.config.app} with "
            f"{target(state)} workers on {places}",
            event,
            {"STARDUST_GENERATION": state.serving},
        )
