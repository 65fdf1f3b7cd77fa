"""The kinds of values: how a size, a time, a mode, an address is written, read and printed.

    flag's text ──Kind.plain──▶ TOML value ──Kind.read──▶ field's value ──toml──▶ text in a TOML file

Units of what is read: seconds (float) and bytes (int). Only this module knows "30s" and "1MiB".

Pure. Runs in the application's interpreter too: Python 3.9.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Generic, Optional, TypeVar, Union

from stardust.base import address as addresses
from stardust.base.address import Address
from stardust.base.records import dataclass

SECOND = 1.0
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
PIB = 1024 * 1024 * GIB

AUTO = "auto"
"""The word of a switch that the server is to set by what it finds."""

CREDENTIAL = "credential:"
"""What stands before the name of a credential (systemd.exec(5), LoadCredential=) in place of a path."""

FORWARDED = "forwarded"
FORWARDED_HEADERS = (
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    FORWARDED,
)
"""The fields by which a trusted proxy may tell of its client, the last one instead of all others."""

_DURATION_UNITS = {"ms": 0.001, "s": SECOND, "min": MINUTE, "h": HOUR}
_SIZE_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": KIB, "MiB": MIB, "GiB": GIB}
_QUANTITY = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([A-Za-z]*)")
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_OCTAL = re.compile(r"(?:0o)?([0-7]{1,4})")
_HOOK = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*(?:\.[^\W\d]\w*)*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_ON = ("1", "true", "yes", "on")
_OFF = ("0", "false", "no", "off")

Value = TypeVar("Value")
"""The type of the values of a kind."""


@dataclass(frozen=True)
class Kind(Generic[Value]):
    """How values of one kind are written. Its parameter is the type of the field that has such a value.

    `shape` is the placeholder in usage texts; `right` says what a right value is, `hint` how it may be
    written. `plain` gives the TOML value that a flag's text stands for. `read` gives the field's value for a
    TOML value; ValueError, with a reason or empty, if it has none. `many`: the flag may be repeated.
    """

    shape: str
    right: str
    hint: str
    plain: Callable[[str], object]
    read: Callable[[object], Value]
    many: bool = False


def _itself(text: str) -> object:
    return text


def _whole_number(text: str) -> object:
    return int(text) if _WHOLE.fullmatch(text) else text


def _switch_word(text: str) -> object:
    word = text.lower()
    return word in _ON if word in _ON + _OFF else text


def _pair(text: str) -> object:
    name, equals, value = text.partition("=")
    return {name: value} if equals else text


def _read_count(value: object) -> int:
    # bool is a kind of int in Python, and not in TOML.
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError


def _read_switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError


def _read_automatic(value: object) -> Union[bool, str]:
    return AUTO if value == AUTO else _read_switch(value)


def _read_hook(value: object) -> str:
    text = _read_text(value)
    if text and not _HOOK.fullmatch(text):
        raise ValueError
    return text


def _read_own_switch(value: object) -> Optional[bool]:
    return None if value == "" else _read_switch(value)


def _read_seconds(value: object) -> float:
    if isinstance(value, str):
        return _quantity(value, _DURATION_UNITS)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    raise ValueError


def _read_bytes(value: object) -> int:
    if not isinstance(value, str):
        return _read_count(value)
    size = _quantity(value, _SIZE_UNITS)
    if size != int(size):
        raise ValueError("it is not a whole number of bytes")
    return int(size)


def _quantity(text: str, units: Mapping[str, float]) -> float:
    """The number that "1.5min" stands for. Without a unit it counts seconds, or bytes."""
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        raise ValueError
    number, unit = match.groups()
    if unit and unit not in units:
        raise ValueError(f'unknown unit "{unit}"; use one of {", ".join(units)}')
    # Dividing by a whole number is exact where multiplying by 0.001 is not: 300ms is 0.3.
    return float(number) / 1000 if unit == "ms" else float(number) * (units[unit] if unit else 1)


def _read_text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError
    if "\0" in value:
        raise ValueError("it contains a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("it is not valid UTF-8") from None
    return value


def _read_texts(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (_read_text(value),)
    if isinstance(value, list):
        return tuple(_read_text(item) for item in value)
    raise ValueError


def _read_verification(value: object) -> str:
    # IO::Socket::SSL's numbers: SSL_VERIFY_NONE, _PEER, and _PEER with _FAIL_IF_NO_PEER_CERT.
    if isinstance(value, bool):
        raise ValueError
    return {"0": "none", "1": "optional", "3": "required"}.get(str(value)) or _read_text(value)


def _read_pairs(value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict):
        raise ValueError
    return tuple((_variable_name(name), _variable_value(item)) for name, item in value.items())


def _variable_name(name: str) -> str:
    # environ(7): "name=value". A name with "=" or without a character cannot be told from its value.
    if name == "" or "=" in name:
        raise ValueError(f'"{name}" cannot be the name of a variable')
    return _read_text(name)


def _variable_value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else _read_text(value)


def _read_mode(value: object) -> Optional[int]:
    # Only text: a TOML number 660 does not say whether it was meant as octal.
    if value == "":
        return None
    match = _OCTAL.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError
    return int(match[1], 8)


def _read_address(value: object) -> Optional[Address]:
    text = _read_text(value)
    return addresses.parse(text) if text else None


def _read_proxies(value: object) -> tuple[str, ...]:
    texts = _read_texts(value)
    addresses.Peers(texts)
    return texts


def _read_headers(value: object) -> tuple[str, ...]:
    names = tuple(name.lower() for name in _read_texts(value))
    for name in names:
        if name not in FORWARDED_HEADERS:
            raise ValueError(f'"{name}" is not one of them')
    if FORWARDED in names and len(names) > 1:
        raise ValueError(f'remove "{FORWARDED}" or the others, which could contradict it')
    return names


COUNT = Kind("N", "a whole number", "", _whole_number, _read_count)
SWITCH = Kind("0|1", "true or false", "", _switch_word, _read_switch)
AUTOMATIC: Kind[Union[bool, str]] = Kind(
    "auto|0|1", f'true, false or "{AUTO}"', "", _switch_word, _read_automatic
)
HOOK = Kind("MODULE:CALLABLE", "a function", 'text such as "module:function"', _itself, _read_hook)
SECONDS = Kind(
    "SECONDS", "a duration", 'seconds, or text such as "500ms", "30s", "5min", "2h"', _itself, _read_seconds
)
BYTES = Kind("BYTES", "a size", 'bytes, or text such as "64KiB", "1MiB", "2GiB"', _whole_number, _read_bytes)
TEXT = Kind("TEXT", "text", "", _itself, _read_text)
CHOICE = Kind("WORD", "one of", "", _itself, _read_text)
PATH = Kind("PATH", "a path", "", _itself, _read_text)
COMMAND = Kind("PATH", "an executable file", "a path, or a name to look up on PATH", _itself, _read_text)
VERIFICATION = Kind("WORD", "one of", "or their numbers 0, 1, 3", _itself, _read_verification)
FILE = Kind("PATH", "a file", 'a path, or "credential:NAME"', _itself, _read_text)
FILES = Kind(
    "PATH", "a file or a list of files", 'a path, or "credential:NAME"', _itself, _read_texts, many=True
)
TEXTS = Kind("TEXT", "a text or a list of texts", "", _itself, _read_texts, many=True)
OWN_SWITCH = Kind(
    "0|1", "true or false", 'or "" for what the whole server has', _switch_word, _read_own_switch
)
PROXIES = Kind(
    "ADDRESS",
    "an address or a list of addresses",
    'an IP address, a network such as "10.0.0.0/8", or "unix:"',
    _itself,
    _read_proxies,
    many=True,
)
HEADERS = Kind(
    "NAME",
    "some of " + ", ".join(FORWARDED_HEADERS[:-1]) + f', or "{FORWARDED}" alone',
    "",
    _itself,
    _read_headers,
    many=True,
)
PAIRS = Kind("NAME=VALUE", "a table of texts by name", "", _pair, _read_pairs, many=True)
MODE = Kind("MODE", "an octal mode", 'text such as "0660", or 0o660', _itself, _read_mode)
ADDRESS = Kind(
    "ADDRESS", "an address", "host:port, [v6]:port, :port, /path or @abstract", _itself, _read_address
)


# ── Values as text ────────────────────────────────────────────────────────────────────────────────────


def amount(kind: Kind[Any], number: float) -> str:
    """`number` in the largest unit of `kind` that it is a whole multiple of: "10ms", "5min", "64KiB"."""
    if kind is SECONDS and number:
        units = {name: round(size * 1000) for name, size in _DURATION_UNITS.items()}
        return _in_units(round(number * 1000), units)
    if kind is BYTES and number >= KIB:
        return _in_units(int(number), {"B": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB})
    return f"{int(number):04o}" if kind is MODE else f"{number:g}"


def _in_units(number: int, units: Mapping[str, int]) -> str:
    unit = max((name for name in units if number % units[name] == 0), key=lambda name: units[name])
    return f"{number // units[unit]}{unit}"


def toml(value: object, kind: Optional[Kind[Any]] = None) -> str:
    """`value` as TOML. With the kind of its setting, the text reads back as the same value."""
    if value is None:
        return '""'
    if kind is MODE:
        return f'"{value:04o}"'
    if kind is BYTES and isinstance(value, int) and value >= KIB and value % KIB == 0:
        return f'"{amount(kind, value)}"'
    if kind is PAIRS and isinstance(value, tuple):
        return toml(dict(value))
    return _plain_toml(value)


def _plain_toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, Address)):
        return _toml_text(str(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_plain_toml, value)) + "]"
    if isinstance(value, dict):
        pairs = ", ".join(f"{toml_key(name)} = {_plain_toml(item)}" for name, item in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    return str(value)


def toml_key(name: str) -> str:
    """`name` as a key: bare if TOML allows, else quoted."""
    return name if _BARE_KEY.fullmatch(name) else _toml_text(name)


def _toml_text(text: str) -> str:
    # JSON's string is a TOML basic string but for DEL, which TOML wants escaped, and for surrogate pairs,
    # which ensure_ascii would write.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
