"""After a miss: mask what the officer marked, withdraw what cannot be masked, mend the tables."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

from django.db import transaction

from policies.errors import _
from portal import blobs, workplace
from portal.audit.record import record
from portal.catalog.contents import Contents, dataset_manifest, ensure_version_key
from portal.catalog.models import DatasetVersion, StoredFile
from portal.ingest import program, room, sampling, storing, tables
from portal.ingest.models import Intake, ReportRow, ReviewItem
from portal.ingest.pipeline import folder_of
from portal.leases import Lease
from sandbox_runner.spec import ManifestEntry


def apply_boxes(intake: Intake, lease: Lease) -> None:
    """Mask what the officer marked in the last round and store the mended files.

    A file that was marked without a box, or that cannot be masked, is withdrawn from the version
    with every row of a table that names it.
    """
    version = intake.version
    marked = [item for item in sampling.current_round(version) if item.finding == "missed"]
    with workplace.temporary(folder_of(version.pk, "boxes")) as work:
        mended = _masked(version, marked, work, lease)
        mending = _Mending(version)
        for item in marked:
            try:
                stream = room.opened(mended, item.row.target)
            except FileNotFoundError:
                mending.withdraw(item.row.target)
                continue
            with stream:
                mending.replace(item.row.target, stream.read(), item.pk)
        mending.clean_tables(marked[0].round if marked else 0)
    with transaction.atomic():
        lease.check()
        mending.save()
        withdrawn = ReportRow.objects.filter(intake=intake, target__in=mending.withdrawn)
        withdrawn.update(
            status="quarantined", reason=_("marked by the security officer"), target=""
        )
        Intake.objects.filter(pk=intake.pk).update(pending_boxes=False)
        DatasetVersion.objects.filter(pk=version.pk).update(
            reason=_("waiting for the security officer")
        )
        storing.refresh(intake)
        record(
            "version.boxes_applied",
            by=None,
            about=version,
            details={"masked": mending.masked, "withdrawn": len(mending.withdrawn)},
        )
    for name in mending.replaced:
        blobs.delete(name)


def _masked(version: DatasetVersion, marked: list[ReviewItem], work: Path, lease: Lease) -> Path:
    """Run the masking program; return the folder of what it could mask."""
    contents = Contents(version)
    entries = {entry.path: entry for entry in dataset_manifest(version).entries}
    published, wanted = work / "published", []
    with blobs.names_full_disk("work folder"):
        for item in marked:
            path = published / item.row.target
            path.parent.mkdir(parents=True, exist_ok=True)
            with contents.open(entries[item.row.target]) as stream, path.open("wb") as out:
                shutil.copyfileobj(stream, out)
            wanted.append({"target": item.row.target, "boxes": item.boxes})
        (work / "wanted.json").write_text(json.dumps(wanted))
    written = room.make(work / "room")
    mended = room.make(written / "mended")
    program.run(
        program.Job(
            name=f"boxes-{version.pk}",
            module="deid.corrections",
            arguments=("/published", "/wanted.json", "/made/mended"),
            reads={"/published": published, "/wanted.json": work / "wanted.json"},
            writes=written,
        ),
        log=work / "log",
        cancel=lease.lost,
    )
    return mended


class _Mending:
    """The changes of one round: objects are written at once, rows only by :meth:`save`."""

    def __init__(self, version: DatasetVersion) -> None:
        self.version = version
        self.files = {
            file.path: file
            for file in StoredFile.objects.filter(version=version).select_related("subject")
        }
        self.withdrawn: list[str] = []
        self.masked = 0
        self.replaced: list[str] = []  # objects that no row names afterwards
        self._contents = Contents(version)
        self._version_key = ensure_version_key(version)
        self._changed: list[StoredFile] = []
        self._removed: list[StoredFile] = []

    def replace(self, path: str, content: bytes, number: int) -> None:
        """Put a mended picture in the place of the published one."""
        self._put(self.files[path], content, number)
        self.masked += 1

    def withdraw(self, path: str) -> None:
        """Take a picture out of the version."""
        self._remove(self.files[path])
        self.withdrawn.append(path)

    def _remove(self, file: StoredFile) -> None:
        self.replaced.append(file.object_name)
        self._removed.append(file)

    def _put(self, file: StoredFile, content: bytes, number: int) -> None:
        key = self._contents.subject_key(file.subject_id) if file.subject_id else self._version_key
        # A new name: the old object stays whole until the rows point elsewhere.
        name = blobs.object_name(self._version_key, "file", file.path, "mended", number)
        blob = blobs.put(io.BytesIO(content), key=key, name=name)
        self.replaced.append(file.object_name)
        file.object_name, file.sha256, file.bytes = name, blob.sha256, blob.bytes
        self._changed.append(file)

    def clean_tables(self, number: int) -> None:
        """Take what was withdrawn, and subjects without any picture left, out of the tables."""
        gone = set(self.withdrawn)
        if not gone:
            return
        left = {
            file.subject_id
            for path, file in self.files.items()
            if path not in gone and not path.endswith(storing.TABLES)
        }
        gone |= {
            file.subject.pseudonym
            for file in self._removed
            if file.subject is not None and file.subject_id not in left
        }
        for path, file in self.files.items():
            if not path.endswith(storing.TABLES):
                continue
            subject = file.subject.pseudonym if file.subject else ""
            entry = ManifestEntry(path, file.sha256, file.bytes, subject, file.split)
            with self._contents.open(entry) as stream:
                before = stream.read()
            after = tables.without(path, before, gone)
            if after is None:
                self._remove(file)
            elif after != before:
                self._put(file, after, -number)

    def save(self) -> None:
        """Write the rows, inside the caller's transaction."""
        StoredFile.objects.bulk_update(
            self._changed, ["object_name", "sha256", "bytes"], batch_size=500
        )
        StoredFile.objects.filter(pk__in=[file.pk for file in self._removed]).delete()
