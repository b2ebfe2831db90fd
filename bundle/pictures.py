"""The model card's picture: figures with their intervals and targets, and reported curves, as SVG.

Drawn from numbers alone; every word in it is inert text. No script, no link, nothing fetched.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

_WIDTH, _LABEL, _ROW, _EDGE = 640, 240, 30, 16
_CURVE_HEIGHT, _MOST = 130, 24
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1c2733}.axis{stroke:#b8c4cf;fill:none}"
    ".reach{stroke:#2a6f97;stroke-width:4;fill:none}.dot{fill:#0b3c5d}"
    ".target{stroke:#b3541e;stroke-width:2;stroke-dasharray:3 2}"
    ".curve{stroke:#2a6f97;stroke-width:2;fill:none}"
)


@dataclass(frozen=True)
class Interval:
    """One figure between 0 and 1 with its 95 % interval, and its target if it has one."""

    name: str
    value: float
    low: float
    high: float
    target: float | None = None


@dataclass(frozen=True)
class Curve:
    """A reported curve: its values in their order."""

    name: str
    values: tuple[float, ...]


def _words(text: str, most: int = 60) -> str:
    printable = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return html.escape(printable[:most])


def _across(value: float) -> str:
    reach = _WIDTH - _LABEL - 2 * _EDGE - 90
    return f"{_LABEL + _EDGE + min(1.0, max(0.0, value)) * reach:.1f}"


def _interval(row: Interval, top: int) -> list[str]:
    middle = top + _ROW // 2
    drawn = [
        f'<text x="{_EDGE}" y="{middle + 4}">{_words(row.name)}</text>',
        f'<path class="axis" d="M{_across(0)} {middle}H{_across(1)}"/>',
        f'<path class="reach" d="M{_across(row.low)} {middle}H{_across(row.high)}"/>',
        f'<circle class="dot" cx="{_across(row.value)}" cy="{middle}" r="5"/>',
        f'<text x="{_WIDTH - _EDGE}" y="{middle + 4}" text-anchor="end">{row.value:.3f}</text>',
    ]
    if row.target is not None:
        at = _across(row.target)
        drawn.append(f'<path class="target" d="M{at} {top + 4}V{top + _ROW - 4}"/>')
    return drawn


def reach(values: Sequence[float]) -> tuple[float, float]:
    """Return the lowest and highest number of an axis for these; never the same."""
    low, high = min(values), max(values)
    # Beside a number as large as a job may report, a half is nothing.
    margin = max(0.5, abs(low) / 2) if low == high else 0.0
    return low - margin, high + margin


def _curve(row: Curve, top: int) -> list[str]:
    low, high = reach(row.values)
    inner, foot = _CURVE_HEIGHT - 50, top + _CURVE_HEIGHT - 16
    step = (_WIDTH - 2 * _EDGE - 70) / max(1, len(row.values) - 1)
    points = " ".join(
        f"{_EDGE + 70 + n * step:.1f},{foot - (value - low) / (high - low) * inner:.1f}"
        for n, value in enumerate(row.values)
    )
    return [
        f'<text x="{_EDGE}" y="{top + 18}">{_words(row.name)}</text>',
        f'<text x="{_EDGE}" y="{foot - inner + 4}">{high:.3g}</text>',
        f'<text x="{_EDGE}" y="{foot}">{low:.3g}</text>',
        f'<path class="axis" d="M{_EDGE + 70} {foot - inner}V{foot}H{_WIDTH - _EDGE}"/>',
        f'<polyline class="curve" points="{points}"/>',
    ]


def said(intervals: Sequence[Interval], curves: Sequence[Curve]) -> str:
    """Return the picture in words, for who does not see it."""
    rows = [f"{row.name} {row.value:.3f} ({row.low:.3f} to {row.high:.3f})" for row in intervals]
    rows += [f"{row.name}, {len(row.values)} points" for row in curves]
    return "; ".join(rows)


def svg(intervals: Sequence[Interval], curves: Sequence[Curve]) -> str:
    """Return the picture, "" where there is nothing to draw."""
    intervals = [
        row for row in intervals if all(map(math.isfinite, (row.value, row.low, row.high)))
    ][:_MOST]
    curves = [row for row in curves if len(row.values) > 1 and all(map(math.isfinite, row.values))][
        :_MOST
    ]
    if not intervals and not curves:
        return ""
    height, drawn = _EDGE, []
    for figure in intervals:
        drawn += _interval(figure, height)
        height += _ROW
    for curve in curves:
        drawn += _curve(curve, height)
        height += _CURVE_HEIGHT
    height += _EDGE
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}" role="img">'
        "<title>Measured figures with 95 % intervals, and reported curves</title>"
        f"<desc>{_words(said(intervals, curves), 5000)}</desc>"
        f'<style>{_STYLE}</style><rect width="100%" height="100%" fill="#ffffff"/>'
        + "".join(drawn)
        + "</svg>"
    )
