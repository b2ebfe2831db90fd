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
