"""Writing put into pictures, so that where every letter is is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pydicom
from PIL import Image, ImageDraw, ImageFont
from pydicom.data import get_testdata_file

from deid.dicom.display import equalised
from deid.pixels.interface import Box
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

EVEN, UNEVEN = 0.3, 0.6
"""Deviation of the ground under a string, in parts of its contrast, at which it is placed still."""

COVERED = 0.98
"""Share of a string's ink that has to be masked for it to count as found."""

LARGEST = 700
"""Pixels of a side: larger pictures are cut, so that strings are spread over many places."""


@dataclass(frozen=True)
class Placed:
    """One string that was drawn: how, and where its ink is."""

    lettering: Lettering
    alphabet: str
    size: int
    difference: int
    font: str = ""


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
    """Alphabet and text, without end."""
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


def fonts() -> dict[str, list[Path | None]]:
    """Fonts that the network was not trained with; None is Pillow's own."""
    latin = [path for path in latin_fonts() if path.name.startswith("DejaVu")]
    hangul = [path for path in hangul_fonts() if path.name.startswith("Nanum")]
    return {
        "Latin": [None, *(path for path in latin if "Math" not in path.name)],
        "Hangul": [*hangul],
    }


def with_strings(
    picture: np.ndarray,
    rng: np.random.Generator,
    source: Iterator[tuple[str, str]],
    most: int,
    evenness: float,
) -> tuple[np.ndarray, list[Placed]]:
    """The picture with strings where the ground is even enough to read them."""
    placed: list[Placed] = []
    row = int(rng.integers(3, 20))
    choices = fonts()
    while row < picture.shape[0] - 40 and len(placed) < most:
        alphabet, text = next(source)
        size, difference = int(rng.choice(SIZES)), int(rng.choice(DIFFERENCES))
        path = choices[alphabet][int(rng.integers(len(choices[alphabet])))]
        font = open_font(text, size, path)
        width, height = measure(text, font)
        if width + 10 >= picture.shape[1]:
            row += 4
            continue
        # Faint strings need an even ground: without a choice of places they would be few.
        columns = rng.integers(4, picture.shape[1] - width - 4, 12)
        column = min(
            (int(each) for each in columns),
            key=lambda each: max(
                picture[row : row + height, each : each + width].std()
                - (evenness - 0.02) * difference,
                0,
            ),
        )
        ground = picture[row : row + height, column : column + width].astype(float)
        level = ground.mean()
        value = level + difference if level + difference <= 255 else level - difference
        if value < 0 or ground.std() > evenness * difference:
            row += 4
            continue
        drawn = letter(picture.shape[:2], text, font, column, row)
        picture = burn(picture, drawn, value).astype(np.uint8)
        name = path.stem if path else "Pillow's own"
        placed.append(Placed(drawn, alphabet, size, difference, name))
        row += height + int(rng.integers(10, 60))
    return picture, placed


def scenes(
    seed: int, count: int, evenness: float = EVEN
) -> Iterator[tuple[str, np.ndarray, list[Placed]]]:
    """What each picture is, the picture, and its strings, until there are ``count`` strings."""
    rng = np.random.default_rng(seed)
    source, grounds = strings(rng), list(real_pictures().items())
    number = 0
    while count > 0:
        name, picture = grounds[number // 2 % len(grounds)]
        if number % 2:
            name, picture = "phantom", phantom_picture(rng)
        if max(picture.shape) > LARGEST:
            top, left = (int(rng.integers(0, max(1, side - LARGEST + 1))) for side in picture.shape)
            picture = picture[top : top + LARGEST, left : left + LARGEST]
        number += 1
        picture, placed = with_strings(picture, rng, source, 10, evenness)
        count -= len(placed)
        yield name, picture, placed


def masked(shape: tuple[int, ...], boxes: Iterable[Box]) -> np.ndarray:
    mask = np.zeros(shape[:2], dtype=bool)
    for box in boxes:
        mask[box.y : box.bottom, box.x : box.right] = True
    return mask


def is_found(mask: np.ndarray, placed: Placed) -> bool:
    return covers(mask, placed.lettering.ink)


def covers(mask: np.ndarray, ink: np.ndarray) -> bool:
    solid = ink > 64
    return bool((mask & solid).sum() >= COVERED * solid.sum())


def near(placed: Placed, shape: tuple[int, ...]) -> np.ndarray:
    x, y, width, height = placed.lettering.box
    around = np.zeros(shape[:2], dtype=bool)
    margin = height
    around[max(0, y - margin) : y + height + margin, max(0, x - margin) : x + width + margin] = True
    return around


# --- writing of other kinds ---------------------------------------------------------------------

Written = tuple[np.ndarray, np.ndarray]
"""A picture with one text in it, and the text's ink."""


def _ink(
    text: str, shape: tuple[int, int], x: int, y: int, font: ImageFont.FreeTypeFont
) -> np.ndarray:
    return np.array(letter(shape, text, font, x, y).ink)


def _somewhere(
    rng: np.random.Generator,
    shape: tuple[int, int],
    sizes: tuple[int, ...],
    *,
    turned: bool = False,
) -> np.ndarray:
    """The ink of a text somewhere in a picture, wholly inside."""
    alphabet, text = next(
        each for number, each in enumerate(strings(rng)) if number >= rng.integers(8)
    )
    across = shape[::-1] if turned else shape
    while True:
        path = fonts()[alphabet][int(rng.integers(len(fonts()[alphabet])))]
        font = open_font(text, int(rng.choice(sizes)), path)
        width, height = measure(text, font)
        if width + 8 < across[1] and height + 8 < across[0]:
            break
        text = text[: max(2, len(text) - 2)].rstrip()
    x = int(rng.integers(4, across[1] - width - 3))
    y = int(rng.integers(4, across[0] - height - 3))
    ink = _ink(text, across, x, y, font)
    return np.rot90(ink, 1 if rng.random() < 0.5 else 3).copy() if turned else ink


def _ground(rng: np.random.Generator) -> np.ndarray:
    pictures = list(real_pictures().values())
    number = int(rng.integers(2 * len(pictures)))
    picture = phantom_picture(rng) if number >= len(pictures) else pictures[number]
    if min(picture.shape) < 200:
        picture = cv2.resize(picture, (384, 384), interpolation=cv2.INTER_CUBIC)
    top, left = (int(rng.integers(0, max(1, side - 512 + 1))) for side in picture.shape)
    return picture[top : top + 512, left : left + 512].copy()


def _mixed(picture: np.ndarray, ink: np.ndarray, value: float | np.ndarray) -> np.ndarray:
    share = ink.astype(np.float64) / 255
    return np.clip(picture * (1 - share) + value * share, 0, 255)


def _contrasting(picture: np.ndarray, ink: np.ndarray, difference: float) -> float:
    level = float(picture[ink > 64].mean())
    return level + difference if level + difference <= 255 else level - difference


def _plain(rng: np.random.Generator, sizes: tuple[int, ...], turned: bool = False) -> Written:
    """Where the ground lets the text be read."""
    while True:
        picture = _ground(rng)
        ink = _somewhere(rng, picture.shape, sizes, turned=turned)
        difference = float(rng.uniform(50, 180))
        if picture[ink > 64].std() < 0.3 * difference:
            value = _contrasting(picture, ink, difference)
            return _mixed(picture, ink, max(0.0, value)).astype(np.uint8), ink


def _noisy(rng: np.random.Generator) -> Written:
    """A noise of deviation 15 to 45 over picture and text, which stands out 2.5 times as much."""
    spread = float(rng.uniform(15, 45))
    picture = np.full((384, 512), rng.uniform(40, 110))
    ink = _somewhere(rng, picture.shape, (14, 18, 24, 32))
    picture = _mixed(picture, ink, float(picture[0, 0] + spread * rng.uniform(2.5, 4)))
    return np.clip(picture + rng.normal(0, spread, picture.shape), 0, 255).astype(np.uint8), ink


def _in_a_window(rng: np.random.Generator) -> Written:
    """Noise and text by their ranks, as a window sees them that is as narrow as the noise."""
    spread = float(rng.uniform(4, 30))
    picture = np.full((256, 384), 1000.0)
    ink = _somewhere(rng, picture.shape, (14, 18, 24, 32))
    picture = _mixed(picture - 1000, ink, spread * rng.uniform(2.5, 6)) + 1000
    noisy = np.round(picture + rng.normal(0, spread, picture.shape))
    return equalised(noisy.astype(np.uint16)), ink


def _speckled(rng: np.random.Generator) -> Written:
    """On a sector as of ultrasound: the length of a random phasor, correlated along the beam."""
    fields = [
        cv2.GaussianBlur(rng.standard_normal((384, 512)), (0, 0), 1.6, None, 0.7) for _ in range(2)
    ]
    length = np.hypot(*fields)
    picture = np.clip(length / length.mean() * rng.uniform(20, 60), 0, 255)
    ink = _somewhere(rng, picture.shape, (14, 18, 24))
    return _mixed(picture, ink, float(rng.uniform(200, 255))).astype(np.uint8), ink


def _striped(rng: np.random.Generator) -> Written:
    picture, ink = _plain(rng, (14, 18, 24))
    offsets = rng.normal(0, 10, (picture.shape[0], 1))
    if rng.random() < 0.5:
        offsets = rng.normal(0, 10, (1, picture.shape[1]))
    return np.clip(picture + offsets, 0, 255).astype(np.uint8), ink


def _compressed(rng: np.random.Generator) -> Written:
    picture, ink = _plain(rng, (14, 18, 24))
    coded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(15, 40))])[1]
    return cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE), ink


def _inverse(rng: np.random.Generator) -> Written:
    picture, ink = _plain(rng, (12, 14, 18, 24))
    return 255 - picture, ink


def _turned(rng: np.random.Generator) -> Written:
    return _plain(rng, (12, 14, 18, 24), turned=True)


def _stacked(rng: np.random.Generator) -> Written:
    """One letter below the other."""
    while True:
        picture = _ground(rng)
        text = next(strings(rng))[1].replace(" ", "")[:8]
        font = open_font(text, int(rng.choice((14, 18, 24))))
        ink = np.zeros(picture.shape, np.uint8)
        x, y = (int(rng.integers(4, side // 3)) for side in picture.shape[::-1])
        for each in text:
            if y + 30 < picture.shape[0]:
                ink = np.maximum(ink, _ink(each, picture.shape, x, y, font))
                y += int(font.size * 1.1)
        if picture[ink > 64].std() < 30:
            return _mixed(picture, ink, _contrasting(picture, ink, 100)).astype(np.uint8), ink


def _tall(rng: np.random.Generator) -> Written:
    return _plain(rng, (60, 80, 110, 150))


def _coloured(rng: np.random.Generator) -> Written:
    """Of a colour, on a picture of colours, as Doppler shows them."""
    picture = np.stack([_ground(rng)] * 3, axis=2) // 2
    ink = _somewhere(rng, picture.shape[:2], (12, 14, 18, 24))
    centre = (int(rng.integers(100, 400)), int(rng.integers(100, 400)))
    cv2.ellipse(picture, centre, (90, 60), 20, 0, 360, (160, 30, 10), -1)
    colour = np.array([(255, 255, 0), (0, 255, 0), (0, 255, 255), (255, 160, 0)][rng.integers(4)])
    share = (ink.astype(np.float64) / 255)[:, :, None]
    return (picture * (1 - share) + colour * share).astype(np.uint8), ink


def _of_one_grey(rng: np.random.Generator) -> Written:
    """A colour as bright as the ground: nothing is seen in grey."""
    picture = np.full((256, 384, 3), (120, 120, 120), np.uint8)
    ink = _somewhere(rng, picture.shape[:2], (14, 18, 24))
    share = (ink.astype(np.float64) / 255)[:, :, None]
    return (picture * (1 - share) + np.array((220, 75, 90)) * share).astype(np.uint8), ink


def _bitmap(rng: np.random.Generator) -> Written:
    """Pillow's old font of 6 by 11 pixels, as it is or twice as large."""
    picture = _ground(rng)
    text = str(next(strings(rng))[1].encode("ascii", "ignore"), "ascii").strip() or "ID 4711"
    canvas = Image.new("L", (picture.shape[1] // 2, picture.shape[0] // 2))
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default_imagefont()
    pen.fontmode = "1"
    pen.text((int(rng.integers(2, 40)), int(rng.integers(2, 80))), text, fill=255, font=font)
    small = np.asarray(canvas)
    ink = np.zeros(picture.shape, np.uint8)
    drawn = np.kron(small, np.ones((2, 2), np.uint8)) if rng.random() < 0.5 else small
    ink[: drawn.shape[0], : drawn.shape[1]] = drawn
    return _mixed(picture, ink, _contrasting(picture, ink, 110)).astype(np.uint8), ink


def _outlined(rng: np.random.Generator) -> Written:
    """White letters with a black rim."""
    picture = _ground(rng)
    ink = _somewhere(rng, picture.shape, (14, 18, 24))
    rim = cv2.dilate(ink, np.ones((3, 3), np.uint8))
    return _mixed(_mixed(picture, rim, 0.0), ink, 255.0).astype(np.uint8), ink


def _dotted(rng: np.random.Generator) -> Written:
    """As a printer of needles writes."""
    while True:
        picture = _ground(rng)
        ink = _somewhere(rng, picture.shape, (24, 32))
        ink[::3], ink[:, ::3] = 0, 0
        if picture[ink > 64].std() < 25:
            return _mixed(picture, ink, _contrasting(picture, ink, 120)).astype(np.uint8), ink


def _at_the_border(rng: np.random.Generator) -> Written:
    """Cut by a side of the picture."""
    while True:
        whole = _ground(rng)
        ink = _somewhere(rng, whole.shape, (14, 18, 24))
        rows, columns = np.nonzero(ink > 64)
        side = int(rng.integers(4))
        cut = (rows.min() + 4, rows.max() - 3, columns.min() + 4, columns.max() - 3)[side]
        part = (np.s_[cut:], np.s_[:cut], np.s_[:, cut:], np.s_[:, :cut])[side]
        picture, ink = whole[part], ink[part]
        if min(picture.shape) > 60 and (ink > 64).any() and picture[ink > 64].std() < 30:
            return _mixed(picture, ink, _contrasting(picture, ink, 100)).astype(np.uint8), ink


KINDS: Mapping[str, Callable[[np.random.Generator], Written]] = {
    "in noise": _noisy,
    "in a window of noise": _in_a_window,
    "on speckle": _speckled,
    "in stripes": _striped,
    "in blocks of JPEG": _compressed,
    "inverse": _inverse,
    "turned by a quarter": _turned,
    "letters below each other": _stacked,
    "60 to 150 px": _tall,
    "coloured": _coloured,
    "of the ground's grey": _of_one_grey,
    "bitmap font": _bitmap,
    "with a rim": _outlined,
    "dotted": _dotted,
    "cut by the border": _at_the_border,
}
"""Ways of writing that the strings by size and contrast do not have."""
