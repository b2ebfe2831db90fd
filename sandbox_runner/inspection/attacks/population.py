"""Whose pictures the network is asked about: members, others that a job saw, and held-out ones.

Members are the subjects of the split ``train``. Held-out ones are those of the sealed split: the
platform keeps them from every job, so that no submission can have trained on them. Validation
rows were staged, and a job may have trained on them: they are neither, and have a figure of their
own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sandbox_runner.sdk.glovebox import pictures
from sandbox_runner.sdk.glovebox.datasets import Dataset, open_dataset, split_of
from sandbox_runner.stage import is_sealed

MEMBER: Final = 0
OPEN: Final = 1
HELD_OUT: Final = 2
#: One subject with thousands of pictures must not use up the whole budget.
MOST_OF_A_SUBJECT: Final = 8
ARRAY_BYTES: Final = 1024**3


@dataclass(frozen=True)
class Population:
    """Pictures [n, 1, H, W] as a network gets them, and what it does not get.

    ``targets`` are class numbers (-1 where unknown), ``places`` slug and file, for reviewers.
    ``reference`` is how surely networks of ours that never saw the subject tell its class (log
    odds), or None. ``subjects_of`` counts all subjects of each group before any were left out.
    """

    pixels: NDArray[np.float32]
    targets: NDArray[np.int64]
    subjects: NDArray[np.int64]
    groups: NDArray[np.int64]
    places: Sequence[str]
    classes: int
    reference: NDArray[np.float64] | None
    subjects_of: tuple[int, int, int]

    def of(self, *groups: int) -> Population:
        """Return the part of these groups."""
        return self._rows(np.flatnonzero(np.isin(self.groups, groups)))

    def of_subjects(self, names: NDArray[np.int64]) -> Population:
        """Return the part of these subjects."""
        return self._rows(np.flatnonzero(np.isin(self.subjects, names)))

    def _rows(self, kept: NDArray[np.int64]) -> Population:
        return Population(
            self.pixels[kept],
            self.targets[kept],
            self.subjects[kept],
            self.groups[kept],
            [self.places[i] for i in kept],
            self.classes,
            self.reference[kept] if self.reference is not None else None,
            self.subjects_of,
        )

    @property
    def members(self) -> NDArray[np.bool_]:
        """Which pictures are of subjects in training."""
        return np.asarray(self.groups == MEMBER)


def group_of(row: Mapping[str, str]) -> int:
    """Return the group of one row of ``labels.csv``."""
    if is_sealed(row.get("split", "")):
        return HELD_OUT
    return MEMBER if split_of(row) == "train" else OPEN


def prepare(request: Mapping[str, Any]) -> dict[str, Any]:
    """Write an even choice of every group's pictures to ``pixels.npy``; return what they are.

    Runs in the worker. Whole subjects are chosen, so many that each group has about
    ``request["most"]`` pictures.
    """
    size = (int(request["size"][0]), int(request["size"][1]))
    positive, most = request["positive_label"], int(request["most"])
    most = min(most, max(1, ARRAY_BYTES // (3 * 4 * size[0] * size[1])))
    opened = [
        open_dataset(Path(place), slug) for slug, place in sorted(request["datasets"].items())
    ]
    rng = np.random.default_rng(int(request["seed"]))
    pixels: list[NDArray[np.float32]] = []
    targets: list[int] = []
    subjects: list[int] = []
    groups: list[int] = []
    places: list[str] = []
    counts, unreadable, classes = [0, 0, 0], 0, 2 if positive else 1
    for dataset in opened:
        if not positive:
            classes = max(classes, len(_classes(dataset)))
    names: dict[tuple[int, str], int] = {}
    for group in (MEMBER, OPEN, HELD_OUT):
        rows = _rows_by_subject(opened, group)
        counts[group] = len(rows)
        taken = 0
        for key in [list(rows)[i] for i in rng.permutation(len(rows))]:
            if taken >= most:
                break
            own = rows[key]
            chosen = sorted(rng.permutation(len(own))[:MOST_OF_A_SUBJECT])
            for dataset, row in (own[i] for i in chosen):
                try:
                    picture = pictures.prepare(dataset.file(row), size)
                except Exception:
                    # Whatever a decoder says of a broken file: it is counted, and no member.
                    unreadable += 1
                    continue
                pixels.append(picture[None])
                targets.append(_target(dataset, row, positive))
                subjects.append(names.setdefault((group, key), len(names)))
                groups.append(group)
                places.append(f"{dataset.slug}/{row['file']}"[:300])
                taken += 1
    stacked = np.stack(pixels) if pixels else np.zeros((0, 1, *size), np.float32)
    np.save(Path(request["output"]) / "pixels.npy", stacked, allow_pickle=False)
    answer: dict[str, Any] = {
        "targets": targets,
        "subjects": subjects,
        "groups": groups,
        "places": places,
        "classes": classes,
        "subjects_of": counts,
        "unreadable": unreadable,
        "reference": None,
    }
    if request.get("references") and len(stacked):
        from sandbox_runner.inspection.attacks import references

        answer["reference"] = references.confidences(
            stacked,
            np.array(targets),
            np.array(subjects),
            classes,
            networks=int(request["references"]),
            seconds=float(request["reference_seconds"]),
            seed=int(request["seed"]),
        )
    return answer


def read(answer: Mapping[str, Any], folder: Path) -> Population:
    """Return what the worker prepared, and remove its file. Raises ``ValueError``."""
    place = folder / "pixels.npy"
    pixels = np.load(place, allow_pickle=False)
    place.unlink()
    targets, subjects, groups = (
        np.array(answer[name], dtype=np.int64) for name in ("targets", "subjects", "groups")
    )
    places = [str(each) for each in answer["places"]]
    if pixels.dtype != np.float32 or pixels.ndim != 4 or pixels.shape[1] != 1:
        raise ValueError("not pictures")
    if not all(len(each) == len(pixels) for each in (targets, subjects, groups, places)):
        raise ValueError("not as many rows as pictures")
    reference = answer["reference"]
    confidences = None if reference is None else np.array(reference, dtype=np.float64)
    if confidences is not None and (
        confidences.shape != (len(pixels),) or not np.isfinite(confidences).all()
    ):
        raise ValueError("not one figure a picture")
    first, second, third = (int(count) for count in answer["subjects_of"])
    return Population(
        pixels,
        targets,
        subjects,
        groups,
        places,
        int(answer["classes"]),
        confidences,
        (first, second, third),
    )


def _classes(dataset: Dataset) -> list[str]:
    """Return the labels by number as a training job counts them: from rows that it can see."""
    declared = dataset.about.get("classes")
    if isinstance(declared, list) and declared:
        return [str(label) for label in declared]
    return sorted(
        {row["label"] for row in dataset.rows if row.get("label") and group_of(row) != HELD_OUT}
    )


def _target(dataset: Dataset, row: Mapping[str, str], positive: str | None) -> int:
    label = row.get("label", "")
    if positive:
        return int(label == positive)
    known = _classes(dataset)
    return known.index(label) if label in known else -1


def _rows_by_subject(
    opened: Sequence[Dataset], group: int
) -> dict[str, list[tuple[Dataset, Mapping[str, str]]]]:
    found: dict[str, list[tuple[Dataset, Mapping[str, str]]]] = {}
    for dataset in opened:
        for row in dataset.rows:
            if group_of(row) == group:
                # A row without a subject is a subject of its own.
                key = f"{dataset.slug}/{row.get('subject') or row['file']}"
                found.setdefault(key, []).append((dataset, row))
    return found
