"""Of many frames a few pictures are looked at, and what stands on one frame only is among them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from pydicom import Dataset

from deid.dicom.decode import Search
from deid.dicom.display import looks
from deid.dicom.moments import GROUP, Moments, sampled
from deid.pixels.interface import Box
from deid.pixels.text import default_text_detector
from synthetic.lettering import burn, letter, open_font
from tests.deid.pixels.placed_text import covers, masked, real_pictures
from tests.deid.pixels.test_text import share

GREY = {"photometric_interpretation": "MONOCHROME2"}
TEXT = "Park^Hajin 77153506"
COUNT = 60


def ground() -> np.ndarray:
    return real_pictures()["RG1_UNCR.dcm"][400:656, 300:684].copy()


def swaying(number: int) -> np.ndarray:
    """The ground as a heart moves it."""
    picture = ground()
    middle = (picture.shape[1] / 2, picture.shape[0] / 2)
    way = cv2.getRotationMatrix2D(middle, 3 * np.sin(number / 5), 1 + 0.05 * np.sin(number / 4))
    return cv2.warpAffine(picture, way, picture.shape[::-1], borderMode=cv2.BORDER_REFLECT)


def passing(number: int) -> np.ndarray:
    """The ground as a table moves it."""
    way = np.array([[1, 0, 3.0 * number], [0, 1, 1.5 * number]])
    picture = ground()
    return cv2.warpAffine(picture, way, picture.shape[::-1], borderMode=cv2.BORDER_REFLECT)


GROUNDS: dict[str, Callable[[int], np.ndarray]] = {
    "still": lambda number: ground(),
    "swaying": swaying,
    "passing": passing,
}


def frames_of(
    kind: str, noise: float, seed: int, count: int = COUNT
) -> tuple[np.ndarray, np.random.Generator]:
    rng = np.random.default_rng(seed)
    frames = np.stack([GROUNDS[kind](number) for number in range(count)]).astype(np.float32)
    frames += rng.normal(0, noise, frames.shape).astype(np.float32)
    return np.clip(frames, 0, 255).astype(np.uint8), rng


def written(
    frames: np.ndarray, rng: np.random.Generator, difference: float, first: int, last: int
) -> np.ndarray:
    """Write on some of the frames; the ink."""
    shape = frames.shape[1:3]
    x, y = int(rng.integers(4, shape[1] - 200)), int(rng.integers(4, shape[0] - 30))
    drawn = letter(shape, TEXT, open_font(TEXT, int(rng.choice((14, 16, 20)))), x, y)
    level = float(frames[first][drawn.ink > 64].mean())
    value = level + difference if level + difference <= 255 else level - difference
    for number in range(first, last + 1):
        frames[number] = burn(frames[number], drawn, value)
    return drawn.ink


def found_in(frames: np.ndarray, **properties: object) -> list[Box]:
    search = Search(default_text_detector(), len(frames))
    search.add(Dataset(), frames, {**GREY, **properties})
    return search.boxes()


def is_masked(frames: np.ndarray, ink: np.ndarray) -> bool:
    return covers(masked(ink.shape, found_in(frames)), ink)


@pytest.mark.parametrize("number", [1, 31, COUNT - 2, COUNT - 1])
@pytest.mark.parametrize("kind", list(GROUNDS))
def test_text_on_one_frame_of_a_moving_picture_is_found(kind: str, number: int):
    frames, rng = frames_of(kind, 3, number)
    ink = written(frames, rng, 60, number, number)
    assert is_masked(frames, ink)


def test_colours_and_wide_values_have_moments_too():
    frames, rng = frames_of("swaying", 3, 5, 20)
    wide = frames.astype(np.int32) * 100_000
    ink = written(frames, rng, 60, 7, 7)
    wide[7] = frames[7].astype(np.int32) * 100_000
    assert is_masked(wide, ink)
    colour = np.stack([frames] * 3, axis=3)
    boxes = found_in(colour, photometric_interpretation="RGB", bits_stored=8)
    assert covers(masked(ink.shape, boxes), ink)


def test_frames_may_come_in_batches_of_any_size():
    frames, _rng = frames_of("passing", 5, 8, 2 * GROUP + 30)
    frames = frames[:, :64, :64]
    whole = list(Moments(len(frames)).add(frames))
    for size in (1, 7, GROUP):
        moments = Moments(len(frames))
        batched, memory = [], np.empty((size, *frames.shape[1:]), frames.dtype)
        for start in range(0, len(frames), size):
            part = frames[start : start + size]
            memory[: len(part)] = part
            batched += [look.copy() for look in moments.add(memory[: len(part)])]
        assert len(whole) == len(batched)
        assert all(np.array_equal(one, other) for one, other in zip(whole, batched, strict=True))


@pytest.mark.parametrize("count", [1, 2, 9, GROUP, GROUP + 1, 10 * GROUP])
def test_few_looks_are_taken_of_many_frames(count: int):
    frames = np.zeros((count, 40, 40), np.uint8)
    frames[:, 0, 0] = np.arange(count) % 250
    assert len(list(looks(frames))) <= max(8, 6 * len(sampled(count)))
    assert sampled(count)[0] == 0 and sampled(count)[-1] == count - 1


@pytest.mark.slow
def test_recall_on_single_frames(capsys: pytest.CaptureFixture[str]):
    results: dict[str, list[bool]] = defaultdict(list)
    alone, seed = [], 0
    for kind in GROUNDS:
        for noise in (0, 4, 10):
            for difference in (25, 50, 100):
                for length in (1, 1, 5):
                    seed += 1
                    frames, rng = frames_of(kind, noise, seed, 120)
                    first = int(rng.integers(1, len(frames) - length))
                    ink = written(frames, rng, difference, first, first + length - 1)
                    found = is_masked(frames, ink)
                    boxes = default_text_detector().detect(frames[first])
                    alone.append(covers(masked(ink.shape, boxes), ink))
                    groups = [kind, f"noise {noise}", f"contrast {difference}", f"{length} long"]
                    if length == 1:
                        groups.append(f"1 long, contrast {difference}")
                    for group in ["all", *groups]:
                        results[group].append(found)
    with capsys.disabled():
        print()
        for group, found in results.items():
            print(f"{group:21} {share(found)}")
        print(f"the frame seen alone {share(alone)}")
    assert np.mean(results["contrast 50"] + results["contrast 100"]) >= 0.95
