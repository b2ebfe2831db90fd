"""What may come in at all: JSON of bounded depth, text that every database can keep, plain numbers.

Each field's rules follow later; here ends what would make a parser, an encoder or a database fail.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse
from rest_framework.exceptions import ParseError
from rest_framework.parsers import JSONParser

from policies.errors import Invalid, _
from policies.names import is_inert

# Nothing that the API takes is nested deeper than a policy document; parsers, and encoders that
# call themselves, give up at some hundred levels.
MOST_LEVELS = 32
# Longer numbers fit in no column.
MOST_DIGITS = 18


def whole_number(text: str) -> int | None:
    """Return the number that plain digits write, None for everything else.

    ``str.isdigit`` alone lets superscripts through, which ``int`` refuses, and any length.
    """
    plain = text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS
    return int(text) if plain else None


def _is_plain(text: str) -> bool:
    """Whether text has no NUL (PostgreSQL keeps none), no half of a surrogate pair (no UTF-8)."""
    return "\0" not in text and not any("\ud800" <= c <= "\udfff" for c in text)


def check_plain(value: Any) -> None:
    """Raise Invalid for parsed JSON that is nested too deeply or holds text nobody can keep."""
    level = [value]
    for _depth in range(MOST_LEVELS):
        deeper: list[Any] = []
        for entry in level:
            if isinstance(entry, str) and not _is_plain(entry):
                raise Invalid(
                    _("Text must hold no NUL and no half characters (unpaired surrogates)."),
                    code="json.text",
                )
            if isinstance(entry, dict):
                deeper += [*entry, *entry.values()]
            elif isinstance(entry, list):
                deeper += entry
        if not deeper:
            return
        level = deeper
    raise _too_deep()


def _too_deep() -> Invalid:
    return Invalid(
        _("This JSON is nested deeper than {most} levels."), code="json.depth", most=MOST_LEVELS
    )


def check_inert(text: str, field: str, *, lines: bool = False) -> None:
    """Raise Invalid for text with control or invisible characters, which others would not see.

    ``lines`` allows tabs and ends of lines.
    """
    if not is_inert(text.replace("\r\n", "\n"), lines=lines):
        raise Invalid(
            _("Control or invisible characters are not accepted."), field=field, code="text.inert"
        )


class PlainJSONParser(JSONParser):
    """JSON as any field of the API may hold it."""

    def parse(self, stream: Any, media_type: Any = None, parser_context: Any = None) -> Any:
        try:
            value = super().parse(stream, media_type, parser_context)
        except RecursionError:
            raise _too_deep() from None
        except ParseError:
            raise ParseError from None  # without the parser's words, which quote the input
        check_plain(value)
        return value


class PlainQueryMiddleware:
    """Refuse NUL in what follows the question mark: some databases fail on it, some do not."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if "%00" in request.META.get("QUERY_STRING", ""):
            return HttpResponse("Bad query.\n", status=400, content_type="text/plain")
        return self.get_response(request)
