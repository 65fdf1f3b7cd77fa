"""Who waits for what at the control socket: a real socket, and a supervisor that only notes what it is told.

Both ends are in this process, and a UNIX socket delivers at once: what was said can be read, and what was not
said never comes. So nothing here waits for time to pass.
"""

from __future__ import annotations

import json
import os
import select
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stardust.base.records import replace
from stardust.control import trust
from stardust.control.server import Control
from stardust.control.trust import Peer
from stardust.logs.log import Log
from stardust.supervisor import vocabulary
from stardust.supervisor.clients import Clients
from stardust.supervisor.state import Outcome, State, Stop

PATIENCE = 30.0  # s

IDLE = State(serving=1, coming=0)
RELOADING = State(serving=1, coming=2, next_generation=3, asked=True)

GOOD = Outcome(True, "", "", generation=2, at=1.0)
BAD = Outcome(False, "it does not load", "Traceback …\nImportError: shop", generation=1, at=1.0)

WAIT = {"progress": "waiting for the current reload to finish"}


def verdict(ok: bool, reason: str, detail: str = "", data: object = None) -> dict[str, object]:
    return {"done": True, "ok": ok, "reason": reason, "detail": detail, "data": data}


SERVES = verdict(True, "generation 2 serves")


class Host:
    """The supervisor's place: the test sets its state and reads what it has seen."""

    def __init__(self, log: Log) -> None:
        self.state = IDLE
        self.now = 0.0
        self.log = log
        self.seen: list[vocabulary.Event] = []
        self.watched: dict[int, Callable[[], object]] = {}

    def watch(self, descriptor: int, react: Callable[[], object]) -> None:
        assert descriptor not in self.watched
        self.watched[descriptor] = react

    def unwatch(self, descriptor: int) -> None:
        del self.watched[descriptor]

    def see(self, event: vocabulary.Event) -> None:
        self.seen.append(event)

    def turn(self) -> None:
        """Wait until something is readable, and react to all that is."""
        ready, _, _ = select.select(list(self.watched), [], [], PATIENCE)
        assert ready, "nobody has said anything"
        for descriptor in ready:
            self.watched[descriptor]()


def status() -> dict[str, object]:
    return {"state": "running"}


class Visitor:
    """The far end of one connection to the control socket."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.socket.setblocking(False)
        self.ended = False
        """The supervisor has hung up, after all that was heard."""

    def hear(self) -> list[object]:
        """What was said since the last time."""
        said = b""
        while not self.ended:
            try:
                data = self.socket.recv(1 << 20)
            except BlockingIOError:
                break
            said += data
            self.ended = not data
        return [json.loads(line) for line in said.splitlines()]


class Stage:
    """The clients of a host, and how visitors come to them."""

    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "control")
        self.log = directory / "log"
        self.log_descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.control = Control.bind(self.path)
        self.door = self.control.fileno()
        self.host = Host(Log("supervisor", descriptor=self.log_descriptor))
        self.clients = Clients(self.control, self.host, status)
        self.visitors: list[Visitor] = []

    def visit(self) -> Visitor:
        """Somebody comes, and is let in or refused."""
        visitor = Visitor(self.path)
        self.visitors.append(visitor)
        self.host.turn()
        return visitor

    def say(self, visitor: Visitor, data: bytes) -> None:
        visitor.socket.sendall(data)
        self.host.turn()

    def ask(self, command: str) -> Visitor:
        """Somebody comes and gives a command."""
        visitor = self.visit()
        self.say(visitor, json.dumps({"command": command}).encode() + b"\n")
        return visitor

    def leave(self, visitor: Visitor) -> None:
        visitor.socket.close()
        self.host.turn()

    @property
    def present(self) -> int:
        """How many clients are watched."""
        return len(self.host.watched) - (self.door in self.host.watched)

    def close(self) -> None:
        """Everybody leaves; who is still watched must notice."""
        self.host.watched.pop(self.door)
        self.control.close()
        for visitor in self.visitors:
            visitor.socket.close()
        if self.host.watched:
            self.host.turn()
        assert not self.host.watched
        os.close(self.log_descriptor)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    # The visitors are in the supervisor's own process, which may not command it: root may.
    monkeypatch.setattr(trust, "peer", lambda _: Peer(os.getpid(), 0))
    stage = Stage(tmp_path)
    yield stage
    stage.close()


# --- coming and going ------------------------------------------------------------------------------------


def test_without_a_control_socket_nobody_comes() -> None:
    host = Host(Log("supervisor"))
    clients = Clients(None, host, status)
    clients.progress("nobody hears it")
    clients.conclude(GOOD)
    clients.close()
    assert (host.watched, host.seen) == ({}, [])


def test_nobody_at_the_door(stage: Stage) -> None:
    stage.host.watched[stage.door]()
    assert stage.present == 0
    assert stage.log.read_text() == ""


def test_who_says_nothing_may_leave(stage: Stage) -> None:
    visitor = stage.visit()
    assert stage.present == 1
    stage.leave(visitor)
    assert (stage.present, stage.host.seen) == (0, [])


def test_a_refused_one_is_logged(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(trust, "peer", lambda _: Peer(os.getpid(), 1000))
        patch.setattr(os, "geteuid", lambda: 1000)
        refused = stage.visit()
    reason = f"process {os.getpid()} belongs to the server, and the application may not command it"
    assert refused.hear() == [verdict(False, reason)]
    assert refused.ended
    assert stage.present == 0
    assert f"supervisor: warning: control socket {stage.path}: {reason}\n" in stage.log.read_text()
    assert len(stage.ask("status").hear()) == 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"dance\n", "a command must be one JSON object on one line", id="no JSON"),
        pytest.param(
            b'{"command": "dance"}\n',
            'unknown command "dance": must be one of reload, status, stop',
            id="unknown",
        ),
        pytest.param(
            b'{"command": "stop"}\n{"command": "stop"}\n',
            "only one command is allowed per connection",
            id="two",
        ),
    ],
)
def test_garbage_is_answered_and_cut(stage: Stage, data: bytes, reason: str) -> None:
    visitor = stage.visit()
    stage.say(visitor, data)
    assert visitor.hear() == [verdict(False, reason)]
    assert visitor.ended
    assert (stage.present, stage.host.seen) == (0, [])


def test_a_command_in_two_pieces(stage: Stage) -> None:
    visitor = stage.visit()
    stage.say(visitor, b'{"command": ')
    assert (visitor.hear(), stage.host.seen) == ([], [])
    stage.say(visitor, b'"reload"}\n')
    assert stage.host.seen == [vocabulary.ReloadAsked()]


# --- status ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "state",
    [
        pytest.param(IDLE, id="idle"),
        pytest.param(State(), id="boot"),
        pytest.param(RELOADING, id="reload"),
        pytest.param(replace(IDLE, stop=Stop.GRACEFUL), id="stop"),
    ],
)
def test_status_is_answered_at_once(stage: Stage, state: State) -> None:
    stage.host.state = state
    visitor = stage.ask("status")
    assert visitor.hear() == [verdict(True, "", data={"state": "running"})]
    assert visitor.ended
    assert (stage.present, stage.host.seen) == (0, [])


# --- reload ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "answer"),
    [
        pytest.param(GOOD, SERVES, id="ok"),
        pytest.param(BAD, verdict(False, BAD.reason, BAD.detail), id="failed"),
    ],
)
def test_reload_waits_for_its_verdict(stage: Stage, outcome: Outcome, answer: dict[str, object]) -> None:
    visitor = stage.ask("reload")
    assert stage.host.seen == [vocabulary.ReloadAsked()]
    assert visitor.hear() == []
    stage.clients.progress("generation 2: 1/2 workers ready")
    assert visitor.hear() == [{"progress": "generation 2: 1/2 workers ready"}]
    stage.clients.conclude(outcome)
    assert visitor.hear() == [answer]
    assert visitor.ended
    assert (stage.present, stage.host.seen) == (0, [vocabulary.ReloadAsked()])


def test_a_verdict_is_told_once(stage: Stage) -> None:
    stage.ask("reload")
    stage.clients.conclude(GOOD)
    second = stage.ask("reload")
    assert second.hear() == []
    stage.clients.conclude(BAD)
    assert second.hear() == [verdict(False, BAD.reason, BAD.detail)]


@pytest.mark.parametrize(
    "state",
    [
        pytest.param(RELOADING, id="under way"),
        pytest.param(replace(IDLE, verdict=GOOD), id="ended, its verdict not told yet"),
    ],
)
def test_reload_during_a_reload_waits_for_the_next(stage: Stage, state: State) -> None:
    first = stage.ask("reload")
    stage.host.state = state
    second = stage.ask("reload")
    assert stage.host.seen == [vocabulary.ReloadAsked(), vocabulary.ReloadAsked()]
    assert second.hear() == [WAIT]

    stage.clients.progress("generation 2: 1/2 workers ready")
    assert len(first.hear()) == 1
    stage.clients.conclude(BAD)
    assert first.hear() == [verdict(False, BAD.reason, BAD.detail)]
    assert second.hear() == []  # neither the progress nor the verdict was about its reload

    stage.clients.progress("generation 3: 1/2 workers ready")
    assert second.hear() == [{"progress": "generation 3: 1/2 workers ready"}]
    stage.clients.conclude(replace(GOOD, generation=3))
    assert second.hear() == [verdict(True, "generation 3 serves")]
    assert second.ended


def test_reload_during_one_that_a_signal_began(stage: Stage) -> None:
    stage.host.state = RELOADING
    visitor = stage.ask("reload")
    stage.clients.conclude(BAD)
    assert visitor.hear() == [WAIT]
    stage.clients.conclude(GOOD)
    assert visitor.hear() == [SERVES]


@pytest.mark.parametrize(
    "state",
    [
        pytest.param(State(), id="boot"),
        pytest.param(replace(RELOADING, asked=False), id="a lost zygote is replaced"),
        pytest.param(replace(IDLE, owed=True), id="READY=1 is to be said"),
    ],
)
def test_the_end_of_what_nobody_asked_for_is_not_told(stage: Stage, state: State) -> None:
    """`plan` concludes only a takeover that was asked for: the first verdict is that of this reload."""
    stage.host.state = state
    visitor = stage.ask("reload")
    visitor.hear()
    stage.clients.conclude(GOOD)
    assert visitor.hear() == [SERVES]
    assert visitor.ended


def two_of_one_reload(stage: Stage) -> tuple[Visitor, Visitor]:
    """Both came during the reload before; theirs is under way now."""
    stage.host.state = RELOADING
    both = stage.ask("reload"), stage.ask("reload")
    stage.clients.conclude(GOOD)
    assert [visitor.hear() for visitor in both] == [[WAIT], [WAIT]]
    stage.host.seen.clear()
    return both


def test_two_clients_of_one_reload(stage: Stage) -> None:
    both = two_of_one_reload(stage)
    stage.clients.progress("half")
    stage.clients.conclude(GOOD)
    for visitor in both:
        assert visitor.hear() == [{"progress": "half"}, SERVES]
        assert visitor.ended
    assert stage.present == 0


@pytest.mark.parametrize("stop", [Stop.GRACEFUL, Stop.FAST])
def test_no_reload_while_stopping(stage: Stage, stop: Stop) -> None:
    stage.host.state = replace(IDLE, stop=stop)
    visitor = stage.ask("reload")
    assert visitor.hear() == [verdict(False, "the server is stopping")]
    assert visitor.ended
    assert (stage.present, stage.host.seen) == (0, [])


# --- who asked for the reload leaves ---------------------------------------------------------------------


def test_who_leaves_abandons_the_reload(stage: Stage) -> None:
    stage.leave(stage.ask("reload"))
    assert stage.host.seen == [vocabulary.ReloadAsked(), vocabulary.ReloadAbandoned()]
    assert stage.present == 0
    stage.clients.progress("nobody hears it")
    stage.clients.conclude(BAD)


def test_who_says_more_abandons_it_too(stage: Stage) -> None:
    visitor = stage.ask("reload")
    stage.say(visitor, b'{"command": "status"}\n')
    assert visitor.hear() == [verdict(False, "only one command is allowed per connection")]
    assert visitor.ended
    assert stage.host.seen == [vocabulary.ReloadAsked(), vocabulary.ReloadAbandoned()]


def test_who_does_not_read_abandons_it_too(stage: Stage) -> None:
    stage.ask("reload")
    for _ in range(100):  # 10 MB: more than any send buffer
        stage.clients.progress("x" * 100_000)
    stage.host.turn()
    assert stage.host.seen == [vocabulary.ReloadAsked(), vocabulary.ReloadAbandoned()]
    assert stage.present == 0


def test_not_while_another_waits_for_the_same(stage: Stage) -> None:
    first, second = two_of_one_reload(stage)
    stage.leave(first)
    assert stage.host.seen == []
    stage.clients.progress("half")
    assert second.hear() == [{"progress": "half"}]
    stage.leave(second)
    assert stage.host.seen == [vocabulary.ReloadAbandoned()]


def test_who_waits_for_the_next_does_not_keep_this_one(stage: Stage) -> None:
    first = stage.ask("reload")
    stage.host.state = RELOADING
    second = stage.ask("reload")
    stage.host.seen.clear()
    stage.leave(first)
    assert stage.host.seen == [vocabulary.ReloadAbandoned()]
    stage.clients.conclude(BAD)
    assert second.hear() == [WAIT]
    stage.clients.conclude(GOOD)
    assert second.hear() == [SERVES]


def test_who_waits_for_the_next_may_leave(stage: Stage) -> None:
    first = stage.ask("reload")
    stage.host.state = RELOADING
    second = stage.ask("reload")
    stage.host.seen.clear()
    stage.leave(second)
    assert (stage.present, stage.host.seen) == (1, [])
    stage.clients.conclude(GOOD)
    assert first.hear() == [SERVES]
    stage.clients.conclude(GOOD)
    assert stage.host.seen == []


# --- stop ------------------------------------------------------------------------------------------------


def test_stop_waits_for_the_end(stage: Stage) -> None:
    visitor = stage.ask("stop")
    assert stage.host.seen == [vocabulary.StopAsked()]
    stage.clients.progress("of no reload of its own")
    stage.clients.conclude(BAD)
    assert (visitor.hear(), visitor.ended) == ([], False)
    stage.clients.close()
    assert visitor.hear() == [verdict(True, "stopped")]


def test_two_who_stop_are_not_in_a_hurry(stage: Stage) -> None:
    first = stage.ask("stop")
    stage.host.state = replace(IDLE, stop=Stop.GRACEFUL)
    second = stage.ask("stop")
    assert stage.host.seen == [vocabulary.StopAsked()]
    stage.clients.close()
    assert first.hear() == second.hear() == [verdict(True, "stopped")]


def test_who_asked_for_the_stop_may_leave(stage: Stage) -> None:
    stage.leave(stage.ask("stop"))
    assert (stage.present, stage.host.seen) == (0, [vocabulary.StopAsked()])
    stage.clients.close()


def test_close_has_a_word_for_everybody(stage: Stage) -> None:
    waiting = stage.ask("reload")
    stage.host.state = RELOADING
    waiting_next = stage.ask("reload")
    stopping = stage.ask("stop")
    stage.clients.close()
    assert not os.path.lexists(stage.path)
    assert waiting.hear() == [verdict(False, "the server has stopped")]
    assert waiting_next.hear() == [WAIT, verdict(False, "the server has stopped")]
    assert stopping.hear() == [verdict(True, "stopped")]
    # `stardustctl stop` returns at end of file, and then the process is to be gone.
    assert not any(visitor.ended for visitor in (waiting, waiting_next, stopping))
