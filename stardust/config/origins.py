"""Where each value of a configuration comes from: the defaults, the command line, or a line of a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from stardust.base.errors import ConfigError
from stardust.base.records import dataclass
from stardust.settings.table import COMMAND_LINE, Config

LISTEN = "listen"
"""What the keys of listeners begin with: "listen.http.mode"."""


class Origin(NamedTuple):
    """Where a value comes from: `source` is "" (the default), COMMAND_LINE or a file; `key` as spelled so."""

    source: str
    line: int | None
    key: str

    def error(self, reason: str) -> ConfigError:
        return ConfigError(reason, source=self.source, line=self.line, key=self.key)

    def __str__(self) -> str:
        if self.source == COMMAND_LINE:
            return f"flag {self.key}"
        return f"{self.source}:{self.line}" if self.source else "default"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration and where its values come from, by dotted key: "max-workers", "listen.http.mode"."""

    config: Config
    origins: Mapping[str, Origin]

    def origin(self, key: str) -> Origin:
        return self.origins.get(key, Origin("", None, key))
