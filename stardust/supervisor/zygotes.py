"""Zygotes as processes: heard, killed, buried, with what they tell about their workers.

Each belongs to a generation, whose room starts it. What happens when one dies: the kernel tells (`reap`), its
last words are heard, its workers become our own children (`children.orphaned`), and `ZygoteGone` is seen.
`observe.py` then lets its generation fail if it was coming; if it served, `plan.py` starts another one.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import assert_never

from stardust.base import process, system
from stardust.base.errors import ChannelError, Exit
from stardust.ipc import messages
from stardust.logs.events import NOT_PRELOADED
from stardust.settings.kinds import AUTO
from stardust.supervisor import processes, report, vocabulary
from stardust.supervisor.children import Children
from stardust.supervisor.generation import Generation, Generations
from stardust.supervisor.host import Host
from stardust.supervisor.remains import Remains
from stardust.supervisor.state import Zygote

_MOST = 25  # of what it is said to hold: more than a zygote says
_LONGEST = 300  # characters of each


class Zygotes:
    """Those of all generations."""

    def __init__(self, host: Host, generations: Generations, children: Children, remains: Remains) -> None:
        self._host = host
        self._generations = generations
        self._children = children
        self._remains = remains
        self._discarded: set[int] = set()  # zygotes that nothing was forked from, and that are to end

    def listen(self, generation: Generation) -> None:
        """Hear one that was started."""
        assert generation.channel is not None
        self._remains.expect(generation.pid, generation.number, f"generation {generation.number}")
        self._host.watch(generation.channel.fileno(), lambda: self._hear(generation))

    def kill(self, number: int, why: str) -> None:
        self._host.log.error(f"the zygote of generation {number} {why}: killing it")
        generation = self._generations.book[number]
        if generation.pid:
            system.kill(generation.pid, signal.SIGKILL)

    def close(self, number: int) -> None:
        """End one that has no workers. If it was never started, it is gone already."""
        generation = self._generations.book.get(number)
        if generation is not None and generation.pid:
            system.kill(generation.pid, signal.SIGKILL)
        else:
            self._host.see(vocabulary.ZygoteGone(number))

    def reap(self) -> None:
        """Wait for our own children: zygotes, workers whose zygote is gone, orphans of the application."""
        zygotes = {each.pid: each for each in self._generations.book.values() if each.pid}
        workers = {child.pid: child for child in self._children.book.values() if child.pid}
        for pid, status in processes.ended_children():
            child = workers.get(pid)
            if pid in zygotes:
                self._ended(zygotes[pid], process.described(status))
            elif child is not None and child.number in self._children.book:
                self._children.reaped(child, status)
            elif pid in self._discarded:
                self._discarded.discard(pid)
                self._remains.gone(pid, in_peace=False)  # what the application started there ends too
            else:
                self._remains.ended(pid)

    def reopen_logs(self) -> None:
        """The access log was renamed (logrotate): everybody goes on in a new file of the old name."""
        for number, generation in self._generations.book.items():
            requests = generation.requests
            if requests is None:
                continue
            try:
                requests.reopen()
            except OSError as fault:
                text = f"cannot reopen {generation.config.access_log}: {fault.strerror}"
                self._host.log.error(text)
                continue
            order = messages.Reopen(requests.descriptor)
            for child in self._children.of(number):
                child.channel.send(order)
            if generation.channel is not None:
                generation.channel.send(order)

    # --- what they say -----------------------------------------------------------------------------------

    def _hear(self, generation: Generation) -> None:
        channel = generation.channel
        assert channel is not None
        try:
            while generation.channel is channel and (message := processes.next_message(channel)) is not None:
                self._said(generation.number, message)
        except ChannelError as fault:
            self._host.unwatch(channel.fileno())
            self._host.see(vocabulary.ZygoteNonsense(generation.number, str(fault)))

    def _said(self, number: int, message: messages.FromZygote) -> None:
        see = self._host.see
        match message:
            case messages.Loaded(holds):
                self._tell_insisted(number, holds)
                see(vocabulary.Loaded(number))
                self._children.mourn()
            case messages.Unforkable(holds):
                self._start_apart(number, holds)
            case messages.Failed(reason, detail):
                see(vocabulary.Failed(number, reason, detail))
            case messages.Misconfigured(reason):
                see(vocabulary.Failed(number, reason, "", Exit.CONFIG))
            case messages.Forked() | messages.ForkFailed() | messages.Exited():
                child = self._children.book.get(message.worker)
                if child is not None:
                    self._children.answered(child, message)
            case _:
                assert_never(message)

    def _start_apart(self, number: int, holds: Sequence[str]) -> None:
        """Nothing is to be forked from its zygote: start one that loads nothing, so that each worker does."""
        generation, known = self._generations.book[number], self._host.state.generations.get(number)
        starting = known is not None and known.zygote is Zygote.STARTING
        if (
            generation.config.preload != AUTO
            or generation.apart
            or not starting
            or generation.channel is None
        ):
            self._host.see(vocabulary.ZygoteNonsense(number, "that it cannot be forked, out of turn"))
            return
        generation.holds, generation.apart = _plain(holds), True
        self._host.unwatch(generation.channel.fileno())
        generation.channel.close()
        generation.channel = None
        if generation.pid:
            system.kill(generation.pid, signal.SIGKILL)
            self._discarded.add(generation.pid)
            generation.pid = 0
        self._host.log.info(
            f"generation {number}: each worker loads {generation.config.app} for itself, for it holds what "
            f"does not survive a fork:\n{report.listed(generation.holds)}\nTo have it preloaded, open "
            "connections and start threads in after-fork, or at the first request. preload = false does the "
            "same as now without this message, preload = true forks all the same",
            NOT_PRELOADED,
            {"STARDUST_GENERATION": number},
        )
        if self._generations.start(generation):
            self.listen(generation)

    def _tell_insisted(self, number: int, holds: Sequence[str]) -> None:
        generation = self._generations.book[number]
        if not holds or generation.apart:
            return
        generation.holds = _plain(holds)
        self._host.log.warning(
            f"generation {number}: preload = true, but {generation.config.app} holds what does not survive a "
            f"fork:\n{report.listed(generation.holds)}\nWorkers lack these threads, and on shared "
            "connections each may read answers that are meant for another",
            fields={"STARDUST_GENERATION": number},
        )

    def _ended(self, generation: Generation, how: str) -> None:
        number, generation.pid = generation.number, 0
        self._remains.over(number)
        if generation.channel is not None:
            # What it said before it died is still to be heard: above all "failed", with the traceback.
            self._hear(generation)
        if generation.pid:
            return  # by its last word, another one has its place
        if generation.channel is not None:
            self._host.unwatch(generation.channel.fileno())
            generation.channel.close()
            generation.channel = None
        how = f"the zygote of generation {number} ({generation.interpreter}) ended: {how}"
        state = self._host.state
        if number == state.serving and state.generations[number].zygote is not Zygote.CLOSING:
            self._host.log.error(how)
        for child in self._children.of(number):
            self._children.orphaned(child)
        self._host.see(vocabulary.ZygoteGone(number, how))


def _plain(holds: Sequence[str]) -> tuple[str, ...]:
    """As it can be shown: whoever says it runs the application."""
    return tuple(" ".join(each.split())[:_LONGEST] for each in holds[:_MOST])
