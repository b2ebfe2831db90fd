"""A dataset directory: its files, ``dataset.toml`` and ``labels.csv``.

Of a dataset with many small files these stand in shards as well, which are read many times faster
than each file is opened. Which of the two a file comes from makes no difference to a caller.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import itertools
import os
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from . import pictures
from .outputs import config
from .shards import ABOUT, Shards

Row = Mapping[str, str]


def split_of(row: Row) -> str:
    """Return the split of a row; one that names none is for training."""
    return row.get("split", "").strip().lower() or "train"


@dataclass(frozen=True)
class Dataset:
    """One dataset that the job may read. ``rows`` are those of ``labels.csv``, as text.

    It may be given to worker processes, forked or not: they share the data, not a position in it.
    """

    slug: str
    path: Path
    rows: tuple[Row, ...]
    about: Mapping[str, Any]
    shards: Shards | None = None

    def __len__(self) -> int:
        """Return the number of rows, of all splits together."""
        return len(self.rows)

    @functools.cached_property
    def classes(self) -> tuple[str, ...]:
        """The labels in the order of their numbers: as declared, else in alphabetical order."""
        declared = self.about.get("classes")
        if isinstance(declared, list) and declared:
            return tuple(str(label) for label in declared)
        return tuple(sorted({row["label"] for row in self.rows if row.get("label")}))

    @functools.cached_property
    def _class_numbers(self) -> Mapping[str, int]:
        return {label: number for number, label in enumerate(self.classes)}

    @property
    def splits(self) -> dict[str, int]:
        """How many rows each split has; a sealed one is never there."""
        return {name: len(rows) for name, rows in self._splits.items()}

    def split(self, name: str) -> tuple[Row, ...]:
        """Return the rows of one split: train, validation (sealed ones are never there)."""
        return self._splits.get(name, ())

    @functools.cached_property
    def _splits(self) -> Mapping[str, tuple[Row, ...]]:
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            found.setdefault(split_of(row), []).append(row)
        return {name: tuple(rows) for name, rows in found.items()}

    def file(self, row: Row) -> Path:
        """Return where the row's file is, for a library that opens by path.

        A file that stands in the shards alone is copied to the temporary folder first, once.
        ``read`` and ``open`` are faster and need no room. Raises ``ValueError`` if the file would
        be outside of the dataset.
        """
        relative = _relative(row)
        place = self.path / relative
        number = self._number(row)
        if number is None or place.exists():
            return place
        return self._copied_out(relative, number)

    def read(self, row: Row) -> bytes:
        """Return the bytes of the row's file.

        Raises ``FileNotFoundError`` naming a file that the dataset does not hold.
        """
        number = self._numbers.get(row.get("file", ""))
        if number is None:
            number = self._number(row)
            if number is None:
                with self._by_path(row) as file:
                    return file.read()
        return self.shards.read(number)  # type: ignore[union-attr]

    def open(self, row: Row) -> BinaryIO:
        """Return the row's file open for reading, as ``Image.open`` and ``dcmread`` take it."""
        number = self._number(row)
        if number is not None:
            return io.BytesIO(self.shards.read(number))  # type: ignore[union-attr]
        return self._by_path(row)

    def size(self, row: Row) -> int:
        """Return the bytes that the row's file has."""
        number = self._number(row)
        if number is not None:
            return self.shards.size(number)  # type: ignore[union-attr]
        with self._by_path(row) as file:
            return os.fstat(file.fileno()).st_size

    def stream(self, rows: str | Sequence[Row]) -> Iterator[tuple[Row, bytes]]:
        """Give each row of a split, or of any list, with the bytes of its file, in this order.

        The fastest way to read everything once: neighbours are read together.
        """
        wanted, numbers = self._wanted(rows)
        if numbers is None or self.shards is None:
            return self._mixed(wanted)
        return zip(wanted, self.shards.stream(numbers), strict=True)

    def views(self, rows: str | Sequence[Row]) -> Iterator[tuple[Row, memoryview]]:
        """Give the same as :meth:`stream`, as read-only views of what was read.

        For decoders that take any buffer (``numpy.frombuffer``): it saves a copy of each file. A
        view that is kept keeps its neighbours in memory, too.
        """
        wanted, numbers = self._wanted(rows)
        if numbers is None or self.shards is None:
            return ((row, memoryview(content)) for row, content in self._mixed(wanted))
        return zip(wanted, self.shards.views(numbers), strict=True)

    def _wanted(self, rows: str | Sequence[Row]) -> tuple[Sequence[Row], NDArray[np.int64] | None]:
        if not isinstance(rows, str):
            return rows, self._all_packed(rows)
        wanted = self.split(rows)
        if rows not in self._places:  # every epoch asks for the same
            self._places[rows] = self._all_packed(wanted)
        return wanted, self._places[rows]

    @functools.cached_property
    def _places(self) -> dict[str, NDArray[np.int64] | None]:
        return {}

    def _all_packed(self, rows: Sequence[Row]) -> NDArray[np.int64] | None:
        """Return where rows stand in the shards, None unless all of them do."""
        place = self._numbers.get
        numbers = [place(row.get("file", ""), -1) for row in rows]
        return None if -1 in numbers else np.array(numbers, dtype=np.int64)

    def _mixed(self, rows: Sequence[Row]) -> Iterator[tuple[Row, bytes]]:
        for packed, group in itertools.groupby(rows, lambda row: self._number(row) is not None):
            run = list(group)
            if packed and self.shards is not None:
                numbers = [number for row in run if (number := self._number(row)) is not None]
                yield from zip(run, self.shards.stream(numbers), strict=True)
            else:
                for row in run:
                    yield row, self.read(row)

    def load(self, row: Row) -> NDArray[Any]:
        """Return the row's pixels as stored: HxW or HxWx3.

        Raises ``ValueError`` naming a file that is no picture of its kind.
        """
        with self._decoding(row) as file:
            return pictures.read(file, row["file"])[0]

    def prepare(self, row: Row, size: tuple[int, int]) -> NDArray[np.float32]:
        """Return the row's picture as float32 of shape ``size`` (height, width), 0..1.

        Raises ``ValueError`` naming a file that is no picture of its kind.
        """
        with self._decoding(row) as file:
            return pictures.prepare(file, size, row["file"])

    def target(self, row: Row, positive_label: str | None = None) -> int:
        """Return the row's class number; 1 or 0 where one label is named the positive one.

        Raises ``ValueError`` for a label that is none of ``classes``.
        """
        label = row.get("label", "")
        if positive_label is not None:
            return int(label == positive_label)
        if label not in self._class_numbers:
            raise ValueError(
                f"{row['file']}: its label {label!r} is none of {', '.join(self.classes) or 'any'};"
                " leave such rows out, or name the positive_label"
            )
        return self._class_numbers[label]

    def samples(
        self,
        split: str,
        size: tuple[int, int] | None = None,
        positive_label: str | None = None,
    ) -> Samples:
        """Return a split as ``torch.utils.data.DataLoader`` takes it; nothing is read yet.

        The arguments default as those of :meth:`arrays`, and an item is what a row of these is:
        float32 [1, H, W] and the class number.
        """
        height, width, positive_label = _prepared_as(size, positive_label)
        return Samples(self, self.split(split), (height, width), positive_label)

    def arrays(
        self,
        split: str,
        size: tuple[int, int] | None = None,
        positive_label: str | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], list[str]]:
        """Return ``X`` (float32 [n, 1, H, W], 0..1), ``y`` (int64 [n]) and the n subjects.

        ``size`` is (height, width). Both arguments default to ``size`` and ``positive_label`` of
        the submission's ``[config]``, which the trusted evaluation reads too. Nothing is cached.

        Raises ``ValueError`` where no size is known or a label is not one of ``classes``.
        """
        height, width, positive_label = _prepared_as(size, positive_label)
        rows = self.split(split)
        pixels = np.zeros((len(rows), 1, height, width), dtype=np.float32)
        for index, row in enumerate(rows):
            pixels[index, 0] = self.prepare(row, (height, width))
        targets = np.array([self.target(row, positive_label) for row in rows], dtype=np.int64)
        return pixels, targets, [row.get("subject", "") for row in rows]

    @functools.cached_property
    def _numbers(self) -> Mapping[str, int]:
        return self.shards.numbers if self.shards is not None else {}

    def _number(self, row: Row) -> int | None:
        number = self._numbers.get(row.get("file", ""))
        # A table may write a path in another way, such as ./s1/1.png.
        return number if number is not None else self._numbers.get(_relative(row).as_posix())

    def _by_path(self, row: Row) -> BinaryIO:
        try:
            return (self.path / _relative(row)).open("rb")
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{row['file']}: the dataset {self.slug} has no such file; leave the row out"
            ) from None

    @contextlib.contextmanager
    def _decoding(self, row: Row) -> Iterator[BinaryIO]:
        with self.open(row) as file:
            try:
                yield file
            except (ImportError, MemoryError):
                raise
            except Exception as error:
                # A broken file among a hundred thousand: without its name nobody finds it.
                raise ValueError(
                    f"{row['file']} of {self.slug} cannot be read as a picture "
                    f"({type(error).__name__}: {error}); leave the row out"
                ) from error

    def _copied_out(self, relative: PurePosixPath, number: int) -> Path:
        place = _private_folder() / self.slug / relative
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            content = self.shards.read(number)  # type: ignore[union-attr]
            # Workers may copy the same file at once: each its own, and the last name wins.
            handle, partial = tempfile.mkstemp(dir=place.parent)
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(partial).replace(place)
        return place


@dataclass(frozen=True)
class Samples(Sequence[tuple[NDArray[np.float32], int]]):
    """Rows as pictures and class numbers, read one by one as they are asked for."""

    dataset: Dataset
    rows: tuple[Row, ...]
    size: tuple[int, int]
    positive_label: str | None = None

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        """Return float32 [1, H, W], 0..1, and the class number; for a slice, fewer samples."""
        if isinstance(index, slice):
            return Samples(self.dataset, self.rows[index], self.size, self.positive_label)
        row = self.rows[index]
        picture = self.dataset.prepare(row, self.size)
        return picture[None], self.dataset.target(row, self.positive_label)


def _prepared_as(
    size: tuple[int, int] | None, positive_label: str | None
) -> tuple[int, int, str | None]:
    settings = config()
    wanted = size if size is not None else settings.get("size")
    if wanted is None:
        raise ValueError("say size=(height, width), or [config] size in glovebox.toml")
    height, width = (int(value) for value in wanted)
    if positive_label is None:
        positive_label = settings.get("positive_label")
    return height, width, positive_label


def _relative(row: Row) -> PurePosixPath:
    if not row.get("file"):
        raise ValueError("a row of labels.csv names no file: is there a column called file?")
    relative = PurePosixPath(row["file"])
    if relative.is_absolute() or ".." in relative.parts:
        raise ValueError("a file of labels.csv is outside of its dataset")
    return relative


@functools.cache
def _private_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="glovebox-"))


def open_dataset(path: Path, slug: str, shards: Path | None = None) -> Dataset:
    """Return the dataset in ``path``. Without ``labels.csv`` every picture is a training row.

    ``shards`` is the folder of its shards, where it may have one. Raises ``DamagedShards``.
    """
    packed = Shards(shards) if shards is not None and (shards / ABOUT).is_file() else None
    about: Mapping[str, Any] = {}
    if (path / "dataset.toml").is_file():
        about = tomllib.loads((path / "dataset.toml").read_text(encoding="utf-8"))
    labels = path / "labels.csv"
    rows: list[Row]
    if labels.is_file():
        with labels.open(encoding="utf-8-sig", newline="") as stream:
            rows = [{k: v or "" for k, v in row.items() if k} for row in csv.DictReader(stream)]
    else:
        found = {PurePosixPath(p.relative_to(path).as_posix()) for p in path.rglob("*")}
        if packed is not None:
            found |= {PurePosixPath(name) for name in packed.numbers}
        rows = [
            {"file": str(p), "subject": p.parent.name, "label": "", "split": "train"}
            for p in sorted(found)
            if p.suffix.lower() in pictures.PICTURES
        ]
    return Dataset(slug=slug, path=path, rows=tuple(rows), about=about, shards=packed)


def dataset(slug: str) -> Dataset:
    """Return a dataset by the name under which ``glovebox.toml`` asked for it.

    Raises ``FileNotFoundError`` if this job was not given it.
    """
    path = Path(os.environ.get("GLOVEBOX_DATA", "data")) / slug
    if not path.is_dir():
        there = ", ".join(sorted(p.name for p in path.parent.glob("*") if p.is_dir())) or "none"
        raise FileNotFoundError(
            f"no dataset {slug!r} here (there is: {there}): name it in [datasets] of glovebox.toml"
        )
    shards = os.environ.get("GLOVEBOX_SHARDS")
    return open_dataset(path, slug, Path(shards) / slug if shards else None)
