"""Which descriptors this process has open: for tests of what must not leave one behind."""

from __future__ import annotations

import gc
import os


def open_descriptors() -> set[str]:
    """Their numbers. Earlier tests may have left some to the collector, which else comes when it likes."""
    gc.collect()
    return set(os.listdir("/proc/self/fd"))
