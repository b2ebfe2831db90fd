"""Small differences and many small releases are told, ordinary neighbours are not."""

from __future__ import annotations

import dataclasses

import pytest

from policies.document import default_policy
from policies.history import Model, distance, notices

POLICY = default_policy().history
NEW = Model(
    release=99,
    organisation="company",
    version=2,
    architecture="a",
    code="c",
    sketch=(1.0, 2.0, 2.0),
    bits=1e9,
    day=100.0,
)


def old(release: int = 1, **changes: object) -> Model:
    return dataclasses.replace(
        NEW, **{"release": release, "sketch": (-2.0, 1.0, 0.5), "code": "d", "day": 90.0, **changes}
    )


def rules(*past: Model, new: Model = NEW) -> list[str]:
    return [notice.rule for notice in notices(new, past, POLICY)]


@pytest.mark.parametrize(
    ("past", "found"),
    [
        ([], []),
        ([old()], []),  # the same architecture, trained anew
        ([old(sketch=NEW.sketch)], ["history.near-identical"]),
        ([old(sketch=(1.0, 2.0, 1.9))], ["history.near-identical"]),
        ([old(sketch=(1.0, 2.0, 1.0))], []),
        ([old(sketch=NEW.sketch, architecture="b")], []),
        # Nearly the same model, or the same program, from another version: the difference tells.
        ([old(sketch=NEW.sketch, version=1)], ["history.near-identical", "history.differencing"]),
        ([old(code="c", version=1)], ["history.differencing"]),
        ([old(code="c")], []),
        ([old(version=1)], []),
        # Of another organisation it is as near.
        ([old(sketch=NEW.sketch, organisation="x")], ["history.near-identical"]),
        (
            [old(n, sketch=NEW.sketch) for n in (1, 2)],
            ["history.near-identical", "history.row"],
        ),
        (
            [old(n, sketch=NEW.sketch, organisation="x") for n in (1, 2)],
            ["history.near-identical"],
        ),
        (
            [old(n, sketch=NEW.sketch, day=1.0) for n in (1, 2)],
            ["history.near-identical"],
        ),
        # Without weights there is nothing to compare.
        ([old(sketch=(), architecture="")], []),
    ],
)
def test_what_is_told_of_one_model_after_another(past: list[Model], found: list[str]) -> None:
    assert rules(*past) == found


def test_many_small_releases_of_several_organisations_are_told() -> None:
    new = dataclasses.replace(NEW, bits=1000.0, architecture="", sketch=())
    past = [
        old(n, bits=1000.0, organisation=f"org-{n % 3}", architecture="", sketch=())
        for n in range(POLICY.small_releases - 1)
    ]
    [notice] = notices(new, past, POLICY)
    assert notice.rule == "history.small"
    assert notice.evidence == {"releases": 10, "organisations": 4, "bits": 10_000}
    assert "of several organisations" in notice.message
    assert rules(*past[1:], new=new) == []
    large = dataclasses.replace(new, bits=POLICY.small_bits + 1)
    assert rules(*past, new=large) == []
    assert rules(*[dataclasses.replace(one, day=5.0) for one in past], new=new) == []


def test_a_distance_is_relative_and_of_equals_nothing() -> None:
    assert distance((3.0, 4.0), (3.0, 4.0)) == 0
    assert distance((3.0, 0.0), (0.0, 3.0)) == pytest.approx(2**0.5)
    assert distance((300.0, 0.0), (0.0, 300.0)) == pytest.approx(2**0.5)
    assert distance((1.0,), (1.0, 2.0)) == float("inf")
    assert distance((), ()) == float("inf")
