"""Seconds to find the faces of a photograph of 1280 by 854 pixels, against the tool deface."""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bench.ratios import Ratio, in_turns
from deid.pixels.faces import FaceNetwork
from synthetic.photos import package_photo

REPETITIONS = 5
COLUMNS, ROWS = 1280, 854
PHOTOS = ("astronaut.png", "coffee.png", "motorcycle_left.png")
THRESHOLD = 0.2
"""deface's own default."""


def run(folder: Path) -> list[Ratio]:
    """Measure upright only and at all rotations; one thread on both sides."""
    with _one_core():
        peer = _peer()
    upright, turned = FaceNetwork(rotations=False), FaceNetwork()
    photos = [cv2.resize(package_photo(name), (COLUMNS, ROWS)) for name in PHOTOS]

    def timed(detect: Callable[[Any], object]) -> Callable[[], float]:
        def measure() -> float:
            with _one_core():
                began = time.perf_counter()
                for photo in photos:
                    detect(np.ascontiguousarray(photo))
                return (time.perf_counter() - began) / len(photos)

        return measure

    runs = {
        "upright": timed(upright.detect),
        "all rotations": timed(turned.detect),
        "deface": timed(lambda photo: peer(photo, threshold=THRESHOLD)),
    }
    measured = in_turns(runs, REPETITIONS)
    return [
        Ratio(f"{name} against deface", "s", "lower", name, measured[name], "deface",
              measured["deface"])
        for name in ("upright", "all rotations")
    ]  # fmt: skip


def _peer() -> Any:
    """deface's detector; it takes as many threads as its process may use cores."""
    from deface.centerface import CenterFace

    with contextlib.redirect_stdout(io.StringIO()):
        return CenterFace(override_execution_provider="CPUExecutionProvider")


@contextlib.contextmanager
def _one_core() -> Iterator[None]:
    before, threads = os.sched_getaffinity(0), cv2.getNumThreads()
    os.sched_setaffinity(0, {max(before)})
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
        cv2.setNumThreads(threads)
