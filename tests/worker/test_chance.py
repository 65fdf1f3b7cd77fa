"""Which generators are seeded anew, and that a module that only looks like one is left alone."""

from __future__ import annotations

import random
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from stardust.worker import chance


def test_pythons_own() -> None:
    drawn = []
    for _ in range(2):
        random.seed(1)
        chance.seed()
        drawn.append(random.random())
    assert drawn[0] != drawn[1]


def test_numpys(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 256 bits, each time others: numpy.random.seed takes numbers of 32 bits."""
    seeds: list[Any] = []
    monkeypatch.setitem(sys.modules, "numpy.random", SimpleNamespace(seed=seeds.append))
    chance.seed()
    chance.seed()
    assert [len(each) for each in seeds] == [8, 8]
    assert all(0 <= number < 2**32 for each in seeds for number in each)
    assert seeds[0] != seeds[1]


def test_another_generator_in_the_place_of_numpys(monkeypatch: pytest.MonkeyPatch) -> None:
    """numpy.random.set_bit_generator; NumPy says: can only re-seed a MT19937 BitGenerator."""

    def seed(words: object) -> None:
        raise TypeError("can only re-seed a MT19937 BitGenerator")

    monkeypatch.setitem(sys.modules, "numpy.random", SimpleNamespace(seed=seed))
    chance.seed()


def test_a_module_of_the_applications_of_that_name(monkeypatch: pytest.MonkeyPatch) -> None:
    own: Any = ModuleType("random")
    own.seed = lambda packet: packet
    monkeypatch.setitem(sys.modules, "random", own)
    chance.seed()


def test_nothing_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("random", "numpy.random"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    chance.seed()
    assert "random" not in sys.modules
