"""The directions in which a setting may be tightened, and the reading of single values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from policies.errors import Invalid, _
from policies.quantities import parse_bytes, parse_seconds

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Lower:
    """A smaller number is stricter; valid between both bounds, inclusive."""

    least: float
    most: float


@dataclass(frozen=True, slots=True)
class Higher:
    """A larger number is stricter; valid between both bounds, inclusive."""

    least: float
    most: float


@dataclass(frozen=True, slots=True)
class Ordered:
    """One of a list of words, from the loosest to the strictest."""

    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Mark:
    """A direction or a unit without parameters."""

    name: str


Direction = Lower | Higher | Ordered | Mark

MUST = Mark("must")  # true is stricter
MUST_NOT = Mark("must-not")  # false is stricter
SUBSET = Mark("subset")  # a list that may only lose entries
SUPERSET = Mark("superset")  # a list that may only gain entries
FIXED = Mark("fixed")  # cannot be overridden
BYTES = Mark("bytes")
SECONDS = Mark("seconds")


class Entries(Mapping[str, T]):
    """Named entries that cannot be changed: the shipped policy is one value for the process."""

    __slots__ = ("_entries",)

    def __init__(self, entries: Mapping[str, T]) -> None:
        self._entries = dict(entries)

    def __getitem__(self, key: str) -> T:
        return self._entries[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __hash__(self) -> int:
        return hash(frozenset(self._entries.items()))

    def __repr__(self) -> str:
        return f"Entries({self._entries!r})"


def read_value(bare: Any, markers: tuple[Direction, ...], value: object, field: str) -> Any:
    """Return ``value`` as the field's type and within its bounds, or raise Invalid."""
    result = _typed(bare, markers, value, field)
    for marker in markers:
        if isinstance(marker, Lower | Higher) and not marker.least <= result <= marker.most:
            raise Invalid(
                _("This must be between {least} and {most}."),
                field=field,
                code="policy.range",
                least=marker.least,
                most=marker.most,
            )
        if isinstance(marker, Ordered) and result not in marker.words:
            raise Invalid(
                _("This must be one of {known}."),
                field=field,
                code="policy.word",
                known=", ".join(marker.words),
            )
    return result


def _typed(bare: Any, markers: tuple[Direction, ...], value: object, field: str) -> Any:
    if BYTES in markers:
        return parse_bytes(value, field)
    if SECONDS in markers:
        return parse_seconds(value, field)
    if bare is bool and isinstance(value, bool):
        return value
    if bare is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if (
        bare is float
        and isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
    ):
        return float(value)
    if bare is str and isinstance(value, str):
        return value
    if bare == tuple[str, ...] and isinstance(value, list | tuple):
        if all(isinstance(item, str) for item in value) and len(set(value)) == len(value):
            return tuple(value)
        raise Invalid(_("This must be a list of different words."), field=field, code="policy.type")
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    raise Invalid(
        _("This must be {kind}."),
        field=field,
        code="policy.type",
        kind=kinds.get(bare, "a list of words"),
    )


def is_tighter(markers: tuple[Direction, ...], base: Any, value: Any) -> bool:
    """Whether ``value`` is at least as strict as ``base``; without a direction only the same is."""
    for marker in markers:
        if isinstance(marker, Lower):
            return bool(value <= base)
        if isinstance(marker, Higher):
            return bool(value >= base)
        if isinstance(marker, Ordered):
            return marker.words.index(value) >= marker.words.index(base)
        if marker == MUST:
            return bool(value or not base)
        if marker == MUST_NOT:
            return bool(base or not value)
        if marker == SUBSET:
            return set(value) <= set(base)
        if marker == SUPERSET:
            return set(value) >= set(base)
    return bool(value == base)


def tighter_value(
    bare: Any, markers: tuple[Direction, ...], base: Any, value: object, field: str
) -> Any:
    """Return the read value if it is at least as strict as ``base``, or raise Invalid."""
    result = read_value(bare, markers, value, field)
    if not is_tighter(markers, base, result):
        raise Invalid(
            _("A dataset may only tighten this setting; the installation has {base}."),
            field=field,
            code="policy.looser",
            base=", ".join(base) if isinstance(base, tuple) else base,
        )
    if isinstance(result, tuple):
        # In the base's order: a list in another order is the same setting.
        return tuple(sorted(result, key=lambda word: (base + result).index(word)))
    return result


def plain(value: Any) -> Any:
    """Return dataclasses, tuples and mappings as dicts and lists."""
    if dataclasses.is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, frozenset | set):
        return sorted(plain(item) for item in value)
    return value
