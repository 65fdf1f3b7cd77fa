"""Clients of the control socket: what they ask for, and which of them wait for what.

A client that asked for a reload waits for the verdict: of the one that its request began, or, if one was
under way, of the next. A client that asked for a stop waits until the supervisor is gone.
"""

from __future__ import annotations

from collections.abc import Callable

from stardust.base.errors import ControlError
from stardust.control.server import Client, Control
from stardust.supervisor import vocabulary
from stardust.supervisor.host import Host
from stardust.supervisor.state import Outcome, Stop


class Clients:
    """Those of `control`, which is None without a control socket. `status` returns all there is to know, for
    a client that asks."""

    def __init__(self, control: Control | None, host: Host, status: Callable[[], dict[str, object]]) -> None:
        self._control = control
        self._host = host
        self._status = status
        self._waiting: list[Client] = []  # for the reload under way
        self._waiting_next: list[Client] = []  # for the one after it
        self._stopping: list[Client] = []
        if control is not None:
            host.watch(control.fileno(), self._accept)

    def progress(self, text: str) -> None:
        """Tell the clients that wait for the present reload."""
        for client in self._waiting:
            client.progress(text)

    def conclude(self, outcome: Outcome) -> None:
        """Tell them how it ended."""
        reason = outcome.reason or f"generation {outcome.generation} serves"
        for client in self._waiting:
            client.finish(outcome.ok, reason, outcome.detail)
            self._release(client)
        self._waiting, self._waiting_next = self._waiting_next, []

    def close(self) -> None:
        """The supervisor ends: the last word to everybody. The end of its process closes their sockets."""
        if self._control is not None:
            self._control.close()
        for client in [*self._waiting, *self._waiting_next]:
            client.finish(False, "the server has stopped")
        for client in self._stopping:
            client.finish(True, "stopped")

    def _accept(self) -> None:
        assert self._control is not None
        try:
            client = self._control.accept()
        except ControlError as refusal:
            self._host.log.warning(str(refusal))
            return
        if client is not None:
            self._host.watch(client.fileno(), lambda: self._hear(client))

    def _hear(self, client: Client) -> None:
        try:
            command = client.receive()
        except ControlError as fault:
            self._left(client, fault)
            return
        match command:
            case "status":
                client.finish(True, "", data=self._status())
                self._release(client)
            case "stop":
                self._stopping.append(client)
                # To ask for a stop twice is not to be impatient, as a second signal is.
                if self._host.state.stop is Stop.NO:
                    self._host.see(vocabulary.StopAsked())
            case "reload":
                self._reload(client)

    def _reload(self, client: Client) -> None:
        state = self._host.state
        if state.stop is not Stop.NO:
            client.finish(False, "the server is stopping")
            self._release(client)
            return
        if state.asked or state.verdict is not None:
            client.progress("waiting for the current reload to finish")
            self._waiting_next.append(client)
        else:
            self._waiting.append(client)
        self._host.see(vocabulary.ReloadAsked())

    def _left(self, client: Client, fault: ControlError) -> None:
        if not client.gone:
            client.finish(False, str(fault))
        waited = client in self._waiting
        for queue in (self._waiting, self._waiting_next, self._stopping):
            if client in queue:
                queue.remove(client)
        self._release(client)
        if waited and not self._waiting:
            # systemd killed `stardustctl reload` at its time limit, and now says that the reload failed.
            self._host.see(vocabulary.ReloadAbandoned())

    def _release(self, client: Client) -> None:
        self._host.unwatch(client.fileno())
        client.close()
