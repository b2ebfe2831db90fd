"""What happens to each attribute: the IOD's allow-list, then the table and the profile on top.

PS3.15 table E.1-1 says what to do with attributes known to identify; it cannot know those that a
device writes where no standard put them. So an attribute that the SOP class's IOD (PS3.3) does not
define is removed first, and one that the table does not list is still cleaned by its VR.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from pydicom.datadict import tag_for_keyword

from deid.dicom.stream import known_vr
from deid.profile import Profile

Action: TypeAlias = Literal[
    "keep",  # the value stands, if it is a value of its VR and none of the patient's own
    "remove",
    "empty",
    "dummy",
    "uid",
    "date",  # shifted (date, date-time) or kept as a time of day
    "text",
    "age",
    "code",  # a code string
    "code-value",
    "scheme",
    "pseudonym",
    "constant",
    "items",  # a sequence: its items are cleaned by the same rules
    "content",  # a sequence of content items: each is cleaned as the node that it is
    "layer",  # a name that only links annotations to their layer
    "private",
]
LETTERS: Mapping[str, str] = {
    "remove": "X", "empty": "Z", "dummy": "D", "uid": "U", "date": "C", "text": "C", "age": "C",
    "code": "C", "code-value": "C", "scheme": "C", "pseudonym": "P", "constant": "D",
    "items": "C", "content": "C", "layer": "C", "keep": "X", "private": "X",
}  # fmt: skip

OPTION_COLUMNS = (
    "retain_uids",
    "retain_device",
    "retain_institution",
    "retain_patient_characteristics",
    "retain_full_dates",
    "retain_modified_dates",
    "clean_descriptors",
    "clean_structured_content",
    "clean_graphics",
)
# Sequences of content items outside of a report's tree (PS3.3 section 10.2).
CONTENT_ITEMS = frozenset({0x0040A730, 0x00400555, 0x00400612, 0x00400441})
_GRAPHIC_LAYER = 0x00700002
# What becomes a pseudonym wherever it may stand: identity that a study needs to hold together.
PSEUDONYMS: Mapping[int, str] = {
    0x00100010: "patient",
    0x00100020: "patient",
    0x00080050: "accession",
    0x00200010: "accession",
}
# Bulk values that are the picture or are needed to show it; every other OB, OW, UN value goes.
BULK = frozenset(
    int(tag_for_keyword(keyword) or 0)
    for keyword in (
        "PixelData", "FloatPixelData", "DoubleFloatPixelData", "LUTData",
        "RedPaletteColorLookupTableData", "GreenPaletteColorLookupTableData",
        "BluePaletteColorLookupTableData", "SegmentedRedPaletteColorLookupTableData",
        "SegmentedGreenPaletteColorLookupTableData", "SegmentedBluePaletteColorLookupTableData",
        "ContourData", "SpectroscopyData", "PointCoordinatesData", "LongPrimitivePointIndexList",
        "VectorGridData", "RationalNumeratorValue", "FrameIncrementPointer",
    )
)  # fmt: skip
# Explanations and labels that the table forgets and that people fill with notes, and what the
# writer makes anew.
ALWAYS_GONE = frozenset(
    int(tag_for_keyword(keyword) or 0)
    for keyword in (
        "ICCProfile", "RetrieveURL", "DocumentTitle", "IconImageSequence", "SpecificCharacterSet",
        "DeidentificationMethod", "DeidentificationMethodCodeSequence", "PatientIdentityRemoved",
        "LongitudinalTemporalInformationModified", "ContributingEquipmentSequence",
        "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "EncryptedAttributesSequence",
        "OriginalAttributesSequence", "DigitalSignaturesSequence", "MACParametersSequence",
        "ReferencedDigitalSignatureSequence", "ReferencedSOPInstanceMACSequence",
        "PersonIdentificationCodeSequence", "ReferencedPatientSequence", "TimezoneOffsetFromUTC",
        "UniversalEntityID", "LocalNamespaceEntityID", "PatientComments", "ImageComments",
        "FrameComments",
    )
)  # fmt: skip
GENERIC_MODULES = (
    "patient", "general-study", "patient-study", "general-series", "frame-of-reference",
    "general-equipment", "general-image", "image-plane", "image-pixel", "multi-frame", "cine",
    "modality-lut", "voi-lut", "palette-color-lookup-table", "sop-common",
)  # fmt: skip
# Attributes that images carry without their IOD naming them there: of group 0028, and geometry.
ALSO_TOP = frozenset(
    int(tag_for_keyword(keyword) or 0)
    for keyword in (
        "BurnedInAnnotation", "RecognizableVisualFeatures", "SpatialLocationsPreserved",
        "NumberOfFrames", "PlanarConfiguration", "PixelAspectRatio", "PixelSpacing",
        "SmallestImagePixelValue", "LargestImagePixelValue", "PixelPaddingValue", "WindowCenter",
        "WindowWidth", "RescaleIntercept", "RescaleSlope", "RescaleType", "FrameIncrementPointer",
        # Where and which side: some devices write them where the IOD has them in each frame only.
        "ImagePositionPatient", "ImageOrientationPatient", "SliceThickness", "SliceLocation",
        "SpacingBetweenSlices", "ImagerPixelSpacing", "NominalScannedPixelSpacing",
        "PatientPosition", "PatientOrientation", "Laterality", "ImageLaterality",
        "FrameLaterality",
    )
)  # fmt: skip


class Rule(NamedTuple):
    """What to do with one attribute, its VR and its type in the module."""

    action: Action
    vr: str
    type: str
    extra: str = ""


class Row(NamedTuple):
    """One row of the table: the basic action and the options that change it."""

    tag: str
    keyword: str
    basic: str
    options: Mapping[str, str]
    origin: str


@lru_cache(maxsize=1)
def table() -> Mapping[str, Row]:
    """PS3.15 table E.1-1 by tag (8 hex digits, ``50XXXXXX``, ``60XX3000``, ``PRIVATE``)."""
    with Path(__file__).with_name("table_e1_1.csv").open(newline="", encoding="utf-8") as handle:
        return {
            line["tag"]: Row(
                line["tag"],
                line["keyword"],
                line["basic"],
                {option: line[option] for option in OPTION_COLUMNS if line[option]},
                line["origin"],
            )
            for line in csv.DictReader(handle)
        }


@dataclass(frozen=True)
class _Iods:
    sop_classes: Mapping[str, str]
    iods: Mapping[str, list[str]]
    modules: Mapping[str, Mapping[str, str]]
    sequences: Mapping[str, Mapping[str, str]]


@lru_cache(maxsize=1)
def _iods() -> _Iods:
    text = Path(__file__).with_name("iods.json").read_text(encoding="ascii")
    return _Iods(**json.loads(text))


def _unpacked(packed: Mapping[str, str]) -> Iterable[tuple[int, str]]:
    for kind, codes in packed.items():
        for start in range(0, len(codes), 8):
            yield int(codes[start : start + 8], 16), kind


def is_known(sop_class: str) -> bool:
    """Whether the standard's maps know the SOP class."""
    return sop_class in _iods().sop_classes


class Plan:
    """The rules of one profile, compiled once for each IOD and each sequence that is met."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self._top: dict[str, dict[int, Rule]] = {}
        self._inside: dict[int, dict[int, Rule]] = {}

    def top(self, sop_class: str) -> dict[int, Rule]:
        """The rules for the top level of a SOP class; an unknown one gets the generic list."""
        iods = _iods()
        iod = iods.sop_classes.get(sop_class, "")
        if iod not in self._top:
            kinds: dict[int, str] = dict.fromkeys(ALSO_TOP, "3")
            for module in iods.iods[iod] if iod else GENERIC_MODULES:
                for tag, kind in _unpacked(iods.modules.get(module, {})):
                    if kind < kinds.get(tag, "9"):
                        kinds[tag] = kind
            self._top[iod] = self._compiled(kinds)
        return self._top[iod]

    def inside(self, sequence: int) -> dict[int, Rule]:
        """The rules for the items of a sequence."""
        if sequence not in self._inside:
            packed = _iods().sequences.get(f"{sequence:08X}", {})
            self._inside[sequence] = self._compiled(dict(_unpacked(packed)))
        return self._inside[sequence]

    def _compiled(self, kinds: Mapping[int, str]) -> dict[int, Rule]:
        rules = {tag: rule_for(tag, kind, self.profile) for tag, kind in kinds.items()}
        return {tag: rule for tag, rule in rules.items() if rule.action != "remove"}


def rule_for(tag: int, kind: str, profile: Profile) -> Rule:
    """The rule for an attribute of the given type (1, 1C, 2, 2C, 3) under a profile."""
    vr = known_vr(tag)
    group = tag >> 16
    if group < 8 or group & 1 or 0x5000 <= group <= 0x50FF or 0x6000 <= group <= 0x60FF:
        return Rule("remove", vr, kind)
    if tag in profile.constants:
        return Rule("constant", vr, kind, profile.constants[tag])
    if profile.keep_only is not None and tag not in profile.keep_only:
        return Rule("remove", vr, kind)
    if tag in profile.overrides:
        return Rule(_from_letter(profile.overrides[tag], vr, kind), vr, kind, "device")
    if tag in ALWAYS_GONE:
        return Rule("remove", vr, kind)
    if tag in PSEUDONYMS:
        return Rule("pseudonym", vr, kind, PSEUDONYMS[tag])
    row = table().get(f"{tag:08X}")
    letter = "" if row is None else _letter(row, kind, profile)
    action = _from_letter(letter, vr, kind) if letter else by_vr(tag, vr, profile)
    if action == "items" and tag in CONTENT_ITEMS and profile.has("clean_structured_content"):
        action = "content"
    elif tag == _GRAPHIC_LAYER and profile.has("clean_graphics"):
        action = "layer"
    return Rule(action, vr, kind, "verbatim" if letter == "K" else "")


def _letter(row: Row, kind: str, profile: Profile) -> str:
    chosen = {row.options[option] for option in row.options if profile.has(option)}
    if "retain_modified_dates" in row.options and profile.has("retain_modified_dates"):
        return "C"
    for letter in "KC":
        if letter in chosen:
            return letter
    possible = row.basic.replace("*", "").split("/")
    if "U" in possible:
        return "U"
    wanted = {"1": "DZX", "1C": "DZX", "2": "ZDX", "2C": "ZDX"}.get(kind, "XZD")
    return next(letter for letter in wanted if letter in possible)


def _from_letter(letter: str, vr: str, kind: str) -> Action:
    if letter == "X":
        return "remove"
    if letter == "P":
        return "pseudonym"
    if vr == "SQ":
        # A sequence cannot hold a dummy; empty is the safe reading of Z and of D.
        return "items" if letter in "KUC" else "empty"
    if letter == "U":
        return "uid" if vr == "UI" else "empty"
    if letter == "C":
        if vr in ("DA", "DT", "TM"):
            return "date"
        return "text" if vr in ("LO", "SH", "ST", "LT", "UT", "UC") else "remove"
    if letter == "K":
        if vr in ("OB", "OW", "UN", "PN", "OF", "OD", "OL", "OV"):
            return "remove"
        return "age" if vr == "AS" else "keep"
    return "empty" if letter == "Z" or vr in ("OB", "OW", "UN") else "dummy"


_CODE_VALUES = frozenset({0x00080100, 0x00080119, 0x00080120})
_SCHEME = 0x00080102


def by_vr(tag: int, vr: str, profile: Profile) -> Action:
    """The action for an attribute that the table does not list."""
    if tag in BULK:
        return "keep"
    if tag in _CODE_VALUES:
        return "code-value"
    if tag == _SCHEME:
        return "scheme"
    if vr in ("DA", "DT", "TM"):
        dates = profile.has("retain_full_dates") or profile.has("retain_modified_dates")
        return "date" if dates else "empty"
    if vr == "UI":
        return "uid"
    if vr == "SQ":
        return "items"
    if vr in ("LO", "SH", "ST", "LT", "UT", "UC"):
        return "text"
    if vr == "AS":
        return "age"
    if vr == "CS":
        return "code"
    if vr == "PN":
        return "empty"
    if vr in ("OB", "OW", "OF", "OD", "OL", "OV", "UN", "UR", "AE", "OB or OW"):
        return "remove"
    return "keep"
