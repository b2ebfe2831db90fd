"""A hospital's archive in small: patients with several studies whose files refer to each other."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
from pydicom import Dataset

from synthetic import dicom_files

PREFIX = "1.2.410.200000.19770315.77"
SLICES, VIEWS = 6, (("L", "CC"), ("R", "CC"), ("R", "MLO"))
A_STUDY = SLICES + len(VIEWS) + 1
STUDIES = 2
A_PATIENT = STUDIES * A_STUDY
COMPREHENSIVE_REPORT = "1.2.840.10008.5.1.4.1.1.88.33"


def _uid(*numbers: int) -> str:
    return ".".join((PREFIX, *map(str, numbers)))


def _day(day: datetime.date) -> str:
    return day.strftime("%Y%m%d")


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _reference(data: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = data.SOPClassUID
    item.ReferencedSOPInstanceUID = data.SOPInstanceUID
    return item


def _image(
    patient: int, study: int, series: int, number: int, day: datetime.date, sop_class: str,
    modality: str,
) -> Dataset:  # fmt: skip
    data = dicom_files.base(sop_class, modality)
    data.PatientID, data.PatientName = f"77{patient:06d}", f"HWANGBO{patient}^MYUNGHEE"
    data.StudyInstanceUID = _uid(patient, study)
    data.SeriesInstanceUID = _uid(patient, study, series)
    data.SOPInstanceUID = _uid(patient, study, series, number)
    data.FrameOfReferenceUID = _uid(patient, study, series, 0)
    data.StudyDate = data.SeriesDate = _day(day)
    # Acquired late, and written down after midnight.
    data.AcquisitionDate = _day(day)
    data.ContentDate = _day(day + datetime.timedelta(days=1))
    data.AcquisitionDateTime = _day(day) + "235500"
    data.SeriesNumber, data.InstanceNumber = series, number
    data.AccessionNumber = f"A{patient:05d}{study}"
    generator = np.random.default_rng((patient, study, series, number))
    data.PixelData = generator.integers(300, 340, (64, 64)).astype("<u2").tobytes()
    return data


def files(patients: int, seed: int = 4) -> Iterator[tuple[str, Dataset]]:
    """The name and the data set of each file, 20 a patient."""
    generator = np.random.default_rng(seed)
    for patient in range(1, patients + 1):
        day = datetime.date(2015, 1, 1) + datetime.timedelta(days=int(generator.integers(3000)))
        earlier: Dataset | None = None
        for study in range(1, STUDIES + 1):
            images = list(_study(patient, study, day, earlier))
            for number, data in enumerate([*images, _report(patient, study, day, images)]):
                name = f"HWANGBO{patient}_77{patient:06d}/{data.StudyDate}/{number:02d}.dcm"
                yield name, data
            earlier = images[0]
            day += datetime.timedelta(days=int(generator.integers(1, 800)))


def _study(
    patient: int, study: int, day: datetime.date, earlier: Dataset | None
) -> Iterator[Dataset]:
    first: Dataset | None = None
    for number in range(1, SLICES + 1):
        data = _image(patient, study, 1, number, day, dicom_files.CT, "CT")
        data.BodyPartExamined, data.StudyDescription = "CHEST", "Chest CT"
        data.ImagePositionPatient = [-160, -160, 2.5 * number]
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        data.PixelSpacing, data.SliceThickness = [0.7, 0.7], 2.5
        data.PatientPosition = "HFS"
        data.RescaleSlope, data.RescaleIntercept = 1, -1024
        if first is not None:
            data.ReferencedImageSequence = [_reference(first)]
        elif earlier is not None:
            data.ReferencedImageSequence = [_reference(earlier)]
        first = first or data
        yield data
    for number, (side, view) in enumerate(VIEWS, 1):
        data = _image(patient, study, 2, number, day, dicom_files.MG, "MG")
        data.ImageLaterality, data.ViewPosition = side, view
        data.ImagerPixelSpacing = [0.07, 0.07]
        assert first is not None
        data.SourceImageSequence = [_reference(first)]
        yield data


def _report(patient: int, study: int, day: datetime.date, images: list[Dataset]) -> Dataset:
    data = _image(patient, study, 3, 1, day, COMPREHENSIVE_REPORT, "SR")
    for keyword in (
        "PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "ImageType",
        "PixelRepresentation", "SamplesPerPixel", "PhotometricInterpretation", "BodyPartExamined",
        "FrameOfReferenceUID", "AcquisitionDate", "AcquisitionDateTime",
    ):  # fmt: skip
        if keyword in data:
            delattr(data, keyword)
    data.ContentTime = data.SeriesTime = "101112"
    data.CompletionFlag, data.VerificationFlag = "COMPLETE", "UNVERIFIED"
    data.ReferencedPerformedProcedureStepSequence = []
    data.PerformedProcedureCodeSequence = []
    data.ValueType, data.ContinuityOfContent = "CONTAINER", "SEPARATE"
    data.ConceptNameCodeSequence = [_code("18748-4", "LN", "Diagnostic imaging report")]
    series: dict[str, list[Dataset]] = {}
    for image in images:
        series.setdefault(image.SeriesInstanceUID, []).append(_reference(image))
    evidence = Dataset()
    evidence.StudyInstanceUID = _uid(patient, study)
    evidence.ReferencedSeriesSequence = []
    for uid, references in series.items():
        one = Dataset()
        one.SeriesInstanceUID, one.ReferencedSOPSequence = uid, references
        evidence.ReferencedSeriesSequence.append(one)
    data.CurrentRequestedProcedureEvidenceSequence = [evidence]
    data.ContentSequence = []
    for image in (images[0], images[-1]):
        node = Dataset()
        node.RelationshipType, node.ValueType = "CONTAINS", "IMAGE"
        node.ConceptNameCodeSequence = [_code("121080", "DCM", "Best illustration of finding")]
        node.ReferencedSOPSequence = [_reference(image)]
        data.ContentSequence.append(node)
    return data


def write(folder: Path, patients: int) -> None:
    """Write the archive as a tree whose names say whose it is."""
    for name, data in files(patients):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(dicom_files.written(data))


def references(data: pydicom.Dataset) -> Iterator[str]:
    """Every instance that a data set refers to, at any depth."""
    for element in data:
        if element.VR == "SQ":
            for item in element.value:
                yield from references(item)
        elif element.keyword == "ReferencedSOPInstanceUID":
            yield str(element.value)
