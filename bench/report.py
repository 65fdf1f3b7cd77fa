"""From records to what people read: what all kinds of measurements share, and the page of Markdown. Pure.

Measurements become rows (`grouped`, medians), rows become lines (`table`), bars become lines (`bar`); the
kinds do that with their own fields. Here the sections of all loads become a page.

The reference of all ratios is REFERENCE: "x times the CPU time that stardust needs for a request".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

from recorded import Record
from servers import SERVERS

REFERENCE = "stardust"
MIB = 1 << 20

BEGIN = "<!-- written by `make bench`; changes here are lost -->"
END = "<!-- end of what `make bench` writes -->"

Facts = Mapping[str, str]

Key = TypeVar("Key")
One = TypeVar("One")


class Section(NamedTuple):
    """One load on the page: its name and title, how it was measured, and the lines of its kind."""

    load: str
    title: str
    record: Record
    lines: Sequence[str]


def grouped(measured: Iterable[One], key: Callable[[One], Key]) -> dict[Key, list[One]]:
    """The rounds of what has the same key, in the order in which the keys come first."""
    groups: dict[Key, list[One]] = {}
    for one in measured:
        groups.setdefault(key(one), []).append(one)
    return groups


def place(server: str) -> int:
    """Where the table SERVERS has this server; one that is no longer there comes last."""
    return next((number for number, row in enumerate(SERVERS) if row.name == server), len(SERVERS))


def in_order(servers: Iterable[str]) -> list[str]:
    return sorted(servers, key=place)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A table of Markdown and an empty line; the first column is of names, the others are of numbers."""
    yield f"| {' | '.join(head)} |"
    yield f"|---|{'--:|' * (len(head) - 1)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def bar(what: str, found: str, met: bool) -> str:
    """A line that says what was promised, and what was found."""
    return f"- {what}: {found}, {'met' if met else 'MISSED'}"


def page(sections: Sequence[Section]) -> str:
    """The whole report. Facts of most sections come first; a section tells those in which it differs."""
    usual = _usual([section.record.facts for section in sections])
    lines = [*(f"- {key}: {value}" for key, value in usual.items()), ""]
    for section in sections:
        lines += [f"### {section.load}: {section.title}", "", *_own(section.record.facts, usual)]
        lines += [*section.lines, ""] if section.lines[-1] else section.lines
    return "\n".join([*lines, *_servers(sections)]) + "\n"


def _usual(facts: Sequence[Facts]) -> Facts:
    """Those that more than half of the sections have."""
    counts = Counter(fact for each in facts for fact in each.items())
    return {key: value for (key, value), count in counts.items() if count * 2 > len(facts)}


def _own(facts: Facts, usual: Facts) -> Iterator[str]:
    own = {key: value for key, value in facts.items() if usual.get(key) != value}
    own |= {key: "not recorded" for key in usual if key not in facts}
    if own:
        yield "; ".join(f"{key}: {value}" for key, value in own.items())
        yield ""


def _servers(sections: Sequence[Section]) -> Iterator[str]:
    """A row for each server as it was measured; more than one, if it was not the same for all loads."""
    uses = [
        (name, used, section.load) for section in sections for name, used in section.record.servers.items()
    ]
    yield from ("### Servers", "")
    yield "| server | version | settings | command | loads |"
    yield "|---|---|---|---|---|"
    same = grouped(uses, lambda use: use[:2])
    for name, used in sorted(same, key=lambda use: place(use[0])):
        loads = ", ".join(load for _, _, load in same[name, used])
        yield f"| {name} | {used.version} | {used.settings} | `{used.command}` | {loads} |"


def embedded(document: str, report: str) -> str:
    """The document with the report between its two marks. Raises ValueError if they are not there."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the marks {BEGIN!r} and {END!r} are missing")
    return f"{before}{BEGIN}\n\n{report}\n{END}{after}"
