"""What happens to pixel data: nothing may hide beside the samples, and text in them is masked."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydicom.encaps import generate_frames

from deid.decoding import Decoder
from deid.dicom import codestream, rle
from deid.dicom.stream import BIG_ENDIAN, EXPLICIT, NATIVE, PIXEL_DATA, Buffer, Element, text_of
from deid.dicom.writer import file_chunks
from deid.quarantine import Quarantined

FLOATS = {0x7FE00008: 32, 0x7FE00009: 64}
PIXEL_TAGS = frozenset({PIXEL_DATA, *FLOATS})
# A few compressed bytes may claim to be a picture that fills the memory.
PIXEL_BYTES = 3 << 30
# Above this a decoder expands RLE faster than Python.
RLE_BYTES = 1 << 18
RLE = "1.2.840.10008.1.2.5"
VIDEO_PREFIXES = ("1.2.840.10008.1.2.4.10", "1.2.840.10008.1.2.7.")
_ATTRIBUTES = frozenset(
    {
        0x00280002, 0x00280004, 0x00280006, 0x00280008, 0x00280010, 0x00280011, 0x00280100,
        0x00280101, 0x00280102, 0x00280103, 0x00281101, 0x00281102, 0x00281103, 0x00281201,
        0x00281202, 0x00281203, 0x00281221, 0x00281222, 0x00281223,
    }
)  # fmt: skip
_ANONYMOUS_UID = "2.25.1"
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


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

    def native_bytes(self) -> int:
        """The length of the uncompressed pixel data."""
        samples = self.rows * self.columns * self.samples * self.frames
        if self.photometric == "YBR_FULL_422":
            samples = samples * 2 // 3
        return (samples * self.allocated + 7) // 8


@dataclass
class Cleaned:
    """The pixel element to write, the syntax it is in, attributes to set, and the boxes."""

    element: Element
    syntax: str
    attributes: dict[int, Element] = field(default_factory=dict)
    boxes: list[list[Any]] = field(default_factory=list)
    action: str = ""
    doubt: str = ""


def facts_of(elements: list[Element]) -> Facts:
    """Read the numbers; raises :class:`Quarantined` where one is missing or impossible."""
    by_tag = {element.tag: element for element in elements if element.tag in _ATTRIBUTES}

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
        frames=max(1, number(0x00280008, 1)),
        allocated=allocated,
        stored=stored,
        high=number(0x00280102, stored - 1),
        signed=number(0x00280103, 0) == 1,
        photometric=text_of(by_tag[0x00280004].value) if 0x00280004 in by_tag else "MONOCHROME2",
    )


def clean(
    elements: list[Element], syntax: str, decoder: Decoder, *, detect: bool
) -> Cleaned | None:
    """Clean the pixel data of a file; None where it has none.

    Raises :class:`Quarantined` when the pixels cannot be read, for then nobody can say what they
    show.
    """
    holders = [element for element in elements if element.tag in PIXEL_TAGS]
    if not holders:
        return None
    if len(holders) > 1:
        raise Quarantined("bad-pixels")
    holder = holders[0]
    if syntax.startswith(VIDEO_PREFIXES):
        raise Quarantined("video")
    facts = facts_of(elements)
    if not facts.rows or not facts.columns or facts.allocated not in (1, 8, 16, 32, 64):
        raise Quarantined("bad-pixels")
    if facts.native_bytes() > PIXEL_BYTES:
        raise Quarantined("too-large")
    if syntax in NATIVE:
        if holder.fragments is not None:
            raise Quarantined("bad-pixels")
        holder = Element(holder.tag, _native_vr(holder.tag, facts), _native(holder, facts, syntax))
        rewritten: Cleaned | None = Cleaned(holder, EXPLICIT)
    else:
        if holder.fragments is None:
            raise Quarantined("bad-pixels")
        rewritten = _recompressed(holder, facts, syntax, detect=detect)
    if not detect and rewritten is not None:
        return rewritten
    return _looked_at(elements, holder, facts, syntax, decoder, rewritten, detect=detect)


def masked_file(
    elements: list[Element], syntax: str, decoder: Decoder, marks: list[list[int]]
) -> Cleaned:
    """The pixel data of a cleaned file with boxes ``[x, y, width, height]`` masked in all frames.

    Raises :class:`Quarantined` when the pixels cannot be read.
    """
    holders = [element for element in elements if element.tag in PIXEL_TAGS]
    if len(holders) != 1:
        raise Quarantined("bad-pixels")
    return _looked_at(
        elements, holders[0], facts_of(elements), syntax, decoder, None, detect=False, marks=marks
    )


def _native(holder: Element, facts: Facts, syntax: str) -> Buffer:
    expected = facts.native_bytes()
    value = holder.value
    if len(value) < expected:
        raise Quarantined("truncated-pixels")
    value = value[:expected]
    if syntax == BIG_ENDIAN and facts.allocated == 32 and holder.vr == "OW":
        # The parser turned 16-bit words; a 32-bit sample also has its two words turned.
        value = np.frombuffer(value, "<u2").reshape(-1, 2)[:, ::-1].tobytes()
    if holder.tag != PIXEL_DATA or facts.allocated not in (8, 16, 32):
        return value
    return _without_unused_bits(value, facts)


def _without_unused_bits(value: Buffer, facts: Facts) -> Buffer:
    """Clear the bits of each word that are no sample: old overlays, and messages, live there."""
    allocated, stored, high = facts.allocated, facts.stored, facts.high
    if not 0 < stored <= allocated or not stored - 1 <= high < allocated:
        raise Quarantined("bad-pixels")
    if stored == allocated:
        return value
    kind: Any = np.dtype(f"<u{allocated // 8}")
    words = np.frombuffer(value, kind)
    mask = ((1 << stored) - 1) << (high - stored + 1)
    if not int(np.bitwise_or.reduce(words)) & ~mask:
        return value
    if facts.signed and high == stored - 1:
        # Unused bits of a signed sample may repeat the sign or be zero; both hide nothing.
        spare = allocated - stored
        signed = words.view(np.dtype(f"<i{allocated // 8}"))
        limit = 1 << (stored - 1)
        if -limit <= int(signed.min()) and int(signed.max()) < limit:
            return value
        return bytes(((signed << spare) >> spare).tobytes())
    return bytes((words & kind.type(mask)).tobytes())


def _check_range(pixels: bytes, allocated: int, facts: Facts) -> None:
    """Hold a file whose decoded samples use more bits than it says to store.

    Nobody can tell whether the bits above are a picture of their own or the file's number wrong.
    """
    if allocated not in (8, 16, 32) or facts.stored >= allocated:
        return
    words = np.frombuffer(pixels, np.dtype(f"<i{allocated // 8}"))
    limit = 1 << facts.stored
    low, high = int(words.min()), int(words.max())
    unsigned = low >= 0 and high < limit
    signed = -(limit >> 1) <= low and high < limit >> 1
    if not unsigned and not (facts.signed and signed):
        raise Quarantined("bad-pixels")


def _native_vr(tag: int, facts: Facts) -> str:
    if tag in FLOATS:
        return "OF" if tag == 0x7FE00008 else "OD"
    return "OW" if facts.allocated > 8 else "OB"


def _recompressed(holder: Element, facts: Facts, syntax: str, *, detect: bool) -> Cleaned | None:
    """The compressed frames without free segments; None where they must be decoded."""
    if holder.fragments is None:
        return None
    frames = _frames(holder.fragments, facts.frames)
    if not frames:
        return None
    if syntax == RLE:
        if sum(map(len, frames)) > RLE_BYTES or not all(
            _is_exact_rle(each, facts) for each in frames
        ):
            return None
        return _compressed(frames, syntax)
    stored = facts.stored
    if not detect:
        # Nobody looks at the pixels: where a frame's samples have more bits than the file says to
        # store, the file is told so, and no bit is left that a viewer does not show.
        stored = max(stored, *(codestream.precision(frame, facts.signed) for frame in frames))
        if stored > facts.allocated:
            return None
    kept = [codestream.cleaned(frame, stored) for frame in frames]
    if any(frame is None for frame in kept):
        return None
    result = _compressed([frame for frame in kept if frame is not None], syntax)
    if stored != facts.stored:
        result.attributes = _stored_bits(stored)
    return result


def _frames(fragments: list[Buffer], count: int) -> list[bytes]:
    """The frames of encapsulated pixel data, none where the fragments do not tell them apart."""
    if len(fragments) == count + 1:
        return [bytes(fragment) for fragment in fragments[1:]]
    try:
        frames = [
            bytes(frame)
            for frame in generate_frames(_encapsulated(fragments), number_of_frames=count)
        ]
    except (ValueError, struct.error):
        return []
    return frames if len(frames) == count else []


def _compressed(frames: list[bytes], syntax: str) -> Cleaned:
    return Cleaned(Element(PIXEL_DATA, "OB", fragments=[b"", *frames]), syntax)


def _is_exact_rle(frame: bytes, facts: Facts) -> bool:
    """Whether a frame is nothing but samples, and those use no bit that is not stored."""
    size = facts.allocated // 8
    bits = rle.bits_of(frame, facts.rows * facts.columns, facts.samples * size)
    if bits is None or not 0 < facts.stored <= facts.allocated:
        return False
    allowed = ((1 << facts.stored) - 1) << (facts.high - facts.stored + 1)
    return all(
        not int.from_bytes(bits[start : start + size], "big") & ~allowed
        for start in range(0, len(bits), size)
    )


def _encapsulated(fragments: list[Buffer]) -> bytes:
    parts = []
    for fragment in fragments:
        parts.append(struct.pack("<HHI", 0xFFFE, 0xE000, len(fragment)))
        parts.append(bytes(fragment))
    parts.append(struct.pack("<HHI", 0xFFFE, 0xE0DD, 0))
    return b"".join(parts)


def _looked_at(
    elements: list[Element],
    holder: Element,
    facts: Facts,
    syntax: str,
    decoder: Decoder,
    rewritten: Cleaned | None,
    *,
    detect: bool,
    marks: list[list[int]] | None = None,
) -> Cleaned:
    inner = [element for element in elements if element.tag in _ATTRIBUTES]
    sent = EXPLICIT if syntax in NATIVE else syntax
    chunks = file_chunks(_SECONDARY_CAPTURE, _ANONYMOUS_UID, sent, [*inner, holder])
    answer, pixels = decoder.ask(
        {
            "operation": "dicom",
            "detect": detect,
            "rewrite": rewritten is None,
            "marks": marks or [],
        },
        *chunks,
    )
    boxes = [list(box) for box in answer["boxes"]]
    if not answer["pixels"]:
        if rewritten is None or boxes:
            raise Quarantined("cannot-decode")
        rewritten.doubt = str(answer["doubt"])
        return rewritten
    attributes = answer["attributes"]
    allocated = int(attributes["BitsAllocated"])
    expected = Facts(
        int(attributes["Rows"]), int(attributes["Columns"]), int(attributes["SamplesPerPixel"]),
        int(attributes["frames"]), allocated, allocated, allocated - 1, False, "",
    )  # fmt: skip
    if (expected.rows, expected.columns, expected.frames) != (
        facts.rows, facts.columns, facts.frames,
    ) or len(pixels) != expected.native_bytes():  # fmt: skip
        raise Quarantined("cannot-decode")
    if syntax not in NATIVE and holder.tag == PIXEL_DATA:
        _check_range(pixels, allocated, facts)
    return Cleaned(
        Element(holder.tag, _native_vr(holder.tag, expected), pixels),
        EXPLICIT,
        _native_attributes(attributes, facts, holder.tag),
        boxes,
        "C",
        str(answer["doubt"]),
    )


def _native_attributes(attributes: Mapping[str, Any], facts: Facts, tag: int) -> dict[int, Element]:
    """The image pixel module after the pixels were written uncompressed."""
    photometric = str(attributes["PhotometricInterpretation"])
    if not photometric.replace("_", "").replace(" ", "").isalnum() or len(photometric) > 16:
        raise Quarantined("cannot-decode")
    new = {0x00280004: Element(0x00280004, "CS", photometric.encode())}
    if int(attributes["SamplesPerPixel"]) > 1:
        new[0x00280006] = Element(0x00280006, "US", bytes(2))
    if tag == PIXEL_DATA:
        allocated = int(attributes["BitsAllocated"])
        stored = min(facts.stored, allocated)
        new[0x00280100] = Element(0x00280100, "US", struct.pack("<H", allocated))
        new |= _stored_bits(stored)
    return new


def _stored_bits(stored: int) -> dict[int, Element]:
    return {
        0x00280101: Element(0x00280101, "US", struct.pack("<H", stored)),
        0x00280102: Element(0x00280102, "US", struct.pack("<H", stored - 1)),
    }
