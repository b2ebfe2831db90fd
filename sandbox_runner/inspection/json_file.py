"""Read a JSON file of a submission strictly: one reading only, bounded, numbers finite."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

DEPTH: Final = 6
INTEGER_DIGITS: Final = 30


class BadJson(Exception):
    """The file is not JSON that may leave. ``rule`` names why; the text quotes nothing of it."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise BadJson("json.duplicate", "A name occurs twice in one object.")
    return values


def _constant(_text: str) -> Any:
    raise BadJson("json.not-finite", "NaN and infinity are not numbers of JSON.")


def _integer(text: str) -> int:
    if len(text) > INTEGER_DIGITS:
        raise BadJson("json.number", "A whole number has too many digits.")
    return int(text)


def _real(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise BadJson("json.not-finite", "A number is too large.")
    return value


def _check_depth(value: Any, left: int) -> None:
    if isinstance(value, dict | list):
        if left == 0:
            raise BadJson("json.depth", "The file is nested too deeply.")
        for item in value.values() if isinstance(value, dict) else value:
            _check_depth(item, left - 1)


def read_object(path: Path, most_bytes: int, depth: int = DEPTH) -> dict[str, Any]:
    """Return the object in the file; raises :class:`BadJson`."""
    with path.open("rb") as stream:
        data = stream.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise BadJson("json.size", "The file is larger than the policy allows.")
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_pairs,
            parse_constant=_constant,
            parse_int=_integer,
            parse_float=_real,
        )
    except UnicodeDecodeError as error:
        raise BadJson("json.encoding", "The file is not UTF-8 text.") from error
    except RecursionError as error:
        raise BadJson("json.depth", "The file is nested too deeply.") from error
    except ValueError as error:
        raise BadJson("json.syntax", "The file is not JSON.") from error
    if not isinstance(value, dict):
        raise BadJson("json.object", "The file is not a JSON object.")
    _check_depth(value, depth)
    return value
