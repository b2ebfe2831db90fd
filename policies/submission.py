"""What a job may ask for and contain: ``glovebox.toml`` read into a value, or refused by field."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

from policies import privacy
from policies.archive import ArchiveMember, check_archive
from policies.config_values import read_config
from policies.document import Policy
from policies.errors import Invalid, _
from policies.manifest import (
    CHECKPOINT_FOLDER,
    Checkpoint,
    Manifest,
    Outputs,
    Resources,
    default_resources,
)
from policies.metrics import MetricSpec, read_metrics
from policies.names import (
    BUILD,
    SLUG,
    VERSION,
    check_path,
    check_title,
    meant,
    path_key,
    shown,
    unknown,
)
from policies.quantities import (
    format_bytes,
    format_seconds,
    parse_bytes,
    parse_seconds,
)
from policies.toml_text import read_toml

__all__ = [
    "CHECKPOINT_FOLDER",
    "ArchiveMember",
    "Checkpoint",
    "Manifest",
    "MetricSpec",
    "Outputs",
    "Resources",
    "check_archive",
    "default_resources",
    "format_bytes",
    "format_seconds",
    "manifest_from_mapping",
    "parse_bytes",
    "parse_manifest",
    "parse_seconds",
]

MANIFEST_NAME = "glovebox.toml"
#: How files of weights end. One ONNX file holds a whole network.
ONNX = ".onnx"
WEIGHTS = (".safetensors", ONNX)

KnownDatasets = Mapping[str, Collection[str]] | Collection[str]

_SECTIONS: dict[str, tuple[str, ...] | None] = {
    "job": ("name", "entrypoint", "recipe", "image"),
    "model": ("build",),
    "datasets": None,
    "resources": ("cpus", "memory", "gpus", "time", "output", "processes"),
    "metrics": None,
    "outputs": ("weights", "metrics", "config"),
    "config": None,
    "checkpoint": ("keep", "from"),
    "private": privacy.KEYS,
}


def parse_manifest(
    text: str | bytes,
    policy: Policy,
    known_datasets: KnownDatasets | None = None,
    known_images: Collection[str] | None = None,
    members: Collection[str] | None = None,
) -> Manifest:
    """Return the manifest of a submission, or raise Invalid whose ``field`` names the fault.

    ``known_datasets`` are slugs, or slugs with their versions; ``known_images`` defaults to the
    policy's; ``members`` are the file names beside the manifest. What is None is not checked.
    """
    values = read_toml(text, MANIFEST_NAME, policy.submission.manifest_bytes)
    return manifest_from_mapping(values, policy, known_datasets, known_images, members)


def manifest_from_mapping(
    values: Mapping[str, Any],
    policy: Policy,
    known_datasets: KnownDatasets | None = None,
    known_images: Collection[str] | None = None,
    members: Collection[str] | None = None,
) -> Manifest:
    """Return the manifest from plain values; as :func:`parse_manifest`."""
    sections = _read_sections(values)
    job = sections["job"]
    entrypoint, recipe = _read_program(job, policy, members)
    image = _read_image(job, policy, known_images)
    resources = _read_resources(sections["resources"], policy)
    if resources.gpus and not policy.deployment.images[image].gpu:
        raise Invalid(
            _("The image {image} has no GPU support; choose another image or gpus = 0."),
            field="resources.gpus",
            code="manifest.gpu-image",
            image=image,
        )
    outputs = _read_outputs(sections["outputs"], policy)
    private = _read_private(sections, recipe, resources, outputs, policy)
    return Manifest(
        name=check_title(job.get("name", "job"), "job.name"),
        entrypoint=entrypoint,
        recipe=recipe,
        image=image,
        build=_read_build(sections["model"], members),
        datasets=_read_datasets(sections["datasets"], policy, known_datasets),
        resources=resources,
        metrics=read_metrics(sections["metrics"], policy),
        outputs=outputs,
        config=read_config(sections["config"], policy.submission.config_bytes),
        checkpoint=_read_checkpoint(sections["checkpoint"], policy),
        private=private,
    )


def _read_private(
    sections: Mapping[str, Mapping[str, Any]],
    recipe: str,
    resources: Resources,
    outputs: Outputs,
    policy: Policy,
) -> privacy.PrivateTraining | None:
    """Return what the trusted private trainer is asked for, None for every other program."""
    section, config = sections["private"], sections["config"]
    size = config.get("size")
    if recipe != privacy.RECIPE:
        if section:
            raise Invalid(
                _('Only recipe = "private" reads this section: no other training is accounted.'),
                field="private",
                code="private.recipe",
            )
        return None
    for name, wrong, sentence in (
        (
            "model.build",
            "build" not in sections["model"],
            _('Write build = "module:function", for example "model:build".'),
        ),
        (
            "checkpoint",
            bool(sections["checkpoint"]),
            _("A private training starts from build() and keeps nothing inside."),
        ),
        (
            "metrics",
            bool(sections["metrics"]),
            _("A private training reports no metrics: what it would measure is not private."),
        ),
        (
            "outputs.weights",
            len(outputs.weights) != 1 or not outputs.weights[0].endswith(".safetensors"),
            _("A private training leaves its weights as one file of safetensors."),
        ),
        ("resources.gpus", resources.gpus > 0, _("The private trainer runs on processors only.")),
        (
            "config.task",
            config.get("task", privacy.TASKS[0]) not in privacy.TASKS,
            _("The private trainer knows the tasks classification and reconstruction."),
        ),
        (
            "config.size",
            not isinstance(size, list | tuple)
            or len(size) != 2
            or not all(type(side) is int and 1 <= side <= privacy.MOST_SIDE for side in size),
            _("Say how large pictures are: size = [height, width]."),
        ),
    ):
        if wrong:
            raise Invalid(sentence, field=name, code="private.manifest")
    return privacy.read_private(section, policy)


def _read_checkpoint(section: Mapping[str, Any], policy: Policy) -> Checkpoint:
    keep = section.get("keep", False)
    if not isinstance(keep, bool):
        raise Invalid(
            _("This must be true or false."), field="checkpoint.keep", code="manifest.type"
        )
    source = _whole(section["from"], "checkpoint.from") if "from" in section else 0
    if "from" in section and source < 1:
        raise Invalid(
            _("Write the number of the job whose checkpoint to go on from."),
            field="checkpoint.from",
            code="manifest.checkpoint",
        )
    if (keep or source) and not policy.submission.checkpoint.bytes:
        raise Invalid(
            _("This dataset's policy keeps no checkpoints."),
            field="checkpoint",
            code="manifest.checkpoint",
        )
    return Checkpoint(keep, source)


def _read_sections(values: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    if not isinstance(values, Mapping):
        raise Invalid(_("The manifest must be a table."), field=MANIFEST_NAME, code="manifest.type")
    for name in values:
        if name not in _SECTIONS:
            raise unknown(
                _("The manifest has no section [{name}]."),
                name,
                _SECTIONS,
                shown(name),
                "manifest.unknown-key",
            )
    sections: dict[str, Mapping[str, Any]] = {}
    for name, keys in _SECTIONS.items():
        section = values.get(name, {})
        if not isinstance(section, Mapping):
            raise Invalid(
                _("Write [{name}] as a section."), field=name, code="manifest.type", name=name
            )
        for key in section:
            if keys is not None and key not in keys:
                raise unknown(
                    _("This section has no key {name}."),
                    key,
                    keys,
                    f"{name}.{shown(key)}",
                    "manifest.unknown-key",
                )
        sections[name] = section
    return sections


def _read_program(
    job: Mapping[str, Any], policy: Policy, members: Collection[str] | None
) -> tuple[str, str]:
    if ("entrypoint" in job) == ("recipe" in job):
        raise Invalid(
            _('Write exactly one of entrypoint = "train.py" and recipe = "classification".'),
            field="job.entrypoint",
            code="manifest.program",
        )
    if "recipe" in job:
        recipe = job["recipe"]
        if not isinstance(recipe, str) or recipe not in policy.submission.recipes:
            raise unknown(
                _("There is no recipe {name}."),
                recipe,
                policy.submission.recipes,
                "job.recipe",
                "manifest.recipe",
            )
        return "", recipe
    if not policy.submission.own_trainer:
        raise Invalid(
            _("This dataset's policy accepts recipes only; write recipe instead of entrypoint."),
            field="job.entrypoint",
            code="manifest.own-trainer",
        )
    entrypoint = check_path(job["entrypoint"], "job.entrypoint")
    if not entrypoint.endswith(".py"):
        raise Invalid(
            _("The entrypoint is a Python file, such as train.py."),
            field="job.entrypoint",
            code="manifest.entrypoint",
        )
    if members is not None and entrypoint not in members:
        raise unknown(
            _("The submission holds no file {name}."),
            entrypoint,
            [name for name in members if name.endswith(".py")],
            "job.entrypoint",
            "manifest.entrypoint",
        )
    return entrypoint, ""


def _read_image(
    job: Mapping[str, Any], policy: Policy, known_images: Collection[str] | None
) -> str:
    known = [
        name for name in policy.submission.images if known_images is None or name in known_images
    ]
    if "image" not in job and known:
        return known[0]
    image = job.get("image", "")
    if not isinstance(image, str) or image not in known:
        raise unknown(
            _("There is no image {name} in the catalogue."),
            image,
            known,
            "job.image",
            "manifest.image",
        )
    return image


def _read_build(model: Mapping[str, Any], members: Collection[str] | None) -> str:
    if "build" not in model:
        return ""
    build = model["build"]
    if not isinstance(build, str) or not BUILD.fullmatch(build):
        raise Invalid(
            _('Write build = "module:function", for example "model:build".'),
            field="model.build",
            code="manifest.build",
        )
    module = build.split(":")[0].replace(".", "/")
    if members is not None and not {f"{module}.py", f"{module}/__init__.py"} & set(members):
        guess = meant(f"{module}.py", [name for name in members if name.endswith(".py")])
        raise Invalid(
            _("The submission holds no file {name} for build.")
            + (" " + _("Did you mean {guess}?") if guess else ""),
            field="model.build",
            code="manifest.build",
            name=f"{module}.py",
            guess=shown(guess),
        )
    return build


def _read_datasets(
    section: Mapping[str, Any], policy: Policy, known: KnownDatasets | None
) -> dict[str, str]:
    if len(section) > policy.submission.datasets:
        raise Invalid(
            _("A job may use at most {most} datasets."),
            field="datasets",
            code="manifest.datasets",
            most=policy.submission.datasets,
        )
    datasets: dict[str, str] = {}
    for slug, version in section.items():
        if not isinstance(slug, str) or not SLUG.fullmatch(slug):
            raise Invalid(
                _("A dataset's name is lower-case letters, digits and hyphens."),
                field=f"datasets.{shown(slug)}",
                code="manifest.dataset-name",
            )
        place = f"datasets.{slug}"
        if known is not None and slug not in known:
            raise unknown(_("There is no dataset {name}."), slug, known, place, "manifest.dataset")
        if not isinstance(version, str) or not VERSION.fullmatch(version):
            raise Invalid(
                _('Write the version in quotes: {slug} = "1".'),
                field=place,
                code="manifest.dataset-version",
                slug=slug,
            )
        if isinstance(known, Mapping) and version not in known[slug]:
            raise unknown(
                _("This dataset has no version {name}."),
                version,
                known[slug],
                place,
                "manifest.dataset-version",
            )
        datasets[slug] = version
    return datasets


def _whole(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise Invalid(_("This must be a whole number."), field=name, code="manifest.type")
    return value


def _read_resources(section: Mapping[str, Any], policy: Policy) -> Resources:
    least, most = {"gpus": 0, "memory": 2**26, "output": 2**20}, policy.submission.maximum
    readers: dict[str, tuple[str, Callable[[Any, str], int], Callable[[int], str]]] = {
        "cpus": ("cpus", _whole, str),
        "memory": ("memory_bytes", parse_bytes, format_bytes),
        "gpus": ("gpus", _whole, str),
        "time": ("wall_seconds", parse_seconds, format_seconds),
        "output": ("output_bytes", parse_bytes, format_bytes),
        "processes": ("processes", _whole, str),
    }
    asked: dict[str, int] = {}
    for key, (attribute, read, write) in readers.items():
        if key not in section:
            continue
        place = f"resources.{key}"
        amount = read(section[key], place)
        low, high = least.get(key, 1), getattr(most, key)
        if amount > high:
            raise Invalid(
                _("The policy allows at most {most}."),
                field=place,
                code="manifest.resources",
                most=write(high),
            )
        if amount < low:
            raise Invalid(
                _("This must be at least {least}."),
                field=place,
                code="manifest.resources",
                least=write(low),
            )
        asked[attribute] = amount
    return dataclasses.replace(default_resources(policy), **asked)


def _read_outputs(section: Mapping[str, Any], policy: Policy) -> Outputs:
    ours = Outputs()
    weights = section.get("weights", list(ours.weights))
    if not isinstance(weights, list | tuple):
        raise Invalid(
            _('Write a list: weights = ["model.safetensors"].'),
            field="outputs.weights",
            code="manifest.type",
        )
    outputs = Outputs(
        weights=tuple(
            _output_name(name, f"outputs.weights[{index}]", *WEIGHTS)
            for index, name in enumerate(weights[: policy.submission.outputs + 1])
        ),
        metrics=_output_name(section.get("metrics", ours.metrics), "outputs.metrics", ".json"),
        config=_output_name(section.get("config", ours.config), "outputs.config", ".json"),
    )
    if len(outputs.weights) > 1 and any(name.endswith(ONNX) for name in outputs.weights):
        raise Invalid(
            _("Weights leave as safetensors files, or as one ONNX file that holds all of them."),
            field="outputs.weights",
            code="manifest.outputs",
        )
    if len(outputs.weights) + 2 > policy.submission.outputs:
        raise Invalid(
            _("A job may leave at most {most} files."),
            field="outputs.weights",
            code="manifest.outputs",
            most=policy.submission.outputs,
        )
    names = [*outputs.weights, outputs.metrics, outputs.config]
    if any(path_key(name).split("/")[0] == CHECKPOINT_FOLDER for name in names):
        raise Invalid(
            _("What lies in {folder}/ stays inside; give this output another place."),
            field="outputs",
            code="manifest.outputs",
            folder=CHECKPOINT_FOLDER,
        )
    if len({path_key(name) for name in names}) != len(names):
        raise Invalid(
            _("Each output needs a name of its own."), field="outputs", code="manifest.outputs"
        )
    return outputs


def _output_name(value: object, place: str, *suffixes: str) -> str:
    name = check_path(value, place, length=120, depth=4)
    if not name.endswith(suffixes):
        raise Invalid(
            _("This file must end in {suffix}; nothing else may leave."),
            field=place,
            code="manifest.output-kind",
            suffix=" / ".join(suffixes),
        )
    return name
