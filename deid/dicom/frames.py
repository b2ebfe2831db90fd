"""Pixel data frame by frame: where each begins, and how many go to a decoder at once."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from deid.dicom.samples import NUMBER_OF_FRAMES, Facts
from deid.dicom.stream import Buffer, Element
from deid.quarantine import Quarantined

BATCH_BYTES = 4 << 20
"""Uncompressed bytes of the frames that a decoder gets in one piece, if that is not one frame."""

_END_OF_IMAGE = b"\xff\xd9"


def batches(facts: Facts) -> list[range]:
    """The numbers of the frames that go together."""
    bits = facts.native_bits()
    together = max(1, BATCH_BYTES * 8 // max(1, bits))
    if bits % 8:
        # Frames of single bits follow each other without a gap; eight of them end with a byte.
        together = max(8, together - together % 8)
    return [
        range(start, min(start + together, facts.frames))
        for start in range(0, facts.frames, together)
    ]


def of_native(value: Buffer, facts: Facts, chosen: range) -> Buffer:
    """The uncompressed bytes of some frames, which begin at a whole byte."""
    bits = facts.native_bits()
    return value[chosen.start * bits // 8 : (chosen.stop * bits + 7) // 8]


def of_fragments(fragments: list[Buffer], count: int) -> list[list[Buffer]] | None:
    """The fragments of each frame (PS3.5 A.4), None where that cannot be told.

    ``fragments`` begins with the basic offset table.
    """
    table, rest = fragments[0], fragments[1:]
    if count == 1:
        return [rest] if rest else None
    if len(rest) == count:
        return [[fragment] for fragment in rest]
    if len(rest) < count:
        return None
    found = _by_offsets(table, rest) if len(table) else _by_ends(rest)
    return found if len(found) == count else None


def _by_offsets(table: Buffer, fragments: list[Buffer]) -> list[list[Buffer]]:
    starts = {offset for (offset,) in struct.iter_unpack("<I", table[: len(table) // 4 * 4])}
    found: list[list[Buffer]] = []
    position = 0
    for fragment in fragments:
        if position in starts or not found:
            found.append([])
        found[-1].append(fragment)
        position += 8 + len(fragment)
    return found


def _by_ends(fragments: list[Buffer]) -> list[list[Buffer]]:
    """Frames of JPEG, JPEG-LS and JPEG 2000 end with the same marker."""
    found: list[list[Buffer]] = [[]]
    for fragment in fragments:
        found[-1].append(fragment)
        if _END_OF_IMAGE in bytes(fragment[-10:]):
            found.append([])
    return found if found[-1] else found[:-1]


def is_rle(frame: bytes, segments: int) -> bool:
    """Whether a frame begins as one of RLE does, with so many segments (PS3.5 G.5)."""
    if len(frame) < 64 or not 0 < segments <= 15:
        return False
    number, *offsets = struct.unpack_from("<16I", frame)
    used, unused = offsets[:segments], offsets[segments:]
    in_order = used == sorted(set(used)) and used[0] == 64 and used[-1] < len(frame)
    return bool(number == segments and in_order and not any(unused))


def joined(frame: list[Buffer]) -> Buffer:
    """A frame's fragments as one."""
    return frame[0] if len(frame) == 1 else b"".join(frame)


def numbered(elements: list[Element], count: int) -> list[Element]:
    """The attributes of a part with so many frames."""
    others = [element for element in elements if element.tag != NUMBER_OF_FRAMES]
    frames = Element(NUMBER_OF_FRAMES, "IS", str(count).encode())
    return sorted([*others, frames], key=lambda element: element.tag)


def split(holder: Element, facts: Facts, parts: list[range]) -> Iterator[tuple[range, Element]]:
    """Each batch with its pixel data; raises :class:`Quarantined` where frames cannot be told."""
    if len(parts) == 1:
        yield parts[0], holder
        return
    if holder.fragments is None:
        for part in parts:
            yield part, Element(holder.tag, holder.vr, of_native(holder.value, facts, part))
        return
    frames = of_fragments(holder.fragments, facts.frames)
    if frames is None:
        raise Quarantined("bad-pixels")
    for part in parts:
        chosen: list[Buffer] = [b"", *(joined(frames[number]) for number in part)]
        yield part, Element(holder.tag, holder.vr, fragments=chosen)
