"""No file, class or function in `stardust/` is larger than somebody reads in one go.

What ruff holds (statements, branches, complexity) is in pyproject.toml, with its exceptions; that these are
still needed is held here.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Union

import pytest

TOP = Path(__file__).parents[1]
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text())

FILE_LINES = 650
CLASS_LINES = 400
CLASS_ATTRIBUTES = 25
FUNCTION_LINES = 60

# What is larger, and why it may be. Keys are "file: kind" or "file: kind name".
EXCEPTIONS = {
    "settings/table.py: lines of the file": "the one table of all settings, a row each",
    "settings/table.py: lines of Config": "the same",
    "settings/table.py: attributes of Config": "the same: an attribute each",
    "worker/serving.py: lines of Serving.begin": "the way of a request: hot, hence flat",
}

Function = Union[ast.FunctionDef, ast.AsyncFunctionDef]


def lines(node: Union[ast.ClassDef, Function]) -> int:
    """From its first line to its last, docstring and comments included, decorators not."""
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def attributes(node: ast.ClassDef) -> set[str]:
    """What an object of this class holds: its slots, its fields, all that is assigned to self."""
    names = set()
    for each in ast.walk(node):
        match each:
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                names.add(name)
    for statement in node.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id="__slots__")], value=slots):
                written = ast.literal_eval(slots)
                names.update([written] if isinstance(written, str) else written)
            case ast.AnnAssign(target=ast.Name(id=name), annotation=kind) if "ClassVar" not in ast.unparse(
                kind
            ):
                names.add(name)
    return names


def measured(node: ast.AST, within: str = "") -> Iterator[tuple[str, int, int]]:
    """What is measured of all classes and functions in `node`: (kind and name, how much, how much may be)."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            name = f"{within}{child.name}"
            yield f"lines of {name}", lines(child), CLASS_LINES
            yield f"attributes of {name}", len(attributes(child)), CLASS_ATTRIBUTES
            yield from measured(child, f"{name}.")
        elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            name = f"{within}{child.name}"
            yield f"lines of {name}", lines(child), FUNCTION_LINES
            yield from measured(child, f"{name}.")
        else:
            yield from measured(child, within)


def too_large(source: str) -> dict[str, int]:
    """What in a file is above its limit, with its size."""
    whole = ("lines of the file", len(source.splitlines()), FILE_LINES)
    found = [whole, *measured(ast.parse(source))]
    return {name: size for name, size, limit in found if size > limit}


def test_nothing_is_too_large() -> None:
    found = {
        f"{path.relative_to(TOP / 'stardust')}: {name}": size
        for path in sorted((TOP / "stardust").rglob("*.py"))
        for name, size in too_large(path.read_text()).items()
    }
    assert {name: size for name, size in found.items() if name not in EXCEPTIONS} == {}
    assert EXCEPTIONS.keys() - found.keys() == set(), "these exceptions are no longer needed"


FILLER = "        pass\n"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("pass\n" * 650, {}),
        ("pass\n" * 651, {"lines of the file": 651}),
        ("class A:\n    def f(self):\n" + FILLER * 59, {}),
        ("class A:\n    def f(self):\n" + FILLER * 60, {"lines of A.f": 61}),
        ("class A:\n    async def f(self):\n" + FILLER * 60, {"lines of A.f": 61}),
        ("if a:\n    def f(self):\n" + FILLER * 60, {"lines of f": 61}),
        ("class A:\n" + "    def f(self):\n        pass\n" * 200, {"lines of A": 401}),
        ("def f():\n    def g():\n" + FILLER * 60, {"lines of f": 62, "lines of f.g": 61}),
    ],
)
def test_what_is_too_large(source: str, found: dict[str, int]) -> None:
    assert too_large(source) == found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("class A:\n    __slots__ = ('a', 'b')\n    def f(self): self.b = self.c", {"a", "b"}),
        ("class A:\n    __slots__ = 'a'", {"a"}),
        ("class A:\n    a: int\n    b: int = 1\n    C: ClassVar[int] = 1\n    D = 1", {"a", "b"}),
        ("class A:\n    def f(self): self.a, self.b = self.c.d = 1, 2", {"a", "b"}),
        (
            "class A:\n    def f(self):\n        self.a += 1\n        with x as self.b: other.c = 1",
            {"a", "b"},
        ),
    ],
    ids=["slots", "one slot", "fields", "unpacked", "augmented"],
)
def test_what_an_object_holds(source: str, found: set[str]) -> None:
    [node] = ast.parse(source).body
    assert isinstance(node, ast.ClassDef)
    assert attributes(node) == found


def test_the_exceptions_for_ruff_are_needed() -> None:
    ignored = PROJECT["tool"]["ruff"]["lint"]["per-file-ignores"]
    rules = sorted({rule for listed in ignored.values() for rule in listed})
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--exit-zero", "--output-format=json"]
    unlimited = [f"--select={','.join(rules)}", "--config=lint.per-file-ignores={}"]
    done = subprocess.run(
        [*command, *unlimited, "."], cwd=TOP, capture_output=True, text=True, check=True, timeout=60
    )
    broken = {
        (str(Path(each["filename"]).relative_to(TOP)), each["code"]) for each in json.loads(done.stdout)
    }
    assert {(path, rule) for path, listed in ignored.items() for rule in listed} == broken
