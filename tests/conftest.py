"""What all tests share: hypothesis never fails a test for being slow, for no test bounds time; and the
collector leaves alone what stays."""

from __future__ import annotations

import gc

from hypothesis import settings

settings.register_profile("stardust", deadline=None)
settings.load_profile("stardust")


def pytest_collection_finish() -> None:
    """All modules are imported now: half a million objects. `gc.collect()` would walk through them each time,
    for 0.15 s and more, and many tests call it, for they count the descriptors that are open."""
    gc.collect()
    gc.freeze()
