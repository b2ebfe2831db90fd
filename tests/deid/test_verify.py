"""What ``deid verify`` finds: each leak planted once, spelled and wrapped as others would."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from pydicom.uid import DeflatedExplicitVRLittleEndian

from deid import layers
from deid.dicom.clean import DicomCleaner
from deid.identifying import originals
from deid.needles import Needles
from deid.verify import Verification, verify
from synthetic import dicom_files
from synthetic.dicom_files import KOREAN, NAME, NUMBER, SECRET


@pytest.fixture
def src(tmp_path: Path) -> Path:
    folder = tmp_path / "src" / "KWONTAEK_export"
    folder.mkdir(parents=True)
    data = dicom_files.base()
    data.SpecificCharacterSet = "ISO_IR 192"
    data.PatientName = f"Hwangbo^Myunghee=黃甫^明熙={KOREAN[:2]}^{KOREAN[2:]}"
    data.InstitutionName = SECRET
    data.private_block(0x0019, "MAKERQZ", create=True).add_new(1, "LO", "PRIVATEQZ77")
    item = pydicom.Dataset()
    item.PersonName = "Seongmin^Ok"
    data.RequestAttributesSequence = [item]
    (folder / "a.dcm").write_bytes(dicom_files.written(data))
    (folder / "broken.dcm").write_bytes(dicom_files.written(data)[:900])
    (folder / "hostile.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 4000)
    photo = Image.fromarray(np.zeros((32, 32, 3), np.uint8))
    exif = Image.Exif()
    exif[0x013B] = "Artist Nomyeong"
    photo.save(folder / "p.jpg", exif=exif, xmp=b"<x:xmpmeta><a b='Xmpname Q'>Hidden Janghye</a>")
    (folder / "labels.csv").write_text("file,subject,label\na.dcm,771-234-56,0\n")
    return tmp_path / "src"


def picture(draw: Callable[[ImageDraw.ImageDraw], object] | None = None) -> Image.Image:
    grey = np.random.default_rng(1).integers(90, 110, (160, 240)).astype(np.uint8)
    image = Image.fromarray(grey).convert("RGB")
    if draw is not None:
        draw(ImageDraw.Draw(image))
    return image


def png(image: Image.Image, **options: object) -> bytes:
    target = io.BytesIO()
    image.save(target, "PNG", **options)  # type: ignore[arg-type]
    return target.getvalue()


def with_text(text: str) -> bytes:
    info = PngInfo()
    info.add_text("k", text, zip=True)
    return png(picture(), pnginfo=info)


def jpeg(comment: bytes) -> bytes:
    target = io.BytesIO()
    picture().save(target, "JPEG", comment=comment)
    return target.getvalue()


def zipped(name: str, content: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return target.getvalue()


NOISE = np.random.default_rng(5).integers(0, 256, 5000).astype(np.uint8).tobytes()
LEAKS: dict[str, bytes] = {
    "utf8": f"x {KOREAN}".encode(),
    "euc-kr": NOISE + KOREAN.encode("euc-kr"),
    "iso-2022-kr": b"words " + KOREAN.encode("iso2022_kr"),
    "utf-16-le": NOISE + "Hwangbo Myunghee".encode("utf-16-le"),
    "utf-16-be": NOISE + "myunghee".encode("utf-16-be"),
    "other order": b"for Myunghee Hwangbo",
    "part": b"Dr HWANGBO said",
    "underscored": NOISE + b"hwangbo_myunghee",
    "number": NOISE + NUMBER.encode(),
    "hexadecimal": NUMBER.encode().hex().encode(),
    "gzip": gzip.compress(f"..{NAME}..".encode()),
    "zlib in noise": NOISE + zlib.compress(b"of HWANGBO^MYUNGHEE " * 3),
    "zip": zipped("x", NOISE + NUMBER.encode()),
    "zip name": zipped(f"{NUMBER}.dcm", b""),
    "gzip in zip": zipped("x", gzip.compress(SECRET.encode() * 2)),
    "json": json.dumps({"a": KOREAN}).encode(),
    "address": b"GET /?q=%EC%B2%AD%ED%99%A9%EB%B3%B4%EB%AA%85%ED%9D%AC",
    "entities": "".join(f"&#{ord(each)};" for each in KOREAN).encode(),
    "day": b"born 1977-03-15",
    "korean day": "1977년 3월 15일".encode("cp949"),
    "month": b"15-MAR-1977",
    "private": NOISE + b"PRIVATEQZ77",
    "nested": b"by Ok Seongmin",
    "folder": NOISE + b"KWONTAEK_export",
    "subject": b"771-234-56,0",
    "exif": NOISE + b"Artist Nomyeong",
    "xmp": NOISE + b"Hidden Janghye",
    "uid": NOISE + f"{dicom_files.PREFIX}.2".encode(),
    "png text": with_text(f"of {NAME}"),
    "png pixels": png(Image.frombytes("L", (64, 1), SECRET.encode() * 8)),
    "jpeg comment": jpeg(f"{SECRET}".encode()),
} | {
    f"base64 at {lead}": base64.b64encode(b"x" * lead + NAME.encode() + b"behind it")
    for lead in range(3)
}  # fmt: skip


def run(src: Path, dst: Path, **options: object) -> Verification:
    return verify(dst, src, pictures=0, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("leak", LEAKS)
def test_a_leak_is_found_and_its_value_never_said(leak: str, src: Path, tmp_path: Path) -> None:
    dst = tmp_path / "dst"
    dst.mkdir()
    (dst / "ok.bin").write_bytes(NOISE)
    (dst / "out.bin").write_bytes(LEAKS[leak])
    result = run(src, dst)
    assert not result.held
    assert {finding.file for finding in result.findings} == {"out.bin"}
    said = json.dumps(result.as_mapping(), ensure_ascii=False).lower()
    for secret in ("hwangbo", "myunghee", KOREAN, "seongmin", SECRET.lower(), "kwontaek", "janghye",
                   "nomyeong", "234-56", "7712345", "77-03", dicom_files.PREFIX):  # fmt: skip
        assert secret not in said


def test_clean_files_hold_and_what_proves_nothing_is_counted(src: Path, tmp_path: Path) -> None:
    dst = tmp_path / "dst"
    dst.mkdir()
    (dst / "a.bin").write_bytes(NOISE * 100)
    (dst / "b.jpg").write_bytes(jpeg(b""))
    (dst / "c.png").write_bytes(png(picture()))
    result = run(src, dst)
    assert result.held, result.findings
    assert result.inputs == 5 and result.unread >= 1
    assert result.short and result.common and result.values > 10


def test_a_name_that_identifies_is_not_repeated(src: Path, tmp_path: Path) -> None:
    dst = tmp_path / "dst"
    (dst / "HWANGBO_MYUNGHEE").mkdir(parents=True)
    (dst / "HWANGBO_MYUNGHEE" / "1.bin").write_bytes(b"nothing")
    result = run(src, dst)
    assert [finding.file for finding in result.findings] == ["file 1 of 1"] * len(result.findings)
    assert not result.held and "HWANGBO" not in json.dumps(result.as_mapping())


def test_a_deflated_output_is_unfolded(src: Path, tmp_path: Path, cleaner: DicomCleaner) -> None:
    dst = tmp_path / "dst"
    dst.mkdir()
    original = src / "KWONTAEK_export" / "a.dcm"
    chunks = cleaner.clean(original.read_bytes(), "0").chunks
    for secret in ("", SECRET):
        data = pydicom.dcmread(io.BytesIO(b"".join(chunks)))
        data.ImageComments = f"about {secret}"
        data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        data.save_as(dst / "a.dcm")
        assert SECRET.encode() not in (dst / "a.dcm").read_bytes()
        assert run(src, dst).held == (not secret)


def test_a_day_of_somebody_in_a_moved_date_is_no_leak_but_elsewhere_it_is(
    src: Path, tmp_path: Path, cleaner: DicomCleaner
) -> None:
    dst = tmp_path / "dst"
    dst.mkdir()
    original = (src / "KWONTAEK_export" / "a.dcm").read_bytes()
    data = pydicom.dcmread(io.BytesIO(b"".join(cleaner.clean(original, "0").chunks)))
    data.StudyDate = "19770315"
    data.save_as(dst / "a.dcm")
    result = run(src, dst)
    assert result.held and result.ambiguous == 1
    data.ImageComments = "on 19770315"
    data.save_as(dst / "a.dcm")
    assert not run(src, dst).held


def test_a_date_that_did_not_move_is_found_with_the_report(
    src: Path, tmp_path: Path, cleaner: DicomCleaner
) -> None:
    dst, report = tmp_path / "dst", tmp_path / "report.jsonl"
    dst.mkdir()
    original = (src / "KWONTAEK_export" / "a.dcm").read_bytes()
    data = pydicom.dcmread(io.BytesIO(b"".join(cleaner.clean(original, "0").chunks)))
    digest = __import__("hashlib").sha256(original).hexdigest()
    row = {"source": digest, "status": "written", "target": "a.dcm"}
    report.write_text(json.dumps(row) + "\n")
    data.save_as(dst / "a.dcm")
    assert run(src, dst, report_path=report).held
    data.StudyDate = "20190807"
    data.save_as(dst / "a.dcm")
    assert run(src, dst).held
    found = run(src, dst, report_path=report).findings
    assert [(each.where, each.rule) for each in found] == [
        ("00080020", "date of its own original, not moved")
    ]


def test_text_left_in_pixels_is_seen_again(src: Path, tmp_path: Path) -> None:
    dst = tmp_path / "dst"
    dst.mkdir()
    font = ImageFont.load_default(24)
    clean = png(picture(lambda pen: pen.rectangle((20, 20, 200, 60), fill=0)))
    (dst / "clean.png").write_bytes(clean)
    result = verify(dst, src)
    assert result.held and (result.pictures, result.all_pictures) == (1, 1)
    text = png(picture(lambda pen: pen.text((20, 20), "LEE 1977", fill=(255, 255, 255), font=font)))
    (dst / "text.png").write_bytes(text)
    result = verify(dst, src)
    assert {doubt.file for doubt in result.doubts} == {"text.png"}
    assert result.held and "looks like text" in json.dumps(result.as_mapping())
    data = dicom_files.base()
    data.PatientIdentityRemoved, data.PatientName = "YES", data.PatientID
    grey = np.asarray(Image.open(io.BytesIO(text)).convert("L"))
    data.Rows, data.Columns, data.PixelData = *grey.shape, grey.astype("<u2").tobytes()
    (dst / "text.dcm").write_bytes(dicom_files.written(data))
    found = verify(dst).findings
    assert found and {(each.file, each.rule) for each in found} == {("text.dcm", "looks like text")}
    assert verify(dst, src, pictures=1).pictures == 1


def test_more_than_may_be_unfolded_is_said(
    src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers.Budget, "__init__", lambda self: self.__dict__.update(
        left=1 << 20, spent=False))  # fmt: skip
    dst = tmp_path / "dst"
    dst.mkdir()
    (dst / "bomb.gz").write_bytes(gzip.compress(bytes(64 << 20)))
    assert any("unfolded" in finding.rule for finding in run(src, dst).findings)


def test_values_are_looked_for_in_several_passes_alike(
    src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dst = tmp_path / "dst"
    dst.mkdir()
    (dst / "out.bin").write_bytes(b" ".join([LEAKS["number"], LEAKS["uid"], LEAKS["private"]]))
    whole = run(src, dst)
    monkeypatch.setattr("deid.needles.BATCH", 3)
    steps: list[tuple[int, int]] = []
    many = run(src, dst, progress=lambda done, total: steps.append((done, total)))
    assert many.findings == whole.findings and many.values == whole.values
    assert steps[-1][0] == steps[-1][1] == len(steps) > 3


def test_a_value_over_the_edge_of_a_block_is_found(src: Path, tmp_path: Path) -> None:
    dst = tmp_path / "dst"
    dst.mkdir()
    for start in (layers.BLOCK - 4, layers.BLOCK, 2 * layers.BLOCK - 1):
        (dst / "big.bin").write_bytes(bytes(start) + NUMBER.encode() + bytes(99))
        found = {each.where for each in run(src, dst).findings}
        assert found == {f"file at byte {start}"}


def test_originals_are_listed_by_kind(src: Path) -> None:
    found = originals(src)
    kinds = {found.values[value] for value in found.values}
    assert {"name", "UID", "date", "text", "private element", "file name", "identifier",
            "photograph's metadata"} <= kinds  # fmt: skip


def test_digits_inside_longer_numbers_and_short_hits_in_pixels_say_nothing() -> None:
    sought = Needles({"19770315": "date", "Minsu": "name"})
    assert not list(sought.found(b"2.25.119770315882"))
    assert list(sought.found(b"on 19770315."))
    assert list(sought.found(b"of Minsu.")) and not list(sought.found(b"xMinsux"))
    assert not list(sought.found(b"of Minsu.", least=7))
    assert not list(Needles({}).found(struct.pack("<I", 7)))


def test_what_is_no_file_and_a_name_that_is_no_text_are_found_too(
    src: Path, tmp_path: Path
) -> None:
    dst = tmp_path / "dst"
    dst.mkdir()
    (dst / "plain.txt").write_text("nothing")
    assert verify(dst, src).held
    (dst / "link").symlink_to(src)
    (dst / "beside.dcm").symlink_to(src / "KWONTAEK_export" / "a.dcm")
    (dst / "nowhere").symlink_to("nowhere")
    os.mkfifo(dst / "pipe")
    (dst / "empty" / "Seongmin Ok").mkdir(parents=True)
    for name in (b"\xff\xfe", b"\xff Hwangbo Myunghee"):
        (dst / os.fsdecode(name)).write_text("nothing")
    result = verify(dst, src)
    assert result.files == 3
    links = {
        each.file for each in result.findings if each.rule == "a link or a device, and no file"
    }
    assert links == {"link", "beside.dcm", "nowhere", "pipe"}
    named = [each for each in result.findings if each.where == "name"]
    assert len({each.file for each in named}) == 2 and len(result.findings) == 4 + len(named)
    assert not any("Myunghee" in each.file or "Seongmin" in each.file for each in result.findings)
