"""Which descriptors this process has open: for tests of what must not leave one behind."""

from __future__ import annotations

import gc
import os


def open_descriptors() -> set[str]:
    """Their numbers. Earlier tests may have left some to the collector, which else comes when it likes.

    Call it once before what is counted, not for each of many steps: a collection walks through all that
    earlier tests left alive, which late in a run takes 0.1 s on a loaded machine. `still_open` is for steps.
    """
    gc.collect()
    return still_open()


def still_open() -> set[str]:
    """The same without a collection, for who has called `open_descriptors` before."""
    return set(os.listdir("/proc/self/fd"))
