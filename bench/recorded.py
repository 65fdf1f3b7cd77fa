"""What is kept of runs, results.json: for each load the run that measured it last, and every measurement.

A run replaces the loads that it has measured, and leaves the others as they were. So loads may be of
different days; each says of which.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Used(NamedTuple):
    """A server as it was measured."""

    version: str
    settings: str
    command: str


class Record(NamedTuple):
    """One load. `facts` are what a reader has to know about the run and the machine; `measurements` are of
    the kind's RESULT, as dictionaries."""

    facts: Mapping[str, str]
    servers: Mapping[str, Used]
    measurements: Sequence[Mapping[str, Any]]


Records = Mapping[str, Record]  # by load


def merged(old: Records, new: Records) -> Records:
    """Loads of a new run take the place of old ones."""
    return {**old, **new}


def parsed(text: str) -> Records:
    return {
        load: Record(
            facts=record["facts"],
            servers={name: Used(**used) for name, used in record["servers"].items()},
            measurements=record["measurements"],
        )
        for load, record in json.loads(text).items()
    }


def written(records: Records) -> str:
    """Readable, and a measurement a line: a new run is a small difference."""
    return (
        "{\n" + ",\n".join(f"{_text(load)}: {_record(record)}" for load, record in records.items()) + "\n}\n"
    )


def _record(record: Record) -> str:
    servers = {name: used._asdict() for name, used in record.servers.items()}
    measurements = ",\n".join(f"  {_text(one)}" for one in record.measurements)
    return (
        f'{{\n "facts": {_text(record.facts, indent=1)},\n "servers": {_text(servers, indent=1)},\n'
        f' "measurements": [\n{measurements}\n ]\n}}'
    )


def _text(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, indent=indent, ensure_ascii=False).replace("\n", "\n ")
