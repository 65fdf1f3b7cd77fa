"""Chance after a fork: what the application draws must not be the same in each worker.

Python seeds the shared generator of `random` in each child (os.register_at_fork), NumPy does not
seed its own. Generators that the application has made are its own to seed, in `after-fork` or by
`os.register_at_fork`.

Runs in the application's interpreter too.
"""

from __future__ import annotations

import sys
from typing import Any

from stardust.base import system

_WORDS = 8  # of 32 bits each


def seed() -> None:
    """Seed numpy.random anew, from the kernel's, if the application has imported it."""
    numpy: Any = sys.modules.get("numpy.random")
    if numpy is None:
        return
    entropy = system.urandom(4 * _WORDS)
    try:
        numpy.seed([int.from_bytes(entropy[at : at + 4], "big") for at in range(0, len(entropy), 4)])
    except Exception:
        pass  # the application has put something of its own there: another generator cannot be seeded so
