"""The search of the acceptance test sees through what a leak could hide in."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
import zlib
from base64 import b64encode

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, generate_uid

from synthetic.planted import Planted
from synthetic.search import Search
from tests.portal.layers import layers

SECRET = "Hong^Gildong"
HANGUL = "홍길동전"


def packed(content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", content)
    return out.getvalue()


def png(content: bytes) -> bytes:
    """Return a picture whose rows hold the bytes."""
    rows = np.frombuffer(content.ljust(400, b"\0"), np.uint8).reshape(20, 20)
    out = io.BytesIO()
    notes = PngImagePlugin.PngInfo()
    Image.fromarray(rows, "L").save(out, "PNG", pnginfo=notes)
    return out.getvalue()


def noted(content: bytes) -> bytes:
    """Return a picture with a compressed comment."""
    out = io.BytesIO()
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Comment", content.decode(), zip=True)
    Image.new("L", (9, 9)).save(out, "PNG", pnginfo=notes)
    return out.getvalue()


def deflated(content: bytes) -> bytes:
    """Return a DICOM file whose elements are compressed."""
    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = generate_uid()
    file.PatientComments = content.decode()
    out = io.BytesIO()
    file.save_as(out, enforce_file_format=True)
    return out.getvalue()


def hexed(content: bytes) -> bytes:
    """Return hexadecimal digits that begin in the middle of a run."""
    return b"abc" + content.hex().encode()


@pytest.mark.parametrize(
    "hide",
    [packed, gzip.compress, zlib.compress, png, noted, deflated, b64encode, hexed],
    ids=lambda hide: hide.__name__,
)
def test_what_is_compressed_is_seen(hide) -> None:  # type: ignore[no-untyped-def]
    search = Search([Planted(SECRET, "", "")])
    secret = b"some words before " + SECRET.encode() + b" and after it"
    hidden = b"head " + hide(secret) if hide in (gzip.compress, zlib.compress) else hide(secret)
    assert not search.found(hidden)
    assert any(search.found(layer) for layer in layers(hidden))
    nested = packed(hide(secret))
    assert any(search.found(layer) for layer in layers(nested))


def test_escapes_of_json_are_seen() -> None:
    search = Search([Planted(HANGUL, "", "")])
    for text in (json.dumps({"a": HANGUL}), f"log: {json.dumps(HANGUL)}!"):
        assert any(search.found(layer) for layer in layers(text.encode()))
