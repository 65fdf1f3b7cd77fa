"""A TOML file: its text, its values, and the line of each of them, which tomllib does not tell."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from stardust.base import system
from stardust.base.errors import ConfigError
from stardust.base.records import dataclass
from stardust.config.origins import Origin
from stardust.settings import kinds
from stardust.settings.row import Setting


class Place(NamedTuple):
    """Where a key stands, counting lines from 1, and the first token of its value ("" for a table)."""

    line: int
    token: str


@dataclass(frozen=True, slots=True)
class Document:
    """A TOML file: its path, its values, and the place of every key."""

    source: str
    table: Mapping[str, Any]
    places: Mapping[tuple[str, ...], Place]

    @property
    def directory(self) -> str:
        return os.path.dirname(self.source)

    def origin(self, *path: str) -> Origin:
        place = self.places.get(path)
        return Origin(self.source, place.line if place else None, ".".join(path))

    def written(self, value: object, setting: Setting, *path: str) -> object:
        """`value`; of a mode written as 0o660 the text, for the number no longer tells how it was written."""
        token = self.places[path].token if setting.kind is kinds.MODE else ""
        return token if token.startswith("0o") else value


def read_document(source: str) -> Document:
    text = read_text(source)
    try:
        return Document(source, tomllib.loads(text), places(text))
    except tomllib.TOMLDecodeError as error:
        at = re.search(r" \(at line (\d+), column \d+\)| \(at end of document\)", str(error))
        line = int(at[1]) if at and at[1] else len(text.splitlines())
        reason = str(error)[: at.start()] if at else str(error)
        raise ConfigError(f"not TOML: {reason}", source=source, line=line) from None


def read_text(source: str) -> str:
    try:
        data = system.read_file(source)
    except OSError as error:
        raise ConfigError(f"cannot be read: {os.strerror(error.errno or 0)}", source=source) from None
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError("not text in UTF-8", source=source, line=line) from None


# TOML 1.0. In the multi-line strings up to two more quotes may stand before the closing three.
_TOKEN = re.compile(
    r"""
    (?P<blank>  [ \t\r]+ | \#[^\n]* )
  | (?P<text>   \"{3} (?: \\. | (?!\"{3}). )* \"{3,5}
            |   '{3} (?: (?!'{3}). )* '{3,5}
            |   " (?: \\. | [^"\\] )* "
            |   ' [^']* '
    )
  | (?P<mark>   [\[\]{},=.\n] )
  | (?P<bare>   [^\s\[\]{},=.\#"']+ )
    """,
    re.VERBOSE | re.DOTALL,
)

_Tokens = Iterator[tuple[str, int]]
_Places = dict[tuple[str, ...], Place]


def places(text: str) -> Mapping[tuple[str, ...], Place]:
    """The place of every table and key of `text`, which must be TOML that tomllib has accepted.

    tomllib tells no line numbers. Keys inside of arrays are left out: no setting has any.
    """
    found: _Places = {}
    tokens = _tokens(text)
    table: tuple[str, ...] = ()
    for token, line in tokens:
        if token == "[":
            table = tuple(_name(part) for part, _ in _until(tokens, "\n") if part not in ("[", "]", "."))
            _note(found, table, Place(line, ""))
        elif token != "\n":
            _pair_places(token, line, tokens, table, found)
    return found


def _tokens(text: str) -> _Tokens:
    line = 1
    for match in _TOKEN.finditer(text):
        if match.lastgroup != "blank":
            yield match[0], line
        line += match[0].count("\n")


def _until(tokens: _Tokens, end: str) -> Iterator[tuple[str, int]]:
    for token, line in tokens:
        if token == end:
            return
        yield token, line


def _pair_places(token: str, line: int, tokens: _Tokens, table: tuple[str, ...], found: _Places) -> str:
    """Note `key = value`, whose first token has been taken. Returns the token that ended it."""
    parts = [token, *(part for part, _ in _until(tokens, "=") if part != ".")]
    key = (*table, *map(_name, parts))
    first, _ = next(tokens)
    _note(found, key, Place(line, first))
    if first == "{":
        end = ","
        while end == ",":
            token, line = next(tokens)
            end = "}" if token == "}" else _pair_places(token, line, tokens, key, found)
    depth = 1 if first == "[" else 0
    for token, _ in tokens:
        if depth == 0 and token in (",", "}", "\n"):
            return token
        depth += (token in ("[", "{")) - (token in ("]", "}"))
    return "\n"


def _note(found: _Places, key: tuple[str, ...], place: Place) -> None:
    """Note `key`, and the tables that a dotted key implies, unless they have a place already."""
    for size in range(1, len(key) + 1):
        found.setdefault(key[:size], place if size == len(key) else Place(place.line, ""))


def _name(part: str) -> str:
    return str(tomllib.loads(f"name = {part}")["name"]) if part[0] in "\"'" else part
