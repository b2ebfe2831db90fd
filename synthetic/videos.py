"""Videos written byte by byte: MP4, AVI and Matroska, with room for what cameras put beside frames.

The frames are JPEGs, which every one of the three may hold, or H.264 with its samples stored as
they are. References: ISO/IEC 14496-12 and -14, Apple's QuickTime file format, Microsoft's AVI
RIFF reference, RFC 9559 (Matroska), ITU-T H.264.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TIMESCALE = 1000
UPRIGHT = (0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
QUARTER_RIGHT = (0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000)
"""The matrix of a film that is to be shown turned by 90 degrees to the right."""


def jpeg(picture: NDArray[np.uint8], quality: int = 92) -> bytes:
    """A picture as a JPEG."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def box(kind: bytes, *parts: bytes) -> bytes:
    """A box of an MP4."""
    body = b"".join(parts)
    return struct.pack(">L4s", 8 + len(body), kind) + body


def full(kind: bytes, *parts: bytes, version: int = 0, flags: int = 0) -> bytes:
    """A box with a version and flags."""
    return box(kind, struct.pack(">L", version << 24 | flags), *parts)


@dataclass(frozen=True)
class Track:
    """One track: ``handler`` as ``vide`` or ``soun``, its sample entry, samples and their times.

    ``edits`` are pairs of duration and start, in milliseconds; ``name`` is the handler's.
    """

    handler: bytes
    entry: bytes
    samples: Sequence[bytes]
    milliseconds: Sequence[int]
    header: bytes = field(default=b"")
    name: bytes = b""
    matrix: Sequence[int] = UPRIGHT
    size: tuple[int, int] = (0, 0)
    edits: Sequence[tuple[int, int]] = ()
    reference: bytes = b""
    made: int = 0


def visual_entry(
    kind: bytes, size: tuple[int, int], *more: bytes, compressor: bytes = b""
) -> bytes:
    """A sample entry of a visual track; ``compressor`` is a name of up to 31 bytes."""
    name = bytes((len(compressor),)) + compressor.ljust(31, b"\0")
    body = struct.pack(">6xH16xHHLL4xH", 1, *size, 0x480000, 0x480000, 1)
    return box(kind, body, name, struct.pack(">Hh", 24, -1), *more)


def video_track(frames: Sequence[bytes], size: tuple[int, int], **options: object) -> Track:
    """A track of JPEGs at 25 a second, unless the options say something else."""
    entry = options.pop("entry", visual_entry(b"jpeg", size))
    times = options.pop("milliseconds", [40] * len(frames))
    header = full(b"vmhd", bytes(8), flags=1)
    return Track(b"vide", entry, frames, times, header, size=size, **options)  # type: ignore[arg-type]


def mp4(
    tracks: Sequence[Track],
    *,
    user_data: bytes = b"",
    before: bytes = b"",
    loose: bytes = b"",
    after: bytes = b"",
    brand: bytes = b"isom",
    made: int = 0,
) -> bytes:
    """A film: ``loose`` bytes stand among the samples and belong to none, ``before`` and ``after``
    are boxes or bytes at those places, ``made`` is the time of making."""
    start = box(b"ftyp", brand, struct.pack(">L", 0x200), b"isom", b"mp41") + before
    place = len(start) + 8 + len(loose)
    body, films = loose, []
    for number, track in enumerate(tracks, 1):
        places = []
        for sample in track.samples:
            places.append(place)
            place += len(sample)
            body += sample
        films.append(_track(number, track, places))
    length = max(sum(track.milliseconds) for track in tracks)
    times = struct.pack(">QQLQ", made, made, TIMESCALE, length)
    head = full(
        b"mvhd", times, struct.pack(">LH10x", 0x10000, 0x100), struct.pack(">9l", *UPRIGHT),
        bytes(24), struct.pack(">L", len(tracks) + 1), version=1,
    )  # fmt: skip
    return start + box(b"mdat", body) + box(b"moov", head, *films, user_data) + after


def _track(number: int, track: Track, places: Sequence[int]) -> bytes:
    length = sum(track.milliseconds)
    head = full(
        b"tkhd", struct.pack(">LLLLL", track.made, track.made, number, 0, length), bytes(16),
        struct.pack(">9l", *track.matrix), struct.pack(">LL", *(side << 16 for side in track.size)),
        flags=3,
    )  # fmt: skip
    edits = b""
    if track.edits:
        rows = b"".join(struct.pack(">LlL", *edit, 0x10000) for edit in track.edits)
        edits = box(b"edts", full(b"elst", struct.pack(">L", len(track.edits)), rows))
    times = struct.pack(">LLLLHH", track.made, track.made, TIMESCALE, length, 0x55C4, 0)
    handler = full(b"hdlr", bytes(4), track.handler, bytes(12), track.name, b"\0")
    where = full(b"url ", track.reference, flags=0 if track.reference else 1)
    within = box(b"dinf", full(b"dref", struct.pack(">L", 1), where))
    count = len(track.samples)
    table = box(
        b"stbl",
        full(b"stsd", struct.pack(">L", 1), track.entry),
        full(
            b"stts", struct.pack(">L", count),
            *(struct.pack(">LL", 1, each) for each in track.milliseconds),
        ),
        full(b"stsc", struct.pack(">LLLL", 1, 1, 1, 1)),
        full(b"stsz", struct.pack(">LL", 0, count), *(
            struct.pack(">L", len(each)) for each in track.samples
        )),
        full(b"stco", struct.pack(">L", count), *(struct.pack(">L", each) for each in places)),
    )  # fmt: skip
    media = box(b"mdia", full(b"mdhd", times), handler, box(b"minf", track.header, within, table))
    return box(b"trak", head, edits, media)


def riff(kind: bytes, *parts: bytes) -> bytes:
    """A chunk of an AVI."""
    body = b"".join(parts)
    return kind + struct.pack("<L", len(body)) + body + b"\0" * (len(body) % 2)


def avi(
    frames: Sequence[bytes],
    size: tuple[int, int],
    *,
    stream: bytes = b"",
    header: bytes = b"",
    before: bytes = b"",
    among: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """An AVI of JPEGs at 25 a second, with more chunks in its stream's header, in its header,
    before and among the frames, and bytes after its end."""
    width, height = size
    main = struct.pack("<10L16x", 40_000, 0, 0, 0x10, len(frames), 0, 1, 1 << 20, width, height)
    head = struct.pack(
        "<4s4sLHHLLLLLLLL4h", b"vids", b"MJPG", 0, 0, 0, 0, 1, 25, 0, len(frames), 1 << 20, 0, 0,
        0, 0, width, height,
    )  # fmt: skip
    form = struct.pack("<LllHH4sLllLL", 40, width, height, 1, 24, b"MJPG", 3 * width * height,
                       0, 0, 0, 0)  # fmt: skip
    streams = riff(b"LIST", b"strl", riff(b"strh", head), riff(b"strf", form), stream)
    headers = riff(b"LIST", b"hdrl", riff(b"avih", main), streams, header)
    index, place, movie = b"", 4, among
    place += len(among)
    for frame in frames:
        index += struct.pack("<4sLLL", b"00dc", 0x10, place, len(frame))
        chunk = riff(b"00dc", frame)
        movie += chunk
        place += len(chunk)
    body = b"AVI " + headers + before + riff(b"LIST", b"movi", movie) + riff(b"idx1", index)
    return b"RIFF" + struct.pack("<L", len(body)) + body + after


def ebml(kind: int, *parts: bytes | int) -> bytes:
    """An element of a Matroska file; numbers are written as unsigned."""
    body = b"".join(part.to_bytes(8) if isinstance(part, int) else part for part in parts)
    length = (len(body) | 1 << 56).to_bytes(8)
    return kind.to_bytes((kind.bit_length() + 7) // 8) + length + body


def matroska(
    frames: Sequence[bytes],
    size: tuple[int, int],
    *,
    information: bytes = b"",
    track: bytes = b"",
    tracks: bytes = b"",
    before: bytes = b"",
    block: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """A Matroska film of JPEGs at 25 a second, with more elements at those places."""
    start = ebml(0x1A45DFA3, ebml(0x4286, 1), ebml(0x42F7, 1), ebml(0x42F2, 4), ebml(0x42F3, 8),
                 ebml(0x4282, b"matroska"), ebml(0x4287, 4), ebml(0x4285, 2))  # fmt: skip
    about = ebml(
        0x1549A966, ebml(0x2AD7B1, 1_000_000), ebml(0x4D80, b"x"), ebml(0x5741, b"x"), information
    )
    picture = ebml(0xE0, ebml(0xB0, size[0]), ebml(0xBA, size[1]))
    entry = ebml(0xAE, ebml(0xD7, 1), ebml(0x73C5, 1), ebml(0x83, 1), ebml(0x86, b"V_MJPEG"),
                 ebml(0x23E383, 40_000_000), picture, track)  # fmt: skip
    blocks = b"".join(
        ebml(0xA3, b"\x81" + struct.pack(">hB", 40 * number, 0x80), frame)
        for number, frame in enumerate(frames)
    )
    cluster = ebml(0x1F43B675, ebml(0xE7, 0), block, blocks)
    return start + ebml(0x18538067, about, ebml(0x1654AE6B, entry, tracks), before, cluster) + after


class _Bits:
    def __init__(self) -> None:
        self.text = ""

    def put(self, value: int, count: int) -> None:
        self.text += format(value, f"0{count}b")

    def golomb(self, value: int) -> None:
        code = format(value + 1, "b")
        self.text += "0" * (len(code) - 1) + code

    def ended(self) -> bytes:
        text = self.text + "1"
        text += "0" * (-len(text) % 8)
        return int(text, 2).to_bytes(len(text) // 8)


def h264_track(frames: Sequence[NDArray[np.uint8]], *, messages: Sequence[bytes] = ()) -> Track:
    """A track of grey frames as H.264, each macroblock's samples stored (I_PCM, clause 7.3.5).

    Sides are multiples of 16. ``messages`` stand in the first sample as SEI user data (D.1.7).
    """
    rows, columns = frames[0].shape
    sequence = _Bits()
    for value in (0, 0, 2):  # identity, frame numbers of 4 bits, order of output as of decoding
        sequence.golomb(value)
    sequence.golomb(0)
    sequence.put(0, 1)
    sequence.golomb(columns // 16 - 1)
    sequence.golomb(rows // 16 - 1)
    for bit in (1, 1, 0, 0):  # whole frames, 8 by 8 inference, no cropping, no further words
        sequence.put(bit, 1)
    parameters = b"\x67\x42\x00\x28" + _escaped(sequence.ended())
    picture = _Bits()
    picture.golomb(0)
    picture.golomb(0)
    picture.put(0, 2)
    for value in (0, 0, 0):
        picture.golomb(value)
    picture.put(0, 3)
    for value in (0, 0, 0):
        picture.golomb(value)
    picture.put(0b100, 3)
    pictures = b"\x68" + _escaped(picture.ended())
    samples = []
    for number, frame in enumerate(frames):
        units = [_message(each) for each in messages] if number == 0 else []
        units.append(b"\x65" + _escaped(_slice(frame, number)))
        samples.append(b"".join(struct.pack(">L", len(unit)) + unit for unit in units))
    configuration = box(
        b"avcC", b"\x01\x42\x00\x28\xff\xe1", struct.pack(">H", len(parameters)), parameters,
        b"\x01", struct.pack(">H", len(pictures)), pictures,
    )  # fmt: skip
    entry = visual_entry(b"avc1", (columns, rows), configuration)
    return video_track(samples, (columns, rows), entry=entry)


def _slice(frame: NDArray[np.uint8], number: int) -> bytes:
    bits = _Bits()
    for value in (0, 7, 0):  # from the first macroblock, intra, the parameters
        bits.golomb(value)
    bits.put(0, 4)
    bits.golomb(number % 2)  # pictures that follow each other differ in it
    bits.put(0, 2)
    bits.golomb(0)
    bits.golomb(1)  # no filter at the edges of blocks
    rows, columns = frame.shape
    head = bits.text
    out = bytearray()
    for top in range(0, rows, 16):
        for left in range(0, columns, 16):
            # The macroblock's type is 25, I_PCM, and its samples begin at a whole byte.
            head += "000011010"
            head += "0" * (-len(head) % 8)
            out += int(head, 2).to_bytes(len(head) // 8)
            head = ""
            out += frame[top : top + 16, left : left + 16].tobytes() + bytes([128]) * 128
    return bytes(out) + b"\x80"


def _message(data: bytes) -> bytes:
    payload = bytes(range(16)) + data
    size = b"\xff" * (len(payload) // 255) + bytes((len(payload) % 255,))
    return b"\x06" + _escaped(b"\x05" + size + payload + b"\x80")


def _escaped(data: bytes) -> bytes:
    """No three bytes may look like the start of a unit."""
    out = bytearray()
    zeros = 0
    for byte in data:
        if zeros == 2 and byte <= 3:
            out.append(3)
            zeros = 0
        out.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return bytes(out)
