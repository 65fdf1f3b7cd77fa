"""A moment of fuzzing in every run of the tests, and all that fuzzing ever found."""

from __future__ import annotations

import gc
import random
from itertools import islice
from pathlib import Path
from unittest.mock import Mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tests.fuzz.__main__ as driver
from tests.fuzz.targets import FINDINGS, TARGETS, draw, response, seeds

INPUTS = {"http1": 3000, "worker": 1000, "response": 3000}


@pytest.fixture(autouse=True)
def collected() -> None:
    """Descriptors are counted here for each of thousands of inputs. Those that earlier tests left to the
    collector must not be closed in between: the memory of a scoreboard holds one, and a loop is a cycle."""
    gc.collect()


@pytest.mark.parametrize("name", TARGETS)
def test_l13_w1_w5_drawn(name: str) -> None:
    judged = sum(map(TARGETS[name], islice(draw(name, random.Random(1)), INPUTS[name])))
    assert judged >= INPUTS[name]


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_has_a_collection_of_its_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One walks through all that earlier tests left alive: two for each of a thousand inputs took two minutes
    on a loaded machine, at the end of a long run. What the time limit of pytest then raises falls into a
    callback of the collector, which may swallow it, and looks like a hang of the loop."""
    collect = Mock()
    monkeypatch.setattr(gc, "collect", collect)
    for data in islice(draw(name, random.Random(2)), 10):
        TARGETS[name](data)
    assert not collect.called


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_findings(name: str) -> None:
    for data in seeds(name):
        TARGETS[name](data)
    assert len(seeds(name)) >= len([*(FINDINGS / name).glob("*")])


def test_a_finding_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(data: bytes) -> int:
        raise AssertionError("a finding")

    monkeypatch.setattr(driver, "FINDINGS", tmp_path)
    monkeypatch.setitem(TARGETS, "http1", fail)
    with pytest.raises(AssertionError, match="a finding"):
        driver.drawn("http1", 10, seed=1)
    [path] = (tmp_path / "http1").iterdir()
    assert path.read_bytes() == next(draw("http1", random.Random(1)))


@given(st.binary(max_size=120))
@settings(max_examples=1000)
def test_w1_w2_w3_w4_w5_w6_w9_no_application_desynchronises_its_client(data: bytes) -> None:
    """See targets.py; hypothesis finds the shortest application that does."""
    response(data)
