"""Breast phantoms: an outline, tissue with the texture of a mammogram, and lesions.

Everything comes from public figures: the power law of breast texture (exponent about 3; Burgess,
"Mammographic structure", SPIE 1999), the four density classes in the shares of the BI-RADS atlas
(about 10, 40, 40 and 10 %), and the geometry of the two standard views.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MAXIMUM = 4095
"""The largest value of 12 bits."""

DENSITIES = (0.12, 0.3, 0.5, 0.72)
DENSITY_SHARES = (0.1, 0.4, 0.4, 0.1)


@dataclass(frozen=True)
class Anatomy:
    """What the two views and both sides of one patient have in common.

    ``density`` is the share of fibroglandular tissue, ``reach`` how far the breast reaches from
    the chest wall and ``spread`` how tall it is, as shares of the picture.
    """

    density: float
    reach: float
    spread: float


@dataclass(frozen=True)
class Lesion:
    """A mass: centre and mean radius in pixels (columns, rows), and its outline as a polygon."""

    x: float
    y: float
    radius: float
    contour: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Phantom:
    """``pixels`` is uint16 ``[rows, columns]`` of 12 bits, black 0; ``lesions`` what is in it."""

    pixels: NDArray[np.uint16]
    lesions: tuple[Lesion, ...]


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """The build of one patient."""
    return Anatomy(
        density=float(rng.choice(DENSITIES, p=DENSITY_SHARES)),
        reach=float(rng.uniform(0.6, 0.82)),
        spread=float(rng.uniform(0.36, 0.44)),
    )


def draw_phantom(
    rng: np.random.Generator,
    anatomy: Anatomy,
    *,
    laterality: str,
    view: str,
    lesions: int,
    shape: tuple[int, int] = (320, 256),
) -> Phantom:
    """One view: ``laterality`` R or L, ``view`` CC or MLO, with ``lesions`` masses in it.

    The chest wall is at the left edge for the left breast and at the right edge for the right
    one, as in files of scanners.
    """
    columns = shape[1]
    depth, muscle = _outline(rng, anatomy, view, shape)
    inside = depth > 0
    texture = _power_law(rng, shape, exponent=3.4)
    glands = _glands(texture, depth, anatomy.density)
    fat = 900 + 160 * _power_law(rng, shape, exponent=2.0)
    picture = fat + 900 * glands + 150 * texture * (0.4 + glands)
    picture += 750 * np.exp(-((depth - 0.03) ** 2) / 0.0004) * 0.5  # the skin line
    picture = np.where(muscle > 0, np.maximum(picture, 1100 + 650 * muscle + 60 * texture), picture)
    found: list[Lesion] = []
    for _number in range(lesions):
        lesion, mass = _mass(rng, depth, muscle, found)
        picture += mass
        found.append(lesion)
    edge = np.clip(depth / 0.05, 0, 1)
    picture = picture * edge + 60 * (1 - edge) * inside
    picture += rng.normal(0, 18, shape) * (inside + 0.3)
    pixels = np.clip(np.round(picture), 0, 3600).astype(np.uint16)
    if laterality == "R":
        pixels = np.ascontiguousarray(pixels[:, ::-1])
        found = [_mirrored(lesion, columns) for lesion in found]
    return Phantom(pixels, tuple(found))


def _outline(
    rng: np.random.Generator, anatomy: Anatomy, view: str, shape: tuple[int, int]
) -> tuple[Floats, Floats]:
    """Depth below the skin (0 at the skin, 1 in the middle, negative outside) and muscle."""
    rows, columns = shape
    row, column = np.mgrid[0:rows, 0:columns].astype(np.float64)
    middle = rows * (0.5 if view == "CC" else 0.56) + rng.normal(0, rows * 0.015)
    reach, spread = anatomy.reach * columns, anatomy.spread * rows
    reach *= rng.uniform(0.95, 1.05)
    up, across = (row - middle) / spread, column / reach
    if view == "MLO":
        # Stretched towards the armpit, with the nipple low.
        up = np.where(up < 0, up * 0.72, up * 1.05)
    distance = np.sqrt(np.abs(up) ** 2.3 + np.abs(across) ** 2.1)
    depth = 1 - distance
    muscle = np.zeros(shape)
    if view == "MLO":
        width, height = columns * rng.uniform(0.3, 0.4), rows * rng.uniform(0.5, 0.65)
        bow = 0.06 * np.sin(np.pi * np.clip(row / height, 0, 1))
        muscle = np.clip((1 - column / width - row / height + bow) * 8, 0, 1)
        depth = np.where(muscle > 0, np.maximum(depth, 0.06), depth)
    return depth, muscle


def _power_law(rng: np.random.Generator, shape: tuple[int, int], exponent: float) -> Floats:
    """Noise whose power falls with frequency to the ``exponent``; mean 0, deviation 1."""
    spectrum = np.fft.rfft2(rng.normal(size=shape))
    rows = np.fft.fftfreq(shape[0])[:, None]
    columns = np.fft.rfftfreq(shape[1])[None, :]
    frequency = np.sqrt(rows**2 + columns**2)
    # Below this there would be one slope over the whole breast instead of structure.
    noise = np.fft.irfft2(spectrum / np.maximum(frequency, 4 / max(shape)) ** (exponent / 2), shape)
    scaled: Floats = (noise - noise.mean()) / noise.std()
    return scaled


def _glands(texture: Floats, depth: Floats, density: float) -> Floats:
    """The share of glandular tissue at each pixel, 0 to 1: central, in the shape of the texture."""
    likely = texture + 2.2 * np.clip(depth, 0, 0.8)
    tissue = likely[depth > 0.08]
    border = float(np.quantile(tissue, 1 - density)) if tissue.size else 0.0
    below_skin = np.clip((depth - 0.06) / 0.2, 0, 1)
    glands: Floats = below_skin / (1 + np.exp(-(likely - border) / 0.4))
    return glands


def _mass(
    rng: np.random.Generator, depth: Floats, muscle: Floats, others: list[Lesion]
) -> tuple[Lesion, Floats]:
    rows, columns = depth.shape
    scale = columns / 256
    radius = float(rng.uniform(8, 15)) * scale
    fits = (depth > 0.22) & (depth < 0.75) & (muscle == 0)
    fits[:, : int(radius * 1.5)] = False
    for other in others:
        row, column = np.ogrid[0:rows, 0:columns]
        away = 2.5 * (radius + other.radius)
        fits &= (row - other.y) ** 2 + (column - other.x) ** 2 > away**2
    places = np.argwhere(fits)
    if not len(places):
        places = np.argwhere(depth > 0.2)
    y, x = (float(each) for each in places[int(rng.integers(len(places)))])
    row, column = np.mgrid[0:rows, 0:columns].astype(np.float64)
    angle = np.arctan2(row - y, column - x)
    lobes = [
        (order, rng.normal(0, 0.12 / order**0.5), rng.uniform(0, 2 * np.pi))
        for order in (2, 3, 5, 7)
    ]

    def border(at: Floats) -> Floats:
        waves = [size * np.cos(order * at + turn) for order, size, turn in lobes]
        ripple: Floats = radius * (1 + np.sum(waves, axis=0))
        return ripple

    distance = np.hypot(row - y, column - x) / border(angle)
    mass = rng.uniform(950, 1450) / (1 + np.exp((distance - 1) * 7))
    spicules = np.cos(angle * int(rng.integers(9, 15)) + rng.uniform(0, 6)) ** 8
    mass += 350 * spicules * np.exp(-np.clip(distance - 1, 0, None) * 2.2) * (distance > 0.8)
    turns = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    reach = border(turns)
    contour = tuple(
        (
            int(np.clip(round(x + float(r * np.cos(t))), 0, columns - 1)),
            int(np.clip(round(y + float(r * np.sin(t))), 0, rows - 1)),
        )
        for t, r in zip(turns, reach, strict=True)
    )
    return Lesion(x, y, radius, contour), mass


def _mirrored(lesion: Lesion, columns: int) -> Lesion:
    contour = tuple((columns - 1 - x, y) for x, y in lesion.contour)
    return Lesion(columns - 1 - lesion.x, lesion.y, lesion.radius, contour)
