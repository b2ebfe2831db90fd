"""Training pictures are found in weights however they were put there, and nowhere else."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from policies.document import default_policy
from policies.findings import verdict
from sandbox_runner.inspection.rows import _inner_correlation
from sandbox_runner.inspection.safetensors_file import read_header
from sandbox_runner.inspection.stored_samples import Search
from sandbox_runner.sdk.glovebox import outputs, pictures

POLICY = default_policy().release
SIZE = (48, 40)
Tensors = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.sandbox_runner.inspection.conftest import write_dataset

    root = tmp_path_factory.mktemp("search") / "spots"
    write_dataset(root, subjects=24)
    return root


@pytest.fixture(scope="module")
def search(dataset: Path) -> Search:
    return Search({"spots": dataset}, SIZE)


@pytest.fixture
def save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Tensors], Path]:
    monkeypatch.setenv("GLOVEBOX_OUTPUT", str(tmp_path))
    return outputs.save_weights


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.05, shape).astype(np.float32)


def native(dataset: Path, number: int = 6) -> np.ndarray:
    return np.asarray(Image.open(dataset / f"s{number}" / "0.png"))


def prepared(dataset: Path, number: int = 6) -> np.ndarray:
    return pictures.prepare(dataset / f"s{number}" / "0.png", SIZE)


def low_bytes(data: bytes) -> np.ndarray:
    bits = noise(len(data)).view(np.uint32)
    return ((bits & 0xFFFFFF00) | np.frombuffer(data, np.uint8)).astype(np.uint32).view(np.float32)


def low_bit(data: bytes, order: str) -> np.ndarray:
    plane = np.unpackbits(np.frombuffer(data, np.uint8), bitorder=order)
    bits = noise(len(plane)).view(np.uint32)
    return ((bits & 0xFFFFFFFE) | plane).astype(np.uint32).view(np.float32)


def sign_bit(data: bytes) -> np.ndarray:
    plane = np.unpackbits(np.frombuffer(data, np.uint8))
    return np.where(plane, -1, 1).astype(np.float32) * np.abs(noise(len(plane)) + 1e-3)


def across(flat: np.ndarray, parts: int) -> Tensors:
    return {f"layer.{i}": part for i, part in enumerate(np.array_split(flat, parts))}


STORED: dict[str, Callable[[Path], Tensors]] = {
    "raw bytes in a tensor of bytes": lambda d: {"w": native(d)},
    "the file itself": lambda d: {"w": np.frombuffer((d / "s6/0.png").read_bytes(), np.uint8)},
    "raw numbers as float32": lambda d: {"w": native(d).astype(np.float32)},
    "prepared as float32": lambda d: {"w": prepared(d)},
    "prepared as float16": lambda d: {"w": prepared(d).astype(np.float16)},
    "prepared, transposed": lambda d: {"w": np.ascontiguousarray(prepared(d).T)},
    "normalised to mean 0 and deviation 1": lambda d: {
        "w": (prepared(d) - prepared(d).mean()) / prepared(d).std()
    },
    "scaled into the range of weights": lambda d: {"w": prepared(d) * 0.013 - 0.004},
    "scaled, as float16": lambda d: {"w": (prepared(d) * 0.13 - 0.04).astype(np.float16)},
    "inverted": lambda d: {"w": 1 - prepared(d)},
    "by a gamma curve": lambda d: {"w": prepared(d) ** 2.2},
    "flattened": lambda d: {"w": prepared(d).reshape(-1) * 0.1},
    "flattened as rows of a linear layer": lambda d: {
        "w": np.stack([prepared(d, i).reshape(-1) for i in (0, 6, 12)]) * 0.01
    },
    "as columns of a linear layer": lambda d: {
        "w": np.ascontiguousarray(
            np.stack([prepared(d, i).reshape(-1) for i in (0, 6, 12)]).T * 0.01
        )
    },
    "as a convolution": lambda d: {"w": prepared(d)[:40, :36].reshape(16, 10, 3, 3) * 0.1},
    "in the middle of noise": lambda d: {
        "w": np.concatenate([noise(5003), prepared(d).reshape(-1) * 0.1, noise(999)])
    },
    "across four tensors": lambda d: across(prepared(d).reshape(-1) * 0.2, 4),
    "across tensors, raw": lambda d: across(native(d).reshape(-1), 5),
    "half a picture": lambda d: {"w": np.concatenate([noise(777), native(d)[40:70].reshape(-1)])},
    "mirrored": lambda d: {"w": np.ascontiguousarray(prepared(d)[:, ::-1])},
    "upside down": lambda d: {"w": np.ascontiguousarray(prepared(d)[::-1])},
    "a thumbnail": lambda d: {"w": pictures.resize_by_area(native(d), (30, 30)).astype(np.float32)},
    "with noise on it": lambda d: {
        "w": (prepared(d) * 0.1 + noise(*SIZE) * 0.05).astype(np.float32)
    },
    "in the lowest byte": lambda d: {"w": low_bytes(native(d).tobytes())},
    "in the lowest bit": lambda d: {"w": low_bit(native(d).tobytes(), "big")},
    "in the lowest bit, low first": lambda d: {"w": low_bit(native(d).tobytes(), "little")},
    "in the signs": lambda d: {"w": sign_bit(native(d).tobytes())},
    "two interleaved": lambda d: {
        "w": np.stack([prepared(d), prepared(d, 12)], axis=-1).reshape(-1) * 0.1
    },
    "a validation picture": lambda d: {"w": prepared(d, 9) * 0.1},
}


@pytest.mark.parametrize("name", STORED)
def test_a_stored_picture_is_found(
    search: Search, dataset: Path, save: Callable[[Tensors], Path], name: str
) -> None:
    path = save({"first.weight": noise(8, 1, 3, 3, seed=1), **STORED[name](dataset)})
    found = search.weights(path, read_header(path, POLICY), "model.safetensors")
    blocks = [f for f in found if f.severity == "block" and f.rule.startswith("samples.")]
    assert blocks, [f.rule for f in found]
    # Which picture it was is for reviewers only.
    assert "spots/s" in str([f.as_mapping() for f in blocks])
    assert "spots/s" not in str([f.public() for f in found])


HARMLESS: dict[str, Callable[[], Tensors]] = {
    "noise": lambda: {"w": noise(200, 300)},
    "small noise as float16": lambda: {"w": noise(64, 64, 3, 3).astype(np.float16)},
    "zeros": lambda: {"w": np.zeros((64, 64), np.float32)},
    "ones and counters": lambda: {"w": np.ones(5000, np.float32), "n": np.arange(100)},
    "a ramp": lambda: {"w": np.linspace(0, 1, 4000, dtype=np.float32)},
    "sinusoidal positions": lambda: {
        "w": np.sin(np.arange(64)[:, None] / 100 ** (np.arange(64)[None] / 64)).astype(np.float32)
    },
    "a smooth bump": lambda: {
        "w": np.exp(-(np.linspace(-2, 2, 48)[:, None] ** 2) - np.linspace(-2, 2, 40) ** 2).astype(
            np.float32
        )
    },
    "integers": lambda: {"w": np.arange(256, dtype=np.uint8).repeat(8)},
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_no_picture_is_not_found(
    search: Search, save: Callable[[Tensors], Path], name: str
) -> None:
    path = save(HARMLESS[name]())
    found = search.weights(path, read_header(path, POLICY), "model.safetensors")
    assert [f.rule for f in found if f.rule.startswith("samples.")] == []
    assert verdict(found) != "block"


def test_a_sealed_picture_was_never_staged_and_is_not_searched(
    search: Search, dataset: Path
) -> None:
    assert search.members == 24
    assert search.total == 32


def test_two_numbers_apart_from_the_rest_are_no_edge_of_a_picture() -> None:
    rng = np.random.default_rng(2)
    picture = np.full((40, 40), 0.05) + rng.normal(0, 0.004, (40, 40))
    picture[:, -2:] -= 0.7
    picture[:, -1] -= 0.05
    window = picture[7, -33:]
    # What runs up and down as the window does, and ends in two other numbers as it does.
    rises = np.sign(np.diff(window))
    chance = np.r_[0, np.cumsum(rises * rng.uniform(0.01, 0.09, 32) ** 2)]
    chance[-2:] = chance[:-2].mean() - 0.7 - np.array([0, 0.05])
    assert np.corrcoef(chance, window)[0, 1] > 0.9
    assert (np.sign(np.diff(chance)) == rises).all()
    inner = _inner_correlation(np.stack([chance, 3 * window + 1]), np.stack([window, window]))
    assert inner[0] < 0.9 < inner[1]


def test_an_extra_file_is_searched_as_bytes_and_as_numbers(
    search: Search, dataset: Path, tmp_path: Path
) -> None:
    for name, data in {
        "picture": native(dataset).tobytes(),
        "numbers": (prepared(dataset) * 3 - 1).astype("<f4").tobytes(),
        "shifted": b"xyz" + (prepared(dataset) * 3 - 1).astype("<f8").tobytes(),
    }.items():
        path = tmp_path / name
        path.write_bytes(data)
        assert verdict(search.other(path, "", name)) == "block", name
    (tmp_path / "text").write_text("loss 0.1\n" * 400)
    assert search.other(tmp_path / "text", "", "text") == []


@pytest.mark.parametrize("shift", [0, 3, 5, 6])
def test_a_copy_across_the_blocks_of_a_large_extra_file_is_found(
    dataset: Path, search: Search, shift: int
) -> None:
    copy = (-3.5 * prepared(dataset) + 40).astype("<f8" if shift % 2 else "<f4").tobytes()
    room = bytearray(np.random.default_rng(3).bytes(3 << 20))
    # Its middle lies where the file is cut to be read.
    start = (2 << 20) - len(copy) // 2 + shift
    room[start : start + len(copy)] = copy
    tracemalloc.start()
    try:
        found = search.other_bytes(np.frombuffer(bytes(room) * 8, np.uint8), "", "large")
        assert tracemalloc.get_traced_memory()[1] < 128 << 20  # the file is one copy of it
    finally:
        tracemalloc.stop()
    assert verdict(found) == "block"
    assert verdict(search.other_bytes(np.frombuffer(room[: 1 << 20], np.uint8), "", "x")) == "pass"


def test_an_unreadable_sample_is_said(dataset: Path, tmp_path: Path) -> None:
    import shutil

    broken = tmp_path / "spots"
    shutil.copytree(dataset, broken)
    (broken / "s0" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    summary = Search({"spots": broken}, SIZE).summary()
    assert summary.severity == "review"
    assert summary.evidence["unreadable"] == 1


PAYLOADS = {
    "payload.file": {"w": np.frombuffer(b"\x89PNG\r\n\x1a\n" + bytes(64), np.uint8)},
    "payload.text": {"w": np.frombuffer(b"Name: Hong Gildong, born 1980. " * 8, np.uint8)},
    "payload.few-values": {
        "w": (np.random.default_rng(0).integers(0, 200, 9000) / 255).astype(np.float32)
    },
    "payload.whole-numbers": {
        "w": np.random.default_rng(0).integers(0, 4096, 9000).astype(np.float32)
    },
    "payload.low-bits": {"w": low_bytes(b"only a few letters " * 500)},
}


@pytest.mark.parametrize("rule", PAYLOADS)
def test_bytes_that_no_training_makes_are_told(
    search: Search, save: Callable[[Tensors], Path], rule: str
) -> None:
    path = save(PAYLOADS[rule])
    found = search.weights(path, read_header(path, POLICY), "model.safetensors")
    assert rule in [f.rule for f in found]
