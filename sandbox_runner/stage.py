"""The door in: a dataset version, verified file by file, as a read-only directory.

A staged directory exists whole or not at all: it is made under another name beside its place and
renamed when every digest has held. A killed staging leaves a directory of that other name, which
nobody mounts and :func:`sweep` removes. The directory around it is for its owner only; mounting
shows the inside of it to a sandbox and nothing else.

Of many small files there are shards as well (:func:`shards_of`), beside the directory and not in
it, so that a program that walks over the dataset meets the dataset's own files only.
"""

from __future__ import annotations

import csv
import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from policies.document import StagingPolicy
from policies.errors import CannotRun, Invalid
from policies.names import path_fault
from sandbox_runner import filling
from sandbox_runner.filling import CHUNK, LABELS, Opener, ReadMany
from sandbox_runner.sealed_split import DataFault as DataFault
from sandbox_runner.sealed_split import SealedSplit
from sandbox_runner.sealed_split import is_sealed as is_sealed
from sandbox_runner.spec import DatasetManifest, ManifestEntry
from sandbox_runner.verifier import Verifier

PARTIAL: Final = ".partial-"
RECORD: Final = ".staged.json"
SHARDS: Final = ".shards"
#: What a file takes at least, and what its name and its entry take.
BLOCK: Final = 4096


class NoRoom(CannotRun):
    """The place for plain data has no room for this version; nothing of it was left there.

    ``needed`` and ``free`` are bytes, both 0 where the place became full in between.
    """

    def __init__(self, needed: int = 0, free: int = 0) -> None:
        self.needed, self.free = needed, free
        message = "The disk or memory for plain data became full while the data was staged."
        if needed:
            message = (
                "The data needs {needed} MiB in plain, and there are {free} MiB free where it "
                "would lie."
            )
        super().__init__(
            message,
            code="stage.room",
            field="data",
            needed=-(-needed // 2**20),
            free=free // 2**20,
        )


def stage(
    manifest: DatasetManifest,
    open_object: Opener,
    target: Path,
    *,
    sealed: bool = False,
    policy: StagingPolicy | None = None,
    read_many: ReadMany | None = None,
) -> Path:
    """Make ``target`` the plain, read-only copy of a version, and return it; idempotent.

    ``open_object`` gives a file's plain bytes, and is called from several threads; ``read_many``
    those of many small files, where they can be had together. Without
    ``sealed`` there are neither the files nor the rows of the sealed split, and no row of another
    table that names such a file or subject. ``policy`` says whether small files are packed;
    without it all stand by path alone. Raises :class:`DataFault` when a digest, a length or a path
    is wrong, :class:`NoRoom` for a full disk; both leave nothing.
    """
    record = {"digest": manifest.digest(), "sealed": sealed}
    if staged(target) == record:
        return target
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    remove(target)
    planned, split = _plan(manifest, open_object, sealed=sealed, policy=policy)
    _check_room(planned, target.parent)
    # Before the lock: a process that is born while it is held would hold it, too, for a moment.
    verifier = Verifier() if planned.small else None
    partial = target.parent / f"{PARTIAL}{target.name}-{secrets.token_hex(6)}"
    partial.mkdir(mode=0o700)
    lock = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name in ("files", "shards"):
            (partial / name).mkdir(mode=0o700)
        places = (partial / "files", partial / "shards")
        filling.fill(planned, open_object, *places, split, read_many, verifier)
        _move(partial, target, record)
    except BaseException as error:
        remove(target)
        _remove_tree(partial)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoRoom from None
        raise
    finally:
        os.close(lock)
        if verifier is not None:
            verifier.close()
    return target


def staged(target: Path) -> dict[str, object] | None:
    """Return which version a directory is the whole copy of, or None if it is not one."""
    if not target.is_dir() or target.is_symlink():
        return None
    try:
        record = json.loads(_record_path(target).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def shards_of(target: Path) -> Path | None:
    """Return the folder with the shards of a staged directory, None where it has none."""
    folder = _shards_path(target)
    return folder if staged(target) is not None and folder.is_dir() else None


def unstage(target: Path) -> None:
    """Remove a staged directory; idempotent."""
    remove(target)


def remove(target: Path) -> None:
    """Remove a staged directory, its shards and its record, even where they are read-only."""
    # The directory goes first: what a kill leaves beside it, without it, is swept.
    for place in (target, _shards_path(target)):
        if place.exists():
            # Renamed first: half of a version must never stand under the name of the whole.
            dying = target.parent / f"{PARTIAL}{target.name}-{secrets.token_hex(6)}"
            place.rename(dying)
            _remove_tree(dying)
    _record_path(target).unlink(missing_ok=True)


def sweep(parent: Path) -> int:
    """Remove what killed stagings left under ``parent``; return how many there were."""
    removed = 0
    at_work = set()
    for partial in parent.glob(f"{PARTIAL}*"):
        descriptor = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            at_work.add(partial.name.removeprefix(PARTIAL).rpartition("-")[0])
            continue
        finally:
            os.close(descriptor)
        _remove_tree(partial)
        removed += 1
    for suffix in (RECORD, SHARDS):
        for left in parent.glob(f".*{suffix}"):
            name = left.name.removesuffix(suffix)[1:]
            # Killed between two of the renames: what lies beside the directory came first.
            if name not in at_work and not (parent / name).exists():
                remove(parent / name)
                removed += 1
    return removed


def manifest_of(directory: Path, slug: str, version: str) -> DatasetManifest:
    """Return the manifest of a plain directory; subject and split come from its labels.csv.

    Links and other things that are not files are refused, as are names that cannot be staged:
    :class:`Invalid`.
    """
    rows = _label_rows(directory / LABELS)
    entries = []
    for path in _files(directory):
        relative = path.relative_to(directory).as_posix()
        _check_name(relative)
        with _open_regular(path) as file:
            digest, size = hashlib.sha256(), 0
            while data := file.read(CHUNK):
                digest.update(data)
                size += len(data)
        row = rows.get(relative, {})
        entries.append(
            ManifestEntry(
                path=relative,
                sha256=digest.hexdigest(),
                bytes=size,
                subject=row.get("subject") or "",
                split=row.get("split") or "",
            )
        )
    return DatasetManifest(slug, version, tuple(entries))


def open_in(directory: Path) -> Opener:
    """Return the ``open_object`` of a plain directory."""
    return lambda entry: _open_regular(directory / entry.path)


def _open_regular(path: Path) -> BinaryIO:
    """Open a file of a directory that others may write to: no link, and no pipe to wait for."""
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        file = os.fdopen(os.open(path, flags), "rb", buffering=0)
    except OSError as error:
        raise DataFault("a file of the dataset is not there any more, or a link") from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise DataFault("a file of the dataset has become something else")
    return file


def _check_name(relative: str) -> None:
    fault = path_fault(relative, depth=32, length=1000)
    if fault is not None:
        raise Invalid(
            "A file of the dataset directory has a name that cannot be staged. {why}",
            field="data",
            code="stage.name",
            why=fault,
        )


def _files(directory: Path) -> Iterator[Path]:
    for top, folders, files in os.walk(directory):
        folders.sort()
        for name in sorted([*files, *folders]):
            path = Path(top) / name
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode):
                yield path
            elif not stat.S_ISDIR(mode):
                raise Invalid(
                    "A dataset directory holds files and directories only, and this one has a "
                    "link, a device or a pipe.",
                    field="data",
                    code="stage.kind",
                )


def _label_rows(path: Path) -> dict[str, dict[str, str]]:
    if not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return {row["file"]: row for row in csv.DictReader(file) if row.get("file")}
    except (UnicodeDecodeError, csv.Error):
        raise Invalid(
            "The labels.csv of this dataset directory is not a table of comma-separated values in "
            "UTF-8.",
            field="data",
            code="stage.labels",
        ) from None


def _record_path(target: Path) -> Path:
    return target.parent / f".{target.name}{RECORD}"


def _shards_path(target: Path) -> Path:
    return target.parent / f".{target.name}{SHARDS}"


def _remove_tree(path: Path) -> None:
    for top, _, _ in os.walk(path):
        Path(top).chmod(0o700)
    shutil.rmtree(path)


def _plan(
    manifest: DatasetManifest,
    open_object: Opener,
    *,
    sealed: bool,
    policy: StagingPolicy | None,
) -> tuple[filling.Plan, SealedSplit | None]:
    split = None
    if not sealed:
        labels = next((entry for entry in manifest.entries if entry.path == LABELS), None)
        table = filling.read_checked(labels, open_object) if labels is not None else b""
        split = SealedSplit.of(manifest, table)
    return filling.plan(manifest, split, policy), split


def _move(partial: Path, target: Path, record: dict[str, object]) -> None:
    """Put what is whole under its name; the directory itself comes last, and makes it staged."""
    # A directory that is itself read-only cannot be moved to another parent by its owner.
    if any((partial / "shards").iterdir()):
        (partial / "shards").chmod(0o700)
        (partial / "shards").rename(_shards_path(target))
        _shards_path(target).chmod(0o555)
    _record_path(target).write_text(json.dumps(record), encoding="utf-8")
    (partial / "files").chmod(0o700)
    (partial / "files").rename(target)
    target.chmod(0o555)
    _remove_tree(partial)


def _check_room(planned: filling.Plan, place: Path) -> None:
    """Raise :class:`NoRoom` before anything is decrypted for which there is no room."""
    room = os.statvfs(place)
    free = room.f_bavail * room.f_frsize
    needed = planned.bytes + BLOCK * planned.files
    if needed > free or (room.f_files and planned.files > room.f_favail):
        raise NoRoom(needed, free)
