"""What a job is called on a machine that it may share with another portal's jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from portal.jobs import steps
from portal.jobs.models import Job
from sandbox_runner.backends.kubernetes_manifests import job_name


def test_two_portals_of_one_machine_never_share_a_sandbox_s_name(
    settings: Any, tmp_path: Path
) -> None:
    names = []
    for home in ("one", "other"):
        settings.HOME = tmp_path / home
        names.append(steps.sandbox_name(Job(pk=7)))
        assert steps.sandbox_name(Job(pk=7)) == names[-1]
        assert steps.sandbox_name(Job(pk=8)) != names[-1]
    assert len(set(names)) == 2


def test_the_largest_number_still_makes_a_name_that_every_backend_takes() -> None:
    assert job_name(steps.sandbox_name(Job(pk=2**63 - 1)))
