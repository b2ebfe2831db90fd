"""What must stay: pixels outside boxes, geometry, intervals, references; and the markers."""

from __future__ import annotations

import datetime
import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

from deid.decoding import Decoder
from deid.dicom.clean import DicomCleaner
from deid.dicom.header import HeaderCleaner
from deid.dicom.plan import Plan
from deid.profile import Profile, from_document, load
from deid.quarantine import Quarantined
from deid.vault import Pseudonyms
from synthetic import dicom_files
from tests.deid.conftest import KEY

SYNTAXES = {
    "native implicit": "MR_small_implicit.dcm",
    "native explicit": "MR_small.dcm",
    "big-endian": "MR_small_bigendian.dcm",
    "big-endian 8 bits": "ExplVR_BigEnd.dcm",
    "RLE": "MR_small_RLE.dcm",
    "JPEG-LS lossless": "MR_small_jpeg_ls_lossless.dcm",
    "JPEG-LS near-lossless": "JPEGLSNearLossless_16.dcm",
    "JPEG 2000 lossless": "MR_small_jp2klossless.dcm",
    "JPEG 2000": "693_J2KI.dcm",
    "JPEG lossless": "JPGLosslessP14SV1_1s_1f_8b.dcm",
    "JPEG 2000 frames": "emri_small_jpeg_2k_lossless.dcm",
    "RLE frames": "emri_small_RLE.dcm",
    "JPEG-LS frames": "emri_small_jpeg_ls_lossless.dcm",
    "JPEG baseline colour": "color3d_jpeg_baseline.dcm",
    "deflated": "image_dfl.dcm",
    "palette": "examples_palette.dcm",
    "colour": "examples_rgb_color.dcm",
    "YBR": "examples_ybr_color.dcm",
    "32 bits": "rtdose_1frame.dcm",
    "32 bits big-endian": "rtdose_expb_1frame.dcm",
}


def opened(data: bytes) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(data))


def stored_values(dataset: pydicom.Dataset) -> np.ndarray:
    from pydicom.pixels.decoders.base import get_decoder

    decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
    return decoder.as_array(dataset, as_rgb=False)[0]


@pytest.mark.parametrize("name", SYNTAXES.values(), ids=SYNTAXES)
def test_pixels_outside_boxes_are_bit_identical(name: str, decoder: Decoder) -> None:
    path = get_testdata_file(name)
    assert path is not None
    data = Path(path).read_bytes()
    allowed = from_document({**load("research").document, "head_volumes": "allow"})
    result = _cleaner(allowed, decoder).clean(data, "0")
    before = stored_values(pydicom.dcmread(io.BytesIO(data), force=True))
    after = stored_values(opened(b"".join(result.chunks)))
    assert before.shape == after.shape
    assert (before.dtype.kind, before.dtype.itemsize) == (after.dtype.kind, after.dtype.itemsize)
    outside = np.ones(before.shape, bool)
    frames = outside if int(opened(data).get("NumberOfFrames") or 1) > 1 else outside[np.newaxis]
    for _kind, x, y, width, height, _score in result.boxes:
        frames[:, y : y + height, x : x + width] = False
    assert np.array_equal(before[outside], after[outside])


def test_what_no_decoder_reads_is_held_and_not_passed_on(cleaner: DicomCleaner) -> None:
    """JPEG of 12 bits (process 4): no decoder with a free licence is installed."""
    with pytest.raises(Quarantined, match="cannot-decode"):
        cleaner.clean(Path(str(get_testdata_file("JPEG-lossy.dcm"))).read_bytes(), "0")


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "693_UNCR.dcm"])
def test_geometry_and_acquisition_stay(name: str, cleaner: DicomCleaner) -> None:
    data = Path(str(get_testdata_file(name))).read_bytes()
    before, after = opened(data), opened(b"".join(cleaner.clean(data, "0").chunks))
    for keyword in (
        "Modality", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "KVP",
        "SliceThickness", "SliceLocation", "Rows", "Columns", "BitsStored", "RescaleSlope",
        "RescaleIntercept", "WindowCenter", "PatientSex", "InstanceNumber", "PatientPosition",
        "SOPClassUID", "EchoTime", "RepetitionTime", "ImageType", "PhotometricInterpretation",
        "Manufacturer",
    ):  # fmt: skip
        if keyword in before and before[keyword].value not in ("", None):
            assert after[keyword].value == before[keyword].value, keyword


def test_geometry_stays_where_the_iod_does_not_expect_it(decoder: Decoder) -> None:
    """An enhanced image with what belongs into its frames at its top level."""
    data = dicom_files.base("1.2.840.10008.5.1.4.1.1.4.1", "MR")
    data.BodyPartExamined = "KNEE"
    data.SpacingBetweenSlices, data.FrameLaterality = "1.2", "R"
    data.SliceThickness, data.ImageLaterality = "3", "L"
    data.Laterality = "HWANGBO"
    result = _cleaner(load("research"), decoder).clean(dicom_files.written(data), "0")
    after = opened(b"".join(result.chunks))
    assert (after.SpacingBetweenSlices, after.SliceThickness) == (1.2, 3)
    assert (after.FrameLaterality, after.ImageLaterality) == ("R", "L")
    assert "HWANGBO" not in str(after.get("Laterality", ""))


def test_intervals_of_dates_are_kept_and_dates_are_not(cleaner: DicomCleaner) -> None:
    def days(study: str, acquisition: str) -> tuple[datetime.date, datetime.date]:
        data = dicom_files.base()
        data.StudyDate, data.AcquisitionDate = study, acquisition
        after = opened(b"".join(cleaner.clean(dicom_files.written(data), "0").chunks))
        assert after.StudyDate != study and after.StudyTime == "101112"
        return tuple(
            datetime.datetime.strptime(value, "%Y%m%d").date()
            for value in (after.StudyDate, after.AcquisitionDate)
        )

    first, last = days("20200228", "20200301")
    other, _same = days("20210228", "20210228")
    assert (last - first).days == 2  # over a leap day
    assert (other - first).days == 366


def test_one_uid_is_one_uid_in_every_file_and_text(cleaner: DicomCleaner) -> None:
    data = dicom_files.base()
    inner = pydicom.Dataset()
    inner.ReferencedSOPClassUID = dicom_files.MG
    inner.ReferencedSOPInstanceUID = data.StudyInstanceUID
    data.ReferencedImageSequence = [inner]
    data.StudyDescription = f"see {data.StudyInstanceUID}"
    after = opened(b"".join(cleaner.clean(dicom_files.written(data), "0").chunks))
    new = after.StudyInstanceUID
    assert new.startswith("2.25.") and len(new) <= 64
    assert after.ReferencedImageSequence[0].ReferencedSOPInstanceUID == new
    assert after.StudyDescription == f"see {new}"
    assert after.ReferencedImageSequence[0].ReferencedSOPClassUID == dicom_files.MG
    assert after.file_meta.MediaStorageSOPInstanceUID == after.SOPInstanceUID


def test_the_file_says_what_was_done_to_it(cleaner: DicomCleaner) -> None:
    after = opened(b"".join(cleaner.clean(dicom_files.written(dicom_files.base()), "0").chunks))
    assert after.PatientIdentityRemoved == "YES"
    codes = {item.CodeValue for item in after.DeidentificationMethodCodeSequence}
    assert codes == {"113100", "113101", "113104", "113105", "113107", "113108", "113109"}
    assert after.LongitudinalTemporalInformationModified == "MODIFIED"
    assert after.BurnedInAnnotation == "NO"
    purpose = after.ContributingEquipmentSequence[0].PurposeOfReferenceCodeSequence[0]
    assert (purpose.CodeValue, purpose.CodingSchemeDesignator) == ("109104", "DCM")


@pytest.mark.parametrize(
    ("age", "kept"), [("042Y", "042Y"), ("089Y", "089Y"), ("090Y", "090Y"), ("101Y", "090Y"),
                      ("999M", "999M"), ("1200", None), ("999W", "999W")]
)  # fmt: skip
def test_ages_over_89_are_one_group(age: str, kept: str | None, cleaner: DicomCleaner) -> None:
    data = dicom_files.written(dicom_files.base())
    changed = dicom_files.raw(0x10, 0x1010, b"AS", age.encode())
    data = data.replace(dicom_files.raw(0x10, 0x1010, b"AS", b"042Y"), changed)
    after = opened(b"".join(cleaner.clean(data, "0").chunks))
    assert after.get("PatientAge") == kept


def test_clinical_words_stay_in_descriptions(cleaner: DicomCleaner) -> None:
    data = dicom_files.base()
    data.SpecificCharacterSet = "ISO_IR 192"
    data.StudyDescription = "MG L-MLO magnification, dense breast"
    data.SeriesDescription = "유방촬영 좌측 CC"
    after = opened(b"".join(cleaner.clean(dicom_files.written(data), "0").chunks))
    assert after.StudyDescription == "MG L-MLO magnification,dense breast"
    assert after.SeriesDescription == "유방촬영 좌측 CC"


@pytest.mark.parametrize("field", ["BodyPartExamined", "SeriesDescription", "ProtocolName"])
def test_head_volumes_are_held_for_a_person(field: str, decoder: Decoder) -> None:
    data = dicom_files.base(dicom_files.CT, "CT")
    data.BodyPartExamined = "HEAD" if field == "BodyPartExamined" else ""
    if field != "BodyPartExamined":
        setattr(data, field, "Brain w/o contrast")
    file = dicom_files.written(data)
    with pytest.raises(Quarantined, match="head-volume"):
        _cleaner(load("research"), decoder).clean(file, "0")
    allowed = from_document({**load("research").document, "head_volumes": "allow"})
    assert _cleaner(allowed, decoder).clean(file, "0").chunks


@pytest.mark.parametrize(("part", "doubted"), [("", True), ("CHEST", False)])
def test_a_volume_that_does_not_say_what_it_shows_is_seen_by_a_person(
    part: str, doubted: bool, decoder: Decoder
) -> None:
    data = dicom_files.base(dicom_files.CT, "CT")
    data.BodyPartExamined, data.StudyDescription = part, "routine"
    result = _cleaner(load("research"), decoder).clean(dicom_files.written(data), "0")
    assert bool(result.review) is doubted


def test_the_mammography_profile_keeps_its_list_and_nothing_else(decoder: Decoder) -> None:
    profile = load("mammography")
    data = dicom_files.base()
    data.ViewPosition, data.ImageLaterality = "MLO", "L"
    data.KVP, data.PatientWeight = "28", "61"
    result = _cleaner(profile, decoder).clean(dicom_files.written(data), "0")
    after = opened(b"".join(result.chunks))
    assert (after.PatientBirthDate, after.PerformedProcedureStepStartDate) == ("19000101",) * 2
    assert (after.ViewPosition, after.ImageLaterality) == ("MLO", "L")
    markers = {
        "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence",
        "LongitudinalTemporalInformationModified", "BurnedInAnnotation",
        "ContributingEquipmentSequence",
    }  # fmt: skip
    tags = {int(element.tag) for element in after if element.keyword not in markers}
    assert profile.keep_only is not None
    assert tags <= profile.keep_only
    with pytest.raises(Quarantined, match="modality"):
        _cleaner(profile, decoder).clean(
            dicom_files.written(dicom_files.base(dicom_files.SC, "OT")), "0"
        )


def test_basic_leaves_no_date(decoder: Decoder) -> None:
    data = dicom_files.base()
    data.AcquisitionDateTime = "20190807101112"
    result = _cleaner(load("basic"), decoder).clean(dicom_files.written(data), "0")
    after = opened(b"".join(result.chunks))
    assert after.StudyDate == "" and "AcquisitionDateTime" not in after
    assert "PatientAge" not in after
    assert after.LongitudinalTemporalInformationModified == "REMOVED"


def test_a_safe_private_block_stays_where_the_profile_names_it(decoder: Decoder) -> None:
    data = dicom_files.base()
    block = data.private_block(0x0019, "GEMS_ACQU_01", create=True)
    block.add_new(0x02, "SL", 912)
    block.add_new(0x03, "LO", dicom_files.SECRET)
    document = dict(load("research").document)
    document["options"] = [*document["options"], "retain_safe_private"]
    document["safe_private"] = {"GEMS_ACQU_01": ["0019xx02", "0019xx03"]}
    result = _cleaner(from_document(document), decoder).clean(dicom_files.written(data), "0")
    after = opened(b"".join(result.chunks))
    assert after[0x00191002].value == 912
    assert 0x00191003 not in after  # text in a private element is never safe


def _cleaner(profile: Profile, decoder: Decoder) -> DicomCleaner:
    return DicomCleaner(HeaderCleaner(Plan(profile), Pseudonyms(KEY)), decoder)
