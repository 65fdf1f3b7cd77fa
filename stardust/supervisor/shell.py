"""The supervisor's loop: wait → observe → plan → act.

`Supervisor.run` waits in one place. What its rooms hear becomes an event for `observe.observe`; each action
that `plan.plan` returns is carried out by the room that it belongs to. `plan.py` decides, and nothing here
does; `health.py` judges which worker is stuck, by pure functions too.

The supervisor never imports the application and must survive everything it does. It owns the listeners,
the scoreboard, the control socket and the talk with systemd; workers and zygotes have a channel each.
"""

from __future__ import annotations

import math
import select
import signal
import time
from collections.abc import Callable
from typing import assert_never

from stardust.base import system
from stardust.base.errors import Exit
from stardust.base.signals import Wakeup
from stardust.ipc import messages
from stardust.ipc.handoff import Link
from stardust.ipc.scoreboard import SLOTS, Scoreboard
from stardust.logs.events import IDLE_EXIT
from stardust.supervisor import processes, vocabulary
from stardust.supervisor.children import Children
from stardust.supervisor.clients import Clients
from stardust.supervisor.crossing import Crossing, Leg
from stardust.supervisor.custody import Custody, Porter
from stardust.supervisor.generation import Generations
from stardust.supervisor.health import Health
from stardust.supervisor.host import Surroundings
from stardust.supervisor.observe import observe
from stardust.supervisor.plan import plan
from stardust.supervisor.remains import Remains
from stardust.supervisor.state import State, Watchdog
from stardust.supervisor.vocabulary import Action, Event, ToConnection, ToIdle, ToProcess, ToTell
from stardust.supervisor.voice import Voice
from stardust.supervisor.zygotes import Zygotes

# Signals that came together are each acted upon once, in this order.
_SIGNALS = (
    signal.SIGCHLD,
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGUSR1,
)


class Supervisor:
    """One server; `run` it once. Its rooms have it as their `Host`."""

    def __init__(self, given: Surroundings) -> None:
        self.log = given.log
        self.now = time.monotonic()
        self.state = _beginning(given, self.now)
        self.exit: Exit | None = None
        self.notifier = given.notifier
        self.scoreboard = Scoreboard.create()
        self.link = Link.create()
        self._epoll = system.epoll()
        self._watched: dict[int, Callable[[], object]] = {}
        board, link = self.scoreboard, self.link
        custody = Custody(given.notifier, given.parked, given.room, given.log)
        self.generations = Generations(self, given, board, link, custody.shelf)
        self.voice = Voice(self, given.notifier, board, self.generations)
        self.clients = Clients(given.control, self, self.voice.status)
        self.remains = Remains(self, self._own_processes)
        self.children = Children(self, self.generations, board, link, self.clients.progress, self.remains)
        self.zygotes = Zygotes(self, self.generations, self.children, self.remains)
        self.health = Health(self, self.generations, self.children, board)
        self.porter = Porter(self, custody, self.generations, board, link)

    # --- the loop ----------------------------------------------------------------------------------------

    def run(self) -> Exit:
        """Serve until the server is to stop. Returns the exit code."""
        processes.become_subreaper()
        wakeup = Wakeup(_SIGNALS)
        self.watch(wakeup.fileno(), lambda: self._signalled(wakeup.take()))
        while True:
            wake_at = self.settle()
            if self.exit is not None and not self.remains.some_left():
                break
            self.wait(wake_at)
        self.close()
        return self.exit

    def settle(self) -> float:
        """Plan and act until nothing is left to do. Returns when to look again."""
        if self.notifier.pending:
            self.notifier.flush()
        while True:
            before = self.state
            decided = plan(before, self.now)
            for action in decided.actions:
                # The state first: what the act itself reveals, above all that it failed, comes after.
                self.see(vocabulary.Ordered(action))
                self._act(action)
            self.voice.speak()
            timers = self.health.turn(), self.voice.turn(), self.remains.turn()
            if self.exit is not None or (not decided.actions and self.state is before):
                return min(decided.wake_at, *timers)

    def wait(self, wake_at: float) -> None:
        """The one blocking call, and what it brings."""
        wait = None if wake_at == math.inf else max(0.0, wake_at - time.monotonic())
        ready = [(descriptor, self._watched[descriptor]) for descriptor, _ in self._epoll.poll(wait)]
        self.now = time.monotonic()
        for descriptor, react in ready:
            # One before it may have closed it, and a new descriptor have taken its number.
            if self._watched.get(descriptor) is react:
                react()

    def close(self) -> None:
        """End last, and let nothing of ours outlive us."""
        self.notifier.flush()
        self.porter.close()
        self.clients.close()
        self.link.close()
        self._epoll.close()

    # --- what the rooms are given ------------------------------------------------------------------------

    def see(self, event: Event) -> None:
        """Change the state, and let the books forget at once what the state has forgotten."""
        before = self.state
        self.state = after = observe(before, event, self.now)
        if after.workers is not before.workers:
            self.children.reconcile()
        if after.generations is not before.generations:
            self.generations.reconcile()

    def watch(self, descriptor: int, react: Callable[[], object]) -> None:
        self._watched[descriptor] = react
        self._epoll.register(descriptor, select.EPOLLIN)

    def unwatch(self, descriptor: int) -> None:
        if self._watched.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def _own_processes(self) -> set[int]:
        """Zygotes and workers that live, or wait to be reaped."""
        zygotes = {each.pid for each in self.generations.book.values()}
        return (zygotes | {each.pid for each in self.children.book.values()}) - {0}

    # --- signals -----------------------------------------------------------------------------------------

    def _signalled(self, numbers: list[signal.Signals]) -> None:
        for number in numbers:
            match number:
                case signal.SIGCHLD:
                    self.zygotes.reap()
                case signal.SIGHUP:
                    self.see(vocabulary.ReloadAsked())
                case signal.SIGTERM | signal.SIGINT:
                    self.see(vocabulary.StopAsked())
                case signal.SIGQUIT:
                    self.see(vocabulary.StopAsked(fast=True))
                case signal.SIGTTIN:
                    self.see(vocabulary.Adjusted(+1))
                case signal.SIGTTOU:
                    self.see(vocabulary.Adjusted(-1))
                case signal.SIGUSR1:
                    self.zygotes.reopen_logs()

    # --- what is done ------------------------------------------------------------------------------------

    def _act(self, action: Action) -> None:
        if isinstance(action, ToProcess):
            self._act_on_process(action)
        elif isinstance(action, ToIdle):
            self._act_on_idleness(action)
        elif isinstance(action, ToConnection):
            self.porter.act(action)
        elif isinstance(action, ToTell):
            self.voice.act(action, self.clients)
        else:
            match action:
                case vocabulary.CheckAlive():
                    self.health.look()
                case vocabulary.End(code):
                    self.exit = code
                    self.remains.leave()
                case _:
                    assert_never(action)

    def _act_on_process(self, action: ToProcess) -> None:
        match action:
            case vocabulary.Start(number):
                generation = self.generations.open(number)
                if generation is not None:
                    self.zygotes.listen(generation)
            case vocabulary.GiveUp(number, reason):
                self.log.error(f"generation {number}: {reason}")
            case vocabulary.Fork(number, slot, of_generation):
                self.children.fork(number, slot, of_generation)
            case vocabulary.Retire(number, final):
                self.children.retire(number, final=final)
            case vocabulary.Dump(number, why):
                self.children.dump(number, why)
            case vocabulary.Kill(number, why):
                self.children.kill(number, why)
            case vocabulary.KillZygote(number, why):
                self.zygotes.kill(number, why)
            case vocabulary.Close(number):
                self.zygotes.close(number)
            case _:
                assert_never(action)

    def _act_on_idleness(self, action: ToIdle) -> None:
        match action:
            case vocabulary.CheckIdle():
                self.health.look_for_quiet()
            case vocabulary.Pause(number):
                self.log.debug("no request for idle-timeout: asking the workers whether anybody is connected")
                self.children.tell_everybody(messages.Pause(number))
            case vocabulary.Resume():
                self.log.debug("not idle: continuing")
                self.children.tell_everybody(messages.Resume())
            case vocabulary.ExitIdle():
                timeout = self.state.generations[self.state.serving].policy.idle_timeout
                text = f"idle for {timeout:g} s: exiting; the next connection starts the server again"
                self.log.info(text, IDLE_EXIT)
            case _:
                assert_never(action)


def _beginning(given: Surroundings, now: float) -> State:
    """What is known before anything has happened."""
    return State(
        slots=SLOTS,
        crossing=Crossing(Leg.STORED) if given.parked else Crossing(),
        watchdog=Watchdog() if given.watchdog is None else Watchdog(given.watchdog, look_at=now),
    )
