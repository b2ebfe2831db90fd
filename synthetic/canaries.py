"""DICOM files with a secret in every place where one can hide; each place knows its secret.

A place is a function that gives the bytes of a file and the bytes that must not survive. The same
file is first shown to hold the secret, so that a builder that forgets to plant it fails the test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pydicom import Dataset
from pydicom.datadict import dictionary_VR
from pydicom.sequence import Sequence

from synthetic.dicom_files import (
    KOREAN,
    NAME,
    NUMBER,
    PREFIX,
    SECRET,
    base,
    before,
    raw,
    without,
    written,
)


@dataclass(frozen=True)
class Canary:
    """A place to hide in: how to make the file, and what must not survive."""

    name: str
    build: Callable[[], bytes]
    secrets: tuple[bytes, ...]
    may_hold: bool = True  # the file may be quarantined instead


PLACES: list[Canary] = []


def place(
    *secrets: str | bytes, encoding: str = "utf-8", may_hold: bool = False
) -> Callable[[Callable[[], bytes]], Callable[[], bytes]]:
    """Register a builder with its secrets."""

    def register(build: Callable[[], bytes]) -> Callable[[], bytes]:
        wanted = tuple(s if isinstance(s, bytes) else s.encode(encoding) for s in secrets)
        PLACES.append(Canary(build.__name__, build, wanted, may_hold))
        return build

    return register


def attribute(keyword: str, value: object = SECRET, secret: str | None = None) -> None:
    """Register an ordinary attribute that holds the secret."""

    def build() -> bytes:
        data = base()
        setattr(data, keyword, value)
        return written(data)

    PLACES.append(Canary(keyword, build, ((secret or str(value)).encode(),), False))


for _keyword in (
    "PatientAddress", "PatientMotherBirthName", "OtherPatientNames", "PatientBirthName",
    "PatientComments", "EthnicGroup", "Occupation", "AdditionalPatientHistory",
    "PatientTelephoneNumbers",
    "MedicalRecordLocator", "MilitaryRank", "BranchOfService", "CountryOfResidence",
    "RegionOfResidence", "PatientReligiousPreference", "PatientInsurancePlanCodeSequence",
    "InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName", "StationName",
    "ReferringPhysicianName", "ReferringPhysicianAddress", "ReferringPhysicianTelephoneNumbers",
    "PerformingPhysicianName", "OperatorsName", "PhysiciansOfRecord",
    "NameOfPhysiciansReadingStudy",
    "ConsultingPhysicianName", "RequestingPhysician", "RequestingService",
    "ScheduledPerformingPhysicianName",
    "AccessionNumber", "StudyID", "OtherPatientIDs", "IssuerOfPatientID", "AdmissionID",
    "DeviceSerialNumber", "PlateID", "CassetteID", "DetectorID", "GantryID", "GeneratorID",
    "StudyDescription", "SeriesDescription", "ProtocolName", "ImageComments",
    "DerivationDescription",
    "AcquisitionDeviceProcessingDescription", "RequestedProcedureDescription", "StudyComments",
    "PerformedProcedureStepDescription", "RequestedContrastAgent", "ContrastBolusAgent",
    "AdmittingDiagnosesDescription", "ReasonForStudy", "VisitComments", "InterpretationText",
    "PatientState", "CurrentPatientLocation", "PatientInstitutionResidence", "PerformedLocation",
    "PerformedStationAETitle", "ScheduledStationAETitle", "RetrieveAETitle", "StationAETitle",
    "NetworkID", "ContentCreatorName", "ContentLabel", "ContentDescription", "DocumentTitle",
    "WindowCenterWidthExplanation", "LUTExplanation", "ClinicalTrialSubjectID",
    "ClinicalTrialSiteName", "ClinicalTrialProtocolName", "ClinicalTrialSponsorName",
    "Manufacturer", "ManufacturerModelName", "SoftwareVersions", "BodyPartExamined", "ImageType",
    "FilterMaterial", "DetectorDescription", "ViewPosition", "PatientPosition",
    "IssueDateOfImagingServiceRequest",
    "PerformedProcedureStepID", "ScheduledProcedureStepID", "RequestedProcedureID",
    "FillerOrderNumberImagingServiceRequest", "PlacerOrderNumberImagingServiceRequest",
    "CommentsOnThePerformedProcedureStep", "DigitalImageFormatAcquired", "FrameComments",
    "PositionReferenceIndicator", "PatientOrientation", "LossyImageCompressionMethod",
    "QualityControlImage", "PatientSpeciesDescription", "ResponsiblePerson",
    "ResponsibleOrganization",
    "TextComments", "TextString", "BarcodeValue", "LabelText",
):  # fmt: skip
    if dictionary_VR(_keyword) == "SQ":
        _item = Dataset()
        _item.CodeMeaning = f"Dr {SECRET}"
        _item.PersonName = SECRET
        attribute(_keyword, Sequence([_item]), SECRET)
    elif dictionary_VR(_keyword) == "DA":
        attribute(_keyword, "19770315")
    else:
        attribute(_keyword)
attribute("RetrieveURL", f"https://pacs.example/{SECRET}", SECRET)
attribute("PatientAge", "097Y")
attribute("PatientBirthDate", "19770315")
attribute("PatientBirthTime", "031777")
attribute("LastMenstrualDate", "20190801")
attribute("AcquisitionDateTime", "20190807101112.123456+0900", "20190807")
attribute("StudyDate", "20190807")
attribute("FrameOfReferenceUID", f"{PREFIX}.99")
attribute("DeviceUID", f"{PREFIX}.98")
attribute("SOPInstanceUID", f"{PREFIX}.97")


@place("HWANGBO", "MYUNGHEE", NUMBER)
def own_identity() -> bytes:
    return written(base())


@place("HWANGBO", "MYUNGHEE")
def own_name_in_study_description() -> bytes:
    data = base()
    data.StudyDescription = "Mammography HWANGBO screening of MYUNGHEE"
    return written(data)


@place("BREAST^SCREENING", "screening 19770315")
def own_name_of_clinical_words() -> bytes:
    data = base()
    data.PatientName = "BREAST^SCREENING"
    data.StudyDescription = "screening 19770315 BREAST^SCREENING"
    return written(data)


@place("HWANGBO", "MYUNGHEE")
def one_name_over_two_fields() -> bytes:
    data = base()
    data.SeriesDescription, data.ProtocolName = "HWANGBO", "MYUNGHEE"
    return written(data)


@place(f"{PREFIX}.77")
def uid_in_text() -> bytes:
    data = base()
    data.StudyDescription = f"Mammography see {PREFIX}.77"
    return written(data)


@place("1977-03-15", "010-2345-6789", "770315-2345678")
def numbers_in_text() -> bytes:
    data = base()
    data.StudyDescription = "MLO 1977-03-15"
    data.SeriesDescription = "tel 010-2345-6789"
    data.ProtocolName = "MLO 770315-2345678"
    return written(data)


@place("97 year")
def age_in_text() -> bytes:
    data = base()
    data.StudyDescription = "97 year old female"
    return written(data)


@place(KOREAN.encode("cp949"), "명희".encode("cp949"))
def korean_iso_2022() -> bytes:
    file = written(base())
    charset = raw(8, 5, b"CS", b"\\ISO 2022 IR 149")
    file = before(file, (8, 8), charset)
    name = raw(0x10, 0x10, b"PN", b"Hwangbo^Myunghee=" + b"\x1b$)C" + KOREAN.encode("cp949"))
    text = raw(8, 0x103E, b"LO", b"\x1b$)C" + "유방촬영 명희".encode("cp949"))
    return before(without(file, 0x00100010), (0x10, 0x20), name).replace(
        raw(8, 0x1030, b"LO", b"Mammography screening"),
        raw(8, 0x1030, b"LO", b"Mammography screening") + text,
    )


@place(KOREAN, "명희")
def korean_utf8_three_part_name() -> bytes:
    data = base()
    data.SpecificCharacterSet = "ISO_IR 192"
    data.PatientName = f"Hwangbo^Myunghee=黃甫^明熙={KOREAN[:2]}^{KOREAN[2:]}"
    data.PatientComments = KOREAN
    data.StudyDescription = f"유방촬영 {KOREAN} 명희"
    return written(data)


@place(KOREAN.encode("cp949"), "명희".encode("cp949"))
def korean_mislabelled() -> bytes:
    file = before(written(base()), (8, 8), raw(8, 5, b"CS", b"ISO_IR 100"))
    file = before(file, (0x10, 0x10), raw(8, 0x103E, b"LO", KOREAN.encode("cp949")))
    return before(file, (0x10, 0x20), b"").replace(
        raw(0x10, 0x10, b"PN", NAME.encode()),
        raw(0x10, 0x10, b"PN", KOREAN.encode("cp949") + b"^" + "명희".encode("cp949")),
    )


@place(SECRET)
def character_set_itself() -> bytes:
    return before(written(base()), (8, 8), raw(8, 5, b"CS", SECRET.encode()))
