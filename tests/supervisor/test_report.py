"""The line for systemctl status and the object for stardustctl, from states made by hand."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from types import MappingProxyType

import pytest

from stardust import __version__
from stardust.base.records import replace
from stardust.ipc.scoreboard import BUSY, IDLE, Entry
from stardust.supervisor import report
from stardust.supervisor.state import Generation, Outcome, Phase, Policy, State, Stop, Worker, Zygote, target

WALL = 1_800_000_000.0  # the epoch's second at monotonic 0: 2027-01-15 08:00:00 UTC


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """STATUS= speaks of local time."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def generations(*numbers: int) -> MappingProxyType[int, Generation]:
    return MappingProxyType(
        {number: Generation(number, Zygote.LOADED, 0.0, Policy(workers=2)) for number in numbers}
    )


def pool(**phases: Phase) -> MappingProxyType[int, Worker]:
    """worker_1=Phase.READY, …: each in the slot of its number, of generation 1, for 10 s at 100."""
    numbers = {int(name.removeprefix("worker_")): phase for name, phase in phases.items()}
    return MappingProxyType(
        {number: Worker(number, number, 1, phase, 90.0) for number, phase in numbers.items()}
    )


RUNNING = State(
    generations=generations(1),
    workers=pool(worker_1=Phase.READY, worker_2=Phase.READY),
    serving=1,
    coming=0,
    next_generation=2,
)
BOOTING = State(generations=generations(1), workers=pool(worker_1=Phase.READY, worker_2=Phase.STARTING))
RELOADING = replace(RUNNING, coming=2)
STOPPING = replace(RUNNING, stop=Stop.GRACEFUL)
FAILED_BOOT = State(coming=0, stop=Stop.FAST, last=Outcome(False, "ImportError", "", 0, 60.0))

IDLING = Entry(41, 1, IDLE, 7, 2, 0, 95.0, 0.0, 99.0, "192.0.2.1 GET /before HTTP/1.1")
WORKING = Entry(42, 1, BUSY, 8, 1, 1, 98.5, 0.0, 99.0, "192.0.2.1 GET /a?b=c HTTP/1.1")
ENTRIES = {1: IDLING, 2: WORKING}

LINES = {
    "running": (RUNNING, "Generation 1, 2/2 workers ready, 1 busy"),
    "booting": (BOOTING, "Booting: Generation 1, 1/2 workers ready, 0 busy"),
    "reloading": (RELOADING, "Reloading: Generation 1, 2/2 workers ready, 1 busy"),
    "stopping": (STOPPING, "Stopping, 2 workers left"),
    "a good reload": (
        replace(RUNNING, last=Outcome(True, "", "", 1, 60.0)),
        "Generation 1, 2/2 workers ready, 1 busy; last reload at 08:01:00: generation 1",
    ),
    "a failed reload": (
        replace(RUNNING, last=Outcome(False, "ImportError: no shop", "Traceback", 1, 60.0)),
        "Generation 1, 2/2 workers ready, 1 busy; reload failed at 08:01:00: ImportError: no shop",
    ),
    "idle": (
        replace(RUNNING, stop=Stop.IDLE, last=Outcome(True, "", "", 1, 60.0)),
        "Idle, exiting",
    ),
    "a failed boot": (FAILED_BOOT, "could not start at 08:01:00: ImportError"),
}


@pytest.mark.parametrize("name", LINES)
def test_line(name: str) -> None:
    state, line = LINES[name]
    assert report.line(state, ENTRIES, WALL) == line


PHASES = {"running": RUNNING, "booting": BOOTING, "reloading": RELOADING, "stopping": STOPPING}


@pytest.mark.parametrize("name", PHASES)
def test_phase(name: str) -> None:
    assert report.phase(PHASES[name]) == name


def whole(state: State, entries: dict[int, Entry]) -> dict[str, object]:
    listeners = [("http", "127.0.0.1:5000")]
    answer = report.whole(state, entries, listeners, pid=40, started=40.0, now=100.0, wall=WALL)
    assert json.loads(json.dumps(answer)) == answer
    return answer


def test_whole() -> None:
    state = replace(RUNNING, last=Outcome(False, "ImportError", "Traceback", 1, 60.0))
    assert whole(state, ENTRIES) == {
        "version": __version__,
        "pid": 40,
        "generation": 1,
        "state": "running",
        "uptime": 60.0,
        "ready": 2,
        "busy": 1,
        "total": 2,
        "workers": [
            {
                "id": 1,
                "pid": 41,
                "generation": 1,
                "state": "idle",
                "requests": 7,
                "running": None,
                "request": None,
                "age": 10.0,
            },
            {
                "id": 2,
                "pid": 42,
                "generation": 1,
                "state": "busy",
                "requests": 8,
                "running": 1.5,
                "request": "GET /a?b=c HTTP/1.1",
                "age": 10.0,
            },
        ],
        "reload": {
            "state": "failed",
            "generation": 1,
            "reason": "ImportError",
            "at": "2027-01-15T08:01:00+00:00",
        },
        "listeners": [{"name": "http", "address": "127.0.0.1:5000"}],
        "preload": {"apart": False, "holds": []},
    }


def test_preloading_that_went_another_way() -> None:
    def line(apart: bool, *holds: str) -> str:
        return report.line(RUNNING, ENTRIES, WALL, report.Preload(apart, holds))

    assert line(True, "thread a").endswith("1 busy; not preloaded: thread a")
    assert line(True, "thread a", "thread b", "thread c").endswith("; not preloaded: thread a, 2 more")
    assert line(False, "thread a").endswith("; preloaded all the same: thread a")
    answer = report.whole(
        RUNNING, ENTRIES, [], report.Preload(True, ("thread a",)), pid=40, started=40.0, now=100.0, wall=WALL
    )
    assert answer["preload"] == {"apart": True, "holds": ["thread a"]}


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.READY])
def test_worker_that_is_not_ready_is_told_by_its_phase(phase: Phase) -> None:
    answer = whole(replace(RUNNING, workers=pool(worker_1=phase)), {1: WORKING})
    [worker] = answer["workers"] if isinstance(answer["workers"], list) else []
    assert worker["state"] == phase.value
    assert (answer["ready"], answer["busy"], answer["total"]) == (0, 0, 2)


def test_before_anything_has_happened() -> None:
    assert report.line(State(), {}, WALL) == "Booting: Generation 1, 0/0 workers ready, 0 busy"
    answer = whole(State(), {})
    assert (answer["workers"], answer["reload"], answer["generation"]) == ([], None, 0)


def test_long_request_is_cut() -> None:
    """A thousand workers with long targets must fit into one answer."""
    long = WORKING._replace(text=f"192.0.2.1 GET /{'x' * 800} HTTP/1.1")
    answer = whole(replace(RUNNING, workers=pool(worker_1=Phase.READY)), {1: long})
    [worker] = answer["workers"] if isinstance(answer["workers"], list) else []
    assert len(worker["request"]) == report.LONGEST_REQUEST


def test_total_is_what_the_plan_wants() -> None:
    assert whole(replace(RUNNING, adjust=3), ENTRIES)["total"] == target(replace(RUNNING, adjust=3)) == 5
