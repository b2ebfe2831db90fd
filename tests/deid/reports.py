"""Structured reports for the tests, built node by node with pydicom."""

from __future__ import annotations

from pydicom import Dataset
from pydicom.sequence import Sequence

from synthetic.dicom_files import MG, PREFIX, base

COMPREHENSIVE = "1.2.840.10008.5.1.4.1.1.88.33"
COMPREHENSIVE_3D = "1.2.840.10008.5.1.4.1.1.88.34"
KEY_OBJECTS = "1.2.840.10008.5.1.4.1.1.88.59"
IMAGE_UID = f"{PREFIX}.1"
_PIXELS = (
    "PixelData", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "ImageType",
    "BodyPartExamined",
)  # fmt: skip


def code(value: str, scheme: str = "DCM", meaning: str = "meaning") -> Sequence:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return Sequence([item])


FINDING = ("121071", "DCM", "Finding")
IMPRESSION = ("121073", "DCM", "Impression")
DIAMETER = ("81827009", "SCT", "Diameter")


def node(
    kind: str,
    concept: tuple[str, str, str] | None = FINDING,
    *children: Dataset,
    relationship: str = "CONTAINS",
    **value: object,
) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ValueType = relationship, kind
    if concept is not None:
        item.ConceptNameCodeSequence = code(*concept)
    if kind == "CONTAINER":
        item.ContinuityOfContent = "SEPARATE"
    for keyword, content in value.items():
        setattr(item, keyword, content)
    if children:
        item.ContentSequence = Sequence(children)
    return item


def measured(value: str, unit: str = "mm") -> Sequence:
    item = Dataset()
    item.NumericValue = value
    item.MeasurementUnitsCodeSequence = code(unit, "UCUM", unit)
    return Sequence([item])


def number(value: str, unit: str = "mm", *children: Dataset, **more: object) -> Dataset:
    concept = more.pop("concept", DIAMETER)
    return node("NUM", concept, *children, MeasuredValueSequence=measured(value, unit), **more)  # type: ignore[arg-type]


def image(relationship: str = "CONTAINS", uid: str = IMAGE_UID, sop_class: str = MG) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = sop_class, uid
    return node(
        "IMAGE", None, relationship=relationship, ReferencedSOPSequence=Sequence([reference])
    )


def coordinates(*children: Dataset, **more: object) -> Dataset:
    return node(
        "SCOORD", ("111030", "DCM", "Image Region"), *children,
        GraphicType="POLYLINE", GraphicData=[1.5, 2.5, 30.0, 40.0, 1.5, 2.5], **more,
    )  # fmt: skip


def by_reference(target: list[int], relationship: str = "INFERRED FROM") -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ReferencedContentItemIdentifier = relationship, target
    return item


def report(*children: Dataset, sop_class: str = COMPREHENSIVE) -> Dataset:
    """A report of the patient of :func:`tests.deid.dicom_files.base`, in the same study."""
    data = base(sop_class, "SR")
    for keyword in _PIXELS:
        delattr(data, keyword)
    data.SOPInstanceUID, data.SeriesInstanceUID = f"{PREFIX}.88", f"{PREFIX}.89"
    data.SeriesNumber = data.InstanceNumber = 1
    data.ContentDate, data.ContentTime = "20190809", "120000"
    data.CompletionFlag, data.VerificationFlag = "COMPLETE", "UNVERIFIED"
    data.PerformedProcedureCodeSequence = Sequence([])
    data.ValueType, data.ContinuityOfContent = "CONTAINER", "SEPARATE"
    data.ConceptNameCodeSequence = code("126000", "DCM", "Imaging Measurement Report")
    template = Dataset()
    template.MappingResource, template.TemplateIdentifier = "DCMR", "1500"
    data.ContentTemplateSequence = Sequence([template])
    data.ContentSequence = Sequence(children)
    return data
