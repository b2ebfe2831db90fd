"""The decoder process's side of a photograph or a video: bytes in, what is cleaned out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deid.photo_policy import PhotoPolicy
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


# ISO 23008-12: pictures and sequences of pictures in HEVC, and such whose coding stands elsewhere.
HEIF = frozenset(
    {
        b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"mif2",
        b"msf1", b"avif", b"avis",
    }
)  # fmt: skip

EBML = b"\x1aE\xdf\xa3"
# Boxes that a film may begin with, ISO/IEC 14496-12 and Apple's file format.
FIRST_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})


def suffix_of(picture: bytes | memoryview) -> str:
    """The usual suffix of a picture by its signature, empty for anything else."""
    data = bytes(picture[:64])
    for signature, suffix in SIGNATURES:
        if data.startswith(signature):
            return suffix
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return ".webp"
    if data[4:8] == b"ftyp" and data[8:12] in HEIF:
        return ".avif" if b"avif" in data[8:64] or data[8:12] == b"avis" else ".heic"
    return ""


def is_video(data: bytes | memoryview) -> bool:
    """Whether a file is of a container that is read here, by its first bytes."""
    head = bytes(data[:12])
    if head[:4] == b"RIFF":
        return head[8:12] == b"AVI "
    return head[:4] == EBML or head[4:8] in FIRST_BOXES


def clean_bytes(
    head: dict[str, Any], body: bytes, alive: Callable[[], None]
) -> tuple[dict[str, Any], bytes]:
    """Clean one photograph; ``head`` says what to look for: text, faces, plates."""
    from deid.photo_policy import PhotoPolicy
    from deid.photos import clean_photo
    from deid.pixels.interface import listed

    policy = PhotoPolicy(text=head["text"], faces=head["faces"], plates=head["plates"])
    result = clean_photo(body, detectors=_detectors(policy), policy=policy, alive=alive)
    answer = {
        "boxes": listed(result.boxes),
        "actions": dict(result.actions),
        "suffix": result.suffix,
        "review": result.needs_review,
    }
    return answer, result.data


def clean_film(
    head: dict[str, Any], body: bytes, tell: Callable[[bytes], None]
) -> tuple[dict[str, Any], bytes]:
    """Clean one video, whose file goes out in parts through ``tell``."""
    from deid.photo_policy import PhotoPolicy
    from deid.pixels.interface import listed
    from deid.video import clean_video

    policy = PhotoPolicy(text=head["text"], faces=head["faces"], plates=head["plates"])
    result = clean_video(
        body, tell, detectors=_detectors(policy), policy=policy, alive=lambda: tell(b"")
    )
    answer = {
        "boxes": listed(result.boxes),
        "actions": dict(result.actions),
        "frames": result.frames,
        "review": result.needs_review,
    }
    return answer, b""


def _detectors(policy: PhotoPolicy) -> list[Detector]:
    chosen: list[Detector] = []
    if policy.text:
        from deid.pixels.text import default_text_detector

        chosen.append(default_text_detector(1))
    if policy.faces:
        from deid.pixels.faces import default_face_detector

        chosen.append(default_face_detector(1))
    return chosen
