"""What happens to pixel data: nothing may hide beside the samples, and text in them is masked."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from deid.decoding import Decoder
from deid.dicom import codestream, frames, rle, sample_words, samples
from deid.dicom.samples import ATTRIBUTES, Facts, check_range, facts_of, native, native_vr
from deid.dicom.stream import EXPLICIT, NATIVE, PIXEL_DATA, Buffer, Element
from deid.dicom.wordlike import Words
from deid.dicom.writer import file_chunks
from deid.quarantine import Quarantined
from deid.spill import LARGE, Spill, forget

PIXEL_TAGS = samples.PIXEL_TAGS
# A few compressed bytes may claim to be a picture that fills the memory.
PIXEL_BYTES = 3 << 30
# Above this a decoder expands RLE faster than Python.
RLE_BYTES = 1 << 18
# In a hundred megabytes of coded data five certain bytes stand by chance once in ten thousand.
OWN_BYTES = 5
# Of more, the search of samples for words would take longer than all other looks.
FEW_FRAMES = 8
# Of a codestream, enough to hold what stands in front of its first scan.
HEADER_BYTES = 1 << 16
RLE = "1.2.840.10008.1.2.5"
JPEG_LS = "1.2.840.10008.1.2.4.80"
JPEG_2000 = "1.2.840.10008.1.2.4.90"
# What decoded frames are encoded in again: without loss, and readable where the original was.
# JPEG has no lossless encoder here, and is written uncompressed.
FAMILIES: Mapping[str, str] = {
    RLE: RLE,
    JPEG_LS: JPEG_LS,
    "1.2.840.10008.1.2.4.81": JPEG_LS,
    JPEG_2000: JPEG_2000,
    "1.2.840.10008.1.2.4.91": JPEG_2000,
    "1.2.840.10008.1.2.4.201": JPEG_2000,
    "1.2.840.10008.1.2.4.202": JPEG_2000,
    "1.2.840.10008.1.2.4.203": JPEG_2000,
}
VIDEO_PREFIXES = ("1.2.840.10008.1.2.4.10", "1.2.840.10008.1.2.7.")
_ANONYMOUS_UID = "2.25.1"
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"

Boxes = list[list[Any]]


@dataclass
class Cleaned:
    """The pixel element to write, the syntax it is in, attributes to set, and the boxes."""

    element: Element
    syntax: str
    attributes: dict[int, Element] = field(default_factory=dict)
    boxes: Boxes = field(default_factory=list)
    action: str = ""
    doubt: str = ""


def clean(
    elements: list[Element],
    syntax: str,
    decoder: Decoder,
    *,
    detect: bool,
    marks: Sequence[Sequence[int]] = (),
    own: Iterable[str] = (),
) -> Cleaned | None:
    """Clean the pixel data of a file; None where it has none.

    ``marks`` are boxes ``[x, y, width, height]`` that are masked whatever they show. ``own`` are
    the patient's own words: codestreams that hold one are not passed on.

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
        vr = native_vr(holder.tag, facts.allocated)
        holder = Element(holder.tag, vr, native(holder, facts, syntax))
        few = facts.frames <= FEW_FRAMES
        if (
            detect
            and few
            and sample_words.spells_own(holder.value, _spelled(own, 3), facts.samples)
        ):
            raise Quarantined(sample_words.HELD)
        rewritten: Cleaned | None = Cleaned(holder, EXPLICIT)
    else:
        if holder.fragments is None:
            raise Quarantined("bad-pixels")
        rewritten = _recompressed(holder, facts, syntax, detect=detect, own=own)
    if rewritten is not None and not detect and not marks:
        return rewritten
    # What is published is what was looked at, not what it was made of.
    holder = holder if rewritten is None else rewritten.element
    shown = _Picture(elements, holder, facts, syntax, decoder)
    return shown.cleaned(rewritten, detect=detect, marks=marks)


def masked_file(
    elements: list[Element], syntax: str, decoder: Decoder, marks: list[list[int]]
) -> Cleaned:
    """The pixel data of a file with boxes ``[x, y, width, height]`` masked in all frames.

    Of an original all else that may hide in pixel data is removed as well. Raises
    :class:`Quarantined` when the pixels cannot be read.
    """
    holders = [element for element in elements if element.tag in PIXEL_TAGS]
    if len(holders) != 1:
        raise Quarantined("bad-pixels")
    holder, facts = holders[0], facts_of(elements)
    if syntax in NATIVE:
        if holder.fragments is not None:
            raise Quarantined("bad-pixels")
        vr = native_vr(holder.tag, facts.allocated)
        holder = Element(holder.tag, vr, native(holder, facts, syntax))
    shown = _Picture(elements, holder, facts, syntax, decoder)
    return shown.cleaned(None, detect=False, marks=marks)


def decoded(elements: list[Element], syntax: str, decoder: Decoder) -> Cleaned:
    """The pixel data of a cleaned file as native values, whatever they were encoded in."""
    holders = [element for element in elements if element.tag in PIXEL_TAGS]
    if len(holders) != 1:
        raise Quarantined("bad-pixels")
    shown = _Picture(elements, holders[0], facts_of(elements), syntax, decoder)
    return shown.native()


def _spelled(own: Iterable[str], least: int) -> list[bytes]:
    """The patient's words of at least so many bytes, in the usual writings."""
    found = set()
    for word in own:
        for written in (word, word.upper(), word.capitalize()):
            for encoding in ("utf-8", "cp949"):
                with contextlib.suppress(UnicodeError):
                    found.add(written.encode(encoding))
    return sorted(each for each in found if len(each) >= least)


@lru_cache(maxsize=4)
def _sought(own: frozenset[str]) -> Words:
    """The patient's words that are no chance in coded data."""
    return Words(_spelled(own, OWN_BYTES))


def _recompressed(
    holder: Element, facts: Facts, syntax: str, *, detect: bool, own: Iterable[str] = ()
) -> Cleaned | None:
    """The compressed frames without free segments; None where they must be decoded."""
    if holder.fragments is None:
        return None
    found = frames.of_fragments(holder.fragments, facts.frames)
    if found is None:
        return None
    if syntax == RLE and sum(map(len, holder.fragments)) > RLE_BYTES:
        return None
    stored = facts.stored
    if not detect and syntax != RLE:
        # Nobody looks at the pixels: where a frame's samples have more bits than the file says to
        # store, the file is told so, and no bit is left that a viewer does not show.
        for frame in found:
            start = bytes(frames.joined(frame)[:HEADER_BYTES])
            stored = max(stored, codestream.precision(start, facts.signed))
        if stored > facts.allocated:
            return None
    kept, lengths, words = Spill(), [], _sought(frozenset(own))
    for frame in found:
        whole = bytes(frames.joined(frame))
        if syntax == RLE:
            clean_frame = whole if _is_exact_rle(whole, facts) else None
        else:
            clean_frame = codestream.cleaned(whole, stored)
        if clean_frame is None or words.are_in(clean_frame):
            return None
        kept.write(clean_frame)
        lengths.append(len(clean_frame))
        if kept.size > LARGE:
            forget(frame[0])
    result = Cleaned(_encapsulated(kept, lengths), syntax)
    if stored != facts.stored:
        result.attributes = _stored_bits(stored)
    return result


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


def _encapsulated(frames_in_a_row: Spill, lengths: Sequence[int]) -> Element:
    """One fragment a frame, behind an empty offset table (PS3.5 A.4)."""
    value = memoryview(frames_in_a_row.value())
    fragments: list[Buffer] = [b""]
    position = 0
    for length in lengths:
        fragments.append(value[position : position + length])
        position += length
    return Element(PIXEL_DATA, "OB", fragments=fragments)


class _Unencoded(Exception):
    """A later batch of frames could not be encoded as the former ones were."""


class _Picture:
    """The frames of one file, given to the decoder in batches small enough for its memory."""

    def __init__(
        self, elements: list[Element], holder: Element, facts: Facts, syntax: str, decoder: Decoder
    ) -> None:
        self.inner = [element for element in elements if element.tag in ATTRIBUTES]
        self.holder, self.facts, self.syntax, self.decoder = holder, facts, syntax, decoder
        self.parts = frames.batches(facts)

    def cleaned(
        self, rewritten: Cleaned | None, *, detect: bool, marks: Sequence[Sequence[int]]
    ) -> Cleaned:
        """The masked picture; ``rewritten`` as it is where nothing is to be masked."""
        head: dict[str, Any] = {
            "operation": "dicom",
            "detect": detect,
            "rewrite": rewritten is None,
            "marks": [list(mark) for mark in marks],
            "family": FAMILIES.get(self.syntax, ""),
        }
        if len(self.parts) == 1:
            answer, pixels = self._ask(head, self.parts[0], self.holder)
            boxes, doubt = [list(box) for box in answer["boxes"]], str(answer["doubt"])
            if answer["pixels"]:
                written = _Written(self.holder, self.facts, self.syntax)
                try:
                    written.add(answer, pixels, self.parts[0])
                except _Unencoded:
                    return self._rewritten({**head, "family": ""}, boxes, doubt)
                return written.result(boxes, doubt)
        else:
            boxes, doubt = self._searched(head)
            if rewritten is None or boxes:
                return self._rewritten(head, boxes, doubt)
        if rewritten is None or boxes:
            raise Quarantined("cannot-decode")
        rewritten.doubt = doubt
        return rewritten

    def native(self) -> Cleaned:
        """All frames as they are, decoded."""
        return self._rewritten({"operation": "dicom", "family": ""}, [], "")

    def _ask(
        self, head: Mapping[str, Any], part: range, holder: Element
    ) -> tuple[dict[str, Any], bytes]:
        inner = self.inner if len(self.parts) == 1 else frames.numbered(self.inner, len(part))
        sent = EXPLICIT if self.syntax in NATIVE else self.syntax
        chunks = file_chunks(_SECONDARY_CAPTURE, _ANONYMOUS_UID, sent, [*inner, holder])
        answer = self.decoder.ask(head, *chunks)
        for chunk in chunks:
            forget(chunk)
        return answer

    def _searched(self, head: dict[str, Any]) -> tuple[Boxes, str]:
        """The boxes of all frames; leaves the stored black in ``head``."""
        marked: Boxes = [["text", *mark, 1.0] for mark in head["marks"]]
        if not head["detect"] and not marked:
            return [], ""
        answer: dict[str, Any] = {}
        for part, holder in frames.split(self.holder, self.facts, self.parts):
            request = {
                "operation": "part",
                "detect": head["detect"],
                "first": part.start == 0,
                "frames": self.facts.frames,
            }
            answer, _nothing = self._ask(request, part, holder)
        head["fill"] = answer["fill"]
        return [*marked, *(list(box) for box in answer["boxes"])], str(answer["doubt"])

    def _rewritten(self, head: dict[str, Any], boxes: Boxes, doubt: str) -> Cleaned:
        request = {
            **head, "detect": False, "rewrite": True, "marks": [box[1:5] for box in boxes],
            "fill": head.get("fill"),
        }  # fmt: skip
        for family in dict.fromkeys((head["family"], "")):
            written = _Written(self.holder, self.facts, self.syntax)
            try:
                for part, holder in frames.split(self.holder, self.facts, self.parts):
                    answer, pixels = self._ask({**request, "family": family}, part, holder)
                    written.add(answer, pixels, part)
            except _Unencoded:
                continue
            return written.result(boxes, doubt)
        raise Quarantined("cannot-decode")


class _Written:
    """The decoder's answers, checked and put together."""

    def __init__(self, holder: Element, facts: Facts, syntax: str) -> None:
        self.holder, self.facts, self.syntax = holder, facts, syntax
        self.spill = Spill()
        self.lengths: list[int] = []
        self.attributes: dict[str, Any] = {}
        self.family = ""

    def add(self, answer: Mapping[str, Any], pixels: bytes, part: range) -> None:
        """Take the answer for some frames.

        Raises :class:`Quarantined` when it is none for these frames, and :class:`_Unencoded` when
        it is encoded in another way than the former.
        """
        if not answer["pixels"]:
            raise Quarantined("cannot-decode")
        attributes = dict(answer["attributes"])
        facts = self.facts
        allocated = int(attributes["BitsAllocated"])
        told = Facts(
            int(attributes["Rows"]), int(attributes["Columns"]), int(attributes["SamplesPerPixel"]),
            int(attributes.pop("frames")), allocated, allocated, allocated - 1, False, "",
        )  # fmt: skip
        if (told.rows, told.columns, told.frames) != (facts.rows, facts.columns, len(part)):
            raise Quarantined("cannot-decode")
        lengths = [int(length) for length in answer["lengths"]]
        family = FAMILIES.get(self.syntax, "") if lengths else ""
        if part.start == 0:
            self.attributes, self.family = attributes, family
        elif attributes != self.attributes:
            raise Quarantined("cannot-decode")
        elif family != self.family:
            raise _Unencoded
        if family:
            self._add_encoded(pixels, lengths, told)
            return
        if len(pixels) != told.native_bytes():
            raise Quarantined("cannot-decode")
        if self.syntax not in NATIVE and self.holder.tag == PIXEL_DATA:
            check_range(pixels, allocated, facts.stored, signed=facts.signed)
        self.spill.write(pixels)

    def _add_encoded(self, pixels: bytes, lengths: list[int], told: Facts) -> None:
        if len(lengths) != told.frames or sum(lengths) != len(pixels) or min(lengths) <= 0:
            raise Quarantined("cannot-decode")
        position = 0
        for length in lengths:
            frame: bytes | None = pixels[position : position + length]
            position += length
            if self.family == RLE:
                whole = frames.is_rle(frame or b"", told.samples * told.allocated // 8)
                frame = frame if whole else None
            else:
                frame = codestream.cleaned(frame or b"", min(self.facts.stored, told.allocated))
            if frame is None:
                raise _Unencoded
            self.spill.write(frame)
            self.lengths.append(len(frame))

    def result(self, boxes: Boxes, doubt: str) -> Cleaned:
        """The pixel element with all that was added."""
        attributes = _described(self.attributes, self.facts, self.holder.tag)
        if self.family:
            element, syntax = _encapsulated(self.spill, self.lengths), self.family
        else:
            vr = native_vr(self.holder.tag, int(self.attributes["BitsAllocated"]))
            element, syntax = Element(self.holder.tag, vr, self.spill.value()), EXPLICIT
        return Cleaned(element, syntax, attributes, boxes, "C", doubt)


def _described(attributes: Mapping[str, Any], facts: Facts, tag: int) -> dict[int, Element]:
    """The image pixel module after the pixels were written anew."""
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
