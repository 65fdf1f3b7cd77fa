"""Workers as processes: the one book of them. Forked, ordered, heard, buried.

The state has what is decided about a worker; the book has what is needed to reach it, under the same number.
The two cannot drift apart: `fork` carries out an action of which the state knows already, and after each
event `reconcile` lets go of workers that the state has forgotten.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import assert_never

from stardust.base import process, system
from stardust.base.errors import ChannelError
from stardust.base.records import dataclass
from stardust.ipc import messages
from stardust.ipc.channel import Channel, pair
from stardust.ipc.handoff import Link
from stardust.ipc.scoreboard import BUSY, Entry, Scoreboard
from stardust.logs.events import WORKER_DIED, WORKER_TIMED_OUT, Event
from stardust.supervisor import deaths, processes, vocabulary
from stardust.supervisor.generation import Generations
from stardust.supervisor.host import Host
from stardust.supervisor.remains import Remains
from stardust.supervisor.state import Phase, Zygote, members, target

_AT_WORK = (Phase.STARTING, Phase.READY, Phase.STUCK, Phase.CONDEMNED, Phase.DOOMED)
"""Phases of a worker that was not asked to end."""

_NO_STACKS = "It wrote no stacks: it is stopped, or hangs in the kernel."

WorkerChannel = Channel[messages.FromWorker, messages.ToWorker]


@dataclass(slots=True)
class Child:
    """A worker as a process. `pid` and `pidfd` are known when its zygote has said so.

    `stacks` is the memory that it writes its stacks to when it is asked: once it is `stuck`, and then this
    says why, and in which `request`.
    """

    number: int
    slot: int
    generation: int
    channel: WorkerChannel
    stacks: int
    pid: int = 0
    pidfd: int | None = None
    doomed: bool = False  # to be killed as soon as its process is known
    pinged: float = 0.0
    stuck: str = ""
    request: str = ""

    def fields(self, request: str = "") -> dict[str, object]:
        """Of a record about it, and about what it was doing."""
        about: dict[str, object] = {"STARDUST_WORKER": self.number, "STARDUST_GENERATION": self.generation}
        return {**about, "STARDUST_REQUEST": request} if request else about


class Children:
    """The book of them, by number. `progress` is called with a text: how far the coming generation is."""

    def __init__(
        self,
        host: Host,
        generations: Generations,
        scoreboard: Scoreboard,
        link: Link,
        progress: Callable[[str], None],
        remains: Remains,
    ) -> None:
        self.book: dict[int, Child] = {}
        self.kills = deaths.own_kills()
        self._unmourned: list[messages.Mourn] = []
        self._host = host
        self._generations = generations
        self._scoreboard = scoreboard
        self._link = link
        self._progress = progress
        self._remains = remains

    def of(self, generation: int) -> list[Child]:
        return [child for child in self.book.values() if child.generation == generation]

    def reconcile(self) -> None:
        """Let go of those that the state has forgotten."""
        for number in self.book.keys() - self._host.state.workers.keys():
            child = self.book.pop(number)
            self._host.unwatch(child.channel.fileno())
            child.channel.close()
            system.close(child.stacks)
            if child.pidfd is not None:
                self._host.unwatch(child.pidfd)
                system.close(child.pidfd)
            self._scoreboard.clear(child.slot)

    # --- what is done ------------------------------------------------------------------------------------

    def fork(self, number: int, slot: int, generation: int) -> None:
        ours, theirs = pair()
        stacks = processes.memory_for_stacks()
        channel = Channel(ours, messages.SUPERVISOR_OF_WORKER)
        child = self.book[number] = Child(number, slot, generation, channel, stacks)
        self._scoreboard.clear(slot)
        with theirs:
            order = messages.Fork(worker=number, slot=slot, channel=theirs.fileno(), stacks=stacks)
            if not self._order(child, order):
                self._host.see(vocabulary.ForkFailed(number))
                return
        self._host.watch(channel.fileno(), lambda: self._speaks(child))

    def _order(self, child: Child, order: messages.Fork | messages.Reap) -> bool:
        """Order a child's zygote to do something. False if the zygote is gone, or takes no more."""
        channel = self._generations.book[child.generation].channel
        return channel is not None and channel.send(order)

    def retire(self, number: int, *, final: bool) -> None:
        """The scoreboard first: a busy worker accepts once more before it reads its messages."""
        child = self.book[number]
        self._scoreboard.retire(child.slot)
        child.channel.send(messages.Stop() if final else messages.Retire())

    def dump(self, number: int, why: str) -> None:
        """Have it write its stacks. The log gets them when it is killed, a moment later."""
        child = self.book[number]
        child.stuck, child.request = why, _request(self._scoreboard.read(child.slot))
        if child.pidfd is not None:
            processes.signal_process(child.pidfd, process.STACKS_SIGNAL)

    def kill(self, number: int, why: str) -> None:
        child = self.book[number]
        if child.stuck:
            self._tell_stuck(child)
        else:
            text = f"killing worker {child.number} (process {child.pid}): {why}"
            self._host.log.warning(text, fields=child.fields())
        child.doomed = True
        if child.pidfd is not None:
            processes.signal_process(child.pidfd, signal.SIGKILL)

    def _tell_stuck(self, child: Child) -> None:
        about = f" in {child.request}" if child.request else ""
        stacks = processes.read_stacks(child.stacks) or _NO_STACKS
        self._host.log.error(
            f"killing worker {child.number} (process {child.pid}), stuck{about}: {child.stuck}\n{stacks}",
            WORKER_TIMED_OUT,
            child.fields(child.request),
        )

    def ping(self, child: Child) -> None:
        child.pinged = self._host.now
        child.channel.send(messages.Ping())

    def tell_everybody(self, order: messages.Pause | messages.Resume) -> None:
        for child in self.book.values():
            child.channel.send(order)

    # --- what they say -----------------------------------------------------------------------------------

    def _speaks(self, child: Child) -> None:
        self._hear(child)
        if child.channel.at_end:
            # It ends, or the application closed all of its descriptors: its pidfd will say which.
            self._host.unwatch(child.channel.fileno())

    def _hear(self, child: Child) -> None:
        try:
            while (message := processes.next_message(child.channel)) is not None:
                self._said(child, message)
        except ChannelError as fault:
            self._host.unwatch(child.channel.fileno())
            self._host.see(vocabulary.Nonsense(child.number, str(fault)))

    def _said(self, child: Child, message: messages.FromWorker) -> None:
        see = self._host.see
        match message:
            case messages.Ready():
                see(vocabulary.Ready(child.number))
                self._tell_progress(child)
            case messages.Leaving():
                see(vocabulary.Leaving(child.number))
                self._have_others_look()
            case messages.Paused(number, connections, since):
                see(vocabulary.Paused(child.number, number, connections, since))
            case messages.Failed(reason, detail):
                failure = f"worker {child.number}: {reason}\n{detail}"
                self._host.log.error(failure, fields=child.fields())
                see(vocabulary.WorkerFailed(child.number, reason, detail))
            case _:
                assert_never(message)

    def _tell_progress(self, child: Child) -> None:
        state = self._host.state
        if child.generation == state.coming:
            ready = len(members(state, child.generation, Phase.READY))
            self._progress(f"generation {child.generation}: {ready}/{target(state)} workers ready")

    def _have_others_look(self) -> None:
        """A listener wakes only one worker (EPOLLEXCLUSIVE), and that may be the one that has just left."""
        if any(worker.phase is Phase.READY for worker in self._host.state.workers.values()):
            self._link.nudge()

    # --- what becomes of them ----------------------------------------------------------------------------

    def answered(
        self, child: Child, message: messages.Forked | messages.ForkFailed | messages.Exited
    ) -> None:
        """Its zygote has."""
        match message:
            case messages.Forked(_, pid):
                self._host.see(vocabulary.Forked(child.number))
                if not child.pid:  # else it says so again
                    self._forked(child, pid)
            case messages.ForkFailed(_, reason):
                text = f"cannot fork worker {child.number}: {reason}"
                self._host.log.error(text, fields=child.fields())
                self._host.see(vocabulary.ForkFailed(child.number))
            case messages.Exited(_, status):
                self.reaped(child, status)
            case _:
                assert_never(message)

    def orphaned(self, child: Child) -> None:
        """Its zygote died. If that had not said the worker's process id, the scoreboard may know it."""
        if not child.pid:
            pid = self._scoreboard.read(child.slot).pid
            if pid:
                self._forked(child, pid)
            else:
                self._ended(child, "its zygote died first")

    def reaped(self, child: Child, status: int | None) -> None:
        """Its parent has waited for it; None if it was too late for that."""
        self._remains.gone(child.pid, in_peace=status == 0)
        death = deaths.UNKNOWN if status is None else self.kills.explain(status, ours=child.doomed)
        if not self._generations.book[child.generation].pid:
            # No zygote of its own has seen that.
            why = self._host.state.workers[child.number].why if child.doomed else ""
            self._unmourned.append(messages.Mourn(child.pid, why or death.how))
            self.mourn()
        self._ended(child, *death)

    def mourn(self) -> None:
        """Have `after-death` called for those whose zygote died before them, by another one, now or later."""
        for generation in self._generations.book.values():
            known = self._host.state.generations.get(generation.number)
            if known is None or known.zygote is not Zygote.LOADED or generation.channel is None:
                continue
            while self._unmourned and generation.channel.send(self._unmourned[-1]):
                self._unmourned.pop()

    def _forked(self, child: Child, pid: int) -> None:
        child.pid = pid
        self._remains.expect(pid, child.generation, f"worker {child.number}")
        child.pidfd = processes.open_pidfd(pid, self._generations.book[child.generation].pid)
        if child.pidfd is None:
            self._ended(child, "it ended at once")
            return
        self._host.watch(child.pidfd, lambda: self._ending(child))
        if child.doomed:
            processes.signal_process(child.pidfd, signal.SIGKILL)

    def _ending(self, child: Child) -> None:
        """It has ended, and waits for its parent to ask how."""
        assert child.pidfd is not None
        self._host.unwatch(child.pidfd)
        self._hear(child)
        why = self._host.state.workers[child.number].why if child.doomed else ""
        if self._order(child, messages.Reap(child.number, child.pid, why)):
            self._host.see(vocabulary.Reaping(child.number))

    def _ended(self, child: Child, how: str, event: Event = WORKER_DIED) -> None:
        worker = self._host.state.workers[child.number]
        entry = self._scoreboard.read(child.slot)
        if worker.phase in _AT_WORK or entry.state == BUSY:
            self._host.log.error(
                f"worker {child.number} (process {child.pid}) ended: {how}",
                None if child.doomed else event,
                child.fields(_request(entry)),
            )
        requests = self._generations.book[child.generation].requests
        if entry.state == BUSY and requests is not None:
            now = self._host.now
            requests.killed(entry, worker.why or how, now=now, wall=time.time() - now)
        self._host.see(vocabulary.Gone(child.number, how))
        self._have_others_look()


def _request(entry: Entry) -> str:
    """The request line that a worker is busy with, as far as the scoreboard has it; "" if it is not busy."""
    return entry.text.partition(" ")[2] if entry.state == BUSY else ""
