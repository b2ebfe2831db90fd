"""What must hold for any bytes whatever: checked by the fuzzers and for their past findings."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from signal import ITIMER_PROF, ITIMER_REAL, SIGALRM, SIGPROF, setitimer, signal
from types import FrameType

import pydicom
from PIL import Image

from deid import profile
from deid.decoding import Decoder
from deid.dicom.clean import DicomCleaner
from deid.dicom.header import HeaderCleaner
from deid.dicom.plan import Plan
from deid.photo_policy import PhotoPolicy, PhotoRefused
from deid.photo_structure import holds_only_pixels
from deid.photos import clean_photo
from deid.quarantine import Quarantined
from deid.vault import Pseudonyms
from deid.video_container import is_clean_video

SECONDS = 20.0
"""How much of the processor one small file may take; its decoder's is not counted."""

REAL_SECONDS = 120.0
"""How long it may take on a busy machine, its decoder's start included."""

CANARY = b"HWANGBOCANARY"
"""Stands in the metadata of the seeds, and must stand in no output."""

_PIXELS = 0x7FE00010


@contextmanager
def in_time() -> Iterator[None]:
    """Raise :class:`TimeoutError` where the block takes more than both limits allow."""

    def late(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"a file took {SECONDS:.0f} s of work or {REAL_SECONDS:.0f} s in all")

    before = [(number, signal(number, late)) for number in (SIGPROF, SIGALRM)]
    setitimer(ITIMER_PROF, SECONDS)
    setitimer(ITIMER_REAL, REAL_SECONDS)
    try:
        yield
    finally:
        setitimer(ITIMER_PROF, 0)
        setitimer(ITIMER_REAL, 0)
        for number, handler in before:
            signal(number, handler)


@lru_cache(maxsize=1)
def _cleaner() -> DicomCleaner:
    # The text detector has tests of its own, and would take all of the fuzzer's time.
    document = dict(profile.load("research").document)
    looks = {"clean_pixel_data", "clean_recognizable_visual_features"}
    document["options"] = [option for option in document["options"] if option not in looks]
    document["head_volumes"] = "allow"
    chosen = profile.from_document(document)
    return DicomCleaner(HeaderCleaner(Plan(chosen), Pseudonyms(bytes(range(32)))), Decoder())


def dicom(data: bytes) -> bool:
    """Clean bytes as DICOM; whether there was an output, which must read and hold no canary."""
    with in_time():
        try:
            result = _cleaner().clean(data, hashlib.sha256(data).hexdigest())
        except Quarantined:
            return False
        cleaned = b"".join(result.chunks)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(io.BytesIO(cleaned))
        for _element in dataset.iterall():
            continue
    if CANARY in cleaned:
        # What the fuzzer wrote into the samples is a picture, not a text.
        pixels = dataset[_PIXELS].value if _PIXELS in dataset else b""
        assert cleaned.count(CANARY) == pixels.count(CANARY), "a canary is left in the header"
    return True


def photo(data: bytes) -> bool:
    """Clean bytes as a photograph; whether there was an output, which must be pixels alone."""
    with in_time():
        try:
            result = clean_photo(
                data, detectors=(), policy=PhotoPolicy(text=False, faces=False, plates=False)
            )
        except PhotoRefused:
            return False
    assert holds_only_pixels(result.data), "more than pixels"
    shown = b""
    with Image.open(io.BytesIO(result.data)) as image:
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            image.load()
            shown += image.tobytes()
    assert CANARY not in result.data or CANARY in shown, "a canary is left"
    return True


@lru_cache(maxsize=1)
def _decoder() -> Decoder:
    return Decoder()


def video(data: bytes) -> bool:
    """Clean bytes as a video; whether there was an output, which must be frames alone.

    In the decoder's process, as ever: what ends it must end nothing else.
    """
    head = {"operation": "video", "text": False, "faces": False, "plates": False}
    parts: list[bytes] = []
    with in_time():
        try:
            answer, _nothing = _decoder().ask(head, data, sink=parts.append)
        except Quarantined:
            return False
    written = b"".join(parts)
    assert is_clean_video(written), "more than frames"
    assert CANARY not in written, "a canary is left"
    assert int(answer["frames"]) > 0
    return True


PROMISES: Mapping[str, Callable[[bytes], bool]] = {"dicom": dicom, "photo": photo, "video": video}
