"""What tests of configurations are given, and how they ask."""

from __future__ import annotations

from pathlib import Path

import pytest

from stardust.base.errors import ConfigError, Exit
from stardust.base.records import replace
from stardust.config.arguments import parse_arguments
from stardust.config.origins import Loaded
from stardust.config.reading import read
from stardust.settings.table import Config


def loaded(*argv: str) -> Loaded:
    return read(parse_arguments(argv), {})


def config(*argv: str) -> Config:
    """What flags and an application give, but for the application."""
    return replace(loaded(*argv, "app").config, app="")


def from_file(file: Path, text: str, *argv: str) -> Loaded:
    file.write_text(text)
    return loaded("--config", str(file), *argv)


def refusal(file: Path, text: str, *argv: str) -> list[str]:
    """The lines of the error, without the file's directory."""
    with pytest.raises(ConfigError) as caught:
        from_file(file, text, *argv)
    assert caught.value.exit == Exit.CONFIG
    return str(caught.value).replace(f"{file.parent}/", "").splitlines()


def with_credentials(directory: str, *argv: str) -> Loaded:
    return read(parse_arguments(argv), {"CREDENTIALS_DIRECTORY": directory})


WHOLE_FILE = """\
app = "myapp:app"       # a comment
timeout = "5min"
umask = 0o022
environment.A = 1

[listen.http]
address = ":80"

[listen."my app.socket"]

[listen.local]
address = "run/x.sock"
mode = 0o660
owner = "root"
group = "0"
"""
