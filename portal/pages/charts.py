"""Curves as inline SVG, drawn on the server: no script, readable by a screen reader as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from bundle.pictures import reach

WIDTH, HEIGHT = 480, 200
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 30


@dataclass(frozen=True)
class Curve:
    """A named line; ``points`` are (step, value)."""

    name: str
    points: Sequence[tuple[float, float]]


def chart(curve: Curve) -> SafeString:
    """Return one curve as an SVG figure with its axes labelled."""
    points = [(float(x), float(y)) for x, y in curve.points]
    if not points:
        return format_html('<svg class="chart" viewBox="0 0 {} {}"></svg>', WIDTH, HEIGHT)
    xs, ys = [x for x, _y in points], [y for _x, y in points]
    low, high = reach(ys)
    first, last = min(xs), max(xs)
    across = (WIDTH - LEFT - RIGHT) / ((last - first) or 1)
    up = (HEIGHT - TOP - BOTTOM) / (high - low)

    def place(x: float, y: float) -> tuple[str, str]:
        return f"{LEFT + (x - first) * across:.1f}", f"{HEIGHT - BOTTOM - (y - low) * up:.1f}"

    line = format_html_join(" ", "{},{}", (place(x, y) for x, y in points))
    marks = format_html_join(
        "",
        '<text x="{}" y="{}" text-anchor="end">{}</text>',
        (
            (LEFT - 6, f"{HEIGHT - BOTTOM - (value - low) * up + 4:.1f}", f"{value:.3g}")
            for value in (low, (low + high) / 2, high)
        ),
    )
    end_x, end_y = place(*points[-1])
    return format_html(
        '<svg class="chart" viewBox="0 0 {w} {h}" role="img" aria-label="{name}: {n} points, '
        'last {last_value}"><path class="axis" d="M{l} {t}V{b}H{r}"/>{marks}'
        '<text x="{l}" y="{foot}">{first}</text>'
        '<text x="{r}" y="{foot}" text-anchor="end">{last}</text>'
        '<polyline class="curve" points="{line}"/>'
        '<circle cx="{cx}" cy="{cy}" r="3.5" fill="currentColor"/></svg>',
        w=WIDTH,
        h=HEIGHT,
        name=curve.name,
        n=len(points),
        last_value=f"{ys[-1]:.4g}",
        l=LEFT,
        t=TOP,
        b=HEIGHT - BOTTOM,
        r=WIDTH - RIGHT,
        marks=marks,
        foot=HEIGHT - 8,
        first=f"{first:g}",
        last=f"{last:g}",
        line=line,
        cx=end_x,
        cy=end_y,
    )
