"""What one call for a file may leave undone.

Runs in the application's interpreter too.
"""

from __future__ import annotations

from stardust.base import system


def write_all(descriptor: int, data: bytes) -> None:
    """Write `data`, in as many pieces as the kernel likes."""
    view = memoryview(data)
    while view:
        view = view[system.write(descriptor, view) :]
