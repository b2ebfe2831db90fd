"""``python -m bench.portal_rows EVENTS JOBS``, in the environment of a portal of its own.

Makes a portal with its people, one dataset, one request, one job and one release by the portal's
own actions, multiplies their rows, records and seals events, and answers with a line of JSON: the
pages to measure with the session of whoever reads each.
"""

from __future__ import annotations

import io
import json
import secrets
import sys
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import django

if TYPE_CHECKING:
    from django.db.models import Model

    from portal.access.models import Grant
    from portal.accounts.models import Person
    from portal.jobs.models import Job
    from portal.releases.models import Release

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "lesion-cnn"
PDF = b"%PDF-1.7\nan approval\n%%EOF\n"
ANSWERS: dict[str, Any] = {
    "purpose": "commercial",
    "title": "Lesion detection",
    "aim": "Find out whether a small network tells lesions from normal images.",
    "method": "A convolutional network, trained on single views and judged by AUC.",
    "days": 30,
    "expertise": "Five years of image analysis.",
    "means": "None that we know of.",
    "gain": "None.",
    "protection": "A closed office and managed machines.",
    "linkage": "There is none.",
    "relation": "None.",
    "access_control": "One person, named below.",
    "outputs": "One model and its figures.",
    "pledge": True,
}
ROLES = {
    "steward": ("steward", "Radiology", "Hospital", False),
    "committee1": ("committee", "Ethics", "Hospital", False),
    "committee2": ("committee", "Law", "Hospital", False),
    "committee3": ("committee", "Statistics", "University", True),
    "reviewer": ("reviewer", "Data office", "Hospital", False),
    "auditor": ("auditor", "Audit", "Ministry", True),
    "applicant": ("", "Research", "Company", True),
}
TICKS = 20
JOBS_A_GRANT = 20
# Of a hundred jobs; the rest has finished.
STATES = {"failed": 15, "stopped": 5, "refused": 5, "queued": 3, "running": 2}
# Every third job that finished has a release; one in ten of these is still reviewed.
RELEASE_EVERY, IN_REVIEW_EVERY = 3, 10


def make_people() -> dict[str, Person]:
    """Make everybody with a second factor, and the roles in force."""
    from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret
    from django.utils import timezone

    from portal.accounts.models import Organisation, Person, RoleAssignment, Unit

    people = {}
    for key, (role, unit, organisation, external) in ROLES.items():
        owner, _new = Organisation.objects.get_or_create(
            name=organisation, defaults={"external": external}
        )
        home, _new = Unit.objects.get_or_create(organisation=owner, name=unit)
        person = Person.objects.create_user(f"{key}@example.org", name=key, unit=home)
        if role:
            RoleAssignment.objects.create(person=person, role=role, confirmed_at=timezone.now())
            TOTP.activate(person, generate_totp_secret())
        people[key] = person
    return people


def session_of(person: Person) -> str:
    """Return the key of a session in which a person has signed in with their second factor."""
    from allauth.account.internal.flows.login import record_authentication
    from django.contrib.auth import login
    from django.contrib.sessions.backends.db import SessionStore
    from django.http import HttpRequest

    request = HttpRequest()
    request.META.update({"REMOTE_ADDR": "127.0.0.1", "SERVER_NAME": "localhost"})
    request.session = SessionStore()
    login(request, person, "allauth.account.auth_backends.AuthenticationBackend")
    record_authentication(request, person, "password", email=person.email)
    record_authentication(request, person, "mfa", type="totp")
    request.session.save()
    return str(request.session.session_key)


def make_grant(people: dict[str, Person]) -> Grant:
    """Take one request through the committee to a grant."""
    from portal.access import actions, decisions, grants
    from portal.access.queries import current_agreement
    from portal.catalog.models import Dataset, DatasetVersion

    steward, applicant = people["steward"], people["applicant"]
    assert steward.unit is not None
    dataset = Dataset.objects.create(
        slug="mammography", kind="mammography", title="Mammography", description="Four views.",
        steward=steward, unit=steward.unit,
    )  # fmt: skip
    version = DatasetVersion.objects.create(
        dataset=dataset, number=1, state="published", files=480, subjects=120, bytes=80 << 20,
        manifest_sha256="a" * 64,
    )  # fmt: skip
    fields = {**ANSWERS, "analysts": [applicant.email]}
    row = actions.create_request(by=applicant, version=version, fields=fields)
    actions.add_document(by=applicant, request=row, stream=io.BytesIO(PDF), filename="ethics.pdf")
    row = actions.submit_request(by=applicant, request=row)
    for number in (1, 2, 3):
        row.refresh_from_db()
        decisions.cast_vote(
            by=people[f"committee{number}"], request=row, choice="approve",
            bound_to=row.bound_to, comment="Because.",
        )  # fmt: skip
    row.refresh_from_db()
    return grants.sign_agreement(
        by=applicant, request=row, agreement=current_agreement(), typed_name=applicant.name,
        language="en",
    )  # fmt: skip


def make_job(applicant: Person, grant: Grant) -> Job:
    """Hand the example in, and leave its job as a run and an inspection would."""
    from portal.jobs import actions, ledger, storage
    from portal.jobs.models import Artefact, Finding, Inspection, Job, LedgerEntry, Tick

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted(EXAMPLE.iterdir()):
            archive.writestr(path.name, path.read_bytes())
    packed.seek(0)
    job = actions.submit(by=applicant, grant=grant, stream=packed)
    for name, kind in (("model.safetensors", "weights"), ("metrics.json", "metrics")):
        kept = storage.keep(io.BytesIO(b"{}"), context=storage.artefact_context(job.pk))
        Artefact.objects.create(
            job=job, path=name, kind=kind, bytes=kept.bytes, sha256=kept.sha256,
            object_name=kept.object_name, wrapped_key=kept.wrapped_key,
        )  # fmt: skip
    inspection = Inspection.objects.create(
        job=job, verdict="review", metrics={"auc": 0.9}, report_sha256="a" * 64,
        official={"patient": {"auc": {"value": 0.9, "low": 0.8, "high": 0.95}}},
    )  # fmt: skip
    for number in range(1, 5):
        Finding.objects.create(
            inspection=inspection, number=number, rule="tensors.shape", severity="review",
            artefact="model.safetensors", message="To be looked at.", evidence={"count": number},
        )  # fmt: skip
    for step in range(TICKS):
        values = {"loss": 1 / (step + 1), "validation_auc": 0.9}
        Tick.objects.create(job=job, sequence=step + 1, step=step, values=values, bits=0.01)
        ledger._add(job, LedgerEntry.Kind.TICK, bits=0.01)
    ledger.charge_sealed(job)
    Job.objects.filter(pk=job.pk).update(
        state="finished", reason="exit", backend="bubblewrap", backend_version="0.8.0",
        wall_seconds=12.3,
    )  # fmt: skip
    job.refresh_from_db()
    return job


def copies(row: Model, count: int, **changes: Any) -> list[Any]:
    """Insert copies of a row; a change may be a value, or a function of the copy's number."""
    kind = type(row)
    plain = {
        field.attname: getattr(row, field.attname)
        for field in kind._meta.concrete_fields
        if not field.primary_key
    }
    made = []
    for number in range(count):
        own = {name: how(number) if callable(how) else how for name, how in changes.items()}
        made.append(kind(**{**plain, **own}))
    return kind._default_manager.bulk_create(made, batch_size=200)


def _token(_number: int) -> str:
    return secrets.token_hex(32)


def _states(count: int) -> Iterator[str]:
    listed = [state for state, share in STATES.items() for _one in range(share)]
    listed += ["finished"] * (100 - len(listed))
    # 37 and 100 have no common divisor: each hundred has every state, well mixed.
    return (listed[number * 37 % 100] for number in range(count))


def multiply(job: Job, release: Release, total: int) -> None:
    """Make ``total`` jobs of one, with grants, submissions, ticks, ledger, findings, releases."""
    from django.utils import timezone

    from portal.access.models import AccessRequest
    from portal.jobs.models import Job
    from portal.releases.models import Release, ReleaseStep
    from portal.releases.queries import digest_of

    count, grant, analyst = total - 1, job.grant, job.submission.submitter
    many = -(-total // JOBS_A_GRANT)
    requests = copies(grant.request, many)
    for row in requests:
        row.analysts.set([analyst])
    waiting = copies(grant.request, many // 2, state="in_review")
    for row in waiting:
        row.analysts.set([analyst])
    grants = copies(grant, many, request_id=lambda n: requests[n].pk)
    for row in grants:
        row.analysts.set([analyst])
    for row in (*requests, *waiting):
        for step in grant.request.steps.all():
            copies(step, 1, request_id=row.pk)
    of_grant = [grants[number % many].pk for number in range(count)]
    submissions = copies(
        job.submission, count, archive_object=_token, grant_id=lambda n: of_grant[n]
    )
    states = list(_states(count))
    now = timezone.now()
    jobs = copies(
        job, count,
        submission_id=lambda n: submissions[n].pk,
        grant_id=lambda n: of_grant[n],
        state=lambda n: states[n],
        created_at=lambda n: now - timedelta(minutes=count - n),
    )  # fmt: skip
    for row in (*job.ticks.all(), *job.steps.all()):
        copies(row, count, job_id=lambda n: jobs[n].pk)
    for row in job.ledger.all():
        copies(row, count, job_id=lambda n: jobs[n].pk, grant_id=lambda n: of_grant[n])
    finished = [each for each in jobs if each.state == "finished"]
    for row in job.artefacts.all():
        copies(row, len(finished), job_id=lambda n: finished[n].pk, object_name=_token)
    inspections = copies(job.inspection, len(finished), job_id=lambda n: finished[n].pk)
    for row in job.inspection.findings.all():
        copies(row, len(finished), inspection_id=lambda n: inspections[n].pk)
    proposed = finished[::RELEASE_EVERY]
    releases = copies(
        release, len(proposed),
        job_id=lambda n: proposed[n].pk,
        state=lambda n: "in_review" if n % IN_REVIEW_EVERY == 0 else "released",
    )  # fmt: skip
    for row in releases:
        row.artefacts.set(row.job.artefacts.all())
        copies(ReleaseStep.objects.filter(release=release).latest("pk"), 1, release_id=row.pk)
        if row.state == "in_review":
            row.bound_to = digest_of(row)
            row.save(update_fields=["bound_to"])
    assert Job.objects.count() == total
    assert Release.objects.count() == len(releases) + 1
    assert AccessRequest.objects.count() == len(requests) + len(waiting) + 1


def main(events: int, jobs: int) -> None:
    """Make everything and print one line of JSON."""
    django.setup()
    from django.core.management import call_command

    from bench.audit_rows import record_events, seal_all
    from portal import keys
    from portal.releases import actions

    keys.make_all()
    call_command("migrate", verbosity=0)
    call_command("createcachetable", verbosity=0)
    people = make_people()
    grant = make_grant(people)
    job = make_job(people["applicant"], grant)
    release = actions.propose(by=people["applicant"], job=job, note="Please.")
    if jobs > 1:
        multiply(job, release, jobs)
    if events:
        record_events(events, people=list(people.values()), about=job)
    seal_all()
    sessions = {key: session_of(person) for key, person in people.items()}
    pages = {
        "start page (reviewer)": ("/", "reviewer"),
        "catalogue (visitor)": ("/datasets/", ""),
        "dataset (applicant)": ("/datasets/mammography/", "applicant"),
        "requests (committee)": ("/requests/", "committee1"),
        "request (committee)": (f"/requests/{grant.request_id}/", "committee1"),
        "jobs (applicant)": ("/jobs/", "applicant"),
        "job (applicant)": (f"/jobs/{job.pk}/", "applicant"),
        "releases (reviewer)": ("/releases/", "reviewer"),
        "release (reviewer)": (f"/releases/{release.pk}/", "reviewer"),
        "audit (auditor)": ("/audit/", "auditor"),
    }
    answer = {
        name: {"path": path, "session": sessions.get(who, "")}
        for name, (path, who) in pages.items()
    }
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
