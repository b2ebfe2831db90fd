"""Photographs with a secret in each place where one can hide; each has a secret of its own."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageCms

from synthetic.photo_metadata import (
    ascii_entry,
    bytes_entry,
    exif_block,
    gif_with,
    iptc_block,
    jpeg_with,
    multi_picture_index,
    png_with,
    webp_with,
    xmp_packet,
)
from synthetic.secret_places import Places, secret_picture

PLACES = Places()
place = PLACES.place


def _picture() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    rows, columns = np.mgrid[0:48, 0:64]
    return np.stack([rows * 4, columns * 3, rows + columns], axis=2).astype(np.uint8)


def _saved(kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(_picture()).save(stream, kind, **options)
    return stream.getvalue()


def _exif(main: list[tuple[int, str]], details: list[tuple[int, str]],
          position: list[tuple[int, str]], thumbnail: bytes = b"") -> bytes:  # fmt: skip
    entries = [[ascii_entry(tag, text) for tag, text in each] for each in (main, details, position)]
    return exif_block(entries[0], entries[1], entries[2], thumbnail or _saved("JPEG"))


def _profile(secret: bytes) -> bytes:
    """A colour profile whose description holds the secret."""
    made = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    at = made.index("sRGB".encode("utf-16-be"))
    wide = secret.decode("ascii")[:4].encode("utf-16-be")
    made[at : at + len(wide)] = wide
    return bytes(made) + secret


def _all_containers(name: str, block: Callable[[bytes], bytes]) -> None:
    """The same block of metadata in each format that carries it."""
    for kind in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF"):
        if kind == "TIFF" and not name.startswith("XMP"):
            continue

        def build(secret: bytes, kind: str = kind) -> bytes:
            data = block(secret)
            if name.startswith("XMP"):
                if kind == "TIFF":
                    return _saved("TIFF", tiffinfo={700: data})
                if kind == "JPEG":
                    return jpeg_with(
                        _saved("JPEG"), [(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + data)], b""
                    )
                if kind == "PNG":
                    chunk = b"XML:com.adobe.xmp\0\0\0\0\0" + data
                    return png_with(_saved("PNG"), [(b"iTXt", chunk)], b"")
                if kind == "WEBP":
                    return webp_with(_saved("WEBP", lossless=True), [(b"XMP ", data)], (64, 48))
                return _saved("AVIF", xmp=data)
            if kind == "JPEG":
                return jpeg_with(_saved("JPEG"), [(0xE1, b"Exif\0\0" + data)], b"")
            if kind == "PNG":
                return png_with(_saved("PNG"), [(b"eXIf", data)], b"")
            if kind == "WEBP":
                return webp_with(_saved("WEBP", lossless=True), [(b"EXIF", data)], (64, 48))
            return _saved("AVIF", exif=data)

        PLACES.add(f"{name} in {kind}", build)


_all_containers("EXIF artist", lambda s: _exif([(0x013B, s.decode())], [], []))
_all_containers("EXIF body serial", lambda s: _exif([], [(0xA431, s.decode())], []))
_all_containers("EXIF owner", lambda s: _exif([], [(0xA430, s.decode())], []))
_all_containers("EXIF GPS area", lambda s: _exif([], [], [(0x001C, s.decode())]))
_all_containers(
    "EXIF maker note",
    lambda s: exif_block([], [bytes_entry(0x927C, b"Nikon\0" + s)], [], _saved("JPEG")),
)
_all_containers(
    "EXIF thumbnail's comment",
    lambda s: _exif([], [], [], jpeg_with(_saved("JPEG"), [(0xFE, s)], b"")),
)
_all_containers("EXIF thumbnail of another picture", lambda s: _exif([], [], [], secret_picture(s)))
_all_containers("XMP creator", lambda s: xmp_packet(s.decode(), "x"))
_all_containers("XMP place", lambda s: xmp_packet("x", s.decode()))


def _segment(name: str, marker: int, head: bytes = b"") -> None:
    PLACES.add(name, lambda s: jpeg_with(_saved("JPEG"), [(marker, head + s)], b""))


for _number in range(16):
    _segment(f"JPEG APP{_number}", 0xE0 + _number)
_segment("JPEG comment", 0xFE)
_segment("JPEG JFXX thumbnail", 0xE0, b"JFXX\0\x10")
_segment("JPEG extended XMP", 0xE1, b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 32 + bytes(8))
_segment("JPEG FlashPix", 0xE2, b"FPXR\0\0")
_segment("JPEG content credentials", 0xEB, b"JP\0\1\0\0\0\1")
_segment("JPEG depth map's name", 0xE1, b"http://ns.adobe.com/xap/1.0/\0<GDepth:Data>")


@place
def jpeg_iptc(secret: bytes) -> bytes:
    return jpeg_with(_saved("JPEG"), [(0xED, iptc_block({80: secret.decode()}))], b"")


@place
def jpeg_colour_profile(secret: bytes) -> bytes:
    return jpeg_with(_saved("JPEG"), [(0xE2, b"ICC_PROFILE\0\1\1" + _profile(secret))], b"")


@place
def jpeg_after_its_end(secret: bytes) -> bytes:
    return _saved("JPEG") + secret


@place
def jpeg_second_picture_after_its_end(secret: bytes) -> bytes:
    return _saved("JPEG") + secret_picture(secret)


@place
def jpeg_multi_picture_second(secret: bytes) -> bytes:
    second = secret_picture(secret)
    index = multi_picture_index(0, len(second), 0)
    whole = jpeg_with(_saved("JPEG"), [(0xE2, index)], b"")
    start = whole.index(b"MPF\0") + 4
    index = multi_picture_index(len(whole), len(second), len(whole) - start)
    return jpeg_with(_saved("JPEG"), [(0xE2, index)], second)


@place
def jpeg_motion_photo(secret: bytes) -> bytes:
    from synthetic import videos

    frames = [videos.jpeg(_picture())]
    film = videos.mp4([videos.video_track(frames, (64, 48))], user_data=videos.box(b"udta", secret))
    packet = xmp_packet("x", "x").replace(
        b"rdf:Description ", b"rdf:Description GCamera:MotionPhoto='1' "
    )
    return jpeg_with(_saved("JPEG"), [(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + packet)], film)


@place
def jpeg_that_is_a_zip(secret: bytes) -> bytes:
    import zipfile

    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(secret.decode(), secret)
    return _saved("JPEG") + stream.getvalue()


@place
def jpeg_table_that_is_not_used(secret: bytes) -> bytes:
    table = b"\x03" + (secret * 8)[:64].replace(b"\0", b"\1")
    return jpeg_with(_saved("JPEG"), [(0xDB, table)], b"")


def _chunk(name: str, kind: bytes, head: bytes = b"", packed: bool = False) -> None:
    def build(secret: bytes) -> bytes:
        body = zlib.compress(secret) if packed else secret
        return png_with(_saved("PNG"), [(kind, head + body)], b"")

    PLACES.add(name, build)


_chunk("PNG tEXt", b"tEXt", b"Author\0")
_chunk("PNG iTXt", b"iTXt", b"Author\0\0\0\0\0")
_chunk("PNG iTXt packed", b"iTXt", b"Author\0\1\0\0\0", packed=True)
_chunk("PNG zTXt", b"zTXt", b"Author\0\0", packed=True)
_chunk("PNG private chunk", b"prVt")
_chunk("PNG suggested palette", b"sPLT", b"x\0\x08")
_chunk("PNG raw profile", b"zTXt", b"Raw profile type iptc\0\0", packed=True)


@place
def png_colour_profile(secret: bytes) -> bytes:
    body = b"icc\0\0" + zlib.compress(_profile(secret))
    return png_with(_saved("PNG"), [(b"iCCP", body)], b"")


@place
def png_after_its_end(secret: bytes) -> bytes:
    return _saved("PNG") + secret


@place
def png_left_after_a_crop(secret: bytes) -> bytes:
    # The file was written over by a smaller one and not cut: the rest of the old pixels stays.
    old = png_with(_saved("PNG"), [(b"IDAT", zlib.compress(secret * 20))], b"")
    return _saved("PNG") + old[-400:] + zlib.compress(secret)


@place
def png_stream_longer_than_its_picture(secret: bytes) -> bytes:
    raw = b"".join(b"\0" + row.tobytes() for row in _picture())
    plain = _saved("PNG")
    head = plain[:33]
    body = zlib.compress(raw + secret)
    return head + b"".join(
        struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))
        for kind, data in ((b"IDAT", body), (b"IEND", b""))
    )


@place
def png_palette_entries_that_no_pixel_uses(secret: bytes) -> bytes:
    image = Image.fromarray(np.zeros((20, 20), np.uint8)).convert("P")
    image.putpalette([0, 0, 0, *secret.ljust(30, b"\0")])
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def _hidden_colours(kind: str) -> None:
    def build(secret: bytes) -> bytes:
        picture = np.full((24, 32, 4), 255, np.uint8)
        picture[4:12, :, 3] = 0
        picture[5, :10, :3] = np.frombuffer(secret.ljust(30, b"\0")[:30], np.uint8).reshape(10, 3)
        options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
        stream = io.BytesIO()
        Image.fromarray(picture).save(stream, kind, **options)
        return stream.getvalue()

    PLACES.add(f"{kind} colours under full transparency", build)


for _kind in ("PNG", "TIFF", "WEBP"):
    _hidden_colours(_kind)


def _gif() -> bytes:
    stream = io.BytesIO()
    frames = [Image.fromarray(np.full((16, 16), level, np.uint8)) for level in (0, 200)]
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    return stream.getvalue()


PLACES.add("GIF comment", lambda s: gif_with(_gif(), s, b""))
PLACES.add("GIF after its end", lambda s: _gif() + s)


def _gif_block(name: str, head: bytes) -> None:
    def build(secret: bytes) -> bytes:
        block = b"\x21" + head + bytes((len(secret),)) + secret + b"\0"
        return _gif()[:-1] + block + b"\x3b"

    PLACES.add(name, build)


_gif_block("GIF application block", b"\xff\x0bXMP DataXMP")
_gif_block("GIF unknown block", b"\x77\x01x")
_gif_block("GIF plain text", b"\x01\x0c" + struct.pack("<4H4B", 0, 0, 16, 16, 8, 8, 1, 0))


@place
def gif_palette_entries_that_no_pixel_uses(secret: bytes) -> bytes:
    palette = bytes(6) + secret.ljust(18, b"\0")[:18]
    head = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x82, 0, 0) + palette
    return head + b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0\x3b"


def _tag_of_tiff(name: str, tag: int) -> None:
    def build(secret: bytes) -> bytes:
        return _saved("TIFF", tiffinfo={tag: secret if tag == 34377 else secret.decode()})

    PLACES.add(f"TIFF {name}", build)


for _name, _tag in (
    ("description", 270), ("document name", 269), ("make", 271), ("software", 305), ("date", 306),
    ("artist", 315), ("host computer", 316), ("copyright", 33432), ("IPTC", 33723),
    ("Photoshop", 34377), ("private", 65000), ("GDAL", 42112), ("page name", 285),
):  # fmt: skip
    _tag_of_tiff(_name, _tag)
PLACES.add("TIFF colour profile", lambda s: _saved("TIFF", icc_profile=_profile(s)))
PLACES.add("TIFF after its end", lambda s: _saved("TIFF") + s)


def _tiff(pages: list[tuple[list[tuple[int, int, int, int]], bytes]], loose: bytes = b"") -> bytes:
    """A TIFF of 8 by 8 grey pages with more entries; each page's bytes stand before it."""
    data = b"II*\0\0\0\0\0" + loose
    before = 4
    for more, block in pages:
        pixels_at = len(data)
        data += bytes(range(64)) + block
        entries = [
            (256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
            (273, 4, 1, pixels_at), (277, 3, 1, 1), (278, 4, 1, 8), (279, 4, 1, 64),
            *((tag, kind, count, value if value >= 0 else pixels_at + 64)
              for tag, kind, count, value in more),
        ]  # fmt: skip
        data = data[:before] + struct.pack("<L", len(data)) + data[before + 4 :]
        body = b"".join(struct.pack("<HHLL", *entry) for entry in sorted(entries))
        data += struct.pack("<H", len(entries)) + body
        before = len(data)
        data += bytes(4)
    return data


@place
def tiff_second_page_description(secret: bytes) -> bytes:
    return _tiff([([], b""), ([(270, 2, len(secret), -1)], secret)])


@place
def tiff_page_that_is_not_linked_any_more(secret: bytes) -> bytes:
    return _tiff([([], b"")], loose=_tiff([([], secret)]))


@place
def tiff_sub_directory(secret: bytes) -> bytes:
    # The directory below the page holds a picture of its own, of the secret's bytes.
    below = struct.pack("<H", 4)
    for entry in ((256, 4, 1, 8), (257, 4, 1, 1), (273, 4, 1, 8 + 64), (279, 4, 1, len(secret))):
        below += struct.pack("<HHLL", *entry)
    block = secret + below + bytes(4)
    start = 8 + 64 + len(secret)
    return _tiff([([(330, 4, 1, start)], block)])


@place
def tiff_between_its_parts(secret: bytes) -> bytes:
    return _tiff([([], secret)])


@place
def tiff_reduced_copy_of_the_page(secret: bytes) -> bytes:
    copy = ([(254, 4, 1, 1), (270, 2, len(secret), -1)], secret)
    return _tiff([([], b""), copy])


def _riff(name: str, kind: bytes) -> None:
    PLACES.add(name, lambda s: webp_with(_saved("WEBP", lossless=True), [(kind, s)], (64, 48)))


_riff("WebP unknown chunk", b"prVt")
PLACES.add("WebP colour profile", lambda s: _saved("WEBP", lossless=True, icc_profile=_profile(s)))
PLACES.add("WebP after its end", lambda s: _saved("WEBP", lossless=True) + s)
PLACES.add("AVIF colour profile", lambda s: _saved("AVIF", icc_profile=_profile(s)))
PLACES.add("AVIF free box", lambda s: _saved("AVIF") + struct.pack(">L", 8 + len(s)) + b"free" + s)


@place
def bmp_before_its_pixels(secret: bytes) -> bytes:
    data = _saved("BMP")
    at = int.from_bytes(data[10:14], "little")
    size = len(data) + len(secret)
    head = data[:2] + struct.pack("<L", size) + data[6:10] + struct.pack("<L", at + len(secret))
    return head + data[14:at] + secret + data[at:]


@place
def bmp_after_its_end(secret: bytes) -> bytes:
    return _saved("BMP") + secret


@place
def bmp_ends_of_its_rows(secret: bytes) -> bytes:
    # Rows are filled up to four bytes: 5 pixels of three bytes leave one.
    image = Image.fromarray(np.full((24, 5, 3), 90, np.uint8))
    stream = io.BytesIO()
    image.save(stream, "BMP")
    data = bytearray(stream.getvalue())
    at = int.from_bytes(data[10:14], "little")
    for row, byte in enumerate(secret[:24]):
        data[at + 16 * row + 15] = byte
    return bytes(data)


def _heif(kind: bytes) -> None:
    def build(secret: bytes) -> bytes:
        from synthetic import videos

        item = videos.full(b"infe", struct.pack(">HH4s", 1, 0, b"Exif"), secret + b"\0", version=2)
        meta = videos.full(b"meta", videos.full(b"iinf", struct.pack(">H", 1), item))
        auxiliary = videos.full(b"auxC", b"urn:mpeg:hevc:2015:auxid:2\0" + secret)
        return videos.box(b"ftyp", kind, bytes(4), b"mif1", kind) + meta + auxiliary

    PLACES.add(f"{kind.decode()} auxiliary picture and Exif", build, may_hold=True)


for _brand in (b"heic", b"heix", b"mif1", b"msf1"):
    _heif(_brand)
