"""Every format that is read: each of its pictures is looked at, and its samples stay."""

from __future__ import annotations

import io
import struct
import time
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from deid import contact_sheet
from deid.decoding import Decoder
from deid.photo_policy import MAXIMUM_PICTURES, PhotoPolicy, PhotoRefused
from deid.photo_reading import read
from deid.photo_structure import holds_only_pixels
from deid.photos import clean_photo
from deid.pixels.interface import Box
from deid.quarantine import Quarantined
from deid.stills import masked, shown
from synthetic.photos import package_photo

# A directory that leads out of its file is no TIFF to Pillow.
UNREADABLE = {"too-large", "cannot-decode", "unsupported-format"}
COLOUR = package_photo("coffee.png")[:160, :240]


class Seen:
    """A detector that notes what it was shown, and finds what the test says."""

    def __init__(self, answer=lambda _number: []) -> None:
        self.pictures: list[np.ndarray] = []
        self.answer = answer

    def detect(self, image: np.ndarray) -> list[Box]:
        self.pictures.append(image)
        return self.answer(len(self.pictures) - 1)


def saved(picture: np.ndarray | Image.Image, kind: str, **options: object) -> bytes:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def several(kind: str, pictures: list[np.ndarray], **options: object) -> bytes:
    first, *others = (Image.fromarray(each) for each in pictures)
    return saved(first, kind, save_all=True, append_images=others, **options)


def moving(count: int) -> list[np.ndarray]:
    """Frames of few colours, each different, so that GIF keeps them as they are."""
    frames = []
    for number in range(count):
        frame = np.full((48, 64, 3), 200, np.uint8)
        frame[10:20, 5 + number * 4 : 15 + number * 4] = (10, 40, 90)
        frames.append(frame)
    return frames


def pictures_of(data: bytes) -> list[np.ndarray]:
    found = []
    with Image.open(io.BytesIO(data)) as image:
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            found.append(np.asarray(image.convert("RGB")))
    return found


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("GIF", {"duration": 120, "loop": 0}),
        ("WEBP", {"duration": 120, "lossless": True}),
        ("PNG", {"duration": 120}),
    ],
)
def test_every_frame_of_an_animation_is_looked_at_and_kept(kind: str, options: dict) -> None:
    frames = moving(5)
    eye = Seen()
    result = clean_photo(several(kind, frames, **options), detectors=[eye])
    assert all((each == frame).all() for each, frame in zip(eye.pictures, frames, strict=True))
    assert result.suffix == ".png"
    assert holds_only_pixels(result.data)
    assert all((a == b).all() for a, b in zip(pictures_of(result.data), frames, strict=True))
    with Image.open(io.BytesIO(result.data)) as image:
        assert image.n_frames == 5
        image.seek(3)
        assert image.info["duration"] == 120


def test_what_is_found_in_one_frame_is_masked_in_its_neighbours() -> None:
    frames = moving(5)
    eye = Seen(lambda number: [Box("face", 30, 30, 10, 10)] if number == 2 else [])
    result = clean_photo(several("GIF", frames, duration=50), detectors=[eye])
    dark = [bool((each[30:40, 30:40] == 0).all()) for each in pictures_of(result.data)]
    assert dark == [False, True, True, True, False]


def test_every_page_of_a_tiff_is_looked_at_masked_by_itself_and_kept() -> None:
    pages = [COLOUR, COLOUR[::-1], np.full((90, 40, 3), 77, np.uint8)]
    eye = Seen(lambda number: [Box("text", 4, 6, 10, 12)] if number == 1 else [])
    result = clean_photo(several("TIFF", pages, description="HWANGBO"), detectors=[eye])
    assert len(eye.pictures) == 3
    assert result.suffix == ".tif"
    assert b"HWANGBO" not in result.data
    found = pictures_of(result.data)
    pages[1] = pages[1].copy()
    pages[1][6:18, 4:14] = 0
    assert all((a == b).all() for a, b in zip(found, pages, strict=True))
    assert "3" in result.actions["pictures"]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("channels", [3, 4])
def test_colour_of_16_bits_keeps_every_bit(kind: str, channels: int) -> None:
    rng = np.random.default_rng(5)
    deep = rng.integers(0, 65536, (40, 60, channels), dtype=np.uint16)
    if channels == 4:
        deep[:, :, 3] = 65535
        deep[:5, :, 3] = 0
    done, encoded = cv2.imencode(f".{kind.lower()}", deep[:, :, [2, 1, 0, 3][:channels]])
    assert done
    eye = Seen(lambda _number: [Box("text", 10, 10, 5, 5)])
    result = clean_photo(encoded.tobytes(), detectors=[eye])
    assert eye.pictures[0].dtype == np.uint8
    expected = deep[:, :, :3].copy()
    if channels == 4:
        expected[:5] = 65535
    expected[10:15, 10:15] = 0
    written = cv2.imdecode(np.frombuffer(result.data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert written.dtype == np.uint16
    assert (written[:, :, ::-1] == expected).all()
    assert holds_only_pixels(result.data)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_colour_of_16_bits_is_turned_as_other_pictures_are(orientation: int) -> None:
    deep = np.random.default_rng(6).integers(0, 65536, (20, 30, 3), dtype=np.uint16)
    plain = cv2.imencode(".png", deep[:, :, ::-1])[1].tobytes()
    shallow = saved((deep >> 8).astype(np.uint8), "PNG")
    exif = Image.Exif()
    exif[0x0112] = orientation
    block = exif.tobytes()[6:]
    chunk = struct.pack(">L", len(block)) + b"eXIf" + block
    chunk += struct.pack(">L", zlib.crc32(b"eXIf" + block))
    turned = [read(each[:33] + chunk + each[33:]).pictures[0] for each in (plain, shallow)]
    assert turned[0].dtype == np.uint16
    assert ((turned[0] >> 8) == turned[1]).all()


def tiled_tiff(tiles: int | None = None) -> bytes:
    """A grey TIFF of 32 by 32 pixels in four tiles of 16; ``tiles`` claims another number."""
    pixels = np.arange(1024, dtype=np.uint32).reshape(32, 32).astype(np.uint8)
    cut = [pixels[y : y + 16, x : x + 16].tobytes() for y in (0, 16) for x in (0, 16)]
    body = b"".join(cut)
    at = 8
    offsets = struct.pack("<4L", *(at + 256 * number for number in range(4)))
    counts = struct.pack("<4L", *[256] * 4)
    directory_at = at + len(body) + 32
    count = tiles or 4
    side = 32 if tiles is None else 16 * int(tiles**0.5)
    entries = [
        (256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
        (277, 3, 1, 1), (322, 4, 1, 16), (323, 4, 1, 16),
        (324, 4, count, at + len(body)), (325, 4, count, at + len(body) + 16),
    ]  # fmt: skip
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHLL", *entry) for entry in entries) + bytes(4)
    return b"II*\0" + struct.pack("<L", directory_at) + body + offsets + counts + directory


def test_tiles_are_put_together() -> None:
    result = clean_photo(tiled_tiff(), detectors=())
    expected = np.arange(1024, dtype=np.uint32).reshape(32, 32).astype(np.uint8)
    assert (pictures_of(result.data)[0][:, :, 0] == expected).all()


def test_cmyk_tiff_and_avif_become_colours() -> None:
    cmyk = saved(Image.fromarray(COLOUR).convert("CMYK"), "TIFF")
    result = clean_photo(cmyk, detectors=())
    assert result.suffix == ".tif"
    assert np.abs(pictures_of(result.data)[0].astype(int) - COLOUR).max() <= 1
    avif = saved(COLOUR, "AVIF", quality=90)
    with Image.open(io.BytesIO(avif)) as image:
        decoded = np.asarray(image)
    result = clean_photo(avif, detectors=())
    assert result.suffix == ".png"
    assert (pictures_of(result.data)[0] == decoded).all()


def test_a_reduced_copy_beside_its_picture_is_left_out() -> None:
    pages = several("TIFF", [COLOUR, COLOUR[::4, ::4]])
    # Pillow writes no NewSubfileType: the second page's ImageWidth becomes a directory's first.
    plain = read(pages)
    assert len(plain.pictures) == 2
    stream = io.BytesIO()
    first, second = Image.fromarray(COLOUR), Image.fromarray(np.ascontiguousarray(COLOUR[::4, ::4]))
    second.encoderinfo = {"tiffinfo": {254: 1}}
    first.save(stream, "TIFF", save_all=True, append_images=[second])
    result = clean_photo(stream.getvalue(), detectors=())
    assert len(pictures_of(result.data)) == 1
    assert result.actions["further pictures"] == "removed"


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    error = np.mean((one.astype(float) - other.astype(float)) ** 2)
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))


@pytest.mark.parametrize("quality", [75, 90, 98])
def test_a_jpeg_written_again_is_near_to_what_was_decoded(quality: int) -> None:
    data = saved(package_photo("chelsea.png"), "JPEG", quality=quality)
    again = clean_photo(data, detectors=())
    figure = psnr(pictures_of(data)[0], pictures_of(again.data)[0])
    print(f"JPEG of quality {quality}, written again: {figure:.1f} dB")
    assert figure > 40


def test_the_sheet_shows_every_page_and_takes_marks_back() -> None:
    pages = [np.full((30, 40, 3), level, np.uint8) for level in (50, 100, 150, 200)]
    data = clean_photo(several("TIFF", pages), detectors=()).data
    sheet = contact_sheet.draw(shown(data))
    assert sheet.shape == (60, 120, 3)
    # Marked in the cell of the fourth page, first of the second row.
    again = masked(data, [[5, 35, 10, 10]], lambda _part: None)
    for page, level in zip(pictures_of(again), (50, 100, 150, 200), strict=True):
        assert (page[5:15, 5:15] == 0).all()
        assert (page[20:] == level).all()


def test_boxes_of_several_pages_are_given_where_the_sheet_shows_them() -> None:
    pages = [np.full((30, 40, 3), level, np.uint8) for level in (50, 100, 150, 200)]
    eye = Seen(lambda number: [Box("text", 2, 3, 10, 10)] if number == 3 else [])
    result = clean_photo(several("TIFF", pages), detectors=[eye])
    assert [(box.x, box.y) for box in result.boxes] == [(2, 33)]
    sheet = contact_sheet.draw(shown(result.data))
    assert (sheet[33:43, 2:12] == 0).all()


def test_more_pages_than_are_shown_go_to_a_person() -> None:
    pages = [np.full((16, 16, 3), level, np.uint8) for level in range(contact_sheet.CELLS + 1)]
    policy = PhotoPolicy(plates=False)
    result = clean_photo(several("TIFF", pages), detectors=(), policy=policy)
    assert "more pictures" in result.needs_review
    assert clean_photo(several("TIFF", pages[:3]), detectors=(), policy=policy).needs_review == ""


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_correction_keeps_the_depth_of_the_samples(dtype: type) -> None:
    grey = (np.arange(40 * 50).reshape(40, 50) * 31 % 60000).astype(dtype)
    data = clean_photo(saved(grey, "PNG"), detectors=()).data
    with Image.open(io.BytesIO(masked(data, [[0, 0, 10, 10]], lambda _part: None))) as image:
        again = np.asarray(image)
    assert again.dtype == dtype
    assert (again[10:] == grey[10:]).all()
    assert (again[:10, :10] == 0).all()


def gif_of(frames: int) -> bytes:
    """A GIF that shows one pixel so many times, by its bytes."""
    head = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6)
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return head + frame * frames + b"\x3b"


@pytest.mark.parametrize(
    ("make", "reasons"),
    [
        (lambda: gif_of(1_000_000), {"too-many-pictures"}),
        (lambda: gif_of(MAXIMUM_PICTURES + 1), {"too-many-pictures"}),
        (lambda: tiled_tiff(1_000_000_000), UNREADABLE),
        (lambda: tiled_tiff(10_000), UNREADABLE),
        (lambda: several("GIF", moving(5))[:-300], {"cannot-decode"}),
        (lambda: several("TIFF", [COLOUR] * 3)[:-20], {"cannot-decode"}),
    ],
    ids=["a million frames", "one too many", "a billion tiles", "tiles missing", "cut", "cut TIFF"],
)
def test_bombs_and_broken_animations_are_refused_soon(make, reasons: set[str]) -> None:
    data = make()
    began = time.monotonic()
    with pytest.raises(PhotoRefused) as error:
        clean_photo(data, detectors=())
    assert error.value.reason in reasons
    assert time.monotonic() - began < 5


def test_a_long_work_in_the_decoder_says_that_it_goes_on(monkeypatch) -> None:
    decoder = Decoder()
    head = {"operation": "photo", "text": True, "faces": False, "plates": False}
    frames = [np.roll(COLOUR, 7 * number, axis=1) for number in range(60)]
    decoder.ask(head, several("WEBP", frames[:2], lossless=True))
    began = time.monotonic()
    decoder.ask(head, several("WEBP", frames[:4], lossless=True))
    # Time enough for most of the frames, not for all of them, and for any one on a busy machine.
    monkeypatch.setattr("deid.decoding.SECONDS", 12 * (time.monotonic() - began))
    monkeypatch.setattr("deid.decoding.SECONDS_PER_MIB", 0.0)
    answer, data = decoder.ask(head, several("WEBP", frames, lossless=True))
    assert len(pictures_of(data)) == 60
    monkeypatch.setattr("deid.decoding.SECONDS_IN_ALL", 0.1)
    with pytest.raises(Quarantined, match="decoder-timeout"):
        decoder.ask(head, several("WEBP", frames, lossless=True))
    monkeypatch.undo()
    # What the ended process still said is not taken for the next answer.
    answer, data = decoder.ask(head, saved(COLOUR, "PNG"))
    assert (pictures_of(data)[0].shape, answer["suffix"]) == (COLOUR.shape, ".png")
    decoder.close()
