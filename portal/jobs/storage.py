"""Submissions, artefacts, logs and reports as encrypted objects under the view key."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from policies.document import Policy, default_policy
from policies.submission import Manifest, manifest_from_mapping
from portal import blobs, keys
from portal.jobs.archive import Archive
from portal.jobs.models import Artefact, Inspection, Job, Submission


@dataclass(frozen=True)
class Kept:
    """A stored object with its own key, wrapped by the view master key for one context."""

    object_name: str
    wrapped_key: bytes
    sha256: str
    bytes: int


def keep(stream: BinaryIO, *, context: str, limit: int | None = None) -> Kept:
    """Encrypt a stream under a fresh key; ``context`` says what the key opens.

    The object has a random name: a step that is done again writes a new object, and only the
    one that a row names is ever read.
    """
    key = keys.new_key()
    stored = blobs.put(stream, key=key, name=blobs.object_name(key, context), limit=limit)
    wrapped = keys.wrap(key, by=keys.master("view"), context=context)
    return Kept(stored.name, wrapped, stored.sha256, stored.bytes)


def open_kept(name: str, wrapped: bytes | memoryview, *, context: str) -> BinaryIO:
    """Open what :func:`keep` stored under this context."""
    key = keys.unwrap(wrapped, by=keys.master("view"), context=context)
    return blobs.open(name, key=key)


def archive_context(grant_id: int) -> str:
    """The context of a submission's archive key: submissions are kept a grant."""
    return f"submission:grant:{grant_id}"


def artefact_context(job_id: int) -> str:
    """The context of a job's artefacts."""
    return f"artefact:job:{job_id}"


def log_context(job_id: int) -> str:
    """The context of a job's raw log."""
    return f"log:job:{job_id}"


def report_context(job_id: int) -> str:
    """The context of the internal part of an inspection."""
    return f"inspection:job:{job_id}"


def manifest_of(submission: Submission) -> Manifest:
    """Return the manifest as it was accepted.

    It was checked against the dataset's policy, which only tightens the portal's own; reading it
    back against the portal's cannot fail for a policy that was tightened since.
    """
    return manifest_from_mapping(submission.manifest, default_policy())


def open_archive(submission: Submission) -> BinaryIO:
    """Open a submission's zip."""
    return open_kept(
        submission.archive_object,
        submission.archive_key,
        context=archive_context(submission.grant_id),
    )


def unpack(submission: Submission, target: Path, policy: Policy) -> None:
    """Unpack a submission into ``target``, which is made anew. Raises Invalid for a bad zip."""
    shutil.rmtree(target, ignore_errors=True)
    with open_archive(submission) as stream, tempfile.TemporaryFile(dir=target.parent) as plain:
        # The zip is read back and forth; every chunk is verified once while it is copied.
        shutil.copyfileobj(stream, plain, 1 << 20)
        plain.seek(0)
        Archive(plain, policy).unpack(target)


def open_artefact(artefact: Artefact) -> BinaryIO:
    """Open an artefact."""
    return open_kept(
        artefact.object_name, artefact.wrapped_key, context=artefact_context(artefact.job_id)
    )


def read_log(job: Job) -> str:
    """Return a job's raw log as text; it is untrusted and must be shown inert."""
    if not job.log_object:
        return ""
    with open_kept(job.log_object, job.log_key or b"", context=log_context(job.pk)) as stream:
        return stream.read().decode("utf-8", "replace")


def open_internal_report(inspection: Inspection) -> BinaryIO | None:
    """Open the internal part of an inspection (JSON), for reviewers."""
    if not inspection.internal_object or inspection.internal_key is None:
        return None
    return open_kept(
        inspection.internal_object,
        inspection.internal_key,
        context=report_context(inspection.job_id),
    )
