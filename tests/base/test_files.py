"""What one call for a file may leave undone is done."""

from __future__ import annotations

import errno
import os

import pytest

from stardust.base import files, system
from tests.faults import failing


def test_all_is_written_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(range(100))
    memory = os.memfd_create("pieces")
    write = system.write
    monkeypatch.setattr(system, "write", lambda descriptor, data: write(descriptor, data[:7]))
    files.write_all(memory, data)
    assert os.pread(memory, 1000, 0) == data
    os.close(memory)


def test_a_disk_that_is_full() -> None:
    with failing(1, errno.ENOSPC, only=["write"]), pytest.raises(OSError, match="No space left on device"):
        files.write_all(1, b"x")
