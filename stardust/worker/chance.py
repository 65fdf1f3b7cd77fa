"""Chance after a fork: what the application draws must not be the same in each worker.

The shared generators of `random` and `numpy.random` are seeded anew, from the kernel's. Python does the first
by itself, NumPy does not. Generators that the application has made are its own to seed, in `after-fork` or by
`os.register_at_fork`.

Runs in the application's interpreter too.
"""

from __future__ import annotations

import sys
from typing import Any

from stardust.base import system

_WORDS = 8  # of 32 bits each


def seed() -> None:
    """Seed them, as far as the application has imported them."""
    own = sys.modules.get("random")
    reseed: Any = getattr(own, "seed", None)
    kind: Any = getattr(own, "Random", None)  # the application may have put anything there
    if isinstance(kind, type) and isinstance(getattr(reseed, "__self__", None), kind):
        reseed()  # else it is a module of that name of the application's
    numpy: Any = sys.modules.get("numpy.random")
    if numpy is not None:
        entropy = system.urandom(4 * _WORDS)
        try:
            numpy.seed([int.from_bytes(entropy[at : at + 4], "big") for at in range(0, len(entropy), 4)])
        except TypeError:
            pass  # the application has put another generator in the place of NumPy's own
