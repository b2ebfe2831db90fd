"""Who is a member is what the platform decided before training, subject by subject."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sandbox_runner.inspection.attacks import population, references
from sandbox_runner.inspection.attacks.population import HELD_OUT, MEMBER, OPEN

from .conftest import write_dataset


def prepared(
    root: Path, output: Path, **changed: object
) -> tuple[population.Population, dict[str, object]]:
    output.mkdir(exist_ok=True)
    request = {
        "size": [24, 20],
        "positive_label": "lesion",
        "most": 400,
        "references": 0,
        "reference_seconds": 30.0,
        "seed": 1,
        "datasets": {"spots": str(root)},
        "output": str(output),
    }
    answer = population.prepare(request | changed)
    answer = json.loads(json.dumps(answer))
    return population.read(answer, output), answer


@pytest.fixture(scope="module")
def spots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("population") / "spots"
    write_dataset(root, 36)
    return root


def test_members_are_training_subjects_and_others_the_sealed_ones(
    spots: Path, tmp_path: Path
) -> None:
    people, _ = prepared(spots, tmp_path / "out")

    splits = {
        line.split(",")[0]: line.split(",")[3]
        for line in (spots / "labels.csv").read_text().splitlines()[1:]
    }
    words = {MEMBER: "train", OPEN: "validation", HELD_OUT: "sealed"}
    for place, group in zip(people.places, people.groups, strict=True):
        assert splits[place.removeprefix("spots/")] == words[int(group)]
    assert people.subjects_of == (18, 6, 12)
    assert len(people.pixels) == 72
    assert people.pixels.shape[1:] == (1, 24, 20)
    assert not (tmp_path / "out" / "pixels.npy").exists()


def test_whole_subjects_are_left_out_where_there_are_too_many(spots: Path, tmp_path: Path) -> None:
    people, _ = prepared(spots, tmp_path / "out", most=10)

    for group in (MEMBER, OPEN, HELD_OUT):
        own = people.of(group)
        assert len(own.pixels) == 10
        assert (np.bincount(own.subjects)[np.unique(own.subjects)] == 2).all()
    assert people.subjects_of == (18, 6, 12)


def test_other_subjects_are_drawn_each_time(spots: Path, tmp_path: Path) -> None:
    first = prepared(spots, tmp_path / "a", most=10, seed=1)[0]
    second = prepared(spots, tmp_path / "b", most=10, seed=2)[0]

    assert set(first.places) != set(second.places)


def test_a_broken_picture_is_counted_and_no_member(spots: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(spots, copy)
    (copy / "s0" / "0.png").write_bytes(b"no picture")

    people, answer = prepared(copy, tmp_path / "out")

    assert answer["unreadable"] == 1
    assert "spots/s0/0.png" not in people.places


def test_an_answer_whose_parts_do_not_fit_is_refused(spots: Path, tmp_path: Path) -> None:
    _, answer = prepared(spots, tmp_path / "out")
    for spoil in ({"groups": [0]}, {"reference": [0.5]}, {"subjects_of": [1, 2]}):
        np.save(tmp_path / "out" / "pixels.npy", np.zeros((72, 1, 24, 20), np.float32))
        with pytest.raises(ValueError):
            population.read(answer | spoil, tmp_path / "out")
    np.save(tmp_path / "out" / "pixels.npy", np.zeros((72, 24, 20), np.float32))
    with pytest.raises(ValueError, match="not pictures"):
        population.read(answer, tmp_path / "out")


def test_reference_networks_judge_subjects_that_they_never_saw() -> None:
    """Labels that are noise are learned by heart, so whoever saw a subject would be sure of it."""
    rng = np.random.default_rng(0)
    pixels = rng.random((80, 1, 32, 32), dtype=np.float32)
    subjects = np.arange(80) // 2
    targets = rng.integers(0, 2, 40)[subjects]

    odds = references.confidences(pixels, targets, subjects, 2, networks=4, seconds=120, seed=0)

    assert odds is not None
    # 40 subjects, right half of the time: 30 of them would be chance once in 1,000 times.
    right = (np.array(odds).reshape(40, 2).mean(axis=1) > 0).sum()
    assert right < 31


@pytest.mark.parametrize("targets", [[0] * 12, [-1, 1] * 6])
def test_without_two_known_classes_there_are_no_references(targets: list[int]) -> None:
    pixels = np.zeros((12, 1, 8, 8), np.float32)
    found = references.confidences(
        pixels, np.array(targets), np.arange(12), 2, networks=2, seconds=5, seed=0
    )
    assert found is None
