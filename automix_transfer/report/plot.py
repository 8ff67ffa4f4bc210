"""Small plots as inline SVG: crisp at any size, in the page's colours by day and by night, without a script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, HEIGHT = 460, 270
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 10, 38
SLOTS = 8  #: colours of series in page.css; further series repeat them, dashed


@dataclass(frozen=True)
class Series:
    """A line: ``slot`` is its colour (and its dash, from `SLOTS` on)."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    slot: int = 0


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About ``count`` round numbers from ``low`` to ``high``."""
    if not high > low:
        return [low]
    raw = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def line_plot(
    series: Sequence[Series],
    label: str,
    x_label: str,
    y_label: str,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    diagonal: bool = False,
    markers: bool = True,
) -> Markup:
    """Lines over common axes. ``label``: what it shows, for those who do not see it; ``diagonal``: the line y
    = x."""
    x_low, x_high = x_range or _range([v for one in series for v in one.x])
    y_low, y_high = y_range or _range([v for one in series for v in one.y], margin=0.06)

    def across(value: float) -> float:
        return LEFT + (value - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def up(value: float) -> float:
        return HEIGHT - BOTTOM - (value - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for tick in ticks(y_low, y_high):
        parts.append(
            f'<path class="grid" d="M{LEFT} {up(tick):.1f}H{WIDTH - RIGHT}"/>'
            f'<text x="{LEFT - 7}" y="{up(tick) + 4:.1f}" text-anchor="end">{_shown(tick)}</text>'
        )
    for tick in ticks(x_low, x_high, 6):
        parts.append(
            f'<text x="{across(tick):.1f}" y="{HEIGHT - BOTTOM + 16}" '
            f'text-anchor="middle">{_shown(tick)}</text>'
        )
    parts.append(f'<path class="axis" d="M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>')
    if diagonal:
        parts.append(
            f'<path class="guide" d="M{across(x_low):.1f} {up(y_low):.1f}L{across(x_high):.1f} '
            f'{up(y_high):.1f}"/>'
        )
    for one in series:
        points = [(across(x), up(y)) for x, y in zip(one.x, one.y, strict=True)]
        if not points:
            continue
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        parts.append(
            f'<g class="s{one.slot % SLOTS}{" dashed" if one.slot >= SLOTS else ""}"><path class="line" '
            f'd="{path}"/>'
        )
        if markers and len(points) <= 24 or len(points) == 1:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2"/>' for x, y in points]
        parts.append("</g>")
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 5}" '
        f'text-anchor="middle">{Markup.escape(x_label)}</text>'
        f'<text transform="translate(12 {(TOP + HEIGHT - BOTTOM) / 2:.0f}) rotate(-90)" text-anchor="middle">'
        f"{Markup.escape(y_label)}</text>"
    )
    body = Markup("").join(Markup(part) for part in parts)
    return Markup('<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, label, body
    )


def _range(values: Sequence[float], margin: float = 0.0) -> tuple[float, float]:
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if not high > low:
        low, high = low - 0.5, high + 0.5
    room = margin * (high - low)
    return low - room, high + room


def _shown(value: float) -> str:
    return f"{value:g}".replace("-", "−")
