"""Bars in panels, as an SVG that is readable on a light and on a dark page; the same figures give the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Bar", "Panel", "draw"]

#: Sizes in pixels: of the picture, of a panel's heading, of a bar with its gap, and between panels.
WIDTH, COLUMNS, MARGIN = 900, 2, 16
HEADING, ROW, THICK, GAP = 30, 22, 14, 18
#: Where bars begin within a panel, and what is kept free for the number behind the longest.
NAMES, NUMBERS = 116, 66

STYLE = """\
  text { font: 12px system-ui, sans-serif; fill: #24292f }
  .title { font-weight: 600 }
  .name { text-anchor: end }
  .ours { fill: #1f6feb } .theirs { fill: #8c959f }
  @media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .ours { fill: #58a6ff } .theirs { fill: #6e7681 } }
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """One figure of somebody."""

    name: str
    value: float
    ours: bool


@dataclass(frozen=True, slots=True)
class Panel:
    """Figures that are compared with each other."""

    title: str
    bars: Sequence[Bar]

    @property
    def height(self) -> int:
        """Pixels."""
        return HEADING + ROW * len(self.bars) + GAP


def draw(panels: Sequence[Panel]) -> str:
    """The picture: panels from left to right, then from top to bottom."""
    wide = (WIDTH - MARGIN) // COLUMNS
    parts: list[str] = []
    y = MARGIN
    for first in range(0, len(panels), COLUMNS):
        line = panels[first : first + COLUMNS]
        for column, panel in enumerate(line):
            parts += _panel(panel, MARGIN + column * wide, y, wide - MARGIN)
        y += max(panel.height for panel in line)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}" role="img">'
    return "\n".join([head, "<title>Benchmarks</title>", f"<style>\n{STYLE}</style>", *parts, "</svg>"]) + "\n"


def _panel(panel: Panel, x: int, y: int, wide: int) -> list[str]:
    parts = [f'<text class="title" x="{x}" y="{y + THICK}">{escape(panel.title)}</text>']
    longest = max((bar.value for bar in panel.bars), default=0) or 1
    for number, bar in enumerate(panel.bars):
        top = y + HEADING + number * ROW
        length = max(1.0, bar.value / longest * (wide - NAMES - NUMBERS))
        kind, base = "ours" if bar.ours else "theirs", top + THICK - 3
        parts += [
            f'<text class="name" x="{x + NAMES - 6}" y="{base}">{escape(bar.name)}</text>',
            f'<rect class="{kind}" x="{x + NAMES}" y="{top}" width="{length:.1f}" height="{THICK}" rx="2"/>',
            f'<text x="{x + NAMES + length + 6:.1f}" y="{base}">{_number(bar.value)}</text>',
        ]
    return parts


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
