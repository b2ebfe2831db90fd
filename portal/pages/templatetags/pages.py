"""Template tags that all pages share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django import template
from django.core.paginator import Page
from django.forms import BaseForm, BoundField, CheckboxInput, RadioSelect
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import get_language, gettext

from portal.pages import charts, menu
from portal.pages.states import look_of, word_of

register = template.Library()


@register.simple_tag(takes_context=True)
def menu_entries(context: template.Context) -> list[menu.Entry]:
    """The menu for the reader; empty on pages that are made without a request."""
    request = context.get("request")
    return menu.entries_for(request) if request is not None else []


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


@register.inclusion_tag("parts/field.html")
def field(bound: BoundField) -> dict[str, Any]:
    """One field of a form: label, input, help and what was wrong, tied together."""
    widget = bound.field.widget
    return {
        "field": bound,
        "choice": isinstance(widget, CheckboxInput),
        "group": isinstance(widget, RadioSelect),
    }


@register.inclusion_tag("parts/fields.html")
def fields(form: BaseForm) -> dict[str, Any]:
    """All fields of a form, with what was wrong with the whole above them."""
    return {"form": form}


@register.inclusion_tag("parts/pages.html", takes_context=True)
def page_links(context: template.Context, page: Page[Any]) -> dict[str, Any]:
    """Links to the pages before and after, with the other parts of the address kept."""
    return {"page": page, "request": context.get("request")}


@register.filter
def said(sentence: str) -> str:
    """A sentence that was stored in English, in the reader's language where there is one."""
    return gettext(sentence) if sentence else ""


@register.filter
def local(thing: Any, name: str) -> str:
    """A text of something that has a Korean twin (``title`` and ``title_ko``)."""
    korean = getattr(thing, f"{name}_ko", "") if get_language() == "ko" else ""
    return korean or getattr(thing, name)


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
