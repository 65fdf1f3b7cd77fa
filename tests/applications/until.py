"""Waiting for what nobody announces."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.live.client import PATIENCE


def until(true: Callable[[], bool]) -> None:
    """Ask again and again, with a deadline."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
