"""The decoder process's side of a photograph: bytes in, the cleaned picture and its boxes out."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from deid.quarantine import Quarantined

# By their first bytes; what is not named here is no picture that this program cleans.
SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", ".jpg"),
    (b"\x89PNG\r\n\x1a\n", ".png"),
    (b"II*\0", ".tif"),
    (b"MM\0*", ".tif"),
    (b"GIF8", ".gif"),
    (b"BM", ".bmp"),
)


def suffix_of(data: bytes) -> str:
    """The usual suffix of a picture by its signature, empty for anything else."""
    for signature, suffix in SIGNATURES:
        if data.startswith(signature):
            return suffix
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return ".webp"
    if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"mif1", b"heim", b"avif"):
        return ".heic"
    return ""


def clean_bytes(head: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
    """Clean one photograph; ``head`` says what to look for: text, faces, plates."""
    from deid.photos import clean_photo

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / f"in{suffix_of(body)}"
        source.write_bytes(body)
        target = Path(folder) / f"out{head['suffix']}"
        result = clean_photo(source, target, detectors=_detectors(head), policy=None)
        source.unlink()
        written = [path for path in Path(folder).iterdir() if path.name.startswith("out")]
        if len(written) != 1:
            raise Quarantined("cannot-decode")
        boxes = [
            [box.kind, int(box.x), int(box.y), int(box.width), int(box.height), float(box.score)]
            for box in result.boxes
        ]
        answer = {
            "boxes": boxes,
            "actions": {str(name): str(what) for name, what in dict(result.actions).items()},
            "suffix": written[0].suffix,
        }
        return answer, written[0].read_bytes()


def _detectors(head: dict[str, Any]) -> list[Any]:
    chosen: list[Any] = []
    if head.get("text"):
        from deid.pixels.text import default_text_detector

        chosen.append(default_text_detector(1))
    if head.get("faces"):
        from deid.pixels.faces import default_face_detector

        chosen.append(default_face_detector(1))
    return chosen
