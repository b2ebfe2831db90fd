"""TOML from strangers: bounded before it is parsed, and never quoted in an error."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from policies.errors import Invalid, _

# tomllib walks a dotted key once for each of its parts: 20,000 parts in 40 KiB take 17 seconds.
# A key cannot span lines, so a bound on the dots of a line bounds that.
MAXIMUM_DOTS = 200


def read_toml(text: str | bytes, field: str, most_bytes: int) -> dict[str, Any]:
    """Return the table in ``text``; raises Invalid naming ``field``, with the place if known."""
    try:
        # Checked on characters first, so that a huge text is never copied.
        size = (
            len(text) if len(text) > most_bytes or isinstance(text, bytes) else len(text.encode())
        )
        if size > most_bytes:
            raise Invalid(
                _("The file is larger than {most} bytes."),
                field=field,
                code="toml.size",
                most=most_bytes,
            )
        decoded = text.decode() if isinstance(text, bytes) else text
    except UnicodeError as error:
        raise Invalid(_("The file is not UTF-8 text."), field=field, code="toml.text") from error
    for number, line in enumerate(decoded.split("\n"), start=1):
        if line.count(".") > MAXIMUM_DOTS:
            raise Invalid(
                _("Line {line} is nested too deeply (more than {most} dots)."),
                field=field,
                code="toml.depth",
                line=number,
                most=MAXIMUM_DOTS,
            )
    try:
        return tomllib.loads(decoded.removeprefix("\ufeff"))
    except RecursionError as error:
        raise Invalid(
            _("The file is nested too deeply."), field=field, code="toml.depth"
        ) from error
    except ValueError as error:
        # Of the parser's text only the place is taken: the rest may quote the file.
        place = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
        if place is None:
            raise Invalid(
                _("The file is not valid TOML."), field=field, code="toml.syntax"
            ) from error
        raise Invalid(
            _("The file is not valid TOML (line {line}, column {column})."),
            field=field,
            code="toml.syntax",
            line=place[1],
            column=place[2],
        ) from error
