"""Stories as dialogues with the supervisor's decisions.

`>>` is what the supervisor sees and `<<` what it then does, in order and completely:

    assert serving(workers=1) >> Gone(1, "exit code 1") >> Wait(0.1) << Fork(2, 0, 1)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Self

import pytest

from stardust.supervisor.idle import ANSWER_WITHIN
from stardust.supervisor.observe import observe
from stardust.supervisor.plan import plan
from stardust.supervisor.state import Outcome, Policy, State
from stardust.supervisor.vocabulary import (
    Action,
    Conclude,
    Configured,
    End,
    Event,
    Fork,
    Forked,
    Loaded,
    Ordered,
    Pause,
    Paused,
    QuietSince,
    Ready,
    ReloadAsked,
    SayReady,
    SayReloading,
    Start,
)

ROUNDS = 100  # in which a plan must settle without anything new


@dataclass(frozen=True)
class Wait:
    """So many seconds pass."""

    seconds: float


@dataclass(frozen=True)
class Asleep:
    """Nothing more is done, and without an event nothing will be for so many seconds."""

    seconds: float = math.inf


@dataclass
class Dialogue:
    """A supervisor under questioning. Each Start reads `policy`, as it reads the configuration, and each Fork
    is answered, unless the zygote is `silent`."""

    policy: Policy = field(default_factory=Policy)
    state: State = field(default_factory=State)
    now: float = 0.0
    transcript: list[str] = field(default_factory=list)
    unheard: list[Action] = field(default_factory=list)
    silent: bool = False

    def __post_init__(self) -> None:
        self._settle()

    def __rshift__(self, seen: Event | Wait | tuple[Event | Wait, ...]) -> Self:
        """What is in a tuple is seen before anything is done about it."""
        self._nothing_unheard()
        for each in seen if isinstance(seen, tuple) else (seen,):
            self.transcript.append(f"{self.now:6g}  >> {each}")
            if isinstance(each, Wait):
                self.now += each.seconds
            else:
                self.state = observe(self.state, each, self.now)
        self._settle()
        return self

    def __lshift__(self, expected: Action | Asleep) -> Self:
        if isinstance(expected, Asleep):
            self._nothing_unheard()
            found: object = Asleep(round(plan(self.state, self.now).wake_at - self.now, 6))
        else:
            found = self.unheard.pop(0) if self.unheard else "nothing"
        self.transcript.append(f"{self.now:6g}  << {found}")
        if found != expected:
            pytest.fail("\n".join([*self.transcript, f"expected << {expected}"]), pytrace=False)
        return self

    def __bool__(self) -> bool:
        """The end of a story: nothing was done beside what was heard."""
        self._nothing_unheard()
        return True

    def _settle(self) -> None:
        """Do as the shell does."""
        for _ in range(ROUNDS):
            actions = plan(self.state, self.now).actions
            for action in actions:
                self.state = observe(self.state, Ordered(action), self.now)
                self.unheard.append(action)
                if isinstance(action, Start):
                    self.state = observe(self.state, Configured(action.generation, self.policy), self.now)
                if isinstance(action, Fork) and not self.silent:
                    self.state = observe(self.state, Forked(action.worker), self.now)
            if not actions or isinstance(actions[-1], End):
                return
        pytest.fail("\n".join([*self.transcript, f"it never settles: {actions}"]), pytrace=False)

    def _nothing_unheard(self) -> None:
        if self.unheard:
            also = [f"        << {action}, which nobody expected" for action in self.unheard]
            pytest.fail("\n".join([*self.transcript, *also]), pytrace=False)


def booting(workers: int = 2, **settings: Any) -> Dialogue:
    """Generation 1 has been started, and loads."""
    return Dialogue(Policy(workers=workers, **settings)) << Start(1)


def serving(workers: int = 2, **settings: Any) -> Dialogue:
    """Generation 1 serves with workers 1, 2, …"""
    dialogue = booting(workers, **settings) >> Loaded(1)
    for number in range(1, workers + 1):
        dialogue <<= Fork(number, number - 1, 1)
    for number in range(1, workers + 1):
        dialogue >>= Ready(number)
    return dialogue << SayReady()


def reloading(workers: int = 2, **settings: Any) -> Dialogue:
    """The same, and generation 2 was asked for, and loads."""
    return serving(workers, **settings) >> ReloadAsked() << SayReloading(2) << Start(2)


def served(generation: int, at: float = 0.0) -> Conclude:
    return Conclude(Outcome(True, "", "", generation, at))


def failed(reason: str, detail: str = "", *, serves: int = 1, at: float = 0.0) -> Conclude:
    return Conclude(Outcome(False, reason, detail, serves, at))


def paused(workers: int = 2, idle_timeout: float = 10.0) -> Dialogue:
    """Generation 1 serves, nobody came, and the workers were asked whether anybody is connected."""
    dialogue = serving(workers, idle_timeout=idle_timeout) << Asleep(idle_timeout)
    return dialogue >> (Wait(idle_timeout), QuietSince(0)) << Pause(1) << Asleep(ANSWER_WITHIN)


def empty(worker: int, number: int = 1, since: float = 0.0) -> Paused:
    """The worker holds no connection."""
    return Paused(worker, number, 0, since)
