"""The rules of docs/http.md and the tests that hold them, each known by the same name: F1, L13, W5.

A test belongs to a rule when its name begins so (`test_l13_cut_anywhere`), the id of one of its rows does
("F4-leading-zeros"), or the name of a file of http1/corpus. (A file that begins with an R is about a section
of RFC 9110 that is no rule of ours.) The table has a row for each rule, and says which modules hold it and
with which statuses what breaks it is refused. `python -m tests.test_rules` writes the former.
"""

from __future__ import annotations

import ast
import functools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "http.md"
CORPUS = TESTS / "http1" / "corpus"

# How many there are of each kind: framing, lines and fields, responses, slow and many clients, processes.
KINDS = {"F": 14, "L": 14, "W": 12, "S": 11, "P": 12}
RULES = [f"{kind}{number}" for kind, count in KINDS.items() for number in range(1, count + 1)]

_ROW = re.compile(r"\| ([FLWSP][0-9]{1,2}) \| (.+) \| (.+) \| (.*) \| (.*) \|")
_FUNCTION = re.compile(r"test_(?:[flwsp][0-9]{1,2}_)+")
_IDS = re.compile(r"(?:[FLWSP][0-9]{1,2}-)+")


class Row(NamedTuple):
    """What the page says of one rule. `answer` begins with the statuses of its refusals, if it has any."""

    source: str
    text: str
    answer: str
    modules: str

    @property
    def statuses(self) -> set[int]:
        return {int(number) for number in re.findall(r"\b[45][0-9]{2}\b", self.answer)}


@functools.cache
def rows() -> dict[str, Row]:
    matches = map(_ROW.fullmatch, PAGE.read_text().splitlines())
    return {match[1]: Row(*match.groups()[1:]) for match in matches if match}


def names(module: Path) -> Iterator[str]:
    """The rules that a test module names."""
    for node in ast.walk(ast.parse(module.read_text())):
        match = None
        if isinstance(node, ast.FunctionDef):
            match = _FUNCTION.match(node.name)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            match = _IDS.match(node.value)  # the id of a row; of an f-string, its beginning
        if match:
            yield from re.findall(r"[FLWSP][0-9]{1,2}", match[0].upper())


@functools.cache
def held() -> dict[str, set[str]]:
    """By rule, what holds it: modules, and the corpus."""
    found: dict[str, set[str]] = {}
    for module in TESTS.rglob("test_*.py"):
        for rule in names(module):
            found.setdefault(rule, set()).add(str(module.relative_to(TESTS).with_suffix("")))
    for path in CORPUS.glob("*/[!R]*.http"):
        found.setdefault(path.name.partition("-")[0], set()).add("corpus")
    return found


def column(modules: Iterable[str]) -> str:
    return ", ".join(sorted(module.replace("test_", "", 1) for module in modules))


def refused_with(rule: str) -> set[int]:
    """The statuses that the corpus has for a rule."""
    return {json.loads(path.read_text())["status"] for path in CORPUS.glob(f"reject/{rule}-*.json")}


def test_every_rule_has_its_row() -> None:
    assert list(rows()) == RULES


@pytest.mark.parametrize("rule", RULES)
def test_who_holds_it(rule: str) -> None:
    assert rows()[rule].modules == column(held().get(rule, ())), "as docs/http.md has it, and as it is"
    assert rows()[rule].modules


@pytest.mark.parametrize("rule", RULES)
def test_with_which_status(rule: str) -> None:
    assert refused_with(rule) <= rows()[rule].statuses


def test_no_test_names_a_rule_that_there_is_not() -> None:
    assert held().keys() <= set(RULES)


def write() -> None:
    lines = PAGE.read_text().split("\n")
    for number, line in enumerate(lines):
        if match := _ROW.fullmatch(line):
            lines[number] = line[: match.start(5)] + column(held()[match[1]]) + " |"
    PAGE.write_text("\n".join(lines))


if __name__ == "__main__":
    write()
