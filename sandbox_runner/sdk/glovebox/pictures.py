"""Read one picture, and bring it to a common size and scale.

Training and the trusted evaluation call the same functions: a network is scored on exactly the
numbers that it would have been trained on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

PICTURES = (".dcm", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy")


Source = Path | BinaryIO


def read(source: Source, name: str = "") -> tuple[NDArray[Any], float, float]:
    """Return the stored pixels and the lowest and highest value that the format can hold.

    ``source`` is a path, or an open file whose ``name`` ends as its kind asks. Shapes: HxW or
    HxWx3; of a multi-frame picture, the first frame. MONOCHROME1 (PS3.3 C.7.6.3.1.2) is inverted,
    so that bright always means bright.

    Raises ``ValueError`` for a kind that is not known, ``ImportError`` where the image lacks
    pydicom or Pillow, and whatever those raise for a broken file.
    """
    kind = Path(name or str(source)).suffix.lower()
    if kind == ".dcm":
        return _read_dicom(source)
    if kind == ".npy":
        array = np.load(source, allow_pickle=False)
        return array, *_range_of(array)
    if kind in PICTURES:
        return _read_photo(source)
    raise ValueError(f"{kind or 'no ending'}: not a kind of picture that can be read")


def _read_dicom(source: Source) -> tuple[NDArray[Any], float, float]:
    import pydicom

    dataset = pydicom.dcmread(source)
    array = dataset.pixel_array
    if int(dataset.get("NumberOfFrames", 1) or 1) > 1:
        array = array[0]
    low, high = 0.0, float(2 ** int(dataset.BitsStored) - 1)
    if int(dataset.get("PixelRepresentation", 0)) == 1:
        half = float(2 ** (int(dataset.BitsStored) - 1))
        low, high = -half, half - 1
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        array = (low + high - array.astype(np.float64)).astype(array.dtype)
    return array, low, high


def _read_photo(source: Source) -> tuple[NDArray[Any], float, float]:
    from PIL import Image

    with Image.open(source) as picture:
        # Palettes and transparency would make the meaning of a number depend on the file.
        if picture.mode not in ("L", "I;16", "RGB"):
            picture = picture.convert("RGB")  # type: ignore[assignment]
        array = np.asarray(picture)
    return array, *_range_of(array)


def _range_of(array: NDArray[Any]) -> tuple[float, float]:
    if np.issubdtype(array.dtype, np.integer):
        info = np.iinfo(array.dtype)
        return float(info.min), float(info.max)
    return 0.0, 1.0


def grey(array: NDArray[Any]) -> NDArray[np.float64]:
    """Return HxW luminance (ITU-R BT.601) of an HxW or HxWx3 picture."""
    if array.ndim == 3:
        return np.asarray(array[..., :3] @ np.array([0.299, 0.587, 0.114]), dtype=np.float64)
    if array.ndim != 2:
        raise ValueError(f"a picture of {array.ndim} dimensions")
    return array.astype(np.float64)


def _overlaps(source: int, target: int) -> NDArray[np.float64]:
    """Return the target x source matrix of how much of each source pixel a target pixel covers."""
    edges = np.arange(target + 1) * (source / target)
    left = np.maximum(edges[:-1, None], np.arange(source)[None, :])
    right = np.minimum(edges[1:, None], np.arange(1, source + 1)[None, :])
    covered = np.clip(right - left, 0.0, None)
    return np.asarray(covered / covered.sum(axis=1, keepdims=True))


def resize_by_area(array: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float64]:
    """Return the HxW picture as ``size`` (height, width), each pixel the mean of what it covers."""
    height, width = size
    rows = _overlaps(array.shape[0], height)
    columns = _overlaps(array.shape[1], width)
    return np.asarray(rows @ array.astype(np.float64) @ columns.T)


def prepare(source: Source, size: tuple[int, int], name: str = "") -> NDArray[np.float32]:
    """Return one picture as float32 of shape (height, width), 0..1 of what its format can hold."""
    array, low, high = read(source, name)
    picture = resize_by_area(grey(array), size)
    return np.clip((picture - low) / (high - low), 0.0, 1.0).astype(np.float32)
