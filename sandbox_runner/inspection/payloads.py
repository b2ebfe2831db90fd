"""Signs of bytes in tensors that no training puts there, and the streams in which bytes may hide.

Encrypted bytes in the low bits of float32 cannot be told from noise; only a smaller type and a
budget meet those. What is told here is the careless rest.
"""

from __future__ import annotations

import itertools
import re
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
}
_TEXT = re.compile(rb"[\x20-\x7e\r\n\t]{%d,}" % TEXT_RUN)


_PRINTABLE: Final = np.isin(np.arange(256), [9, 10, 13, *range(0x20, 0x7F)])
_STEP: Final = TEXT_RUN // 4
#: Longer runs of text are told by their beginning.
_LOOKED_AT: Final = 4096
#: How far a block must reach into the one before it, so that nothing is cut in two.
OVERLAP: Final = 2 * TEXT_RUN


def _like_language(run: bytes) -> bool:
    """Whether letters go up and down, as a counter's, a ramp's or a table's bytes do not."""
    steps = [b - a for a, b in itertools.pairwise(run) if a != b]
    turns = sum((a > 0) != (b > 0) for a, b in itertools.pairwise(steps))
    return len(set(run)) >= 8 and len(steps) >= len(run) // 2 and turns >= len(run) // 4


def _texts(block: NDArray[np.uint8], data: bytes) -> Iterator[tuple[int, int]]:
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
            if _like_language(run.group()[:_LOOKED_AT]):
                yield start, end - start


def marks(block: NDArray[np.uint8], start: int, text: bool = True) -> list[tuple[str, str, int]]:
    """Return the beginnings of files and the runs of text in some bytes of a stream.

    Each is ("file", its kind, offset) or ("text", "", length).
    """
    data = block.tobytes()
    found = [
        ("file", words, start + place)
        for words, magic in _MAGIC.items()
        if (place := data.find(magic)) >= 0
    ]
    if text and len(block) >= TEXT_RUN:
        found += [("text", "", length) for _, length in _texts(block, data)]
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
