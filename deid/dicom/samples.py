"""Uncompressed samples: how many there must be, and that no bit of them holds anything else."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from deid.dicom.stream import BIG_ENDIAN, PIXEL_DATA, Buffer, Element, text_of
from deid.quarantine import Quarantined
from deid.spill import pieces, replaced

FLOATS = {0x7FE00008: 32, 0x7FE00009: 64}
PIXEL_TAGS = frozenset({PIXEL_DATA, *FLOATS})
NUMBER_OF_FRAMES = 0x00280008
# The image pixel module (PS3.3 C.7.6.3): all that a decoder needs to know.
ATTRIBUTES = frozenset(
    {
        0x00280002, 0x00280004, 0x00280006, NUMBER_OF_FRAMES, 0x00280010, 0x00280011, 0x00280100,
        0x00280101, 0x00280102, 0x00280103, 0x00281101, 0x00281102, 0x00281103, 0x00281201,
        0x00281202, 0x00281203, 0x00281221, 0x00281222, 0x00281223,
    }
)  # fmt: skip


@dataclass
class Facts:
    """The image pixel module's numbers (PS3.3 C.7.6.3)."""

    rows: int
    columns: int
    samples: int
    frames: int
    allocated: int
    stored: int
    high: int
    signed: bool
    photometric: str

    def native_bits(self) -> int:
        """The bits of one uncompressed frame."""
        samples = self.rows * self.columns * self.samples
        if self.photometric == "YBR_FULL_422":
            samples = samples * 2 // 3
        return samples * self.allocated

    def native_bytes(self) -> int:
        """The length of the uncompressed pixel data."""
        return (self.native_bits() * self.frames + 7) // 8


def facts_of(elements: list[Element]) -> Facts:
    """Read the numbers; raises :class:`Quarantined` where one is missing or impossible."""
    by_tag = {element.tag: element for element in elements if element.tag in ATTRIBUTES}

    def number(tag: int, default: int | None = None) -> int:
        element = by_tag.get(tag)
        if element is None or len(element.value) == 0:
            if default is None:
                raise Quarantined("bad-pixels")
            return default
        if len(element.value) == 2 and element.vr != "IS":
            return int(struct.unpack("<H", element.value)[0])
        try:
            return int(text_of(element.value))
        except ValueError:
            raise Quarantined("bad-pixels") from None

    float_bits = next((FLOATS[e.tag] for e in elements if e.tag in FLOATS), None)
    allocated = number(0x00280100, float_bits)
    stored = number(0x00280101, allocated)
    return Facts(
        rows=number(0x00280010),
        columns=number(0x00280011),
        samples=number(0x00280002, 1),
        frames=max(1, number(NUMBER_OF_FRAMES, 1)),
        allocated=allocated,
        stored=stored,
        high=number(0x00280102, stored - 1),
        signed=number(0x00280103, 0) == 1,
        photometric=text_of(by_tag[0x00280004].value) if 0x00280004 in by_tag else "MONOCHROME2",
    )


def native_vr(tag: int, allocated: int) -> str:
    """The VR of uncompressed pixel data (PS3.5 A.2)."""
    if tag in FLOATS:
        return "OF" if tag == 0x7FE00008 else "OD"
    return "OW" if allocated > 8 else "OB"


def native(holder: Element, facts: Facts, syntax: str) -> Buffer:
    """The samples and nothing else, little-endian; raises :class:`Quarantined` for too few."""
    expected = facts.native_bytes()
    value = holder.value
    if len(value) < expected:
        raise Quarantined("truncated-pixels")
    value = value[:expected]
    if syntax == BIG_ENDIAN and facts.allocated == 32 and holder.vr == "OW":
        # The parser turned 16-bit words; a 32-bit sample also has its two words turned.
        value = replaced(
            value, lambda piece: np.frombuffer(piece, "<u2").reshape(-1, 2)[:, ::-1].tobytes()
        )
    if holder.tag != PIXEL_DATA or facts.allocated not in (8, 16, 32):
        return value
    return without_unused_bits(value, facts)


def _words(value: Buffer, kind: Any) -> Iterator[Any]:
    for piece in pieces(value):
        yield np.frombuffer(piece, kind)


def without_unused_bits(value: Buffer, facts: Facts) -> Buffer:
    """Clear the bits of each word that are no sample: old overlays, and messages, live there."""
    allocated, stored, high = facts.allocated, facts.stored, facts.high
    if not 0 < stored <= allocated or not stored - 1 <= high < allocated:
        raise Quarantined("bad-pixels")
    if stored == allocated:
        return value
    kind: Any = np.dtype(f"<u{allocated // 8}")
    mask = kind.type(((1 << stored) - 1) << (high - stored + 1))
    if not any(int(np.bitwise_or.reduce(words)) & ~int(mask) for words in _words(value, kind)):
        return value
    if not facts.signed or high != stored - 1:
        return replaced(value, lambda piece: (np.frombuffer(piece, kind) & mask).tobytes())
    # Unused bits of a signed sample may repeat the sign or be zero; both hide nothing.
    wide: Any = np.dtype(f"<i{allocated // 8}")
    limit, spare = 1 << (stored - 1), allocated - stored
    if all(
        -limit <= int(words.min()) and int(words.max()) < limit for words in _words(value, wide)
    ):
        return value
    return replaced(value, lambda piece: ((np.frombuffer(piece, wide) << spare) >> spare).tobytes())


def check_range(pixels: Buffer, allocated: int, stored: int, *, signed: bool) -> None:
    """Hold a file whose decoded samples use more bits than it says to store.

    Nobody can tell whether the bits above are a picture of their own or the file's number wrong.
    """
    if allocated not in (8, 16, 32) or stored >= allocated:
        return
    low = high = 0
    for words in _words(pixels, np.dtype(f"<i{allocated // 8}")):
        low, high = min(low, int(words.min())), max(high, int(words.max()))
    limit = 1 << stored
    fits_unsigned = low >= 0 and high < limit
    fits_signed = -(limit >> 1) <= low and high < limit >> 1
    if not fits_unsigned and not (signed and fits_signed):
        raise Quarantined("bad-pixels")
