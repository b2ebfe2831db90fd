"""Pictures for reviewers: curves and pairs, as PNG in base64. They are never public.

A curve through few subjects shows single subjects as its steps, and a pair shows one.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Floats = NDArray[np.float64]

_SIDE: Final = 320
_MARGIN: Final = 44
_COLOURS: Final = ("#1f6feb", "#d1242f", "#1a7f37", "#8250df", "#bf8700", "#57606a")


def picture(title: str, image: Image.Image) -> dict[str, str]:
    """Return an entry of ``internal["pictures"]``: title, and ``png`` in base64."""
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return {"title": title, "png": base64.b64encode(stream.getvalue()).decode("ascii")}


def roc(curves: Mapping[str, tuple[Floats, Floats]], outside: int) -> dict[str, str]:
    """Draw true over false positive rates (name to both), both axes logarithmic.

    ``outside`` is the number of subjects that were not in training: lower rates than one of them
    cannot be seen, so the axes end there.
    """
    least = min(0.1, 1 / max(2, outside))
    decades = np.log10(least)
    image = Image.new("RGB", (_SIDE + 2 * _MARGIN, _SIDE + 2 * _MARGIN + 16 * len(curves)), "white")
    draw = ImageDraw.Draw(image)

    def at(false: float, true: float) -> tuple[float, float]:
        x = 1 - np.log10(max(false, least)) / decades
        y = 1 - np.log10(max(true, least)) / decades
        return _MARGIN + float(x) * _SIDE, _MARGIN + (1 - float(y)) * _SIDE

    draw.rectangle([_MARGIN, _MARGIN, _MARGIN + _SIDE, _MARGIN + _SIDE], outline="#57606a")
    for exponent in range(0, int(np.ceil(decades)) - 1, -1):
        for rate in (10.0**exponent,):
            if rate < least:
                continue
            x, y = at(rate, rate)
            draw.line([x, _MARGIN, x, _MARGIN + _SIDE], fill="#d8dee4")
            draw.line([_MARGIN, y, _MARGIN + _SIDE, y], fill="#d8dee4")
            draw.text((x - 10, _MARGIN + _SIDE + 4), f"{rate:g}", fill="black")
            draw.text((8, y - 6), f"{rate:g}", fill="black")
    draw.line([at(least, least), at(1, 1)], fill="#8c959f")
    for number, (name, (false, true)) in enumerate(curves.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        points: list[tuple[float, float]] = []
        for f, t in zip(false, true, strict=True):
            if points:
                points.append((at(f, t)[0], points[-1][1]))  # steps, as the counts are
            points.append(at(f, t))
        draw.line(points, fill=colour, width=2)
        place = _MARGIN + _SIDE + 22 + 16 * number
        draw.line([_MARGIN, place + 6, _MARGIN + 24, place + 6], fill=colour, width=2)
        draw.text((_MARGIN + 32, place), name, fill="black")
    draw.text((_MARGIN, 8), "true positives over false positives, by subject", fill="black")
    return picture("roc", image)


def pair(made: NDArray[Any], sample: NDArray[Any], title: str) -> dict[str, str]:
    """Draw what the network gave beside the nearest training sample, both stretched to grey."""
    parts = [_grey(each) for each in (made, sample)]
    image = Image.new("L", (parts[0].width + parts[1].width + 8, parts[0].height), 255)
    image.paste(parts[0], (0, 0))
    image.paste(parts[1], (parts[0].width + 8, 0))
    return picture(title, image)


def _grey(array: NDArray[Any]) -> Image.Image:
    values = np.asarray(array, dtype=np.float64)
    low, high = float(values.min()), float(values.max())
    scaled = (values - low) / (high - low) if high > low else np.zeros_like(values)
    small = Image.fromarray((scaled * 255).astype(np.uint8))
    factor = 160 / max(small.size)
    size = (max(1, round(small.width * factor)), max(1, round(small.height * factor)))
    return small.resize(size, Image.Resampling.NEAREST if factor > 1 else Image.Resampling.BOX)
