"""Template tags that all pages share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext

from portal.pages import charts, menu
from portal.pages.states import look_of, word_of

register = template.Library()


@register.simple_tag(takes_context=True)
def menu_entries(context: template.Context) -> list[menu.Entry]:
    """The menu for the reader."""
    return menu.entries_for(context["request"])


@register.simple_tag
def state(value: str) -> SafeString:
    """A state as a word with a shape and a colour."""
    return format_html('<span class="state {}">{}</span>', look_of(value), gettext(word_of(value)))


@register.simple_tag
def curve(name: str, points: Iterable[Any]) -> SafeString:
    """A chart of (step, value) points, or of plain values by their place."""
    rows = [
        (float(point[0]), float(point[1])) if isinstance(point, list | tuple) else (place, point)
        for place, point in enumerate(points, start=1)
    ]
    return charts.chart(charts.Curve(name, rows))


@register.filter
def percent(value: float | None) -> str:
    """0.0123 as 1.23 %."""
    return "" if value is None else f"{float(value) * 100:.3g} %"


@register.filter
def short(digest: str) -> str:
    """The first twelve characters of a digest."""
    return str(digest)[:12]


@register.filter
def get(mapping: Any, key: Any) -> Any:
    """Look a key up in a mapping."""
    return mapping.get(key) if hasattr(mapping, "get") else None
