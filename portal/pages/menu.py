"""The menu: each entry is shown to those who have something to do behind it."""

from __future__ import annotations

from dataclasses import dataclass

from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.translation import gettext, gettext_noop

from portal.accounts.models import Person
from portal.accounts.queries import roles_of

ANYONE = "anyone"
SIGNED_IN = "signed-in"
# (name of the page's address, label, who sees the entry)
ENTRIES: tuple[tuple[str, str, frozenset[str]], ...] = (
    ("catalogue", gettext_noop("Catalogue"), frozenset({ANYONE})),
    ("steward-datasets", gettext_noop("My datasets"), frozenset({"steward"})),
    ("examinations", gettext_noop("Examinations"), frozenset({"officer"})),
    ("requests", gettext_noop("Requests"), frozenset({SIGNED_IN})),
    ("jobs", gettext_noop("Jobs"), frozenset({SIGNED_IN})),
    ("releases", gettext_noop("Releases"), frozenset({SIGNED_IN})),
    ("audit", gettext_noop("Audit"), frozenset({"auditor"})),
    ("administration", gettext_noop("Administration"), frozenset({"administrator"})),
)


@dataclass(frozen=True)
class Entry:
    """One line of the menu."""

    label: str
    url: str
    current: bool


def entries_for(request: HttpRequest) -> list[Entry]:
    """Return the entries for who asks, with the one they are at marked."""
    person = getattr(request, "user", AnonymousUser())
    held = {ANYONE}
    if isinstance(person, Person):
        held |= {SIGNED_IN} | roles_of(person)
    entries = []
    for name, label, seen_by in ENTRIES:
        if not held & seen_by:
            continue
        try:
            url = reverse(name)
        except NoReverseMatch:
            continue
        entries.append(Entry(gettext(label), url, request.path.startswith(url)))
    return entries
