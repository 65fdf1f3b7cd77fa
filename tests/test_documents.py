"""What documents and docstrings name is there: modules, members of classes, and other documents.

A reader who follows a path into the code must not find it gone. So each rename shows which pages to correct.
"""

from __future__ import annotations

import ast
import functools
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
PAGES = [TOP / "README.md", TOP / "CONTRIBUTING.md", *sorted((TOP / "docs").glob("*.md"))]
# Where a path of a document may begin, and where a mere file name may be.
ROOTS = [TOP, TOP / "stardust"]
FOLDERS = ["bench", "examples", "stardust", "tests", "tools"]

# Files of applications, in texts that say what a path may be like.
EXAMPLES = {"file.py", "path/to/file.py", "srv/app.py"}

SPAN = re.compile(r"`([^`\n]+)`")
PATH = re.compile(r"(?<![\w./-])(?:[\w-]+/)*[\w-]+\.py\b")
MEMBER = re.compile(r"(?<![\w./])([A-Z][A-Za-z]+)\.(\w+)")
LINK = re.compile(r"\]\((?!https?:)([^)#]+)[^)]*\)")


def spans(text: str) -> Iterator[str]:
    """What stands in backticks."""
    return (found[1] for found in SPAN.finditer(text))


def paths(text: str) -> set[str]:
    """The Python files that `text` names."""
    return {found[0] for span in spans(text) for found in PATH.finditer(span)}


def members(text: str) -> set[tuple[str, str]]:
    """`Class.member`, of any class."""
    return {(found[1], found[2]) for span in spans(text) for found in MEMBER.finditer(span)}


def exists(path: str) -> bool:
    if "/" in path:
        return any((root / path).is_file() for root in ROOTS)
    return any(any((TOP / folder).rglob(path)) for folder in FOLDERS)


@functools.cache
def classes() -> dict[str, str]:
    """Each class of the package, and its source."""
    found: dict[str, str] = {}
    for module in (TOP / "stardust").rglob("*.py"):
        source = module.read_text()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef):
                found[node.name] = found.get(node.name, "") + (ast.get_source_segment(source, node) or "")
    return found


def test_what_counts_as_a_name() -> None:
    text = (
        "`worker/loop.py`, (`plan.py`), `python bench/run.py -h`, loop.py, `/srv/app.py`, `Book.drop`, `a.B`"
    )
    assert paths(text) == {"worker/loop.py", "plan.py", "bench/run.py"}
    assert members(text) == {("Book", "drop")}
    assert all(map(exists, ["worker/loop.py", "bench/run.py", "plan.py"]))
    assert not any(map(exists, ["worker/plan.py", "nothing.py"]))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_file_that_is_named_is_there(page: Path) -> None:
    assert [path for path in sorted(paths(page.read_text())) if not exists(path)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_member_that_is_named_is_there(page: Path) -> None:
    """Of classes of the package: others have documents of their own."""
    known = classes()
    named = [(owner, name) for owner, name in sorted(members(page.read_text())) if owner in known]
    assert [each for each in named if not re.search(rf"\b{each[1]}\b", known[each[0]])] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_leads_somewhere(page: Path) -> None:
    links = LINK.findall(page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_what_docstrings_and_comments_name_is_there() -> None:
    """From the package's folder, or in the module's own."""
    lost = []
    for module in (TOP / "stardust").rglob("*.py"):
        with module.open("rb") as file:
            tokens = list(tokenize.tokenize(file.readline))
        prose = [
            token.string
            for token in tokens
            if token.type == tokenize.COMMENT or token.string.lstrip("rf").startswith('"""')
        ]
        named = {found[0] for text in prose for found in PATH.finditer(text)} - EXAMPLES
        roots = [*ROOTS, module.parent]
        lost += [(module.name, path) for path in named if not any((root / path).is_file() for root in roots)]
    assert lost == []
