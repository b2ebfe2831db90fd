"""The originals of the demonstration's three datasets, as an owner would hand them in."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from synthetic.mammography import write_phantoms
from synthetic.photos import write_photos
from synthetic.planted import Planted


@dataclass(frozen=True)
class Originals:
    """A zip to upload, how many files are in it, and what was planted there to be found."""

    archive: Path
    files: int
    planted: tuple[Planted, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)  # SHA-256 by path in the zip


def real_dicom(target: Path) -> Originals:
    """Pack every file of pydicom's wheel and of pydicom-data, broken ones included."""
    import data_store
    import pydicom

    roots = {
        "pydicom": Path(pydicom.__file__).parent / "data" / "test_files",
        "pydicom-data": Path(next(iter(data_store.__path__))) / "data",
    }
    files = [
        (path, f"{name}/{path.relative_to(root)}")
        for name, root in roots.items()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.suffix not in {".py", ".pyc"}
    ]
    return Originals(_pack(files, target), len(files))


def mammography(target: Path, *, patients: int, seed: int) -> Originals:
    """Draw phantoms with planted identifiers and pack them."""
    folder = target.with_suffix("")
    planted = write_phantoms(folder, patients=patients, seed=seed, identifiers=True)
    return _packed_folder(folder, target, tuple(planted))


def photos(target: Path, *, seed: int) -> Originals:
    """Compose photographs with faces, positions and thumbnails, and pack them."""
    folder = target.with_suffix("")
    planted = write_photos(folder, seed=seed, identifiers=True)
    return _packed_folder(folder, target, tuple(planted))


def _packed_folder(folder: Path, target: Path, planted: tuple[Planted, ...]) -> Originals:
    files = [
        (path, str(path.relative_to(folder)))
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    digests = {name: hashlib.sha256(path.read_bytes()).hexdigest() for path, name in files}
    return Originals(_pack(files, target), len(files), planted, digests)


def _pack(files: list[tuple[Path, str]], target: Path) -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path, name in files:
            archive.write(path, name)
    return target


def pack_submission(folder: Path, target: Path) -> Path:
    """Pack a submission's folder as the zip that is uploaded."""
    files = [
        (path, str(path.relative_to(folder)))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    ]
    return _pack(files, target)


def without_text(drawn: Originals, folder: Path, target: Path) -> Path:
    """Copy the phantoms with every burned-in text painted black; return the copy.

    What a model was trained on has its text masked, so it is judged at home on the same.
    """
    import pydicom

    shutil.copytree(folder, target)
    boxes: dict[str, list[tuple[int, int, int, int]]] = {}
    for value in drawn.planted:
        if value.box is not None:
            boxes.setdefault(value.file, []).append(value.box)
    for name, places in boxes.items():
        image = pydicom.dcmread(target / name)
        pixels = image.pixel_array.copy()
        for x, y, width, height in places:
            top, left = max(0, y - 4), max(0, x - 4)
            pixels[top : y + height + 4, left : x + width + 4] = pixels.min()
        image.PixelData = pixels.tobytes()
        image.save_as(target / name)
    return target
