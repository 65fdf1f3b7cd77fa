"""The copies: complete, known to nobody, and untouched by what happens to the originals."""

from __future__ import annotations

import select
import sys
import time

import pytest

from stardust.base import pristine

# What tzset(3) writes anew, which the test of anything with a time zone calls.
OF_THE_ZONE = {"altzone", "daylight", "timezone", "tzname"}


@pytest.mark.parametrize("name", pristine.NAMES)
def test_a_copy_is_complete_and_known_to_nobody(name: str) -> None:
    copy, original = getattr(pristine, name), sys.modules[name]
    assert copy is not original
    assert vars(copy).keys() == vars(original).keys()
    constant = vars(copy).keys() - OF_THE_ZONE
    assert [key for key in constant if vars(original)[key] is not vars(copy)[key]] == []
    assert copy not in sys.modules.values()


def test_who_patches_the_original_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As gevent does, and freezegun, which looks through all modules for what it replaces."""
    real = time.monotonic
    monkeypatch.delattr(select, "epoll")
    for module in [*sys.modules.values()]:
        for name, value in [*vars(module).items()]:
            if value is real:
                monkeypatch.setattr(module, name, lambda: 0.0)
    assert time.monotonic() == 0.0
    assert pristine.time.monotonic() > 0.0
    pristine.select.epoll().close()
