"""What a kind of measurement is: a module of this folder with the members below; run.py holds their table.

Measurements flow one way: `measure` makes them, results.json keeps them (recorded.py), `tables` turns those
of one load into lines of Markdown. Only `measure` touches the machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from servers import Server


class Kind(Protocol):
    """All four are members of the module."""

    @property
    def LOADS(self) -> Mapping[str, str]:  # noqa: N802
        """The loads of this kind, by name, each with its title, in the order of the page."""

    @property
    def RESULT(self) -> Callable[..., Any]:  # noqa: N802
        """A NamedTuple: one measurement, of numbers and names as JSON knows them. `server` is one of them;
        another may be `foreign`, the share of the time, 0 to 1, that others had the server's core."""

    def measure(self, server: Server, load: str, seconds: int) -> Sequence[Any]:
        """One round of a load at one server, as measurements. Raises BenchError."""

    def told(self, measured: Sequence[Any]) -> str:
        """What `measure` gave, for who watches the run."""

    def tables(self, measured: Sequence[Any]) -> Iterator[str]:
        """All measurements of one load as lines of Markdown: tables, then a line for each bar, met or MISSED.
        Touches nothing."""
