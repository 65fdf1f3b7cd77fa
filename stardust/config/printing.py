"""`--print-config`: a configuration as TOML that reads back, each value with where it comes from."""

from __future__ import annotations

from typing import Any

from stardust.config.origins import LISTEN, Loaded, Origin
from stardust.settings import kinds
from stardust.settings import table as settings


def printed(loaded: Loaded) -> str:
    """Every setting as TOML that reads back as the same configuration, each with where it comes from."""
    config = loaded.config
    lines, tables = [], []
    for setting in settings.SETTINGS:
        value = getattr(config, setting.name)
        if setting.kind is kinds.PAIRS and value:
            pairs = [_printed(name, text, loaded.origin(f"{setting.key}.{name}")) for name, text in value]
            tables += ["", f"[{setting.key}]", *pairs]
        else:
            lines.append(_printed(setting.key, value, loaded.origin(setting.key), setting.kind))
    for listen in config.listen:
        tables += ["", f"[{LISTEN}.{kinds.toml_key(listen.name)}]"]
        for setting in settings.LISTEN_SETTINGS:
            origin = loaded.origin(f"{LISTEN}.{listen.name}.{setting.key}")
            tables.append(_printed(setting.key, getattr(listen, setting.name), origin, setting.kind))
    return "\n".join([*lines, *tables, ""])


def _printed(key: str, value: object, origin: Origin, kind: kinds.Kind[Any] | None = None) -> str:
    return f"{kinds.toml_key(key)} = {kinds.toml(value, kind)}  # {origin}"
