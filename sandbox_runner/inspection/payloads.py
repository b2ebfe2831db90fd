"""Signs of bytes in tensors that no training puts there, and the streams in which bytes may hide.

Encrypted bytes in the low bits of float32 cannot be told from noise; only a smaller type and a
budget meet those. What is told here is the careless rest.
"""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from policies.findings import Finding

TEXT_RUN: Final = 64

# Long enough that noise of a gigabyte does not hold one by chance.
_MAGIC = {
    "a PNG picture": b"\x89PNG\r\n\x1a\n",
    "a JPEG picture": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00",
    "a DICOM file": bytes(16) + b"DICM\x02\x00",
    "a zip archive": b"PK\x03\x04\x14\x00\x00\x00",
    "an HDF5 file": b"\x89HDF\r\n\x1a\n",
    "a pickle of torch": b"ctorch._utils\n_rebuild",
    "a JPEG picture of a camera": b"Exif\x00\x00",
    "an xz archive": b"\xfd7zXZ\x00",
    "a 7z archive": b"7z\xbc\xaf\x27\x1c",
    "a bzip2 archive": b"1AY&SY",
}
_TEXT = re.compile(rb"[\x20-\x7e\r\n\t]{%d,}" % TEXT_RUN)


_MANY_PLACES: Final = 4096
#: Spaces, digits, capitals, small letters, and the signs of ordinary texts.
_CLASSES: Final = tuple(
    frozenset(kind)
    for kind in (
        b" \t\r\n",
        b"0123456789",
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        b"abcdefghijklmnopqrstuvwxyz",
        b",.:;-/()+='\"_",
    )
)
_PRINTABLE: Final = np.isin(np.arange(256), [9, 10, 13, *range(0x20, 0x7F)])
_STEP: Final = TEXT_RUN // 4
#: Longer runs of text are told by their beginning.
_LOOKED_AT: Final = 4096
#: A stream that unpacks this far is one; a shorter one must end with its own checksum.
UNPACKED: Final = 512
_LEAST_UNPACKED: Final = 64
_WHOLE: Final = 1 << 16
#: zlib's first two bytes by its four levels, and gzip's first three.
_ZLIB: Final = (0x01, 0x5E, 0x9C, 0xDA)
#: How far a block must reach into the one before it, so that nothing is cut in two.
OVERLAP: Final = 1024


def _like_language(run: bytes, codes: bool) -> bool:
    """Whether the bytes are words or, with ``codes``, a code of letters; most numbers are neither.

    A layer's scales have neighbouring bytes: where they reach from digits to capitals, or from
    capitals to small letters, they take the signs that stand between those, too.
    """
    steps = [b - a for a, b in itertools.pairwise(run) if a != b]
    turns = sum((a > 0) != (b > 0) for a, b in itertools.pairwise(steps))
    # A counter, a ramp or a table.
    if len(set(run)) < 8 or len(steps) < len(run) // 2 or turns < len(run) // 4:
        return False
    shares = [sum(byte in kind for byte in run) / len(run) for kind in _CLASSES]
    spaces, digits, capitals, small, _signs = shares
    odd = 1 - sum(shares)
    words = spaces >= 0.08 and digits + capitals + small >= 0.5 and odd <= 0.15
    # Where two bytes are a number, every second one is often the same.
    even = max(map(run.count, set(run))) <= len(run) / 4
    kinds = sum(share >= 0.04 for share in shares[:4])
    return words or (codes and even and kinds >= 2 and odd < 0.5 / len(run))


def _texts(block: NDArray[np.uint8], data: bytes, codes: bool) -> Iterator[tuple[int, int]]:
    """Give the offset and length of each run of readable text."""
    # A run of 64 holds four places in a row that are multiples of 16.
    readable = _PRINTABLE[block[::_STEP]]
    places = np.flatnonzero(readable[:-3] & readable[1:-2] & readable[2:-1] & readable[3:]) * _STEP
    for between in (8, 24, 40, 4, 12, 20, 28, 36, 44):
        places = places[_PRINTABLE[block[places + between]]]
    end = 0
    for place in places.tolist():
        if place < end:
            continue
        start = place
        while start > end and _PRINTABLE[data[start - 1]]:
            start -= 1
        run = _TEXT.match(data, start)
        if run is not None:
            end = run.end()
            if _like_language(run.group()[:_LOOKED_AT], codes):
                yield start, end - start


def _begins(block: NDArray[np.uint8], data: bytes, magic: bytes) -> int:
    """Return where a file of some kind begins in ``data``, which is ``block``'s bytes, or -1.

    Its last letters are looked for by numpy, which several threads can do at once.
    """
    at = max(place for place in range(len(magic) - 1) if magic[place : place + 2].isalnum())
    if len(data) < len(magic):
        return -1
    here = block[at : len(block) - len(magic) + at + 1] == magic[at]
    here &= block[at + 1 : len(block) - len(magic) + at + 2] == magic[at + 1]
    places = np.flatnonzero(here)
    if len(places) > _MANY_PLACES:
        return data.find(magic)
    return next((p for p in places.tolist() if data.startswith(magic, p)), -1)


def _unpacks(data: bytes, place: int, wbits: int) -> bool:
    """Whether a compressed stream begins at a place: chance unpacks a few bytes, not hundreds."""
    stream = zlib.decompressobj(wbits)
    given = data[place : place + _WHOLE]
    try:
        made = len(stream.decompress(given[:UNPACKED], _WHOLE))
        # A block that is only copied says nothing by itself: chance makes its 4 bytes of length.
        copied = data[place + 2] >> 1 & 3 == 0
        if made >= UNPACKED and len(given) >= UNPACKED and not copied:
            return True
        if not stream.eof and not stream.unconsumed_tail:
            made += len(stream.decompress(given[UNPACKED:], _WHOLE))
    except zlib.error:
        return False
    return stream.eof and made >= _LEAST_UNPACKED


def _compressed(block: NDArray[np.uint8], data: bytes) -> int:
    """Return where a compressed stream begins, or -1."""
    if len(block) < _LEAST_UNPACKED:
        return -1
    # One byte of 256 is left by the first look at it.
    zlibs = np.flatnonzero(block[:-1] == 0x78)
    zlibs = zlibs[np.isin(block[zlibs + 1], _ZLIB)]
    gzips = np.flatnonzero(block[:-2] == 0x1F)
    gzips = gzips[(block[gzips + 1] == 0x8B) & (block[gzips + 2] == 8)]
    for places, wbits in ((zlibs, 15), (gzips, 31)):
        for place in places.tolist():
            if place + _LEAST_UNPACKED // 2 < len(data) and _unpacks(data, place, wbits):
                return int(place)
    return -1


def marks(
    block: NDArray[np.uint8], start: int, text: bool = True, codes: bool = True
) -> list[tuple[str, str, int]]:
    """Return the beginnings of files and the runs of text in some bytes of a stream.

    Each is ("file", its kind, offset), ("packed", "", offset) of a compressed stream, or ("text",
    "", length). Without ``codes`` a text is words:
    of packed bits, numbers near each other make codes by themselves.
    """
    data = block.tobytes()
    found = [
        ("file", words, start + place)
        for words, magic in _MAGIC.items()
        if (place := _begins(block, data, magic)) >= 0
    ]
    place = _compressed(block, data)
    if place >= 0:
        found.append(("packed", "", start + place))
    if text and len(block) >= TEXT_RUN:
        found += [("text", "", length) for _, length in _texts(block, data, codes)]
    return found


def check_marks(found: Sequence[tuple[str, str, int]], artefact: str, where: str) -> list[Finding]:
    """Return findings on file headers and readable text in one stream of bytes."""
    findings: list[Finding] = []
    magic = [kind for what, kind, _ in found if what == "file"]
    if magic:
        findings.append(
            Finding(
                "payload.file",
                "block",
                artefact,
                "The weights hold the beginning of another file.",
                {"kind": magic[0]},
                {"where": where},
                hard=True,
            )
        )
    if any(what == "packed" for what, _, _ in found):
        findings.append(
            Finding(
                "payload.compressed",
                "block",
                artefact,
                "The weights hold compressed bytes that can be unpacked.",
                {},
                {"where": where},
                hard=True,
            )
        )
    texts = [length for what, _, length in found if what == "text"]
    if texts:
        findings.append(
            Finding(
                "payload.text",
                "block",
                artefact,
                "The weights hold readable text.",
                {"runs": len(texts), "longest": max(texts)},
                {"where": where},
            )
        )
    return findings
