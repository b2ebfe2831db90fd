"""The files of a version, for workers: the manifest, and each file's plain bytes."""

from __future__ import annotations

from typing import BinaryIO, Self

from django.db.models import QuerySet

from policies.errors import GloveboxError
from portal import blobs, keys
from portal.catalog.models import DatasetVersion, StoredFile, SubjectKey
from sandbox_runner.spec import DatasetManifest, ManifestEntry


class Withdrawn(GloveboxError):
    """The subject's key is gone, and with it every copy of their files."""


def version_key(version: DatasetVersion) -> bytes:
    """Return a version's key; workers only."""
    if version.wrapped_key is None:
        raise GloveboxError("the version has no key yet")
    context = f"version:{version.pk}"
    return keys.unwrap(version.wrapped_key, by=keys.master("data"), context=context)


def ensure_version_key(version: DatasetVersion) -> bytes:
    """Return a version's key, made on first use; of two workers at once one key stays."""
    if version.wrapped_key is None:
        wrapped = keys.wrap(keys.new_key(), by=keys.master("data"), context=f"version:{version.pk}")
        rows = DatasetVersion.objects.filter(pk=version.pk, wrapped_key=None)
        rows.update(wrapped_key=wrapped)
        version.refresh_from_db(fields=["wrapped_key"])
    return version_key(version)


def dataset_manifest(version: DatasetVersion) -> DatasetManifest:
    """Return the immutable list of a version's files, in the order of their paths."""
    rows = StoredFile.objects.filter(version=version).select_related("subject").order_by("path")
    return DatasetManifest(
        slug=version.dataset.slug,
        version=str(version.number),
        entries=tuple(
            ManifestEntry(
                path=row.path,
                sha256=row.sha256,
                bytes=row.bytes,
                subject=row.subject.pseudonym if row.subject else "",
                split=row.split,
            )
            for row in rows
        ),
    )


class Contents:
    """Opens the files of one version; keeps the unwrapped subject keys while it lives."""

    def __init__(self, version: DatasetVersion) -> None:
        self.version = version
        self._version_key = version_key(version)
        self._subject_keys: dict[int, bytes] = {}
        self._complete = False
        self._rows = {row.path: row for row in StoredFile.objects.filter(version=version)}

    def subject_key(self, subject: int) -> bytes:
        """Return a subject's key in this version. Raises Withdrawn where it was destroyed."""
        if subject not in self._subject_keys and not self._complete:
            self._unwrap(SubjectKey.objects.filter(version=self.version, subject=subject))
        if subject not in self._subject_keys:
            raise Withdrawn("a subject has withdrawn from this version")
        return self._subject_keys[subject]

    def for_all(self) -> Self:
        """Unwrap every subject's key now: ``open`` may then be called from several threads."""
        self._unwrap(SubjectKey.objects.filter(version=self.version))
        self._complete = True
        return self

    def _unwrap(self, rows: QuerySet[SubjectKey]) -> None:
        for row in rows:
            context = f"subject:{self.version.pk}:{row.subject_id}"
            self._subject_keys[row.subject_id] = keys.unwrap(
                row.wrapped_key, by=self._version_key, context=context
            )

    def open(self, entry: ManifestEntry) -> BinaryIO:
        """Return a stream of a file's plain bytes, verified as it is read."""
        row = self._rows[entry.path]
        key = self._version_key if row.subject_id is None else self.subject_key(row.subject_id)
        return blobs.open(row.object_name, key=key)


def has_withdrawn(version: DatasetVersion) -> bool:
    """Whether the key of any subject with files in this version was destroyed."""
    kept = SubjectKey.objects.filter(version=version).values("subject")
    files = StoredFile.objects.filter(version=version).exclude(subject=None)
    return files.exclude(subject__in=kept).exists()


def open_file(version: DatasetVersion, entry: ManifestEntry) -> BinaryIO:
    """Open one file; for many files make one ``Contents`` and use its ``open``."""
    return Contents(version).open(entry)
