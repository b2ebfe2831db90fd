"""Declared metrics: what a submission says before the run that its numbers will be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from policies.document import Policy
from policies.errors import Invalid, _
from policies.names import KEY, shown, unknown

KINDS = ("number", "curve", "matrix", "choice")
_KEYS = ("kind", "min", "max", "digits", "count", "values")
_LARGEST = 1e30

# Rounding below this quantum to zero leaves a decade count to charge, instead of 300 exponents.
QUANTUM = 1e-12


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One declared metric.

    ``number`` is one number; ``curve`` a list of numbers, or a table of equally long lists or of
    rows with the same names; ``matrix`` rows of numbers or suppressed cells (None); ``choice`` one
    of the declared ``values``, the only text that may leave. Every value lies between ``minimum``
    and ``maximum`` and is rounded to ``digits`` significant digits. ``count`` says that the
    numbers count subjects or images, so that small ones are suppressed; None lets the values
    tell, for a matrix: whole numbers are counts, also beside fractions if one is above 1.
    """

    kind: str
    minimum: float = -_LARGEST
    maximum: float = _LARGEST
    digits: int = 4
    count: bool | None = None
    values: tuple[str, ...] = ()

    def distinct_values(self, digits: int | None = None) -> int:
        """Return an upper bound on how many values a number of this metric can take, rounded."""
        if self.kind == "choice":
            return len(self.values)
        mantissas = 9 * 10 ** ((digits or self.digits) - 1)
        total = 3  # zero, and the two ends of the range, which rounding is held to
        for reach in (self.maximum, -self.minimum):
            if reach > 0:
                decades = math.floor(math.log10(max(reach, QUANTUM))) - round(math.log10(QUANTUM))
                total += mantissas * (decades + 2)
        return total

    def as_mapping(self) -> dict[str, Any]:
        """Return the declaration as it stands in a manifest."""
        result: dict[str, Any] = {"kind": self.kind}
        if self.kind == "choice":
            return result | {"values": list(self.values)}
        result |= {"min": self.minimum, "max": self.maximum, "digits": self.digits}
        if self.count is not None:
            result["count"] = self.count
        return result


def read_metrics(values: object, policy: Policy) -> dict[str, MetricSpec]:
    """Return the ``[metrics]`` section of a manifest; raises Invalid by field."""
    if not isinstance(values, Mapping):
        raise Invalid(_("This must be a section."), field="metrics", code="manifest.type")
    if len(values) > policy.submission.metrics:
        raise Invalid(
            _("At most {most} metrics may be declared."),
            field="metrics",
            code="manifest.metrics",
            most=policy.submission.metrics,
        )
    specs: dict[str, MetricSpec] = {}
    for name, value in values.items():
        if not isinstance(name, str) or not KEY.fullmatch(name):
            raise Invalid(
                _("A metric's name is a letter followed by letters, digits and underscores."),
                field=f"metrics.{shown(name)}",
                code="manifest.metric-name",
            )
        specs[name] = _read_metric(value, f"metrics.{name}", policy)
    return specs


def _read_metric(value: object, field: str, policy: Policy) -> MetricSpec:
    if isinstance(value, str):
        value = {"kind": value}
    if not isinstance(value, Mapping):
        raise Invalid(
            _('Write "number", "curve", "matrix", or a table with a kind.'),
            field=field,
            code="manifest.type",
        )
    for key in value:
        if key not in _KEYS:
            raise unknown(
                _("A metric has no {name}."),
                key,
                _KEYS,
                f"{field}.{shown(key)}",
                "manifest.unknown-key",
            )
    kind = value.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise unknown(
            _("There is no kind of metric {name}."),
            kind,
            KINDS,
            field if set(value) == {"kind"} else f"{field}.kind",
            "manifest.metric-kind",
        )
    if kind == "choice":
        return _read_choice(value, field)
    if "values" in value:
        raise Invalid(
            _("Only a choice has values."), field=f"{field}.values", code="manifest.metric-values"
        )
    minimum = _finite(value.get("min", -_LARGEST), f"{field}.min")
    maximum = _finite(value.get("max", _LARGEST), f"{field}.max")
    if minimum >= maximum:
        raise Invalid(
            _("The minimum must be below the maximum."),
            field=f"{field}.min",
            code="manifest.metric-range",
        )
    digits = value.get("digits", policy.release.digits)
    if isinstance(digits, bool) or not isinstance(digits, int):
        raise Invalid(
            _("This must be a whole number."), field=f"{field}.digits", code="manifest.type"
        )
    if not 1 <= digits <= policy.release.digits:
        raise Invalid(
            _("Between 1 and {most} significant digits may leave."),
            field=f"{field}.digits",
            code="manifest.metric-digits",
            most=policy.release.digits,
        )
    count = value.get("count")
    if count is not None and not isinstance(count, bool):
        raise Invalid(
            _("This must be true or false."), field=f"{field}.count", code="manifest.type"
        )
    return MetricSpec(kind, minimum, maximum, digits, count)


def _read_choice(value: Mapping[str, Any], field: str) -> MetricSpec:
    for key in ("min", "max", "digits", "count"):
        if key in value:
            raise Invalid(
                _("A choice has only values."),
                field=f"{field}.{key}",
                code="manifest.metric-values",
            )
    words = value.get("values")
    ok = (
        isinstance(words, list | tuple)
        and 2 <= len(words) <= 32
        and all(isinstance(word, str) and KEY.fullmatch(word) for word in words)
        and len(set(words)) == len(words)
    )
    if not ok or not isinstance(words, list | tuple):
        raise Invalid(
            _("A choice lists 2 to 32 different words of letters, digits and underscores."),
            field=f"{field}.values",
            code="manifest.metric-values",
        )
    return MetricSpec("choice", values=tuple(words))


def _finite(value: object, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Invalid(_("This must be a number."), field=field, code="manifest.type")
    if not -_LARGEST <= value <= _LARGEST or not math.isfinite(value):
        raise Invalid(
            _("This must be a finite number between -1e30 and 1e30."),
            field=field,
            code="manifest.metric-range",
        )
    return float(value)


def is_number(value: object) -> bool:
    """Whether ``value`` is an int or float and no bool; NaN and infinities are numbers here."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def round_number(spec: MetricSpec, value: float, digits: int | None = None) -> float | None:
    """Return ``value`` in ``digits`` significant digits (the spec's by default).

    None where it is not finite or outside the declared range; below 1e-12 it is zero.
    """
    if not _in_range(spec, value):
        return None
    number = float(value)
    rounded = float(f"{number:.{(digits or spec.digits) - 1}e}") if abs(number) >= QUANTUM else 0.0
    # Rounding must not leave the range (0.99996 in [0, 0.99997]), nor tell the sign of a zero.
    return min(max(rounded, spec.minimum), spec.maximum) + 0.0


def _in_range(spec: MetricSpec, value: float) -> bool:
    """Whether a number is finite and in range; compared before any conversion, which may fail."""
    return bool(spec.minimum <= value <= spec.maximum)
