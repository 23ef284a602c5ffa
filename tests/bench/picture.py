"""Processor time a request as a picture: a dot on a logarithmic scale for each operation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_ROW, _LEFT, _RIGHT, _TOP, _BOTTOM, _WIDTH = 22, 376, 80, 48, 34, 900
_INK, _FAINT = "#24292f", "#d8dee4"


@dataclass(frozen=True)
class Dots:
    """Rows of one kind."""

    name: str
    colour: str
    microseconds: Sequence[tuple[str, float]]


def picture(title: str, groups: Sequence[Dots]) -> str:
    """Return an SVG with a row for each figure, group after group."""
    rows = [(label, value, group.colour) for group in groups for label, value in group.microseconds if value > 0]
    low = math.floor(math.log10(min(value for _, value, _ in rows)))
    high = math.ceil(math.log10(max(value for _, value, _ in rows)))
    height = _TOP + _ROW * len(rows) + _BOTTOM

    def across(value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (math.log10(value) - low) / (high - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" '
        f'font-size="13" fill="{_INK}" role="img" aria-label="{escape(title)}">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        f'<text x="12" y="22" font-size="15" font-weight="bold">{escape(title)}</text>',
    ]
    for power in range(low, high + 1):
        x = across(10**power)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 6}" y2="{height - _BOTTOM}" stroke="{_FAINT}"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - 14}" text-anchor="middle">{10**power:,} µs</text>')
    for number, (label, value, colour) in enumerate(rows):
        y = _TOP + _ROW * number + _ROW / 2
        x = across(value)
        parts.append(f'<text x="{_LEFT - 14}" y="{y + 4:.1f}" text-anchor="end">{escape(label)}</text>')
        parts.append(f'<line x1="{_LEFT}" x2="{x:.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="{_FAINT}"/>')
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>')
        parts.append(f'<text x="{x + 10:.1f}" y="{y + 4:.1f}">{value:,.0f}</text>')
    x = _WIDTH - 12.0
    for group in reversed(groups):
        parts.append(f'<text x="{x:.0f}" y="22" text-anchor="end" fill="{group.colour}">● {escape(group.name)}</text>')
        x -= 24 + 7.2 * len(group.name)
    return "\n".join([*parts, "</svg>", ""])
