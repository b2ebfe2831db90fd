"""What is asked of an artefact before it may leave."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from policies.document import Policy
from policies.submission import Manifest
from sandbox_runner.inspection.report import Report

__all__ = ["Report", "inspect"]


def inspect(
    artefacts: Path,
    *,
    submission: Path,
    manifest: Manifest,
    datasets: Mapping[str, Path],
    policy: Policy,
    workdir: Path,
    backend: str = "auto",
    minimum_isolation: str | None = None,
    progress: Callable[[str, float], None] | None = None,
    cancel: threading.Event | None = None,
    privacy: Mapping[str, Any] | None = None,
) -> Report:
    """Return the report on the files that a job left in ``artefacts``.

    ``datasets`` (slug to directory) hold every row, sealed ones too: train and validation rows
    are searched for, sealed rows are what the network is measured on. ``workdir`` is ours and
    receives working files, which hold data; the caller removes it. ``progress`` is told the step
    and its share done. ``minimum_isolation`` defaults to the policy's. ``privacy`` is the runner's
    own record of a private training, never a file that a job left.

    Raises Cancelled soon after ``cancel`` is set, and CannotRun where this machine cannot seal what
    has to be sealed. Everything that the files or the network do becomes a finding. May be called
    again with the same ``workdir``.
    """
    # The worker inside the sandbox imports this package for its readers, and needs no sandbox.
    from sandbox_runner.inspection.gate import Gate

    return Gate(
        artefacts=artefacts,
        submission=submission,
        manifest=manifest,
        datasets=datasets,
        policy=policy,
        workdir=workdir,
        backend=backend,
        minimum_isolation=minimum_isolation or policy.isolation.minimum,
        progress=progress,
        cancel=cancel,
        privacy=privacy,
    ).inspect()
