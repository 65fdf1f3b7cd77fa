"""What a row of the table of settings is, and how it judges a value.

`setting(…)` makes the row, at the place of its field in the table; the name is the field's own. Type checkers
hold the type of the field, the kind and the default to each other.

Pure. Runs in the application's interpreter too: Python 3.9.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Optional, TypeVar

from stardust.base.records import field, fields
from stardust.settings.kinds import Kind, amount, toml

Value = TypeVar("Value")

_ROW = "row"  # where a field keeps its own


class Section(NamedTuple):
    """A chapter of the example file and of the manual page."""

    title: str
    text: str


class Setting(NamedTuple):
    """One row of the table. `low` and `high` bound a number, both allowed; None is no bound."""

    name: str
    default: Any
    section: Section
    kind: Kind[Any]
    help: str
    text: str
    low: Optional[float]
    high: Optional[float]
    choices: tuple[str, ...]
    reload: bool
    unset: str

    @property
    def key(self) -> str:
        """The name in a TOML file; with "--" before it, the flag."""
        return self.name.replace("_", "-")

    def right(self) -> str:
        """What a right value is, to follow "must be"."""
        hint = f" ({self.kind.hint})" if self.kind.hint else ""
        if self.choices:
            return f"{self.kind.right} {', '.join(self.choices)}{hint}"
        return self.kind.right + self.bounds() + hint

    def bounds(self) -> str:
        """The bounds in the words of the kind, with a space before them; "" without bounds."""
        if self.low is None:
            return ""
        if self.high is None:
            return f" of at least {amount(self.kind, self.low)}"
        return f" from {amount(self.kind, self.low)} to {amount(self.kind, self.high)}"

    def read(self, value: object) -> Any:
        """The field's value for a TOML value. ValueError says what would be right, what came, and why not."""
        try:
            result = self.kind.read(value)
        except ValueError as error:
            raise ValueError(self._refusal(value, str(error))) from None
        if not self._allows(result):
            raise ValueError(self._refusal(value))
        return result

    def _allows(self, result: Any) -> bool:
        # Written so that a NaN, which compares false with everything, is refused by any bound.
        return (
            (not self.choices or result in self.choices)
            and (self.low is None or result is None or result >= self.low)
            and (self.high is None or result is None or result <= self.high)
        )

    def _refusal(self, value: object, reason: str = "") -> str:
        refusal = f"must be {self.right()}, not {_cut(toml(value))}"
        return f"{refusal}: {reason}" if reason else refusal


def setting(
    section: Section,
    kind: Kind[Value],
    *,
    default: Value,
    help: str,  # noqa: A002  it is the row's word, and nothing here calls the built-in
    text: str = "",
    low: Optional[float] = None,
    high: Optional[float] = None,
    choices: tuple[str, ...] = (),
    reload: bool = True,
    unset: str = "",
) -> Value:
    """A field of the table, to stand where its default would.

    `help` is one line without a full stop, `text` a paragraph in which `backquotes` mark what is typed.
    `reload`: a reload takes a new value over. `unset` says what an empty default means.
    """
    row = Setting(
        name="",  # which only the class knows: see `rows`
        default=default,
        section=section,
        kind=kind,
        help=help,
        text=" ".join(text.split()),
        low=low,
        high=high,
        choices=choices,
        reload=reload,
        unset=unset,
    )
    return field(default=default, metadata={_ROW: row})


def rows(table: Any) -> list[Setting]:
    """The rows of a record whose fields are settings, in their order; other fields have none."""
    found: list[Setting] = []
    for each in fields(table):
        row: Optional[Setting] = each.metadata.get(_ROW)
        if row is not None:
            found.append(row._replace(name=each.name))
    return found


def _cut(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
