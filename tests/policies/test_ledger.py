"""Bits are charged for what could be said, and a spent budget stays spent."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.document import Policy
from policies.errors import Denied, Invalid
from policies.ledger import (
    LARGEST_STEP,
    STEP_BITS,
    Balance,
    bits_of_fault,
    bits_of_metrics,
    bits_of_number,
    bits_of_shares,
    bits_of_tick,
    can_charge,
    charged,
    check_charge,
    round_share,
    round_tick,
)
from policies.metrics import MetricSpec, round_number

SPECS = {
    "loss": MetricSpec("number"),
    "auc": MetricSpec("number", 0.0, 1.0, 3),
    "curve": MetricSpec("curve", digits=2),
    "confusion": MetricSpec("matrix"),
    "outcome": MetricSpec("choice", values=("a", "b", "c", "d")),
}


@pytest.mark.parametrize(
    ("spent", "amount", "fits"),
    [
        (0, 2000, True),
        (0, 2000.5, False),
        (1999, 1, True),
        (2000, 0, True),
        (2000, 1, False),
        (9999, 0, False),
        (float("nan"), 1, False),
        (0, 0, True),
    ],
)
def test_what_fits_into_a_balance(spent: float, amount: float, fits: bool) -> None:
    balance = Balance(spent, 2000)
    assert can_charge(balance, amount) == fits
    if fits:
        assert charged(balance, amount).spent == spent + amount
        return
    with pytest.raises(Denied):
        charged(balance, amount)


@pytest.mark.parametrize("amount", [-1, float("nan"), float("inf"), -0.001, True])
def test_a_charge_that_gives_back_is_a_mistake(amount: float) -> None:
    with pytest.raises(ValueError, match="charge"):
        can_charge(Balance(100, 2000), amount)


def test_the_first_spent_budget_is_named() -> None:
    balances = {"job": Balance(10, 2000), "grant": Balance(16000, 16000)}
    with pytest.raises(Denied) as caught:
        check_charge(balances, 5)
    assert caught.value.field == "grant"


def test_a_spent_balance_never_shows_a_debt() -> None:
    assert Balance(2100, 2000).remaining == 0
    assert Balance(500, 2000).remaining == 1500


def test_a_tick_is_rounded_and_only_of_declared_names() -> None:
    step, values = round_tick(SPECS, 7, {"loss": 0.123456, "auc": 0.98765, "curve": 3.14159})
    assert step == 7
    assert values == {"auc": 0.988, "curve": 3.1, "loss": 0.123}


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ({"auc": 1.5}, {"auc": None}),
        ({"auc": -0.1}, {"auc": None}),
        ({"auc": float("nan")}, {"auc": None}),
        ({"loss": float("inf")}, {"loss": None}),
        ({"loss": 10**400}, {"loss": None}),
        ({"loss": 1e-300}, {"loss": 0.0}),
        ({"loss": -0.0}, {"loss": 0.0}),
        ({"loss": 3}, {"loss": 3.0}),
    ],
)
def test_numbers_out_of_range_are_none(values: dict[str, Any], shown: dict[str, Any]) -> None:
    rounded = round_tick(SPECS, 0, values)[1]
    assert rounded == shown
    assert all(math.copysign(1, v) == 1 for v in rounded.values() if v == 0)


@pytest.mark.parametrize(
    "values",
    [
        {"secret": 1.0},
        {"": 1.0},
        {"confusion": 1.0},
        {"outcome": "a"},
        {"loss": "0.1"},
        {"loss": True},
        {"loss": None},
        {"loss": [1.0]},
        {1: 1.0},
    ],
)
def test_a_tick_of_anything_else_is_refused_unquoted(values: dict[Any, Any]) -> None:
    with pytest.raises(Invalid) as caught:
        round_tick(SPECS, 0, values)
    assert "secret" not in str(caught.value) + caught.value.field
    with pytest.raises(Invalid):
        bits_of_tick(SPECS, values)


@pytest.mark.parametrize("step", [-1, LARGEST_STEP + 1, 1.0, "1", True, None, 10**400])
def test_a_step_is_bounded(step: object) -> None:
    with pytest.raises(Invalid) as caught:
        round_tick(SPECS, step, {})
    assert caught.value.field == "step"


def test_an_empty_tick_still_costs_its_step_and_its_silence() -> None:
    assert bits_of_tick(SPECS, {}) == STEP_BITS + len(SPECS)


def test_the_default_budget_draws_a_curve(policy: Policy) -> None:
    """Two metrics may be reported at least 30 times in a job, and never a thousand times."""
    specs = {"loss": MetricSpec("number", 0, 100, 3), "auc": SPECS["auc"]}
    ticks = policy.ledger.job_bits // bits_of_tick(specs, {"loss": 0.5, "auc": 0.5})
    assert 30 <= ticks <= 100


@pytest.mark.parametrize("spec", [SPECS["loss"], SPECS["auc"], SPECS["curve"]])
def test_more_digits_and_a_wider_range_cost_more(spec: MetricSpec) -> None:
    assert bits_of_number(spec, 1) < bits_of_number(spec, 2) < bits_of_number(spec, 3)
    narrow = MetricSpec(spec.kind, 0.0, 1.0, spec.digits)
    assert bits_of_number(narrow) <= bits_of_number(spec)


BOUNDS = st.floats(-1e30, 1e30)


@given(BOUNDS, BOUNDS, st.integers(1, 15), st.floats(allow_nan=True, allow_infinity=True))
def test_rounding_stays_in_range_and_is_stable(
    one: float, other: float, digits: int, value: float
) -> None:
    spec = MetricSpec("number", min(one, other), max(one, other), digits)
    rounded = round_number(spec, value)
    if rounded is None:
        assert not spec.minimum <= value <= spec.maximum
        return
    assert spec.minimum <= rounded <= spec.maximum
    assert round_number(spec, rounded) == rounded


@given(
    st.sampled_from([(0.0, 1.0), (-1.0, 1.0), (0.0, 0.05), (-3.0, 200.0), (5.0, 7.0)]),
    st.integers(1, 2),
)
def test_the_charge_bounds_what_really_can_be_said(
    bounds: tuple[float, float], digits: int
) -> None:
    """Enumerate: no more different rounded values exist than bits are charged for."""
    spec = MetricSpec("number", *bounds, digits)
    candidates = {0.0, *bounds}
    for exponent in range(-16, 4):
        for mantissa in range(10 ** (digits - 1), 10**digits):
            for sign in (1, -1):
                candidates.add(sign * mantissa * 10.0**exponent)
    said = {round_number(spec, value) for value in candidates}
    assert len(said | {None}) <= 2 ** bits_of_number(spec) + 1e-6


def test_a_fault_is_charged_by_the_lines_it_could_name() -> None:
    assert bits_of_fault([100]) < bits_of_fault([100, 10_000])
    assert bits_of_fault([]) >= 7
    assert bits_of_fault([-5]) == bits_of_fault([])


def test_released_metrics_are_charged_by_number() -> None:
    one = bits_of_metrics(SPECS, {"loss": 0.5})
    curve = bits_of_metrics(SPECS, {"curve": [0.1] * 101})
    table = bits_of_metrics(SPECS, {"curve": {"step": [1.0] * 101, "loss": [0.1] * 101}})
    assert one < curve < table
    assert bits_of_metrics(SPECS, {"outcome": "a"}) == bits_of_metrics(SPECS, {}) + 2


@pytest.mark.parametrize(
    ("share", "shown"),
    [(0.0, 0), (0.04, 0), (0.06, 10), (0.94, 90), (0.96, 100), (1.0, 100), (7.5, 100), (-1, 0)],
)
def test_shares_are_told_in_steps_of_ten_per_cent(share: float, shown: int) -> None:
    assert round_share(share) == shown


def test_a_share_is_charged_as_one_of_eleven() -> None:
    steps = {round_share(n / 1000) for n in range(1001)}
    assert 2 ** bits_of_shares(1) >= len(steps) == 11
    assert 2 ** bits_of_shares(3) >= len(steps) ** 3
