"""A small dataset, a submission, and the backend of this machine."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from policies.document import Policy, default_policy
from policies.submission import parse_manifest
from sandbox_runner.backends import Backend
from sandbox_runner.backends.choice import backend as backend_of
from sandbox_runner.backends.choice import missing
from sandbox_runner.lifecycle import limits_of
from sandbox_runner.spec import JobSpec, MiB

MANIFEST = """
[job]
name = "test"
entrypoint = "train.py"
[datasets]
mini = "1"
[resources]
memory = "1Gi"
time = "60s"
output = "16Mi"
processes = 64
[metrics]
loss = "curve"
[outputs]
weights = ["model.safetensors"]
"""


@pytest.fixture(scope="session")
def bubblewrap() -> Backend:
    """The backend that every supported machine has."""
    if missing("bubblewrap"):
        pytest.skip(f"bubblewrap is not whole here: {', '.join(missing('bubblewrap'))}")
    return backend_of("bubblewrap")


@pytest.fixture(scope="session")
def policy() -> Policy:
    """The shipped policy, ticking fast."""
    shipped = default_policy()
    return dataclasses.replace(
        shipped, deployment=dataclasses.replace(shipped.deployment, tick_seconds=0)
    )


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A published version's directory with one sealed subject and one that may be trained on."""
    home = tmp_path / "dataset"
    for subject in ("s1", "s2"):
        (home / subject).mkdir(parents=True)
        (home / subject / "1.png").write_bytes(f"picture of {subject}".encode())
        (home / subject / "1.json").write_text("{}", encoding="utf-8")
    (home / "dataset.toml").write_text('kind = "photos"\nsample = true\n', encoding="utf-8")
    (home / "labels.csv").write_text(
        "file,subject,label,split\ns1/1.png,s1,a,train\ns2/1.png,s2,b,sealed\n", encoding="utf-8"
    )
    (home / "clinical.csv").write_text("subject,age\ns1,40\ns2,50\n", encoding="utf-8")
    return home


@pytest.fixture
def submission(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a submission: ``submission(code, manifest=...)``."""

    def write(code: str, manifest: str = MANIFEST, **files: str) -> Path:
        home = tmp_path / "submission"
        home.mkdir()
        (home / "glovebox.toml").write_text(manifest, encoding="utf-8")
        (home / "train.py").write_text(code, encoding="utf-8")
        for name, text in files.items():
            (home / name).write_text(text, encoding="utf-8")
        return home

    return write


@pytest.fixture
def job(
    submission: Callable[..., Path], dataset: Path, tmp_path: Path, policy: Policy
) -> Callable[..., JobSpec]:
    """Return a function that makes a job of some code: ``job(code, wall_seconds=2)``."""

    def make(code: str, *, manifest: str = MANIFEST, **limits: Any) -> JobSpec:
        home = submission(code, manifest)
        parsed = parse_manifest(manifest, policy)
        asked: Mapping[str, Any] = {"tmp_bytes": 64 * MiB, "shm_bytes": 64 * MiB, **limits}
        return JobSpec(
            id=f"job-{uuid.uuid4().hex[:12]}",
            submission=home,
            manifest=parsed,
            datasets={"mini": dataset},
            output=tmp_path / "artefacts",
            limits=dataclasses.replace(limits_of(parsed.resources, policy), **asked),
            backend="bubblewrap",
        )

    return make
