"""The package's tests for autopkgtest(1), run as it does: on a machine with the package installed."""

from __future__ import annotations

import re

import pytest

from tests.machine import trees
from tests.machine.machine import PLACES, Machine
from tests.machine.test_package import install
from tests.machine.trees import Trees

# Enough to see that they can be run so: all of them are run in containers anyway.
SOME = ("tests/machine/test_lifecycle.py", "tests/machine/test_package.py")


def run(machine: Machine, test: str, *arguments: str) -> str:
    """A test in a copy of the source, away from the tree it is in; what it printed."""
    trees.copy(trees.project(), machine.path("/root/source"))
    machine.path("/root/tmp").mkdir()
    script = f'cd /root/source && AUTOPKGTEST_TMP=/root/tmp exec packaging/debian/tests/{test} "$@"'
    return machine.run("sh", "-euc", script, test, *arguments)


def left_by_tests(machine: Machine) -> str:
    return machine.shell(f"find {' '.join(PLACES)} 2>/dev/null | sort; cut -d: -f1 /etc/passwd")


def test_scenarios(equipped: Machine, release: Trees) -> None:
    install(equipped, release.package)
    before = left_by_tests(equipped)
    said = run(equipped, "scenarios", *SOME)
    assert re.search(r"\b[1-9][0-9]* passed, [1-9][0-9]* deselected in ", said), said
    assert left_by_tests(equipped) == before


@pytest.mark.usefixtures("release")
def test_unit_lint(machine: Machine) -> None:
    run(machine, "unit-lint")
