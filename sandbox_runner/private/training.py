"""A private training from outside: draw the graph without data, then train without the submission.

Two sealed processes, one after the other. The first has the applicant's code and no data, the
second the data and no code of the applicant's. What passes between them is a graph of the closed
list and tensors, which are read here and once more inside.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from policies.document import Policy
from policies.errors import GloveboxError, Invalid, _
from policies.privacy import Record, read_record
from policies.submission import Manifest
from sandbox_runner import stage as stages
from sandbox_runner.backends import Backend
from sandbox_runner.image import ROOM
from sandbox_runner.inspection.json_file import BadJson, read_object
from sandbox_runner.private import graph as graphs
from sandbox_runner.spec import JobSpec, Mount, SandboxResult, SandboxSpec

_ROOT: Final = ROOM.parent
#: The trainer's own account, beside the weights; no declared output, so it is never collected.
ACCOUNT: Final = "private.json"
ACCOUNT_BYTES: Final = 64 * 1024
#: Building and drawing a network needs no longer.
DRAWING_SECONDS: Final = 300.0

#: By the trainer's word; the sentences say nothing of the data but what the catalogue says.
REFUSALS: Final[Mapping[str, tuple[str, str]]] = {
    "shape": (
        "model.build",
        _("The network does not give one answer a picture for pictures of [config] size."),
    ),
    "width": (
        "model.build",
        _("With a positive_label the network gives one number a picture, or two."),
    ),
    "nobody": (
        "datasets",
        _("A training row of this dataset names no subject, so that none can be protected."),
    ),
    "subjects": ("datasets", _("There is no subject to train on.")),
    "delta": ("private.delta", _("Delta must be below 1 / (number of subjects).")),
    "budget": (
        "private.epsilon",
        _("Not one step fits into this epsilon: ask for more noise, fewer steps or a lower rate."),
    ),
}


class NoAccount(GloveboxError):
    """Our own trainer ended well and left no account that can be read: a fault of ours."""


@dataclass(frozen=True)
class Places:
    """Where things of one job lie; ``output`` is where what the trainer leaves is put."""

    code: Path
    data: Mapping[str, Path]
    graph: Path
    output: Path


def trainer_digest() -> str:
    """Return the SHA-256 of the trainer's code, by which a record says what made the weights."""
    files = [
        *(ROOM / "private").rglob("*.py"),
        *(ROOM / "sdk" / "glovebox").rglob("*.py"),
        _ROOT / "policies" / "privacy.py",
    ]
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.relative_to(_ROOT).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def request_for(
    manifest: Manifest,
    policy: Policy,
    *,
    graph: str,
    datasets: Mapping[str, str],
    shards: str = "",
) -> bytes:
    """Return what the trainer is asked, on its standard input."""
    assert manifest.private is not None
    request = {
        "private": dataclasses.asdict(manifest.private),
        "config": dict(manifest.config),
        "policy": dataclasses.asdict(policy.release),
        "delta": policy.privacy.delta,
        "datasets": dict(datasets),
        "graph": graph,
        "weights": manifest.outputs.weights[0],
        "config_name": manifest.outputs.config,
        "shards": shards,
    }
    return json.dumps(request).encode()


def train(
    spec: JobSpec,
    policy: Policy,
    places: Places,
    backend: Backend,
    lines: Mapping[str, int],
    log: IO[bytes],
    cancel: threading.Event | None = None,
) -> tuple[SandboxResult, Record | None]:
    """Return how it ended and, where it finished, the record of it.

    Raises Invalid, by field and name, for a network that is no closed graph, and for a training
    that cannot be private as asked.
    """
    shutil.rmtree(places.graph, ignore_errors=True)
    drawn = backend.run(_drawing(spec, places, lines, log), cancel)
    if (drawn.state, drawn.reason) != ("finished", "exit"):
        return drawn, None
    graph = graphs.read(places.graph, policy.release)
    # Only what was read goes on, and the sandbox's user must be able to read it.
    places.graph.chmod(0o755)
    for path in places.graph.iterdir():
        if path.name in (graphs.GRAPH, graphs.INITIAL):
            path.chmod(0o644)
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    trained = backend.run(_training(spec, policy, places, log, drawn), cancel)
    result = dataclasses.replace(
        trained,
        wall_seconds=drawn.wall_seconds + trained.wall_seconds,
        cpu_seconds=drawn.cpu_seconds + trained.cpu_seconds,
        peak_memory_bytes=max(drawn.peak_memory_bytes, trained.peak_memory_bytes),
    )
    if (trained.state, trained.reason) != ("finished", "exit"):
        return result, None
    record = read_account(places.output, spec.manifest, graph)
    return result, record


def read_account(output: Path, manifest: Manifest, graph: graphs.Graph) -> Record:
    """Return the record of what the trainer left in ``output``, and remove its account there.

    Raises Invalid for a refusal.
    """
    try:
        account = read_object(output / ACCOUNT, ACCOUNT_BYTES)
        # Noted: nothing to tell of it as a file that was left behind.
        (output / ACCOUNT).unlink()
        refused = account.get("refused")
        if isinstance(refused, str) and refused in REFUSALS:
            field, sentence = REFUSALS[refused]
            raise Invalid(sentence, field=field, code=f"private.{refused}")
        name = manifest.outputs.weights[0]
        return read_record(
            {
                **account,
                "unit": "subject",
                "trainer": trainer_digest(),
                "graph": graph.digest(),
                "weights": {name: _digest(output / name)},
            }
        )
    except (BadJson, OSError, TypeError, ValueError) as error:
        raise NoAccount("the private trainer left no account") from error


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _drawing(
    spec: JobSpec, places: Places, lines: Mapping[str, int], log: IO[bytes]
) -> SandboxSpec:
    """The submission's code, and no data."""
    limits = dataclasses.replace(
        spec.limits, wall_seconds=min(DRAWING_SECONDS, spec.limits.wall_seconds)
    )
    return SandboxSpec(
        id=spec.id,
        argv=("python", "/opt/glovebox/start.py", "/opt/private/describe.py"),
        limits=limits,
        mounts=(
            Mount(places.code.absolute(), "/code"),
            Mount(ROOM / "inside", "/opt/glovebox"),
            Mount(ROOM / "private" / "inside", "/opt/private"),
        ),
        env={"GLOVEBOX_CODE": "/code", "GLOVEBOX_OUTPUT": "/output"},
        image=spec.manifest.image,
        workdir="/code",
        output=places.graph,
        code=lines,
        log=log,
    )


def _training(
    spec: JobSpec, policy: Policy, places: Places, log: IO[bytes], drawn: SandboxResult
) -> SandboxSpec:
    """Our code and the data, and nothing of the submission but numbers of the closed list."""
    left = max(1.0, spec.limits.wall_seconds - drawn.wall_seconds)
    mounts = [
        Mount(_ROOT / "policies", "/opt/glovebox/policies"),
        Mount(ROOM, "/opt/glovebox/sandbox_runner"),
        Mount(places.graph.absolute(), "/opt/graph"),
        *(Mount(path, f"/data/{slug}") for slug, path in places.data.items()),
    ]
    shards = {slug: stages.shards_of(path) for slug, path in places.data.items()}
    mounts += [Mount(path, f"/opt/shards/{slug}") for slug, path in shards.items() if path]
    return SandboxSpec(
        id=spec.id,
        argv=("python", "-m", "sandbox_runner.private.trainer"),
        limits=dataclasses.replace(spec.limits, wall_seconds=left),
        mounts=tuple(mounts),
        env={
            "PYTHONPATH": "/opt/glovebox",
            "GLOVEBOX_OUTPUT": "/output",
            "OMP_NUM_THREADS": "1",
        },
        image=spec.manifest.image,
        output=places.output,
        stdin=request_for(
            spec.manifest,
            policy,
            graph="/opt/graph",
            datasets={slug: f"/data/{slug}" for slug in places.data},
            shards="/opt/shards",
        ),
        log=log,
    )
