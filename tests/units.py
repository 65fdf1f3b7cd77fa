"""What packaging/systemd ships, and what docs/systemd.md says of it."""

from __future__ import annotations

import re
from pathlib import Path

TOP = Path(__file__).parents[1]
UNITS = TOP / "packaging/systemd"
EXAMPLES = UNITS / "examples"
DROP_INS = sorted(path.name for path in EXAMPLES.glob("*.conf"))
SOCKETS = sorted(path.name for path in EXAMPLES.glob("*.socket"))

AS_SHIPPED = "none"
_ROW = re.compile(r"\| (?:\[([\w-]+\.conf)\]\(\S+/\1\)|(none)) \| .* \| ([0-9.]+) \|")
_MEASURED = re.compile(r"Overall exposure level for \S+: ([0-9.]+) ")


def promised() -> dict[str, str]:
    """The exposure that the manual's table promises, by drop-in, AS_SHIPPED without any."""
    rows = map(_ROW.fullmatch, (TOP / "docs/systemd.md").read_text().splitlines())
    return {row[1] or row[2]: row[3] for row in rows if row}


def measured(report: str) -> str:
    """The exposure in the words of `systemd-analyze security`."""
    found = _MEASURED.search(report)
    assert found, report
    return found[1]


def extended_by(drop_in: str) -> str:
    """The kind of unit that a drop-in belongs to: "service" or "socket"."""
    sections = re.findall(r"(?m)^\[(\w+)\]$", (EXAMPLES / drop_in).read_text())
    assert sections in (["Service"], ["Socket"]), drop_in
    return str(sections[0]).lower()
