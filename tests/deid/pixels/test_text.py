"""Text is found in any script, size and contrast that people can read, and little else is."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from scipy.stats import binomtest

from deid.pixels.text import default_text_detector
from synthetic.lettering import burn, hangul_fonts, letter, open_font
from tests.deid.pixels.placed_text import (
    DIFFERENCES,
    KINDS,
    SIZES,
    UNEVEN,
    Placed,
    covers,
    is_found,
    masked,
    near,
    phantom_picture,
    real_pictures,
    scenes,
)

STRINGS = 2400
SEED = 2027
"""Not one of those that the network and its thresholds were chosen with."""

PLAIN, ALL, BESIDE_NOTHING = 1.0, 0.99, 0.01
"""What is wanted: of 14 px and a difference of 50 and more; of all; masked of clean pictures."""

UNEVEN_GROUND = 0.975
"""What was reached where the ground changes under a line, less a little (98.4 %)."""

OF_EACH_KIND = 40


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


@pytest.mark.parametrize("shape", [(200, 300), (300, 200), (250, 401), (99, 75), (9, 9)])
def test_the_edge_of_noise_of_any_size_is_no_text(shape: tuple[int, int]):
    noise = np.random.default_rng(5).integers(0, 256, shape).astype(np.uint8)
    mask = masked(shape, default_text_detector().detect(noise))
    assert not mask[-12:].all(axis=1).any() and not mask[:, -12:].all(axis=0).any()


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


def share(found: list[bool]) -> str:
    """A rate with its interval of 95 % (Clopper and Pearson)."""
    bounds = binomtest(sum(found), len(found)).proportion_ci(method="exact")
    return (
        f"{100 * np.mean(found):6.2f} % of {len(found):4}"
        f" ({100 * bounds.low:.2f} to {100 * bounds.high:.2f})"
    )


@pytest.mark.slow
def test_recall_by_script_size_contrast_and_ground(capsys: pytest.CaptureFixture[str]):
    results: dict[str, list[bool]] = defaultdict(list)
    over, distinct, fonts, pictures = [], set(), set(), 0
    for name, picture, placed in scenes(SEED, STRINGS):
        pictures += 1
        mask = masked(picture.shape, default_text_detector().detect(picture))
        beside = np.zeros(picture.shape, dtype=bool)
        for each in placed:
            beside |= near(each, picture.shape)
            distinct.add(each.lettering.text)
            fonts.add(each.font)
            plain = each.difference >= 50 and each.size >= 14
            for group in (
                "all",
                each.alphabet,
                f"{each.size} px",
                f"contrast {each.difference}",
                f"{each.size} px, contrast {each.difference}",
                f"on {name}",
                *(["contrast 50+, 14 px+"] if plain else []),
            ):
                results[group].append(is_found(mask, each))
        over.append((mask & ~beside).mean())
    rng = np.random.default_rng(SEED)
    clean = [*real_pictures().items(), *(("phantom", phantom_picture(rng)) for _each in range(12))]
    masks = [masked(each.shape, default_text_detector().detect(each)).mean() for _, each in clean]
    with capsys.disabled():
        print(f"\n{len(distinct)} distinct strings, {len(fonts)} fonts, {pictures} pictures")
        for group, found in sorted(results.items()):
            print(f"{group:28} {share(found)}")
        for size in SIZES:
            cells = (results[f"{size} px, contrast {each}"] for each in DIFFERENCES)
            print(
                f"{size:2} px ", *(f"{sum(cell):3} of {len(cell):3}" for cell in cells), sep=" | "
            )
        print(
            f"masked beside text {100 * np.mean(over):.2f} %, of clean {100 * np.mean(masks):.2f} %"
        )
        for (name, _picture), part in zip(clean[:6], masks, strict=False):
            print(f"  {name} {100 * part:.2f} %")
    assert len(results["all"]) >= 2000 and len(fonts) >= 8
    assert np.mean(results["all"]) >= ALL
    assert np.mean(results["contrast 50+, 14 px+"]) >= PLAIN
    assert np.mean(masks) <= BESIDE_NOTHING


@pytest.mark.slow
def test_recall_where_the_ground_changes_under_a_line(capsys: pytest.CaptureFixture[str]):
    """Strings across edges of the anatomy too, a part of their letters hardly to be seen."""
    found = [
        (is_found(mask, each), each.difference >= 50 and each.size >= 14)
        for _name, picture, placed in scenes(SEED + 1, STRINGS // 2, UNEVEN)
        for mask in [masked(picture.shape, default_text_detector().detect(picture))]
        for each in placed
    ]
    with capsys.disabled():
        print(f"\nuneven ground: all {share([each for each, _plain in found])}")
        print(f"contrast 50+, 14 px+ {share([each for each, plain in found if plain])}")
    assert np.mean([each for each, _plain in found]) >= UNEVEN_GROUND


@pytest.mark.slow
def test_recall_of_other_kinds_of_writing(capsys: pytest.CaptureFixture[str]):
    rng = np.random.default_rng(SEED)
    results: dict[str, list[bool]] = {}
    for kind, write in KINDS.items():
        results[kind] = []
        for _number in range(OF_EACH_KIND):
            picture, ink = write(rng)
            mask = masked(picture.shape, default_text_detector().detect(picture))
            results[kind].append(covers(mask, ink))
    everything = [found for kind in results.values() for found in kind]
    with capsys.disabled():
        print()
        for kind, found in results.items():
            print(f"{kind:26} {share(found)}")
        print(f"{'together':26} {share(everything)}")
    assert np.mean(everything) >= ALL
