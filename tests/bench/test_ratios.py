"""The arithmetic of the comparisons; nothing here looks at a clock."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.ratios import Ratio, in_turns, percentile


def ratio(ours: list[float], base: list[float], better: str = "lower") -> Ratio:
    return Ratio("a thing", "s", better, "mine", ours, "theirs", base)


def test_the_ratio_is_the_median_of_neighbours_not_the_quotient_of_medians() -> None:
    # The second pair met a busy machine: both took ten times as long.
    row = ratio([2, 20, 3], [1, 10, 1])
    assert row.pairs == [2, 2, 3]
    assert row.value == 2
    # The quotient of medians would have said 3.
    assert row.as_mapping()["mine"] == 3 and row.as_mapping()["theirs"] == 1


def test_the_line_names_both_sides_the_spread_and_which_way_is_good() -> None:
    line = ratio([2, 20, 3], [1, 10, 1]).as_line()
    for part in ("a thing", "2.00", "2.00 to 3.00", "mine 3", "theirs 1", "lower is better"):
        assert part in line


@pytest.mark.parametrize(
    ("ours", "base", "better"),
    [([], [], "lower"), ([1], [1, 2], "lower"), ([0], [1], "lower"), ([1], [1], "faster")],
)
def test_a_ratio_of_nothing_of_odd_ends_or_of_zero_is_refused(
    ours: list[float], base: list[float], better: str
) -> None:
    with pytest.raises(ValueError):
        ratio(ours, base, better)


def test_runs_take_turns_and_every_other_round_goes_backwards() -> None:
    called: list[str] = []

    def run(name: str) -> Callable[[], float]:
        def one() -> float:
            called.append(name)
            return float(len(called))

        return one

    measured = in_turns({"a": run("a"), "b": run("b")}, 2, warm=1)
    assert called == ["a", "b", "b", "a", "a", "b"]
    # The warm round is not measured.
    assert measured == {"a": [4, 5], "b": [3, 6]}


def test_a_percentile_is_a_value_that_was_measured() -> None:
    hundred = [float(number) for number in range(100, 0, -1)]
    assert percentile(hundred, 0.95) == 95
    assert percentile(hundred, 1) == 100
    assert percentile([7.0], 0.95) == 7
    assert percentile([float(number) for number in range(1, 26)], 0.95) == 24


@pytest.mark.parametrize(("values", "share"), [([], 0.95), ([1.0], 0), ([1.0], 1.5)])
def test_a_percentile_of_nothing_is_refused(values: list[float], share: float) -> None:
    with pytest.raises(ValueError):
        percentile(values, share)
