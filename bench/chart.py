"""Charts for people: horizontal bars as SVG, in the colours of who looks at them, light or dark. Pure.

An element a line, so that a new run is a small difference; no script, no font, nothing from elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

NAMES, BARS, VALUES = 190, 440, 90  # px; widths of the three columns
ROW, THICK = 24, 16
TOP = 48

STYLE = """\
  text { font: 13px system-ui, sans-serif; fill: #24292f; }
  .title { font-weight: 600; }
  .small { font-size: 11px; fill: #57606a; }
  .all { fill: #b6c2cf; }
  .part { fill: #8896a5; }
  .ours .all { fill: #f0a35e; }
  .ours .part { fill: #d97706; }
  .ours text { font-weight: 600; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .small { fill: #9198a1; }
    .all { fill: #57606a; }
    .part { fill: #818b98; }
    .ours .all { fill: #c2691c; }
    .ours .part { fill: #f5a04c; }
  }"""


class Bar(NamedTuple):
    """`part` of `value` is drawn in another tone. `ours` stands out."""

    name: str
    value: float
    part: float
    ours: bool


def svg(title: str, note: str, bars: Sequence[Bar]) -> str:
    """The least on top, all to one scale from zero."""
    width, height = NAMES + BARS + VALUES, TOP + ROW * len(bars) + 4
    scale = BARS / (max((bar.value for bar in bars), default=0) or 1)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
        f' height="{height}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>\n{STYLE}\n</style>",
        f'<text class="title" x="4" y="18">{escape(title)}</text>',
        f'<text class="small" x="4" y="36">{escape(note)}</text>',
    ]
    for number, bar in enumerate(sorted(bars, key=lambda bar: bar.value)):
        lines += _bar(bar, TOP + ROW * number, scale)
    return "\n".join([*lines, "</svg>"]) + "\n"


def _bar(bar: Bar, y: int, scale: float) -> Iterator[str]:
    base = y + THICK - 4
    yield '<g class="ours">' if bar.ours else "<g>"
    yield f'<text x="{NAMES - 8}" y="{base}" text-anchor="end">{escape(bar.name)}</text>'
    for kind, value in (("all", bar.value), ("part", bar.part)):
        yield f'<rect class="{kind}" x="{NAMES}" y="{y}" width="{value * scale:.1f}" height="{THICK}"/>'
    yield f'<text x="{NAMES + bar.value * scale + 6:.1f}" y="{base}">{_short(bar.value)}</text>'
    yield "</g>"


def _short(value: float) -> str:
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"
