"""Processor seconds to find the text of a still of 1024 by 1024, against PP-OCRv6 by itself.

And of one frame of many, against the still: both with every look that a DICOM file gets.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from bench.ratios import Ratio, in_turns
from deid.dicom.decode import Search
from deid.pixels.text import default_text_detector
from synthetic.identity import invent_identity
from synthetic.lettering import burn, letter, open_font
from synthetic.phantom import draw_anatomy, draw_phantom

SIDE, FRAMES, STILLS, REPETITIONS = 1024, 128, 4, 5
OTHER_SIDES = (512, 2048, 4096)
SHIFT = 6
"""Pixels by which the picture sways over the frames."""

Picture = NDArray[np.uint8]


def run(folder: Path) -> list[Ratio]:
    """Measure the detector, the whole search of a file, and frames; one thread on both sides."""
    cv2.setNumThreads(1)
    detector, peer = default_text_detector(1), _peer()
    rng = np.random.default_rng(5)
    stills = [_still(rng, SIDE) for _number in range(STILLS)]
    frames = _frames(rng, stills[0])
    dataset, properties = Dataset(), {"photometric_interpretation": "MONOCHROME2"}

    def search(pictures: NDArray[Any]) -> object:
        looking = Search(detector, len(pictures))
        looking.add(dataset, pictures, properties)
        return looking.boxes()

    runs = {
        "one look": _timed(lambda: [detector.detect(each) for each in stills], STILLS),
        "all looks": _timed(lambda: [search(each[None]) for each in stills], STILLS),
        "PP-OCRv6": _timed(lambda: [peer(np.stack([each] * 3, axis=2)) for each in stills], STILLS),
        "a frame": _timed(lambda: search(frames), FRAMES),
    }
    others = {side: _still(rng, side) for side in OTHER_SIDES}
    for side, picture in others.items():
        runs[f"{side} pixels"] = _timed(functools.partial(search, picture[None]), 1)
    measured = in_turns(runs, REPETITIONS)
    still, ocr = measured["all looks"], measured["PP-OCRv6"]
    return [
        Ratio("one look at a still against PP-OCRv6", "s", "lower", "one look",
              measured["one look"], "PP-OCRv6", ocr),
        Ratio("a still with every look against PP-OCRv6", "s", "lower", "all looks", still,
              "PP-OCRv6", ocr),
        Ratio(f"a frame of {FRAMES} against a still", "s", "lower", "a frame",
              measured["a frame"], "a still", still),
        *(
            Ratio(f"a still of {side} pixels against 1024", "s", "lower", f"{side} pixels",
                  measured[f"{side} pixels"], "1024 pixels", still)
            for side in OTHER_SIDES
        ),
    ]  # fmt: skip


def _timed(work: Callable[[], object], count: int) -> Callable[[], float]:
    """Processor seconds a piece: neighbours on the machine take none of them."""

    def measure() -> float:
        began = time.process_time()
        work()
        return (time.process_time() - began) / count

    return measure


def _peer() -> Callable[[Picture], object]:
    """The detector at the default of its package, on one thread."""
    from rapidocr import RapidOCR

    one_thread = {"EngineConfig.onnxruntime.intra_op_num_threads": 1}
    reader = RapidOCR(params={**one_thread, "Global.log_level": "critical"})
    return lambda picture: reader(picture, use_det=True, use_cls=False, use_rec=False)


def _still(rng: np.random.Generator, side: int) -> Picture:
    """A phantom with five lines of text."""
    drawn = draw_phantom(rng, draw_anatomy(rng), laterality="L", view="CC", lesions=1).pixels
    large = cv2.resize(drawn.astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    picture = np.clip(large / 16, 0, 255).astype(np.uint8)
    taken: set[str] = set()
    for row in range(5):
        person = invent_identity(rng, taken)
        text = f"{person.latin} {person.number}"
        ink = letter(picture.shape, text, open_font(text, 14 + 3 * row), 12, 20 + side // 6 * row)
        picture = burn(picture, ink, 230).astype(np.uint8)
    return picture


def _frames(rng: np.random.Generator, picture: Picture) -> NDArray[np.uint8]:
    """The picture swaying in noise, as of fluoroscopy."""
    found = []
    for number in range(FRAMES):
        shift = SHIFT * np.sin(number / 5)
        way = np.array([[1, 0, shift], [0, 1, shift / 2]], np.float32)
        moved = cv2.warpAffine(picture, way, picture.shape[::-1], borderMode=cv2.BORDER_REFLECT)
        noise = rng.normal(0, 3, picture.shape).astype(np.float32)
        found.append(np.clip(moved + noise, 0, 255).astype(np.uint8))
    return np.stack(found)
