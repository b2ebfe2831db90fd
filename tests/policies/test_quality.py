"""Who offers data, who examines them, and what a clean sample proves."""

from __future__ import annotations

import pytest

from policies.errors import Denied
from policies.quality import check_can_examine, check_can_offer, upper_bound


@pytest.mark.parametrize(
    ("person", "roles", "steward", "held"),
    [
        ("kim", {"steward"}, None, True),
        ("kim", {"steward"}, "kim", True),
        ("kim", {"steward"}, "lee", False),
        ("kim", {"officer", "administrator"}, None, False),
        ("kim", set(), "kim", False),
    ],
)
def test_who_may_offer(person: str, roles: set[str], steward: str | None, held: bool) -> None:
    if held:
        check_can_offer(person=person, roles=roles, steward=steward)
        return
    with pytest.raises(Denied):
        check_can_offer(person=person, roles=roles, steward=steward)


@pytest.mark.parametrize(
    ("person", "roles", "held"),
    [
        ("officer", {"officer"}, True),
        ("officer", {"steward"}, False),
        ("officer", set(), False),
        ("steward", {"officer", "steward"}, False),
        ("uploader", {"officer"}, False),
    ],
)
def test_nobody_signs_their_own_work_off(person: str, roles: set[str], held: bool) -> None:
    if held:
        check_can_examine(person=person, roles=roles, steward="steward", uploader="uploader")
        return
    with pytest.raises(Denied):
        check_can_examine(person=person, roles=roles, steward="steward", uploader="uploader")


def test_no_miss_in_three_hundred_is_below_one_percent() -> None:
    assert upper_bound(sampled=300, missed=0, population=10_000) == pytest.approx(
        1 - 0.05 ** (1 / 300), abs=1e-6
    )
    assert upper_bound(sampled=300, missed=0, population=10_000) < 3 / 300


@pytest.mark.parametrize(("sampled", "missed"), [(20, 1), (100, 3), (300, 10)])
def test_with_misses_it_is_the_exact_binomial_bound(sampled: int, missed: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    exact = stats.beta.ppf(0.95, missed + 1, sampled - missed)
    found = upper_bound(sampled=sampled, missed=missed, population=10**6)
    assert found == pytest.approx(exact, abs=1e-6)


def test_a_whole_population_is_known_and_an_empty_sample_says_nothing() -> None:
    assert upper_bound(sampled=12, missed=3, population=12) == 0.25
    assert upper_bound(sampled=0, missed=0, population=12) == 1.0
    assert upper_bound(sampled=0, missed=0, population=0) == 1.0
