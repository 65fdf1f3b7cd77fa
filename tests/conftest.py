"""What all tests share: hypothesis never fails a test for being slow, for no test bounds time."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("stardust", deadline=None)
settings.load_profile("stardust")
