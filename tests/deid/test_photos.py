"""A cleaned photograph is its pixels: masked, upright, and with nothing else in the file."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from deid.decoding import Decoder
from deid.dicom.picture import metadata_of
from deid.photo_policy import PhotoPolicy, PhotoRefused
from deid.photo_structure import holds_only_pixels
from deid.photos import clean_photo
from deid.pixels.faces import default_face_detector
from deid.pixels.interface import Box
from deid.pixels.text import default_text_detector
from synthetic.photo_metadata import ascii_entry, bytes_entry, exif_block, jpeg_with, png_with
from synthetic.photos import package_photo, write_photos
from synthetic.planted import Planted
from synthetic.search import Search

DETECTORS = (default_text_detector(), default_face_detector())


JFIF_FIELDS = ("jfif", "jfif_version", "jfif_unit", "jfif_density")


class Fixed:
    """A detector that answers with the boxes it was given."""

    def __init__(self, *boxes: Box) -> None:
        self.boxes = list(boxes)
        self.seen: list[np.ndarray] = []

    def detect(self, image: np.ndarray) -> list[Box]:
        self.seen.append(image)
        return self.boxes


def saved(picture: np.ndarray | Image.Image, kind: str, **options: object) -> bytes:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def cleaned(data: bytes, *detectors: Fixed, policy: PhotoPolicy | None = None):
    result = clean_photo(data, detectors=detectors, policy=policy)
    with Image.open(io.BytesIO(result.data)) as image:
        image.load()
        return result, np.asarray(image)


def refused(data: bytes) -> str:
    """The reason of the refusal."""
    with pytest.raises(PhotoRefused) as error:
        clean_photo(data, detectors=())
    assert error.value.__cause__ is None  # the decoder's words may quote the file
    return error.value.reason


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[Planted], dict]:
    folder = tmp_path_factory.mktemp("album")
    planted = write_photos(folder / "source", 5, subjects=5)
    (folder / "out").mkdir()
    results = {}
    paths = sorted(path for path in (folder / "source").rglob("*/*.*"))
    for number, path in enumerate(paths):
        name = str(path.relative_to(folder / "source"))
        results[name] = clean_photo(path.read_bytes(), detectors=DETECTORS)
        (folder / "out" / f"{number}{results[name].suffix}").write_bytes(results[name].data)
    return folder / "source", folder / "out", planted, results


def test_no_planted_value_is_left_in_any_byte(album):
    source, out, planted, results = album
    search = Search(planted)
    before = set().union(*(search.found((source / name).read_bytes()) for name in results))
    assert len(before) > 80
    for path in out.iterdir():
        assert not search.found(path.read_bytes())
        with Image.open(path) as image:
            assert not search.found(image.convert("RGB").tobytes())


def test_every_cleaned_file_has_only_parts_of_pixels(album):
    _source, out, _planted, results = album
    assert len(list(out.iterdir())) == len(results)
    for path in out.iterdir():
        data = path.read_bytes()
        assert holds_only_pixels(data)
        assert data.count(b"\xff\xd8\xff") == (path.suffix == ".jpg")  # no thumbnail, no second
        with Image.open(path) as image:
            assert not image.getexif() or path.suffix == ".tif"
            assert set(image.info) <= {*JFIF_FIELDS, "compression", "dpi", "resolution"}


def test_planted_faces_and_text_are_masked_in_the_upright_picture(album):
    _source, _out, planted, results = album
    missed = []
    for each in planted:
        if each.where not in ("face", "pixels"):
            continue
        boxes = results[each.file].boxes
        with Image.open(io.BytesIO(results[each.file].data)) as image:
            mask = np.zeros((image.height, image.width), dtype=bool)
        for box in boxes:
            mask[box.y : box.bottom, box.x : box.right] = True
        x, y, width, height = each.box
        if mask[y : y + height, x : x + width].mean() < 0.9:
            missed.append((each.where, each.file))
    assert missed == []


def test_pictures_that_could_show_plates_always_go_to_a_person():
    data = saved(package_photo("coffee.png"), "PNG")
    result, _picture = cleaned(data)
    assert result.needs_review == "plates"
    assert "person" in result.actions["plate"]  # what the report's row shows
    without = PhotoPolicy(plates=False)
    assert cleaned(data, policy=without)[0].needs_review == ""


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "WEBP", "GIF"])
def test_without_loss_every_sample_outside_the_boxes_is_kept(kind: str):
    data = saved(
        package_photo("coffee.png"), kind, **({"lossless": True} if kind == "WEBP" else {})
    )
    with Image.open(io.BytesIO(data)) as image:
        decoded = np.asarray(image.convert("RGB"))
    box = Box("text", 30, 40, 200, 50)
    result, picture = cleaned(data, Fixed(box))
    assert result.boxes == (box,)
    outside = np.ones(decoded.shape[:2], dtype=bool)
    outside[40:90, 30:230] = False
    assert (picture[outside] == decoded[outside]).all()
    assert (picture[~outside] == 0).all()


def test_a_jpeg_changes_by_no_more_than_its_own_quality():
    data = saved(package_photo("chelsea.png"), "JPEG", quality=90)
    with Image.open(io.BytesIO(data)) as image:
        decoded = np.asarray(image).astype(int)
    _result, picture = cleaned(data, Fixed(Box("face", 100, 100, 60, 60)))
    difference = np.abs(picture.astype(int) - decoded)
    difference[96:164, 96:164] = 0  # blocks that the mask touches
    assert difference.mean() < 1.0
    assert picture[104:156, 104:156].max() < 8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_applied_before_anything_is_looked_for(orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(package_photo("coffee.png"), "PNG", exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    eye = Fixed()
    result, picture = cleaned(data, eye)
    assert (picture == upright).all()
    assert (eye.seen[0] == upright).all()
    assert ("orientation" in result.actions) == (orientation != 1)


def test_16_bit_grey_stays_16_bit_and_its_text_is_looked_for_as_shown():
    deep = (np.arange(300 * 200).reshape(300, 200) % 4096 + 7).astype(np.uint16)
    eye = Fixed(Box("text", 5, 5, 20, 20))
    for kind in ("PNG", "TIFF"):
        _result, picture = cleaned(saved(deep, kind), eye)
        assert picture.dtype == np.uint16
        expected = deep.copy()
        expected[5:25, 5:25] = 0
        assert (picture == expected).all()
    assert eye.seen[0].dtype == np.uint8
    assert eye.seen[0].max() == 255


def test_what_transparent_pixels_hide_is_gone():
    picture = np.full((40, 60, 4), 255, np.uint8)
    picture[10:30, 10:50, :3] = (10, 20, 30)
    picture[10:30, 10:50, 3] = 0
    result, written = cleaned(saved(picture, "PNG"))
    assert (written == 255).all()
    assert "transparency" in result.actions


def test_palette_entries_that_no_pixel_uses_are_gone():
    image = Image.fromarray(np.zeros((20, 20), np.uint8)).convert("P")
    image.putpalette([0, 0, 0, *b"HAN KYUNG 20481123"])
    data = saved(image, "PNG")
    assert b"20481123" in data
    result, _picture = cleaned(data)
    assert b"20481123" not in result.data


def test_cmyk_becomes_displayable_colours():
    data = saved(Image.fromarray(package_photo("coffee.png")).convert("CMYK"), "JPEG")
    result, picture = cleaned(data)
    assert picture.shape == (400, 600, 3)
    assert result.suffix == ".jpg"


def test_policy_decides_which_kinds_are_masked():
    data = saved(np.full((40, 40, 3), 200, np.uint8), "PNG")
    marks = Fixed(Box("text", 0, 0, 5, 5), Box("face", 10, 10, 5, 5))
    result, picture = cleaned(data, marks, policy=PhotoPolicy(faces=False))
    assert [box.kind for box in result.boxes] == ["text"]
    assert (picture[10:15, 10:15] == 200).all()


def _zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("patients.csv", "Kim^Minjun,20481123\n")
    return stream.getvalue()


GIF_PIXELS = saved(np.zeros((8, 8), np.uint8), "GIF")
PLAIN = saved(np.full((64, 64, 3), 120, np.uint8), "JPEG")
PLAIN_PNG = saved(np.full((64, 64, 3), 120, np.uint8), "PNG")


@pytest.mark.parametrize(
    "data",
    [
        PLAIN + _zip(),
        PLAIN_PNG + _zip(),
        jpeg_with(PLAIN, [(0xFE, _zip())], b""),
        jpeg_with(PLAIN, [(0xE5, b"<?php Kim^Minjun 20481123 ?>")], b"%PDF-1.7 Kim^Minjun"),
        png_with(PLAIN_PNG, [(b"pRVt", _zip())], b"\0" * 100 + b"Kim^Minjun"),
        png_with(PLAIN_PNG, [(b"zTXt", b"a\0\0" + zlib.compress(b"Kim^Minjun"))], b""),
        GIF_PIXELS + _zip(),
        jpeg_with(PLAIN, [(0xE1, b"Exif\0\0garbage that is no directory at all")], b""),
    ],
    ids=lambda data: f"{len(data)} bytes",
)
def test_a_file_that_is_two_things_at_once_becomes_one_picture(data: bytes):
    result, _picture = cleaned(data)
    written = result.data
    assert b"Kim^Minjun" not in written
    assert not zipfile.is_zipfile(io.BytesIO(written))
    assert holds_only_pixels(written)


def _png_of_size(width: int, height: int) -> bytes:
    header = struct.pack(">LLBBBBB", width, height, 8, 0, 0, 0, 0)
    chunk = (
        struct.pack(">L", 13) + b"IHDR" + header + struct.pack(">L", zlib.crc32(b"IHDR" + header))
    )
    body = zlib.compress(b"\0" * 1_000_000)
    data = (
        struct.pack(">L", len(body))
        + b"IDAT"
        + body
        + struct.pack(">L", zlib.crc32(b"IDAT" + body))
    )
    return b"\x89PNG\r\n\x1a\n" + chunk + data + b"\0\0\0\0IEND\xaeB`\x82"


def _frames(kind: str) -> bytes:
    pages = [Image.fromarray(np.full((16, 16, 3), level, np.uint8)) for level in (10, 200)]
    return saved(pages[0], kind, save_all=True, append_images=pages[1:])


def _text_bomb() -> bytes:
    chunk = b"a\0\0" + zlib.compress(b"\0" * 200_000_000, 9)
    return png_with(PLAIN_PNG, [(b"zTXt", chunk)], b"")


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "unsupported-format"),
    "one byte": (lambda: b"\xff", "unsupported-format"),
    "text": (lambda: b"Kim^Minjun 20481123", "unsupported-format"),
    "svg": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported-format"),
    "pdf": (lambda: b"%PDF-1.7\n", "unsupported-format"),
    "postscript": (
        lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "unsupported-format",
    ),
    "heic": (lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 64, "heic"),
    "zip": (_zip, "unsupported-format"),
    "bomb by size": (lambda: _png_of_size(60000, 60000), "too-large"),
    "bomb under Pillow's limit": (lambda: _png_of_size(8000, 8000), "too-large"),
    "truncated JPEG": (lambda: saved(package_photo("coffee.png"), "JPEG")[:9000], "cannot-decode"),
    "truncated PNG": (lambda: saved(package_photo("coffee.png"), "PNG")[:9000], "cannot-decode"),
    "truncated TIFF": (lambda: saved(package_photo("coffee.png"), "TIFF")[:9000], "cannot-decode"),
    "JPEG head only": (lambda: PLAIN[:20], "cannot-decode"),
    "wrong checksum": (lambda: PLAIN_PNG[:20] + b"\1" + PLAIN_PNG[21:], "cannot-decode"),
    "floating point": (lambda: saved(np.ones((9, 9), np.float32), "TIFF"), "sample-type"),
    "32 bits": (lambda: saved(np.full((9, 9), 70000, np.int32), "TIFF"), "sample-type"),
    "text that unpacks to 200 MB": (_text_bomb, "cannot-decode"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_cannot_be_cleaned_is_refused_with_a_reason_and_nothing_written(name: str):
    make, reason = HOSTILE[name]
    data = make()
    found = refused(data)
    if name in ("JPEG head only", "wrong checksum"):
        assert found in ("cannot-decode", "unsupported-format")
    else:
        assert found == reason


def test_a_refusal_names_nothing_of_the_file():
    with pytest.raises(PhotoRefused) as error:
        clean_photo(b"Kim^Minjun 20481123", detectors=())
    assert "Kim" not in str(error.value)
    assert "2048" not in str(error.value)


def test_the_check_of_the_structure_sees_what_does_not_belong():
    jpeg, png = saved(np.zeros((9, 9), np.uint8), "JPEG"), saved(np.zeros((9, 9), np.uint8), "PNG")
    tiff = saved(np.zeros((9, 9), np.uint8), "TIFF")
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", "Kim^Minjun")
    assert all(holds_only_pixels(each) for each in (jpeg, png, tiff))
    for dirty in (
        jpeg + b"x",
        jpeg_with(jpeg, [(0xFE, b"x")], b""),
        jpeg_with(jpeg, [(0xE1, b"Exif\0\0")], b""),
        jpeg_with(jpeg, [(0xE0, b"JFIF\0" + b"\1" * 400)], b""),
        jpeg[:-2],
        png + b"x",
        png_with(png, [(b"tIME", b"1234567")], b""),
        saved(np.zeros((9, 9), np.uint8), "PNG", pnginfo=text),
        saved(np.zeros((9, 9), np.uint8), "TIFF", tiffinfo={270: "Kim^Minjun"}),
    ):
        assert not holds_only_pixels(dirty)


def test_the_same_picture_gives_the_same_bytes():
    data = saved(package_photo("coffee.png"), "JPEG")
    first = cleaned(data)[0].data
    assert cleaned(data)[0].data == first


def test_a_decoder_leaves_nothing_of_an_original_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    decoder = Decoder()
    data = saved(np.zeros((64, 64, 3), np.uint8), "PNG")
    decoder.ask({"operation": "photo", "text": False, "faces": False, "plates": False}, data)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    decoder.close()
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_said_aloud_about_broken_metadata(recwarn: pytest.WarningsRecorder):
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = "HWANGBO MYUNGHEE " * 4
    Image.new("RGB", (8, 8)).save(stream, "JPEG", exif=exif)
    data = stream.getvalue()
    # The description now claims to be longer than the file.
    place = (
        data.index(b"\x0e\x01\x02\x00") + 4
        if b"\x0e\x01\x02\x00" in data
        else (data.index(b"\x01\x0e\x00\x02") + 4)
    )
    broken = data[:place] + b"\x00\xff\xff\x00" + data[place + 4 :]
    with Image.open(io.BytesIO(broken)) as image:
        image.getexif().get(0x010E)
    assert recwarn.list, "this file does not show what the test is about"
    recwarn.clear()
    clean_photo(broken, detectors=())
    assert not recwarn.list


def test_the_officer_reads_metadata_in_the_letters_they_were_written_in():
    name, author = "황보 명희", "황보명희"
    entries = [ascii_entry(0x010E, name), (0x013B, 2, 9, author.encode("euc_kr") + b"\0")]
    titled = author.encode("utf-16-le") + b"\0\0"
    entries.append((0x9C9B, 1, len(titled), titled))  # XPTitle
    comment = b"UNICODE\0" + name.encode("utf-16-le")
    block = exif_block(entries, [bytes_entry(0x9286, comment)], [], b"")
    shown = metadata_of(
        jpeg_with(
            saved(Image.new("RGB", (32, 32)), "JPEG"),
            [(0xE1, b"Exif\0\0" + block), (0xFE, name.encode())],
            b"",
        )
    )
    assert shown["ImageDescription"] == name and shown["Artist"] == author
    assert shown["XPTitle"] == author and shown["UserComment"] == name
    assert shown["comment"] == name
    details = PngImagePlugin.PngInfo()
    details.add_text("Author", "Müßig")
    details.add_itxt("Title", name)
    plain = metadata_of(saved(Image.new("L", (8, 8)), "PNG", pnginfo=details))
    assert plain["Author"] == "Müßig" and plain["Title"] == name
