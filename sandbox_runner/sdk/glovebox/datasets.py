"""A dataset directory: its files, ``dataset.toml`` and ``labels.csv``."""

from __future__ import annotations

import csv
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import pictures
from .outputs import config

Row = Mapping[str, str]


def split_of(row: Row) -> str:
    """Return the split of a row; one that names none is for training."""
    return row.get("split", "").strip().lower() or "train"


@dataclass(frozen=True)
class Dataset:
    """One dataset that the job may read. ``rows`` are those of ``labels.csv``, as text."""

    slug: str
    path: Path
    rows: tuple[Row, ...]
    about: Mapping[str, Any]

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels in the order of their numbers: as declared, else in alphabetical order."""
        declared = self.about.get("classes")
        if isinstance(declared, list) and declared:
            return tuple(str(label) for label in declared)
        return tuple(sorted({row["label"] for row in self.rows if row.get("label")}))

    def split(self, name: str) -> tuple[Row, ...]:
        """Return the rows of one split: train, validation (sealed ones are never there)."""
        return tuple(row for row in self.rows if split_of(row) == name)

    def file(self, row: Row) -> Path:
        """Return where the row's file is. Raises ``ValueError`` if it would be elsewhere."""
        relative = PurePosixPath(row["file"])
        if relative.is_absolute() or ".." in relative.parts:
            raise ValueError("a file of labels.csv is outside of its dataset")
        return self.path / relative

    def load(self, row: Row) -> NDArray[Any]:
        """Return the row's pixels as stored: HxW or HxWx3."""
        return pictures.read(self.file(row))[0]

    def target(self, row: Row, positive_label: str | None = None) -> int:
        """Return the row's class number; 1 or 0 where one label is named the positive one."""
        label = row.get("label", "")
        if positive_label is not None:
            return int(label == positive_label)
        return self.classes.index(label)

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
        settings = config()
        wanted = size if size is not None else settings.get("size")
        if wanted is None:
            raise ValueError("say size=(height, width), or [config] size in glovebox.toml")
        height, width = (int(value) for value in wanted)
        if positive_label is None:
            positive_label = settings.get("positive_label")
        rows = self.split(split)
        pixels = np.zeros((len(rows), 1, height, width), dtype=np.float32)
        for index, row in enumerate(rows):
            pixels[index, 0] = pictures.prepare(self.file(row), (height, width))
        targets = np.array([self.target(row, positive_label) for row in rows], dtype=np.int64)
        return pixels, targets, [row.get("subject", "") for row in rows]


def open_dataset(path: Path, slug: str) -> Dataset:
    """Return the dataset in ``path``. Without ``labels.csv`` every picture is a training row."""
    about: Mapping[str, Any] = {}
    if (path / "dataset.toml").is_file():
        about = tomllib.loads((path / "dataset.toml").read_text(encoding="utf-8"))
    labels = path / "labels.csv"
    rows: list[Row]
    if labels.is_file():
        with labels.open(encoding="utf-8-sig", newline="") as stream:
            rows = [{k: v or "" for k, v in row.items() if k} for row in csv.DictReader(stream)]
    else:
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in pictures.PICTURES)
        rows = [
            {
                "file": p.relative_to(path).as_posix(),
                "subject": p.parent.name,
                "label": "",
                "split": "train",
            }
            for p in found
        ]
    return Dataset(slug=slug, path=path, rows=tuple(rows), about=about)


def dataset(slug: str) -> Dataset:
    """Return a dataset by the name under which ``glovebox.toml`` asked for it.

    Raises ``FileNotFoundError`` if this job was not given it.
    """
    path = Path(os.environ.get("GLOVEBOX_DATA", "data")) / slug
    if not path.is_dir():
        raise FileNotFoundError(f"no dataset {slug!r} here: name it in [datasets] of glovebox.toml")
    return open_dataset(path, slug)
