"""A refusal by rule is an event too: who tried what, and which rule said no."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import models, transaction

from policies.errors import Denied
from portal.accounts.models import Person
from portal.accounts.queries import roles_asked_anew
from portal.audit.record import record


@contextmanager
def refusals_recorded(action: str, *, by: Person, about: models.Model) -> Iterator[None]:
    """Record ``<action>.refused`` when the block raises Denied, and let it pass on.

    Stands outside the action's transaction: what was refused is rolled back, that it was tried
    is not. Roles are asked anew: an action decides by what they are now.
    """
    try:
        with roles_asked_anew():
            yield
    except Denied as error:
        with transaction.atomic():
            record(f"{action}.refused", by=by, about=about, details={"rule": error.code})
        raise
