"""The shipped policy says what was decided, and a dataset can only make it stricter."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.document import (
    ISOLATION_ORDER,
    Policy,
    as_mapping,
    default_policy,
    deploy,
    inspected_under,
    policy_from_mapping,
    read_policy,
    stricter_since,
    tighten,
    tighten_toml,
)
from policies.errors import Invalid
from policies.tightening import FIXED, Higher, Lower, Ordered, is_tighter

BASE = default_policy()


def leaves(value: Any = BASE, path: str = "") -> Iterator[tuple[str, Any, tuple[Any, ...], Any]]:
    """Yield (path, type, markers, value) of every setting of a policy."""
    for name, hint in get_type_hints(type(value), include_extras=True).items():
        here, inner = f"{path}.{name}".strip("."), getattr(value, name)
        if get_origin(hint) is Annotated:
            bare, *markers = get_args(hint)
            yield here, bare, tuple(markers), inner
        elif isinstance(inner, Mapping):
            for key, item in inner.items():
                yield from leaves(item, f"{here}.{key}")
        else:
            yield from leaves(inner, here)


LEAVES = {path: (bare, markers, value) for path, bare, markers, value in leaves()}
TIGHTENABLE = {
    path: leaf
    for path, leaf in LEAVES.items()
    if not path.startswith("deployment") and FIXED not in leaf[1]
}


def nested(path: str, value: Any) -> dict[str, Any]:
    for name in reversed(path.split(".")):
        value = {name: value}
    return value


def candidates(markers: tuple[Any, ...], value: Any) -> st.SearchStrategy[Any]:
    for marker in markers:
        if isinstance(marker, Lower | Higher):
            number = st.floats if isinstance(value, float) else st.integers
            whole = isinstance(value, int)
            low, high = (
                (round(marker.least), round(marker.most))
                if whole
                else (
                    marker.least,
                    marker.most,
                )
            )
            return number(low, high)
        if isinstance(marker, Ordered):
            return st.sampled_from(marker.words)
    if isinstance(value, bool):
        return st.booleans()
    return st.lists(st.sampled_from([*value, "F64", "other"]), unique=True, max_size=8)


@st.composite
def overrides(draw: st.DrawFn) -> tuple[str, Any]:
    path = draw(st.sampled_from(sorted(TIGHTENABLE)))
    _bare, markers, value = TIGHTENABLE[path]
    return path, draw(candidates(markers, value))


def test_every_setting_but_the_fixed_ones_has_a_direction() -> None:
    for path, (_bare, markers, _value) in LEAVES.items():
        assert any(is_direction(m) for m in markers), path


def is_direction(marker: Any) -> bool:
    return isinstance(marker, Lower | Higher | Ordered) or marker.name in (
        "must",
        "must-not",
        "subset",
        "superset",
        "fixed",
    )


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("deployment.tick_seconds", 60),
        ("access.maximum_days", 365),
        ("access.purposes.research.download_data", False),
        ("access.purposes.commercial.download_data", False),
        ("access.purposes.download.download_data", False),
        ("access.purposes.commercial.weights", True),
        ("review.access.quorum", 3),
        ("review.access.internal", 1),
        ("review.access.external", 1),
        ("review.release.quorum", 2),
        ("review.release.distinct_units", True),
        ("release.cell_threshold", 10),
        ("release.curve_points", 101),
        ("release.matrix_side", 32),
        ("ledger.job_bits", 2000),
        ("ledger.grant_bits", 16000),
        ("isolation.minimum", "bubblewrap"),
        ("submission.images", ("pytorch-cpu", "pytorch-cuda")),
    ],
)
def test_the_shipped_policy(path: str, value: Any) -> None:
    assert LEAVES[path][2] == value


def test_isolation_goes_from_bubblewrap_over_gvisor_to_kata() -> None:
    assert ISOLATION_ORDER == ("bubblewrap", "gvisor", "kata")


def test_plain_values_and_back() -> None:
    assert policy_from_mapping(as_mapping(BASE)) == BASE


@settings(max_examples=300, deadline=None)
@given(overrides())
def test_tightening_never_loosens(override: tuple[str, Any]) -> None:
    path, value = override
    try:
        result = tighten(BASE, nested(path, value))
    except Invalid as error:
        assert error.field
        return
    for here, _bare, markers, after in leaves(result):
        assert is_tighter(markers, LEAVES[here][2], after), here


@settings(max_examples=100, deadline=None)
@given(overrides())
def test_tightening_twice_is_the_same_and_cannot_be_undone(override: tuple[str, Any]) -> None:
    path, value = override
    try:
        once = tighten(BASE, nested(path, value))
    except Invalid:
        return
    assert tighten(once, nested(path, value)) == once
    if once != BASE:
        with pytest.raises(Invalid):
            tighten(once, nested(path, as_value(LEAVES[path][2])))


@settings(max_examples=300, deadline=None)
@given(overrides())
def test_an_inspection_falls_by_what_is_stricter_since(override: tuple[str, Any]) -> None:
    path, value = override
    kept = json.loads(json.dumps(inspected_under(BASE)))
    try:
        now = tighten(BASE, nested(path, value))
    except Invalid:
        return
    section, name = path.split(".", 1)
    held_to = name in kept.get(section, {}) and now != BASE
    assert stricter_since(now, kept) == (path if held_to else None)
    # An inspection under the stricter one is good enough for the looser one, and an old row's too.
    assert stricter_since(BASE, inspected_under(now)) is None
    assert stricter_since(now, {}) is None


def test_an_inspection_is_not_held_to_what_is_asked_later() -> None:
    assert set(inspected_under(BASE)) == {"release", "attacks", "privacy"}
    for name in ("download_hours", "download_uses", "sealed_evaluations"):
        assert name not in inspected_under(BASE)["release"]


def test_a_setting_that_no_policy_knows_any_more_makes_an_inspection_old() -> None:
    assert stricter_since(BASE, {"attacks": {"gone": 3}}) == "attacks.gone"


def as_value(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def looser_than(markers: tuple[Any, ...], value: Any) -> Any:
    for marker in markers:
        if isinstance(marker, Lower):
            return type(value)(value + 1) if value + 1 <= marker.most else None
        if isinstance(marker, Higher):
            less = value - 1 if isinstance(value, int) else value / 2
            return less if less >= marker.least and less != value else None
        if isinstance(marker, Ordered):
            before = marker.words.index(value)
            return marker.words[before - 1] if before else None
        if marker.name == "must":
            return False if value else None
        if marker.name == "must-not":
            return None if value else True
        if marker.name == "subset":
            return [*value, "looser"]
        if marker.name == "superset":
            return list(value[1:]) if value else None
    return None


def can_be_looser() -> list[str]:
    """The settings that are not as loose as they can be."""
    return sorted(
        path
        for path, (_bare, markers, value) in TIGHTENABLE.items()
        if looser_than(markers, value) is not None
    )


@pytest.mark.parametrize("path", can_be_looser())
def test_a_looser_value_is_refused_by_name(path: str) -> None:
    """Each direction, on the setting itself: the declaration cannot be forgotten."""
    _bare, markers, value = TIGHTENABLE[path]
    looser = looser_than(markers, value)
    with pytest.raises(Invalid) as caught:
        tighten(BASE, nested(path, looser))
    assert caught.value.field == path
    assert caught.value.code == "policy.looser"


@pytest.mark.parametrize(
    ("override", "field"),
    [
        ({"relase": {}}, "relase"),
        ({"release": {"cell_treshold": 20}}, "release.cell_treshold"),
        ({"release": 3}, "release"),
        ({"release": {"cell_threshold": "20"}}, "release.cell_threshold"),
        ({"release": {"cell_threshold": True}}, "release.cell_threshold"),
        ({"release": {"cell_threshold": 20.0}}, "release.cell_threshold"),
        ({"release": {"cell_threshold": 10**9}}, "release.cell_threshold"),
        ({"release": {"dtypes": "F32"}}, "release.dtypes"),
        ({"release": {"dtypes": ["F16", "F16"]}}, "release.dtypes"),
        ({"release": {"dtypes": [1]}}, "release.dtypes"),
        ({"deid": {"sample_confidence": float("nan")}}, "deid.sample_confidence"),
        ({"deid": {"sample_confidence": float("inf")}}, "deid.sample_confidence"),
        ({"deid": {"redact_text": 1}}, "deid.redact_text"),
        ({"isolation": {"minimum": "none"}}, "isolation.minimum"),
        ({"access": {"purposes": {"resale": {}}}}, "access.purposes.resale"),
        (
            {"access": {"purposes": {"download": {"download_data": True}}}},
            "access.purposes.download.download_data",
        ),
        ({"name": "mine"}, "name"),
        ({"deployment": {"tick_seconds": 120}}, "deployment"),
        ({"deployment": {}}, "deployment"),
        ({"submission": {"maximum": {"memory": "128Gi"}}}, "submission.maximum.memory"),
        ({"submission": {"maximum": {"time": "3d"}}}, "submission.maximum.time"),
        ([], "policy"),
        ("", "policy"),
    ],
)
def test_a_wrong_override_names_its_field(override: Any, field: str) -> None:
    with pytest.raises(Invalid) as caught:
        tighten(BASE, override)
    assert caught.value.field == field


def test_a_policy_that_nobody_can_meet_is_refused() -> None:
    with pytest.raises(Invalid) as caught:
        tighten(BASE, {"review": {"release": {"approvals": 3}}})
    assert caught.value.field == "review.release.quorum"
    with pytest.raises(Invalid):
        tighten(BASE, {"review": {"access": {"external": 3}}})
    larger = tighten(BASE, {"review": {"access": {"quorum": 5, "approvals": 4, "external": 3}}})
    assert larger.review.access.approvals == 4


def test_the_original_is_untouched() -> None:
    stricter = tighten(BASE, {"access": {"purposes": {"commercial": {"weights": False}}}})
    assert not stricter.access.purposes["commercial"].weights
    assert default_policy().access.purposes["commercial"].weights


def test_the_owner_of_the_machine_sets_the_tick() -> None:
    assert deploy(BASE, {"tick_seconds": 1}).deployment.tick_seconds == 1
    assert deploy(BASE, {"tick_seconds": 600}).deployment.tick_seconds == 600
    for wrong in ({"tick_seconds": 0}, {"tick_seconds": True}, {"ticks": 1}):
        with pytest.raises(Invalid) as caught:
            deploy(BASE, wrong)
        assert caught.value.field.startswith("deployment.tick")


def test_the_owner_of_the_machine_adds_an_image_and_the_policy_must_name_it() -> None:
    extra = {"images": {"jax-cpu": {"description": "JAX", "gpu": False}}}
    assert "jax-cpu" in deploy(BASE, extra).deployment.images
    assert "jax-cpu" not in deploy(BASE, extra).submission.images


def test_every_setting_of_the_document_is_needed() -> None:
    text = (resources.files("policies") / "documents" / "default.toml").read_text("utf-8")
    assert read_policy(text) == BASE
    with pytest.raises(Invalid) as caught:
        read_policy(text.replace("cell_threshold = 10\n", ""))
    assert caught.value.field == "release.cell_threshold"
    with pytest.raises(Invalid):
        read_policy("name = [")
    with pytest.raises(Invalid):
        tighten_toml(BASE, "[" * 100_000)


def test_a_policy_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        BASE.release.cell_threshold = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        BASE.access.purposes["download"] = None  # type: ignore[index]


def test_a_policy_is_a_policy() -> None:
    assert isinstance(BASE, Policy)
