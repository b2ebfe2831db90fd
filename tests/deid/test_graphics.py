"""Presentation states: words are cleaned, lines stay numbers, layers and references hold."""

from __future__ import annotations

import hashlib
import io

import pydicom
import pytest
from pydicom import Dataset
from pydicom.sequence import Sequence

from deid.decoding import Decoder
from deid.dicom.clean import DicomCleaner, Result
from deid.dicom.header import HeaderCleaner
from deid.dicom.plan import Plan
from deid.profile import from_document
from deid.quarantine import Quarantined
from deid.vault import Pseudonyms
from synthetic.dicom_files import MG, NAME, PREFIX, SECRET, base, raw, written
from tests.deid.conftest import KEY
from tests.deid.reports import code

STATE = "1.2.840.10008.5.1.4.1.1.11.1"


@pytest.fixture(scope="module")
def graphics(decoder: Decoder) -> DicomCleaner:
    """A cleaner with the option, as an owner's profile may choose it."""
    profile = from_document(
        {
            "name": "own",
            "options": ["retain_modified_dates", "clean_descriptors", "clean_graphics"],
        }
    )
    return DicomCleaner(HeaderCleaner(Plan(profile), Pseudonyms(KEY)), decoder)


def run(cleaner: DicomCleaner, file: bytes) -> tuple[Dataset, bytes, Result]:
    result = cleaner.clean(file, hashlib.sha256(file).hexdigest())
    output = b"".join(result.chunks)
    return pydicom.dcmread(io.BytesIO(output)), output, result


def words(text: str) -> Dataset:
    item = Dataset()
    item.UnformattedTextValue = text
    item.AnchorPointAnnotationUnits, item.AnchorPoint = "PIXEL", [10.0, 20.0]
    item.AnchorPointVisibility = "Y"
    return item


def line(kind: str, *numbers: float) -> Dataset:
    item = Dataset()
    item.GraphicAnnotationUnits, item.GraphicDimensions = "PIXEL", 2
    item.NumberOfGraphicPoints, item.GraphicData = len(numbers) // 2, list(numbers)
    item.GraphicType, item.GraphicFilled = kind, "N"
    return item


def annotation(layer: str, *texts: Dataset, lines: tuple[Dataset, ...] = ()) -> Dataset:
    item = Dataset()
    item.GraphicLayer = layer
    if texts:
        item.TextObjectSequence = Sequence(texts)
    if lines:
        item.GraphicObjectSequence = Sequence(lines)
    return item


def state(*annotations: Dataset) -> Dataset:
    data = base(STATE, "PR")
    for keyword in ("PixelData", "Rows", "Columns", "SamplesPerPixel", "BitsAllocated",
                    "PhotometricInterpretation", "BitsStored", "HighBit", "PixelRepresentation",
                    "ImageType", "BodyPartExamined"):  # fmt: skip
        delattr(data, keyword)
    data.SOPInstanceUID, data.SeriesInstanceUID = f"{PREFIX}.11", f"{PREFIX}.12"
    data.ContentLabel, data.ContentDescription = SECRET, f"{SECRET} left breast"
    data.ContentCreatorName = NAME
    data.PresentationCreationDate, data.PresentationCreationTime = "20190807", "101112"
    series, image = Dataset(), Dataset()
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = MG, f"{PREFIX}.1"
    series.SeriesInstanceUID = f"{PREFIX}.3"
    series.ReferencedImageSequence = Sequence([image])
    data.ReferencedSeriesSequence = Sequence([series])
    data.GraphicAnnotationSequence = Sequence(annotations)
    layers = []
    for number, name in enumerate(dict.fromkeys(str(each.GraphicLayer) for each in annotations)):
        layer = Dataset()
        layer.GraphicLayer, layer.GraphicLayerOrder = name, number + 1
        layer.GraphicLayerDescription = f"{SECRET} mass"
        layers.append(layer)
    data.GraphicLayerSequence = Sequence(layers)
    return data


def test_words_are_cleaned_and_lines_stay(graphics: DicomCleaner) -> None:
    ellipse = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)
    data = state(
        annotation(SECRET, words(f"left mass {SECRET}"), words(SECRET)),
        annotation("READER B", words("R"), lines=(line("ELLIPSE", *ellipse),)),
        annotation(SECRET, words(SECRET)),
    )
    file = written(data)
    assert SECRET.encode() in file and NAME.encode() in file
    kept, output, result = run(graphics, file)
    assert SECRET.encode() not in output and NAME.encode() not in output
    first, second = kept.GraphicAnnotationSequence
    assert [item.UnformattedTextValue for item in first.TextObjectSequence] == ["left mass"]
    assert list(second.GraphicObjectSequence[0].GraphicData) == list(ellipse)
    assert second.GraphicObjectSequence[0].GraphicType == "ELLIPSE"
    assert [item.GraphicLayer for item in kept.GraphicLayerSequence] == [
        first.GraphicLayer, second.GraphicLayer,
    ] == ["LAYER1", "LAYER2"]  # fmt: skip
    assert kept.ContentDescription == "left breast" and kept.ContentLabel
    assert result.review == ""
    claimed = {item.CodeValue for item in kept.DeidentificationMethodCodeSequence}
    assert "113103" in claimed and "113104" not in claimed


def test_a_state_still_belongs_to_its_image(graphics: DicomCleaner) -> None:
    picture, _, _ = run(graphics, written(base()))
    kept, _, _ = run(graphics, written(state(annotation("A", words("left")))))
    shown = kept.ReferencedSeriesSequence[0]
    assert shown.SeriesInstanceUID == picture.SeriesInstanceUID
    assert shown.ReferencedImageSequence[0].ReferencedSOPInstanceUID == picture.SOPInstanceUID
    assert kept.PresentationCreationDate == picture.StudyDate != "20190807"


@pytest.mark.parametrize("kind", ["POLYLINE", "INTERPOLATED"])
def test_lines_drawn_by_hand_are_seen_by_a_person(kind: str, graphics: DicomCleaner) -> None:
    drawn = annotation("A", lines=(line(kind, 1.0, 2.0, 3.0, 4.0, 9.0, 9.0),))
    kept, _, result = run(graphics, written(state(drawn)))
    assert kept.GraphicAnnotationSequence[0].GraphicObjectSequence[0].GraphicType == kind
    assert result.review == "graphics not searched"


@pytest.mark.parametrize(
    "item",
    [
        line("CIRCLE", 1.0, 2.0, 3.0, 4.0, 5.0, 6.0),
        line("POINT", 1.0, 2.0, 3.0, 4.0),
        line(SECRET, 1.0, 2.0),
    ],
)
def test_a_graphic_holds_what_its_kind_has(item: Dataset, graphics: DicomCleaner) -> None:
    data = state(annotation("A", words("left"), lines=(item,)))
    kept, output, _ = run(graphics, written(data))
    assert "GraphicObjectSequence" not in kept.GraphicAnnotationSequence[0]
    assert SECRET.encode() not in output


def test_letters_as_points_and_in_styles_go(graphics: DicomCleaner) -> None:
    item = line("POLYLINE", 1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    styled = words("left")
    style = Dataset()
    style.FontName, style.CSSFontName = SECRET, SECRET
    styled.TextStyleSequence = Sequence([style])
    compound = Dataset()
    compound.CompoundGraphicType, compound.CompoundGraphicInstanceID = SECRET, 1
    note = annotation("A", styled, lines=(item,))
    note.CompoundGraphicSequence = Sequence([compound])
    file = written(state(note))
    plain = raw(0x0070, 0x0022, b"FL", bytes(24))[:8]
    place = file.index(plain) + 8
    letters = (SECRET * 3).encode()
    file = file[:place] + letters + file[place + 24 :]
    kept, output, _ = run(graphics, file)
    assert SECRET.encode() in file and SECRET.encode() not in output
    assert "GraphicObjectSequence" not in kept.GraphicAnnotationSequence[0]
    assert kept.GraphicAnnotationSequence[0].TextObjectSequence[0].UnformattedTextValue == "left"


def test_overlays_curves_and_what_names_them_go(graphics: DicomCleaner) -> None:
    data = state(annotation("A", words("left")))
    data.ShutterShape, data.ShutterOverlayGroup = ["BITMAP", "CIRCULAR"], 0x6000
    data.ShutterPresentationValue = 0
    data.CenterOfCircularShutter, data.RadiusOfCircularShutter = [5, 5], 4
    data.add_new(0x60003000, "OW", SECRET.encode())
    data.add_new(0x60004000, "LT", SECRET)
    data.add_new(0x60001500, "LO", SECRET)
    data.add_new(0x50003000, "OW", SECRET.encode())
    data.add_new(0x60001001, "CS", SECRET)
    kept, output, _ = run(graphics, written(data))
    assert SECRET.encode() not in output
    assert kept.ShutterShape == "CIRCULAR" and "ShutterOverlayGroup" not in kept
    assert not any(element.tag.group in (0x5000, 0x6000) for element in kept)


def test_a_state_of_which_no_annotation_is_left_still_shows_the_image(
    graphics: DicomCleaner,
) -> None:
    kept, output, _ = run(graphics, written(state(annotation("A", words(SECRET)))))
    assert "GraphicAnnotationSequence" not in kept and SECRET.encode() not in output
    assert kept.ReferencedSeriesSequence


@pytest.mark.parametrize("end", ["6", "7", "8", "9", "10", "11", "99"])
def test_states_of_other_forms_are_held(end: str, graphics: DicomCleaner) -> None:
    data = state(annotation("A", words("left")))
    data.SOPClassUID = f"1.2.840.10008.5.1.4.1.1.11.{end}"
    with pytest.raises(Quarantined, match="presentation-state"):
        run(graphics, written(data))


def test_without_their_option_states_and_reports_are_held(
    graphics: DicomCleaner, cleaner: DicomCleaner
) -> None:
    data = state(annotation("A", words("left")))
    with pytest.raises(Quarantined, match="presentation-state"):
        run(cleaner, written(data))
    data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.33"
    data.ConceptNameCodeSequence = code("121071")
    with pytest.raises(Quarantined, match="structured-report"):
        run(graphics, written(data))
