"""Private training: what may be asked for, which record counts, what a review is lighter by."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.document import Policy, deploy, tighten
from policies.errors import Invalid
from policies.findings import Finding
from policies.privacy import (
    Record,
    delta_for,
    guaranteed,
    lighter,
    privacy_finding,
    read_record,
    rounded_up,
    sheltered,
)
from policies.submission import manifest_from_mapping

ASKED = {"epsilon": 4, "steps": 100, "rate": 0.1, "learning_rate": 0.1}
RECORD = Record(
    epsilon=3.21,
    delta=0.001,
    noise=1.5,
    rate=0.1,
    steps=100,
    clip=1.0,
    subjects=60,
    accountant="RDP",
    trainer="a" * 64,
    graph="b" * 64,
    weights={"model.safetensors": "c" * 64},
)
FILES = dict(RECORD.weights)


def values(private: Mapping[str, Any] = ASKED, **others: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "job": {"recipe": "private"},
        "model": {"build": "model:build"},
        "config": {"size": [8, 8]},
        "private": dict(private),
        **others,
    }


def test_a_private_manifest_is_read_and_read_back(policy: Policy) -> None:
    manifest = manifest_from_mapping(values(), policy)
    assert manifest.private is not None
    assert (manifest.private.epsilon, manifest.private.noise, manifest.private.delta) == (4, 0, 0)
    assert manifest_from_mapping(manifest.as_mapping(), policy) == manifest


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"private": {"epsilon": 1}}, "private.steps"),
        ({"private": ASKED | {"epsilon": 8.5}}, "private.epsilon"),
        ({"private": ASKED | {"epsilon": 0}}, "private.epsilon"),
        ({"private": ASKED | {"epsilon": math.nan}}, "private.epsilon"),
        ({"private": ASKED | {"epsilon": True}}, "private.epsilon"),
        ({"private": ASKED | {"epsilon": "8"}}, "private.epsilon"),
        ({"private": ASKED | {"delta": 0.01}}, "private.delta"),
        ({"private": ASKED | {"delta": 0}}, "private.delta"),
        ({"private": ASKED | {"noise": 0.0}}, "private.noise"),
        ({"private": ASKED | {"rate": 0}}, "private.rate"),
        ({"private": ASKED | {"rate": 1.1}}, "private.rate"),
        ({"private": ASKED | {"steps": 1.5}}, "private.steps"),
        ({"private": ASKED | {"clip": math.inf}}, "private.clip"),
        ({"private": ASKED | {"optimizer": "lbfgs"}}, "private.optimizer"),
        ({"private": ASKED | {"seed": 7}}, "private.seed"),
        ({"model": {}}, "model.build"),
        ({"metrics": {"loss": "number"}}, "metrics"),
        ({"checkpoint": {"from": 3}}, "checkpoint"),
        ({"config": {"size": [8, 8], "task": "generation"}}, "config.task"),
        ({"config": {}}, "config.size"),
        ({"outputs": {"weights": ["a.safetensors", "b.safetensors"]}}, "outputs.weights"),
        ({"outputs": {"weights": ["model.onnx"]}}, "outputs.weights"),
        (
            {"resources": {"gpus": 1}, "job": {"recipe": "private", "image": "pytorch-cuda"}},
            "resources.gpus",
        ),
        ({"job": {"recipe": "classification"}}, "private"),
        ({"job": {"entrypoint": "train.py"}}, "private"),
    ],
)
def test_what_cannot_be_private_is_refused_by_field(
    policy: Policy, changed: dict[str, Any], field: str
) -> None:
    with pytest.raises(Invalid) as caught:
        manifest_from_mapping(values() | changed, policy)
    assert caught.value.field == field


def test_a_dataset_may_take_private_trainings_alone(policy: Policy) -> None:
    strict = tighten(
        policy,
        {
            "submission": {"own_trainer": False, "recipes": ["private"]},
            "privacy": {"epsilon": 2.0},
        },
    )
    for refused in (
        {"job": {"entrypoint": "train.py"}},
        {"job": {"recipe": "classification"}},
        values(),
    ):
        with pytest.raises(Invalid):
            manifest_from_mapping(refused, strict)
    assert manifest_from_mapping(values(ASKED | {"epsilon": 2}), strict).private
    with pytest.raises(Invalid):
        tighten(strict, {"privacy": {"epsilon": 3.0}})


@pytest.mark.parametrize(
    ("asked", "subjects", "delta"),
    [
        (0, 60, 0.001),  # a tenth of 1 / 60 is 0.00167
        (0, 100, 0.001),
        (0, 101, 0.0001),
        (0, 5, 0.001),  # the policy's most
        (0, 10_000, 1e-5),
        (0.0005, 60, 0.0005),
        (0.00012349, 60, 0.000123),  # down, never up
        (0.00012399, 60, 0.000123),
        (0.0009999, 60, 0.000999),
    ],
)
def test_delta_is_below_one_over_subjects(asked: float, subjects: int, delta: float) -> None:
    assert delta_for(asked, subjects, 0.001) == pytest.approx(delta, rel=1e-12)
    assert delta_for(asked, subjects, 0.001) * subjects < 1


@pytest.mark.parametrize(("asked", "subjects"), [(0.001, 1000), (0.001, 2000), (0, 0)])
def test_a_delta_that_lets_a_subject_out_is_refused(asked: float, subjects: int) -> None:
    with pytest.raises(Invalid):
        delta_for(asked, subjects, 0.001)


@given(st.floats(1e-9, 1e6))
def test_a_figure_is_never_shown_below_what_it_is(value: float) -> None:
    shown = rounded_up(value)
    assert value <= shown <= value * 1.0101
    # Findings show three digits: nothing is lost on the way out.
    assert float(f"{shown:.3g}") == shown
    assert Finding("r", "info", "", "", {"e": shown}).public()["evidence"]["e"] >= value


def finding(policy: Policy, record: Any, files: Mapping[str, str] = FILES) -> Finding:
    asked = manifest_from_mapping(values(), policy).private
    return privacy_finding(asked, record, files, "model.safetensors")


def test_the_runners_record_of_these_files_is_believed(policy: Policy) -> None:
    found = finding(policy, RECORD.as_mapping())
    assert found.severity == "info"
    assert (found.evidence["epsilon"], found.evidence["delta"]) == (3.21, 0.001)
    assert found.evidence["unit"] == "subject"
    assert guaranteed([found]) == (3.21, 0.001)


@pytest.mark.parametrize(
    "change",
    [
        {"weights": {"model.safetensors": "d" * 64}},  # other bytes
        {"weights": FILES | {"more.safetensors": "d" * 64}},
        {"weights": {}},
        {"epsilon": 4.01},  # more than was asked for
        {"epsilon": -1.0},
        {"epsilon": math.nan},
        {"epsilon": "3"},
        {"delta": 0.02},  # 1 / 60 and more
        {"rate": 0.05},  # another training
        {"clip": 2.0},
        {"steps": 101},
        {"unit": "image"},
        {"trainer": "x"},
        {"extra": 1},
    ],
)
def test_any_other_record_guarantees_nothing(policy: Policy, change: dict[str, Any]) -> None:
    found = finding(policy, RECORD.as_mapping() | change)
    assert found.evidence == {"epsilon": "not guaranteed"}
    assert found.severity == "review"
    assert guaranteed([found]) is None


@pytest.mark.parametrize("record", [None, {}, {"epsilon": 0.1}, RECORD.as_mapping()])
def test_a_job_that_did_not_ask_has_no_guarantee_whatever_it_shows(record: Any) -> None:
    found = privacy_finding(None, record, FILES, "model.safetensors")
    assert found.evidence == {"epsilon": "not guaranteed"}


def test_files_without_a_record_guarantee_nothing(policy: Policy) -> None:
    more = FILES | {"second.safetensors": "d" * 64}
    assert guaranteed([finding(policy, RECORD.as_mapping(), more)]) is None


def test_a_record_is_read_back() -> None:
    assert read_record(RECORD.as_mapping()) == RECORD


def found_rules(rows: list[Finding]) -> dict[str, str]:
    return {row.rule: row.severity for row in rows}


REVIEWED = [
    Finding("membership.unmeasured", "review", "", ""),
    Finding("memorisation.inverted", "review", "", ""),
    Finding("tensors.precision", "review", "", ""),
    Finding("membership.auc", "block", "", ""),
    Finding("samples.stored", "block", "", "", hard=True),
    Finding("tensors.few-samples", "review", "", ""),
    Finding("payload.steps", "review", "", ""),
    Finding("attacks.none", "review", "", ""),
]


def test_a_review_is_lighter_only_where_owner_and_dataset_both_say_so(policy: Policy) -> None:
    asked = manifest_from_mapping(values(), policy).private
    small = dataclasses.replace(RECORD, epsilon=1.5).as_mapping()
    rows = [*REVIEWED, privacy_finding(asked, small, FILES, "")]
    # As shipped: never.
    assert lighter(rows, policy) == rows
    owner = deploy(policy, {"lighter_epsilon": 3.0})
    changed = found_rules(lighter(rows, owner))
    assert changed == found_rules(rows) | {
        "membership.unmeasured": "info",
        "memorisation.inverted": "info",
        "tensors.precision": "info",
    }
    # The dataset's own bound, 2.0 as shipped, may be lower; a larger epsilon changes nothing.
    assert lighter(rows, tighten(owner, {"privacy": {"lighter_epsilon": 1.0}})) == rows
    large = [*REVIEWED, privacy_finding(asked, RECORD.as_mapping(), FILES, "")]
    assert lighter(large, owner) == large


def test_without_a_guarantee_no_review_is_lighter(policy: Policy) -> None:
    owner = deploy(policy, {"lighter_epsilon": 3.0})
    asked = manifest_from_mapping(values(), policy).private
    for nothing in (
        [],
        [privacy_finding(None, RECORD.as_mapping(), FILES, "")],
        [privacy_finding(asked, None, FILES, "")],
        [Finding("privacy.epsilon", "info", "", "", {"epsilon": 0.0, "delta": 0.0})],
    ):
        assert lighter([*REVIEWED, *nothing], owner) == [*REVIEWED, *nothing]


def test_what_was_measured_on_the_training_is_for_reviewers_alone(policy: Policy) -> None:
    asked = manifest_from_mapping(values(), policy).private
    measured = [
        Finding("membership.auc", "review", "", "", {"auc_low": 0.61}, {"auc": 1}),
        Finding("memorisation.inverted", "info", "", "", {"p": 0.2}),
        Finding("samples.search", "info", "", "", {"samples": 60}),
        Finding("tensors.budget", "info", "", "", {"bits": 9}),
    ]
    private = privacy_finding(asked, RECORD.as_mapping(), FILES, "")
    hidden = sheltered([*measured, private])
    for before, after in zip(measured[:3], hidden[:3], strict=True):
        assert (after.rule, after.severity, after.public()["evidence"]) == (
            before.rule,
            before.severity,
            {},
        )
        assert after.internal["figures"] == before.evidence
    assert hidden[0].internal["auc"] == 1
    assert hidden[3:] == [measured[3], private]
    # Of any other training everything stays where it was.
    ordinary = privacy_finding(None, None, FILES, "")
    assert sheltered([*measured, ordinary]) == [*measured, ordinary]
