"""The files of a version, for workers: the manifest, and each file's plain bytes."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, Self

from django.db.models import QuerySet

from policies.errors import GloveboxError
from portal import blobs, keys, packs
from portal.catalog.models import DatasetVersion, Pack, StoredFile, SubjectKey
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
        # Packs after rows: whatever a row names is among them.
        self._rows = {row.path: row for row in StoredFile.objects.filter(version=version)}
        self._packs = {pack.pk: pack for pack in Pack.objects.filter(version=version)}

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
        return self._open(self._rows[entry.path])

    def read_many(self, entries: Sequence[ManifestEntry]) -> Iterator[bytes]:
        """Return the plain bytes of small files in their order; those of a pack are read at once.

        When this returns, all of it has been read; packs are deciphered as the bytes are taken.
        """
        return self.read_rows([self._rows[entry.path] for entry in entries])

    def read_rows(self, rows: Sequence[StoredFile]) -> Iterator[bytes]:
        """Return the plain bytes of small files, by their rows; see :meth:`read_many`."""
        parts: list[Iterable[bytes]] = []
        for pack, group in itertools.groupby(rows, key=lambda row: row.pack_id):
            if pack is not None:
                parts.append(self._members(self._packs[pack], list(group)))
                continue
            for row in group:
                with self._open(row) as stream:
                    parts.append((stream.read(row.bytes + 1),))
        return itertools.chain.from_iterable(parts)

    def moved(self) -> bool:
        """Whether files were packed since: an object that is not there may be in a pack now."""
        known = sum(row.pack_id is not None for row in self._rows.values())
        packed = StoredFile.objects.filter(version=self.version).exclude(pack=None)
        return packed.count() != known

    def key_of(self, row: StoredFile) -> bytes:
        """Return the key under which a file lies: its subject's, or the version's. Withdrawn."""
        return self._version_key if row.subject_id is None else self.subject_key(row.subject_id)

    def _open(self, row: StoredFile) -> BinaryIO:
        if row.pack_id is None:
            return blobs.open(row.object_name, key=self.key_of(row))
        [content] = self._members(self._packs[row.pack_id], [row])
        return io.BytesIO(content)

    def _members(self, pack: Pack, rows: Sequence[StoredFile]) -> Iterator[bytes]:
        members = [packs.Member(self.key_of(row), row.offset or 0, row.bytes) for row in rows]
        return packs.read(pack.object_name, members, size=pack.bytes)


def has_withdrawn(version: DatasetVersion) -> bool:
    """Whether the key of any subject with files in this version was destroyed."""
    kept = SubjectKey.objects.filter(version=version).values("subject")
    files = StoredFile.objects.filter(version=version).exclude(subject=None)
    return files.exclude(subject__in=kept).exists()


def open_file(version: DatasetVersion, entry: ManifestEntry) -> BinaryIO:
    """Open one file; for many files make one ``Contents`` and use its ``open``."""
    return Contents(version).open(entry)
