"""Boots a machine for each test that asks for one, of each release; or lends this one (machine.py)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machine import trees
from tests.machine.machine import Container, Machine, ThisMachine
from tests.machine.trees import Trees

HERE = Path(__file__).parent
ON_THIS_MACHINE = os.environ.get("STARDUST_MACHINE") == "here"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    reason = "" if ON_THIS_MACHINE else trees.missing_tools()
    if reason and "CI" in os.environ:
        raise pytest.UsageError(f"all tests run in CI, and those of {HERE.name} cannot: {reason}")
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.machine)
            item.add_marker(pytest.mark.timeout(600))
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))
    if ON_THIS_MACHINE:
        # This machine is of no release that we made, and must keep its package.
        unfit = [item for item in items if "release" in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=unfit)
        items[:] = [item for item in items if item not in unfit]


@pytest.fixture(params=trees.RELEASES)
def release(request: pytest.FixtureRequest) -> Trees:
    return trees.make(request.param)


@pytest.fixture
def bare(release: Trees) -> Iterator[Machine]:
    """A machine that has never seen stardust."""
    with Container([release.base]) as machine:
        yield from told(machine)


@pytest.fixture
def equipped(release: Trees) -> Iterator[Machine]:
    """A bare machine with the tools that check and test packages."""
    with Container([release.tools, release.base]) as machine:
        yield from told(machine)


if ON_THIS_MACHINE:

    @pytest.fixture
    def machine() -> Iterator[Machine]:
        """This machine, with nothing configured."""
        with ThisMachine() as machine:
            yield from told(machine)

else:

    @pytest.fixture
    def machine(release: Trees) -> Iterator[Machine]:
        """A machine where the package is installed, and nothing configured."""
        with Container([release.ready, release.base]) as machine:
            yield from told(machine)


def told(machine: Machine) -> Iterator[Machine]:
    """Ends with the machine's journal on standard output, which pytest shows when the test failed."""
    yield machine
    options = ("--no-pager", "--lines=200", "--unit=stardust*")
    print(machine.attempt("journalctl", *machine.since, *options).out)
