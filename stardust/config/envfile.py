"""Env files, NAME=VALUE, as python-dotenv reads them.

Loaded where a configuration names one, and nowhere else: python-dotenv brings `logging` and `tempfile` along,
15 ms of a start and 1 MiB for good. Pure: the text is given.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

from dotenv.parser import parse_stream
from dotenv.variables import parse_variables

from stardust.base.errors import ConfigError


def bindings(text: str, source: str) -> list[tuple[str, str | None]]:
    """The names and values of the file `source`, as written. ConfigError names it and the line."""
    found = []
    for binding in parse_stream(io.StringIO(text)):
        if binding.error or "\0" in binding.original.string:
            line = binding.original.line
            raise ConfigError("must be NAME=VALUE, as python-dotenv reads it", source=source, line=line)
        if binding.key is not None:
            found.append((binding.key, binding.value))
    return found


def resolved(value: str, environment: Mapping[str, str]) -> str:
    """`value` with what stands in `environment` for each ${NAME}."""
    return "".join(atom.resolve(environment) for atom in parse_variables(value))
