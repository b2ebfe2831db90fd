"""Which files and rows of a version training may not see: those of the sealed split.

Everything that could be a sealed subject's goes: a table that names a file in another spelling, or
a subject in a column of another name, must not be the way around the split.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Final, Self

from policies.errors import GloveboxError
from policies.names import path_key
from sandbox_runner.spec import DatasetManifest, ManifestEntry

#: What training may see; every other word in a split column is treated as sealed.
OPEN_SPLITS: Final = frozenset({"", "train", "validation"})


class DataFault(GloveboxError):
    """The data is not what its manifest says. Names no file: names may belong to people."""


def is_sealed(split: str) -> bool:
    """Return whether rows with this word in ``split`` are kept from training."""
    return split.strip().lower() not in OPEN_SPLITS


class SealedSplit:
    """The files and subjects of a version that are sealed, from its manifest and its labels."""

    def __init__(self, files: set[str], subjects: set[str]) -> None:
        self._files = {_spelling(name) for name in files} - {""}
        self._subjects = subjects - {""}

    @classmethod
    def of(cls, manifest: DatasetManifest, labels: bytes) -> Self:
        """Return what a version's manifest and ``labels.csv`` seal. Raises DataFault."""
        sealed = [entry for entry in manifest.entries if is_sealed(entry.split)]
        files = {entry.path for entry in sealed}
        subjects = {entry.subject for entry in sealed}
        for row in _rows(labels):
            if is_sealed(row.get("split") or ""):
                files.add(row.get("file") or "")
                subjects.add(row.get("subject") or "")
        return cls(files, subjects)

    def holds(self, entry: ManifestEntry) -> bool:
        """Whether a file is sealed; one without a split (an annotation) goes with its subject."""
        return (
            is_sealed(entry.split)
            or (not entry.split and entry.subject in self._subjects)
            or _spelling(entry.path) in self._files
        )

    def open_rows(self, table: bytes) -> bytes:
        """Return a table without the sealed rows. Raises DataFault where it cannot be read."""
        if not self._files and not self._subjects:
            return table
        reader = csv.DictReader(io.StringIO(_decoded(table), newline=""))
        out = io.StringIO(newline="")
        writer = csv.DictWriter(
            out, reader.fieldnames or [], lineterminator="\n", extrasaction="ignore"
        )
        writer.writeheader()
        try:
            writer.writerows(row for row in reader if not self._names(row))
        except csv.Error as error:
            raise DataFault("a table of the dataset cannot be read") from error
        return out.getvalue().encode()

    def _names(self, row: dict[str, str]) -> bool:
        split = row.get("split") or ""
        if is_sealed(split) or _spelling(row.get("file") or "") in self._files:
            return True
        # Tables name their subject in columns of many names (recvid in a clinical table): a sealed
        # pseudonym or file anywhere in the row takes the row with it.
        values = [value for value in row.values() if isinstance(value, str)]
        return not split and any(
            value in self._subjects or _spelling(value) in self._files for value in values
        )


def _spelling(path: str) -> str:
    """Return one form for all ways in which a table may write a file's path."""
    key = path.lower() if path.isascii() else path_key(path)
    parts = key.strip().replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in ("", "."))


def _rows(content: bytes) -> Iterator[dict[str, str]]:
    try:
        yield from csv.DictReader(io.StringIO(_decoded(content), newline=""))
    except csv.Error as error:
        raise DataFault("a table of the dataset cannot be read") from error


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataFault("a table of the dataset cannot be read") from error
