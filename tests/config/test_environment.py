"""Env files and settings become the environment of the application."""

from __future__ import annotations

from pathlib import Path

import pytest

from stardust.base.errors import ConfigError
from stardust.config.environment import application_environment
from stardust.settings.table import Config
from tests.config.given import config


def test_the_environment_of_the_application(tmp_path: Path) -> None:
    one, two = tmp_path / "one.env", tmp_path / "two.env"
    one.write_text("# comment\nexport A=one\nB='two words'\nBASE=${BASE}+${A}\nNOTHING\n\n")
    two.write_text('B=${B}!\nC="${MISSING:-c}\\n"\nD=file\n')
    found = Config(env_file=(str(one), str(two)), environment=(("D", "table"), ("E", "${A}")))
    base = {"BASE": "base", "A": "zero"}
    assert application_environment(found, base) == {
        "A": "one",
        "B": "two words!",
        "BASE": "base+one",
        "C": "c\n",
        "D": "table",
        "E": "${A}",
    }
    assert base == {"BASE": "base", "A": "zero"}


@pytest.mark.parametrize("text", ["A=1\n='x'\n", "A=1\nB='x\n", "A=1\nB=\0\n"])
def test_a_broken_env_file_is_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.env"
    path.write_text(text)
    reason = f"{path}:2: must be NAME=VALUE, as python-dotenv reads it"
    with pytest.raises(ConfigError) as caught:
        application_environment(Config(env_file=(str(path),)), {})
    assert str(caught.value) == reason
    with pytest.raises(ConfigError) as caught:
        config("--env-file", str(path))
    assert str(caught.value) == f"command line: --env-file: {reason}"
