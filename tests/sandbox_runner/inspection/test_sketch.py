"""A sketch keeps distances between models, of any size, and knows their architecture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from policies.document import default_policy
from policies.history import distance
from sandbox_runner.inspection.sketch import Sketch, sketch

POLICY = default_policy().release
Arrays = dict[str, np.ndarray]


def network(seed: int, *, wide: int = 300) -> Arrays:
    numbers = np.random.default_rng(seed)
    return {
        "a.weight": numbers.normal(0, 0.1, (wide, wide)).astype(np.float32),
        "b.weight": numbers.normal(0, 1.0, (2200, 500)).astype(np.float32),  # more than a block
    }


def sketched(folder: Path, arrays: Arrays) -> Sketch:
    path = folder / "model.safetensors"
    save_file(arrays, path, metadata={"format": "pt"})
    return sketch({"model.safetensors": path}, POLICY)


def true_distance(one: Arrays, other: Arrays) -> float:
    flat = [np.concatenate([a[name].ravel() for name in sorted(a)]) for a in (one, other)]
    return float(np.linalg.norm(flat[0] - flat[1]) / max(map(np.linalg.norm, flat)))


@pytest.mark.parametrize("step", [0.0, 0.02, 0.1, 0.5])
def test_distances_are_kept(tmp_path: Path, step: float) -> None:
    one, noise = network(1), network(2)
    other = {name: value + np.float32(step) * noise[name] for name, value in one.items()}
    first, second = sketched(tmp_path, one), sketched(tmp_path, other)
    assert first.architecture == second.architecture != ""
    told, true = distance(first.sums, second.sums), true_distance(one, other)
    assert told == pytest.approx(true, rel=0.3, abs=1e-5)
    assert (told <= default_policy().history.near_distance) == (step <= 0.1)


def test_networks_trained_apart_are_far_apart(tmp_path: Path) -> None:
    first, second = sketched(tmp_path, network(1)), sketched(tmp_path, network(2))
    assert distance(first.sums, second.sums) > 1


def test_another_shape_is_another_architecture(tmp_path: Path) -> None:
    first, second = sketched(tmp_path, network(1)), sketched(tmp_path, network(1, wide=301))
    assert first.architecture != second.architecture


def test_what_cannot_be_read_has_no_sketch(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"no weights")
    assert sketch({"model.safetensors": path}, POLICY) == Sketch()
    assert sketch({}, POLICY) == Sketch()


def test_numbers_that_are_none_do_not_spread(tmp_path: Path) -> None:
    arrays = network(1)
    arrays["a.weight"][0, 0] = np.nan
    assert np.isfinite(sketched(tmp_path, arrays).sums).all()
