"""The closed list of operators that a graph may use, as of opset 18 of the default domain.

Pure tensor arithmetic that answers the same each time: no random numbers, no texts, no control
flow, no state. An attribute that is not named here is refused; one with the value that the standard
gives it by default is left out, so that it has one spelling. Where the standard lets an attribute
be inferred, it is required. https://onnx.ai/onnx/operators/ has each operator's meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

OPSET = 18
IR_VERSION = 8


@dataclass(frozen=True)
class Attribute:
    """What may stand in an attribute.

    ``kind`` is int, ints, float, word or tensor. ``default`` is left out (for ints: where each
    number is it). ``allowed`` are the ints or words that there are, all of them if it is empty.
    """

    kind: str
    default: Any = None
    allowed: tuple[Any, ...] = ()
    required: bool = False


@dataclass(frozen=True)
class Operator:
    """How many inputs an operator takes and answers it gives, and its attributes."""

    least: int
    most: int
    attributes: Mapping[str, Attribute]
    outputs: int = 1


#: Operators that take a list of any length take or give at most so many.
MANY = 64

_FLAG = (0, 1)
_AXIS = Attribute("int", required=True)


def _flag(default: int) -> Attribute:
    return Attribute("int", default, _FLAG)


def _real(default: float) -> Attribute:
    return Attribute("float", default)


def _each(number: int) -> Attribute:
    return Attribute("ints", number)


_KERNEL = Attribute("ints", required=True)
_CONV = {
    "dilations": _each(1),
    "group": Attribute("int", 1),
    "kernel_shape": _KERNEL,
    "pads": _each(0),
    "strides": _each(1),
}
_POOL = {
    "ceil_mode": _flag(0),
    "kernel_shape": _KERNEL,
    "pads": _each(0),
    "strides": _each(1),
}
_REDUCE = Operator(1, 2, {"keepdims": _flag(1), "noop_with_empty_axes": _flag(0)})


def _plain(count: int, most: int | None = None) -> Operator:
    return Operator(count, most or count, {})


#: Name -> what it takes. ``Constant`` is not among them: small constants are read by themselves.
OPERATORS: Mapping[str, Operator] = {
    **{
        name: _plain(1)
        for name in (
            "Abs", "Ceil", "Cos", "Erf", "Exp", "Floor", "GlobalAveragePool", "GlobalMaxPool",
            "HardSwish", "Log", "Neg", "Not", "Reciprocal", "Relu", "Round", "Sigmoid", "Sign",
            "Sin", "Softplus", "Softsign", "Sqrt", "Tanh",
        )
    },
    **{
        name: _plain(2)
        for name in (
            "Add", "And", "Div", "Equal", "Expand", "Greater", "GreaterOrEqual", "Less",
            "LessOrEqual", "MatMul", "Mul", "Or", "PRelu", "Pow", "Sub", "Tile",
        )
    },
    **{name: _plain(1, 8) for name in ("Max", "Min", "Sum", "Mean")},
    **dict.fromkeys(
        ("ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
         "ReduceSum", "ReduceSumSquare", "ReduceLogSumExp"),
        _REDUCE,
    ),
    "AveragePool": Operator(1, 1, _POOL | {"count_include_pad": _flag(0)}),
    "BatchNormalization": Operator(
        5, 5,
        {"epsilon": _real(1e-5), "momentum": _real(0.9),
         "training_mode": Attribute("int", 0, (0,))},
    ),
    "Cast": Operator(1, 1, {"to": Attribute("int", None, (1, 2, 3, 6, 7, 9, 10, 11), True)}),
    "Clip": _plain(1, 3),
    "Concat": Operator(1, MANY, {"axis": _AXIS}),
    "ConstantOfShape": Operator(1, 1, {"value": Attribute("tensor")}),
    "Conv": Operator(2, 3, _CONV),
    "ConvTranspose": Operator(2, 3, _CONV | {"output_padding": _each(0)}),
    "CumSum": Operator(2, 2, {"exclusive": _flag(0), "reverse": _flag(0)}),
    "DepthToSpace": Operator(
        1, 1,
        {"blocksize": Attribute("int", required=True),
         "mode": Attribute("word", "DCR", ("DCR", "CRD"))},
    ),
    "Elu": Operator(1, 1, {"alpha": _real(1.0)}),
    "Flatten": Operator(1, 1, {"axis": Attribute("int", 1)}),
    "Gather": Operator(2, 2, {"axis": Attribute("int", 0)}),
    "Gemm": Operator(
        2, 3, {"alpha": _real(1.0), "beta": _real(1.0), "transA": _flag(0), "transB": _flag(0)}
    ),
    "HardSigmoid": Operator(1, 1, {"alpha": _real(0.2), "beta": _real(0.5)}),
    "InstanceNormalization": Operator(3, 3, {"epsilon": _real(1e-5)}),
    "LayerNormalization": Operator(
        2, 3,
        {"axis": Attribute("int", -1), "epsilon": _real(1e-5),
         "stash_type": Attribute("int", 1, (1,))},
    ),
    "LeakyRelu": Operator(1, 1, {"alpha": _real(0.01)}),
    "LogSoftmax": Operator(1, 1, {"axis": Attribute("int", -1)}),
    "MaxPool": Operator(
        1, 1, _POOL | {"dilations": _each(1), "storage_order": Attribute("int", 0, (0,))}
    ),
    "Mod": Operator(2, 2, {"fmod": _flag(0)}),
    "Pad": Operator(
        2, 4, {"mode": Attribute("word", "constant", ("constant", "reflect", "edge"))}
    ),
    "Range": _plain(3),
    "Reshape": Operator(2, 2, {"allowzero": _flag(0)}),
    "Resize": Operator(
        1, 4,
        {
            "antialias": _flag(0),
            "coordinate_transformation_mode": Attribute(
                "word", "half_pixel",
                ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners",
                 "asymmetric"),
            ),
            "cubic_coeff_a": _real(-0.75),
            "exclude_outside": _flag(0),
            "mode": Attribute("word", "nearest", ("nearest", "linear", "cubic")),
            "nearest_mode": Attribute(
                "word", "round_prefer_floor",
                ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"),
            ),
        },
    ),
    "Selu": Operator(1, 1, {"alpha": _real(1.67326319217681884765625),
                            "gamma": _real(1.05070102214813232421875)}),
    "Shape": Operator(1, 1, {"end": Attribute("int"), "start": Attribute("int", 0)}),
    "Slice": _plain(3, 5),
    "Softmax": Operator(1, 1, {"axis": Attribute("int", -1)}),
    "SpaceToDepth": Operator(1, 1, {"blocksize": Attribute("int", required=True)}),
    "Split": Operator(
        1, 2, {"axis": Attribute("int", 0), "num_outputs": Attribute("int")}, outputs=MANY
    ),
    "Squeeze": _plain(1, 2),
    "Transpose": Operator(1, 1, {"perm": Attribute("ints", required=True)}),
    "Unsqueeze": _plain(2),
    "Where": _plain(3),
}  # fmt: skip
