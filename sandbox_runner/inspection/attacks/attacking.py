"""One inspection's attacks, from the worker that prepares them to the network that is asked."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from policies.document import Policy
from policies.findings import Finding
from policies.submission import Manifest
from sandbox_runner.backends.interface import Backend
from sandbox_runner.inspection import workroom
from sandbox_runner.inspection.attacks import plan, task
from sandbox_runner.inspection.safetensors_file import Header
from sandbox_runner.oracle import Oracle

CALL_SECONDS: Final = 30.0


@dataclass(frozen=True)
class Scene:
    """What is inspected, by which policy, and where."""

    artefacts: Path
    submission: Path
    manifest: Manifest
    datasets: Mapping[str, Path]
    policy: Policy
    workdir: Path
    backend: Backend


def attack(
    scene: Scene,
    headers: Mapping[str, Header],
    artefact: str,
    official: Mapping[bytes, NDArray[np.float64]],
    progress: Callable[[float], None],
) -> list[Finding]:
    """Return what the attacks found; where there could be none, that is a finding.

    The network's process is a new one: it cannot know held-out pictures by having met them when
    the official answers were asked for.
    """
    chosen = task.read(scene.manifest)
    if chosen is None:
        return _none(artefact, "Name [config] size = [height, width].")
    try:
        answer, folder = workroom.ask(
            "attacks",
            plan.request_of(chosen, list(headers), scene.policy),
            datasets=scene.datasets,
            artefacts=scene.artefacts,
            policy=scene.policy,
            workdir=scene.workdir,
            backend=scene.backend,
            image=scene.manifest.image,
        )
        people, found = plan.read(answer, folder, scene.policy, artefact)
    except (workroom.WorkerFault, KeyError, TypeError, ValueError, OSError):
        return _none(artefact, "The pictures for it could not be prepared.")
    if not len(people.pixels):
        return [*found, *_none(artefact, "The datasets have no pictures that can be read.")]
    files = {name: (scene.artefacts / name, header) for name, header in headers.items()}

    @contextlib.contextmanager
    def network() -> Iterator[Oracle]:
        with Oracle(
            scene.submission,
            scene.manifest,
            list(files.values()),
            scene.backend,
            log=scene.workdir / "oracle-attacks.log",
        ) as oracle:
            oracle.load()
            # Who takes longer for one batch does not finish an attack either.
            oracle.call_seconds = min(oracle.call_seconds, CALL_SECONDS)
            yield oracle

    return found + plan.run(
        network, people, files, chosen, scene.policy, artefact, progress, official
    )


def _none(artefact: str, why: str) -> list[Finding]:
    return [
        Finding(
            "attacks.none",
            "review",
            artefact,
            f"Membership and memorisation are not measured. {why}",
        )
    ]
