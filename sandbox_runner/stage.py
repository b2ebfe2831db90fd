"""The door in: a dataset version, verified file by file, as a read-only directory.

A staged directory exists whole or not at all: it is made under another name beside its place and
renamed when every digest has held. A killed staging leaves a directory of that other name, which
nobody mounts and :func:`sweep` removes. The directory around it is for its owner only; mounting
shows the inside of it to a sandbox and nothing else.
"""

from __future__ import annotations

import csv
import fcntl
import hashlib
import io
import json
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from policies.errors import GloveboxError, Invalid
from policies.names import path_fault
from sandbox_runner.spec import DatasetManifest, ManifestEntry

LABELS: Final = "labels.csv"
CHUNK: Final = 1 << 20
PARTIAL: Final = ".partial-"
RECORD: Final = ".staged.json"
#: What training may see; every other word in a split column is treated as sealed.
OPEN_SPLITS: Final = frozenset({"", "train", "validation"})

Opener = Callable[[ManifestEntry], BinaryIO]


class DataFault(GloveboxError):
    """The data is not what its manifest says. Names no file: names may belong to people."""


def is_sealed(split: str) -> bool:
    """Return whether rows with this word in ``split`` are kept from training."""
    return split.strip().lower() not in OPEN_SPLITS


def stage(
    manifest: DatasetManifest, open_object: Opener, target: Path, *, sealed: bool = False
) -> Path:
    """Make ``target`` the plain, read-only copy of a version, and return it; idempotent.

    ``open_object`` gives a file's plain bytes. Without ``sealed`` there are neither the files nor
    the rows of the sealed split, and no row of another table that names such a file or subject.
    Raises :class:`DataFault` when a digest, a length or a path is wrong, leaving nothing.
    """
    record = {"digest": manifest.digest(), "sealed": sealed}
    if staged(target) == record:
        return target
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    remove(target)
    partial = target.parent / f"{PARTIAL}{target.name}-{secrets.token_hex(6)}"
    partial.mkdir(mode=0o700)
    lock = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _fill(manifest, open_object, partial, sealed=sealed)
        _record_path(target).write_text(json.dumps(record), encoding="utf-8")
        partial.rename(target)
    except BaseException:
        _remove_tree(partial)
        raise
    finally:
        os.close(lock)
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


def unstage(target: Path) -> None:
    """Remove a staged directory; idempotent."""
    remove(target)


def remove(target: Path) -> None:
    """Remove a staged directory and its record, even where it was made read-only."""
    _record_path(target).unlink(missing_ok=True)
    if target.exists():
        # Renamed first: half of a version must never stand under the name of the whole.
        dying = target.parent / f"{PARTIAL}{target.name}-{secrets.token_hex(6)}"
        target.rename(dying)
        _remove_tree(dying)


def sweep(parent: Path) -> int:
    """Remove what killed stagings left under ``parent``; return how many there were."""
    removed = 0
    for partial in parent.glob(f"{PARTIAL}*"):
        descriptor = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        finally:
            os.close(descriptor)
        _remove_tree(partial)
        removed += 1
    return removed


def manifest_of(directory: Path, slug: str, version: str) -> DatasetManifest:
    """Return the manifest of a plain directory; subject and split come from its labels.csv.

    Links and other things that are not files are refused: :class:`Invalid`.
    """
    rows = _label_rows(directory / LABELS)
    entries = []
    for path in _files(directory):
        relative = path.relative_to(directory).as_posix()
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while data := file.read(CHUNK):
                digest.update(data)
        row = rows.get(relative, {})
        entries.append(
            ManifestEntry(
                path=relative,
                sha256=digest.hexdigest(),
                bytes=path.stat().st_size,
                subject=row.get("subject", ""),
                split=row.get("split", ""),
            )
        )
    return DatasetManifest(slug, version, tuple(entries))


def open_in(directory: Path) -> Opener:
    """Return the ``open_object`` of a plain directory."""
    return lambda entry: (directory / entry.path).open("rb")


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
    with path.open(encoding="utf-8-sig", newline="") as file:
        return {row["file"]: row for row in csv.DictReader(file) if row.get("file")}


def _record_path(target: Path) -> Path:
    return target.parent / f".{target.name}{RECORD}"


def _remove_tree(path: Path) -> None:
    for top, _, _ in os.walk(path):
        Path(top).chmod(0o700)
    shutil.rmtree(path)


def _fill(manifest: DatasetManifest, open_object: Opener, directory: Path, *, sealed: bool) -> None:
    """Write every permitted file below an empty directory and close it for writing."""
    labels = next((entry for entry in manifest.entries if entry.path == LABELS), None)
    label_bytes = _read_checked(labels, open_object) if labels is not None else b""
    files, subjects = _sealed_names(manifest, label_bytes)
    for entry in manifest.entries:
        # Names of a published version are neutral, but a plain directory may hold any.
        if path_fault(entry.path, depth=32, length=1000) is not None:
            raise DataFault("a file of the dataset has a path that cannot be staged")
        if not sealed and (entry.path in files or _of_sealed(entry, subjects)):
            continue
        place = directory / entry.path
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if entry.path.endswith(".csv") and not sealed:
            plain = label_bytes if entry is labels else _read_checked(entry, open_object)
            with _create(place) as file:
                file.write(_without_sealed(plain, files, subjects))
        else:
            _copy_checked(entry, open_object, place)
    for top, _, names in os.walk(directory):
        for name in names:
            (Path(top) / name).chmod(0o444)
        Path(top).chmod(0o555)


def _of_sealed(entry: ManifestEntry, subjects: set[str]) -> bool:
    """A file without a split of its own (an annotation) goes with its subject."""
    return is_sealed(entry.split) or (not entry.split and entry.subject in subjects)


def _sealed_names(manifest: DatasetManifest, labels: bytes) -> tuple[set[str], set[str]]:
    """Return the sealed files, and the subjects that have any sealed file."""
    files = {entry.path for entry in manifest.entries if is_sealed(entry.split)}
    subjects = {entry.subject for entry in manifest.entries if is_sealed(entry.split)}
    for row in _rows(labels):
        if is_sealed(row.get("split") or ""):
            files.add(row.get("file") or "")
            subjects.add(row.get("subject") or "")
    return files - {""}, subjects - {""}


def _rows(content: bytes) -> Iterator[dict[str, str]]:
    try:
        yield from csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataFault("a table of the dataset cannot be read") from error


def _without_sealed(content: bytes, files: set[str], subjects: set[str]) -> bytes:
    """Return a table without the rows of the sealed split."""
    if not files and not subjects:
        return content
    reader = csv.DictReader(io.StringIO(_decoded(content), newline=""))
    out = io.StringIO(newline="")
    writer = csv.DictWriter(
        out, reader.fieldnames or [], lineterminator="\n", extrasaction="ignore"
    )
    writer.writeheader()
    try:
        for row in reader:
            split = row.get("split")
            # Tables name their subject in columns of many names (recvid in a clinical table): a
            # sealed pseudonym or file anywhere in the row takes the row with it.
            values = {value for value in row.values() if isinstance(value, str)}
            named = row.get("file") in files or (not split and bool(values & (subjects | files)))
            if not named and not is_sealed(split or ""):
                writer.writerow(row)
    except csv.Error as error:
        raise DataFault("a table of the dataset cannot be read") from error
    return out.getvalue().encode()


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataFault("a table of the dataset cannot be read") from error


def _create(place: Path) -> BinaryIO:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(place, flags, 0o400), "wb")


def _check(entry: ManifestEntry, length: int, digest: str) -> None:
    if length != entry.bytes or digest != entry.sha256:
        raise DataFault("a file of the dataset is not what its manifest says")


def _read_checked(entry: ManifestEntry, open_object: Opener) -> bytes:
    with open_object(entry) as source:
        content = source.read(entry.bytes + 1)
    _check(entry, len(content), hashlib.sha256(content).hexdigest())
    return content


def _copy_checked(entry: ManifestEntry, open_object: Opener, place: Path) -> None:
    digest = hashlib.sha256()
    length = 0
    with open_object(entry) as source, _create(place) as copy:
        while data := source.read(CHUNK):
            length += len(data)
            if length > entry.bytes:
                break
            digest.update(data)
            copy.write(data)
    _check(entry, length, digest.hexdigest())
