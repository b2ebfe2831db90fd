"""After a miss: mask what the officer marked, withdraw what cannot be masked, mend the tables.

What burned an identifier into one image burns it into every image of that device and layout, so
the box is applied to all of them. A box that hid nothing is taken away from the one image on
which the officer said so, and that image is looked at again.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.db import transaction

from policies.errors import _
from portal import blobs, workplace
from portal.audit.record import record
from portal.catalog.contents import Contents, dataset_manifest, ensure_version_key
from portal.catalog.models import DatasetVersion, StoredFile
from portal.ingest import marks, program, room, sampling, storing, tables
from portal.ingest.models import Intake, ReportRow, ReviewItem
from portal.ingest.pipeline import folder_of, originals
from portal.leases import Lease
from sandbox_runner.spec import ManifestEntry

OFFICER = "officer"  # the kind of a box that a person drew
UNCOVERED = "a box was taken away"  # why a mended file is looked at again


@dataclass
class Mend:
    """What one published file gets: new boxes, and the masked ones that are taken away."""

    row: ReportRow
    added: list[marks.Box] = field(default_factory=list)
    wrong: set[tuple[Any, ...]] = field(default_factory=set)
    withdraw: bool = False  # marked without a box: nobody can say what to mask

    def left(self) -> list[marks.Box]:
        """Return every box that the file has afterwards."""
        kept = [b for b in marks.masked_boxes(self.row.boxes) if marks.mark_of(b) not in self.wrong]
        return [*kept, *({"kind": OFFICER, **box} for box in self.added)]

    def wanted(self, anew: bool) -> dict[str, Any]:
        """Return what the masking program is told."""
        if not anew:
            return {"target": self.row.target, "boxes": self.added}
        boxes = [{side: box[side] for side in marks.SIDES} for box in self.left()]
        wrong = [dict(zip(marks.SIDES, mark[1:], strict=True)) for mark in sorted(self.wrong)]
        return {
            "target": self.row.target,
            "source": self.row.source,
            "boxes": boxes,
            "wrong": wrong,
        }

    def note(self) -> None:
        """Write the boxes as they are now into the row, which is not saved here."""
        scores = {
            marks.mark_of({"kind": kind, **box}): box
            for kind, found in self.row.boxes.items()
            for box in found
        }
        boxes: dict[str, list[marks.Box]] = defaultdict(list)
        for box in self.left():
            plain = {side: box[side] for side in marks.SIDES}
            boxes[box["kind"]].append(scores.get(marks.mark_of(box), plain))
        self.row.boxes = dict(boxes)
        if self.wrong:
            self.row.facts = {**self.row.facts, "review": UNCOVERED}


def plan(intake: Intake, items: Iterable[ReviewItem]) -> list[Mend]:
    """Return what each published file gets after a round.

    A drawn box goes to every file of the same device and layout. Files without one (photographs,
    and what was de-identified before layouts were noted) get only what was drawn on themselves.
    """
    mends: dict[str, Mend] = {}
    by_layout: dict[str, list[marks.Box]] = defaultdict(list)

    def of(row: ReportRow) -> Mend:
        return mends.setdefault(row.target, Mend(row))

    for item in items:
        if item.finding in sampling.FAILING:
            of(item.row).withdraw |= not item.boxes
            of(item.row).added += item.boxes
            by_layout[layout_of(item.row)] += item.boxes
        of(item.row).wrong |= {mark for box in item.wrong_boxes if (mark := marks.mark_of(box))}
    by_layout.pop("", None)
    if by_layout:
        for row in sampling.population(intake).iterator():
            boxes = by_layout.get(layout_of(row))
            if boxes:
                of(row).added += [box for box in boxes if box not in of(row).added]
    return [m for m in mends.values() if m.added or m.wrong or m.withdraw]


def layout_of(row: ReportRow) -> str:
    """Return what names a row's device and layout, empty where it has none."""
    return str((row.facts.get("stratum") or {}).get("layout") or "")


def apply_boxes(intake: Intake, lease: Lease) -> None:
    """Mend a version after a round that was sent back.

    A file that was marked without a box, or that cannot be masked, is withdrawn from the version
    with every row of a table that names it.
    """
    version = intake.version
    items = list(sampling.current_round(version))
    mends = plan(intake, items)
    uncovers = intake.destroyed_at is None  # without originals a wrong box stays: it hides
    with workplace.temporary(folder_of(version.pk, "boxes")) as work:
        mended = _masked(intake, mends, work, lease, uncovers)
        mending = _Mending(version)
        changed: list[ReportRow] = []
        for mend in mends:
            if mend.wrong and not uncovers:
                mend.wrong = set()
            try:
                stream = room.opened(mended, mend.row.target)
            except FileNotFoundError:
                if mend.added or mend.withdraw:
                    mending.withdraw(mend.row.target)
                continue
            with stream:
                content = stream.read()
            mend.note()
            mend.row.facts = {**mend.row.facts, "digest": hashlib.sha256(content).hexdigest()}
            mending.replace(mend.row.target, content, items[0].round)
            changed.append(mend.row)
        mending.clean_tables(items[0].round if items else 0)
    with transaction.atomic():
        lease.check()
        mending.save()
        ReportRow.objects.bulk_update(changed, ["boxes", "facts"], batch_size=500)
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
            details={
                "masked": mending.masked,
                "withdrawn": len(mending.withdrawn),
                "uncovered": sum(bool(mend.wrong) for mend in mends),
                "marked": sum(item.finding in sampling.FAILING for item in items),
            },
        )
    for name in mending.replaced:
        blobs.delete(name)


def _masked(intake: Intake, mends: list[Mend], work: Path, lease: Lease, uncovers: bool) -> Path:
    """Run the masking program; return the folder of what it could mask."""
    version = intake.version
    written = room.make(work / "room")
    mended = room.make(written / "mended")
    told = [
        mend.wanted(anew=bool(mend.wrong) and uncovers)
        for mend in mends
        if not mend.withdraw and (mend.added or uncovers)
    ]
    if not told:
        return mended
    contents = Contents(version)
    entries = {entry.path: entry for entry in dataset_manifest(version).entries}
    published = work / "published"
    reads = {"/published": published, "/wanted.json": work / "wanted.json"}
    arguments = ["/published", "/wanted.json", "/made/mended"]
    with blobs.names_full_disk("work folder"):
        for each in told:
            path = published / each["target"]
            path.parent.mkdir(parents=True, exist_ok=True)
            with contents.open(entries[each["target"]]) as stream, path.open("wb") as out:
                shutil.copyfileobj(stream, out)
        (work / "wanted.json").write_text(json.dumps(told))
    if any("source" in each for each in told):
        reads["/originals.zip"] = originals(intake, work)
        arguments.append("/originals.zip")
    program.run(
        program.Job(
            name=f"boxes-{version.pk}",
            module="deid.corrections",
            arguments=tuple(arguments),
            reads=reads,
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
