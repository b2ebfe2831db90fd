"""Published files into encrypted objects, and rows that name them, in one step for all."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from django.db import transaction

from policies.errors import UserError, _
from portal import blobs, keys
from portal.audit.record import record
from portal.catalog.actions import move
from portal.catalog.contents import dataset_manifest, ensure_version_key
from portal.catalog.models import DatasetVersion, StoredFile, Subject, SubjectKey
from portal.ingest import profile, room
from portal.ingest.models import Intake, ReportRow
from portal.leases import Lease
from sandbox_runner.stage import is_sealed

REPORT_FIELDS = ("source", "status", "target", "reason", "actions", "boxes", "seconds")
TABLES = (".csv", ".json")
TABLE_BYTES = 256 << 20
PICTURES = ("dicom", "photo", "video")


class NothingClean(UserError):
    """Every original was held back: there is nothing to publish."""


def report_rows(intake: Intake, folder: Path, name: str) -> list[ReportRow]:
    """Return the report as rows that are not saved yet. Raises room.BadResult."""
    rows = []
    for position, row in enumerate(room.report(folder, name), start=1):
        facts = {key: value for key, value in row.items() if key not in REPORT_FIELDS}
        rows.append(
            ReportRow(
                intake=intake,
                position=position,
                source=row["source"],
                status=row["status"],
                target=row["target"],
                reason=row["reason"][:300],
                actions=row["actions"],
                boxes=row["boxes"],
                facts=facts,
                seconds=row["seconds"],
            )
        )
    return rows


@dataclass
class _Labels:
    """What the tables say of whose a file is and which split it belongs to."""

    by_file: Mapping[str, Mapping[str, str]]
    splits: dict[str, set[str]] = field(default_factory=dict)  # of a subject

    def __post_init__(self) -> None:
        for row in self.by_file.values():
            self.splits.setdefault(row.get("subject") or "", set()).add(row.get("split") or "")

    def of(self, path: str, content: bytes) -> tuple[str, str]:
        """Return subject and split of a published file."""
        if path in self.by_file:
            row = self.by_file[path]
            return row.get("subject") or _folder(path), row.get("split") or ""
        if not path.endswith(".json"):
            return ("", "") if path.endswith((".csv", ".toml")) else (_folder(path), "")
        # An annotation belongs to whoever it speaks of: their key, and their split, are its own.
        named = _texts(json.loads(content))
        subjects = {str(self.by_file[text]["subject"]) for text in named if text in self.by_file}
        subjects |= named & set(self.splits)
        if len(subjects) == 1:
            return subjects.pop(), ""
        sealed = any(is_sealed(split) for each in subjects for split in self.splits[each])
        return "", "sealed" if sealed else ""


def _folder(path: str) -> str:
    folder, separator, _rest = path.partition("/")
    return folder if separator else ""


def _texts(node: Any) -> set[str]:
    if isinstance(node, dict):
        return {text for value in node.values() for text in _texts(value)}
    if isinstance(node, list):
        return {text for value in node for text in _texts(value)}
    return {node} if isinstance(node, str) else set()


def store(intake: Intake, lease: Lease, published: Path, rows: list[ReportRow]) -> None:
    """Encrypt every published file under its subject's key and move the version on.

    What is stored is what the report names, with the digest that it names; other files in the
    folder are not looked at. Raises NothingClean (the report is kept) where nothing was written.
    """
    version = intake.version
    version_key = ensure_version_key(version)
    targets = {row.target: str(row.facts["digest"]) for row in rows if row.status in room.KEPT}
    pictures = {row.target for row in rows if row.target and row.facts["kind"] in PICTURES}
    if not pictures:
        _keep_report(intake, lease, rows)
        raise NothingClean(
            _("Nothing could be published: all {count} files were held back; see the report."),
            code="deid.nothing",
            count=len(rows),
        )
    labels = _labels(published) if "labels.csv" in targets else _Labels({})
    keeper = _Keeper(version, version_key)
    stored = []
    for path, digest in sorted(targets.items()):
        content = b""
        if path.endswith(".json"):
            with room.opened(published, path) as stream:
                content = stream.read(TABLE_BYTES)
        subject, split = labels.of(path, content)
        with room.opened(published, path) as stream:
            file = keeper.keep(path, stream, subject, split)
        if file.sha256 != digest:
            raise room.BadResult("a published file is not what its report row says")
        stored.append(file)
    if "dataset.toml" not in targets:
        kind = json.dumps(version.dataset.kind)
        title = json.dumps(version.dataset.title, ensure_ascii=False)
        text = f"kind = {kind}\ndescription = {title}\n".encode()
        stored.append(keeper.keep("dataset.toml", io.BytesIO(text), "", ""))
    with transaction.atomic():
        lease.check()
        StoredFile.objects.filter(version=version).delete()
        StoredFile.objects.bulk_create(stored, batch_size=500)
        _keep_report(intake, lease, rows)
        refresh(intake)
        move(version, "complete", "system", reason=_("waiting for the security officer"))
        counts = dict(Counter(row.status for row in rows))
        record("version.de_identified", by=None, about=version, details={"counts": counts})


def _labels(published: Path) -> _Labels:
    with room.opened(published, "labels.csv") as stream:
        text = stream.read(TABLE_BYTES).decode()
    return _Labels({row["file"]: row for row in csv.DictReader(io.StringIO(text, newline=""))})


class _Keeper:
    """Stores files of one version, each under its subject's key."""

    def __init__(self, version: DatasetVersion, version_key: bytes) -> None:
        self.version, self.version_key = version, version_key
        self._subjects: dict[str, tuple[Subject, bytes]] = {}

    def keep(self, path: str, stream: Any, pseudonym: str, split: str) -> StoredFile:
        """Return the file's row, not saved yet."""
        key, subject = self.version_key, None
        if pseudonym:
            subject, key = self._subject(pseudonym)
        name = blobs.object_name(self.version_key, "file", path)
        blob = blobs.put(stream, key=key, name=name)
        return StoredFile(
            version=self.version,
            subject=subject,
            path=path,
            split=split,
            object_name=name,
            sha256=blob.sha256,
            bytes=blob.bytes,
        )

    def _subject(self, pseudonym: str) -> tuple[Subject, bytes]:
        if pseudonym not in self._subjects:
            version = self.version
            subject, _new = Subject.objects.get_or_create(
                dataset=version.dataset, pseudonym=pseudonym
            )
            context = f"subject:{version.pk}:{subject.pk}"
            wrapped = keys.wrap(keys.new_key(), by=self.version_key, context=context)
            row, _new = SubjectKey.objects.get_or_create(
                version=version, subject=subject, defaults={"wrapped_key": wrapped}
            )
            key = keys.unwrap(row.wrapped_key, by=self.version_key, context=context)
            self._subjects[pseudonym] = subject, key
        return self._subjects[pseudonym]


@transaction.atomic
def _keep_report(intake: Intake, lease: Lease, rows: list[ReportRow]) -> None:
    lease.check()
    intake.rows.all().delete()
    ReportRow.objects.bulk_create(rows, batch_size=500)
    Intake.objects.filter(pk=intake.pk).update(
        counts=dict(Counter(row.status for row in rows)),
        done=len(rows),
        total=len(rows),
        pending_boxes=False,
    )


def refresh(intake: Intake) -> None:
    """Recompute the public counts and the manifest from the rows as they stand.

    Called inside the transaction that changed them.
    """
    version = intake.version
    counts = Counter(intake.rows.values_list("status", flat=True))
    Intake.objects.filter(pk=intake.pk).update(counts=dict(counts))
    facts = _facts(version, StoredFile.objects.filter(version=version), counts)
    DatasetVersion.objects.filter(pk=version.pk).update(**facts)
    version.refresh_from_db()
    _keep_manifest(version, ensure_version_key(version))


def _facts(
    version: DatasetVersion, stored: Iterable[StoredFile], counts: Mapping[str, int]
) -> dict[str, Any]:
    files = list(stored)
    data = [each for each in files if each.subject_id and not each.path.endswith(TABLES)]
    splits = Counter(each.split for each in data)
    return {
        "files": len(files),
        "bytes": sum(each.bytes for each in files),
        "subjects": len({each.subject_id for each in data}),
        "training_samples": splits.get("train", 0) or splits.get("", 0),
        "card": {
            "files_by_split": {name or "none": count for name, count in sorted(splits.items())},
            "originals": sum(counts.values()),
            "quarantined": counts.get("quarantined", 0),
            "profile": profile.name_of(version.dataset),
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
