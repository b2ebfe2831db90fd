"""Approved becomes a signed bundle; it leaves by personal links that end; it can be revoked."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import Client
from django.urls import reverse
from django.utils import timezone

import bundle
from policies.errors import Conflict, Denied
from portal import keys
from portal.access.models import Grant
from portal.accounts.models import Person
from portal.audit import chain
from portal.audit.models import Event
from portal.audit.verify import verify as verify_trail
from portal.jobs.models import LedgerEntry
from portal.releases import actions, bundling, downloads, queries, tasks
from portal.releases.models import DownloadLink, Release
from portal.tasking import TryAgain
from tests.portal.access.test_decisions import at_once
from tests.portal.cast import Cast
from tests.portal.releases.finished import WEIGHTS, approve, finished_job

pytestmark = pytest.mark.django_db


def released(cast: Cast, **options: Any) -> Release:
    """Return a release that has left."""
    release = actions.propose(by=cast.applicant, job=finished_job(cast, **options))
    approve(cast, release)
    tasks.build(release.pk)
    release.refresh_from_db()
    return release


def save(release: Release, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "bundle.zip"
    with downloads.open_bundle(release) as stream:
        path.write_bytes(stream.read())
    return path


def test_the_bundle_holds_offline_and_says_how_it_came_to_be(cast: Cast, tmp_path: Path) -> None:
    release = released(cast)
    assert release.state == "released", release.reason
    path = save(release, tmp_path)
    verified = bundle.verify(path, keys.public_keys("release").values())
    assert verified.held, verified.lines
    assert verified.bundle == release.statement_sha256
    with zipfile.ZipFile(path) as packed:
        assert packed.read("model.safetensors") == WEIGHTS
        metrics = json.loads(packed.read("metrics.json"))
        assert b"AUC by patient" in packed.read("MODEL_CARD.svg")
        text = b"".join(packed.read(name) for name in packed.namelist()).decode("latin-1")
    assert metrics["official"]["patient"]["auc"]["value"] == 0.9
    evidence = verified.evidence
    assert evidence["dataset"]["version"] == 1
    assert evidence["job"]["isolation"]["backend"] == "bubblewrap"
    assert {vote["choice"] for vote in evidence["review"]} == {"approve"}
    assert evidence["ledger"]["after"]["releases_of_grant"]["spent"] == 1
    # People stand in it by pseudonym, the recipient too.
    assert verified.recipient == cast.applicant.pseudonym
    for person in [*cast.reviewers, *cast.committee, cast.applicant, cast.steward]:
        assert person.email not in text
    assert release.ledger_after["releases_of_grant"]["spent"] == 1
    assert LedgerEntry.objects.filter(kind="release", job=release.job).count() == 1


def test_the_audit_chain_holds_the_digest_of_each_release(cast: Cast) -> None:
    release = released(cast)
    left = Event.objects.get(action="release.release")
    assert left.details["sha256"] == release.bundle_sha256
    assert left.details["statement_sha256"] == release.statement_sha256
    chain.seal()
    assert verify_trail().held
    # A release that is told otherwise later breaks the chain.
    raw = {**left.details, "statement_sha256": "0" * 64}
    Event.objects.filter(pk=left.pk).update(details=raw)
    assert not verify_trail().held


def test_after_the_key_was_changed_older_bundles_still_verify(cast: Cast, tmp_path: Path) -> None:
    old = save(released(cast), tmp_path)
    before = keys.public_keys("release")
    private = Path(settings.KEYS) / "sign" / "release.ed25519"
    kept = private.read_bytes()
    try:
        private.unlink()
        assert keys.make_all() == ["sign/release.ed25519"]
        after = keys.public_keys("release")
        assert len(after) == len(before) + 1
        new = save(released(cast), tmp_path / "new")
        assert bundle.verify(old, after.values()).held
        assert bundle.verify(new, after.values()).held
        assert not bundle.verify(new, before.values()).held
    finally:
        private.write_bytes(kept)
        for name in keys.public_keys("release").keys() - before.keys():
            (Path(settings.KEYS) / "public" / "release" / f"{name}.pem").unlink()


def test_the_pages_name_the_key_as_verify_does(cast: Cast, client: Client) -> None:
    names = {bundle.key_id(key) for key in keys.public_keys("release").values()}
    for page in ("revocations", "keys"):
        shown = client.get(reverse(page)).content.decode()
        assert all(name in shown for name in names)


def fetch(release: Release, person: Person, folder: Path) -> Path:
    _link, token = downloads.create_link(by=person, release=release)
    _release, stream, size = downloads.use_link(by=person, token=token)
    folder.mkdir(exist_ok=True)
    path = folder / f"{person.pk}.zip"
    with stream:
        path.write_bytes(stream.read())
    assert path.stat().st_size == size
    return path


def test_each_recipient_s_copy_bears_their_mark_and_the_same_weights(
    cast: Cast, tmp_path: Path
) -> None:
    release = released(cast)
    public = keys.public_keys("release").values()
    held = {}
    for person in (cast.applicant, cast.analyst):
        path = fetch(release, person, tmp_path / "copies")
        verified = bundle.verify(path, public)
        assert verified.held, verified.lines
        assert verified.recipient == person.pseudonym
        with zipfile.ZipFile(path) as packed:
            held[person.pk] = {name: packed.read(name) for name in packed.namelist()}
        event = Event.objects.filter(action="download").latest("pk")
        assert event.details["recipient"] == person.pseudonym
        assert event.details["statement_sha256"] == verified.bundle
        assert event.details["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    one, other = held.values()
    differ = {name for name in one if one[name] != other[name]}
    assert differ == {"evidence.dsse.json", "ro-crate-metadata.json"}
    assert one["model.safetensors"] == WEIGHTS
    # Whose copy was found somewhere is read off it, and one who wipes the mark breaks it.
    assert cast.analyst.pseudonym.encode() in other["ro-crate-metadata.json"]
    path = tmp_path / "wiped.zip"
    data = fetch(release, cast.analyst, tmp_path / "copies").read_bytes()
    mark = cast.analyst.pseudonym.encode()
    path.write_bytes(data.replace(mark, b"x" * len(mark)))
    assert not bundle.verify(path, public).held


def test_every_copy_is_in_the_audit_chain_and_revoked_with_the_release(
    cast: Cast, tmp_path: Path
) -> None:
    release = released(cast, grant=cast.granted(purpose="education"))  # figures alone
    path = fetch(release, cast.analyst, tmp_path)
    public = keys.public_keys("release")
    verified = bundle.verify(path, public.values())
    event = Event.objects.get(action="release.copy")
    assert event.details["statement_sha256"] == verified.bundle
    actions.revoke(by=cast.steward, release=release, reason="A wrong table.")
    tasks.sign_revocations()
    newest = queries.revocation_list()
    assert newest is not None
    listed = tmp_path / "revocations.json"
    listed.write_text(newest.document)
    answer = bundle.verify(path, public.values(), revocations=listed)
    assert [line.code for line in answer.lines if not line.held] == ["revoked"]


def test_who_joined_after_the_release_gets_a_copy_of_their_own(cast: Cast, tmp_path: Path) -> None:
    release = released(cast)
    release.job.grant.analysts.add(cast.stranger)
    with pytest.raises(Conflict) as waits:
        downloads.create_link(by=cast.stranger, release=release)
    assert waits.value.code == "download.copy"
    tasks.copy(release.pk)
    tasks.copy(release.pk)
    assert Event.objects.filter(action="release.copy").count() == 2
    path = fetch(release, cast.stranger, tmp_path)
    verified = bundle.verify(path, keys.public_keys("release").values())
    assert (verified.held, verified.recipient) == (True, cast.stranger.pseudonym)


def test_a_doubled_message_builds_once(cast: Cast) -> None:
    release = released(cast)
    tasks.build(release.pk)
    tasks.build(release.pk)
    assert Event.objects.filter(action="release.release").count() == 1
    assert LedgerEntry.objects.filter(kind="release").count() == 1
    release.refresh_from_db()
    assert release.lease_owner == ""


@pytest.mark.parametrize("state", ["suspended", "revoked"])
def test_nothing_leaves_under_a_stopped_grant(cast: Cast, state: str) -> None:
    release = actions.propose(by=cast.applicant, job=finished_job(cast))
    approve(cast, release)
    Grant.objects.update(state=state)
    tasks.build(release.pk)
    release.refresh_from_db()
    assert (release.state, release.bundle_object) == ("approved", "")
    Grant.objects.update(state="active")
    tasks.build(release.pk)
    release.refresh_from_db()
    assert release.state == "released"


def while_it_is_built(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], Any]) -> None:
    """Let something happen once, after the evidence of a release was written."""
    build, done = bundle.build, []

    def built(*args: Any, **options: Any) -> Path:
        path = build(*args, **options)
        if not done:
            done.append(happens())
        return path

    monkeypatch.setattr(bundling.bundle, "build", built)


@pytest.mark.parametrize("state", ["suspended", "revoked"])
def test_a_grant_that_is_stopped_while_its_bundle_is_made_gets_none(
    cast: Cast, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    release = approve(cast, actions.propose(by=cast.applicant, job=finished_job(cast)))
    while_it_is_built(monkeypatch, lambda: Grant.objects.update(state=state))
    with pytest.raises(TryAgain):
        tasks.build(release.pk)
    release.refresh_from_db()
    assert (release.state, release.bundle_object) == ("approved", "")
    assert not LedgerEntry.objects.filter(kind="release").exists()


def test_the_ledger_in_the_evidence_counts_what_left_meanwhile(
    cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (
        approve(cast, actions.propose(by=cast.applicant, job=job))
        for job in (finished_job(cast), finished_job(cast))
    )
    while_it_is_built(monkeypatch, lambda: tasks.build(second.pk))
    with pytest.raises(TryAgain):
        tasks.build(first.pk)
    tasks.build(first.pk)
    counts = [Release.objects.get(pk=one.pk).ledger_after for one in (second, first)]
    assert [after["releases_of_dataset"] for after in counts] == [1, 2]
    assert LedgerEntry.objects.filter(kind="release").count() == 2


def test_a_link_is_used_once_by_its_person(cast: Cast) -> None:
    release = released(cast)
    link, token = downloads.create_link(by=cast.analyst, release=release)
    assert token not in str(DownloadLink.objects.values().get())
    _release, stream, size = downloads.use_link(by=cast.analyst, token=token)
    assert len(stream.read()) == size
    with pytest.raises(Denied) as used:
        downloads.use_link(by=cast.analyst, token=token)
    assert used.value.code == "download.used"
    link.refresh_from_db()
    assert link.uses == 1
    actions_seen = Event.objects.filter(action__startswith="download").values_list("action")
    assert [row[0] for row in actions_seen] == ["download.link", "download", "download.refused"]


@pytest.mark.parametrize("rule", ["person", "expired", "revoked"])
def test_a_link_that_does_not_count_is_refused_and_recorded(cast: Cast, rule: str) -> None:
    release = released(cast)
    link, token = downloads.create_link(by=cast.analyst, release=release)
    person = cast.analyst
    if rule == "person":
        # Even a colleague under the same grant: links are personal.
        person = cast.applicant
    elif rule == "expired":
        past = timezone.now() - timedelta(seconds=1)
        DownloadLink.objects.filter(pk=link.pk).update(expires_at=past)
    else:
        actions.revoke(by=cast.steward, release=release, reason="A leak.")
    with pytest.raises(Denied) as refused:
        downloads.use_link(by=person, token=token)
    assert refused.value.code == f"download.{rule}"
    event = Event.objects.get(action="download.refused")
    assert (event.actor, event.details["rule"]) == (person.email, f"download.{rule}")
    assert DownloadLink.objects.get().uses == 0


def test_who_gets_a_link(cast: Cast) -> None:
    release = released(cast)
    for person in (cast.stranger, cast.reviewers[0], cast.steward, cast.administrator):
        with pytest.raises(Denied):
            downloads.create_link(by=person, release=release)
    Grant.objects.update(state="revoked")
    with pytest.raises(Denied):
        downloads.create_link(by=cast.analyst, release=Release.objects.get())
    with pytest.raises(downloads.NoSuchLink):
        downloads.use_link(by=cast.analyst, token="guess")


def test_no_link_before_the_bundle_is_there(cast: Cast) -> None:
    release = actions.propose(by=cast.applicant, job=finished_job(cast))
    with pytest.raises(Conflict):
        downloads.create_link(by=cast.analyst, release=release)


def test_without_its_audit_event_no_download_is_counted(cast: Cast, monkeypatch) -> None:
    release = released(cast)
    _link, token = downloads.create_link(by=cast.analyst, release=release)

    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(downloads, "record", broken)
    with pytest.raises(RuntimeError):
        downloads.use_link(by=cast.analyst, token=token)
    assert DownloadLink.objects.get().uses == 0


def test_a_revoked_bundle_fails_with_the_list(cast: Cast, tmp_path: Path) -> None:
    release = released(cast)
    assert queries.revocation_list() is None
    for person in (cast.applicant, cast.administrator, cast.reviewers[0]):
        with pytest.raises(Denied):
            actions.revoke(by=person, release=release, reason="x")
    actions.revoke(by=cast.steward, release=release, reason="Training pictures were found.")
    tasks.sign_revocations()
    tasks.sign_revocations()
    newest = queries.revocation_list()
    assert newest is not None
    assert newest.number == 1
    path = save(release, tmp_path)
    listed = tmp_path / "revocations.json"
    listed.write_text(newest.document)
    public = keys.public_keys("release")
    assert bundle.verify(path, public.values()).held
    verified = bundle.verify(path, public.values(), revocations=listed)
    assert not verified.held
    assert "Training pictures were found." in verified.lines[-1].message


def test_a_revocation_of_a_slower_clock_is_listed_too(cast: Cast) -> None:
    first = released(cast)
    actions.revoke(by=cast.steward, release=first, reason="A leak.")
    tasks.sign_revocations()
    second = released(cast)
    actions.revoke(by=cast.steward, release=second, reason="Another leak.")
    # Another machine's clock, or a transaction that ended after the list was signed.
    early = timezone.now() - timedelta(minutes=5)
    Release.objects.filter(pk=second.pk).update(revoked_at=early)
    tasks.due()
    tasks.sign_revocations()
    newest = queries.revocation_list()
    assert newest is not None
    named = {row["sha256"] for row in queries.entries_of(newest)}
    assert {first.statement_sha256, second.statement_sha256} <= named
    assert not bundling.unlisted()


def test_a_build_that_fails_leaves_the_release_approved(cast: Cast, monkeypatch) -> None:
    from policies.errors import CannotRun
    from portal.tasking import NEUTRAL

    def broken(*args: object, **kwargs: object) -> None:
        raise CannotRun("The disk of the encrypted objects is full.")

    monkeypatch.setattr(bundling, "keep", broken)
    release = actions.propose(by=cast.applicant, job=finished_job(cast))
    approve(cast, release)
    with pytest.raises(CannotRun):
        tasks.build(release.pk)
    tasks._failed(release.pk, reason=NEUTRAL)
    release.refresh_from_db()
    assert (release.state, release.attempts, release.reason) == ("approved", 1, NEUTRAL)
    assert not LedgerEntry.objects.filter(kind="release").exists()
    monkeypatch.undo()
    tasks.build(release.pk)
    release.refresh_from_db()
    assert release.state == "released"


@pytest.mark.django_db(transaction=True)
def test_one_link_used_twice_at_once_gives_one_download(cast: Cast) -> None:
    release = released(cast)
    _link, token = downloads.create_link(by=cast.analyst, release=release)

    def use() -> None:
        downloads.use_link(by=cast.analyst, token=token)

    errors = at_once(use, use, use)
    assert [type(error).__name__ for error in errors].count("NoneType") == 1
    assert DownloadLink.objects.get().uses == 1
    assert Event.objects.filter(action="download").count() == 1
