"""Writing words into pictures, as scanners and cameras burn them in.

Latin letters come from Pillow's own font where no other is installed. Hangul needs an installed
font (Debian: fonts-nanum or fonts-noto-cjk); :func:`hangul_fonts` says when there is none, so that
a caller can say so too instead of drawing boxes that nobody would miss.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

FONT_FOLDERS = (Path("/usr/share/fonts"), Path("/usr/local/share/fonts"))
HANGUL_NAMES = ("Nanum*.ttf", "NotoSansCJK*.ttc", "NotoSerifCJK*.ttc", "NotoSansKR*.otf", "Un*.ttf")
LATIN_NAMES = ("DejaVu*.ttf", "Liberation*.ttf", "NotoSans-*.ttf")


@dataclass(frozen=True)
class Lettering:
    """A drawn string: where its ink lies, in the picture's rows and columns.

    ``ink`` has the picture's shape, is 0 where there is no ink and 255 where it is full.
    ``box`` is (x, y, width, height) of the ink.
    """

    text: str
    ink: NDArray[np.uint8]
    box: tuple[int, int, int, int]


@lru_cache(maxsize=8)
def _installed(names: tuple[str, ...]) -> tuple[Path, ...]:
    found = {
        path
        for folder in FONT_FOLDERS
        if folder.is_dir()
        for name in names
        for path in folder.rglob(name)
    }
    return tuple(sorted(found, key=lambda path: path.name))


def hangul_fonts() -> tuple[Path, ...]:
    """Installed fonts with Hangul; empty when there is none."""
    return _installed(HANGUL_NAMES)


def latin_fonts() -> tuple[Path, ...]:
    """Installed fonts with Latin letters; empty when only Pillow's own is there."""
    return _installed(LATIN_NAMES)


def needs_hangul(text: str) -> bool:
    """Whether the text has letters that a Latin font cannot draw."""
    return any("\u1100" <= letter <= "\ud7ff" for letter in text)


def open_font(text: str, size: int, path: Path | None = None) -> ImageFont.FreeTypeFont:
    """A font of ``size`` pixels that can draw ``text``.

    Raises :class:`LookupError` when the text has Hangul and no such font is installed.
    """
    if path is None and needs_hangul(text):
        fonts = hangul_fonts()
        if not fonts:
            raise LookupError("No font with Hangul is installed.")
        path = next((each for each in fonts if each.name == "NanumGothic.ttf"), fonts[0])
    if path is not None:
        return ImageFont.truetype(str(path), size)
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # Pillow with FreeType, as its wheels have
    return font


def measure(text: str, font: ImageFont.FreeTypeFont) -> tuple[int, int]:
    """Width and height in pixels of the ink of ``text``."""
    left, top, right, bottom = font.getbbox(text)
    return int(np.ceil(right - left)), int(np.ceil(bottom - top))


def letter(
    shape: tuple[int, int], text: str, font: ImageFont.FreeTypeFont, x: int, y: int
) -> Lettering:
    """The ink of ``text`` with its upper left corner at column ``x`` and row ``y``.

    Raises :class:`ValueError` when nothing of it falls into a picture of that ``shape``.
    """
    left, top, _right, _bottom = font.getbbox(text)
    canvas = Image.new("L", (shape[1], shape[0]))
    ImageDraw.Draw(canvas).text((x - left, y - top), text, fill=255, font=font)
    extent = canvas.getbbox()
    if extent is None:
        raise ValueError("The text lies outside the picture.")
    box = (extent[0], extent[1], extent[2] - extent[0], extent[3] - extent[1])
    return Lettering(text, np.asarray(canvas, dtype=np.uint8), box)


def burn(
    picture: NDArray[np.generic], lettering: Lettering, value: float | tuple[float, ...]
) -> NDArray[np.generic]:
    """A copy of ``picture`` (``[rows, columns(, channels)]``) with the ink drawn at ``value``."""
    alpha = lettering.ink.astype(np.float64) / 255
    if picture.ndim == 3:
        alpha = alpha[:, :, None]
    mixed = picture.astype(np.float64) * (1 - alpha) + np.asarray(value, dtype=np.float64) * alpha
    return np.round(mixed).astype(picture.dtype)
