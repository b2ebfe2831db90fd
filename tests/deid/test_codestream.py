"""Nothing hides where a decoder does not look: unused tables, tails, bits above the stored ones."""

from __future__ import annotations

import contextlib
import io
import itertools
import struct
from collections.abc import Callable

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000, JPEGLSLossless

from deid.dicom import codestream, packets, rle
from deid.dicom.clean import DicomCleaner
from deid.dicom.wordlike import Words, reads_as_text
from deid.quarantine import Quarantined
from synthetic import dicom_files

SECRET = b"QWOZNIAKX^MINJI 19770315"
PLAIN = dicom_files.jpeg_frame()


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def with_segment(marker: int, body: bytes) -> bytes:
    return PLAIN[:2] + segment(marker, body) + PLAIN[2:]


HIDDEN: dict[str, Callable[[], bytes]] = {
    "unused quantisation table": lambda: with_segment(0xDB, b"\3" + (SECRET * 3)[:64]),
    "unused Huffman table": lambda: with_segment(
        0xC4, b"\x13" + bytes([0] * 7 + [len(SECRET)] + [0] * 8) + SECRET
    ),
    "restart interval": lambda: with_segment(0xDD, b"\0\0" + SECRET),
    "number of lines": lambda: with_segment(0xDC, SECRET),
    "arithmetic conditioning": lambda: with_segment(0xCC, SECRET),
    "expansion": lambda: with_segment(0xDF, SECRET),
    "behind the last coefficient": lambda: PLAIN[:-2] + SECRET + PLAIN[-2:],
    "a short word behind it": lambda: PLAIN[:-2] + b"KimMin" + PLAIN[-2:],
    "Adobe's free bytes": lambda: with_segment(0xEE, b"AdobeKimMin\1"),
    "JFIF's density": lambda: with_segment(0xE0, b"JFIF\0KimMin1\0\0"),
}


@pytest.mark.parametrize("place", HIDDEN)
def test_a_jpeg_keeps_no_word(place: str, cleaner: DicomCleaner) -> None:
    frame = HIDDEN[place]()
    secret = SECRET if SECRET in frame else b"KimMin"
    assert secret in frame
    kept = codestream.cleaned(frame, 8)
    assert kept is None or secret not in kept
    try:
        made = cleaner.clean(dicom_files.compressed(frame, dicom_files.JPEG_BASELINE), "0")
    except Quarantined:
        return
    assert secret not in b"".join(made.chunks)


def test_an_ordinary_jpeg_stays_as_it_is() -> None:
    kept = codestream.cleaned(PLAIN, 8)
    assert kept is not None and len(kept) == len(PLAIN)


def jpeg_2000() -> bytes:
    from openjpeg.utils import encode_array

    grey = np.random.default_rng(3).integers(100, 110, (64, 64)).astype(np.uint8)
    frame: bytes = encode_array(grey, photometric_interpretation=2, codec_format=0)
    return frame


@pytest.mark.parametrize("marker", [0x50, 0x53, 0x55, 0x57, 0x58, 0x59, 0x5D, 0x60, 0x61, 0x63])
def test_a_jpeg_2000_keeps_no_word_in_its_header(marker: int, cleaner: DicomCleaner) -> None:
    frame = jpeg_2000()
    start = frame.index(b"\xff\x90")
    frame = frame[:start] + segment(marker, b"\0" + SECRET) + frame[start:]
    try:
        made = cleaner.clean(dicom_files.compressed(frame, JPEG2000), "0")
    except Quarantined:
        return
    assert SECRET not in b"".join(made.chunks)


def test_a_jpeg_2000_keeps_no_word_behind_its_packets() -> None:
    frame = jpeg_2000()
    start = frame.index(b"\xff\x90")
    size = struct.unpack_from(">I", frame, start + 6)[0]
    longer = frame[: start + 6] + struct.pack(">I", size + len(SECRET)) + frame[start + 10 :]
    longer = longer[: start + size] + SECRET + longer[start + size :]
    assert codestream.cleaned(frame, 8) is not None
    assert codestream.cleaned(longer, 8) is None


def jpeg_ls(stored: int, bits: int) -> bytes:
    """A file whose frame has samples of 16 bits with ``bits`` set, said to store fewer."""
    data = dicom_files.base()
    words = np.frombuffer(data.PixelData, "<u2") | bits
    data.BitsStored, data.HighBit, data.PixelData = 16, 15, words.tobytes()
    file = pydicom.dcmread(io.BytesIO(dicom_files.written(data)))
    file.compress(JPEGLSLossless)
    file.BitsStored, file.HighBit = stored, stored - 1
    out = io.BytesIO()
    file.save_as(out)
    return out.getvalue()


def test_bits_above_the_stored_ones_are_held_in_compressed_frames_too(
    cleaner: DicomCleaner,
) -> None:
    with pytest.raises(Quarantined, match="bad-pixels"):
        cleaner.clean(jpeg_ls(12, 0xA000), "0")
    plain = cleaner.clean(jpeg_ls(12, 0), "0")
    made = pydicom.dcmread(io.BytesIO(b"".join(plain.chunks)))
    # Nothing proves the bits of such a frame empty but decoding it: it is encoded anew.
    precision = made.PixelData.index(b"\xff\xf7") + 4
    assert made.PixelData[precision] == 12
    assert made.pixel_array.max() < 4096


def test_a_jpeg_ls_keeps_no_mapping_table(cleaner: DicomCleaner) -> None:
    data = pydicom.dcmread(io.BytesIO(jpeg_ls(16, 0)))
    from pydicom.encaps import generate_frames

    frame = next(generate_frames(data.PixelData, number_of_frames=1))
    assert codestream.cleaned(frame, 16) == frame.rstrip(b"\0") or codestream.cleaned(frame, 16)
    frame = frame[:2] + segment(0xF8, b"\2" + SECRET) + frame[2:]
    assert codestream.cleaned(frame, 16) is None
    data.PixelData = encapsulate([frame])
    out = io.BytesIO()
    data.save_as(out)
    assert SECRET not in b"".join(cleaner.clean(out.getvalue(), "0").chunks)


@pytest.mark.parametrize(
    ("value", "short", "expected"),
    [
        (SECRET, False, True),
        (b"\x07\x80" + SECRET + b"\xff\x00", False, True),
        (SECRET.decode().encode("utf-16-le"), False, True),
        ("황보명희".encode(), False, True),
        ("황보명희김민준".encode("cp949"), False, True),
        (b"Kim^Min", False, False),
        (b"Kim^Min", True, True),
        (bytes(range(256)) * 2, False, False),
        (bytes(range(255, -1, -1)), False, False),
        (np.arange(4096, dtype="<u2").tobytes(), False, False),
        (np.arange(0, 65536, 17, dtype="<u2").tobytes(), False, False),
        (b"2" * 64, False, False),
    ],
)
def test_what_reads_as_text(value: bytes, short: bool, expected: bool) -> None:
    assert reads_as_text(value, short=short) is expected


def test_many_random_bytes_are_no_text_and_a_name_among_them_is() -> None:
    coded = bytearray(np.random.default_rng(11).integers(0, 256, 1 << 22, np.uint8))
    assert reads_as_text(bytes(coded)) is False
    coded[99_999:100_009] = b"ParkJiYoun"
    assert reads_as_text(bytes(coded)) is True
    coded[99_999:100_009] = b"PkJRiYxQnt"
    assert reads_as_text(bytes(coded)) is False


@pytest.mark.parametrize("size", [0, 5, 300, 4096])
def test_any_of_many_words_is_found_wherever_it_stands(size: int) -> None:
    words = [b"KIMMI", b"Kimmi", b"19770315", b"Min-Su", "민수".encode(), "김민수".encode("cp949")]
    coded = np.random.default_rng(size).integers(0, 256, size, np.uint8).tobytes()
    sought = Words(words)
    assert not sought.are_in(coded) and not Words([]).are_in(coded)
    for word in words:
        for place in (0, size // 2, max(0, size - 1), size):
            assert sought.are_in(coded[:place] + word + coded[place:])
            assert not sought.are_in(coded[:place] + word[:-1] + b"\0" + coded[place:])
    assert sought.are_in(coded + b"ABCKIMMIABC") and not sought.are_in(coded + b"kimmi kiMMI")


def irreversible() -> bytes:
    from openjpeg.utils import encode_array

    grey = np.random.default_rng(3).integers(0, 256, (64, 64)).astype(np.uint8)
    frame: bytes = encode_array(
        grey, photometric_interpretation=2, codec_format=0, compression_ratios=[4]
    )
    return frame


def test_steps_of_quantisation_are_passed_on_and_words_in_their_place_are_not() -> None:
    frame = irreversible()
    place = frame.index(b"\xff\x5c")
    length = struct.unpack_from(">H", frame, place + 2)[0]
    steps = frame[place + 5 : place + 2 + length]
    assert reads_as_text(steps, short=True)  # the bytes alone look like letters
    assert codestream.cleaned(frame, 8) is not None
    for words in ((SECRET * 2)[: len(steps)], steps[:7] + b"KIMMINSU" + steps[15:]):
        spoilt = frame[: place + 5] + words + frame[place + 2 + length :]
        assert codestream.cleaned(spoilt, 8) is None


def rle_frame(*segments: bytes) -> bytes:
    """A frame of packed segments behind their table (PS3.5 G.5)."""
    places = [64 + sum(map(len, segments[:number])) for number in range(len(segments))]
    table = [len(segments), *places, *[0] * (15 - len(segments))]
    return struct.pack("<16I", *table) + b"".join(segments)


# Six pixels: two that differ, then four alike.
PACKED = b"\x01ab\xfdc"


def test_an_exact_rle_frame_says_which_bits_are_set() -> None:
    bits = ord("a") | ord("b") | ord("c")
    assert rle.bits_of(rle_frame(PACKED), 6, 1) == [bits]
    assert rle.bits_of(rle_frame(PACKED + b"\0", PACKED), 6, 2) == [bits, bits]


@pytest.mark.parametrize(
    "frame",
    [
        rle_frame(PACKED + SECRET),
        rle_frame(PACKED + b"\0\0"),
        rle_frame(PACKED + b"K"),
        rle_frame(PACKED[:3] + b"\x80" + PACKED[3:]),
        rle_frame(PACKED[:-1]),
        rle_frame(b"\x7f" + PACKED),
        rle_frame(PACKED)[:60] + b"KIM^" + PACKED,
        rle_frame(PACKED, PACKED),
        rle_frame(PACKED)[:20],
        struct.pack("<16I", 1, 64 + len(SECRET), *[0] * 14) + SECRET + PACKED,
        struct.pack("<16I", 2, 64, 64, *[0] * 13) + PACKED,
    ],
)
def test_an_rle_frame_with_anything_else_in_it_is_decoded(frame: bytes) -> None:
    assert rle.bits_of(frame, 6, 1) is None


def test_an_rle_frame_with_bits_above_the_stored_ones_is_decoded() -> None:
    from deid.dicom import pixels
    from deid.dicom.stream import Element

    def kept(high: bytes, stored: int) -> pixels.Cleaned | None:
        facts = pixels.Facts(2, 3, 1, 1, 16, stored, stored - 1, False, "MONOCHROME2")
        frame = rle_frame(b"\xfb" + high, PACKED)
        holder = Element(0x7FE00010, "OB", fragments=[b"", frame])
        return pixels._recompressed(holder, facts, pixels.RLE, detect=False)

    assert kept(b"\x0f", 12) is not None
    assert kept(b"\x1f", 12) is None
    assert kept(b"\x1f", 13) is not None


def test_a_header_only_profile_declares_every_bit_that_a_frame_has(
    header_cleaner: DicomCleaner,
) -> None:
    made = pydicom.dcmread(io.BytesIO(b"".join(header_cleaner.clean(jpeg_ls(12, 0), "0").chunks)))
    assert made.file_meta.TransferSyntaxUID == JPEGLSLossless
    assert (made.BitsStored, made.HighBit, made.BitsAllocated) == (16, 15, 16)


def boxed(codestream_of: bytes, *header: bytes) -> bytes:
    """A codestream in a JP2 file (T.800 I.5), with more boxes in its header."""

    def box(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I4s", 8 + len(body), kind) + body

    inner = box(b"ihdr", bytes(14)) + b"".join(box(each[:4], each[4:]) for each in header)
    return b"".join(
        [
            box(b"jP  ", b"\r\n\x87\n"), box(b"ftyp", b"jp2 \0\0\0\0jp2 "), box(b"jp2h", inner),
            box(b"uuid", SECRET), box(b"jp2c", codestream_of), box(b"xml ", SECRET),
        ]
    )  # fmt: skip


def test_a_jp2_file_around_a_codestream_goes(cleaner: DicomCleaner) -> None:
    frame = jpeg_2000()
    assert codestream.cleaned(boxed(frame, b"colr" + SECRET), 8) == codestream.cleaned(frame, 8)
    for header in (b"cdef" + bytes(8), b"pclr" + SECRET, b"cmap" + bytes(4)):
        assert codestream.cleaned(boxed(frame, header), 8) is None
    assert codestream.cleaned(boxed(frame)[:-40] + struct.pack(">I4s", 9, b"jp2c"), 8) is None
    file = cleaner.clean(dicom_files.compressed(boxed(frame), JPEG2000), "0")
    assert SECRET not in b"".join(file.chunks)


def test_a_jpeg_with_a_second_frame_header_is_not_passed_on() -> None:
    start, scan = PLAIN.index(b"\xff\xc0"), PLAIN.index(b"\xff\xda")
    assert codestream.cleaned(PLAIN[:-2] + PLAIN[start:scan] + PLAIN[scan:], 8) is None


def jpeg2000(values: np.ndarray, side: int = 0) -> bytes:
    stream = io.BytesIO()
    tiles = {"tile_size": (side, side)} if side else {}
    Image.fromarray(values).save(stream, "JPEG2000", no_jp2=True, **tiles)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("tile", "part", "parts"), [(1, 0, 1), (9, 0, 1), (0, 1, 2)], ids=["next", "far", "second part"]
)
def test_a_picture_in_a_tile_that_no_decoder_shows_is_not_passed_on(
    tile: int, part: int, parts: int, cleaner: DicomCleaner
) -> None:
    shown = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    frame, other = jpeg2000(shown), jpeg2000(255 - 2 * shown)
    hidden = bytearray(other[other.index(b"\xff\x90") : -2])
    hidden[4:6], hidden[10], hidden[11] = struct.pack(">H", tile), part, parts
    longer = frame[:-2] + bytes(hidden) + frame[-2:]
    assert codestream.cleaned(frame, 8) is not None
    assert codestream.cleaned(longer, 8) is None
    coded = bytes(hidden[14:])
    try:
        data = dicom_files.compressed(longer, JPEG2000)
        assert coded in data
        made = cleaner.clean(data, "0")
    except Quarantined:
        return
    assert coded not in b"".join(made.chunks)


@pytest.mark.parametrize("side", [16, 20, 64])
def test_the_tiles_of_a_picture_are_passed_on(side: int) -> None:
    shown = np.add.outer(np.arange(32), np.arange(48)).astype(np.uint8)
    assert codestream.cleaned(jpeg2000(shown, side), 8) is not None


def in_parts(frame: bytes, count: int) -> list[bytes]:
    """The header of a picture of one tile, and its packets in parts: by the lengths that it says.

    The encoder's own PLT segment (T.800 A.7.3) says where each packet ends; it is left out.
    """
    start = frame.index(b"\xff\x90")
    place, ends = start + 12, [0]
    while frame[place : place + 2] != b"\xff\x93":
        assert frame[place : place + 2] == b"\xff\x58"
        length = struct.unpack_from(">H", frame, place + 2)[0]
        size = 0
        for byte in frame[place + 5 : place + 2 + length]:
            size = size << 7 | byte & 0x7F
            if byte < 0x80:
                ends.append(ends[-1] + size)
                size = 0
        place += 2 + length
    body = frame[place + 2 : -2]
    assert ends[-1] == len(body) and len(ends) > count
    cuts = [ends[len(ends) * number // count] for number in range(count)]
    return [frame[:start], *(body[a:b] for a, b in itertools.pairwise([*cuts, len(body)]))]


def tile_part(body: bytes, number: int, told: int, tile: int = 0, inner: bytes = b"") -> bytes:
    head = struct.pack(">HHHIBB", 0xFF90, 10, tile, 14 + len(inner) + len(body), number, told)
    return head + inner + b"\xff\x93" + body


def joined_parts(header: bytes, bodies: list[bytes], told: int | None = None) -> bytes:
    count = len(bodies) if told is None else told
    parts = (tile_part(body, number, count) for number, body in enumerate(bodies))
    return header + b"".join(parts) + b"\xff\xd9"


def packed(progression: str = "LRCP", **more: object) -> bytes:
    """A picture in colours with several layers, whose packets' lengths are told."""
    grey = np.add.outer(np.arange(97), np.arange(130)).astype(np.uint8)
    grey += np.random.default_rng(4).integers(0, 8, grey.shape).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(np.stack([grey, grey[::-1], 255 - grey], -1)).save(
        stream, "JPEG2000", no_jp2=True, plt=True, progression=progression,
        quality_mode="rates", quality_layers=[40, 10, 1], codeblock_size=(16, 32), **more,
    )  # fmt: skip
    return stream.getvalue()


@pytest.mark.parametrize("progression", ["LRCP", "RLCP", "RPCL", "PCRL", "CPRL"])
@pytest.mark.parametrize("irreversible", [False, True])
def test_several_parts_of_a_tile_are_passed_on_if_they_are_its_packets(
    progression: str, irreversible: bool
) -> None:
    from openjpeg.utils import decode

    frame = packed(progression, irreversible=irreversible)
    header, *bodies = in_parts(frame, 5)
    for told in (0, 5, 4):
        parts = joined_parts(header, bodies, told)
        kept = codestream.cleaned(parts, 8)
        assert kept is not None and kept.endswith(parts[len(header) :])
        assert np.array_equal(decode(kept), decode(frame))


def test_anything_else_in_the_parts_of_a_tile_is_decoded(cleaner: DicomCleaner) -> None:
    header, *bodies = in_parts(packed(), 3)
    first, second, third = bodies
    _header, *others = in_parts(packed(num_resolutions=3), 2)
    assert codestream.cleaned(joined_parts(header, bodies), 8) is not None
    spoilt = {
        "another picture": [*bodies, b"".join(others)],
        "a packet of another": [*bodies, others[0][:40]],
        "the same again": [*bodies, third],
        "one more byte": [first, second, third + b"\0"],
        "a byte between": [first, second + b"\x80", third],
        "one byte less": [first, second, third[:-1]],
        "not all": [first, second],
        "another order": [second, first, third],
        "a word": [first, second, third[:-60] + SECRET + third[-60 + len(SECRET) :]],
    }
    for what, parts in spoilt.items():
        frame = joined_parts(header, parts)
        assert codestream.cleaned(frame, 8) is None, what
        with contextlib.suppress(Quarantined):
            made = cleaner.clean(dicom_files.compressed(frame, JPEG2000), "0")
            assert max(parts, key=len) not in b"".join(made.chunks), what


def test_behind_a_byte_of_ones_a_packets_header_goes_on_with_a_zero() -> None:
    def ended(data: bytes) -> int:
        bits = packets._Bits(data, 0)
        assert bits.number(8) == 0xFF
        return bits.end()

    assert ended(b"\xff\x00\x80") == 2
    for data in (b"\xff\x01", b"\xff\x80"):
        with pytest.raises(packets.Inexact):
            ended(data)


@pytest.mark.parametrize("numbers", [(0, 2, 1), (1, 2, 3), (0, 0, 1), (0, 1, 3)])
def test_parts_of_a_tile_are_numbered(numbers: tuple[int, ...]) -> None:
    header, *bodies = in_parts(packed(), 3)
    parts = (tile_part(body, number, 3) for body, number in zip(bodies, numbers, strict=True))
    assert codestream.cleaned(header + b"".join(parts) + b"\xff\xd9", 8) is None
    for told in (1, 4, 255):
        assert codestream.cleaned(joined_parts(header, bodies, told), 8) is None
    quantised = segment(0x5C, b"\x20" + bytes(16))
    inner = tile_part(bodies[1], 1, 3, inner=quantised)
    frame = header + tile_part(bodies[0], 0, 3) + inner + tile_part(bodies[2], 2, 3) + b"\xff\xd9"
    assert codestream.cleaned(frame, 8) is None


@pytest.mark.parametrize("word", [b"QWOZNIA", "권오즈".encode("cp949")])
def test_the_patients_own_word_is_found_anywhere_in_coded_data(
    word: bytes, cleaner: DicomCleaner
) -> None:
    stream = io.BytesIO()
    noise = np.random.default_rng(2).integers(0, 256, (64, 64), np.uint8)
    Image.fromarray(noise).save(stream, "JPEG", restart_marker_rows=1)
    frame = stream.getvalue()
    # Behind the last coefficient of a part of the scan, where decoders look for a marker.
    place = frame.index(b"\xff\xd2")
    frame = frame[:place] + word + frame[place:]
    assert codestream.cleaned(frame, 8) is not None  # too short to be known for a word
    data = pydicom.dcmread(io.BytesIO(dicom_files.compressed(frame, dicom_files.JPEG_BASELINE)))
    data.SpecificCharacterSet = "ISO_IR 192"
    data.PatientName = "QWOZNIA^MINJI=권오즈"
    file = dicom_files.written(data, dicom_files.JPEG_BASELINE)
    assert word in file
    assert word not in b"".join(cleaner.clean(file, "0").chunks)
