"""Fixtures of the worker's tests."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from stardust.ipc import messages
from stardust.settings.table import Config
from stardust.worker.connection import Connection
from tests.worker.forked import APP, Worker
from tests.worker.harness import (
    INLINE,
    THREADS,
    Server,
    Shared,
    Sibling,
)
from tests.worker.steps import Steps


@pytest.fixture(scope="session")
def steps() -> Iterator[Steps]:
    steps = Steps()
    with mock.patch.object(Connection, "stage", steps):
        yield steps


@pytest.fixture(autouse=True)
def no_unknown_step(steps: Steps) -> Iterator[None]:
    """Whatever a test does with connections: the table of their life has it."""
    yield
    unknown, steps.unknown = steps.unknown, set()
    assert unknown == set()


@pytest.fixture(params=[INLINE, THREADS], ids=["inline", "threads"])
def kept(request: pytest.FixtureRequest) -> Config:
    """Connections and workers go on for ever."""
    config: Config = request.param
    return config


@pytest.fixture
def sibling() -> Iterator[Sibling]:
    with Sibling() as sibling:
        yield sibling


@pytest.fixture
def shared(sibling: Sibling) -> Shared:
    return functools.partial(Server, link=sibling.link)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "application.py").write_text(APP)
    return Config(app=str(tmp_path / "application.py"), max_reqs_per_child=0)


@pytest.fixture
def worker(tmp_path: Path, config: Config) -> Iterator[Worker]:
    with Worker(tmp_path, config) as worker:
        assert worker.message() == messages.Ready()
        yield worker
