"""NumPy's shared generator is seeded anew; that Python does the same to its own is for tests/zygote."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from stardust.worker import chance


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


def test_nothing_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "numpy.random", raising=False)
    chance.seed()
    assert "numpy.random" not in sys.modules
