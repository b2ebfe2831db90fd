"""Start the worker process and take its answer."""

from __future__ import annotations

import dataclasses
import json
import shutil
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from policies.document import Policy
from policies.errors import GloveboxError
from sandbox_runner.backends.interface import Backend
from sandbox_runner.spec import GiB, Limits, MiB, Mount, SandboxSpec

_ROOT: Final = Path(__file__).resolve().parents[2]
RESULT_BYTES: Final = 64 * MiB
LIMITS: Final = Limits(
    cpus=2,
    memory_bytes=6 * GiB,
    processes=64,
    wall_seconds=1200,
    output_bytes=2 * GiB + 128 * MiB,
    tmp_bytes=64 * MiB,
    shm_bytes=64 * MiB,
    log_bytes=1 * MiB,
    grace_seconds=0,
)


class WorkerFault(GloveboxError):
    """The worker did not come to an answer; ``reason`` is a word of the sandbox's result."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def ask(
    task: str,
    request: Mapping[str, Any],
    *,
    datasets: Mapping[str, Path],
    artefacts: Path | None,
    policy: Policy,
    workdir: Path,
    backend: Backend,
    image: str,
    progress: Callable[[float], None] | None = None,
) -> tuple[dict[str, Any], Path]:
    """Return the worker's answer, and the directory in which it left its files.

    The worker sees the artefacts and the datasets read-only, and our own two rooms; nothing else.
    ``progress`` is told the share done. Raises :class:`WorkerFault` if it was ended, crashed, or
    answered with anything but JSON.
    """
    output = workdir / f"worker-{task}"
    if output.exists():
        shutil.rmtree(output)
    output.mkdir(parents=True, mode=0o700)
    mounts = [
        Mount(_ROOT / "policies", "/opt/glovebox/policies"),
        Mount(_ROOT / "sandbox_runner", "/opt/glovebox/sandbox_runner"),
        *(Mount(path, f"/data/{slug}") for slug, path in datasets.items()),
    ]
    if artefacts is not None:
        mounts.append(Mount(artefacts, "/artefacts"))
    whole = {
        **request,
        "task": task,
        "artefacts": "/artefacts",
        "output": "/output",
        "datasets": {slug: f"/data/{slug}" for slug in datasets},
        "policy": dataclasses.asdict(policy.release),
    }
    result = backend.run(
        SandboxSpec(
            id=f"inspect-{uuid.uuid4().hex[:12]}",
            argv=("python", "-m", "sandbox_runner.inspection.worker"),
            limits=LIMITS,
            mounts=tuple(mounts),
            env={"PYTHONPATH": "/opt/glovebox", "OMP_NUM_THREADS": "2"},
            image=image,
            output=output,
            stdin=json.dumps(whole).encode(),
            log=workdir / f"worker-{task}.log",
            progress=progress and (lambda _step, said: progress(min(1.0, said["share"]))),
            metrics=frozenset({"share"}),
        )
    )
    if (result.state, result.reason) != ("finished", "exit"):
        raise WorkerFault(result.reason)
    answer = output / "result.json"
    try:
        if answer.stat().st_size > RESULT_BYTES:
            raise WorkerFault("output-limit")
        value = json.loads(answer.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise WorkerFault("data") from error
    if not isinstance(value, dict):
        raise WorkerFault("data")
    return value, output
