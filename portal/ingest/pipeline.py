"""What a worker does with originals: decrypt, de-identify sealed, store; draw the pictures.

Each step may be cut off anywhere and started again: plaintext lies in the version's own work
folder, objects appear whole or not at all, and rows are written in one transaction at the end.
"""

from __future__ import annotations

import json
import shutil
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.db import connection, transaction
from django.db.models import QuerySet

from policies.errors import UserError, _
from portal import blobs, dropbox, keys, workplace
from portal.catalog.contents import Contents, dataset_manifest
from portal.catalog.models import Dataset, DatasetVersion
from portal.ingest import profile, program, quarantine, room, sampling, sharding, storing
from portal.ingest.models import Intake, ReviewItem, Shard
from portal.leases import Lease
from portal.tasking import hint

FOLDERS = ("ingest", "pictures", "boxes", "shard")
LARGEST_SIDE = 1 << 20  # pixels
PICTURES_AT_ONCE = 100
SHOWN_FRAMES, MOST_FRAMES = 64, 1 << 31


def folder_of(number: int, what: str) -> str:
    """Return the name of a work folder; the lease of its intake or shard is the right to it."""
    return f"{what}-{number}"


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
    """Decrypt the originals' zip into the work folder unless it is there already, whole.

    The name is that of the encrypted object: another upload is never mistaken for this one.
    """
    path = target / f"{intake.object_name[:32]}.zip"
    if not path.exists():
        key = dropbox.unseal(intake.sealed_key or b"", context=f"originals:{intake.version_id}")
        draft = target / "originals.part"
        with (
            blobs.names_full_disk("work folder"),
            blobs.open(intake.object_name, key=key) as source,
            draft.open("wb") as out,
        ):
            shutil.copyfileobj(source, out, 1 << 20)
        draft.rename(path)
    return path


def count_members(path: Path) -> int:
    """Return the number that a zip's end record gives: for the progress bar, and not believed.

    The archive itself is read by the sealed program only. Raises UserError for no zip.
    """
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - 65_557))
        tail = stream.read()
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or end + 22 > len(tail):
        raise UserError(
            _("The originals are no readable zip file; upload them again."), code="intake.zip"
        )
    count: int = struct.unpack_from("<H", tail, end + 10)[0]
    large = tail.rfind(b"PK\x06\x06", 0, end)
    if count == 0xFFFF and 0 <= large <= len(tail) - 40:
        count = struct.unpack_from("<Q", tail, large + 32)[0]
    return min(count, 2_000_000_000)


def de_identify(intake: Intake, lease: Lease) -> None:
    """Run the pipeline on a version's originals and store what it wrote.

    A large batch is cut into shards first, and this ends; when they are made, it puts them
    together: the same run, over all, finds their outputs and makes only the tables.
    """
    version = intake.version
    rules = profile.document(version.dataset)
    name = folder_of(version.pk, "ingest")
    basis = sharding.basis_of(intake, rules)
    if intake.shards.filter(basis=basis).exists() and sharding.are_open(intake):
        return
    work = workplace.folder(name)
    source = originals(intake, work)
    inputs = count_members(source)
    Intake.objects.filter(pk=intake.pk).update(total=inputs)
    if not sharding.cut(intake, lease, inputs=inputs, basis=basis):
        workplace.remove(name)
        return
    written = room.make(work / "room")
    if intake.shards.exists():
        sharding.gather(intake, written)
    log = work / "log"
    job = _job(intake, work, source, rules, name=f"deid-{version.pk}")
    with _shown(lambda done: Intake.objects.filter(pk=intake.pk).update(done=done), written):
        program.run(job, log=log, cancel=lease.lost)
    rows = storing.report_rows(intake, written, "report.jsonl")
    if len(rows) != program.summary(log)["inputs"]:
        raise room.BadResult("the report has not a row for every original")
    quarantine.keep(intake, lease, written, rows)
    storing.store(intake, lease, written / "published", rows)
    sharding.drop(intake)
    workplace.remove(name)


def de_identify_shard(shard: Shard, lease: Lease) -> None:
    """Clean one shard's originals and keep the result for whoever puts them together."""
    intake = shard.intake
    rules = profile.document(intake.version.dataset)
    name = folder_of(shard.pk, "shard")
    if sharding.basis_of(intake, rules) != shard.basis:
        hint("ingest.run", intake.version_id)
        return
    work = workplace.folder(name)
    source = originals(intake, work)
    written = room.make(work / "room")
    log = work / "log"
    part = ("--shard", f"{shard.number}/{shard.count}")
    job = _job(intake, work, source, rules, *part, name=f"deid-{intake.version_id}-{shard.number}")

    def show(done: int) -> None:
        Shard.objects.filter(pk=shard.pk).update(done=done)
        sharding.show(intake.pk)

    with _shown(show, written):
        program.run(job, log=log, cancel=lease.lost)
    program.summary(log)
    sharding.keep(shard, lease, written, work / "packed")
    workplace.remove(name)


def _job(
    intake: Intake, work: Path, source: Path, rules: str, *more: str, name: str
) -> program.Job:
    document = work / "profile.toml"
    document.write_text(rules, encoding="utf-8")
    return program.Job(
        name=name,
        module="deid",
        arguments=(
            "/originals.zip",
            "/made/published",
            "--key",
            "/dev/stdin",
            "--profile",
            "/profile.toml",
            "--workers",
            str(program.WORKERS),
            "--report",
            "/made/report.jsonl",
            "--quarantine",
            "/made/quarantine",
            "--resume",
            "--json",
            *more,
        ),
        reads={"/originals.zip": source, "/profile.toml": document},
        writes=work / "room",
        stdin=pseudonym_key(intake.version.dataset).hex().encode(),
    )


class _shown:
    """While the block runs, the number of finished files is shown."""

    def __init__(self, show: Callable[[int], object], folder: Path) -> None:
        self.show, self.folder = show, folder
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch, name="progress", daemon=True)

    def _watch(self) -> None:
        shown = -1
        while not self.over.wait(2):
            done = room.count_lines(self.folder, "report.jsonl")
            if done != shown:
                self.show(done)
                shown = done
        connection.close()

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_error: object) -> None:
        self.over.set()
        self.thread.join()


def draw_pictures(intake: Intake, lease: Lease) -> None:
    """Render before and after of the current round's files, encrypted for the officer's page.

    At most ``PICTURES_AT_ONCE`` of them, since plaintext lies in memory; the next call goes on.
    """
    version = intake.version
    waiting = list(undrawn(sampling.current_round(version))[:PICTURES_AT_ONCE])
    if intake.destroyed_at is not None:
        with transaction.atomic():
            lease.check()
            pks = [item.pk for item in waiting]
            ReviewItem.objects.filter(pk__in=pks).update(unseen="original-destroyed")
            _say_when_drawn(version)
        return
    with workplace.temporary(folder_of(version.pk, "pictures")) as work:
        source = originals(intake, work)
        contents = Contents(version)
        entries = {entry.path: entry for entry in dataset_manifest(version).entries}
        published = work / "published"
        with blobs.names_full_disk("work folder"):
            for item in waiting:
                target = published / item.row.target
                target.parent.mkdir(parents=True, exist_ok=True)
                with contents.open(entries[item.row.target]) as stream, target.open("wb") as out:
                    shutil.copyfileobj(stream, out)
            wanted = [
                {"name": str(item.pk), "source": item.row.source, "target": item.row.target}
                for item in waiting
            ]
            (work / "wanted.json").write_text(json.dumps(wanted))
        written = room.make(work / "room")
        program.run(
            program.Job(
                name=f"pictures-{version.pk}",
                module="deid.pictures",
                arguments=("/originals.zip", "/published", "/wanted.json", "/made/out"),
                reads={
                    "/originals.zip": source,
                    "/published": published,
                    "/wanted.json": work / "wanted.json",
                },
                writes=written,
            ),
            log=work / "log",
            cancel=lease.lost,
        )
        made = room.document(written, "out/pictures.json")
        for item in waiting:
            _keep_pictures(item, made.get(str(item.pk)), written / "out", lease)
    with transaction.atomic():
        lease.check()
        _say_when_drawn(version)


def _say_when_drawn(version: DatasetVersion) -> None:
    if not undrawn(sampling.current_round(version)).exists():
        DatasetVersion.objects.filter(pk=version.pk, state="in_qa").update(
            reason=_("the security officer examines the sample")
        )


def undrawn(items: QuerySet[ReviewItem]) -> QuerySet[ReviewItem]:
    """Return the items whose pictures are still to be drawn."""
    return items.filter(after_object="", unseen="", finding="")


def _keep_pictures(item: ReviewItem, facts: Any, folder: Path, lease: Lease) -> None:
    """Encrypt all that was drawn of one file under one fresh key, which dies with them."""
    if not isinstance(facts, dict):
        raise room.BadResult("a picture was not drawn")
    changes: dict[str, Any] = {"unseen": str(facts.get("unseen", ""))[:200]}
    if not changes["unseen"]:
        key = keys.new_key()

        def kept(made: str, *parts: str | int) -> str:
            name = blobs.object_name(key, "picture", item.pk, *parts)
            with room.opened(folder, f"{item.pk}-{made}") as stream:
                blobs.put(stream, key=key, name=name)
            return name

        for side in ("before", "after"):
            changes[f"{side}_object"] = kept(f"{side}.png", side)
        changes["header_object"] = kept("header.json", "header")
        changes["frames"] = {
            str(number): [kept(f"{s}-{number}.png", s, number) for s in ("before", "after")]
            for number in _frame_numbers(facts)
        }
        changes["frame_count"] = _whole(facts.get("frame_count"), MOST_FRAMES)
        context = f"review-item:{item.pk}"
        changes["wrapped_key"] = keys.wrap(key, by=keys.master("view"), context=context)
        changes["width"], changes["height"] = _side(facts, "width"), _side(facts, "height")
    with transaction.atomic():
        lease.check()
        ReviewItem.objects.filter(pk=item.pk).update(**changes)


def _frame_numbers(facts: dict[str, Any]) -> list[int]:
    numbers = facts.get("frames")
    if not isinstance(numbers, list) or len(numbers) > SHOWN_FRAMES:
        raise room.BadResult("a picture has no list of frames")
    return [_whole(number, MOST_FRAMES) for number in numbers]


def _whole(value: Any, most: int) -> int:
    if not isinstance(value, int) or not 0 < value <= most:
        raise room.BadResult("a picture has no number of frames")
    return value


def _side(facts: dict[str, Any], name: str) -> int:
    value = facts.get(name)
    if not isinstance(value, int) or not 0 < value <= LARGEST_SIDE:
        raise room.BadResult("a picture has no size")
    return value
