"""The environment of the application: the server's own, env files, and what the settings add."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import ModuleType

from stardust.config.document import read_text
from stardust.settings.table import Config


def application_environment(config: Config, base: Mapping[str, str]) -> dict[str, str]:
    """The environment of the application: `base`, then the env files in order, then [environment].

    `${NAME}` in an env file is what stands for NAME so far: the two steps of `dotenv_values`, which itself
    knows no other base than this process's environment. ConfigError names the env file and its line.
    """
    environment = dict(base)
    for path in config.env_file:
        for name, value in bindings(path):
            # python-dotenv: a name without "=" sets nothing.
            if value is not None:
                environment[name] = _envfile().resolved(value, environment)
    environment.update(config.environment)
    return environment


def bindings(path: str) -> list[tuple[str, str | None]]:
    """The names and values of an env file, as written."""
    found: list[tuple[str, str | None]] = _envfile().bindings(read_text(path), path)
    return found


def _envfile() -> ModuleType:
    # Not above: with python-dotenv it costs 1 MiB and 15 ms, and most servers have no env file.
    return importlib.import_module("stardust.config.envfile")
