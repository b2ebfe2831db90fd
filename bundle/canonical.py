"""JSON in one spelling only, so that equal values have equal bytes."""

from __future__ import annotations

import json
from typing import Any

from bundle.faults import Fault


def dump(value: Any) -> bytes:
    """Return UTF-8 JSON with sorted keys and no spaces. Raises ``ValueError`` for NaN."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def load(data: bytes, what: str) -> Any:
    """Return the value of JSON that is in the one spelling; ``what`` names it in the message.

    Raises :class:`Fault` for anything else: two readers must never see two different things.
    """
    repeated: list[str] = []

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            repeated.append("")
        return found

    try:
        value = json.loads(data, object_pairs_hook=once)
        same = dump(value) == data
    except (ValueError, RecursionError) as error:
        raise Fault("{what} is not JSON.", code="json", what=what) from error
    if repeated:
        raise Fault("{what} says one thing twice.", code="canonical", what=what)
    if not same:
        raise Fault("{what} is not in its canonical spelling.", code="canonical", what=what)
    return value
