"""Background work of the catalogue."""

from __future__ import annotations

from portal.catalog import actions, packing
from portal.catalog.models import Dataset, DatasetVersion, Packing
from portal.leases import hold
from portal.tasking import hint, task

LEASE_SECONDS = 60


@task("catalog.make_sample", queue="short")
def make_sample(dataset_id: int) -> None:
    """Make a dataset's open sample unless it has one."""
    dataset = Dataset.objects.filter(pk=dataset_id, sample=None).first()
    if dataset is not None:
        actions.make_sample(dataset)


def _not_packed(version_id: int, *, reason: str) -> None:
    del reason  # the log has the error's type; nothing waits for this work
    packing.failed(DatasetVersion.objects.get(pk=version_id))


@task("catalog.pack", on_failure=_not_packed)
def pack(version_id: int) -> None:
    """Pack a published version's small files; some days later remove their own objects."""
    if version_id not in packing.wanted():
        return
    version = DatasetVersion.objects.get(pk=version_id)
    work, _made = Packing.objects.get_or_create(version=version)
    with hold(Packing, work.pk, seconds=LEASE_SECONDS) as lease:
        if lease is not None:
            packing.pack(version, lease)


def due() -> None:
    """Hint datasets whose sample was not made, and versions whose small files are not packed."""
    for pk in Dataset.objects.filter(sample=None).values_list("pk", flat=True):
        hint("catalog.make_sample", pk)
    for pk in packing.wanted():
        hint("catalog.pack", pk, again_after=60)
