"""Files, tensors and budgets: what is declared may leave, everything else is found."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from policies.document import Policy, default_policy, tighten
from policies.release import (
    ArtefactFact,
    Finding,
    TensorFact,
    check_artefact_facts,
    check_budget,
    check_config,
    check_metadata,
    check_tensors,
    dtype_code,
    finding_from_mapping,
    has_hard_block,
    verdict,
)
from policies.submission import Outputs

NAMES = Outputs().names
NETWORK = [
    TensorFact("conv.weight", (8, 1, 3, 3), "torch.float32"),
    TensorFact("conv.bias", (8,), "torch.float32"),
    TensorFact("norm.num_batches_tracked", (), "torch.int64"),
]
FILE = [replace(t, dtype=dtype_code(t.dtype)) for t in NETWORK]
HALF = [replace(t, dtype="BF16") if t.dtype == "F32" else t for t in FILE]


def rules(findings: list[Finding], severity: str = "block") -> set[str]:
    return {found.rule for found in findings if found.severity == severity}


def changed(which: str, **facts: Any) -> list[TensorFact]:
    return [replace(t, **facts) if t.name == which else t for t in HALF]


def test_the_declared_files_pass(policy: Policy) -> None:
    found = [ArtefactFact(name, 1000) for name in NAMES]
    assert check_artefact_facts(found, NAMES, policy) == []


@pytest.mark.parametrize(
    ("found", "rule"),
    [
        ([ArtefactFact("image_0001.png", 10)], "artefacts.undeclared"),
        ([ArtefactFact("sub/model.safetensors", 10)], "artefacts.undeclared"),
        ([ArtefactFact("metrics.json", 2**20)], "artefacts.size"),
        ([ArtefactFact("config.json", 2**20)], "artefacts.size"),
        ([ArtefactFact("model.safetensors", 2**31)], "artefacts.size"),
        ([ArtefactFact("model.safetensors", 0)], "artefacts.empty"),
        ([ArtefactFact("metrics.json", 9), ArtefactFact("metrics.json", 9)], "artefacts.twice"),
    ],
)
def test_other_files_and_sizes_block(found: list[ArtefactFact], rule: str, policy: Policy) -> None:
    assert rules(check_artefact_facts(found, NAMES, policy)) == {rule}


def test_a_name_that_the_job_made_up_is_for_reviewers_only(policy: Policy) -> None:
    findings = check_artefact_facts([ArtefactFact("kim_minji_1971.png", 10)], NAMES, policy)
    assert has_hard_block(findings)
    assert "kim" not in json.dumps([f.public() for f in findings])
    assert "kim" in json.dumps([f.as_mapping() for f in findings])


def test_a_kind_that_the_policy_does_not_let_out() -> None:
    strict = tighten(default_policy(), {"release": {"kinds": ["metrics"]}})
    found = [ArtefactFact("model.safetensors", 10), ArtefactFact("metrics.json", 10)]
    assert rules(check_artefact_facts(found, NAMES, strict)) == {"artefacts.kind"}


def test_the_networks_own_tensors_pass(policy: Policy) -> None:
    assert verdict(check_tensors(NETWORK, HALF, policy, training_samples=400)) == "pass"


def test_full_precision_goes_to_review(policy: Policy) -> None:
    findings = check_tensors(NETWORK, FILE, policy)
    assert verdict(findings) == "review"
    assert rules(findings, "review") == {"tensors.precision"}


@pytest.mark.parametrize(
    ("found", "rule"),
    [
        ([], "tensors.none"),
        (HALF[:-1], "tensors.missing"),
        ([*HALF, TensorFact("payload", (4, 4), "U8")], "tensors.extra"),
        ([*HALF, HALF[0]], "tensors.twice"),
        (changed("conv.bias", shape=(9,)), "tensors.differs"),
        (changed("conv.bias", shape=(8, 1)), "tensors.differs"),
        (changed("conv.bias", shape=()), "tensors.differs"),
        (changed("conv.bias", shape=(-8,)), "tensors.shape"),
        (changed("conv.weight", shape=(1,) * 9), "tensors.shape"),
        (changed("conv.bias", dtype="U8"), "tensors.retyped"),
        (changed("conv.bias", dtype="F64"), "tensors.dtype"),
        (changed("conv.bias", dtype="F8_E4M3"), "tensors.dtype"),
        (changed("norm.num_batches_tracked", dtype="F32"), "tensors.retyped"),
        (changed("conv.bias", nonfinite=1), "tensors.nonfinite"),
        (changed("conv.bias", name="conv bias"), "tensors.name"),
        (changed("conv.bias", name="../bias"), "tensors.name"),
        (changed("conv.bias", name="b" * 201), "tensors.name"),
        (changed("conv.bias", name="편향"), "tensors.name"),
        (changed("conv.bias", name="bias\x1b[2J"), "tensors.name"),
        (changed("conv.bias", name=""), "tensors.name"),
    ],
)
def test_whatever_the_network_does_not_have_blocks(
    found: list[TensorFact], rule: str, policy: Policy
) -> None:
    findings = check_tensors(NETWORK, found, policy)
    assert rule in rules(findings)
    assert verdict(findings) == "block"


def test_a_graph_may_leave_out_what_it_does_not_need_and_hold_nothing_else(policy: Policy) -> None:
    def found(tensors: list[TensorFact]) -> set[str]:
        return rules(check_tensors(NETWORK, tensors, policy, complete=False))

    assert found(HALF[:-1]) == set()
    assert found([]) == {"tensors.none"}
    assert found([HALF[0], TensorFact("payload", (4, 4), "BF16")]) == {"tensors.extra"}
    assert found([HALF[0], HALF[0]]) == {"tensors.twice"}


def test_a_file_may_be_narrower_than_the_network_and_never_wider(policy: Policy) -> None:
    half_network = [replace(t, dtype="bfloat16") for t in NETWORK if t.dtype == "torch.float32"]
    assert "tensors.retyped" in rules(check_tensors(half_network, FILE[:2], policy))
    assert not rules(check_tensors(NETWORK, HALF, policy))


def test_without_a_declared_network_nothing_is_known(policy: Policy) -> None:
    assert "tensors.extra" in rules(check_tensors([], HALF, policy))


def test_a_name_that_only_the_file_has_is_for_reviewers_only(policy: Policy) -> None:
    findings = check_tensors(NETWORK, [*HALF, TensorFact("kim.minji.1971", (2,), "F16")], policy)
    assert "kim" not in json.dumps([f.public() for f in findings])
    assert "kim" in json.dumps([f.as_mapping() for f in findings])


def test_large_whole_numbers_go_to_review(policy: Policy) -> None:
    table = TensorFact("table", (100, 100), "int64")
    assert "tensors.integers" in rules(check_tensors([table], [table], policy), "review")


@pytest.mark.parametrize(
    ("elements", "samples", "outcome"),
    [
        (25_000, 400, "pass"),
        (25_000, 49, "review"),  # few subjects
        (25_000, 1, "review"),
        (25_000_000, 400, "review"),
        (25_000_000, 100_000, "pass"),
        (25_000_000, 10, "block"),
        (1, 0, "block"),
        (1, -5, "block"),
        (2**40, 400, "block"),
    ],
)
def test_the_budget_of_bits_a_sample(
    elements: int, samples: int, outcome: str, policy: Policy
) -> None:
    tensor = TensorFact("w", (elements,), "BF16")
    findings = check_budget([tensor], samples, policy)
    assert verdict(findings) == outcome
    json.dumps([f.as_mapping() for f in findings], allow_nan=False)


def test_what_leaves_beside_the_tensors_is_in_the_budget(policy: Policy) -> None:
    tensor = TensorFact("w", (10,), "BF16")
    (found,) = check_budget([tensor], 400, policy, beside_bits=8000)
    assert found.evidence["bits"] == 8160
    assert verdict(check_budget([tensor], 60, policy, beside_bits=10**10)) == "block"


@pytest.mark.parametrize(
    ("metadata", "outcome"),
    [
        ({}, "pass"),
        ({"format": "pt"}, "pass"),
        ({"format": "a secret"}, "block"),
        ({"comment": "pt"}, "block"),
        ({"format": "pt", "kim": ""}, "block"),
    ],
)
def test_metadata_is_the_formats_name_only(
    metadata: dict[str, str], outcome: str, policy: Policy
) -> None:
    findings = check_metadata(metadata, policy)
    assert verdict(findings) == outcome
    assert "secret" not in json.dumps([f.public() for f in findings])
    assert "kim" not in json.dumps([f.public() for f in findings])


@pytest.mark.parametrize(
    ("written", "same"),
    [
        ({"lr": 0.1, "n": [1, 2]}, True),
        ({"n": [1, 2], "lr": 0.1}, False),
        ({"lr": 0.1}, False),
        ({"lr": 0.1, "n": [2, 1]}, False),
        ({"lr": 0.1, "n": [1, 2], "extra": 1}, False),
        ({"lr": 0.1, "n": [1.0, 2]}, False),
        ({"lr": 0.1, "n": [True, 2]}, False),
        ([], False),
        (None, False),
        ("text", False),
    ],
)
def test_the_configuration_is_the_manifests(written: Any, same: bool) -> None:
    data = json.dumps(written).encode()
    findings = check_config({"lr": 0.1, "n": [1, 2]}, written, data, "config.json")
    assert {found.rule for found in findings} <= {"config.differs", "config.spelling"}
    assert (verdict(findings) == "pass") == same


CONFIG = {"lr": 0.1, "a": {"name": "흉부", "n": [1, 2]}}


@pytest.mark.parametrize(
    "data",
    [
        json.dumps(CONFIG).encode(),
        json.dumps(CONFIG, indent=2).encode() + b"\n",
        json.dumps(CONFIG, indent=1, sort_keys=True).encode() + b"\n",
        json.dumps(CONFIG, separators=(",", ":"), ensure_ascii=False).encode(),
    ],
)
def test_a_configuration_may_be_spelled_as_programs_do(data: bytes) -> None:
    assert check_config(CONFIG, json.loads(data), data, "config.json") == []


PLAIN = json.dumps(CONFIG)


@pytest.mark.parametrize(
    "text",
    [
        PLAIN.replace(", ", ",  "),
        PLAIN.replace(": ", ":\t"),
        PLAIN + "\n\n",
        " " + PLAIN,
        PLAIN.replace('"lr"', '"\\u006cr"'),
        PLAIN.replace("0.1", "0.10"),
        PLAIN.replace("0.1", "1e-1"),
        PLAIN.replace("0.1", "0.1000000000000000055511151231257827021181583404541015625"),
        PLAIN.replace("\\ud749", "\\uD749"),
        json.dumps({"lr": 0.1, "a": {"n": [1, 2], "name": "흉부"}}),
    ],
)
def test_the_spelling_of_a_configuration_says_nothing(text: str) -> None:
    data = text.encode()
    assert json.loads(data) == CONFIG
    assert data != PLAIN.encode()
    assert [f.rule for f in check_config(CONFIG, json.loads(data), data, "c.json")] == [
        "config.spelling"
    ]


def finding(severity: Any = "info", **more: Any) -> Finding:
    return Finding("a.rule", severity, "model.safetensors", "A sentence.", **more)


@pytest.mark.parametrize(
    ("severities", "outcome"),
    [
        ([], "pass"),
        (["info"], "pass"),
        (["info", "review"], "review"),
        (["review", "block", "info"], "block"),
    ],
)
def test_the_worst_finding_is_the_verdict(severities: list[str], outcome: str) -> None:
    assert verdict([finding(s) for s in severities]) == outcome


def test_an_unknown_severity_and_a_hard_hint_are_mistakes() -> None:
    with pytest.raises(ValueError, match="severity"):
        finding("fine")
    with pytest.raises(ValueError, match="hard"):
        finding("review", hard=True)


def test_the_public_part_is_rounded_and_without_the_internal_part() -> None:
    found = finding(
        "block",
        evidence={"ratio": 0.123456, "bits": 123456, "worst": math.nan, "word": "a\x1b[2J"},
        internal={"subject": "s-0001", "picture": b"bytes", "values": (1, 2)},
        hard=True,
    )
    public = found.public()
    assert public["evidence"] == {
        "ratio": 0.123,
        "bits": 123000,
        "worst": "not finite",
        "word": "?",
    }
    assert "internal" not in public
    assert "s-0001" not in json.dumps(public)
    whole = json.loads(json.dumps(found.as_mapping(), allow_nan=False))
    assert whole["evidence"]["bits"] == 123456
    assert whole["internal"]["subject"] == "s-0001"
    assert finding_from_mapping(whole).public() == public


def test_the_limits_themselves_are_allowed(policy: Policy) -> None:
    limits = policy.release
    files = [
        ArtefactFact("model.safetensors", limits.weights_bytes),
        ArtefactFact("metrics.json", limits.metrics_bytes),
        ArtefactFact("config.json", limits.config_bytes),
    ]
    assert not rules(check_artefact_facts(files, NAMES, policy))
    long_name = TensorFact("n" * limits.tensor_name_length, (1,) * limits.tensor_dimensions, "F16")
    empty = TensorFact("empty", (0, 8), "F16")
    whole = TensorFact("whole", (4096,), "I64")
    found = [long_name, empty, whole]
    assert verdict(check_tensors(found, found, policy)) == "pass"
    many = [TensorFact(f"t{n}", (1,), "F16") for n in range(limits.tensors)]
    assert not rules(check_tensors(many, many, policy))
    more = [*many, TensorFact("one.more", (1,), "F16")]
    assert rules(check_tensors(more, more, policy)) == {"tensors.count"}


@pytest.mark.parametrize(
    ("bits_a_sample", "outcome"),
    [(2**18, "pass"), (2**18 + 16, "review"), (2**25, "review"), (2**25 + 16, "block")],
)
def test_the_budget_to_the_bit(bits_a_sample: int, outcome: str, policy: Policy) -> None:
    samples = policy.release.small_training_set
    tensor = TensorFact("w", (bits_a_sample // 16 * samples,), "F16")
    assert verdict(check_budget([tensor], samples, policy)) == outcome
