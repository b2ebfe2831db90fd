"""Text is found in any script, size and contrast that people can read, and little else is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

from deid.pixels.interface import Box
from deid.pixels.text import default_text_detector
from synthetic.identity import invent_identity
from synthetic.lettering import (
    Lettering,
    burn,
    hangul_fonts,
    latin_fonts,
    letter,
    measure,
    open_font,
)
from synthetic.phantom import draw_anatomy, draw_phantom

SIZES = (10, 12, 14, 18, 24, 32)
DIFFERENCES = (25, 50, 75, 100, 140, 180)
REAL = (
    "693_UNCR.dcm",
    "MR2_UNCR.dcm",
    "RG1_UNCR.dcm",
    "RG3_UNCR.dcm",
    "JPEG2000.dcm",
    "CT_small.dcm",
)
"""Files of pydicom and pydicom-data without any writing in them."""

COVERED = 0.98
"""Share of a string's ink that has to be masked for it to count as found."""


@dataclass(frozen=True)
class Placed:
    """One string that was drawn: how, and where its ink is."""

    lettering: Lettering
    alphabet: str
    size: int
    difference: int


def displayed(stored: np.ndarray) -> np.ndarray:
    low, high = np.percentile(stored, (0.5, 99.5))
    return np.clip((stored - low) / max(1, high - low) * 255, 0, 255).astype(np.uint8)


@lru_cache(maxsize=1)
def real_pictures() -> dict[str, np.ndarray]:
    pictures = {}
    for name in REAL:
        path = get_testdata_file(name, download=False)
        assert path, name
        pictures[name] = displayed(pydicom.dcmread(path).pixel_array.astype(np.float64))
    return pictures


def phantom_picture(rng: np.random.Generator) -> np.ndarray:
    view = str(rng.choice(["CC", "MLO"]))
    side = str(rng.choice(["R", "L"]))
    phantom = draw_phantom(rng, draw_anatomy(rng), laterality=side, view=view, lesions=1)
    return displayed(phantom.pixels.astype(np.float64))


def strings(rng: np.random.Generator) -> Iterator[tuple[str, str]]:
    taken: set[str] = set()
    while True:
        person = invent_identity(rng, taken)
        yield "Latin", f"{person.latin_text} {person.number}"
        yield "Latin", person.accession
        yield "Latin", f"DOB {person.birth_date[:4]}-{person.birth_date[4:6]}"
        yield "Latin", person.latin
        if hangul_fonts():
            yield "Hangul", f"{person.hangul} {person.number}"
            yield "Hangul", f"{person.hangul} 환자"
            yield "Hangul", f"환자번호 {person.number}"
            yield "Hangul", person.hangul


def with_strings(
    picture: np.ndarray, rng: np.random.Generator, source: Iterator[tuple[str, str]], most: int
) -> tuple[np.ndarray, list[Placed]]:
    """The picture with strings where the ground is even enough to read them."""
    placed: list[Placed] = []
    row = int(rng.integers(3, 20))
    fonts = {
        "Latin": [None, *(path for path in latin_fonts() if "Math" not in path.name)],
        "Hangul": list(hangul_fonts()),
    }
    while row < picture.shape[0] - 40 and len(placed) < most:
        alphabet, text = next(source)
        size, difference = int(rng.choice(SIZES)), int(rng.choice(DIFFERENCES))
        choice = fonts[alphabet][int(rng.integers(len(fonts[alphabet])))]
        font = open_font(text, size, choice)
        width, height = measure(text, font)
        if width + 10 >= picture.shape[1]:
            row += 4
            continue
        column = int(rng.integers(4, picture.shape[1] - width - 4))
        ground = picture[row : row + height, column : column + width].astype(float)
        level = ground.mean()
        value = level + difference if level + difference <= 255 else level - difference
        if value < 0 or ground.std() > 0.3 * difference:
            row += 4
            continue
        drawn = letter(picture.shape[:2], text, font, column, row)
        picture = burn(picture, drawn, value).astype(np.uint8)
        placed.append(Placed(drawn, alphabet, size, difference))
        row += height + int(rng.integers(10, 60))
    return picture, placed


def masked(shape: tuple[int, ...], boxes: Iterable[Box]) -> np.ndarray:
    mask = np.zeros(shape[:2], dtype=bool)
    for box in boxes:
        mask[box.y : box.bottom, box.x : box.right] = True
    return mask


def is_found(mask: np.ndarray, placed: Placed) -> bool:
    ink = placed.lettering.ink > 64
    return bool((mask & ink).sum() >= COVERED * ink.sum())


def near(placed: Placed, shape: tuple[int, ...]) -> np.ndarray:
    x, y, width, height = placed.lettering.box
    around = np.zeros(shape[:2], dtype=bool)
    margin = height
    around[max(0, y - margin) : y + height + margin, max(0, x - margin) : x + width + margin] = True
    return around


@pytest.mark.parametrize("size", [12, 14, 18])
@pytest.mark.parametrize(
    "text", ["KIM MINJI 20481123", "2019-06-18 ACC551209834", "김민지 20481123"]
)
def test_burned_in_text_in_a_corner_is_masked(text: str, size: int):
    if not text.isascii() and not hangul_fonts():
        pytest.skip("no font with Hangul is installed (Debian: fonts-nanum)")
    picture = phantom_picture(np.random.default_rng(size))
    drawn = letter(picture.shape, text, open_font(text, size), 5, picture.shape[0] - 30)
    burned = burn(picture, drawn, 255).astype(np.uint8)
    mask = masked(burned.shape, default_text_detector().detect(burned))
    assert is_found(mask, Placed(drawn, "", size, 255))


@pytest.mark.parametrize("invert", [False, True])
def test_text_over_anatomy_is_masked_without_the_anatomy(invert: bool):
    picture = real_pictures()["693_UNCR.dcm"]
    text = "Park^Hajin 77153506"
    drawn = letter(picture.shape, text, open_font(text, 16), 180, 260)
    ground = picture[drawn.ink > 0].mean()
    burned = burn(picture, drawn, min(255, ground + 90)).astype(np.uint8)
    burned = 255 - burned if invert else burned
    mask = masked(burned.shape, default_text_detector().detect(burned))
    assert is_found(mask, Placed(drawn, "", 16, 90))
    assert mask.mean() < 0.1


def test_coloured_text_in_a_colour_picture_is_masked():
    picture = np.stack([real_pictures()["MR2_UNCR.dcm"][:400, :500]] * 3, axis=2)
    text = "Lee^Sukyung 010-5756-8636"
    drawn = letter(picture.shape[:2], text, open_font(text, 16), 20, 30)
    burned = burn(picture, drawn, (255, 220, 0)).astype(np.uint8)
    assert is_found(
        masked(burned.shape, default_text_detector().detect(burned)), Placed(drawn, "", 16, 0)
    )


def test_text_across_the_seam_of_two_tiles_is_masked():
    picture = np.full((1700, 2000), 40, np.uint8)
    placed = []
    for row, column in ((1370, 1300), (1450, 1420), (1530, 1500), (600, 1380)):
        text = "Choi^Minyoung 1938-04-11"
        drawn = letter(picture.shape, text, open_font(text, 18), column, row)
        picture = burn(picture, drawn, 200).astype(np.uint8)
        placed.append(Placed(drawn, "", 18, 160))
    mask = masked(picture.shape, default_text_detector().detect(picture))
    assert all(is_found(mask, each) for each in placed)
    assert mask.mean() < 0.05


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (500, 3), (31, 33), (64, 64, 3)])
def test_pictures_of_any_size_are_looked_at(shape: tuple[int, ...]):
    noise = np.random.default_rng(1).integers(0, 255, shape).astype(np.uint8)
    for box in default_text_detector().detect(noise):
        assert box.x >= 0 and box.y >= 0
        assert box.right <= shape[1] and box.bottom <= shape[0]


def test_pictures_without_text_stay_as_they_are():
    rng = np.random.default_rng(3)
    shares = [
        masked(picture.shape, default_text_detector().detect(picture)).mean()
        for picture in (phantom_picture(rng) for _number in range(8))
    ]
    assert np.mean(shares) <= 0.01


def bound(missed: int, count: int) -> float:
    """Upper end of the 95 % interval of a rate (Wilson)."""
    z, rate = 1.96, missed / count
    middle = rate + z * z / (2 * count)
    spread = z * np.sqrt(rate * (1 - rate) / count + z * z / (4 * count * count))
    return float((middle + spread) / (1 + z * z / count))


@pytest.mark.slow
def test_recall_by_alphabet_size_and_contrast(capsys: pytest.CaptureFixture[str]):
    rng = np.random.default_rng(20)
    source = strings(rng)
    results: dict[str, list[bool]] = defaultdict(list)
    clean, over, distinct = [], [], set()
    grounds = list(real_pictures().items())
    number = 0
    while len(results["all"]) < 2000:
        name, picture = grounds[number // 2 % len(grounds)]
        if number % 2:
            name, picture = "phantom", phantom_picture(rng)
        if max(picture.shape) > 700:
            top, left = (
                int(rng.integers(0, side - 700 + 1)) if side > 700 else 0 for side in picture.shape
            )
            picture = picture[top : top + 700, left : left + 700]
        number += 1
        picture, placed = with_strings(picture, rng, source, most=10)
        mask = masked(picture.shape, default_text_detector().detect(picture))
        beside = np.zeros(picture.shape, dtype=bool)
        for each in placed:
            found = is_found(mask, each)
            beside |= near(each, picture.shape)
            distinct.add(each.lettering.text)
            plain = each.difference >= 50 and each.size >= 14
            for group in (
                "all",
                each.alphabet,
                f"{each.size} px",
                f"contrast {each.difference}",
                f"on {name}",
                *(["contrast 50+, 14 px+"] if plain else []),
            ):
                results[group].append(found)
        over.append((mask & ~beside).mean())
    for _name, picture in grounds:
        clean.append(masked(picture.shape, default_text_detector().detect(picture)).mean())
    with capsys.disabled():
        print(f"\n{len(distinct)} distinct strings on {number} pictures")
        for group, found in sorted(results.items()):
            missed = len(found) - sum(found)
            print(
                f"{group:24} {100 * sum(found) / len(found):6.2f} % of {len(found):5}"
                f"   missed at most {100 * bound(missed, len(found)):5.2f} % (95 %)"
            )
        print(f"masked beside text {100 * np.mean(over):.2f} %, clean {100 * np.mean(clean):.2f} %")
    assert np.mean(results["all"]) >= 0.99
    assert np.mean(results["contrast 50+, 14 px+"]) >= 0.995
    assert np.mean(clean) <= 0.01
