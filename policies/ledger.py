"""How much has been said already: bits of live numbers, of faults, of released metrics.

The count is an upper bound on what a hostile job could encode, not an estimate of what an honest
one tells: a value that may take n rounded forms is charged log2(n), whatever it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from policies.errors import Denied, Invalid, _
from policies.metrics import MetricSpec, is_number, round_number

# Live numbers draw a curve; three digits are enough to see one, and each more costs 3.3 bits.
TICK_DIGITS = 3
# The step is chosen by the job as well, so it is bounded and charged like a value.
STEP_BITS = 20
LARGEST_STEP = 2**STEP_BITS - 1
# Names of Python's built-in exceptions that a fault may carry (there are fewer than 128).
EXCEPTION_BITS = 7


@dataclass(frozen=True, slots=True)
class Balance:
    """What was spent of a limit (bits, epsilon, releases, evaluations), both >= 0."""

    spent: float
    limit: float

    @property
    def remaining(self) -> float:
        """What may still be spent; never below zero."""
        return max(0.0, self.limit - self.spent)


def can_charge(balances: Mapping[str, Balance] | Balance, amount: float) -> bool:
    """Whether ``amount`` fits into every balance.

    Raises ValueError for an amount that is negative or not finite: a charge that gives back is
    the caller's mistake, and never a discount.
    """
    return _first_short(balances, amount) is None


def check_charge(balances: Mapping[str, Balance] | Balance, amount: float) -> None:
    """Raise Denied naming the first balance that ``amount`` does not fit into.

    ``balances`` is by name: job, grant, organisation, dataset.
    """
    short = _first_short(balances, amount)
    if short is not None:
        raise Denied(
            _("The disclosure budget of this {name} is spent."),
            field=short,
            code="ledger.spent",
            name=short,
        )


def charged(balance: Balance, amount: float) -> Balance:
    """Return the balance after ``amount``, or raise Denied."""
    check_charge(balance, amount)
    return Balance(balance.spent + amount, balance.limit)


def _first_short(balances: Mapping[str, Balance] | Balance, amount: float) -> str | None:
    if isinstance(amount, bool) or not math.isfinite(amount) or amount < 0:
        raise ValueError("a charge is a finite amount of at least zero")
    named = {"budget": balances} if isinstance(balances, Balance) else balances
    for name, balance in named.items():
        # Written so that a balance that is not a number is short, not endless.
        if not balance.spent + amount <= balance.limit:
            return name
    return None


def bits_of_number(spec: MetricSpec, digits: int | None = None) -> float:
    """Return log2 of how many rounded values one number of ``spec`` can take, null included."""
    return math.log2(spec.distinct_values(digits) + 1)


def round_tick(
    specs: Mapping[str, MetricSpec], step: object, values: Mapping[str, Any]
) -> tuple[int, dict[str, float | None]]:
    """Return a tick as it may be shown: a bounded step, declared names, rounded numbers.

    A number outside its declared range or not finite is None. Raises Invalid for an undeclared
    name, a wrong type or a wrong step; the text never quotes what the job wrote.
    """
    if isinstance(step, bool) or not isinstance(step, int) or not 0 <= step <= LARGEST_STEP:
        raise Invalid(
            _("A step is a whole number from 0 to {most}."),
            field="step",
            code="ledger.step",
            most=LARGEST_STEP,
        )
    rounded: dict[str, float | None] = {}
    for name, value in values.items():
        spec = specs.get(name) if isinstance(name, str) else None
        if spec is None or spec.kind not in ("number", "curve"):
            raise Invalid(
                _("A tick holds numbers of declared names only."),
                field="metrics",
                code="ledger.name",
            )
        if not is_number(value):
            raise Invalid(
                _("A tick holds numbers only."), field=f"metrics.{name}", code="ledger.type"
            )
        rounded[name] = round_number(spec, value, min(spec.digits, TICK_DIGITS))
    return step, dict(sorted(rounded.items()))


def bits_of_tick(specs: Mapping[str, MetricSpec], values: Mapping[str, Any]) -> int:
    """Return what one tick is charged: its step, which names it holds, and each number.

    ``values`` are charged as :func:`round_tick` shows them. Undeclared names raise Invalid.
    """
    round_tick(specs, 0, values)
    bits = STEP_BITS + len(specs)
    return math.ceil(
        bits
        + sum(bits_of_number(specs[name], min(specs[name].digits, TICK_DIGITS)) for name in values)
    )


def bits_of_fault(lines_of_files: Sequence[int]) -> int:
    """Return what telling an exception costs: its type, and one line of all the lines there are.

    ``lines_of_files`` are the lengths of the submission's files.
    """
    return EXCEPTION_BITS + math.ceil(math.log2(max(1, sum(max(0, n) for n in lines_of_files)) + 1))


def bits_of_metrics(specs: Mapping[str, MetricSpec], rounded: Mapping[str, Any]) -> int:
    """Return what released metrics can say at most, as ``release.check_metrics`` rounded them."""
    bits = float(len(specs))
    for name, value in rounded.items():
        spec = specs[name]
        if spec.kind == "choice":
            bits += math.log2(len(spec.values))
        else:
            # The length of a curve and the shape of a matrix are the job's choice too.
            shape_bits = 0.0 if spec.kind == "number" else 2 * math.log2(128)
            bits += shape_bits + _numbers_in(value) * bits_of_number(spec)
    return math.ceil(bits)


def _numbers_in(value: object) -> int:
    if isinstance(value, Mapping):
        return sum(_numbers_in(item) for item in value.values())
    if isinstance(value, list | tuple):
        return sum(_numbers_in(item) for item in value)
    return 1


def round_share(share: float) -> int:
    """Return a share of what was asked for as the applicant sees it: 0, 10, ... 100 per cent."""
    return 10 * round(10 * min(1.0, max(0.0, share)))


# Kept, too large, too many bytes for the grant, or nothing there.
CHECKPOINT_BITS = 2


def bits_of_shares(count: int) -> int:
    """Return what so many shares of :func:`round_share` can say: each is one of eleven."""
    return math.ceil(count * math.log2(11))
