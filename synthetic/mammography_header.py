"""DICOM headers of the phantoms: what the IOD asks for and, on request, identifiers everywhere.

Digital Mammography X-Ray Image, For Presentation (PS3.3 A.27). Each identifier is written through
:class:`Planter`, so the list of what was planted cannot drift from what is in the file.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian

from synthetic.identity import HOSPITAL, Identity
from synthetic.planted import Planted

MAMMOGRAPHY_FOR_PRESENTATION = UID("1.2.840.10008.5.1.4.1.1.1.2")
DEVICES = (("Phantom Imaging", "Selene 12"), ("Synthetic Systems", "Mammo One"))
VIEW_CODES = {"CC": ("R-10242", "cranio-caudal"), "MLO": ("R-10226", "medio-lateral oblique")}


@dataclass(frozen=True)
class Exposure:
    """What one image is: side, view, its number in the study, device and UIDs."""

    laterality: str
    view: str
    number: int
    device: tuple[str, str]
    study_uid: str
    series_uid: str
    instance_uid: str


@dataclass
class Planter:
    """Writes identifying elements and remembers each of them."""

    file: str
    encoding: str
    planted: list[Planted] = field(default_factory=list)

    def put(self, into: Dataset, keyword: str, written: str, value: str, path: str = "") -> None:
        """Set ``keyword`` to ``written`` and note that ``value`` stands in it."""
        setattr(into, keyword, written)
        tag = into[keyword].tag
        self.note(value, f"{path}{tag.group:04x},{tag.element:04x}")

    def note(self, value: str, where: str) -> None:
        """Note a value that was written otherwise."""
        self.planted.append(Planted(value, where, self.file, None, self.encoding))


def build_header(pixels: NDArray[np.uint16], exposure: Exposure, subject: str) -> FileDataset:
    """A complete file without anything that identifies: ``subject`` is its PatientID."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MAMMOGRAPHY_FOR_PRESENTATION
    meta.MediaStorageSOPInstanceUID = UID(exposure.instance_uid)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["DERIVED", "PRIMARY", ""]
    ds.SOPClassUID = MAMMOGRAPHY_FOR_PRESENTATION
    ds.SOPInstanceUID = exposure.instance_uid
    ds.StudyInstanceUID = exposure.study_uid
    ds.SeriesInstanceUID = exposure.series_uid
    ds.StudyDate, ds.StudyTime = "19000101", "000000"
    ds.ContentDate, ds.ContentTime = "19000101", "000000"
    ds.AccessionNumber = ""
    ds.Modality = "MG"
    ds.PresentationIntentType = "FOR PRESENTATION"
    ds.Manufacturer, ds.ManufacturerModelName = exposure.device
    ds.ReferringPhysicianName = ""
    ds.PatientName = ""
    ds.PatientID = subject
    ds.PatientBirthDate = "19000101"
    ds.PatientSex = "F"
    ds.StudyID = ""
    ds.SeriesNumber = 1
    ds.InstanceNumber = exposure.number
    ds.BodyPartExamined = "BREAST"
    ds.KVP, ds.ExposureTime = 28, 1000
    ds.DetectorType = "DIRECT"
    ds.ImageLaterality = exposure.laterality
    ds.ViewPosition = exposure.view
    ds.PatientOrientation = (
        ["P", exposure.laterality] if exposure.laterality == "R" else ["A", exposure.laterality]
    )
    code, meaning = VIEW_CODES[exposure.view]
    ds.ViewCodeSequence = Sequence([_code(code, "SNM3", meaning)])
    ds.ViewCodeSequence[0].ViewModifierCodeSequence = Sequence([])
    ds.AnatomicRegionSequence = Sequence([_code("T-04000", "SNM3", "Breast")])
    ds.AcquisitionContextSequence = Sequence([])
    ds.OrganExposed = "BREAST"
    ds.ImagerPixelSpacing = [0.75, 0.75]
    ds.PositionerType = "MAMMOGRAPHIC"
    ds.BurnedInAnnotation = "NO"
    ds.LossyImageCompression = "00"
    ds.PixelIntensityRelationship, ds.PixelIntensityRelationshipSign = "LOG", -1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "US"
    ds.PresentationLUTShape = "IDENTITY"
    ds.WindowCenter, ds.WindowWidth = 1700, 3200
    _set_pixels(ds, pixels)
    return ds


def plant_header(
    ds: FileDataset, identity: Identity, exposure: Exposure, planter: Planter, text: str
) -> None:
    """Put ``identity`` into every kind of place that headers have.

    ``text`` is the name as this file's character set can write it in free text.
    """
    _plant_patient(ds, identity, planter)
    _plant_visit(ds, identity, planter, text)
    _plant_sequences(ds, identity, planter)
    _plant_private(ds, identity, planter)
    for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        tag = ds[keyword].tag
        planter.note(str(ds[keyword].value), f"{tag.group:04x},{tag.element:04x}")
    ds.file_meta.SourceApplicationEntityTitle = f"MG{identity.serial}"[:16]
    planter.note(f"MG{identity.serial}"[:16], "0002,0016")
    name = identity.latin_text.encode("ascii")
    ds.preamble = name.ljust(128, b"\0")
    planter.note(identity.latin_text, "preamble")
    ds.StudyDate = ds.ContentDate = ds.SeriesDate = ds.AcquisitionDate = identity.exam_date
    ds.StudyTime = ds.ContentTime = ds.SeriesTime = ds.AcquisitionTime = identity.exam_time
    ds.PerformedProcedureStepStartDate = identity.exam_date


def _plant_patient(ds: Dataset, identity: Identity, planter: Planter) -> None:
    ds.PatientAge = f"{identity.age:03d}Y"
    planter.put(ds, "PatientName", f"{identity.latin}=={identity.hangul}", identity.latin)
    planter.note(identity.hangul, "0010,0010")
    planter.put(ds, "PatientID", identity.number, identity.number)
    planter.put(ds, "PatientBirthDate", identity.birth_date, identity.birth_date)
    planter.put(ds, "OtherPatientIDs", identity.national_number, identity.national_number)
    planter.put(ds, "PatientTelephoneNumbers", identity.phone, identity.phone)
    planter.put(ds, "PatientAddress", identity.address, identity.address)
    comment = f"{identity.latin_text} called from {identity.phone}"
    planter.put(ds, "PatientComments", comment, identity.latin_text)


def _plant_visit(ds: Dataset, identity: Identity, planter: Planter, text: str) -> None:
    latin, hangul = HOSPITAL
    planter.put(ds, "AccessionNumber", identity.accession, identity.accession)
    planter.put(ds, "StudyID", identity.accession[3:], identity.accession[3:])
    planter.put(ds, "InstitutionName", f"{latin} {hangul}", latin)
    planter.note(hangul, "0008,0080")
    department = f"{latin} Breast Clinic"
    planter.put(ds, "InstitutionalDepartmentName", department, department)
    planter.put(ds, "InstitutionAddress", identity.address, identity.address)
    planter.put(ds, "ReferringPhysicianName", identity.referring, identity.referring)
    planter.put(ds, "PerformingPhysicianName", identity.performing, identity.performing)
    planter.put(ds, "NameOfPhysiciansReadingStudy", identity.reader, identity.reader)
    planter.put(ds, "OperatorsName", identity.operator, identity.operator)
    planter.put(ds, "DeviceSerialNumber", identity.serial, identity.serial)
    planter.put(ds, "StationName", f"ROOM-{identity.serial}"[:16], f"ROOM-{identity.serial}"[:16])
    planter.put(ds, "StudyDescription", f"Mammography screening {text}", text)
    planter.put(ds, "SeriesDescription", f"4 views, ID {identity.number}", identity.number)
    comment = f"exam {identity.exam_text}, compare with prior"
    planter.put(ds, "ImageComments", comment, identity.exam_text)


def _plant_sequences(ds: Dataset, identity: Identity, planter: Planter) -> None:
    request = Dataset()
    path = "0040,0275>"
    planter.put(
        request, "RequestedProcedureDescription", f"for {identity.latin_text}",
        identity.latin_text, path,
    )  # fmt: skip
    planter.put(request, "RequestedProcedureID", f"RP{identity.number}", identity.number, path)
    ds.RequestAttributesSequence = Sequence([request])
    other = Dataset()
    planter.put(other, "PatientID", identity.phone, identity.phone, "0010,1002>")
    other.TypeOfPatientID = "TEXT"
    ds.OtherPatientIDsSequence = Sequence([other])
    before = Dataset()
    planter.put(before, "PatientName", identity.latin, identity.latin, "0400,0561>0400,0550>")
    original = Dataset()
    original.ModifiedAttributesSequence = Sequence([before])
    original.AttributeModificationDateTime = f"{identity.exam_date}{identity.exam_time}"
    original.ModifyingSystem = f"PACS {identity.serial}"
    planter.note(identity.serial, "0400,0561>0400,0563")
    original.SourceOfPreviousValues = ""
    original.ReasonForTheAttributeModification = "CORRECT"
    ds.OriginalAttributesSequence = Sequence([original])


def _plant_private(ds: Dataset, identity: Identity, planter: Planter) -> None:
    block = ds.private_block(0x0029, "PHANTOM VENDOR 1.0", create=True)
    block.add_new(0x10, "LO", f"{identity.latin_text} {identity.number}")
    planter.note(identity.latin_text, "0029,1010")
    inner = Dataset()
    inner.add_new(0x00291021, "PN", identity.latin)
    inner.add_new(0x00290010, "LO", "PHANTOM VENDOR 1.0")
    block.add_new(0x20, "SQ", Sequence([inner]))
    planter.note(identity.latin, "0029,1020>0029,1021")
    block.add_new(0x30, "UN", f"{identity.national_number};{identity.hangul}".encode())
    planter.planted.append(Planted(identity.national_number, "0029,1030", planter.file))
    planter.planted.append(Planted(identity.hangul, "0029,1030", planter.file))


def _set_pixels(ds: Dataset, pixels: NDArray[np.uint16]) -> None:
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.SpatialLocationsPreserved = "YES"
    ds.PixelData = pixels.astype("<u2").tobytes()
    ds["PixelData"].VR = "OW"


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code
