"""A manifest is read whole, or refused with the name of the field and what was probably meant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.document import Policy, default_policy, deploy, tighten
from policies.errors import Invalid
from policies.submission import (
    Manifest,
    Outputs,
    default_resources,
    manifest_from_mapping,
    parse_manifest,
)

KNOWN = {"mammography": ["1", "2"], "photos": ["1"]}
FILES = ["glovebox.toml", "train.py", "model.py", "nets/__init__.py"]

SMALLEST = '[job]\nentrypoint = "train.py"\n'
DELETED = object()


def refusal(values: Any, policy: Policy | None = None) -> Invalid:
    with pytest.raises(Invalid) as caught:
        manifest_from_mapping(values, policy or default_policy(), KNOWN, None, FILES)
    return caught.value


def refused_text(text: str | bytes) -> Invalid:
    with pytest.raises(Invalid) as caught:
        parse_manifest(text, default_policy(), KNOWN, None, FILES)
    return caught.value


def test_reads_the_manifest_of_the_architecture(
    manifest_values: dict[str, Any], policy: Policy
) -> None:
    manifest = manifest_from_mapping(manifest_values, policy, KNOWN, None, FILES)
    assert manifest.name == "lesion-cnn"
    assert (manifest.entrypoint, manifest.recipe) == ("train.py", "")
    assert manifest.build == "model:build"
    assert manifest.datasets == {"mammography": "1"}
    assert manifest.resources.memory_bytes == 4 * 2**30
    assert manifest.resources.wall_seconds == 1800
    assert manifest.metrics["auc"].maximum == 1.0
    assert manifest.metrics["auc"].digits == 3
    assert manifest.outputs.names == {
        "model.safetensors": "weights",
        "metrics.json": "metrics",
        "config.json": "config",
    }
    assert manifest.config["lr"] == 0.001


def test_all_but_the_program_may_be_left_out(policy: Policy) -> None:
    for text in (SMALLEST, '[job]\nrecipe = "classification"\n'):
        manifest = parse_manifest(text, policy)
        assert manifest.image == "pytorch-cpu"
        assert manifest.resources == default_resources(policy)
        assert manifest.outputs == Outputs()
        assert not manifest.datasets
        assert not manifest.metrics


def test_a_stored_manifest_is_read_back(manifest_values: dict[str, Any], policy: Policy) -> None:
    manifest = manifest_from_mapping(manifest_values, policy)
    stored = json.loads(json.dumps(manifest.as_mapping(), allow_nan=False))
    assert manifest_from_mapping(stored, policy) == manifest


def test_a_byte_order_mark_and_bytes_are_read(policy: Policy) -> None:
    assert parse_manifest(("\ufeff" + SMALLEST).encode(), policy).entrypoint == "train.py"


def spoiled(values: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    *sections, key = path.split(".")
    target = values
    for section in sections:
        target = target.setdefault(section, {})
    if value is DELETED:
        del target[key]
    else:
        target[key] = value
    return values


@pytest.mark.parametrize(
    ("path", "value", "field", "guess"),
    [
        # unknown keys, at each level, with the word that was meant
        ("jobs", {}, "jobs", "job"),
        ("resource", {}, "resource", "resources"),
        ("job.entrypont", "train.py", "job.entrypont", "entrypoint"),
        ("job.Image", "pytorch-cpu", "job.Image", "image"),
        ("model.built", "model:build", "model.built", "build"),
        ("resources.memroy", "4Gi", "resources.memroy", "memory"),
        ("metrics.auc.digit", 3, "metrics.auc.digit", "digits"),
        ("metrics.auc.minimum", 3, "metrics.auc.minimum", "min"),
        ("outputs.weight", [], "outputs.weight", "weights"),
        # unknown names
        ("datasets.mamography", "1", "datasets.mamography", "mammography"),
        ("job.image", "pytorch", "job.image", "pytorch-cpu"),
        ("job.entrypoint", "trian.py", "job.entrypoint", "train.py"),
        ("model.build", "modle:build", "model.build", "model.py"),
        ("metrics.loss", "nmber", "metrics.loss", "number"),
        ("metrics.auc.kind", "curv", "metrics.auc.kind", "curve"),
    ],
)
def test_a_misspelling_is_answered_with_what_was_meant(
    manifest_values: dict[str, Any], path: str, value: Any, field: str, guess: str
) -> None:
    error = refusal(spoiled(manifest_values, path, value))
    assert error.field == field
    assert f"Did you mean {guess}?" in str(error)


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        # wrong types, section by section
        ("job", "lesion-cnn", "job"),
        ("job", ["a"], "job"),
        ("model", "model:build", "model"),
        ("datasets", ["mammography"], "datasets"),
        ("metrics", ["loss"], "metrics"),
        ("config", 3, "config"),
        ("job.name", 3, "job.name"),
        ("job.name", "", "job.name"),
        ("job.name", "x" * 65, "job.name"),
        ("job.name", "<b>lesion</b>", "job.name"),
        ("job.name", "lesion\x1b[31m", "job.name"),
        ("job.name", "lesion\u202ecnn", "job.name"),
        ("job.name", "lesion\ncnn", "job.name"),
        ("job.name", " lesion", "job.name"),
        ("job.name", "../lesion", "job.name"),
        ("job.name", "e\u0301tude", "job.name"),
        # the program
        ("job.entrypoint", 3, "job.entrypoint"),
        ("job.entrypoint", DELETED, "job.entrypoint"),
        ("job.recipe", "classification", "job.entrypoint"),
        ("job.entrypoint", "/etc/passwd.py", "job.entrypoint"),
        ("job.entrypoint", "../train.py", "job.entrypoint"),
        ("job.entrypoint", "a/../train.py", "job.entrypoint"),
        ("job.entrypoint", "./train.py", "job.entrypoint"),
        ("job.entrypoint", "a//train.py", "job.entrypoint"),
        ("job.entrypoint", "a\\train.py", "job.entrypoint"),
        ("job.entrypoint", "C:train.py", "job.entrypoint"),
        ("job.entrypoint", ".hidden.py", "job.entrypoint"),
        ("job.entrypoint", "-c.py", "job.entrypoint"),
        ("job.entrypoint", "train.sh", "job.entrypoint"),
        ("job.entrypoint", "train\x00.py", "job.entrypoint"),
        ("job.entrypoint", "train;rm.py", "job.entrypoint"),
        ("job.entrypoint", "$(id).py", "job.entrypoint"),
        ("job.entrypoint", "a/" * 20 + "train.py", "job.entrypoint"),
        ("job.image", 3, "job.image"),
        ("job.image", "evil.example/image:latest", "job.image"),
        ("model.build", "model", "model.build"),
        ("model.build", "model:build()", "model.build"),
        ("model.build", "os:system:x", "model.build"),
        ("model.build", "../model:build", "model.build"),
        ("model.build", 3, "model.build"),
        ("model.build", "missing:build", "model.build"),
        # datasets
        ("datasets.mammography", 1, "datasets.mammography"),
        ("datasets.mammography", "3", "datasets.mammography"),
        ("datasets.mammography", "1/../2", "datasets.mammography"),
        ("datasets.Photos", "1", "datasets.Photos"),
        ("datasets.unknown-entirely", "1", "datasets.unknown-entirely"),
        # resources: type, range, policy
        ("resources.cpus", True, "resources.cpus"),
        ("resources.cpus", "2", "resources.cpus"),
        ("resources.cpus", 2.0, "resources.cpus"),
        ("resources.cpus", 0, "resources.cpus"),
        ("resources.cpus", 17, "resources.cpus"),
        ("resources.cpus", 10**400, "resources.cpus"),
        ("resources.gpus", False, "resources.gpus"),
        ("resources.gpus", -1, "resources.gpus"),
        ("resources.gpus", 5, "resources.gpus"),
        ("resources.gpus", 1, "resources.gpus"),  # pytorch-cpu has none
        ("resources.memory", "65Gi", "resources.memory"),
        ("resources.memory", "1Ki", "resources.memory"),
        ("resources.memory", "lots", "resources.memory"),
        ("resources.memory", True, "resources.memory"),
        ("resources.time", "3d", "resources.time"),
        ("resources.time", "0s", "resources.time"),
        ("resources.time", 1.5, "resources.time"),
        ("resources.output", "17Gi", "resources.output"),
        ("resources.processes", 1025, "resources.processes"),
        # metrics
        ("metrics.loss", 3, "metrics.loss"),
        ("metrics.loss", {}, "metrics.loss.kind"),
        ("metrics._loss", "number", "metrics._loss"),
        ("metrics.auc.digits", True, "metrics.auc.digits"),
        ("metrics.auc.digits", 0, "metrics.auc.digits"),
        ("metrics.auc.digits", 17, "metrics.auc.digits"),
        ("metrics.auc.min", float("nan"), "metrics.auc.min"),
        ("metrics.auc.max", float("inf"), "metrics.auc.max"),
        ("metrics.auc.max", 10**400, "metrics.auc.max"),
        ("metrics.auc.min", 2, "metrics.auc.min"),
        ("metrics.auc.min", True, "metrics.auc.min"),
        ("metrics.auc.count", "yes", "metrics.auc.count"),
        ("metrics.auc.values", ["a", "b"], "metrics.auc.values"),
        ("metrics.outcome.values", ["only"], "metrics.outcome.values"),
        ("metrics.outcome.values", ["a", "a"], "metrics.outcome.values"),
        ("metrics.outcome.values", ["a", "b c"], "metrics.outcome.values"),
        ("metrics.outcome.min", 0, "metrics.outcome.min"),
        # outputs
        ("outputs.weights", "model.safetensors", "outputs.weights"),
        ("outputs.weights", ["model.pt"], "outputs.weights[0]"),
        ("outputs.weights", ["a.safetensors", 3], "outputs.weights[1]"),
        ("outputs.weights", ["a.safetensors", "a.onnx"], "outputs.weights"),
        ("outputs.weights", ["a.onnx", "b.onnx"], "outputs.weights"),
        ("outputs.weights", ["../m.safetensors"], "outputs.weights[0]"),
        ("outputs.weights", ["/m.safetensors"], "outputs.weights[0]"),
        ("outputs.weights", ["A.safetensors", "a.safetensors"], "outputs"),
        ("outputs.weights", [f"{n}.safetensors" for n in range(99)], "outputs.weights"),
        ("outputs.metrics", "metrics.csv", "outputs.metrics"),
        ("outputs.config", "metrics.json", "outputs"),
        # configuration
        ("config.lr", float("nan"), "config.lr"),
        ("config.lr", float("-inf"), "config.lr"),
        ("config.lr", 2**60, "config.lr"),
        ("config.sizes", [1, float("nan")], "config.sizes[1]"),
        ("config.text", "\x1b[2J", "config.text"),
        ("config.text", "\u202e", "config.text"),
        ("config.text", "x" * 3000, "config.text"),
        ("config.when", object(), "config.when"),
        ("config.big", ["x" * 1500] * 20, "config"),
    ],
)
def test_a_wrong_value_is_refused_by_its_field(
    manifest_values: dict[str, Any], path: str, value: Any, field: str
) -> None:
    error = refusal(spoiled(manifest_values, path, value))
    assert error.field == field
    assert error.code
    assert str(error)


def test_weights_may_be_one_onnx_file(manifest_values: dict[str, Any]) -> None:
    one = spoiled(manifest_values, "outputs.weights", ["models/lesion.onnx"])
    outputs = manifest_from_mapping(one, default_policy()).outputs
    assert outputs.names["models/lesion.onnx"] == "weights"


@pytest.mark.parametrize("name", ["유방 병변 1", "étude-2", "Läsion", "lesion.v2_b"])
def test_a_job_may_be_named_in_any_script(manifest_values: dict[str, Any], name: str) -> None:
    manifest_values["job"]["name"] = name
    assert manifest_from_mapping(manifest_values, default_policy()).name == name


def test_too_many_metrics_and_datasets(manifest_values: dict[str, Any]) -> None:
    many = spoiled(manifest_values, "metrics", {f"m{n}": "number" for n in range(33)})
    assert refusal(many).field == "metrics"
    manifest_values["metrics"] = {}
    manifest_values["datasets"] = {f"d{n}": "1" for n in range(9)}
    assert refusal(manifest_values).field == "datasets"


def test_a_gpu_needs_an_image_that_has_one(manifest_values: dict[str, Any]) -> None:
    manifest_values["resources"]["gpus"] = 1
    manifest_values["job"]["image"] = "pytorch-cuda"
    assert manifest_from_mapping(manifest_values, default_policy()).resources.gpus == 1


def test_a_dataset_that_takes_recipes_only(manifest_values: dict[str, Any]) -> None:
    strict = tighten(default_policy(), {"submission": {"own_trainer": False}})
    assert refusal(manifest_values, strict).field == "job.entrypoint"


def test_a_tightened_policy_lowers_the_defaults_too() -> None:
    small = tighten(default_policy(), {"submission": {"maximum": {"memory": "1Gi", "time": "5m"}}})
    resources = parse_manifest(SMALLEST, small).resources
    assert (resources.memory_bytes, resources.wall_seconds) == (2**30, 300)


def test_an_image_must_be_in_the_machine_and_in_the_policy(manifest_values: dict[str, Any]) -> None:
    narrow = tighten(default_policy(), {"submission": {"images": ["pytorch-cuda"]}})
    assert refusal(manifest_values, narrow).field == "job.image"
    extra = deploy(default_policy(), {"images": {"jax": {"description": "JAX", "gpu": False}}})
    manifest_values["job"]["image"] = "jax"
    assert refusal(manifest_values, extra).field == "job.image"
    with pytest.raises(Invalid) as caught:
        parse_manifest(SMALLEST, default_policy(), known_images=[])
    assert caught.value.field == "job.image"


@pytest.mark.parametrize(
    "text",
    [
        "[job",
        "job = ",
        '[job]\nname = "a"\nname = "b"',
        "x" * 70_000,
        b"\xff\xfe[job]",
        "\ud800",
        "config.a = " + "[" * 30_000,
        "config = " + "{a = " * 12_000,
        "config.n = " + "9" * 20_000,
        "[config]\nwhen = 2026-01-01T00:00:00Z\n" + SMALLEST,
        "[config]\n" + "a." * 20_000 + "b = 1\n" + SMALLEST,
        "[" + "a." * 30_000 + "b]",
        "[[job]]\n",
        "",
        "\x00",
        "\x1b]0;title\x07 = 1",
    ],
)
def test_hostile_text_is_refused_without_breaking_or_quoting(text: str | bytes) -> None:
    error = refused_text(text)
    assert error.field
    assert str(error).isprintable()
    assert error.field.isprintable()
    assert len(error.field) < 400


def test_a_syntax_error_names_the_line() -> None:
    assert "line 3" in str(refused_text('[job]\nentrypoint = "train.py"\nname = = 3\n'))


def test_an_unknown_key_with_escapes_is_shown_inert() -> None:
    error = refused_text('[job]\n"\\u001b[31m<b>{name}" = 1\n')
    for sign in "\x1b<>{}":
        assert sign not in error.field + str(error)


def test_the_owner_of_the_machine_changes_what_a_manifest_asks(
    manifest_values: dict[str, Any], policy: Policy
) -> None:
    manifest = manifest_from_mapping(manifest_values, policy)
    larger = manifest.with_resources(memory_bytes=2**40).with_datasets({"local": "0"})
    assert larger.resources.memory_bytes == 2**40
    assert larger.datasets == {"mammography": "1", "local": "0"}
    assert manifest.datasets == {"mammography": "1"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
SECTIONS = ("job", "model", "datasets", "resources", "metrics", "outputs", "config", "other")
KEYS = st.sampled_from(
    ["name", "entrypoint", "image", "build", "cpus", "memory", "time", "weights", "loss"]
) | st.text(max_size=8)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(SECTIONS), st.dictionaries(KEYS, JSON, max_size=4) | JSON, max_size=6
    )
)
def test_any_values_are_a_manifest_or_refused_by_field(values: dict[str, Any]) -> None:
    try:
        manifest = manifest_from_mapping(values, default_policy(), KNOWN, None, FILES)
    except Invalid as error:
        assert error.field
        assert str(error).isprintable()
    else:
        assert isinstance(manifest, Manifest)
        json.dumps(manifest.as_mapping(), allow_nan=False)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300) | st.binary(max_size=300))
def test_any_text_is_a_manifest_or_refused(text: str | bytes) -> None:
    assert refused_text(text).field


def test_the_manifest_of_the_documentation(policy: Policy) -> None:
    """The example that people copy is a manifest."""
    page = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text("utf-8")
    example = page.split("```toml\n")[1].split("```")[0]
    manifest = parse_manifest(example, policy, KNOWN, None, FILES)
    assert manifest.metrics["loss"].kind == "number"


def test_the_limits_themselves_are_allowed(policy: Policy) -> None:
    most = policy.submission.manifest_bytes
    padded = SMALLEST + "#" * (most - len(SMALLEST))
    for text in (padded, padded.encode(), SMALLEST + "# " + "." * 200):
        assert parse_manifest(text, policy).entrypoint == "train.py"
    for text in (padded + "#", padded.encode() + b"#", SMALLEST + "# " + "." * 201):
        assert refused_text(text).field == "glovebox.toml"
    # Counted in bytes, not in characters.
    assert refused_text(SMALLEST + "#" + "가" * (most // 3)).code == "toml.size"


def test_the_most_that_may_be_asked_is_given(manifest_values: dict[str, Any]) -> None:
    manifest_values["job"]["image"] = "pytorch-cuda"
    manifest_values["resources"] = {
        "cpus": 16,
        "memory": "64Gi",
        "gpus": 4,
        "time": "2d",
        "output": "16Gi",
        "processes": 1024,
    }
    resources = manifest_from_mapping(manifest_values, default_policy()).resources
    assert (resources.cpus, resources.gpus, resources.wall_seconds) == (16, 4, 172800)


@pytest.mark.parametrize(
    ("section", "field"),
    [
        ('keep = "yes"', "checkpoint.keep"),
        ("from = 0", "checkpoint.from"),
        ("from = true", "checkpoint.from"),
        ('from = "7"', "checkpoint.from"),
        ("keep = true\nto = 3", "checkpoint.to"),
    ],
)
def test_a_wrong_checkpoint_is_refused_by_field(section: str, field: str) -> None:
    text = f'[job]\nentrypoint = "train.py"\n[checkpoint]\n{section}\n'
    with pytest.raises(Invalid) as caught:
        parse_manifest(text, default_policy())
    assert caught.value.field == field


def test_a_checkpoint_is_read_and_written_back() -> None:
    text = '[job]\nentrypoint = "train.py"\n[checkpoint]\nkeep = true\nfrom = 7\n'
    manifest = parse_manifest(text, default_policy())
    assert (manifest.checkpoint.keep, manifest.checkpoint.source) == (True, 7)
    assert manifest_from_mapping(manifest.as_mapping(), default_policy()) == manifest


@pytest.mark.parametrize("name", ["checkpoint/model.safetensors", "Checkpoint/x.safetensors"])
def test_no_output_lies_where_checkpoints_do(name: str) -> None:
    text = f'[job]\nentrypoint = "train.py"\n[outputs]\nweights = ["{name}"]\n'
    with pytest.raises(Invalid) as caught:
        parse_manifest(text, default_policy())
    assert caught.value.field == "outputs"
