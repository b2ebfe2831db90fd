"""Where the dataset asks for it, rewritten weights leave instead of the job's, and all say so."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

import bundle
from policies.errors import Conflict
from portal import keys
from portal.accounts.models import Person
from portal.jobs import actions as job_actions
from portal.jobs import engine, storage
from portal.jobs.models import Artefact, Inspection, Job, LedgerEntry
from portal.jobs.queries import propose_block
from portal.jobs.serializers import InspectionSerializer
from portal.releases import actions, downloads, queries, tasks
from portal.releases.models import Release
from tests.portal.cast import Cast
from tests.portal.jobs.material import files, fill, training
from tests.portal.releases.finished import ALL, WEIGHTS, finished_job

pytestmark = pytest.mark.django_db

BEFORE = {"image": {"auc": {"value": 0.941, "low": 0.9, "high": 0.97}}}
FACTS: dict[str, Any] = {
    "type": "BF16",
    "noise": 0.03125,
    "lowest_bits": 4,
    "numbers": 36,
    "stored_bits": 1152,
    "capacity_bits": 190,
    "read_back_bits": 77,
    "agree": [0.51, 0.5, 0.49, 0.5],
    "zeroed": 0,
    "files": {"model.safetensors": 190},
    "before": BEFORE,
}


def ask(cast: Cast) -> None:
    cast.version.dataset.policy = {"release": {"sanitise": True}}
    cast.version.dataset.save()


def rewritten_job(cast: Cast) -> Job:
    """A finished job whose inspection kept other weights beside its own."""
    ask(cast)
    job = finished_job(cast)
    kept = storage.keep(io.BytesIO(b"rewritten"), context=storage.artefact_context(job.pk))
    Artefact.objects.create(
        job=job,
        path="model.safetensors",
        kind="weights",
        origin="sanitised",
        bytes=kept.bytes,
        sha256=kept.sha256,
        object_name=kept.object_name,
        wrapped_key=kept.wrapped_key,
    )
    Inspection.objects.filter(job=job).update(
        sanitising=FACTS, official={"image": {"auc": {"value": 0.939, "low": 0.9, "high": 0.96}}}
    )
    return Job.objects.get(pk=job.pk)


def release(cast: Cast, job: Job) -> Release:
    row = actions.propose(by=cast.applicant, job=job)
    for reviewer in cast.reviewers[:2]:
        digest = queries.digest_of(row)
        actions.cast_vote(
            by=reviewer, release=row, choice="approve", bound_to=digest, looked_at=ALL
        )
    tasks.build(row.pk)
    row.refresh_from_db()
    assert row.state == "released", row.reason
    return row


def opened(row: Release, folder: Path) -> tuple[bundle.Verified, dict[str, bytes]]:
    path = folder / "bundle.zip"
    with downloads.open_bundle(row) as stream:
        path.write_bytes(stream.read())
    verified = bundle.verify(path, keys.public_keys("release").values())
    assert verified.held, verified.lines
    with zipfile.ZipFile(path) as packed:
        return verified, {name: packed.read(name) for name in packed.namelist()}


def test_the_bundle_holds_the_rewritten_weights_and_says_so(cast: Cast, tmp_path: Path) -> None:
    row = release(cast, rewritten_job(cast))
    verified, members = opened(row, tmp_path)
    assert members["model.safetensors"] == b"rewritten"
    said = verified.evidence["inspection"]["sanitising"]
    assert said["capacity_bits"] == 190
    assert said["before"] == BEFORE
    assert [a["origin"] for a in verified.evidence["artefacts"]] == ["sanitised"]
    card = members["MODEL_CARD.md"].decode()
    assert "rewritten by the platform with noise" in card
    assert "0\\.941, 0\\.939" in card
    # What is charged is what the weights can say, not the length of our noise.
    entry = LedgerEntry.objects.get(job=row.job, kind="release")
    assert entry.bits == min(190, 8 * len(b"rewritten"))


def test_votes_are_bound_to_what_was_said_of_the_rewriting(cast: Cast) -> None:
    row = actions.propose(by=cast.applicant, job=rewritten_job(cast))
    before = queries.digest_of(row)
    Inspection.objects.filter(job=row.job).update(sanitising=FACTS | {"capacity_bits": 19})
    assert queries.digest_of(Release.objects.get(pk=row.pk)) != before


def test_weights_of_a_job_inspected_before_the_dataset_asked_do_not_leave(cast: Cast) -> None:
    job = finished_job(cast)
    row = actions.propose(by=cast.applicant, job=job)
    ask(cast)
    job = Job.objects.get(pk=job.pk)
    assert "Run it again" in str(propose_block(job))
    assert queries.leaving(job, weights=True) == []
    with pytest.raises(Conflict, match="Run it again"):
        row = Release.objects.get(pk=row.pk)
        actions.cast_vote(
            by=cast.reviewers[0],
            release=row,
            choice="approve",
            bound_to=queries.digest_of(row),
            looked_at=ALL,
        )


def test_reviewers_see_both_figures_and_the_bound_and_the_applicant_neither(
    cast: Cast, browse: Callable[[Person], Client]
) -> None:
    row = actions.propose(by=cast.applicant, job=rewritten_job(cast))
    page = browse(cast.reviewers[0]).get(f"/releases/{row.pk}/").content.decode()
    for words in ("Rewritten weights", "0.941", "0.939", "0.002", "190"):
        assert words in page, words
    page = browse(cast.applicant).get(f"/releases/{row.pk}/").content.decode()
    assert "Rewritten weights" not in page
    assert "0.941" not in page
    assert InspectionSerializer(row.job.inspection).data["sanitising"] is None


@pytest.mark.slow
@pytest.mark.sandbox
@pytest.mark.django_db(transaction=True)
def test_a_job_on_a_dataset_that_asks_is_rewritten_released_and_bundled(
    cast: Cast, tmp_path: Path
) -> None:
    """The whole way: one real training, sealed inspection, two votes, a bundle of bfloat16."""
    fill(cast.version, files(subjects=72))
    ask(cast)
    job = job_actions.submit(by=cast.applicant, grant=cast.granted(), stream=training())
    engine.advance(job.pk)
    job.refresh_from_db()
    findings = [(f.rule, f.severity) for f in job.inspection.findings.all()]
    assert job.inspection.verdict != "block", findings
    assert ("sanitise.capacity", "info") in findings
    assert "tensors.precision" not in dict(findings)
    assert job.inspection.sanitising["before"]["patient"]["auc"]["value"] == 1
    assert job.inspection.official["patient"]["auc"]["value"] > 0.99
    row = release(cast, job)
    verified, members = opened(row, tmp_path)
    assert members["model.safetensors"] != WEIGHTS
    head = json.loads(members["model.safetensors"][8:].split(b"}}")[0] + b"}}")
    kinds = {entry["dtype"] for name, entry in head.items() if name != "__metadata__"}
    assert "F32" not in kinds
    assert "BF16" in kinds
    said = verified.evidence["inspection"]["sanitising"]
    assert 0 <= said["read_back_bits"] < said["capacity_bits"] < said["stored_bits"]
    entry = LedgerEntry.objects.get(job=job, kind="release")
    assert entry.bits < 8 * len(members["model.safetensors"])
