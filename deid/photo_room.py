"""The decoder process's side of a photograph: bytes in, the cleaned picture and its boxes out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deid.photos import PhotoPolicy
    from deid.pixels.interface import Detector

# By their first bytes; what is not named here is no picture that this program cleans.
SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", ".jpg"),
    (b"\x89PNG\r\n\x1a\n", ".png"),
    (b"II*\0", ".tif"),
    (b"MM\0*", ".tif"),
    (b"GIF8", ".gif"),
    (b"BM", ".bmp"),
)


def suffix_of(picture: bytes | memoryview) -> str:
    """The usual suffix of a picture by its signature, empty for anything else."""
    data = bytes(picture[:16])
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
    from deid.photos import PhotoPolicy, clean_photo

    policy = PhotoPolicy(text=head["text"], faces=head["faces"], plates=head["plates"])
    result = clean_photo(body, detectors=_detectors(policy), policy=policy)
    boxes = [
        [box.kind, int(box.x), int(box.y), int(box.width), int(box.height), float(box.score)]
        for box in result.boxes
    ]
    answer = {
        "boxes": boxes,
        "actions": dict(result.actions),
        "suffix": result.suffix,
        "review": result.needs_review,
    }
    return answer, result.data


def _detectors(policy: PhotoPolicy) -> list[Detector]:
    chosen: list[Detector] = []
    if policy.text:
        from deid.pixels.text import default_text_detector

        chosen.append(default_text_detector(1))
    if policy.faces:
        from deid.pixels.faces import default_face_detector

        chosen.append(default_face_detector(1))
    return chosen
