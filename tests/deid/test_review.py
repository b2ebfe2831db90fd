"""The sample: as large as its bound, over every stratum, with everything risky in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deid import corrections, pictures, review
from deid.dicom.clean import DicomCleaner
from policies.document import default_policy
from policies.errors import CannotRun
from synthetic import dicom_files

POLICY = default_policy().deid


def row(number: int, *, modality: str = "MG", vendor: str = "A", score: float | None = None,
        sop_class: str = dicom_files.MG) -> dict[str, Any]:  # fmt: skip
    box = {"x": 0, "y": 0, "width": 9, "height": 9, "score": score}
    return {
        "source": f"{number:064x}",
        "status": "written",
        "target": f"P/{number:06}.dcm",
        "kind": "dicom",
        "boxes": {} if score is None else {"text": [box]},
        "stratum": {"modality": modality, "vendor": vendor, "sop_class": sop_class},
    }


def test_the_rule_of_three() -> None:
    assert review.sample_size(0.95, 0.01) == 299
    assert review.bound(300) < 0.01 < review.bound(290)
    assert review.bound(0) == 1.0


def test_a_small_version_is_seen_whole_and_a_large_one_as_far_as_the_bound_asks() -> None:
    assert len(review.draw_sample([row(n) for n in range(100)], POLICY, 1)) == 100
    assert len(review.draw_sample([row(n) for n in range(5000)], POLICY, 1)) == 299


def test_the_draw_repeats_with_its_seed_and_differs_with_another() -> None:
    rows = [row(n) for n in range(2000)]
    drawn = [review.draw_sample(rows, POLICY, seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_every_stratum_and_everything_risky_is_in_it() -> None:
    rows = [row(n) for n in range(3000)]
    rows += [row(9001, vendor="rare")]
    rows += [row(9100 + n, sop_class=dicom_files.SC, modality="OT") for n in range(40)]
    rows += [row(9200 + n, modality="US") for n in range(40)]
    rows += [row(9300 + n, score=0.2) for n in range(40)]
    drawn = {each["target"] for each in review.draw_sample(rows, POLICY, 3)}
    for number in (9001, *range(9100, 9140), *range(9200, 9240), *range(9300, 9340)):
        assert f"P/{number:06}.dcm" in drawn


def test_quarantined_and_doubled_rows_are_not_drawn() -> None:
    held = {**row(1), "target": "", "status": "quarantined"}
    assert review.draw_sample([held, row(2), row(2)], POLICY, 1) == [row(2)]


@pytest.mark.parametrize(
    ("kinds", "decision"),
    [([], "pass"), (["clean", "extra"], "pass"), (["wrong"], "pass"), (["missed"], "fail"),
     (["clean", "bad-range"], "fail"), (["something else"], "fail")],
)  # fmt: skip
def test_a_missed_identifier_fails_the_version(kinds: list[str], decision: str) -> None:
    assert review.decide({"kind": kind} for kind in kinds) == decision


def test_before_and_after_are_drawn_and_marks_are_masked(
    tmp_path: Path, cleaner: DicomCleaner
) -> None:
    original = dicom_files.written(dicom_files.base())
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.dcm").write_bytes(original)
    published = tmp_path / "published" / "P"
    published.mkdir(parents=True)
    (published / "1.dcm").write_bytes(b"".join(cleaner.clean(original, "0").chunks))
    from deid.output import digest_of

    wanted = [
        {"name": "7", "source": digest_of(tmp_path / "src" / "a.dcm"), "target": "P/1.dcm"},
        {"name": "8", "source": "0" * 64, "target": "P/2.dcm"},
    ]
    facts = pictures.draw(tmp_path / "src", tmp_path / "published", wanted, tmp_path / "out")
    assert facts["7"] == {
        "width": 64,
        "height": 64,
        "same_size": True,
        "frames": [],
        "frame_count": 1,
    }
    assert facts["8"] == {"unseen": "missing"}
    for side in ("before", "after"):
        assert (tmp_path / "out" / f"7-{side}.png").read_bytes().startswith(b"\x89PNG")

    marks = [{"target": "P/1.dcm", "boxes": [{"x": 5, "y": 6, "width": 7, "height": 8}]},
             {"target": "P/none.dcm", "boxes": []}]  # fmt: skip
    assert corrections.mend(tmp_path / "published", marks, tmp_path / "mended") == ["P/1.dcm"]
    import pydicom

    before = pydicom.dcmread(published / "1.dcm")
    after = pydicom.dcmread(tmp_path / "mended" / "P" / "1.dcm")
    changed = before.pixel_array != after.pixel_array
    assert changed[6:14, 5:12].mean() > 0.9
    changed[6:14, 5:12] = False
    assert not changed.any()
    assert after.PatientID == before.PatientID and after.SOPInstanceUID == before.SOPInstanceUID
    assert np.unique(after.pixel_array[6:14, 5:12]).size == 1


def test_a_file_that_is_no_picture_says_so(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"nothing")
    with pytest.raises(CannotRun):
        review.picture(tmp_path / "x")


def test_a_draw_says_why_and_every_image_means_every_one() -> None:
    rows = [row(n) for n in range(3000)] + [row(9200 + n, modality="US") for n in range(40)]
    drawn = review.draw(rows, POLICY, 3)
    assert sum(not why for _row, why in drawn) == 299
    assert {why for _row, why in drawn} == {"", "ultrasound"}
    whole = review.draw(rows, POLICY, 3, every=True)
    assert [why for _row, why in whole] == ["every image"] * 3040


def _published(
    tmp_path: Path, cleaner: DicomCleaner, original: bytes, marks: list[dict[str, int]]
) -> str:
    """Clean and mask a file as an earlier round has; return the original's digest."""
    from deid.output import digest_of

    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.dcm").write_bytes(original)
    target = tmp_path / "first" / "P" / "1.dcm"
    target.parent.mkdir(parents=True)
    target.write_bytes(b"".join(cleaner.clean(original, "0").chunks))
    wanted = [{"target": "P/1.dcm", "boxes": marks}]
    assert corrections.mend(tmp_path / "first", wanted, tmp_path / "published") == ["P/1.dcm"]
    return digest_of(tmp_path / "src" / "a.dcm")


WRONG = {"x": 5, "y": 6, "width": 7, "height": 8}
RIGHT = {"x": 9, "y": 8, "width": 20, "height": 4}  # over a part of the wrong one


def test_a_wrong_box_is_taken_away_and_the_others_stay(
    tmp_path: Path, cleaner: DicomCleaner
) -> None:
    import pydicom

    original = dicom_files.written(dicom_files.base())
    digest = _published(tmp_path, cleaner, original, [WRONG, RIGHT])
    wanted = [{"target": "P/1.dcm", "source": digest, "boxes": [RIGHT], "wrong": [WRONG]}]
    args = (tmp_path / "published", wanted, tmp_path / "mended")
    assert corrections.mend(*args) == []  # without originals nothing is uncovered
    assert corrections.mend(*args, tmp_path / "src") == ["P/1.dcm"]
    after = pydicom.dcmread(tmp_path / "mended" / "P" / "1.dcm")
    truth = pydicom.dcmread(tmp_path / "src" / "a.dcm").pixel_array
    hidden = np.zeros(truth.shape, bool)
    hidden[8:12, 9:29] = True
    assert (after.pixel_array[~hidden] == truth[~hidden]).all()
    assert np.unique(after.pixel_array[hidden]).size == 1
    first = pydicom.dcmread(tmp_path / "published" / "P" / "1.dcm")
    del after.PixelData, first.PixelData
    assert after == first  # the header is the published one


def test_a_file_that_differs_elsewhere_is_not_uncovered(
    tmp_path: Path, cleaner: DicomCleaner
) -> None:
    original = dicom_files.written(dicom_files.base())
    digest = _published(tmp_path, cleaner, original, [WRONG, RIGHT])
    # The row of the report has lost the second box: taking the first away must not uncover it.
    wanted = [{"target": "P/1.dcm", "source": digest, "boxes": [], "wrong": [WRONG]}]
    args = (tmp_path / "published", wanted, tmp_path / "mended", tmp_path / "src")
    assert corrections.mend(*args) == []


def test_images_of_one_device_and_layout_share_a_name_that_says_nothing(
    cleaner: DicomCleaner,
) -> None:
    def layout(**changes: Any) -> str:
        data = dicom_files.base()
        data.ManufacturerModelName = "SELENIA"
        for name, value in changes.items():
            setattr(data, name, value)
        return cleaner.clean(dicom_files.written(data), "0").stratum["layout"]

    usual = layout()
    assert usual
    assert "SELENIA" not in usual
    assert layout(PatientName="OTHER^ONE", ProtocolName="x") == usual
    pixels = bytes(2 * 64 * 32)
    for change in (
        {"ManufacturerModelName": "OTHER"},
        {"Manufacturer": "OTHER"},
        {"Rows": 32, "PixelData": pixels},
        {"PhotometricInterpretation": "MONOCHROME1"},
    ):
        assert layout(**change) != usual, change


def test_header_differences_name_every_place_that_changed(cleaner: DicomCleaner) -> None:
    from pydicom import Dataset

    from deid.dicom import differences

    data = dicom_files.base()
    item = Dataset()
    item.ReferencedSOPInstanceUID = "1.2.3"
    item.ReferencedSOPClassUID = dicom_files.MG
    data.ReferencedImageSequence = [item]
    data.PatientWeight, data.OperatorsName = "61", dicom_files.NAME
    original = dicom_files.written(data)
    cleaned = b"".join(cleaner.clean(original, "0").chunks)
    found = {each["place"]: each for each in differences.of_files(original, cleaned)}
    assert found["(0010,0010)"]["before"] == dicom_files.NAME
    assert found["(0008,1140)[1].(0008,1155)"]["before"] == "1.2.3"
    assert found["(0008,1070)"]["keyword"] == "OperatorsName"
    assert found["(0012,0062)"]["state"] == "added"
    assert "(0028,0010)" not in found and "(7FE0,0010)" not in found
    assert not differences.of_files(cleaned, cleaned)
    assert dicom_files.NAME not in str([each["after"] for each in found.values()])


def test_a_photographs_fields_are_shown_and_frames_are_drawn_one_by_one() -> None:
    import io

    from PIL import Image

    from deid.dicom import picture

    exif = Image.Exif()
    exif[0x010F], exif[0x9C9D] = "CAMERA OF\x07ANN", b"\xff\xfe" * 9
    out = io.BytesIO()
    Image.new("RGB", (9, 9)).save(out, "JPEG", exif=exif, comment=b"A COMMENT")
    found = picture.metadata_of(out.getvalue())
    assert found["Make"] == "CAMERA OF␣ANN"
    assert found["comment"] == "A COMMENT"
    assert "exif" in found
    data = dicom_files.base()
    data.NumberOfFrames = 70
    data.PixelData = np.repeat(np.arange(70), 64 * 64).astype("<u2").tobytes()
    numbers, count, drawn = picture.frames_of(dicom_files.written(data), most=32)
    assert (count, len(numbers), len(drawn), numbers[0], numbers[-1]) == (70, 32, 32, 1, 70)
    assert picture.frames_of(dicom_files.written(dicom_files.base()), most=32) == ([], 1, [])
