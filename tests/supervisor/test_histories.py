"""Random histories in the simulated world (world.py): what may happen, in any order."""

from __future__ import annotations

import math

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from stardust.base.errors import Exit
from stardust.supervisor.plan import plan
from stardust.supervisor.state import Policy
from stardust.supervisor.vocabulary import (
    Adjusted,
    Failed,
    Leaving,
    Loaded,
    Nonsense,
    Overdue,
    Ready,
    ReloadAbandoned,
    Shelved,
    WorkerFailed,
    ZygoteNonsense,
)
from tests.supervisor.world import World

policies = st.builds(
    Policy,
    workers=st.integers(1, 4),
    spawn_interval=st.sampled_from([0.0, 0.0, 0.5]),
    least_backoff=st.sampled_from([0.1, 1.0]),
    boot_timeout=st.sampled_from([3.0, 60.0]),
    graceful_timeout=st.sampled_from([0.0, 2.0, 30.0]),
    idle_timeout=st.sampled_from([0.0, 0.1, 0.1, 5.0]),
    store=st.booleans(),
)


picks = st.integers(0, 15)


def chosen(numbers: list[int], pick: int) -> int:
    return numbers[pick % len(numbers)]


class Histories(RuleBasedStateMachine):
    """What may happen, in any order. A server that has left is started again."""

    @initialize(policy=policies, booted=st.booleans(), kept=st.integers(0, 1))
    def boot(self, policy: Policy, booted: bool, kept: int) -> None:
        self.batching = False
        self.world = World(policy, kept=kept)
        if booted:
            self.world.be_kind()
            self.world.judge_peace()
        self.happen()

    def happen(self) -> None:
        """Something was seen: act on it, unless more is to be seen in the same moment."""
        if self.batching:
            self.batching = False
        else:
            self.world.settle()
        if self.world.left is not None:
            self.world = World(self.world.config or Policy(), kept=self.world.kept + self.world.stored)
            self.world.settle()
        self.world.halfway = False

    def workers(self, *wanted: str) -> list[int]:
        """Those of this standing that have not ended; of any, if none is named."""
        living = {number: worker for number, worker in self.world.workers.items() if not worker.ended}
        return [number for number, worker in living.items() if not wanted or worker.standing in wanted]

    def told(self) -> list[int]:
        """Those that have an order to answer."""
        return [number for number in self.workers() if self.world.workers[number].to_answer]

    def zygotes(self, *wanted: str) -> list[int]:
        return [number for number, standing in self.world.zygotes.items() if standing in wanted]

    @rule()
    def more_in_the_same_moment(self) -> None:
        self.batching = True

    @rule(
        share=st.sampled_from([1.0, 1.0, 0.3, 1.5]),
        more=st.sampled_from([0.0, 0.2, 100.0]),
        batch=st.booleans(),
    )
    def time_passes(self, share: float, more: float, batch: bool) -> None:
        """To the next alarm, not as far, or beyond it: the machine was suspended."""
        world = self.world
        wake_at = plan(world.state, world.now).wake_at
        if wake_at == math.inf:
            world.now += more
        else:
            world.now = wake_at if share == 1.0 else world.now + share * (wake_at - world.now + more)
        self.batching = self.batching or batch
        self.happen()

    @rule(config=st.none() | policies)
    def configuration_changes(self, config: Policy | None) -> None:
        self.world.config = config

    @rule()
    def next_fork_fails(self) -> None:
        self.world.fork_fails = True

    @precondition(lambda self: self.zygotes("loading"))
    @rule(pick=picks, well=st.booleans())
    def zygote_loads(self, pick: int, well: bool) -> None:
        number = chosen(self.zygotes("loading"), pick)
        if well:
            self.world.zygotes[number] = "loaded"
            self.world.see(Loaded(number))
        else:
            self.world.see(Failed(number, "ImportError", "Traceback"))
        self.happen()

    @precondition(lambda self: self.zygotes("loading", "loaded", "closing", "killed"))
    @rule(pick=picks)
    def zygote_dies(self, pick: int) -> None:
        self.world.zygote_gone(chosen(self.zygotes("loading", "loaded", "closing", "killed"), pick))
        self.happen()

    @precondition(lambda self: self.zygotes("loading", "loaded"))
    @rule(pick=picks)
    def zygote_talks_nonsense(self, pick: int) -> None:
        number = chosen(self.zygotes("loading", "loaded"), pick)
        self.world.foul.add(number)
        self.world.see(ZygoteNonsense(number, "a message that is none"))
        self.happen()

    @precondition(lambda self: self.zygotes("loading", "loaded"))
    @rule(pick=picks)
    def zygote_falls_silent(self, pick: int) -> None:
        self.world.silent.add(chosen(self.zygotes("loading", "loaded"), pick))

    @precondition(lambda self: self.zygotes("loaded") and self.workers("ready"))
    @rule(pick=picks, alarms=st.integers(1, 8))
    def worker_dies_and_its_zygote_says_nothing(self, pick: int, alarms: int) -> None:
        number = chosen(self.workers("ready"), pick)
        self.world.silent.add(self.world.workers[number].generation)
        self.world.gone(number)
        self.happen()
        for _ in range(alarms):
            self.time_passes(1.0, 0.0, batch=False)

    @precondition(lambda self: self.world.silent & set(self.zygotes("loaded")))
    @rule()
    def zygote_answers_at_last(self) -> None:
        self.world.zygote_answers(min(self.world.silent & set(self.zygotes("loaded"))))
        self.happen()

    @precondition(lambda self: self.zygotes("closing"))
    @rule(pick=picks)
    def zygote_speaks_too_late(self, pick: int) -> None:
        self.world.see(Loaded(chosen(self.zygotes("closing"), pick)))
        self.happen()

    @precondition(lambda self: self.workers("starting"))
    @rule(pick=picks, well=st.booleans())
    def worker_loads(self, pick: int, well: bool) -> None:
        number = chosen(self.workers("starting"), pick)
        if well:
            self.world.workers[number].ready = True
            self.world.see(Ready(number))
        else:
            self.world.see(WorkerFailed(number, "ImportError", "Traceback"))
        self.happen()

    @precondition(lambda self: self.workers("ready"))
    @rule(pick=picks)
    def worker_leaves(self, pick: int) -> None:
        number = chosen(self.workers("ready"), pick)
        self.world.workers[number].leaving = True
        self.world.see(Leaving(number))
        self.happen()

    @precondition(lambda self: self.workers("ready", "leaving"))
    @rule(pick=picks)
    def worker_hangs(self, pick: int) -> None:
        number = chosen(self.workers("ready", "leaving"), pick)
        self.world.workers[number].overdue = True
        self.world.see(Overdue(number, "request-timeout"))
        self.happen()

    @precondition(lambda self: self.workers("leaving", "killed"))
    @rule(pick=picks)
    def worker_ends_as_told(self, pick: int) -> None:
        self.world.gone(chosen(self.workers("leaving", "killed"), pick))
        self.happen()

    @precondition(lambda self: self.workers())
    @rule(pick=picks)
    def worker_dies(self, pick: int) -> None:
        self.world.gone(chosen(self.workers(), pick))
        self.happen()

    @precondition(lambda self: self.workers("starting", "ready", "leaving", "stuck"))
    @rule(pick=picks)
    def worker_talks_nonsense(self, pick: int) -> None:
        number = chosen(self.workers("starting", "ready", "leaving", "stuck"), pick)
        self.world.workers[number].babbling = True
        self.world.see(Nonsense(number, "a message that is none"))
        self.happen()

    @precondition(lambda self: self.world.storing and self.workers("leaving"))
    @rule()
    def worker_leaves_a_connection(self) -> None:
        self.world.shelf += 1
        self.world.see(Shelved())
        self.happen()

    @rule(workers=st.booleans(), systemd=st.booleans(), storing_fails=st.booleans())
    def room_changes(self, workers: bool, systemd: bool, storing_fails: bool) -> None:
        self.world.workers_have_room, self.world.systemd_has_room = workers, systemd
        self.world.storing_fails = storing_fails

    @precondition(lambda self: self.workers("ready"))
    @rule(pick=picks)
    def client_comes(self, pick: int) -> None:
        """It says nothing yet, so the scoreboard does not know of it. While nobody accepts, it waits."""
        worker = self.world.workers[chosen(self.workers("ready"), pick)]
        worker.connections += worker.accepting

    @precondition(lambda self: any(worker.connections for worker in self.world.workers.values()))
    @rule(pick=picks, asks=st.booleans())
    def client_goes_again(self, pick: int, asks: bool) -> None:
        held = [number for number, worker in self.world.workers.items() if worker.connections]
        worker = self.world.workers[chosen(held, pick)]
        worker.connections -= 1
        worker.empty_since = self.world.now
        worker.served = self.world.now if asks else worker.served

    @precondition(lambda self: self.told())
    @rule(pick=picks)
    def worker_answers(self, pick: int) -> None:
        self.world.answer(chosen(self.told(), pick))
        self.happen()

    @rule(kind=st.booleans(), visited=st.booleans(), answers=st.integers(0, 6))
    def nobody_comes(self, kind: bool, visited: bool, answers: int) -> None:
        """Time passes until it is looked whether the server is idle, and so many orders are answered at once.
        Each worker may have been `visited` on the way, without a request."""
        if kind:
            self.times_are_kind()
        if visited:
            self.time_passes(0.3, 0.0, batch=False)
            for worker in self.world.workers.values():
                worker.empty_since = self.world.now if worker.accepting else worker.empty_since
        self.time_passes(1.0, 0.0, batch=False)
        for _ in range(answers):
            if self.told():
                self.world.answer(self.told()[0])
                self.happen()

    @rule()
    def reload_is_asked(self) -> None:
        self.world.ask_reload()
        self.happen()

    @rule()
    def client_goes(self) -> None:
        self.world.see(ReloadAbandoned())
        self.happen()

    @rule(by=st.sampled_from([1, -1]))
    def pool_is_adjusted(self, by: int) -> None:
        self.world.see(Adjusted(by))
        self.happen()

    @precondition(lambda self: len(self.world.transcript) > 60)
    @rule(fast=st.booleans())
    def stop_is_asked(self, fast: bool) -> None:
        self.world.ask_stop(fast)
        self.happen()

    @precondition(lambda self: len(self.world.transcript) > 60)
    @rule(connections=st.integers(0, 3), room=st.sampled_from([True, False, False]), late=st.booleans())
    def stop_leaves_connections(self, connections: int, room: bool, late: bool) -> None:
        """Some before the workers end, or just then (`late`). systemd may have no room for them."""
        world = self.world
        world.ask_stop(fast=False)
        world.settle()
        world.systemd_has_room = room
        if late:
            for number in list(world.workers):
                world.gone(number)
            for number in self.zygotes("loading", "loaded", "killed"):
                world.zygote_gone(number)
        for _ in range(connections if world.storing else 0):
            world.shelf += 1
            world.see(Shelved())
        self.happen()
        for _ in range(3):
            self.time_passes(1.0, 0.0, batch=False)
        if late:
            self.time_passes(1.5, 10.0, batch=False)

    @rule()
    def times_are_kind(self) -> None:
        self.world.be_kind()
        self.happen()

    def teardown(self) -> None:
        """After any history a kind world comes to rest, reloads, and stops: with End(OK), once.

        Hypothesis comes here after an exception too: a broken rule, or a time limit of the test run. What was
        broken off is not judged, for a second verdict would hide the first.
        """
        world = self.world
        if world.halfway:
            return
        world.be_kind()
        if world.left is None:
            world.judge_peace()
            world.judge_reload()
            world.ask_stop(fast=False)
            world.be_kind()
            world.demand(world.left is Exit.OK, "it did not stop well")
        world.demand(world.left is not None, "it did not leave")


Histories.TestCase.settings = settings(max_examples=120, stateful_step_count=60)


TestHistories = Histories.TestCase
