"""Values of jobs and releases as people read them, and strangers' words made inert."""

from __future__ import annotations

from typing import Any

from django import template
from django.template.defaultfilters import filesizeformat
from django.utils import formats
from django.utils.safestring import SafeString
from django.utils.translation import gettext

from portal.jobs import figures
from portal.jobs.queries import inert as made_inert
from portal.pages.states import word_of

register = template.Library()


@register.filter
def inert(text: Any) -> str:
    """A stranger's words: controls and direction marks become visible (markup is escaped)."""
    return made_inert(str(text))


@register.filter
def inert_line(text: Any) -> str:
    """A stranger's words for one line."""
    return " ".join(made_inert(str(text)).split())


@register.filter
def state_word(state: str) -> str:
    """A state as a plain word, for lists of choices."""
    return gettext(word_of(state))


@register.filter
def size(count: Any) -> str:
    """Bytes as people read them; nothing where there are none."""
    return filesizeformat(int(count)) if count not in (None, "") else ""


@register.filter
def bits(count: Any) -> str:
    """Bits with separators, without decimals."""
    return formats.number_format(round(float(count)), use_l10n=True, force_grouping=True)


@register.simple_tag
def interval(figure: figures.Figure) -> SafeString:
    """A figure with its interval and its target as a small drawing."""
    return figures.drawing(figure)


@register.filter
def kind_of(value: Any) -> str:
    """How a reported value is shown: number, list, table or text."""
    return figures.kind_of(value)
