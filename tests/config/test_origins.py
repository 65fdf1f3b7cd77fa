"""Every value, and every error, knows its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from stardust.base.errors import ConfigError
from tests.config.given import WHOLE_FILE, from_file


def test_every_value_knows_where_it_comes_from(file: Path) -> None:
    found = from_file(file, WHOLE_FILE, "--threads=2", "--environment=B=1")
    origins = {
        "app": f"{file}:1",
        "timeout": f"{file}:2",
        "threads": "flag --threads",
        "backlog": "default",
        "environment.A": f"{file}:4",
        "environment.B": "flag --environment",
        "listen.http.address": f"{file}:7",
        "listen.http.mode": "default",
        "listen.local.mode": f"{file}:13",
    }
    assert {key: str(found.origin(key)) for key in origins} == origins


def test_the_error_carries_its_place(file: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        from_file(file, "\nthreads = 0\n", "app")
    assert (caught.value.source, caught.value.line, caught.value.key) == (str(file), 2, "threads")
