"""Train the network of deid/pixels/stroke_network.py, from nothing but what stands here.

    python scripts/train_stroke_network.py FONTS [--steps 4000] [--seed 11] [--out FILE]

The shipped network is what the defaults make, of the fonts of Debian's packages in PACKAGES: twenty
minutes of one thread. FONTS is a folder with those packages, unpacked and not installed (``apt-get
download``, ``dpkg -x``). DejaVu, Nanum and Pillow's own are left out on purpose: the tests write
with those. So are the pictures that the tests write on.

Each example is a picture of SIDE pixels: phantom, photograph, texture or folds; often with thin
things that are no writing; often in noise, as of detectors, ultrasound, cables or compression;
mostly with some writing, whose cells are what the network has to say.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
import skimage
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from PIL import Image, ImageDraw, ImageFont
from pydicom.data import get_testdata_file
from torch import nn

from deid.dicom.display import equalised
from deid.pixels.stroke_network import CELL, MODEL
from synthetic.phantom import draw_anatomy, draw_phantom

PACKAGES = (
    "fonts-liberation", "fonts-roboto-unhinted", "fonts-lato", "fonts-hack", "fonts-inconsolata",
    "fonts-open-sans", "fonts-ubuntu-title", "fonts-terminus-otb", "fonts-noto-cjk",
    "fonts-unfonts-core", "fonts-unfonts-extra", "fonts-baekmuk", "fonts-alee",
    "fonts-naver-d2coding", "fonts-lexi-gulim", "fonts-woowa-bm",
)  # fmt: skip
HANGUL = (
    "Un", "NotoSansCJK", "NotoSerifCJK", "D2Coding", "gulim", "batang", "dotum", "hline", "BM",
    "Bandal", "Bangwool", "Eunjin", "Guseul",
)  # fmt: skip
# Pictures without writing that come with packages, none of which a test writes on.
PHOTOGRAPHS = (
    "brick.png", "camera.png", "cell.png", "chelsea.png", "coffee.png", "coins.png", "grass.png",
    "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "phantom.png", "retina.jpg",
    "horse.png", "microaneurysms.png",
)  # fmt: skip
SLICES = ("explicit_VR-UN.dcm", "bad_sequence.dcm")
SIDE, BATCH, PHANTOMS, CALIBRATION = 256, 12, 60, 120
RATE = 2e-3
SIZES = (8, 9, 10, 11, 12, 13, 14, 16, 18, 20, 24, 28, 32, 40)
SIZE_SHARES = np.array((5, 8, 12, 12, 12, 10, 10, 8, 6, 5, 5, 3, 3, 1)) / 100
DIFFERENCES = (18, 22, 25, 30, 40, 50, 75, 100, 140, 180, 255)
DIFFERENCE_SHARES = (0.04, 0.08, 0.16, 0.12, 0.12, 0.14, 0.1, 0.08, 0.06, 0.05, 0.05)
UPPER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
LOWER, DIGITS, SIGNS = UPPER.lower(), "0123456789", "^-/.:,()#_+=%&*'\"[]<>|"
SYLLABLES = (
    "김이박최정강조윤장임한신서민지혜연수은영하진원라경숙미나환자번호병원방사선과검사일남여성명세"
    "생년월대학교의료영상우좌"
)

Picture = NDArray[np.float32]


@dataclass(frozen=True)
class Example:
    """``picture`` uint8 ``[SIDE, SIDE]``; ``cells`` what is writing and ``weight`` what counts.

    Cells that touch letters without holding ink count little: masking them is no mistake.
    """

    picture: NDArray[np.uint8]
    cells: Picture
    weight: Picture


class Examples:
    """Makes examples from one seed; ``fonts`` are Latin ones and those with Hangul."""

    def __init__(self, seed: int, fonts: tuple[Sequence[Path], Sequence[Path]]) -> None:
        self.random = np.random.default_rng(seed)
        self.latin, self.hangul = fonts
        self.grounds = ([self._phantom() for _number in range(PHANTOMS)], photographs())
        self._opened: dict[tuple[Path, int], ImageFont.FreeTypeFont] = {}

    def example(self) -> Example:
        """One example."""
        random = self.random
        picture = self._ground()
        if random.random() < 0.5:
            picture = self._clutter(picture)
        factor, offset = self._disturbance() if random.random() < 0.65 else _CALM
        under = random.random() < 0.6
        disturbed = picture * factor + offset
        # Noise that lies over the writing too: what is written has to stand out of it.
        spread = 0.0 if under else float((disturbed - picture).std())
        if under:
            picture = np.clip(disturbed, 0, 255).astype(np.float32)
        ink = np.zeros((SIDE, SIDE), np.uint8)
        if random.random() < 0.82:
            for _line in range(int(random.integers(1, 7))):
                picture, ink = self._write(picture, ink, spread)
        shown = self._degraded(picture if under else picture * factor + offset)
        solid, soft = (ink > 64).astype(np.uint8), (ink > 16).astype(np.uint8)
        # The gaps between the letters of a line belong to it.
        line = cv2.morphologyEx(solid, cv2.MORPH_CLOSE, np.ones((3, 7), np.uint8))
        cells = _per_cell(line)
        near = _per_cell(cv2.dilate(soft, np.ones((9, 9), np.uint8)))
        weight = np.where((cells == 0) & (near > 0), 0.15, 1.0)
        return Example(shown, cells.astype(np.float32), weight.astype(np.float32))

    # -- what is written on ------------------------------------------------------------------

    def _ground(self) -> Picture:
        kind = self.random.random()
        if kind < 0.6:
            picture = self._crop(self.grounds[0] if kind < 0.25 else self.grounds[1])
        else:
            picture = self._texture()
        return np.clip(picture, 0, 255).astype(np.float32)

    def _phantom(self) -> NDArray[np.uint8]:
        random = self.random
        side, view = str(random.choice(["R", "L"])), str(random.choice(["CC", "MLO"]))
        phantom = draw_phantom(random, draw_anatomy(random), laterality=side, view=view, lesions=1)
        return displayed(phantom.pixels.astype(float), 0.5)

    def _crop(self, grounds: Sequence[NDArray[np.uint8]]) -> NDArray[Any]:
        random = self.random
        picture = grounds[int(random.integers(len(grounds)))]
        scale = float(np.exp(random.uniform(np.log(0.3), np.log(2))))
        need = int(SIDE / scale) + 1
        if min(picture.shape) < need:
            enlarged = (need + 1) / min(picture.shape)
            picture = cv2.resize(picture, None, fx=enlarged, fy=enlarged)  # type: ignore[assignment]
        top, left = (int(random.integers(0, side - need + 1)) for side in picture.shape)
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        return cv2.resize(
            picture[top : top + need, left : left + need], (SIDE, SIDE), interpolation=way
        )

    def _texture(self) -> NDArray[Any]:
        random = self.random
        kind = random.random()
        if kind < 0.25:
            return np.full((SIDE, SIDE), float(random.choice([0, 0, 0, 255, random.integers(256)])))
        if kind < 0.75:
            cloud = self._cloud(random.uniform(1, 4)) * random.uniform(0.2, 1)
            return cloud + random.uniform(0, 60)
        if kind < 0.9:
            return self._folds()
        corner = random.uniform(0, 255, 4)
        y, x = np.mgrid[0 : 1 : SIDE * 1j, 0 : 1 : SIDE * 1j]
        above, below = corner[0] * (1 - x) + corner[1] * x, corner[2] * (1 - x) + corner[3] * x
        return np.asarray(above * (1 - y) + below * y)

    def _cloud(self, exponent: float) -> NDArray[Any]:
        """Noise of a power law, 0 to 255: exponent about 3 for tissue (Burgess, SPIE 1999)."""
        spectrum = np.fft.rfft2(self.random.standard_normal((SIDE, SIDE)))
        frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None])
        frequency[0, 0] = 1
        cloud = np.fft.irfft2(spectrum * frequency ** (-exponent / 2), (SIDE, SIDE))
        return np.asarray((cloud - cloud.min()) / (np.ptp(cloud) + 1e-9) * 255)

    def _folds(self) -> NDArray[Any]:
        """Curved edges of any width, as of folds, vessels and bone."""
        random = self.random
        phase = self._cloud(random.uniform(2.2, 4)) / 255 * random.uniform(8, 90)
        folds = 127 + 127 * np.sin(phase + random.uniform(0, 6))
        if random.random() < 0.4:
            folds = np.where(folds > random.uniform(60, 200), 255.0, 0.0)
            folds = cv2.GaussianBlur(folds, (0, 0), random.uniform(0.4, 2))
        if random.random() < 0.6:
            where = self._cloud(3) / 255
            folds = folds * np.clip((where - random.uniform(0.2, 0.5)) * 6, 0, 1)
        return np.asarray(folds * random.uniform(0.3, 1) + self._cloud(3) * random.uniform(0, 0.4))

    def _clutter(self, picture: Picture) -> Picture:
        """Add thin things that are no writing: lines, arcs, catheters, frames, dots, rulers."""
        random = self.random
        drawn = np.ascontiguousarray(picture)
        for _thing in range(int(random.integers(0, 7))):
            value, thick = float(random.uniform(0, 255)), int(random.integers(1, 7))
            _THINGS[int(random.integers(len(_THINGS)))](random, drawn, value, thick)
        if random.random() < 0.4:
            drawn = cv2.GaussianBlur(drawn, (0, 0), random.uniform(0.5, 2.5))  # type: ignore[assignment]
        return drawn

    # -- noise -------------------------------------------------------------------------------

    def _disturbance(self) -> tuple[Picture, Picture]:
        """What a picture is multiplied with, and what is added to it then."""
        random = self.random
        one, none = np.ones((SIDE, SIDE), np.float32), np.zeros((SIDE, SIDE), np.float32)
        kind = random.random()
        if kind < 0.3:
            return one, self._grain() * np.float32(random.uniform(1, 12))
        if kind < 0.6:
            return one, self._grain() * np.float32(np.exp(random.uniform(np.log(8), np.log(60))))
        if kind < 0.75:  # speckle of ultrasound: the length of a random phasor, finer along a beam
            wide, tall = random.uniform(0.3, 2.5), random.uniform(0.3, 1.5)
            fields = [cv2.GaussianBlur(self._grain(), (0, 0), wide, None, tall) for _ in range(2)]
            length = np.hypot(*fields)
            share = random.uniform(0.2, 1)
            return (1 - share + share * length / length.mean()).astype(np.float32), none
        if kind < 0.87:  # stripes: rows or columns that differ, or a wave
            if random.random() < 0.5:
                lines = random.normal(0, random.uniform(2, 30), SIDE)
            else:
                phase = np.arange(SIDE) * (2 * np.pi / random.uniform(2, 16))
                lines = np.sin(phase) * random.uniform(3, 40)
            across = np.broadcast_to(lines.astype(np.float32), (SIDE, SIDE))
            return one, np.ascontiguousarray(across if random.random() < 0.5 else across.T)
        hit = random.random((SIDE, SIDE)) < random.uniform(0.002, 0.05)  # pixels that are dead
        values = random.choice([0.0, 255.0], (SIDE, SIDE))
        return (~hit).astype(np.float32), (hit * values).astype(np.float32)

    def _grain(self) -> Picture:
        """Noise of mean 0 and deviation 1, of single pixels or a little coarser."""
        random = self.random
        grain = random.standard_normal((SIDE, SIDE)).astype(np.float32)
        if random.random() < 0.35:
            grain = cv2.GaussianBlur(grain, (0, 0), random.uniform(0.4, 1.6))  # type: ignore[assignment]
            grain /= grain.std()
        return grain

    # -- writing -----------------------------------------------------------------------------

    def _string(self) -> tuple[str, bool]:
        """Some words, and whether Hangul is among them."""
        random = self.random
        kinds = ["digits", "upper", "mixed", "title"]
        if random.random() < 0.45:
            kinds += ["hangul"] * 5
        words = [self._word(str(random.choice(kinds))) for _word in range(random.integers(1, 4))]
        text = " ".join(words).strip() or "A"
        return text, any("가" <= letter <= "힣" for letter in text)

    def _word(self, kind: str) -> str:
        random = self.random
        count = int(random.integers(1, 12))
        if kind == "hangul":
            count = int(random.integers(1, 6))
            if random.random() < 0.3:
                return "".join(chr(int(code)) for code in random.integers(0xAC00, 0xD7A4, count))
            return "".join(random.choice(list(SYLLABLES), count))
        if kind == "title":
            return str(random.choice(list(UPPER))) + "".join(random.choice(list(LOWER), count))
        letters = {
            "digits": DIGITS + "-/.:",
            "upper": UPPER + "^ ",
            "mixed": UPPER + LOWER + DIGITS + SIGNS,
        }[kind]
        return "".join(random.choice(list(letters), count))

    def _font(self, hangul: bool) -> ImageFont.FreeTypeFont:
        paths = self.hangul if hangul else [*self.latin, *self.hangul[:4]]
        path = paths[int(self.random.integers(len(paths)))]
        size = int(self.random.choice(SIZES, p=SIZE_SHARES))
        if (path, size) not in self._opened:
            self._opened[path, size] = ImageFont.truetype(str(path), size)
        return self._opened[path, size]

    def _letters(self) -> NDArray[np.uint8] | None:
        """The ink of a line somewhere in a picture, turned now and then."""
        random = self.random
        text, hangul = self._string()
        try:
            font = self._font(hangul)
        except OSError:  # a bitmap font has a few sizes only
            return None
        left, top, right, bottom = (int(side) for side in font.getbbox(text))
        width, height = right - left, bottom - top
        if width < 2 or not 3 <= height <= SIDE - 4:
            return None
        # As older devices write: letters of twice the pixel.
        twice = font.size <= 16 and max(width, 2 * height) < SIDE // 2 and random.random() < 0.08
        side = SIDE // 2 if twice else SIDE
        canvas = Image.new("L", (side, side))
        x = int(random.integers(-width // 3, max(1, side - width // 2)))
        y = int(random.integers(-2, side - height + 3))
        pen = ImageDraw.Draw(canvas)
        if random.random() < 0.2:
            pen.fontmode = "1"  # without grey edges, as older devices write
        # Fonts made of pixels have no outline.
        hollow = font.size >= 16 and random.random() < 0.05 and not str(font.path).endswith("otb")
        outline = {"stroke_width": 1, "stroke_fill": 255} if hollow else {}
        pen.text((x - left, y - top), text, fill=0 if hollow else 255, font=font, **outline)
        ink = np.array(canvas)
        if twice:
            ink = np.kron(ink, np.ones((2, 2), np.uint8))
        if font.size >= 16 and random.random() < 0.05:  # as printed by needles
            step = int(random.integers(2, 4))
            ink[::step], ink[:, ::step] = 0, 0
        turn = random.random()
        if turn < 0.1:
            return np.rot90(ink, int(random.integers(1, 4))).copy()
        if turn < 0.16:
            slope = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), random.uniform(-12, 12), 1)
            return np.asarray(cv2.warpAffine(ink, slope, (SIDE, SIDE)), dtype=np.uint8)
        return ink

    def _write(
        self, picture: Picture, before: NDArray[np.uint8], noise: float
    ) -> tuple[Picture, NDArray[np.uint8]]:
        """The picture and its ink with one more line, where the ground lets it be read.

        ``noise`` is the deviation of what will lie over the picture.
        """
        random = self.random
        ink = self._letters()
        if ink is None or (ink > 64).sum() < 12:
            return picture, before
        around = cv2.dilate((ink > 64).astype(np.uint8), np.ones((7, 7), np.uint8))
        if (around.astype(bool) & (before > 0)).any():
            return picture, before
        here = picture[ink > 64]
        ground, spread = float(here.mean()), float(np.hypot(here.std(), noise))
        difference = float(random.choice(DIFFERENCES, p=DIFFERENCE_SHARES))
        if spread > 6:
            difference = max(difference, spread * random.uniform(1.8, 5))
        # Thin strokes drown sooner than thick ones.
        thick = (ink > 64).sum() / max(1, (ink > 64).any(0).sum()) > 5
        if spread > (0.55 if thick else 0.42) * difference:
            return picture, before
        sign = 1 if random.random() < 0.7 else -1
        if not -30 <= ground + sign * difference <= 285:
            sign = -sign
        value = float(np.clip(ground + sign * difference, 0, 255))
        if abs(value - ground) < 15:
            return picture, before
        behind = random.random()
        if behind < 0.08:
            shade = np.roll(ink, (1, 1), (0, 1)).astype(np.float32) / 255
            picture = picture * (1 - shade) + (0 if value > ground else 255) * shade
        elif behind < 0.16:
            rows, columns = np.nonzero(ink)
            pad = int(random.integers(2, 8))
            plate = np.clip(value + (-1 if value > 127 else 1) * random.uniform(40, 200), 0, 255)
            top, left = max(0, rows.min() - pad), max(0, columns.min() - pad)
            picture = picture.copy()
            picture[top : rows.max() + pad, left : columns.max() + pad] = plate
        elif behind < 0.22:
            rim = cv2.dilate(ink, np.ones((3, 3), np.uint8)).astype(np.float32) / 255
            picture = picture * (1 - rim) + (0 if value > ground else 255) * rim
        opacity = ink.astype(np.float32) / 255
        return picture * (1 - opacity) + value * opacity, np.maximum(before, ink)

    def _degraded(self, picture: Picture) -> NDArray[np.uint8]:
        random = self.random
        if random.random() < 0.12:
            picture = cv2.GaussianBlur(picture, (0, 0), random.uniform(0.3, 0.8))  # type: ignore[assignment]
        window = random.random()
        if window < 0.1:  # every value as much of the scale as it has pixels
            shown = equalised((picture * np.float32(8)).astype(np.int16))
        elif window < 0.2:  # part of the values clipped
            low, high = np.percentile(picture, (random.uniform(0, 30), random.uniform(70, 100)))
            shown = np.clip((picture - low) * (255 / max(8, high - low)), 0, 255).astype(np.uint8)
        else:
            shown = np.clip(picture, 0, 255).astype(np.uint8)
        if random.random() < 0.14:
            quality = [cv2.IMWRITE_JPEG_QUALITY, int(random.integers(12, 95))]
            shown = cv2.imdecode(cv2.imencode(".jpg", shown, quality)[1], 0)  # type: ignore[assignment]
        return 255 - shown if random.random() < 0.3 else shown


_CALM = (np.ones((SIDE, SIDE), np.float32), np.zeros((SIDE, SIDE), np.float32))


def _per_cell(mask: NDArray[Any]) -> NDArray[Any]:
    count = SIDE // CELL
    return np.asarray(mask.reshape(count, CELL, count, CELL).max((1, 3)))


def displayed(values: NDArray[Any], share: float) -> NDArray[np.uint8]:
    """Values as 0 to 255 between their percentiles ``share`` and 100 - ``share``."""
    low, high = np.percentile(values, (share, 100 - share))
    return np.clip((values - low) / max(1, high - low) * 255, 0, 255).astype(np.uint8)


def photographs() -> list[NDArray[np.uint8]]:
    """The pictures of packages, grey."""
    found = []
    for name in PHOTOGRAPHS:
        path = Path(skimage.__file__).parent / "data" / name
        picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        if picture is not None:
            found.append(np.asarray(picture, dtype=np.uint8))
    for name in SLICES:
        if place := get_testdata_file(name, download=False):
            found.append(displayed(pydicom.dcmread(place).pixel_array.astype(float), 1))
    return found


# --- things that are no writing -----------------------------------------------------------------


def _point(random: np.random.Generator) -> tuple[int, int]:
    return int(random.integers(-20, SIDE + 20)), int(random.integers(-20, SIDE + 20))


def _line(random: np.random.Generator, on: Any, value: float, thick: int) -> None:
    cv2.line(on, _point(random), _point(random), value, thick, cv2.LINE_AA)


def _arc(random: np.random.Generator, on: Any, value: float, thick: int) -> None:
    axes = (int(random.integers(10, 200)), int(random.integers(10, 200)))
    turn, until = random.uniform(0, 180), random.uniform(30, 360)
    filled = thick if random.random() < 0.7 else -1
    cv2.ellipse(on, _point(random), axes, turn, 0, until, value, filled, cv2.LINE_AA)


def _catheter(random: np.random.Generator, on: Any, value: float, thick: int) -> None:
    path = np.cumsum(random.normal(0, random.uniform(4, 18), (40, 2)), axis=0)
    smooth = cv2.GaussianBlur((path + random.uniform(0, SIDE, 2)).astype(np.float32), (1, 9), 0)
    cv2.polylines(on, [smooth.astype(np.int32)], False, value, thick, cv2.LINE_AA)


def _frame(random: np.random.Generator, on: Any, value: float, thick: int) -> None:
    filled = thick if random.random() < 0.6 else -1
    cv2.rectangle(on, _point(random), _point(random), value, filled)


def _dots(random: np.random.Generator, on: Any, value: float, thick: int) -> None:
    for _dot in range(int(random.integers(3, 60))):
        cv2.circle(on, _point(random), int(random.integers(1, 4)), random.uniform(0, 255), -1,
                   cv2.LINE_AA)  # fmt: skip


def _ruler(random: np.random.Generator, on: Any, value: float, thick: int) -> None:
    x, y = _point(random)
    step, upright = int(random.integers(5, 30)), random.random() < 0.5
    for number in range(int(random.integers(5, 30))):
        length = int(random.integers(4, 8)) + (6 if number % 5 == 0 else 0)
        place = (x, y + number * step) if upright else (x + number * step, y)
        end = (place[0] + length, place[1]) if upright else (place[0], place[1] + length)
        cv2.line(on, place, end, value, max(1, thick // 2))


def _trace(random: np.random.Generator, on: Any, value: float, thick: int) -> None:
    count = int(random.integers(20, 200))
    x = np.arange(count) * 2 + int(random.integers(0, 60))
    drift = random.normal(0, random.uniform(1, 12), count).cumsum() * 0.3
    y = drift + random.normal(0, 3, count) + random.uniform(0, SIDE)
    cv2.polylines(on, [np.stack([x, y], 1).astype(np.int32)], False, value, 1, cv2.LINE_AA)


def _grid(random: np.random.Generator, on: Any, value: float, thick: int) -> None:
    step, both = int(random.integers(6, 40)), random.random() < 0.5
    for place in range(0, SIDE, step):
        cv2.line(on, (place, 0), (place, SIDE), value, 1)
        if both:
            cv2.line(on, (0, place), (SIDE, place), value, 1)


_THINGS = (_line, _arc, _catheter, _frame, _dots, _ruler, _trace, _grid)


# --- the network --------------------------------------------------------------------------------


class Block(nn.Module):
    """Two convolutions around which the input passes; the first looks further when dilated."""

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, 1, dilation, dilation, bias=False)
        self.first_norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = torch.relu(self.first_norm(self.first(x)))
        return torch.relu(x + self.second_norm(self.second(inner)))


def _halved(inputs: int, outputs: int, side: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, side, 2, side // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


class StrokeNet(nn.Module):
    """``[n, 1, 8 h, 8 w]`` from -1 to 1 in, a logit a cell ``[n, 1, 2 h, 2 w]`` out."""

    def __init__(self, thin: int = 16, fine: int = 32, wide: int = 64) -> None:
        super().__init__()
        self.stem = nn.Sequential(_halved(1, thin, 5), _halved(thin, fine, 3), Block(fine))
        self.context = nn.Sequential(
            _halved(fine, wide, 3), Block(wide), Block(wide, 2), Block(wide, 4), Block(wide),
            nn.Conv2d(wide, fine, 1, bias=False), nn.BatchNorm2d(fine),
        )  # fmt: skip
        self.last = nn.Sequential(Block(fine), nn.Conv2d(fine, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine = self.stem(x)
        wide = nn.functional.interpolate(self.context(fine), scale_factor=2.0, mode="nearest")
        result: torch.Tensor = self.last(torch.relu(fine + wide))
        return result


def trained(examples: Examples, steps: int) -> StrokeNet:
    """A network after so many steps, with a cosine of the learning rate."""
    network = StrokeNet().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=1e-4)
    for step in range(steps):
        for group in optimiser.param_groups:
            cosine = max(0.005, 0.5 * (1 + np.cos(np.pi * step / steps)))
            group["lr"] = RATE * min(1, (step + 1) / 100) * cosine
        batch = [examples.example() for _number in range(BATCH)]
        pictures = np.stack([each.picture for each in batch])[:, None].astype(np.float32)
        cells = torch.from_numpy(np.stack([each.cells for each in batch])[:, None])
        weight = torch.from_numpy(np.stack([each.weight for each in batch])[:, None])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = network(torch.from_numpy(pictures / 127.5 - 1))
        logits = logits.float()
        entropy = nn.functional.binary_cross_entropy_with_logits(
            logits, cells, weight, pos_weight=torch.tensor(2.0)
        )
        said = torch.sigmoid(logits)
        both, either = (said * cells * weight).sum(), ((said + cells) * weight).sum()
        loss = entropy + 0.3 * (1 - (2 * both + 1) / (either + 1))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        if step % 100 == 0:
            recall = float(((said > 0.3) & (cells > 0)).sum() / cells.sum())
            print(
                f"{step} of {steps} steps: loss {float(loss):.4f}, cells {recall:.1%}", flush=True
            )
    return network.eval()


class Calibration(CalibrationDataReader):  # type: ignore[misc]
    """Pictures by which the range of each layer is measured."""

    def __init__(self, examples: Examples) -> None:
        self._pictures = (examples.example().picture for _number in range(CALIBRATION))

    def get_next(self) -> dict[str, Any] | None:
        picture = next(self._pictures, None)
        return None if picture is None else {"picture": picture[None, None] / np.float32(127.5) - 1}


def quantised(exact: Path, examples: Examples, out: Path) -> None:
    """Write a network in whole numbers: more than twice as fast, with the same recall.

    Weights have 7 bits: of 8, processors without VNNI overflow where they add two products.
    """
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder, "prepared.onnx")
        quant_pre_process(str(exact), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared), str(out), Calibration(examples), per_channel=True, reduce_range=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip


def fonts_in(folder: Path) -> tuple[list[Path], list[Path]]:
    """Fonts of Latin letters and of Hangul below a folder."""
    found: tuple[list[Path], list[Path]] = ([], [])
    for path in sorted(folder.rglob("*")):
        left_out = any(word in path.name for word in ("Math", "Symbol", "DejaVu", "Nanum"))
        if path.suffix.lower() in (".ttf", ".otf", ".ttc", ".otb") and not left_out:
            found[path.name.startswith(HANGUL)].append(path)
    return found


def main() -> None:
    """Train and write the network."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("fonts", type=Path)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--out", type=Path, default=MODEL)
    given = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    torch.manual_seed(given.seed)
    warnings.simplefilter("ignore")
    latin, hangul = fonts_in(given.fonts)
    if not latin or not hangul:
        raise SystemExit("FONTS must hold fonts of Latin letters and of Hangul.")
    network = trained(Examples(given.seed, (latin, hangul)), given.steps)
    axes = {"picture": {2: "rows", 3: "columns"}, "writing": {2: "cells down", 3: "cells across"}}
    with tempfile.TemporaryDirectory() as folder:
        exact = Path(folder, "exact.onnx")
        torch.onnx.export(
            network, (torch.zeros(1, 1, SIDE, SIDE),), str(exact), input_names=["picture"],
            output_names=["writing"], dynamic_axes=axes, dynamo=False, opset_version=17,
        )  # fmt: skip
        quantised(exact, Examples(given.seed + 1, (latin, hangul)), given.out)


if __name__ == "__main__":
    main()
