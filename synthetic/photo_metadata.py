"""Every place in a photograph's file where identifiers hide, written byte by byte.

Libraries that write pictures leave most of these out or tidy them; a camera does not.
References: Exif 3.0 (CIPA DC-008), TIFF 6.0, ISO 10918-1, PNG (third edition), RIFF, GIF89a,
CIPA DC-007 (multi-picture format).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence

Entry = tuple[int, int, int, bytes]
"""Tag, TIFF field type, count of values, the values in little-endian order."""

ASCII, BYTE, SHORT, LONG, RATIONAL, UNDEFINED = 2, 1, 3, 4, 5, 7
EXIF_IFD, GPS_IFD = 0x8769, 0x8825
THUMBNAIL_OFFSET, THUMBNAIL_BYTES = 0x0201, 0x0202


def ascii_entry(tag: int, text: str) -> Entry:
    """A text of the Exif ASCII type; UTF-8, as cameras and phones write it."""
    data = text.encode() + b"\0"
    return tag, ASCII, len(data), data


def bytes_entry(tag: int, data: bytes) -> Entry:
    """Bytes without a meaning that Exif knows, such as a MakerNote."""
    return tag, UNDEFINED, len(data), data


def short_entry(tag: int, value: int) -> Entry:
    """One 16-bit number."""
    return tag, SHORT, 1, struct.pack("<H", value)


def degrees_entry(tag: int, degrees: float) -> Entry:
    """An angle as degrees, minutes and seconds."""
    whole, rest = divmod(abs(degrees), 1)
    minutes, rest = divmod(rest * 60, 1)
    values = (int(whole), 1, int(minutes), 1, round(rest * 60 * 10000), 10000)
    return tag, RATIONAL, 3, struct.pack("<6L", *values)


def exif_block(
    main: Sequence[Entry], details: Sequence[Entry], position: Sequence[Entry], thumbnail: bytes
) -> bytes:
    """A TIFF structure: the main directory, the Exif and GPS directories, and the thumbnail."""
    main = [*main, (EXIF_IFD, LONG, 1, b"\0" * 4), (GPS_IFD, LONG, 1, b"\0" * 4)]
    preview: list[Entry] = [
        short_entry(0x0103, 6),
        (THUMBNAIL_OFFSET, LONG, 1, b"\0" * 4),
        (THUMBNAIL_BYTES, LONG, 1, struct.pack("<L", len(thumbnail))),
    ]
    starts = [8]
    for directory in (main, details, position, preview):
        starts.append(starts[-1] + _size(directory))
    at = {
        EXIF_IFD: struct.pack("<L", starts[1]),
        GPS_IFD: struct.pack("<L", starts[2]),
        THUMBNAIL_OFFSET: struct.pack("<L", starts[4]),
    }
    parts = [b"II*\0" + struct.pack("<L", 8)]
    for place, directory in enumerate((main, details, position, preview)):
        following = starts[3] if place == 0 else 0
        parts.append(_directory(directory, starts[place], following, at))
    return b"".join(parts) + thumbnail


def _size(entries: Sequence[Entry]) -> int:
    outside = sum(
        len(data) + len(data) % 2 for _tag, _type, _count, data in entries if len(data) > 4
    )
    return 2 + 12 * len(entries) + 4 + outside


def _directory(
    entries: Sequence[Entry], start: int, following: int, pointers: Mapping[int, bytes]
) -> bytes:
    head, body = [struct.pack("<H", len(entries))], b""
    outside = start + 2 + 12 * len(entries) + 4
    for tag, kind, count, data in sorted(entries):
        data = pointers.get(tag, data) if kind == LONG else data
        field = data.ljust(4, b"\0")
        if len(data) > 4:
            field = struct.pack("<L", outside + len(body))
            body += data + b"\0" * (len(data) % 2)
        head.append(struct.pack("<HHL", tag, kind, count) + field)
    return b"".join(head) + struct.pack("<L", following) + body


def jpeg_with(jpeg: bytes, segments: Sequence[tuple[int, bytes]], after: bytes) -> bytes:
    """A JPEG with more segments (marker, payload) behind its start, and bytes after its end."""
    written = b"".join(
        bytes((0xFF, marker)) + struct.pack(">H", len(payload) + 2) + payload
        for marker, payload in segments
    )
    return jpeg[:2] + written + jpeg[2:] + after


def png_with(png: bytes, chunks: Sequence[tuple[bytes, bytes]], after: bytes) -> bytes:
    """A PNG with more chunks behind its header, and bytes after its end."""
    header_end = 8 + 12 + int.from_bytes(png[8:12])
    written = b"".join(
        struct.pack(">L", len(data)) + name + data + struct.pack(">L", zlib.crc32(name + data))
        for name, data in chunks
    )
    return png[:header_end] + written + png[header_end:] + after


def webp_with(webp: bytes, chunks: Sequence[tuple[bytes, bytes]], size: tuple[int, int]) -> bytes:
    """A WebP in extended form with more chunks behind its picture."""
    picture = webp[12:]
    width, height = size
    flags = 0x08 | 0x04  # Exif and XMP are there
    extended = bytes((flags, 0, 0, 0)) + (width - 1).to_bytes(3, "little")
    extended += (height - 1).to_bytes(3, "little")
    body = b"WEBP" + _riff(b"VP8X", extended) + picture
    body += b"".join(_riff(name, data) for name, data in chunks)
    return b"RIFF" + struct.pack("<L", len(body)) + body


def _riff(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<L", len(data)) + data + b"\0" * (len(data) % 2)


def gif_with(gif: bytes, comment: bytes, after: bytes) -> bytes:
    """A GIF with a comment before its end, and bytes after it."""
    blocks = b"".join(
        bytes((len(comment[at : at + 255]),)) + comment[at : at + 255]
        for at in range(0, len(comment), 255)
    )
    return gif[:-1] + b"\x21\xfe" + blocks + b"\0" + gif[-1:] + after


def xmp_packet(creator: str, place: str) -> bytes:
    """An XMP packet that names a creator and a place."""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
        'xmlns:dc="http://purl.org/dc/elements/1.1/" '
        'xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" '
        f'dc:creator="{creator}" photoshop:City="{place}"/></rdf:RDF></x:xmpmeta>'
        '<?xpacket end="w"?>'
    ).encode()


def iptc_block(fields: Mapping[int, str]) -> bytes:
    """A Photoshop resource block with IPTC records of the application record (2:xx)."""
    records = b""
    for number, text in fields.items():
        data = text.encode()
        records += b"\x1c\x02" + bytes((number,)) + struct.pack(">H", len(data)) + data
    resource = b"8BIM\x04\x04\0\0" + struct.pack(">L", len(records)) + records
    return b"Photoshop 3.0\0" + resource + b"\0" * (len(records) % 2)


def multi_picture_index(first: int, second: int, second_offset: int) -> bytes:
    """The MPF segment of a file of two pictures; sizes in bytes, the offset as MPF counts it."""
    entries = struct.pack("<LLLHH", 0x030000, first, 0, 0, 0)
    entries += struct.pack("<LLLHH", 0x010002, second, second_offset, 0, 0)
    count = 3
    data_at = 8 + 2 + 12 * count + 4
    directory = struct.pack("<H", count)
    directory += struct.pack("<HHL4s", 0xB000, UNDEFINED, 4, b"0100")
    directory += struct.pack("<HHLL", 0xB001, LONG, 1, 2)
    directory += struct.pack("<HHLL", 0xB002, UNDEFINED, len(entries), data_at)
    directory += struct.pack("<L", 0)
    return b"MPF\0II*\0" + struct.pack("<L", 8) + directory + entries
