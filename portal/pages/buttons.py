"""Buttons: do it and say so, or say why not, and go back to where the button was."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from django.contrib import messages
from django.http import HttpRequest

from policies.errors import Denied, UserError
from portal.errors import sentence

T = TypeVar("T")


def done(request: HttpRequest, said: str) -> None:
    """Say at the head of the next page what was done."""
    messages.success(request, said, extra_tags="good")


def refused(request: HttpRequest, error: UserError) -> None:
    """Say at the head of the next page why something was not done."""
    messages.error(request, sentence(error), extra_tags="bad")


def pressed(request: HttpRequest, action: Callable[[], T], *, said: str = "") -> T | None:
    """Run an action for a button; its refusal of the input or the state becomes a message.

    Returns None where it was refused. Denied passes through: it is answered with 403 and recorded.
    """
    try:
        result = action()
    except Denied:
        raise
    except UserError as error:
        refused(request, error)
        return None
    if said:
        done(request, said)
    return result
