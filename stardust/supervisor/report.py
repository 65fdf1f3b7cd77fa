"""What the supervisor says about itself: a line for `systemctl status`, an object for stardustctl. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from stardust import __version__
from stardust.base.records import dataclass
from stardust.ipc.scoreboard import BUSY, STATES, Entry
from stardust.supervisor.state import Outcome, Phase, State, Stop, target

LONGEST_REQUEST = 120  # characters of a worker's request: the whole report must fit into a socket's buffer


def phase(state: State) -> str:
    """What is under way: "booting", "running", "reloading", "stopping"."""
    if state.stop is not Stop.NO:
        return "stopping"
    if not state.serving:
        return "booting"
    return "reloading" if state.coming else "running"


@dataclass(frozen=True, slots=True)
class Preload:
    """`apart`: each worker of the serving generation loads for itself, because the application `holds` what a
    fork would break. Else it was forked in spite of that, or there is nothing."""

    apart: bool = False
    holds: tuple[str, ...] = ()


PRELOADED = Preload()


def listed(holds: Sequence[str]) -> str:
    """In lines of their own."""
    return "\n".join(f"- {each}" for each in holds)


def brief(holds: Sequence[str]) -> str:
    """The first one, and how many more there are."""
    return f"{holds[0]}, {len(holds) - 1} more" if len(holds) > 1 else "".join(holds)


def line(state: State, entries: Mapping[int, Entry], wall: float, preload: Preload = PRELOADED) -> str:
    """For STATUS=: generation, workers, preloading if it went another way, last reload; of a failed boot only
    why. `wall` + monotonic seconds = seconds since the epoch."""
    if state.stop is Stop.IDLE:
        return "Idle, exiting"
    if state.last is not None and not state.serving:
        return _described(state.last, wall)
    ready, busy = _counts(state, entries)
    standing = phase(state)
    if standing == "stopping":
        text = f"Stopping, {len(state.workers)} workers left"
    else:
        number = state.serving or state.coming
        text = f"Generation {number}, {ready}/{target(state)} workers ready, {busy} busy"
        text = text if standing == "running" else f"{standing.capitalize()}: {text}"
        if preload.holds:
            text += (
                f"; {'not preloaded' if preload.apart else 'preloaded all the same'}: {brief(preload.holds)}"
            )
    return f"{text}; {_described(state.last, wall)}" if state.last else text


def _described(outcome: Outcome, wall: float) -> str:
    at = datetime.fromtimestamp(outcome.at + wall).strftime("%H:%M:%S")
    if outcome.ok:
        return f"last reload at {at}: generation {outcome.generation}"
    what = "reload failed" if outcome.generation else "could not start"
    return f"{what} at {at}: {outcome.reason}"


def whole(
    state: State,
    entries: Mapping[int, Entry],
    listeners: Sequence[tuple[str, str]],
    preload: Preload = PRELOADED,
    *,
    pid: int,
    started: float,
    now: float,
    wall: float,
) -> dict[str, object]:
    """All there is to know, as JSON can say it. Times: seconds, and RFC 3339 for moments."""
    ready, busy = _counts(state, entries)
    return {
        "version": __version__,
        "pid": pid,
        "generation": state.serving,
        "state": phase(state),
        "uptime": round(now - started, 3),
        "ready": ready,
        "busy": busy,
        "total": target(state),
        "workers": [_worker(state, number, entries, now) for number in state.workers],
        "reload": _reload(state, wall),
        "preload": {"apart": preload.apart, "holds": [*preload.holds]},
        "listeners": [{"name": name, "address": address} for name, address in listeners],
    }


def _worker(state: State, number: int, entries: Mapping[int, Entry], now: float) -> dict[str, object]:
    worker, entry = state.workers[number], entries[number]
    standing = STATES[entry.state] if worker.phase is Phase.READY else worker.phase.value
    return {
        "id": number,
        "pid": entry.pid,
        "generation": worker.generation,
        "state": standing,
        "requests": entry.requests,
        "running": round(now - entry.since, 3) if entry.state == BUSY else None,
        "request": entry.text.partition(" ")[2][:LONGEST_REQUEST] if entry.state == BUSY else None,
        "age": round(now - worker.since, 3),
    }


def _reload(state: State, wall: float) -> dict[str, object] | None:
    outcome = state.last
    if outcome is None:
        return None
    return {
        "state": "ok" if outcome.ok else "failed",
        "generation": outcome.generation,
        "reason": outcome.reason,
        "at": datetime.fromtimestamp(outcome.at + wall, UTC).isoformat(timespec="seconds"),
    }


def _counts(state: State, entries: Mapping[int, Entry]) -> tuple[int, int]:
    ready = [number for number, worker in state.workers.items() if worker.phase is Phase.READY]
    return len(ready), sum(entries[number].state == BUSY for number in ready if number in entries)
