"""A picture is found wherever it stands in a small file; what all pictures share is not one."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sandbox_runner.inspection import anywhere, payloads
from sandbox_runner.inspection.rows import RowIndex
from sandbox_runner.inspection.samples import Sample

SIZE = (32, 28)


def sample(picture: NDArray[np.float32], number: int) -> Sample:
    grey = (picture * 255).astype(np.float64)
    return Sample(f"made/{number}.png", b"", grey.astype(np.uint8), grey, 0.0, 255.0, picture)


@pytest.fixture(scope="module")
def pictures() -> NDArray[np.float32]:
    """Forty smooth pictures that share a bright middle."""
    rng = np.random.default_rng(1)
    down, across = np.meshgrid(np.fft.fftfreq(SIZE[0]), np.fft.fftfreq(SIZE[1]), indexing="ij")
    fields = np.fft.fft2(rng.normal(size=(40, *SIZE))) / (1 + 40 * np.hypot(down, across))
    textures = np.fft.ifft2(fields).real
    yy, xx = np.mgrid[: SIZE[0], : SIZE[1]]
    middle = np.exp(-((yy - 16) ** 2 + (xx - 14) ** 2) / 60)
    whole = 0.3 + 0.4 * middle + 0.1 * textures / textures.std()
    return np.clip(whole, 0, 1).astype(np.float32)


@pytest.fixture(scope="module")
def index(pictures: NDArray[np.float32]) -> anywhere.AnywhereIndex:
    made = anywhere.AnywhereIndex()
    for number, picture in enumerate(pictures):
        made.add(number, sample(picture, number))
    made.close()
    return made


def line(rng: np.random.Generator) -> NDArray[np.float32]:
    return rng.normal(0, 0.05, 20_000).astype(np.float32)


def test_a_noisy_inverted_picture_at_an_odd_place_is_found(
    index: anywhere.AnywhereIndex, pictures: NDArray[np.float32]
) -> None:
    rng = np.random.default_rng(2)
    noise = rng.normal(0, 0.05, SIZE)
    weights = line(rng)
    weights[7777 : 7777 + 896] = -0.2 * (pictures[9] + noise).reshape(-1)
    found = index.search(weights)
    assert (found[0].sample, found[0].offset) == (9, 7777)
    assert found[0].correlation >= anywhere.BLOCK
    assert not anywhere.is_common(found, len(index))


def test_noise_and_what_all_pictures_share_are_no_picture(
    index: anywhere.AnywhereIndex, pictures: NDArray[np.float32]
) -> None:
    weights = line(np.random.default_rng(3))
    assert index.search(weights) == []
    # The bias of a decoder, say.
    weights[500 : 500 + 896] = pictures.mean(axis=0).reshape(-1)
    assert all(place.correlation < anywhere.BLOCK for place in index.search(weights))


def test_what_is_like_many_pictures_is_a_template_and_not_one_of_them() -> None:
    many = [anywhere.Place(number, 0.8, 0) for number in range(30)]
    assert anywhere.is_common(many, 100)
    assert not anywhere.is_common(many[:3], 100)
    assert not anywhere.is_common([anywhere.Place(0, 0.99, 0), *many], 100)


def test_dots_on_black_are_no_row_of_a_picture() -> None:
    """A pruned tensor is that as well."""
    rng = np.random.default_rng(4)
    picture = np.where(rng.random((20, 20)) < 0.1, rng.random((20, 20)), 0).astype(np.float32)
    rows = RowIndex()
    rows.add(0, sample(picture, 0))
    rows.close()
    assert rows.empty


def test_noise_holds_no_compressed_stream_and_a_stream_in_it_is_found() -> None:
    import zlib

    noise = np.random.default_rng(5).integers(0, 256, 2_000_000, dtype=np.uint8)
    assert not [mark for mark in payloads.marks(noise, 0) if mark[0] == "packed"]
    words = " ".join(map(str, range(9000))).encode()
    for data in (zlib.compress(words), zlib.compress(words)[:900]):
        spoilt = noise[:50_000].copy()
        spoilt[3001 : 3001 + len(data)] = np.frombuffer(data, np.uint8)
        assert ("packed", "", 3001 + 64) in payloads.marks(spoilt, 64)
