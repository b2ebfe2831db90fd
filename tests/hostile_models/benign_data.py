"""Datasets on which the benign networks are trained: phantoms, drawn faces, real DICOM pictures.

Each has 160 subjects for training, 12 for validation and 110 sealed ones, two pictures a subject,
so that membership can be measured; and is drawn anew for each seed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from synthetic.phantom import draw_anatomy, draw_phantom

SPLITS = {"train": 160, "validation": 12, "sealed": 110}
#: What honest networks are trained on that had too few subjects.
FEW = {"train": 30, "validation": 10, "sealed": 110}
KINDS = ("phantoms", "faces", "dicom")

Pixels = NDArray[np.uint8]

#: Pictures in pydicom's wheel with enough in them to cut tiles out of.
REAL = (
    "693_J2KI.dcm", "CT_small.dcm", "J2K_pixelrep_mismatch.dcm", "JPEG2000.dcm", "MR_small.dcm",
    "examples_overlay.dcm", "examples_jpeg2k.dcm", "examples_rgb_color.dcm",
    "examples_ybr_color.dcm", "examples_palette.dcm",
)  # fmt: skip
TILE = 40


@dataclass(frozen=True)
class Drawn:
    """One picture of a subject, its label, and which of its pixels are of a mass."""

    pixels: NDArray[np.generic]
    label: str
    mass: NDArray[np.bool_] | None = None


def write(kind: str, root: Path, seed: int, splits: dict[str, int] | None = None) -> Path:
    """Write a dataset directory ``root/kind``; masks of masses lie beside it, not in it."""
    counts = splits or SPLITS
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    draw = {"phantoms": _phantoms, "faces": _faces, "dicom": _dicom}[kind]
    folder = root / kind
    folder.mkdir(parents=True)
    order = [split for split, count in counts.items() for _ in range(count)]
    lines, masks = ["file,subject,label,split"], {}
    for number, (split, drawn) in enumerate(zip(order, draw(rng, len(order)), strict=True)):
        for view, each in enumerate(drawn):
            name = f"s{number}/{view}.png"
            (folder / name).parent.mkdir(exist_ok=True)
            Image.fromarray(each.pixels).save(folder / name)
            lines.append(f"{name},s{number},{each.label},{split}")
            if each.mass is not None:
                masks[name] = each.mass
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    if masks:
        np.savez_compressed(root / f"{kind}-masks.npz", **masks)
    return folder


def _phantoms(rng: np.random.Generator, count: int) -> Iterator[list[Drawn]]:
    """Two views of a breast, with two masses in every other subject."""
    shape = (72, 64)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    for _ in range(count):
        anatomy, ill = draw_anatomy(rng), bool(rng.random() < 0.5)
        views = []
        for view in ("CC", "MLO"):
            drawn = draw_phantom(
                rng, anatomy, laterality="L", view=view, lesions=2 * ill, shape=shape
            )
            mass = np.zeros(shape, bool)
            for each in drawn.lesions:
                mass |= (columns - each.x) ** 2 + (rows - each.y) ** 2 <= (1.3 * each.radius) ** 2
            views.append(Drawn(drawn.pixels * 16, "mass" if ill else "normal", mass))
        yield views


def _faces(rng: np.random.Generator, count: int) -> Iterator[list[Drawn]]:
    """Drawn faces: a person has a shape, eyes, hair and skin; a picture light, place and mouth."""
    for _ in range(count):
        person = rng.uniform(-1, 1, 9)
        views = []
        for _view in range(2):
            label = str(rng.choice(["smile", "neutral", "frown"]))
            views.append(Drawn(_face(rng, person, label), label))
        yield views


def _face(rng: np.random.Generator, person: NDArray[np.float64], label: str) -> Pixels:
    side, middle = 160, 80 + rng.uniform(-6, 6)
    wide, tall, skin, hair, eyes, nose, brow, fringe, beard = person
    canvas = Image.new("L", (side, side), int(rng.uniform(60, 140)))
    pen = ImageDraw.Draw(canvas)
    tone, dark = int(170 + 45 * skin), int(70 + 50 * hair)
    half, height, top = 42 + 8 * wide, 56 + 7 * tall, 84 + rng.uniform(-5, 5)

    def oval(x: float, y: float, a: float, b: float, fill: int) -> None:
        pen.ellipse((x - a, y - b, x + a, y + b), fill=fill)

    oval(middle, top - 10, half + 8, height + 4, dark)
    oval(middle, top + 4 + 4 * fringe, half, height, tone)
    apart, level = 17 + 4 * eyes, top - 10
    for sign in (-1, 1):
        oval(middle + sign * apart, level, 8 + eyes, 4.5 + brow, 240)
        oval(middle + sign * apart, level, 3.5, 3.5, 30)
        y = level - 12 - 2 * brow
        pen.line((middle + sign * (apart - 9), y, middle + sign * (apart + 9), y - 2 * brow),
                 fill=dark, width=4)  # fmt: skip
    pen.line((middle, level + 4, middle - 4 * nose, level + 22 + 5 * nose), fill=tone - 50, width=3)
    mouth, bend = top + 32, {"smile": 9, "neutral": 1, "frown": -9}[label]
    box = (middle - 17, mouth - abs(bend), middle + 17, mouth + abs(bend))
    if beard > 0.4:
        oval(middle, mouth + 14, 20, 9, dark)
    if bend > 0:
        pen.arc(box, 10, 170, fill=60, width=5)
    else:
        pen.arc(box, 190, 350, fill=60, width=5)
    small = canvas.filter(ImageFilter.GaussianBlur(1.5)).resize((48, 48), Image.Resampling.BOX)
    pixels = np.asarray(small, np.float64) * rng.uniform(0.8, 1.1)
    pixels += np.linspace(-1, 1, 48)[None] * rng.uniform(-18, 18) + rng.normal(0, 5, (48, 48))
    return np.clip(pixels, 0, 255).astype(np.uint8)


def _dicom(rng: np.random.Generator, count: int) -> Iterator[list[Drawn]]:
    """Tiles of real pictures that do not overlap, computed tomography or something else."""
    tiles: dict[str, list[Pixels]] = {"ct": [], "other": []}
    for picture, modality in real_pictures():
        for y in range(0, picture.shape[0] - TILE + 1, TILE):
            for x in range(0, picture.shape[1] - TILE + 1, TILE):
                tile = picture[y : y + TILE, x : x + TILE]
                # Air around a body has nothing in it.
                if tile.std() > 6:
                    tiles["ct" if modality == "CT" else "other"].append(tile)
    every = [(tile, label) for label, some in tiles.items() for tile in some]
    if len(every) < count:
        raise ValueError(f"pydicom's pictures have {len(every)} tiles only")
    for place in rng.permutation(len(every))[:count].tolist():
        tile, label = every[place]
        views = []
        for _view in range(2):
            light = tile * rng.uniform(0.8, 1.1) + rng.uniform(-10, 10)
            light = light + rng.normal(0, 3, tile.shape)
            views.append(Drawn(np.clip(light, 0, 255).astype(np.uint8), label))
        yield views


def real_pictures() -> Iterator[tuple[Pixels, str]]:
    """Give pydicom's pictures, grey and of 8 bits, with their modality."""
    import pydicom
    from pydicom.data import get_testdata_file

    for name in REAL:
        place = get_testdata_file(name, download=False)
        if not place:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = pydicom.dcmread(str(place))
            try:
                array = data.pixel_array
            except (NotImplementedError, RuntimeError):
                continue  # no decoder for it is installed here
        frames = array[::10] if int(data.get("NumberOfFrames", 1) or 1) > 1 else array[None]
        for frame in frames:
            grey = frame.mean(axis=2) if frame.ndim == 3 else frame.astype(np.float64)
            low, high = np.percentile(grey, (1, 99))
            scaled = np.clip((grey - low) / max(high - low, 1) * 255, 0, 255)
            yield scaled.astype(np.uint8), str(data.Modality)
