"""The figures of attacks: right where the truth is known, and honest about how sure they are."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from sandbox_runner.inspection.attacks import quantiles, references, statistics
from sandbox_runner.inspection.attacks.statistics import Subjects


def drawn(members: int, others: int, shift: float, seed: int = 0) -> Subjects:
    rng = np.random.default_rng(seed)
    flags = np.arange(members + others) < members
    return Subjects(rng.normal(size=len(flags)) + shift * flags, flags)


def test_pictures_of_one_subject_count_once() -> None:
    values = np.array([1.0, 3.0, 10.0, 0.0])
    found = statistics.by_subject(
        values, np.array([7, 7, 9, 8]), np.array([True, True, False, False])
    )

    assert found.scores.tolist() == [2.0, 0.0, 10.0]
    assert found.members.tolist() == [True, False, False]
    assert found.counts == (1, 2)


def test_the_interval_of_the_area_holds_the_truth_as_often_as_it_says() -> None:
    truth = float(norm.cdf(0.8 / np.sqrt(2)))

    held = 0
    for seed in range(60):
        interval = statistics.area_interval(drawn(40, 60, 0.8, seed), 0.95)
        held += interval.low <= truth <= interval.high

    # 95 % of 60 is 57; fewer than 50 would happen once in 10,000 times.
    assert held >= 50


def test_without_one_side_there_is_no_interval() -> None:
    with pytest.raises(ValueError, match="no subjects"):
        statistics.area_interval(drawn(5, 0, 0.0))


def test_the_difference_of_two_attacks_is_on_the_same_subjects() -> None:
    strong, weak = drawn(60, 60, 2.0, 1), drawn(60, 60, 0.0, 2)

    interval = statistics.difference_interval(strong, weak)

    assert interval.low > 0.2
    assert statistics.difference_interval(weak, weak).high == 0.0
    with pytest.raises(ValueError, match="same subjects"):
        statistics.difference_interval(strong, drawn(59, 61, 0.0))


def test_equal_scores_have_no_threshold_between_them() -> None:
    same = Subjects(np.zeros(6), np.arange(6) < 3)

    false, true = statistics.roc(same)

    assert false.tolist() == [0.0, 1.0]
    assert true.tolist() == [0.0, 1.0]
    assert statistics.advantage(same) == 0.0
    assert statistics.true_rate(same, 0.1).value == 0.0


@pytest.mark.parametrize(
    ("outside", "rate"),
    [(9, None), (99, None), (100, 0.1), (999, 0.1), (1000, 0.01), (10**5, 1e-3)],
)
def test_a_rate_is_told_only_where_ten_false_positives_are_expected(
    outside: int, rate: float | None
) -> None:
    assert statistics.lowest_rate(outside) == rate
    if rate is not None:
        assert statistics.needed(rate) <= outside


def test_the_rate_and_its_exact_interval() -> None:
    # 30 of 50 members lie above all but 10 of 100 others.
    scores = np.concatenate([np.full(30, 2.0), np.full(20, 0.0), np.full(10, 2.0), np.ones(90)])
    subjects = Subjects(scores, np.arange(150) < 50)

    found = statistics.true_rate(subjects, 0.1)

    assert found.value == 0.6
    # Clopper and Pearson for 30 of 50.
    assert (round(found.low, 3), round(found.high, 3)) == (0.452, 0.736)


def test_a_permutation_is_never_surer_than_its_rounds_and_goes_on_where_it_matters() -> None:
    members = np.arange(40) < 20

    def inside(flags: np.ndarray) -> float:
        return float((flags & members).sum())

    assert statistics.permutation(inside, members, rounds=100)[2] == pytest.approx(1 / 101)
    longer = statistics.permutation(inside, members, rounds=100, most=500)[2]
    assert longer == pytest.approx(1 / 501)
    rng = np.random.default_rng(0)
    noise = []
    for _ in range(60):
        values = rng.normal(size=40)

        def gap(flags: np.ndarray, values: np.ndarray = values) -> float:
            return float(values[flags].mean() - values[~flags].mean())

        noise.append(statistics.permutation(gap, members, rounds=200)[2])
    # Under the null hypothesis the p is even: 3 of 60 below 5 %, never 11.
    assert sum(p <= 0.05 for p in noise) < 11


def test_quantile_regression_finds_lines_through_quantiles() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (400, 1))
    y = 2 * x[:, 0] + rng.normal(size=400) * 0.5

    middle, upper = quantiles.fit(x, y, 0.5), quantiles.fit(x, y, 0.9)

    assert middle is not None
    assert upper is not None
    assert middle[1] == pytest.approx(2.0, abs=0.2)
    assert ((y > upper[0] + upper[1] * x[:, 0]).mean()) == pytest.approx(0.1, abs=0.02)


def test_quantile_scores_know_what_makes_a_picture_easy() -> None:
    """A score that only follows a feature says nothing; what is above its like does."""
    rng = np.random.default_rng(1)
    count = 300
    feature = rng.uniform(-3, 3, (count, 1))
    held_out = np.arange(count) >= 100
    # Members are harder pictures, so their plain scores are lower, and yet above their like.
    feature[~held_out] -= 2.0
    values = feature[:, 0] + 0.3 * rng.normal(size=count) + 0.6 * ~held_out
    found = quantiles.scores(values, feature, np.arange(count), held_out)

    assert found is not None
    plain = statistics.area(Subjects(values, ~held_out))
    assert plain < 0.5
    assert statistics.area(Subjects(found, ~held_out)) > 0.85


def test_quantile_scores_need_enough_others() -> None:
    values = np.arange(40.0)
    assert quantiles.scores(values, values[:, None], np.arange(40), np.arange(40) > 20) is None


def test_log_odds_of_three_classes() -> None:
    odds = references.true_odds(np.log([[0.7, 0.2, 0.1]]), np.array([0]))
    assert odds[0] == pytest.approx(np.log(0.7 / 0.3))
    assert references.true_odds(np.array([[99.0, 0.0]]), np.array([0]))[0] == references.MOST_ODDS
