"""The free part of a manifest, ``[config]``: plain JSON values, small and shallow.

It is shown to reviewers and travels with the model, so nothing in it may act on a terminal or
grow without bound.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from policies.errors import Invalid, _
from policies.names import is_inert, shown

MAXIMUM_DEPTH = 6
_LARGEST_INTEGER = 2**53


def read_config(
    section: Mapping[str, Any], most_bytes: int, place: str = "config"
) -> dict[str, Any]:
    """Return the section as JSON values, or raise Invalid naming ``config.KEY``."""
    result = {key: _read(value, _key(key, place), 1) for key, value in section.items()}
    if len(json.dumps(result, ensure_ascii=False).encode()) > most_bytes:
        raise Invalid(
            _("The configuration is larger than {most} bytes."),
            field=place,
            code="config.size",
            most=most_bytes,
        )
    return result


def _key(key: object, place: str) -> str:
    here = f"{place}.{shown(key)}"
    if not isinstance(key, str) or not 0 < len(key) <= 64 or not is_inert(key):
        raise Invalid(
            _("A key has 1 to 64 visible characters."),
            field=here,
            code="config.key",
        )
    return here


def _read(value: object, place: str, depth: int) -> Any:
    if depth > MAXIMUM_DEPTH:
        raise Invalid(
            _("The configuration is nested too deeply."), field=place[:200], code="config.depth"
        )
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        if not -_LARGEST_INTEGER <= value <= _LARGEST_INTEGER:
            raise Invalid(_("This number is too large."), field=place, code="config.number")
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise Invalid(
                _("Numbers must be finite, not nan or inf."), field=place, code="config.number"
            )
        return value
    if isinstance(value, str):
        if len(value) > 2000 or not is_inert(value, lines=True):
            raise Invalid(
                _("A text has at most 2000 visible characters."), field=place, code="config.text"
            )
        return value
    if isinstance(value, Mapping):
        return {key: _read(item, _key(key, place), depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_read(item, f"{place}[{index}]", depth + 1) for index, item in enumerate(value)]
    raise Invalid(
        _("Only numbers, texts, true or false, lists and tables are accepted."),
        field=place,
        code="config.type",
    )
