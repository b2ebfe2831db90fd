"""One DICOM file, from its bytes to the bytes that may be published."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from deid.decoding import Decoder
from deid.dicom import content, graphics, head, pixels, plan, regions, stream, values, writer
from deid.dicom.header import TEXT_VRS, HeaderCleaner, value_of
from deid.dicom.layout import layout
from deid.dicom.markers import marked
from deid.dicom.stream import Buffer, DicomFile, Element
from deid.output import digest_of_bytes
from deid.profile import Profile
from deid.quarantine import Quarantined

STORAGE = "1.2.840.10008.5.1.4.1.1."
HELD = (
    (STORAGE + "88.", "structured-report"),
    (STORAGE + "104.", "encapsulated-document"),
    (STORAGE + "11.", "presentation-state"),
    (STORAGE + "9.", "waveform"),
    (STORAGE + "66", "raw-data"),
    (STORAGE + "91.", "annotation"),
    ("1.2.840.10008.1.3.10", "dicomdir"),
)
# Raw data (66) has children that are registrations, fiducials and segmentations.
NOT_HELD = frozenset({f"{STORAGE}66.{end}" for end in range(1, 9)})
VIDEO_CLASSES = frozenset({STORAGE + "77.1.1.1", STORAGE + "77.1.2.1", STORAGE + "77.1.4.1"})
MEASURED_CLASSES = frozenset({STORAGE + "66.4", STORAGE + "66.7", STORAGE + "481.2"})


@dataclass
class Result:
    """A cleaned file in pieces, with everything that the report says of it."""

    chunks: list[Buffer]
    subject: str
    actions: dict[str, str]
    boxes: list[list[Any]]
    stratum: dict[str, str]
    mapped: dict[str, dict[str, str]] = field(default_factory=dict)
    review: str = ""


class DicomCleaner:
    """Cleans one file after another by one plan, with one decoder process."""

    def __init__(self, header: HeaderCleaner, decoder: Decoder) -> None:
        self.header = header
        self.profile = header.plan.profile
        self.decoder = decoder

    def clean(self, data: Buffer, digest: str = "") -> Result:
        """Clean a file's bytes.

        Their SHA-256 stands for the patient and the instance where nothing else does; without
        ``digest`` it is made then. Raises :class:`Quarantined` with the reason for whatever cannot
        be proven clean.
        """
        whole = cache(lambda: digest or digest_of_bytes(data))
        file = stream.parse(data)
        sop_class = self._sop_class(file)
        if self.profile.hold_head_volumes and head.is_head(file, sop_class):
            raise Quarantined("head-volume")
        modality = value_of(file.elements, 0x00080060)
        if self.profile.modalities and modality not in self.profile.modalities:
            raise Quarantined("modality")
        identity = self.header.identity(file, whole)
        cleaned = self.header.clean(file, sop_class, identity)
        if sop_class in graphics.SOFTCOPY_STATES:
            cleaned.elements = graphics.settled(cleaned.elements)
        resolve_ambiguous(cleaned.elements, is_signed(cleaned.elements))
        detect = self.profile.has("clean_pixel_data")
        # A label map or dose grid is no picture: masking what looks like text would falsify it.
        measured = sop_class in MEASURED_CLASSES
        detect = detect and not measured
        pixel = self._pixels(file, cleaned.elements, identity.own, detect=detect)
        elements = [each for each in cleaned.elements if each.tag not in pixels.PIXEL_TAGS]
        syntax = stream.EXPLICIT
        boxes: list[list[Any]] = []
        if pixel is not None:
            elements = [each for each in elements if each.tag not in pixel.attributes]
            elements += [*pixel.attributes.values(), pixel.element]
            syntax, boxes = pixel.syntax, pixel.boxes
            if pixel.action:
                cleaned.actions[f"{pixel.element.tag:08X}"] = pixel.action
        if not _is_ascii(elements):
            elements.append(Element(0x00080005, "CS", b"ISO_IR 192"))
        elements = marked(
            _with_identity(elements, sop_class, identity.pseudonym, self.profile.keep_only is None),
            self.profile,
            pixels_cleaned=detect and pixel is not None,
        )
        instance = value_of(elements, 0x00080018)
        if not instance:
            # A file without an instance UID is named by its own content, so that runs agree.
            instance = self.header.pseudonyms.uid(f"file {whole()}")
            elements.append(Element(0x00080018, "UI", instance.encode()))
            elements.sort(key=lambda element: element.tag)
        return Result(
            chunks=writer.file_chunks(sop_class, instance, syntax, elements),
            subject=identity.pseudonym,
            actions=cleaned.actions,
            boxes=boxes,
            stratum={
                "modality": value_of(elements, 0x00080060),
                "vendor": value_of(elements, 0x00080070),
                "sop_class": sop_class,
                "layout": layout(file.elements, self.header.pseudonyms) if pixel else "",
            },
            mapped=cleaned.mapped,
            review="graphics not searched"
            if graphics.is_drawn(elements)
            else self._doubt(file, sop_class, measured=measured, pixel=pixel),
        )

    def _doubt(
        self, file: DicomFile, sop_class: str, *, measured: bool, pixel: pixels.Cleaned | None
    ) -> str:
        """Why a person has to look at the output, empty when nothing says so."""
        if measured:
            return "pixels not searched"
        volume = sop_class in head.VOLUME_CLASSES
        if self.profile.hold_head_volumes and volume and not head.names_part(file):
            return "body part not said"
        return "" if pixel is None else pixel.doubt

    def _sop_class(self, file: DicomFile) -> str:
        sop_class = value_of(file.elements, 0x00080016)
        sop_class = sop_class or stream.text_of(file.meta.get(0x00020002, b""))
        if any(element.tag == 0x00041220 for element in file.elements):
            raise Quarantined("dicomdir")
        if not sop_class:
            raise Quarantined("no-sop-class")
        reason = held_whole(sop_class, self.profile)
        if not reason and sop_class in VIDEO_CLASSES and file.syntax not in stream.NATIVE:
            reason = "video"
        if reason:
            raise Quarantined(reason)
        if not plan.is_known(sop_class):
            if not values.is_registered(sop_class):
                raise Quarantined("private-sop-class")
            if not any(element.tag in pixels.PIXEL_TAGS for element in file.elements):
                raise Quarantined("unknown-sop-class")
        return sop_class

    def _pixels(
        self, file: DicomFile, cleaned: list[Element], own: frozenset[str], *, detect: bool
    ) -> pixels.Cleaned | None:
        burned_in = value_of(file.elements, 0x00280301) == "YES"
        if not any(element.tag in pixels.PIXEL_TAGS for element in file.elements):
            return None
        if not any(element.tag in pixels.PIXEL_TAGS for element in cleaned):
            raise Quarantined("bad-pixels")
        if burned_in and not detect:
            raise Quarantined("burned-in")
        marks: list[regions.Mark] = []
        if detect:
            marks = regions.marks(
                file.elements,
                self.profile.devices,
                outside_ultrasound=self.profile.outside_ultrasound,
            )
        return pixels.clean(cleaned, file.syntax, self.decoder, detect=detect, marks=marks, own=own)


def held_whole(sop_class: str, profile: Profile) -> str:
    """Why a profile holds every file of a SOP class, empty where it cleans them."""
    if sop_class in NOT_HELD:
        return ""
    if sop_class in graphics.SOFTCOPY_STATES and profile.has("clean_graphics"):
        return ""
    report = content.is_report(sop_class) and plan.is_known(sop_class)
    if report and profile.has(content.OPTION):
        return ""
    for prefix, reason in HELD:
        if sop_class.startswith(prefix):
            return reason
    return ""


def _with_identity(
    elements: list[Element], sop_class: str, pseudonym: str, whole: bool
) -> list[Element]:
    """The patient's pseudonym stands in every file, also where the original had none."""
    present = {element.tag for element in elements}
    if 0x00080016 not in present:
        elements.append(Element(0x00080016, "UI", sop_class.encode()))
    if 0x00100020 not in present:
        elements.append(Element(0x00100020, "LO", pseudonym.encode()))
    if whole and 0x00100010 not in present:
        elements.append(Element(0x00100010, "PN", pseudonym.encode()))
    for element in elements:
        if element.tag in (0x00100010, 0x00100020):
            element.value = pseudonym.encode()
    return elements


def is_signed(elements: list[Element]) -> bool:
    """Whether the samples are signed (PixelRepresentation)."""
    for element in elements:
        if element.tag == 0x00280103 and len(element.value) == 2:
            return bool(struct.unpack("<H", element.value)[0] == 1)
    return False


def resolve_ambiguous(elements: list[Element], signed: bool) -> None:
    """Give elements that the dictionary leaves open their VR (PS3.5 annex A.1 notes)."""
    for element in elements:
        if element.items is not None:
            for item in element.items:
                resolve_ambiguous(item, signed)
        elif " or " in element.vr:
            if "US or SS" in element.vr and len(element.value) <= 6:
                element.vr = "SS" if signed else "US"
            else:
                element.vr = "OW"


def _is_ascii(elements: list[Element]) -> bool:
    for element in elements:
        if element.items is not None:
            if not all(_is_ascii(item) for item in element.items):
                return False
        elif element.vr in TEXT_VRS and not bytes(element.value).isascii():
            return False
    return True
