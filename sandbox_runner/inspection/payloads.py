"""Signs of bytes in tensors that no training puts there, and the streams in which bytes may hide.

Encrypted bytes in the low bits of float32 cannot be told from noise; only a smaller type and a
budget meet those. What is told here is the careless rest.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from policies.findings import Finding

LEAST_ELEMENTS: Final = 4096
#: Chi-square by degree of freedom of the lowest byte; 1 is expected, with a spread of 0.09.
UNEVEN: Final = 4.0
ONE_VALUE_SHARE: Final = 0.3
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
#: So many of a tensor's first elements are compared with each other.
_VALUES: Final = 1 << 20


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


class Distribution:
    """What one tensor's stored elements are like, gathered block by block."""

    def __init__(self, dtype: str) -> None:
        self._dtype = dtype
        self._count = 0
        self._low = np.zeros(256, np.int64)
        self._first: list[NDArray[Any]] = []

    def feed(self, block: NDArray[Any]) -> None:
        """Take some elements as they are stored, one-dimensional."""
        self._count += len(block)
        if self._dtype not in ("F32", "F64"):
            return
        low = np.ascontiguousarray(block).view(np.uint8)[:: block.itemsize]
        self._low += np.bincount(low, minlength=256)
        if self._count <= _VALUES:
            self._first.append(block)

    def findings(self, artefact: str, name: str) -> list[Finding]:
        """Return what no training makes."""
        if self._count < LEAST_ELEMENTS or self._dtype not in ("F32", "F64"):
            return []
        return [*self._low_bits(artefact, name), *self._values(artefact, name)]

    def _low_bits(self, artefact: str, name: str) -> list[Finding]:
        expected = self._count / 256
        uneven = float(((self._low - expected) ** 2).sum() / expected / 255)
        if self._low.max() / self._count >= ONE_VALUE_SHARE or uneven <= UNEVEN:
            return []
        return [
            Finding(
                "payload.low-bits",
                "review",
                artefact,
                "The lowest bits of a tensor are not spread as training spreads them.",
                {"chi_square_by_freedom": uneven},
                {"tensor": name},
            )
        ]

    def _values(self, artefact: str, name: str) -> list[Finding]:
        flat = np.concatenate(self._first)[:_VALUES]
        different = np.unique(flat)
        if 16 < different.size <= 256:
            rule, message = (
                "payload.few-values",
                "A tensor of real numbers takes few different values, as bytes do.",
            )
        elif different.size > 256 and bool((different % 1 == 0).all()):
            rule, message = (
                "payload.whole-numbers",
                "A tensor of real numbers holds whole numbers only.",
            )
        else:
            return []
        evidence = {"values": int(different.size)}
        return [Finding(rule, "review", artefact, message, evidence, {"tensor": name})]
