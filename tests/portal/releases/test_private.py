"""Releases of private trainings: epsilon is charged, added up, bounded, signed and shown."""

from __future__ import annotations

import html
import re
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

import bundle
from policies.errors import Denied
from portal import keys
from portal.accounts.models import Person
from portal.jobs.models import Finding, Job, LedgerEntry
from portal.releases import actions, downloads, evidence, queries, tasks
from portal.releases.models import Release
from tests.portal.cast import Cast
from tests.portal.releases.finished import approve, finished_job

pytestmark = pytest.mark.django_db


def words(response: Any) -> str:
    """The text of a page, in one line."""
    text = re.sub(r"<[^>]*>", " ", response.content.decode())
    return " ".join(html.unescape(text).split())


def finding(epsilon: Any = 4.0) -> dict[str, Any]:
    """The inspection's finding on a private training, as the gate writes it."""
    figures = {"epsilon": epsilon, "delta": 0.001, "unit": "subject", "noise": 1.5, "steps": 100}
    return {
        "rule": "privacy.epsilon",
        "severity": "info",
        "artefact": "model.safetensors",
        "message": "The trusted trainer made these weights with noise: epsilon and delta hold for "
        "each subject of the training, and for the weights alone.",
        "evidence": figures,
    }


def private_job(cast: Cast, epsilon: float = 4.0, **options: Any) -> Job:
    """A finished job with the runner's record, as the worker keeps it."""
    job = finished_job(cast, finding(epsilon), **options)
    job.privacy = {
        "epsilon": epsilon, "delta": 0.001, "noise": 1.5, "rate": 0.1, "steps": 100, "clip": 1.0,
        "subjects": 60, "accountant": "RDP (Opacus 1.6.0)", "unit": "subject", "trainer": "a" * 64,
        "graph": "b" * 64, "weights": {"model.safetensors": "c" * 64},
    }  # fmt: skip
    job.save(update_fields=["privacy"])
    return job


def released(cast: Cast, job: Job) -> Release:
    release = approve(cast, actions.propose(by=cast.applicant, job=job))
    tasks.build(release.pk)
    release.refresh_from_db()
    assert release.state == "released", release.reason
    return release


def test_epsilon_and_delta_are_charged_and_signed(cast: Cast, tmp_path: Any) -> None:
    release = released(cast, private_job(cast))
    entry = LedgerEntry.objects.get(kind="release", job=release.job)
    assert (entry.epsilon, entry.delta) == (4.0, 0.001)
    path = tmp_path / "bundle.zip"
    with downloads.open_bundle(release) as stream:
        path.write_bytes(stream.read())
    verified = bundle.verify(path, keys.public_keys("release").values())
    assert verified.held, verified.lines
    said = verified.evidence["differential_privacy"]
    assert (said["epsilon"], said["delta"], said["unit"]) == (4.0, 0.001, "subject")
    assert said["trainer_sha256"] == "a" * 64
    after = verified.evidence["ledger"]["after"]
    for name in ("grant", "organisation", "dataset"):
        assert verified.evidence["ledger"]["before"][f"epsilon_of_{name}"]["spent"] == 0
        assert after[f"epsilon_of_{name}"] == {"spent": 4.0, "limit": 10.0}
    assert after["delta_of_dataset"] == 0.001
    with zipfile.ZipFile(path) as packed:
        card = packed.read("MODEL_CARD.md").decode()
    assert "| epsilon | 4" in card
    assert "one subject's data added or removed" in card


def test_an_ordinary_release_spends_none_and_guarantees_none(cast: Cast) -> None:
    nothing = finding() | {"evidence": {"epsilon": "not guaranteed"}}
    release = released(cast, finished_job(cast, nothing))
    assert LedgerEntry.objects.get(kind="release").epsilon == 0
    assert evidence.privacy_of(release) == {"epsilon": "not guaranteed"}


def test_a_figure_without_the_runners_record_guarantees_nothing(cast: Cast) -> None:
    job = finished_job(cast, finding(0.1))
    release = actions.propose(by=cast.applicant, job=job)
    assert evidence.privacy_of(release) == {"epsilon": "not guaranteed"}
    assert evidence.card_of(release)["privacy"] == {"epsilon": "not guaranteed"}
    assert evidence.ledger_after(release)["epsilon_of_dataset"]["spent"] == 0


def test_epsilons_add_up_and_end(cast: Cast) -> None:
    first = released(cast, private_job(cast, 6.0))
    grant = first.job.grant
    second = private_job(cast, 4.5, grant=grant)
    with pytest.raises(Denied) as caught:
        actions.propose(by=cast.applicant, job=second)
    assert caught.value.code == "ledger.spent"
    # What is left may still be spent, and one without epsilon is another matter.
    actions.propose(by=cast.applicant, job=private_job(cast, 4.0, grant=grant))
    actions.propose(by=cast.applicant, job=finished_job(cast, grant=grant))


def test_what_waits_for_reviewers_counts_as_well(cast: Cast) -> None:
    one = private_job(cast, 6.0)
    waiting = actions.propose(by=cast.applicant, job=one)
    other = private_job(cast, 6.0, grant=one.grant)
    with pytest.raises(Denied):
        actions.propose(by=cast.applicant, job=other)
    # Withdrawn, it no longer does.
    actions.withdraw(by=cast.applicant, release=waiting)
    actions.propose(by=cast.applicant, job=other)


@pytest.mark.parametrize("owner", ["grant", "organisation", "dataset"])
def test_each_owner_of_the_ledger_has_its_own_bound(cast: Cast, owner: str) -> None:
    dataset = cast.version.dataset
    dataset.policy = {"ledger": {f"{owner}_epsilon": 3.0}}
    dataset.save()
    with pytest.raises(Denied) as caught:
        actions.propose(by=cast.applicant, job=private_job(cast))
    assert caught.value.field == owner


@pytest.mark.parametrize("what", ["record", "figure"])
def test_votes_fall_when_the_account_changes(cast: Cast, what: str) -> None:
    release = actions.propose(by=cast.applicant, job=private_job(cast))
    before = queries.digest_of(release)
    if what == "record":
        job = release.job
        job.privacy = {**job.privacy, "epsilon": 1.0}
        job.save(update_fields=["privacy"])
    else:
        row = Finding.objects.get(inspection__job=release.job)
        row.evidence = {**row.evidence, "epsilon": 1.0}
        row.save()
    assert queries.digest_of(Release.objects.get(pk=release.pk)) != before


def test_the_review_page_shows_what_is_guaranteed(
    cast: Cast, browse: Callable[[Person], Client]
) -> None:
    release = actions.propose(by=cast.applicant, job=private_job(cast))
    page = words(browse(cast.reviewers[0]).get(reverse("release", args=[release.pk])))
    assert "Differential privacy" in page
    assert "Epsilon of all private trainings on this dataset" in page
    assert "epsilon 4" in page or "epsilon: 4" in page or "epsilon4" in page.replace(" ", "")
