"""Videos with a secret in every place where one can hide; each place has a secret of its own."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from synthetic import videos
from synthetic.photo_metadata import jpeg_with, xmp_packet
from synthetic.secret_places import Places, secret_picture
from synthetic.videos import Track, box, ebml, full, riff

PLACES = Places()
place = PLACES.place
SIZE = (64, 48)


def pictures() -> list[NDArray[np.uint8]]:
    """Three frames, each lighter than the one before."""
    return [np.full((48, 64, 3), 60 + 40 * number, np.uint8) for number in range(3)]


def _frames() -> list[bytes]:
    return [videos.jpeg(each) for each in pictures()]


def _film(*more: Track, **options: object) -> bytes:
    return videos.mp4([videos.video_track(_frames(), SIZE), *more], **options)  # type: ignore[arg-type]


def _user_data(name: str, make: Callable[[bytes], bytes]) -> None:
    PLACES.add(f"MP4 {name}", lambda s: _film(user_data=box(b"udta", make(s))))


def _text(kind: bytes) -> Callable[[bytes], bytes]:
    return lambda s: box(kind, struct.pack(">HH", len(s), 0x55C4), s)


for _name, _kind in (
    ("title", b"\xa9nam"), ("place", b"\xa9xyz"), ("day", b"\xa9day"), ("maker", b"\xa9mak"),
    ("model", b"\xa9mod"), ("comment", b"\xa9cmt"), ("artist", b"\xa9ART"), ("writer", b"\xa9wrt"),
):  # fmt: skip
    _user_data(_name, _text(_kind))
_user_data("location of 3GPP", lambda s: full(b"loci", b"\x55\xc4" + s + b"\0", bytes(13)))
_user_data("chapters", lambda s: full(b"chpl", bytes(5), b"\1", bytes(8), bytes((len(s),)), s))
_user_data("name of the maker's own", lambda s: box(b"smta", s))
_user_data("thumbnail", lambda s: box(b"thmb", secret_picture(s)))


def _item(kind: bytes, data: bytes, sort: int) -> Callable[[bytes], bytes]:
    def make(secret: bytes) -> bytes:
        value = data or secret
        item = box(kind, box(b"data", struct.pack(">LL", sort, 0), value))
        handler = full(b"hdlr", bytes(4), b"mdirappl", bytes(9))
        return full(b"meta", handler, box(b"ilst", item))

    return make


_user_data("list of items", _item(b"\xa9too", b"", 1))
_user_data("cover", lambda s: _item(b"covr", secret_picture(s), 13)(s))


def _quicktime_keys(secret: bytes) -> bytes:
    keys = full(
        b"keys", struct.pack(">L", 1), box(b"mdta", b"com.apple.quicktime.location.ISO6709")
    )
    item = struct.pack(">LL", 24 + len(secret), 1) + box(b"data", struct.pack(">LL", 1, 0), secret)
    handler = full(b"hdlr", bytes(4), b"mdta", bytes(13))
    return full(b"meta", handler, keys, box(b"ilst", item))


PLACES.add("MP4 location by key", lambda s: _film(user_data=_quicktime_keys(s)))
PLACES.add("MP4 free box", lambda s: _film(before=box(b"free", s)))
PLACES.add("MP4 skip box", lambda s: _film(after=box(b"skip", s)))
PLACES.add("MP4 box of XMP", lambda s: _film(
    after=box(b"uuid", bytes.fromhex("BE7ACFCB97A942E89C71999491E3AFAC"),
              xmp_packet(s.decode(), "x"))))  # fmt: skip
PLACES.add("MP4 unknown box", lambda s: _film(after=box(b"prVt", s)))
PLACES.add("MP4 file's metadata", lambda s: _film(after=full(b"meta", box(b"xml ", s))))
PLACES.add("MP4 bytes after its end", lambda s: _film(after=s))
PLACES.add("MP4 samples of no track", lambda s: _film(loose=s))
PLACES.add("MP4 picture of no track", lambda s: _film(loose=secret_picture(s)))
PLACES.add("MP4 brand", lambda s: _film(brand=s[:4], after=box(b"free", s)))


@place
def mp4_time_of_making(secret: bytes) -> bytes:
    return _film(made=int.from_bytes(secret[:8]), after=box(b"free", secret))


@place
def mp4_name_of_the_handler(secret: bytes) -> bytes:
    return videos.mp4([videos.video_track(_frames(), SIZE, name=secret)])


@place
def mp4_name_of_the_coder(secret: bytes) -> bytes:
    entry = videos.visual_entry(b"jpeg", SIZE, compressor=secret)
    return videos.mp4([videos.video_track(_frames(), SIZE, entry=entry)])


@place
def mp4_address_of_the_data(secret: bytes) -> bytes:
    track = Track(
        b"text", box(b"text", bytes(8)), [b"x"], [120], full(b"nmhd"), reference=secret + b"\0"
    )
    return _film(track)


def _side_track(name: str, handler: bytes, entry: bytes, header: bytes,
                sample: Callable[[bytes], bytes]) -> None:  # fmt: skip
    def build(secret: bytes) -> bytes:
        return _film(Track(handler, entry, [sample(secret)], [120], header))

    PLACES.add(f"MP4 {name}", build)


_NO_HEADER = full(b"nmhd")
_side_track("subtitles", b"sbtl", box(b"tx3g", bytes(6), b"\0\1", bytes(30)), _NO_HEADER,
            lambda s: struct.pack(">H", len(s)) + s)  # fmt: skip
_side_track("text track", b"text", box(b"text", bytes(6), b"\0\1", bytes(43)), _NO_HEADER,
            lambda s: struct.pack(">H", len(s)) + s)  # fmt: skip
_side_track("sound", b"soun", box(b"sowt", bytes(6), b"\0\1", bytes(8),
            struct.pack(">HHHHL", 1, 16, 0, 0, 8000 << 16)), full(b"smhd", bytes(4)),
            lambda s: s * 10)  # fmt: skip
_side_track("track of places", b"meta", box(b"gpmd", bytes(6), b"\0\1"), _NO_HEADER,
            lambda s: b"GPS5" + s)  # fmt: skip
_side_track("timed metadata", b"meta", box(b"mebx", bytes(6), b"\0\1"), _NO_HEADER, lambda s: s)
_side_track("time code", b"tmcd", box(b"tmcd", bytes(6), b"\0\1", bytes(18)), _NO_HEADER,
            lambda s: s)  # fmt: skip
_side_track("second film", b"vide", videos.visual_entry(b"jpeg", (24, 16)),
            full(b"vmhd", bytes(8), flags=1), secret_picture)  # fmt: skip


def _in_frames(name: str, marker: int, head: bytes = b"") -> None:
    def build(secret: bytes) -> bytes:
        frames = [jpeg_with(each, [(marker, head + secret)], b"") for each in _frames()]
        return videos.mp4([videos.video_track(frames, SIZE)])

    PLACES.add(f"MP4 frames' {name}", build)


_in_frames("comment", 0xFE)
_in_frames("EXIF", 0xE1, b"Exif\0\0")
_in_frames("own segment", 0xE5)


@place
def mp4_bytes_after_a_frame(secret: bytes) -> bytes:
    return videos.mp4([videos.video_track([each + secret for each in _frames()], SIZE)])


@place
def mp4_frames_before_the_cut(secret: bytes) -> bytes:
    # Two of five frames are left out by an edit list, and still stand in the file.
    hidden = [jpeg_with(each, [(0xFE, secret)], b"") for each in _frames()[:2]]
    track = videos.video_track([*hidden, *_frames()], SIZE, edits=[(120, 80)])
    return videos.mp4([track])


@place
def h264_message(secret: bytes) -> bytes:
    grey = [np.ascontiguousarray(each[:, :, 0]) for each in pictures()]
    return videos.mp4([videos.h264_track(grey, messages=[secret])])


def _avi(name: str, **where: Callable[[bytes], bytes]) -> None:
    def build(secret: bytes) -> bytes:
        return videos.avi(_frames(), SIZE, **{spot: make(secret) for spot, make in where.items()})

    PLACES.add(f"AVI {name}", build)


def _information(kind: bytes) -> Callable[[bytes], bytes]:
    return lambda secret: riff(b"LIST", b"INFO", riff(kind, secret))


for _label, _four in (("title", b"INAM"), ("artist", b"IART"), ("comment", b"ICMT")):
    _avi(_label, before=_information(_four))
_avi("stream's name", stream=lambda s: riff(b"strn", s))
_avi("stream's data", stream=lambda s: riff(b"strd", s))
_avi("date", header=lambda s: riff(b"IDIT", s))
_avi("padding", before=lambda s: riff(b"JUNK", s))
_avi("unknown chunk", before=lambda s: riff(b"prVt", s))
_avi("bytes after its end", after=lambda s: s)
_avi("chunk among the frames", among=lambda s: riff(b"JUNK", s))


def _matroska(name: str, **where: Callable[[bytes], bytes]) -> None:
    def build(secret: bytes) -> bytes:
        return videos.matroska(
            _frames(), SIZE, **{spot: make(secret) for spot, make in where.items()}
        )

    PLACES.add(f"Matroska {name}", build)


_matroska("title", information=lambda s: ebml(0x7BA9, s))
_matroska("file name", information=lambda s: ebml(0x7384, s))
_matroska("identity", information=lambda s: ebml(0x73A4, s.ljust(16, b"x")))
_matroska("name of the track", track=lambda s: ebml(0x536E, s))


def _tag(secret: bytes) -> bytes:
    return ebml(0x7373, ebml(0x67C8, ebml(0x45A3, b"ARTIST"), ebml(0x4487, secret)))


def _attachment(secret: bytes) -> bytes:
    kind, name = ebml(0x4660, b"image/jpeg"), ebml(0x466E, b"cover.jpg")
    return ebml(0x61A7, name, kind, ebml(0x465C, secret_picture(secret)), ebml(0x46AE, 7))


def _chapter(secret: bytes) -> bytes:
    shown = ebml(0x80, ebml(0x85, secret), ebml(0x437C, b"und"))
    return ebml(0x45B9, ebml(0xB6, ebml(0x73C4, 1), ebml(0x91, 0), shown))


_matroska("tag", before=lambda s: ebml(0x1254C367, _tag(s)))
_matroska("attachment", before=lambda s: ebml(0x1941A469, _attachment(s)))
_matroska("chapter", before=lambda s: ebml(0x1043A770, _chapter(s)))
_matroska("void", before=lambda s: ebml(0xEC, s))
_matroska(
    "subtitles",
    tracks=lambda _s: ebml(
        0xAE, ebml(0xD7, 2), ebml(0x73C5, 2), ebml(0x83, 0x11), ebml(0x86, b"S_TEXT/UTF8")
    ),
    block=lambda s: ebml(0xA3, b"\x82\0\0\x80" + s),
)
_matroska("bytes after its end", after=lambda s: s)
