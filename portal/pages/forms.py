"""Forms show fields; what is right is decided by the actions, whose refusals come back here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from django.forms import BaseForm

from policies.errors import Denied, UserError
from portal.errors import sentence

T = TypeVar("T")


def tried(form: BaseForm, action: Callable[[], T]) -> T | None:
    """Run an action; where it refuses its input, say so beside the field and return None.

    Denied passes through: it is answered with 403 and recorded.
    """
    try:
        return action()
    except Denied:
        raise
    except UserError as error:
        form.add_error(error.field if error.field in form.fields else None, sentence(error))
        return None
