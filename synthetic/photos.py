"""Photographs as cameras leave them: real pictures of installed packages, with planted identity.

The pictures are those in scikit-image's wheel: NASA's portrait of an astronaut, and scenes without
people, all free to use (its ``data/README.txt``). The one face is composed into the scenes at
several sizes, so where the faces are is known.
"""

from __future__ import annotations

import csv
import io
import zlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from policies.errors import CannotRun, _
from synthetic.identity import Identity, invent_identity
from synthetic.lettering import burn, letter, open_font
from synthetic.photo_metadata import (
    ascii_entry,
    bytes_entry,
    degrees_entry,
    exif_block,
    gif_with,
    iptc_block,
    jpeg_with,
    multi_picture_index,
    png_with,
    short_entry,
    webp_with,
    xmp_packet,
)
from synthetic.planted import Planted
from synthetic.splits import split_subjects

Pixels: TypeAlias = NDArray[np.uint8]
Rectangle: TypeAlias = tuple[int, int, int, int]

PORTRAIT = "astronaut.png"
PORTRAIT_CUT = (20, 190, 165, 300)
"""Rows and columns of head and shoulders in the portrait."""
PORTRAIT_FACE = (25, 35, 85, 115)
"""The face in the cut: x, y, width, height."""
SCENES = (
    "coffee.png", "chelsea.png", "rocket.jpg", "motorcycle_left.png", "brick.png", "grass.png",
    "gravel.png", "coins.png",
)  # fmt: skip
FORMATS = ("JPEG", "PNG", "JPEG", "TIFF", "WEBP", "JPEG", "GIF", "BMP", "JPEG")
FACE_WIDTHS = (32, 48, 64, 90, 120)
TURNED = {
    6: Image.Transpose.ROTATE_90,
    3: Image.Transpose.ROTATE_180,
    8: Image.Transpose.ROTATE_270,
}
"""EXIF orientations, and how the stored picture is turned so that they make it upright."""

LABEL_COLUMNS = ("file", "subject", "label", "split")


@dataclass(frozen=True)
class Scene:
    """An upright picture with what is in it."""

    pixels: Pixels
    faces: tuple[Rectangle, ...]
    texts: tuple[tuple[str, Rectangle], ...]


def package_photo(name: str) -> Pixels:
    """One of scikit-image's pictures as ``[rows, columns, 3]``; read without importing it.

    Raises :class:`CannotRun` when the package or the picture is not installed.
    """
    spec = find_spec("skimage")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, "data", name)
        if path.is_file():
            with Image.open(path) as image:
                return np.asarray(image.convert("RGB"), dtype=np.uint8)
    raise CannotRun(
        _("The picture {name} is not installed; install the package scikit-image."), name=name
    )


def write_photos(
    target: Path, seed: int, identifiers: bool = True, *, subjects: int = 9, each: int = 3
) -> list[Planted]:
    """Write ``subjects`` times ``each`` photographs into the new folder ``target``.

    Half of them show a face; some have a camera's line of text in the corner. With
    ``identifiers`` their files carry position, owner, serial numbers, maker notes, a thumbnail of
    the whole picture, comments, further pictures and bytes after the end, in JPEG, PNG, TIFF,
    WebP, GIF and BMP; file and folder names tell too. Faces are among what is returned, with an
    empty value and ``where`` ``face``. Boxes are in the upright picture.
    """
    target.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    planted: list[Planted] = []
    taken: set[str] = set()
    people = [invent_identity(rng, taken) for _place in range(subjects)]
    names = [
        person.number if identifiers else f"{place + 1:04d}" for place, person in enumerate(people)
    ]
    splits = split_subjects(dict.fromkeys(names, "photo"), rng)
    rows = []
    for place, (person, subject) in enumerate(zip(people, names, strict=True)):
        folder = person.latin.replace("^", "_") + f"_{person.number}" if identifiers else subject
        (target / folder).mkdir()
        for number in range(each):
            count = place * each + number
            kind = FORMATS[count % len(FORMATS)] if identifiers else "JPEG"
            suffix = {"JPEG": "jpg", "TIFF": "tif"}.get(kind, kind.lower())
            stem = f"{person.hangul}_{number + 1}" if identifiers else f"{number + 1:04d}"
            file = f"{folder}/{stem}.{suffix}"
            text = f"{person.latin_text} {person.exam_text}"
            scene = draw_scene(rng, count, text=text if identifiers and count % 3 == 0 else "")
            data = _plain(scene.pixels, kind)
            if identifiers:
                data = _identified(scene.pixels, kind, person, count, file, planted)
                planted.append(Planted(stem, "file name", file))
                planted.append(Planted(folder, "folder name", file))
                planted.extend(Planted(value, "pixels", file, box) for value, box in scene.texts)
                planted.extend(Planted("", "face", file, box) for box in scene.faces)
            (target / file).write_bytes(data)
            label = "face" if scene.faces else "scene"
            rows.append(
                dict(zip(LABEL_COLUMNS, (file, subject, label, splits[subject]), strict=True))
            )
        if identifiers:
            planted.append(Planted(person.number, "subject", "labels.csv"))
    _write_tables(target, rows)
    return planted


def draw_scene(rng: np.random.Generator, count: int, *, text: str) -> Scene:
    """An upright picture; every second one shows a face, and ``text`` stands in its corner."""
    if count == 0:
        pixels = package_photo(PORTRAIT)
        top, _bottom, left, _right = PORTRAIT_CUT
        x, y, width, height = PORTRAIT_FACE
        faces: tuple[Rectangle, ...] = ((left + x, top + y, width, height),)
    else:
        pixels = package_photo(SCENES[int(rng.integers(len(SCENES)))]).copy()
        faces = (_paste_face(pixels, rng),) if count % 2 == 0 else ()
    texts: tuple[tuple[str, Rectangle], ...] = ()
    if text:
        font = open_font(text, 18)
        drawn = letter(pixels.shape[:2], text, font, 10, pixels.shape[0] - 30)
        corner = pixels[-34:, :240].mean()
        ink = (20.0, 20.0, 20.0) if corner > 140 else (250.0, 220.0, 60.0)
        pixels = burn(pixels, drawn, ink).astype(np.uint8)
        texts = ((text, drawn.box),)
    return Scene(np.ascontiguousarray(pixels), faces, texts)


def _paste_face(pixels: Pixels, rng: np.random.Generator) -> Rectangle:
    top, bottom, left, right = PORTRAIT_CUT
    cut = package_photo(PORTRAIT)[top:bottom, left:right]
    x, y, width, height = PORTRAIT_FACE
    scale = float(rng.choice(FACE_WIDTHS)) / width
    size = (round(cut.shape[1] * scale), round(cut.shape[0] * scale))
    head = np.asarray(Image.fromarray(cut).resize(size, Image.Resampling.BICUBIC))
    row = int(rng.integers(0, pixels.shape[0] - size[1] - 40))
    column = int(rng.integers(0, pixels.shape[1] - size[0]))
    pixels[row : row + size[1], column : column + size[0]] = head
    return (
        column + round(x * scale),
        row + round(y * scale),
        round(width * scale),
        round(height * scale),
    )


def _plain(pixels: Pixels, kind: str) -> bytes:
    stream = io.BytesIO()
    # Each format takes its own one of these and leaves the other alone.
    Image.fromarray(pixels).save(stream, kind, quality=92, lossless=True)
    return stream.getvalue()


class _Hiding:
    """Notes each value as it is handed out for writing."""

    def __init__(self, person: Identity, file: str, planted: list[Planted]) -> None:
        self.person = person
        self._file = file
        self._planted = planted

    def value(self, text: str, where: str) -> str:
        self._planted.append(Planted(text, where, self._file))
        return text


def _identified(
    pixels: Pixels, kind: str, person: Identity, count: int, file: str, planted: list[Planted]
) -> bytes:
    hiding = _Hiding(person, file, planted)
    image = Image.fromarray(pixels)
    orientation = (1, 6, 1, 3, 8)[count % 5] if kind in ("JPEG", "TIFF") else 1
    if orientation != 1:
        image = image.transpose(TURNED[orientation])
    stored = np.asarray(image)
    exif = _exif(image, hiding, orientation) if kind in ("JPEG", "PNG", "WEBP") else b""
    after = hiding.value(f"trailer {person.phone}", "after the end").encode()
    if kind == "JPEG":
        return _jpeg(stored, exif, hiding, after, two_pictures=count % 2 == 0)
    if kind == "PNG":
        chunks = [
            (b"tEXt", b"Author\0" + hiding.value(person.latin_text, "PNG tEXt").encode()),
            (
                b"zTXt",
                b"Comment\0\0" + zlib.compress(hiding.value(person.phone, "PNG zTXt").encode()),
            ),
            (b"iTXt", b"Title\0\0\0\0\0" + hiding.value(person.hangul, "PNG iTXt").encode()),
            (b"eXIf", exif),
        ]
        return png_with(_plain(stored, kind), chunks, after)
    if kind == "WEBP":
        xmp = xmp_packet(hiding.value(person.latin_text, "XMP"), person.address)
        chunks = [(b"EXIF", exif), (b"XMP ", xmp), (b"note", after)]
        return webp_with(_plain(stored, kind), chunks, (image.width, image.height))
    if kind == "GIF":
        comment = hiding.value(f"{person.latin_text} {person.phone}", "GIF comment")
        return gif_with(_plain(stored, kind), comment.encode(), after)
    if kind == "TIFF":
        return _tiff(image, hiding, orientation) + after
    return _plain(stored, kind) + after


def _exif(image: Image.Image, hiding: _Hiding, orientation: int) -> bytes:
    person = hiding.person
    small = image.copy()
    small.thumbnail((160, 120))
    stream = io.BytesIO()
    small.save(stream, "JPEG", comment=hiding.value(f"preview {person.serial}", "EXIF thumbnail"))
    main = [
        ascii_entry(0x010E, hiding.value(f"visit of {person.hangul}", "EXIF ImageDescription")),
        ascii_entry(0x013B, hiding.value(person.latin_text, "EXIF Artist")),
        ascii_entry(0x8298, hiding.value(f"(c) {person.referring}", "EXIF Copyright")),
        short_entry(0x0112, orientation),
        bytes_entry(0x9C9D, hiding.value(person.operator, "EXIF XPAuthor").encode("utf-16-le")),
    ]
    note = hiding.value(f"maker {person.national_number}", "EXIF MakerNote").encode()
    details = [
        ascii_entry(0xA430, hiding.value(person.latin, "EXIF CameraOwnerName")),
        ascii_entry(0xA431, hiding.value(person.serial, "EXIF BodySerialNumber")),
        bytes_entry(0x927C, note),
        bytes_entry(
            0x9286, b"ASCII\0\0\0" + hiding.value(person.phone, "EXIF UserComment").encode()
        ),
    ]
    position = [
        ascii_entry(0x0001, "N"),
        degrees_entry(0x0002, 37.5665),
        ascii_entry(0x0003, "E"),
        degrees_entry(0x0004, 126.978),
        bytes_entry(0x001C, hiding.value(person.address, "EXIF GPSAreaInformation").encode()),
    ]
    return exif_block(main, details, position, stream.getvalue())


def _jpeg(
    stored: Pixels, exif: bytes, hiding: _Hiding, after: bytes, *, two_pictures: bool
) -> bytes:
    person = hiding.person
    xmp = xmp_packet(hiding.value(person.latin_text, "XMP"), hiding.value(person.address, "XMP"))
    iptc = {80: hiding.value(person.latin_text, "IPTC By-line")}
    iptc[120] = hiding.value(f"{person.hangul}, {person.phone}", "IPTC Caption")
    comment = hiding.value(f"comment {person.number}", "JPEG COM").encode()
    private = hiding.value(f"app4 {person.accession}", "JPEG APP4").encode()
    segments = [
        (0xE1, b"Exif\0\0" + exif),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp),
        (0xED, iptc_block(iptc)),
        (0xE4, private),
        (0xFE, comment),
    ]
    plain = _plain(stored, "JPEG")
    if not two_pictures:
        return jpeg_with(plain, segments, after)
    stream = io.BytesIO()
    second = hiding.value(f"second {person.accession}", "MPF second picture")
    Image.fromarray(stored).save(stream, "JPEG", comment=second)
    # The index has one length whatever it says, so the first picture's size is known before.
    blank = [*segments, (0xE2, multi_picture_index(0, 0, 0))]
    first = len(jpeg_with(plain, blank, b""))
    index_at = first - len(plain) + 2 - len(blank[-1][1])
    index = multi_picture_index(first, len(stream.getvalue()), first - index_at - 4)
    return jpeg_with(plain, [*segments, (0xE2, index)], stream.getvalue() + after)


def _tiff(image: Image.Image, hiding: _Hiding, orientation: int) -> bytes:
    person = hiding.person
    stream = io.BytesIO()
    tags: dict[int, int | str | bytes] = {
        270: hiding.value(f"visit of {person.latin_text}", "TIFF ImageDescription"),
        271: hiding.value(f"maker {person.serial}", "TIFF Make"),
        274: orientation,
        315: hiding.value(person.latin, "TIFF Artist"),
        65000: hiding.value(f"private {person.phone}", "TIFF private tag"),
        700: xmp_packet(hiding.value(person.operator, "TIFF XMP"), ""),
    }
    image.save(stream, "TIFF", tiffinfo=tags)
    return stream.getvalue()


def _write_tables(target: Path, rows: list[dict[str, str]]) -> None:
    with (target / "labels.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, LABEL_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    (target / "dataset.toml").write_text(
        'kind = "photos"\ndescription = "Photographs, some with a face, for telling which."\n',
        encoding="utf-8",
    )
