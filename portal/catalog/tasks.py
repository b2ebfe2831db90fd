"""Background work of the catalogue."""

from __future__ import annotations

from portal.catalog import actions
from portal.catalog.models import Dataset
from portal.tasking import hint, task


@task("catalog.make_sample", queue="short")
def make_sample(dataset_id: int) -> None:
    """Make a dataset's open sample unless it has one."""
    dataset = Dataset.objects.filter(pk=dataset_id, sample=None).first()
    if dataset is not None:
        actions.make_sample(dataset)


def due() -> None:
    """Hint datasets whose sample was not made."""
    for pk in Dataset.objects.filter(sample=None).values_list("pk", flat=True):
        hint("catalog.make_sample", pk)
