"""The training data by subject, as the private trainer takes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sandbox_runner.sdk.glovebox.datasets import open_dataset


@dataclass(frozen=True)
class Subject:
    """One subject's pictures, float32 [n, 1, H, W], and their class numbers [n]."""

    pictures: NDArray[np.float32]
    targets: NDArray[np.int64]


class NoSubject(Exception):
    """A row of the training says of nobody whose it is, so nobody could be protected."""


def read_subjects(
    datasets: Mapping[str, Path],
    size: tuple[int, int],
    positive_label: str | None,
    *,
    classes: bool = True,
    shards: Path | None = None,
) -> list[Subject]:
    """Return every subject of the split ``train``, also one of whom nothing can be read.

    A picture that is broken, or of no class, is left out: that a training fails, or how, must not
    tell of it. How many subjects there are, and which classes, is taken as known: both stand in
    the catalogue. Without ``classes`` each class number is 0. Raises :class:`NoSubject`.
    """
    subjects: list[Subject] = []
    for slug, place in sorted(datasets.items()):
        dataset = open_dataset(place, slug, shards / slug if shards else None)
        pictures: dict[str, list[NDArray[np.float32]]] = {}
        targets: dict[str, list[int]] = {}
        for row in dataset.split("train"):
            name = row.get("subject", "").strip()
            if not name:
                raise NoSubject
            pictures.setdefault(name, [])
            targets.setdefault(name, [])
            try:
                picture = dataset.prepare(row, size)
                target = dataset.target(row, positive_label) if classes else 0
            except Exception:  # noqa: S112 - to say which would tell of it
                continue
            pictures[name].append(picture)
            targets[name].append(target)
        for name, rows in pictures.items():
            stacked = np.stack(rows)[:, None] if rows else np.zeros((0, 1, *size), np.float32)
            subjects.append(Subject(stacked, np.array(targets[name], dtype=np.int64)))
    return subjects
