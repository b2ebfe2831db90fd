"""Write a version's files, verified, into an empty directory of ours; small ones in shards too.

Several files are read at once: what is waited for is the disk or the object store, and digests and
ciphers leave Python to the other threads. Small files are asked for in batches, which who stores
them may have beside each other. Shards are written in the order of the manifest by one.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

from policies.document import StagingPolicy
from policies.names import path_fault
from sandbox_runner.packing import Run, ShardWriter, write_run
from sandbox_runner.private_files import begin_writeback, create, write_new
from sandbox_runner.sealed_split import DataFault, SealedSplit
from sandbox_runner.spec import DatasetManifest, ManifestEntry
from sandbox_runner.verifier import Verifier

LABELS: Final = "labels.csv"
CHUNK: Final = 1 << 20
#: Read at once. More than cores: most of their time they wait for a disk.
THREADS: Final = 8
#: Handed to a thread together: a thread costs more than a small file, and what lies together is
#: read together.
BATCH_FILES: Final = 1024
BATCH_BYTES: Final = 4 << 20
#: Files up to this size are read whole, in batches.
SMALL: Final = 1 << 20

#: Gives a file's plain bytes; called from several threads at once.
Opener = Callable[[ManifestEntry], BinaryIO]
#: Gives the plain bytes of small files in their order; called from several threads at once. When it
#: returns, a disk or a store has been waited for; deciphering may be left to who takes the bytes.
ReadMany = Callable[[Sequence[ManifestEntry]], Iterable[bytes]]
T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """What will be written: ``tables`` filtered, ``large`` by path, ``small`` packed."""

    tables: tuple[ManifestEntry, ...]
    large: tuple[ManifestEntry, ...]
    small: tuple[ManifestEntry, ...]
    #: Small files stand under their paths, too.
    paths: bool

    @property
    def bytes(self) -> int:
        """The bytes of all files, as long as none is smaller than its manifest says."""
        by_path = [*self.tables, *self.large, *(self.small if self.paths else ())]
        return sum(entry.bytes for entry in [*by_path, *self.small])

    @property
    def files(self) -> int:
        """The number of files, shards not counted."""
        return len(self.tables) + len(self.large) + (len(self.small) if self.paths else 0)


def plan(
    manifest: DatasetManifest,
    split: SealedSplit | None,
    policy: StagingPolicy | None,
) -> Plan:
    """Return what is staged of a version: without ``split`` all of it, without ``policy`` by path.

    Raises :class:`DataFault` for a path that cannot be staged.
    """
    tables: list[ManifestEntry] = []
    others: list[ManifestEntry] = []
    for entry in manifest.entries:
        # Names of a published version are neutral, but a plain directory may hold any.
        if path_fault(entry.path, depth=32, length=1000) is not None:
            raise DataFault("a file of the dataset has a path that cannot be staged")
        if split is None or not split.holds(entry):
            filtered = split is not None and entry.path.endswith(".csv")
            (tables if filtered else others).append(entry)
    small: list[ManifestEntry] = []
    if policy is not None:
        small = [
            entry
            for entry in others
            # What describes the dataset is read by path, by the SDK too.
            if entry.bytes <= policy.pack_file_bytes and not entry.path.endswith((".csv", ".toml"))
        ]
        if len(small) < policy.pack_files:
            small = []
    _check_tree([entry.path for entry in manifest.entries])
    packed = {entry.path for entry in small}
    large = tuple(entry for entry in others if entry.path not in packed)
    return Plan(tuple(tables), large, tuple(small), policy is None or policy.paths)


def fill(
    planned: Plan,
    open_object: Opener,
    files: Path,
    shards: Path,
    split: SealedSplit | None,
    read_many: ReadMany | None,
    verifier: Verifier | None,
) -> None:
    """Write what was planned below two empty directories, and close them for writing.

    Small files come from ``read_many``, or without it from ``open_object`` as all others do; what
    goes into shards is compared with its digests by ``verifier``, which the caller closes.
    Raises :class:`DataFault` where a length or a digest is wrong, ``OSError`` for a full disk.
    Whatever it raises, no thread writes any more when it has returned.
    """
    many = read_many or _each(open_object)
    made = _make_directories(planned, files)
    for entry in planned.tables:
        table = read_checked(entry, open_object)
        write_new(files / entry.path, split.open_rows(table) if split is not None else table)
    whole = [entry for entry in planned.large if entry.bytes <= SMALL]
    large = [entry for entry in planned.large if entry.bytes > SMALL]
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="stage")
    try:
        copies = (
            lambda entry=entry: _copy(entry, open_object, files / entry.path) for entry in large
        )
        written = (lambda batch=batch: _write(batch, many, files) for batch in _batches(whole))
        for _done in _in_order(pool, itertools.chain(copies, written)):
            pass
        if planned.small and verifier is not None:
            beside = files if planned.paths else None
            _pack(pool, planned.small, many, beside, shards, verifier)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    for directory in [shards, *made, files]:
        directory.chmod(0o555)


def read_checked(entry: ManifestEntry, open_object: Opener) -> bytes:
    """Return a file's bytes. Raises :class:`DataFault` where they are not the manifest's."""
    [content] = _each(open_object)([entry])
    _check(entry, len(content), hashlib.sha256(content).hexdigest())
    return content


def _each(open_object: Opener) -> ReadMany:
    """Return a reader of small files that opens one after another."""

    def read(entries: Sequence[ManifestEntry]) -> list[bytes]:
        contents = []
        for entry in entries:
            with open_object(entry) as source:
                contents.append(source.read(entry.bytes + 1))
        return contents

    return read


def _make_directories(planned: Plan, files: Path) -> list[Path]:
    by_path = [*planned.tables, *planned.large, *(planned.small if planned.paths else ())]
    parents = {parent for entry in by_path for parent in _parents(entry.path)}
    made = [files / parent for parent in sorted(parents)]
    for directory in made:
        directory.mkdir(mode=0o700)
    return made


def _check_tree(paths: list[str]) -> None:
    """Raise :class:`DataFault` where a path stands twice, or below another file."""
    names = set(paths)
    below = (parent for path in names for parent in _parents(path))
    if len(names) < len(paths) or not names.isdisjoint(below):
        raise DataFault("two files of the dataset have paths that cannot stand beside each other")


def _parents(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _pack(
    pool: ThreadPoolExecutor,
    small: tuple[ManifestEntry, ...],
    many: ReadMany,
    beside: Path | None,
    shards: Path,
    verifier: Verifier,
) -> None:
    """Have small files read and written by threads, decipher them here, and verify elsewhere.

    Deciphering keeps Python to itself, so that one thread does all of it: to hand Python on costs
    more than a small file.
    """
    writer = ShardWriter(shards)
    try:
        loads = ((lambda batch=batch: (batch, many(batch))) for batch in _batches(small))
        opened = (
            (batch, contents, writer.place(list(_placed(batch, contents))))
            for batch, loaded in _in_order(pool, loads)
            for contents in [list(loaded)]
        )
        stores = (
            lambda batch=batch, contents=contents, runs=runs: _store(batch, contents, runs, beside)
            for batch, contents, runs in opened
        )
        for batch, runs in _in_order(pool, stores):
            for run in runs:
                files = batch[run.first : run.after]
                digests = bytes.fromhex("".join([entry.sha256 for entry in files]))
                verifier.check(run.path, run.offset, [entry.bytes for entry in files], digests)
        verifier.finish()
        writer.finish()
    finally:
        writer.close()


def _placed(
    batch: Sequence[ManifestEntry], contents: Sequence[bytes]
) -> Iterator[tuple[str, int, bytes]]:
    for entry, content in zip(batch, contents, strict=True):
        if len(content) != entry.bytes:
            raise DataFault("a file of the dataset is not what its manifest says")
        yield entry.path, entry.bytes, bytes.fromhex(entry.sha256)


def _store(
    batch: list[ManifestEntry], contents: list[bytes], runs: list[Run], beside: Path | None
) -> tuple[list[ManifestEntry], list[Run]]:
    for run in runs:
        write_run(run, contents[run.first : run.after])
    if beside is not None:
        for entry, content in zip(batch, contents, strict=True):
            write_new(beside / entry.path, content)
    return batch, runs


def _batches(entries: Sequence[ManifestEntry]) -> Iterator[list[ManifestEntry]]:
    batch: list[ManifestEntry] = []
    size = 0
    for entry in entries:
        if batch and (len(batch) == BATCH_FILES or size + entry.bytes > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += entry.bytes
    if batch:
        yield batch


def _write(batch: list[ManifestEntry], many: ReadMany, files: Path) -> None:
    for entry, content in zip(batch, many(batch), strict=True):
        _check(entry, len(content), hashlib.sha256(content).hexdigest())
        write_new(files / entry.path, content)


def _in_order(pool: ThreadPoolExecutor, work: Iterable[Callable[[], T]]) -> Iterator[T]:
    """Give the results in the order of the work, with a bounded number of pieces under way."""
    under_way: deque[Future[T]] = deque()
    for piece in work:
        under_way.append(pool.submit(piece))
        if len(under_way) >= THREADS:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()


def _copy(entry: ManifestEntry, open_object: Opener, place: Path) -> None:
    digest = hashlib.sha256()
    length = 0
    with open_object(entry) as source, create(place, 0) as copy:
        while data := source.read(CHUNK):
            length += len(data)
            if length > entry.bytes:
                break
            digest.update(data)
            rest = memoryview(data)
            while rest:
                rest = rest[copy.write(rest) :]
            begin_writeback(copy.fileno(), length - len(data), len(data))
    _check(entry, length, digest.hexdigest())


def _check(entry: ManifestEntry, length: int, digest: str) -> None:
    if length != entry.bytes or digest != entry.sha256:
        raise DataFault("a file of the dataset is not what its manifest says")
