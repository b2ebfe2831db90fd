"""The comparison with others' tools: it sees what is there, counts rightly, and the page is its."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest

from bench import burned_in, clean_kept, compare, leaks, peers, retention
from policies.errors import CannotRun
from synthetic import dicom_files


@pytest.mark.parametrize("encoding", leaks.ENCODINGS)
def test_a_value_is_found_in_every_encoding_and_case(encoding: str) -> None:
    search = leaks.Search((b"HWANGBO",))
    assert search.finds(b"\0" + "Hwangbo".encode(encoding) + b"\0")
    assert not search.finds(b"\0" + "Hwangb0".encode(encoding) + b"\0")


def test_a_korean_value_is_found_however_it_was_planted() -> None:
    for planted in ("utf-8", "cp949"):
        search = leaks.Search(("황보명희".encode(planted),))
        for written in ("utf-8", "euc-kr", "utf-16-le"):
            assert search.finds(b"\0" + "황보명희".encode(written))


def test_a_value_in_deflated_data_is_found() -> None:
    data = dicom_files.base()
    data.PatientComments = dicom_files.SECRET
    file = dicom_files.written(data, "1.2.840.10008.1.2.1.99")
    assert dicom_files.SECRET.encode() not in file
    assert leaks.Search((dicom_files.SECRET.encode(),)).finds(file)


def test_every_place_shows_its_value_in_its_own_file_and_none_is_counted_twice() -> None:
    places = leaks.places()  # raises where one does not show its value
    assert len(places) >= 180
    assert len({each.name for each in places}) == len(places)
    assert {each.group for each in places} == set(leaks.GROUPS)


def test_ink_is_gone_when_it_is_blanked_and_not_before() -> None:
    place = next(each for each in burned_in.places() if each.name == "colour")
    data = pydicom.dcmread(io.BytesIO(place.file))
    pixels = data.pixel_array.copy()
    pixels[:20] = 0  # beside the name
    data.PixelData = pixels.tobytes()
    assert place.survives(dicom_files.written(data))
    pixels[:60] = 0
    data.PixelData = pixels.tobytes()
    assert not place.survives(dicom_files.written(data))
    data.Rows = 128  # what cannot be compared is not shown to be clean
    assert place.survives(dicom_files.written(data))


def test_a_tool_that_fails_or_writes_nothing_is_said(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    target.mkdir()
    for name in ("broken", "ended", "good", "nothing"):
        (source / name).write_bytes(b"x")

    def clean(path: Path, out: Path) -> None:
        if path.name != "nothing":
            out.write_bytes(path.read_bytes())
        if path.name == "broken":
            raise ValueError
        if path.name == "ended":
            raise SystemExit(1)

    answers = clean_kept.each(clean, source, target)
    assert answers == {
        "broken": "failed: ValueError",
        "ended": "failed: SystemExit",
        "good": "written",
        "nothing": "nothing written",
    }
    assert [path.name for path in target.iterdir()] == ["good"]


def study() -> dict[str, bytes]:
    """Two images of a patient, the second of which names the first."""
    files = {}
    for number, day in enumerate(("20200228", "20200301")):
        data = dicom_files.base()
        data.SOPInstanceUID = f"{dicom_files.PREFIX}.{10 + number}"
        data.StudyDate = data.PatientBirthDate = day
        data.ViewPosition, data.ImageLaterality, data.PixelSpacing = "MLO", "L", [0.5, 0.5]
        if number:
            item = pydicom.Dataset()
            item.ReferencedSOPInstanceUID = f"{dicom_files.PREFIX}.10"
            data.ReferencedImageSequence = [item]
        files[str(number)] = dicom_files.written(data)
    return files


def changed(files: dict[str, bytes], **attributes: object) -> dict[str, bytes]:
    """The same with attributes of the second file changed."""
    data = pydicom.dcmread(io.BytesIO(files["1"]))
    for keyword, value in attributes.items():
        setattr(data, keyword, value)
    return {**files, "1": dicom_files.written(data)}


def test_what_is_unchanged_is_all_kept() -> None:
    files = study()
    shares = retention.measure(files, files)
    assert shares["view"].all == shares["laterality"].all == 2
    assert shares["references to files of the set resolved"].all == 1
    assert shares["intervals between dates"].all == 1
    for share in shares.values():
        assert share.held == share.all > 0


@pytest.mark.parametrize(
    ("what", "attributes"),
    [
        ("view", {"ViewPosition": "CC"}),
        ("laterality", {"ImageLaterality": ""}),
        ("modality", {"Modality": "OT"}),
        ("geometry", {"PixelSpacing": [0.5, 0.6]}),
        ("intervals between dates", {"StudyDate": "20200309", "PatientBirthDate": "20200309"}),
        ("UIDs of several files consistent", {"StudyInstanceUID": "1.2.3"}),
        ("references to files of the set resolved", {"ReferencedImageSequence": []}),
        ("pictures with every sample unchanged", {"PixelData": bytes(2 * 64 * 64)}),
    ],
)
def test_what_is_lost_is_counted(what: str, attributes: dict[str, object]) -> None:
    files = study()
    share = retention.measure(files, changed(files, **attributes))[what]
    assert share.held < share.all


def test_two_uids_that_became_one_are_not_consistent() -> None:
    files = study()
    for name, file in list(files.items()):
        data = pydicom.dcmread(io.BytesIO(file))
        data.SeriesInstanceUID = data.StudyInstanceUID = "1.2.3"
        files[name] = dicom_files.written(data)
    share = retention.measure(study(), files)["UIDs of several files consistent"]
    assert share.held == 1 < share.all  # the first image's, which the second one names


def test_one_sample_is_seen() -> None:
    files = study()
    data = pydicom.dcmread(io.BytesIO(files["1"]))
    pixels = np.frombuffer(data.PixelData, "<u2").copy()
    pixels[5] ^= 1
    shares = retention.measure(files, changed(files, PixelData=pixels.tobytes()))
    assert shares["samples unchanged"].all - shares["samples unchanged"].held == 1
    assert shares["pictures with every sample unchanged"].held == 1


def test_only_the_marked_block_of_the_page_is_written() -> None:
    begin, end = compare.BEGIN.format(name="leaks"), compare.END.format(name="leaks")
    page = f"before\n{begin}\nold\n{end}\nafter\n"
    assert compare.put(page, "leaks", "new") == f"before\n{begin}\n\nnew\n\n{end}\nafter\n"
    with pytest.raises(CannotRun):
        compare.put("no block", "leaks", "new")


def test_the_page_has_every_place_and_names_every_version() -> None:
    page = compare.PAGE.read_text(encoding="utf-8")
    for each in leaks.places():
        assert f"| {compare.words(each.name)} | {each.group} |" in page
    for pin in peers.PINNED[:2] + tuple(pin for pin in peers.PINNED if pin.startswith("deid=")):
        assert pin.replace("==", " ") in page
