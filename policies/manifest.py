"""A checked manifest as a value: what a job is, uses, gets, declares and leaves."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from policies.document import Policy
from policies.metrics import MetricSpec
from policies.privacy import PrivateTraining
from policies.quantities import format_bytes, format_seconds


@dataclass(frozen=True, slots=True)
class Resources:
    """What a job gets; memory and output in bytes, time in seconds of wall clock."""

    cpus: int
    memory_bytes: int
    gpus: int
    wall_seconds: int
    output_bytes: int
    processes: int

    def as_mapping(self) -> dict[str, Any]:
        """Return the section as it stands in a manifest."""
        return {
            "cpus": self.cpus,
            "memory": format_bytes(self.memory_bytes),
            "gpus": self.gpus,
            "time": format_seconds(self.wall_seconds),
            "output": format_bytes(self.output_bytes),
            "processes": self.processes,
        }


@dataclass(frozen=True, slots=True)
class Outputs:
    """The names under which a job leaves its artefacts."""

    weights: tuple[str, ...] = ("model.safetensors",)
    metrics: str = "metrics.json"
    config: str = "config.json"

    @property
    def names(self) -> dict[str, str]:
        """Return each declared name with its artefact kind: weights, metrics or config."""
        kinds = dict.fromkeys(self.weights, "weights")
        return kinds | {self.metrics: "metrics", self.config: "config"}

    def as_mapping(self) -> dict[str, Any]:
        """Return the section as it stands in a manifest."""
        return {"weights": list(self.weights), "metrics": self.metrics, "config": self.config}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Whether a job keeps a checkpoint inside, and whose it goes on from (a job's number or 0)."""

    keep: bool = False
    source: int = 0

    def as_mapping(self) -> dict[str, Any]:
        """Return the section as it stands in a manifest."""
        found: dict[str, Any] = {"keep": True} if self.keep else {}
        return found | ({"from": self.source} if self.source else {})


#: In /output: what a job leaves there may be kept inside, and never leaves.
CHECKPOINT_FOLDER = "checkpoint"


@dataclass(frozen=True, slots=True)
class Manifest:
    """A checked ``glovebox.toml``. Exactly one of ``entrypoint`` and ``recipe`` is set.

    ``datasets`` is slug to version, ``build`` is ``module:function`` or empty, ``private`` is
    there where the recipe is the private trainer.
    """

    name: str
    entrypoint: str
    recipe: str
    image: str
    build: str
    datasets: Mapping[str, str]
    resources: Resources
    metrics: Mapping[str, MetricSpec] = field(default_factory=dict)
    outputs: Outputs = field(default_factory=Outputs)
    config: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    private: PrivateTraining | None = None

    def as_mapping(self) -> dict[str, Any]:
        """Return JSON values; ``submission.manifest_from_mapping`` reads them back as equal."""
        job = {"name": self.name, "image": self.image}
        job["entrypoint" if self.entrypoint else "recipe"] = self.entrypoint or self.recipe
        mapping = {
            "job": job,
            "model": {"build": self.build} if self.build else {},
            "datasets": dict(self.datasets),
            "resources": self.resources.as_mapping(),
            "metrics": {name: spec.as_mapping() for name, spec in self.metrics.items()},
            "outputs": self.outputs.as_mapping(),
            "config": dict(self.config),
            "checkpoint": self.checkpoint.as_mapping(),
        }
        return mapping | ({"private": self.private.as_mapping()} if self.private else {})

    def with_datasets(self, datasets: Mapping[str, str]) -> Manifest:
        """Return the manifest with datasets added or replaced (slug to version)."""
        return dataclasses.replace(self, datasets={**self.datasets, **datasets})

    def with_resources(self, **changes: int) -> Manifest:
        """Return the manifest with resources replaced, by the owner of the machine."""
        return dataclasses.replace(self, resources=dataclasses.replace(self.resources, **changes))


def default_resources(policy: Policy) -> Resources:
    """Return what a job gets that asks for nothing: the defaults, within the maxima."""
    ours, most = policy.submission.defaults, policy.submission.maximum
    return Resources(
        cpus=min(ours.cpus, most.cpus),
        memory_bytes=min(ours.memory, most.memory),
        gpus=min(ours.gpus, most.gpus),
        wall_seconds=min(ours.time, most.time),
        output_bytes=min(ours.output, most.output),
        processes=min(ours.processes, most.processes),
    )
