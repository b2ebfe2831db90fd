"""The training samples as the search needs them: files, pixels, and pixels as a network saw them.

Read once, in a worker process, and kept only as far as the search compares them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sandbox_runner.sdk.glovebox import pictures
from sandbox_runner.sdk.glovebox.datasets import Dataset, open_dataset

#: More than this many training samples are searched by an even choice of them, and it is said.
MOST_SAMPLES: Final = 2000
_FILE_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True)
class Sample:
    """One training picture. ``prepared`` is what the SDK gives a network, at ``[config] size``."""

    place: str  # slug and file, for reviewers only
    file: bytes
    pixels: NDArray[Any]
    grey: NDArray[np.float64]
    low: float
    high: float
    prepared: NDArray[np.float32]


@dataclass(frozen=True)
class Training:
    """Which rows are searched, of how many that were staged; ``members`` are the training rows."""

    rows: tuple[tuple[Dataset, Mapping[str, str]], ...]
    total: int
    members: int


def choose(datasets: Mapping[str, Path], most: int = MOST_SAMPLES) -> Training:
    """Return the staged rows of all datasets, or an even choice of ``most`` of them."""
    opened = [open_dataset(path, slug) for slug, path in sorted(datasets.items())]
    # Validation rows were staged as well, so they may have been stored as well.
    rows = [
        (dataset, row)
        for dataset in opened
        for split in ("train", "validation")
        for row in dataset.split(split)
    ]
    members = sum(len(dataset.split("train")) for dataset in opened)
    step = max(1.0, len(rows) / most)
    chosen = [rows[int(i * step)] for i in range(min(len(rows), most))]
    return Training(tuple(chosen), len(rows), members)


def read(training: Training, size: tuple[int, int]) -> Iterator[Sample | None]:
    """Give each sample, or None where its file cannot be read."""
    for dataset, row in training.rows:
        path = dataset.file(row)
        try:
            with path.open("rb") as stream:
                data = stream.read(_FILE_BYTES)
            pixels, low, high = pictures.read(path)
            grey = pictures.grey(pixels)
            scaled = (pictures.resize_by_area(grey, size) - low) / (high - low)
        except Exception:
            # Whatever a decoder says of a broken file: it is counted, and the search goes on.
            yield None
            continue
        yield Sample(
            place=f"{dataset.slug}/{row['file']}",
            file=data,
            pixels=pixels,
            grey=grey,
            low=low,
            high=high,
            prepared=np.clip(scaled, 0.0, 1.0).astype(np.float32),
        )
