"""Only declared numbers leave: rounded, in range, with small counts suppressed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.document import Policy, default_policy, tighten
from policies.metrics import MetricSpec, read_metrics
from policies.release import check_metrics, verdict

POLICY = default_policy()
SPECS = read_metrics(
    {
        "loss": "number",
        "auc": {"kind": "number", "min": 0, "max": 1, "digits": 3},
        "cases": {"kind": "number", "min": 0, "max": 100000, "count": True},
        "roc": {"kind": "curve", "min": 0, "max": 1},
        "confusion": "matrix",
        "weights": {"kind": "matrix", "count": False},
        "counts": {"kind": "matrix", "count": True},
        "outcome": {"kind": "choice", "values": ["converged", "stopped"]},
    },
    POLICY,
)


def released(name: str, value: Any, policy: Policy = POLICY) -> tuple[Any, str, set[str]]:
    """Return what of one metric leaves, the verdict, and the rules that said anything else."""
    rounded, findings = check_metrics({name: SPECS[name]}, {name: value}, policy)
    rules = {f.rule for f in findings if f.rule not in ("metrics.budget",)}
    return rounded.get(name, "nothing"), verdict(findings), rules


@pytest.mark.parametrize(
    ("name", "value", "leaves"),
    [
        ("loss", 0.123456789, 0.1235),
        ("loss", -1234567, -1235000.0),
        ("loss", 0, 0.0),
        ("auc", 0.87654, 0.877),
        ("auc", 1, 1.0),
        ("outcome", "stopped", "stopped"),
        ("roc", [], []),
        ("roc", [0.11111, 1, 0], [0.1111, 1.0, 0.0]),
        ("roc", [0.5, None], [0.5, None]),
        ("roc", {"fpr": [0, 1], "tpr": [0.5, 1]}, {"fpr": [0.0, 1.0], "tpr": [0.5, 1.0]}),
        (
            "roc",
            [{"epoch": 1, "loss": 0.9}, {"epoch": 20, "loss": 0.1}],
            {"epoch": [1.0, 20.0], "loss": [0.9, 0.1]},  # the axis is not in the values' range
        ),
        ("roc", [0.5] * 101, [0.5] * 101),
        ("cases", 1234, 1234),
        ("cases", 10, 10),
        ("weights", [[0.11111, 2], [3, 4]], [[0.1111, 2.0], [3.0, 4.0]]),
        ("confusion", [[100, 40], [30, 200]], [[100, 40], [30, 200]]),
        ("confusion", [[0.91, 0.09], [0.2, 0.8]], [[0.91, 0.09], [0.2, 0.8]]),
        ("confusion", [[None, 0.5]], [[None, 0.5]]),
        ("confusion", [[1, 0], [0.25, 0.75]], [[1.0, 0.0], [0.25, 0.75]]),
        ("confusion", [[50] * 32] * 32, [[50] * 32] * 32),
    ],
)
def test_what_was_declared_leaves_rounded(name: str, value: Any, leaves: Any) -> None:
    assert released(name, value) == (leaves, "pass", set())


@pytest.mark.parametrize(
    ("name", "value", "leaves"),
    [
        ("cases", 9, None),
        ("cases", 0, None),
        ("counts", [[9, 50, 3]], [[None, 50, None]]),
        ("confusion", [[100, 3, 2], [40, 50, 60]], [[100, None, None], [40, 50, 60]]),
        # One alone could be had from the total, so the smallest other cell goes too.
        ("confusion", [[100, 3], [40, 50]], [[100, None], [None, 50]]),
        ("confusion", [[3.0, 100.0], [40.0, 50.0]], [[None, 100], [None, 50]]),
        ("confusion", [[1, 0], [0, 1]], [[None, None], [None, None]]),
        ("counts", [[4]], [[None]]),
        # A share, a mean or a cell that was left empty among counts does not uncover them.
        ("confusion", [[100, 3], [40, 0.5]], [[100.0, None], [None, 0.5]]),
        ("confusion", [[3, 0.97], [4, -1.5]], [[None, 0.97], [None, -1.5]]),
        ("confusion", [[3.00001, 2], [40, 0.5]], [[None, None], [40.0, 0.5]]),
    ],
)
def test_small_counts_are_suppressed(name: str, value: Any, leaves: Any) -> None:
    assert released(name, value) == (leaves, "pass", {"metrics.small-cells"})


def test_how_many_cells_were_suppressed_is_for_reviewers_only() -> None:
    _rounded, findings = check_metrics(SPECS, {"counts": [[3, 4, 50]]}, POLICY)
    found = next(f for f in findings if f.rule == "metrics.small-cells")
    assert found.public()["evidence"] == {"threshold": 10}
    assert found.internal["suppressed"] == 2


def test_a_higher_threshold_by_policy() -> None:
    strict = tighten(POLICY, {"release": {"cell_threshold": 30}})
    assert released("cases", 29, strict)[0] is None
    assert released("cases", 30, strict)[0] == 30


@pytest.mark.parametrize(
    ("name", "value", "leaves"),
    [
        ("auc", 1.0001, None),
        ("auc", -0.1, None),
        ("auc", float("nan"), None),
        ("loss", float("inf"), None),
        ("loss", 10**400, None),
        ("cases", 12.5, None),
        ("cases", -20, None),
        ("cases", 10**400, None),
        ("cases", float("nan"), None),
        ("cases", float("inf"), None),
        ("roc", [0.5, 2, float("nan")], [0.5, None, None]),
        ("roc", {"x": [1], "tpr": [7]}, {"x": [1.0], "tpr": [None]}),
        ("confusion", [[float("nan"), 0.5]], [[None, 0.5]]),
        ("confusion", [[10**400, 50]], [[None, 50.0]]),
    ],
)
def test_numbers_that_are_none_or_out_of_range_go_to_review(
    name: str, value: Any, leaves: Any
) -> None:
    what, outcome, rules = released(name, value)
    assert (what, outcome) == (leaves, "review")
    assert "metrics.range" in rules


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("loss", "0.5", "metrics.type"),
        ("loss", True, "metrics.type"),
        ("loss", None, "metrics.type"),
        ("loss", [0.5], "metrics.type"),
        ("loss", {"a": 1}, "metrics.type"),
        ("outcome", "patient 12", "metrics.choice"),
        ("outcome", 1, "metrics.choice"),
        ("outcome", ["converged"], "metrics.choice"),
        ("outcome", "Converged", "metrics.choice"),
        ("roc", 0.5, "metrics.type"),
        ("roc", "0.5,0.6", "metrics.type"),
        ("roc", [0.5] * 102, "metrics.length"),
        ("roc", [[0.5]], "metrics.type"),
        ("roc", ["Kim"], "metrics.type"),
        ("roc", [True], "metrics.type"),
        ("roc", {"fpr": [0.5], "tpr": [0.5, 0.6]}, "metrics.length"),
        ("roc", {"fpr": [0.5] * 102}, "metrics.length"),
        ("roc", {"fpr": 0.5}, "metrics.type"),
        ("roc", {"fpr": "text"}, "metrics.type"),
        ("roc", {"Kim Min-ji 1971": [0.5]}, "metrics.column-name"),
        ("roc", {"<b>": [0.5]}, "metrics.column-name"),
        ("roc", {1: [0.5]}, "metrics.column-name"),
        ("roc", {f"c{n}": [0.5] for n in range(17)}, "metrics.length"),
        ("roc", [{"x": 1}, {"y": 1}], "metrics.shape"),
        ("roc", [{"x": 1}, 1], "metrics.shape"),
        ("roc", [{"x": 1}] * 102, "metrics.length"),
        ("roc", [{"x": "Kim"}], "metrics.type"),
        ("confusion", 3, "metrics.shape"),
        ("confusion", [], "metrics.shape"),
        ("confusion", [[]], "metrics.shape"),
        ("confusion", [[1, 2], [3]], "metrics.shape"),
        ("confusion", [[1]] * 33, "metrics.shape"),
        ("confusion", [[1] * 33], "metrics.shape"),
        ("confusion", [["Kim"]], "metrics.type"),
        ("confusion", [[True]], "metrics.type"),
        ("confusion", [[[1]]], "metrics.type"),
        ("confusion", {"a": [1]}, "metrics.shape"),
    ],
)
def test_anything_else_stays_and_blocks(name: str, value: Any, rule: str) -> None:
    assert released(name, value) == ("nothing", "block", {rule})


@pytest.mark.parametrize("values", [None, [], "text", 3, [{"loss": 1}]])
def test_metrics_are_a_table(values: Any) -> None:
    rounded, findings = check_metrics(SPECS, values, POLICY)
    assert not rounded
    assert verdict(findings) == "block"


def test_undeclared_metrics_stay_and_their_names_are_for_reviewers_only() -> None:
    rounded, findings = check_metrics(SPECS, {"loss": 0.5, "kim_1971_03_02": 1.0}, POLICY)
    assert rounded == {"loss": 0.5}
    assert verdict(findings) == "block"
    assert "kim" not in json.dumps([f.public() for f in findings])
    assert "kim" in json.dumps([f.as_mapping() for f in findings])


def test_columns_that_the_job_made_up_lose_their_names() -> None:
    value = {"kim_1971": [0.1], "fpr": [0.2], "auc": [0.3], "aa": [0.4]}
    rounded, findings = check_metrics(SPECS, {"roc": value}, POLICY)
    assert rounded["roc"] == {"column_1": [0.4], "auc": [0.3], "fpr": [0.2], "column_2": [0.1]}
    assert verdict(findings) == "pass"
    assert "kim" not in json.dumps([rounded, [f.as_mapping() for f in findings]])


def test_a_column_named_like_a_numbered_one_takes_no_others_place() -> None:
    value = {"column_2": [0.1], "zz": [0.2], "a": [0.3]}
    rounded, _findings = check_metrics(SPECS, {"roc": value}, POLICY)
    assert sorted(rounded["roc"].values()) == [[0.1], [0.2], [0.3]]
    specs = {"roc": SPECS["roc"], "column_1": SPECS["loss"]}
    rounded, _findings = check_metrics(specs, {"roc": {"a": [0.1], "column_1": [0.2]}}, POLICY)
    assert sorted(rounded["roc"].values()) == [[0.1], [0.2]]


def test_the_order_of_columns_says_nothing() -> None:
    one = check_metrics(SPECS, {"roc": {"tpr": [0.1], "fpr": [0.2]}}, POLICY)[0]
    other = check_metrics(SPECS, {"roc": {"fpr": [0.2], "tpr": [0.1]}}, POLICY)[0]
    assert json.dumps(one) == json.dumps(other)


def test_the_policy_rounds_more_than_the_manifest_asked() -> None:
    strict = tighten(POLICY, {"release": {"digits": 2}})
    assert released("loss", 0.123456, strict)[0] == 0.12


def test_many_numbers_are_shown_to_a_reviewer() -> None:
    specs = {f"c{n}": MetricSpec("curve") for n in range(30)}
    rounded, findings = check_metrics(specs, {name: [0.5] * 101 for name in specs}, POLICY)
    assert len(rounded) == 30
    budget = next(f for f in findings if f.rule == "metrics.budget")
    assert budget.severity == "review"


def test_a_missing_metric_is_said_and_harmless() -> None:
    rounded, findings = check_metrics({"loss": SPECS["loss"]}, {}, POLICY)
    assert not rounded
    assert verdict(findings) == "pass"
    assert {f.rule for f in findings} >= {"metrics.missing"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=6), inner, max_size=5)
    ),
    max_leaves=20,
)


def texts(value: Any) -> set[str]:
    if isinstance(value, str):
        return {value}
    if isinstance(value, dict):
        return set(value) | {t for item in value.values() for t in texts(item)}
    if isinstance(value, list):
        return {t for item in value for t in texts(item)}
    return set()


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(SPECS)) | st.text(max_size=5), JSON) | JSON)
def test_whatever_a_job_writes_no_text_of_its_own_leaves(values: Any) -> None:
    from policies.metric_values import COLUMN_NAMES

    rounded, findings = check_metrics(SPECS, values, POLICY)
    json.dumps(rounded, allow_nan=False)
    json.dumps([f.as_mapping() for f in findings], allow_nan=False)
    allowed = set(SPECS) | COLUMN_NAMES | {f"column_{n}" for n in range(1, 17)}
    assert texts(rounded) <= allowed | {"converged", "stopped"}
    # What leaves, when checked again, leaves unchanged.
    again, _findings = check_metrics(SPECS, rounded, POLICY)
    assert {k: v for k, v in again.items() if v != rounded[k]} == {}


def test_the_limits_themselves_are_allowed() -> None:
    names = ["fpr", "tpr", "x", "y", "loss", "auc", "f1", "iou"]
    names += ["mean", "std", "lower", "upper", "val", "test", "train", "seconds"]
    assert len(names) == 16
    assert released("roc", {name: [0.5] for name in names})[1] == "pass"
    assert released("roc", [{"x": 1, "tpr": 0.5}] * 101)[1] == "pass"
    large = MetricSpec("matrix", digits=15)
    for cell, outcome in ((2**49, "pass"), (2**53, "review")):
        _rounded, findings = check_metrics({"m": large}, {"m": [[cell, 0.5]]}, POLICY)
        assert verdict(findings) == "pass", cell
        _rounded, findings = check_metrics(SPECS, {"counts": [[cell, 50]]}, POLICY)
        assert verdict(findings) == outcome, cell


def test_the_budget_itself_is_ordinary() -> None:
    _rounded, findings = check_metrics({"loss": SPECS["loss"]}, {"loss": 0.5}, POLICY)
    bits = next(f.evidence["bits"] for f in findings if f.rule == "metrics.budget")
    for most, outcome in ((bits, "pass"), (int(bits) - 1, "review")):
        strict = tighten(POLICY, {"release": {"metrics_bits": most}})
        assert released("loss", 0.5, strict)[1] == outcome
