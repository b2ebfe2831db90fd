"""Writes of the catalogue: datasets, versions, open samples."""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.db import transaction
from django.utils import timezone
from django.utils.text import slugify

from policies import quality
from policies.document import PROFILE_ORDER, default_policy, tighten
from policies.errors import Conflict, Invalid, _
from policies.workflow import DATASET_VERSION
from portal import blobs, keys
from portal.accounts.models import Person
from portal.accounts.queries import roles_of
from portal.audit.record import record
from portal.catalog.models import Dataset, DatasetVersion, Sample
from portal.plain_input import check_inert
from portal.tasking import hint
from synthetic.sample import write_sample


@transaction.atomic
def create_dataset(
    *,
    by: Person,
    slug: str,
    kind: str,
    title: str,
    description: str,
    title_ko: str = "",
    description_ko: str = "",
    profile: str = "research",
    policy: Mapping[str, Any] | None = None,
) -> Dataset:
    """Offer a dataset; its steward is who creates it.

    Where the policy asks for a stricter ``profile``, that one is taken. Raises Denied for anyone
    but a steward, Invalid naming the field, Conflict for a taken slug.
    """
    quality.check_can_offer(person=str(by.pk), roles=roles_of(by))
    if by.unit is None:
        raise Invalid(_("Your account belongs to no unit yet."), field="unit", code="person.unit")
    if not slug or slugify(slug) != slug or len(slug) > 60:
        raise Invalid(
            _("A slug is 1 to 60 small letters, digits and hyphens."), field="slug", code="slug"
        )
    if kind not in Dataset.Kind.values:
        raise Invalid(
            _("This kind is not known; choose one of {kinds}."),
            field="kind",
            code="dataset.kind",
            kinds=", ".join(Dataset.Kind.values),
        )
    if profile not in PROFILE_ORDER:
        raise Invalid(
            _("This profile is not known; choose one of {profiles}."),
            field="profile",
            code="dataset.profile",
            profiles=", ".join(PROFILE_ORDER),
        )
    for field, text, longest in (("title", title, 200), ("description", description, 20_000)):
        if not text.strip() or len(text) > longest:
            raise Invalid(
                _("Between 1 and {longest} characters are needed."),
                field=field,
                code="text.length",
                longest=longest,
            )
    for field, text in (("title", title), ("title_ko", title_ko)):
        check_inert(text.strip(), field)
    for field, text in (("description", description), ("description_ko", description_ko)):
        check_inert(text.strip(), field, lines=True)
    asked = tighten(default_policy(), policy or {}).deid.profile
    profile = max(profile, asked, key=PROFILE_ORDER.index)
    if Dataset.objects.filter(slug=slug).exists():
        raise Conflict(_("A dataset of this name exists."), field="slug", code="dataset.exists")
    dataset = Dataset.objects.create(
        slug=slug,
        kind=kind,
        title=title.strip(),
        title_ko=title_ko.strip()[:200],
        description=description.strip(),
        description_ko=description_ko.strip(),
        steward=by,
        unit=by.unit,
        deid_profile=profile,
        policy=dict(policy or {}),
    )
    record("dataset.create", by=by, about=dataset, details={"kind": kind, "profile": profile})
    hint("catalog.make_sample", dataset.pk)
    return dataset


@transaction.atomic
def create_version(*, by: Person, dataset: Dataset) -> DatasetVersion:
    """Open the next version of a dataset; it is empty and private until an officer signs it."""
    quality.check_can_offer(person=str(by.pk), roles=roles_of(by), steward=str(dataset.steward_id))
    Dataset.objects.select_for_update().get(pk=dataset.pk)
    last = dataset.versions.order_by("-number").first()
    version = DatasetVersion.objects.create(
        dataset=dataset,
        number=last.number + 1 if last else 1,
        state=DATASET_VERSION.initial,
        reason=_("waiting for the originals"),
    )
    record("version.create", by=by, about=version)
    return version


@transaction.atomic
def retire(*, by: Person, version: DatasetVersion) -> DatasetVersion:
    """Take a version out of the catalogue; releases made from it stay valid."""
    quality.check_can_offer(
        person=str(by.pk), roles=roles_of(by), steward=str(version.dataset.steward_id)
    )
    move(version, "retire", "steward", reason="", retired_at=timezone.now())
    record("version.retire", by=by, about=version)
    return version


def move(version: DatasetVersion, action: str, actor: str, **changes: Any) -> None:
    """Move a version by the state machine, conditionally: of two at once one gets Conflict.

    Called inside an action's transaction; sets ``changes`` in the same UPDATE.
    """
    following = DATASET_VERSION.next_state(version.state, action, actor)
    rows = DatasetVersion.objects.filter(pk=version.pk, state=version.state)
    if rows.update(state=following, **changes) != 1:
        raise Conflict(_("Somebody else has just moved this version on; look again."), code="race")
    version.refresh_from_db()


def make_sample(dataset: Dataset) -> Sample:
    """Make (or make anew) the open sample of a dataset; a worker's task.

    The generator gets the dataset's kind and nothing of its data.
    """
    with tempfile.TemporaryDirectory(prefix="sample-") as folder:
        target = Path(folder) / dataset.slug
        write_sample(dataset.kind, target)
        packed = io.BytesIO()
        files = sorted(path for path in target.rglob("*") if path.is_file())
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in files:
                member = zipfile.ZipInfo(str(path.relative_to(target.parent)))
                member.compress_type = zipfile.ZIP_DEFLATED
                member.external_attr = 0o644 << 16
                archive.writestr(member, path.read_bytes())
    packed.seek(0)
    key = keys.new_key()
    name = blobs.object_name(key, "sample", dataset.pk)
    stored = blobs.put(packed, key=key, name=name)
    wrapped = keys.wrap(key, by=keys.master("view"), context=f"sample:{dataset.pk}")
    with transaction.atomic():
        old = Sample.objects.filter(dataset=dataset).first()
        sample, _created = Sample.objects.update_or_create(
            dataset=dataset,
            defaults={
                "object_name": stored.name,
                "wrapped_key": wrapped,
                "sha256": stored.sha256,
                "bytes": stored.bytes,
                "files": len(files),
                "made_at": timezone.now(),
            },
        )
        record("sample.make", by=None, about=dataset, details={"sha256": stored.sha256})
    if old is not None and old.object_name != stored.name:
        blobs.delete(old.object_name)
    return sample
