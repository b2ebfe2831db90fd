"""What a worker does with originals: de-identify, store encrypted, draw pictures, mend, destroy.

Each step may be cut off anywhere and started again: plaintext lives in the version's own work
folder, objects appear whole or not at all, and rows are written in one transaction at the end.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from policies.errors import UserError, _
from portal import blobs, dropbox, keys, workplace
from portal.audit.record import record
from portal.catalog.actions import move
from portal.catalog.contents import Contents, dataset_manifest, ensure_version_key
from portal.catalog.models import Dataset, DatasetVersion, StoredFile, Subject, SubjectKey
from portal.ingest import program, sampling
from portal.ingest.models import Destruction, Intake, ReportRow, ReviewItem
from portal.leases import Lease

REPORT_FIELDS = ("source", "status", "target", "reason", "actions", "boxes", "seconds")
KEPT = ("written", "unchanged")


def pseudonym_key(dataset: Dataset) -> bytes:
    """Return the dataset's pseudonym key, made on first use; workers only."""
    context = f"pseudonyms:{dataset.pk}"
    if dataset.wrapped_pseudonym_key is None:
        wrapped = keys.wrap(keys.new_key(), by=keys.master("data"), context=context)
        rows = Dataset.objects.filter(pk=dataset.pk, wrapped_pseudonym_key=None)
        rows.update(wrapped_pseudonym_key=wrapped)
        dataset.refresh_from_db(fields=["wrapped_pseudonym_key"])
    return keys.unwrap(
        dataset.wrapped_pseudonym_key or b"", by=keys.master("data"), context=context
    )


def originals(intake: Intake, target: Path) -> Path:
    """Decrypt the originals' zip into the work folder unless it is there already, whole."""
    path = target / "originals.zip"
    if not path.exists():
        key = dropbox.unseal(
            intake.sealed_key or b"", context=f"originals:{intake.version_id}"
        )
        draft = target / "originals.part"
        with (
            blobs.names_full_disk("work folder"),
            blobs.open(intake.object_name, key=key) as source,
            draft.open("wb") as out,
        ):
            shutil.copyfileobj(source, out, 1 << 20)
        draft.rename(path)
    return path


def de_identify(intake: Intake, lease: Lease) -> None:
    """Run the pipeline on a version's originals and store what it wrote."""
    version = intake.version
    work = workplace.folder(f"ingest-{version.pk}")
    source = originals(intake, work)
    try:
        with zipfile.ZipFile(source) as archive:
            total = sum(not member.is_dir() for member in archive.infolist())
    except zipfile.BadZipFile:
        raise UserError(
            _("The originals are no readable zip file; upload them again."), code="intake.zip"
        ) from None
    Intake.objects.filter(pk=intake.pk).update(total=total, done=0)
    report = work / "report.jsonl"
    job = program.Job(
        name=f"deid-{version.pk}",
        module="deid",
        arguments=(
            "/originals.zip",
            "/work/published",
            "--key",
            "/dev/stdin",
            "--profile",
            version.dataset.deid_profile,
            "--workers",
            str(program.WORKERS),
            "--report",
            "/work/report.jsonl",
            "--resume",
            "--json",
        ),
        reads={"/originals.zip": source},
        writes=work,
        stdin=pseudonym_key(version.dataset).hex().encode(),
    )
    with _shown(intake, report):
        program.run(job, log=work / "log", cancel=lease.lost)
    _store(intake, lease, work / "published", report)
    workplace.remove(f"ingest-{version.pk}")


class _shown:
    """While the block runs, the number of finished files is written to the intake's row."""

    def __init__(self, intake: Intake, report: Path) -> None:
        self.intake, self.report = intake, report
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch, name="progress", daemon=True)

    def _watch(self) -> None:
        shown = -1
        while not self.over.wait(2):
            done = sum(1 for _line in _raw_lines(self.report))
            if done != shown:
                Intake.objects.filter(pk=self.intake.pk).update(done=done)
                shown = done
        connection.close()

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_error: object) -> None:
        self.over.set()
        self.thread.join()


def _raw_lines(path: Path) -> Iterator[bytes]:
    """Give the complete lines of a report that may still be written to."""
    if path.exists():
        with path.open("rb") as stream:
            yield from (line for line in stream if line.endswith(b"\n"))


def _rows(intake: Intake, report: Path) -> list[ReportRow]:
    rows = []
    for position, line in enumerate(_raw_lines(report), start=1):
        row = json.loads(line)
        facts = {name: value for name, value in row.items() if name not in REPORT_FIELDS}
        rows.append(
            ReportRow(
                intake=intake,
                position=position,
                source=row["source"],
                status=row["status"],
                target=row.get("target") or "",
                reason=(row.get("reason") or "")[:300],
                actions=row.get("actions") or {},
                boxes=row.get("boxes") or {},
                facts=facts,
                seconds=row.get("seconds") or 0,
            )
        )
    return rows


def _labels(published: Path) -> dict[str, dict[str, str]]:
    path = published / "labels.csv"
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as stream:
        return {row["file"]: row for row in csv.DictReader(stream)}


def _store(intake: Intake, lease: Lease, published: Path, report: Path) -> None:
    """Encrypt every published file under its subject's key and move the version on."""
    version = intake.version
    version_key = ensure_version_key(version)
    labels = _labels(published)
    description = published / "dataset.toml"
    if not description.exists():
        kind = json.dumps(version.dataset.kind)
        title = json.dumps(version.dataset.title, ensure_ascii=False)
        description.write_text(f"kind = {kind}\ndescription = {title}\n", encoding="utf-8")
    files = [path for path in sorted(published.rglob("*")) if path.is_file()]
    subject_keys: dict[str, tuple[Subject, bytes]] = {}
    stored = []
    for path in files:
        relative = path.relative_to(published).as_posix()
        label = labels.get(relative, {})
        pseudonym = label.get("subject") or _subject_by_place(relative)
        key, subject = version_key, None
        if pseudonym:
            if pseudonym not in subject_keys:
                subject_keys[pseudonym] = _subject(version, pseudonym, version_key)
            subject, key = subject_keys[pseudonym]
        name = blobs.object_name(version_key, "file", relative)
        with path.open("rb") as stream:
            blob = blobs.put(stream, key=key, name=name)
        stored.append(
            StoredFile(
                version=version,
                subject=subject,
                path=relative,
                split=label.get("split", ""),
                object_name=name,
                sha256=blob.sha256,
                bytes=blob.bytes,
            )
        )
    rows = _rows(intake, report)
    with transaction.atomic():
        lease.check()
        StoredFile.objects.filter(version=version).delete()
        StoredFile.objects.bulk_create(stored, batch_size=500)
        intake.rows.all().delete()
        ReportRow.objects.bulk_create(rows, batch_size=500)
        counts = dict(Counter(row.status for row in rows))
        Intake.objects.filter(pk=intake.pk).update(
            counts=counts, done=len(rows), total=len(rows), pending_boxes=False
        )
        DatasetVersion.objects.filter(pk=version.pk).update(**_facts(version, stored, rows))
        version.refresh_from_db()
        _keep_manifest(version, version_key)
        move(version, "complete", "system", reason=_("waiting for the security officer"))
        record("version.de_identified", by=None, about=version, details={"counts": counts})


def _subject_by_place(relative: str) -> str:
    """Return the subject that a file's folder names; shared files and tables have none."""
    folder, separator, _rest = relative.partition("/")
    return "" if not separator or folder == "annotations" else folder


def _subject(version: DatasetVersion, pseudonym: str, version_key: bytes) -> tuple[Subject, bytes]:
    subject, _made = Subject.objects.get_or_create(dataset=version.dataset, pseudonym=pseudonym)
    context = f"subject:{version.pk}:{subject.pk}"
    row, _made = SubjectKey.objects.get_or_create(
        version=version,
        subject=subject,
        defaults={"wrapped_key": keys.wrap(keys.new_key(), by=version_key, context=context)},
    )
    return subject, keys.unwrap(row.wrapped_key, by=version_key, context=context)


def _facts(
    version: DatasetVersion, stored: list[StoredFile], rows: list[ReportRow]
) -> dict[str, Any]:
    data = [file for file in stored if file.subject is not None]
    splits = Counter(file.split for file in data)
    return {
        "files": len(stored),
        "bytes": sum(file.bytes for file in stored),
        "subjects": len({file.subject_id for file in data}),
        "training_samples": splits.get("train", 0) or splits.get("", 0),
        "card": {
            "files_by_split": {name or "none": count for name, count in sorted(splits.items())},
            "originals": len(rows),
            "quarantined": sum(row.status == "quarantined" for row in rows),
            "profile": version.dataset.deid_profile,
        },
    }


def _keep_manifest(version: DatasetVersion, version_key: bytes) -> None:
    """Store the manifest, encrypted, and keep its digest on the version's row."""
    manifest = dataset_manifest(version)
    lines = "\n".join(json.dumps(asdict(entry), sort_keys=True) for entry in manifest.entries)
    name = blobs.object_name(version_key, "manifest", manifest.digest())
    blobs.put(io.BytesIO(lines.encode()), key=version_key, name=name)
    version.manifest_object, version.manifest_sha256 = name, manifest.digest()
    version.save(update_fields=["manifest_object", "manifest_sha256"])


def draw_pictures(intake: Intake, lease: Lease) -> None:
    """Render before and after of the current round's files, encrypted for the officer's page."""
    version = intake.version
    waiting = [item for item in sampling.current_round(version) if not item.after_object]
    waiting = [item for item in waiting if not item.unseen]
    with workplace.temporary(f"pictures-{version.pk}") as work:
        source = originals(intake, work)
        contents = Contents(version)
        entries = {entry.path: entry for entry in dataset_manifest(version).entries}
        for item in waiting:
            target = work / "published" / item.row.target
            target.parent.mkdir(parents=True, exist_ok=True)
            with contents.open(entries[item.row.target]) as stream, target.open("wb") as out:
                shutil.copyfileobj(stream, out)
        wanted = [
            {"name": str(item.pk), "source": item.row.source, "target": item.row.target}
            for item in waiting
        ]
        (work / "wanted.json").write_text(json.dumps(wanted))
        program.run(
            program.Job(
                name=f"pictures-{version.pk}",
                module="deid.pictures",
                arguments=("/originals.zip", "/work/published", "/work/wanted.json", "/work/out"),
                reads={"/originals.zip": source},
                writes=work,
            ),
            log=work / "log",
            cancel=lease.lost,
        )
        made = json.loads((work / "out" / "pictures.json").read_text())
        for item in waiting:
            _keep_pictures(item, made[str(item.pk)], work / "out", lease)
    with transaction.atomic():
        lease.check()
        DatasetVersion.objects.filter(pk=version.pk, state="in_qa").update(
            reason=_("the security officer examines the sample")
        )


def _keep_pictures(item: ReviewItem, facts: dict[str, Any], folder: Path, lease: Lease) -> None:
    changes: dict[str, Any] = {"unseen": str(facts.get("unseen", ""))[:200]}
    if not changes["unseen"]:
        key = keys.new_key()
        for side in ("before", "after"):
            name = blobs.object_name(key, "picture", item.pk, side)
            with (folder / f"{item.pk}-{side}.png").open("rb") as stream:
                blobs.put(stream, key=key, name=name)
            changes[f"{side}_object"] = name
        context = f"review-item:{item.pk}"
        changes["wrapped_key"] = keys.wrap(key, by=keys.master("view"), context=context)
        changes["width"], changes["height"] = int(facts["width"]), int(facts["height"])
    with transaction.atomic():
        lease.check()
        ReviewItem.objects.filter(pk=item.pk).update(**changes)


def apply_boxes(intake: Intake, lease: Lease) -> None:
    """Mask what the officer marked in the last round and store the mended files."""
    version = intake.version
    marked = [item for item in sampling.current_round(version) if item.finding == "missed"]
    contents = Contents(version)
    entries = {entry.path: entry for entry in dataset_manifest(version).entries}
    with workplace.temporary(f"boxes-{version.pk}") as work:
        wanted = []
        for item in marked:
            path = work / "published" / item.row.target
            path.parent.mkdir(parents=True, exist_ok=True)
            with contents.open(entries[item.row.target]) as stream, path.open("wb") as out:
                shutil.copyfileobj(stream, out)
            wanted.append({"target": item.row.target, "boxes": item.boxes})
        (work / "wanted.json").write_text(json.dumps(wanted))
        program.run(
            program.Job(
                name=f"boxes-{version.pk}",
                module="deid.corrections",
                arguments=("/work/published", "/work/wanted.json", "/work/mended"),
                reads={},
                writes=work,
            ),
            log=work / "log",
            cancel=lease.lost,
        )
        version_key = ensure_version_key(version)
        changed, removed = [], []
        for item in marked:
            file = StoredFile.objects.get(version=version, path=item.row.target)
            path = work / "mended" / item.row.target
            if not path.exists():
                # A file marked without a box, or one that cannot be masked, is not published.
                removed.append((file, item))
                continue
            key = contents.subject_key(file.subject_id) if file.subject_id else version_key
            # A new name: the old object stays whole until the rows point elsewhere.
            name = blobs.object_name(version_key, "file", file.path, item.round, item.pk)
            with path.open("rb") as stream:
                blob = blobs.put(stream, key=key, name=name)
            changed.append((file, name, blob))
        _record_mended(intake, lease, version_key, changed, removed)


def _record_mended(
    intake: Intake,
    lease: Lease,
    version_key: bytes,
    changed: list[tuple[StoredFile, str, blobs.Stored]],
    removed: list[tuple[StoredFile, ReviewItem]],
) -> None:
    version = intake.version
    old = [file.object_name for file, *_rest in (*changed, *removed)]
    with transaction.atomic():
        lease.check()
        for file, name, blob in changed:
            file.object_name, file.sha256, file.bytes = name, blob.sha256, blob.bytes
            file.save(update_fields=["object_name", "sha256", "bytes"])
        for file, item in removed:
            ReportRow.objects.filter(pk=item.row_id).update(
                status="quarantined", reason=_("marked by the security officer")
            )
            file.delete()
        Intake.objects.filter(pk=intake.pk).update(pending_boxes=False)
        DatasetVersion.objects.filter(pk=version.pk).update(
            reason=_("waiting for the security officer"),
            files=StoredFile.objects.filter(version=version).count(),
        )
        version.refresh_from_db()
        _keep_manifest(version, version_key)
        record(
            "version.boxes_applied",
            by=None,
            about=version,
            details={"masked": len(changed), "withdrawn": len(removed)},
        )
    for name in old:
        blobs.delete(name)


def destroy_originals(intake: Intake) -> None:
    """Destroy a version's originals at the end of their retention, and record it."""
    with transaction.atomic():
        rows = Intake.objects.filter(
            pk=intake.pk, destroyed_at=None, destroy_after__lte=timezone.now()
        )
        if rows.update(destroyed_at=timezone.now(), sealed_key=None) != 1:
            return
        Destruction.objects.create(
            version=intake.version, what="originals", count=1, bytes=intake.bytes
        )
        record("originals.destroy", by=None, about=intake.version, details={"objects": 1})
    blobs.delete(intake.object_name)


def destroy_pictures(version: DatasetVersion) -> None:
    """Destroy the before and after pictures of a version that nobody examines any more."""
    items = list(
        ReviewItem.objects.filter(version=version, pictures_destroyed_at=None).exclude(
            after_object=""
        )
    )
    if not items:
        return
    with transaction.atomic():
        ReviewItem.objects.filter(pk__in=[item.pk for item in items]).update(
            pictures_destroyed_at=timezone.now(), wrapped_key=None
        )
        Destruction.objects.create(
            version=version, what="pictures", count=2 * len(items), bytes=0
        )
        record("pictures.destroy", by=None, about=version, details={"objects": 2 * len(items)})
    for item in items:
        blobs.delete(item.before_object)
        blobs.delete(item.after_object)
