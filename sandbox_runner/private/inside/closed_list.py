"""What a closed graph may be made of: layers and calls, with what their arguments may be.

Plain data without any import of ours, for it is read in two places: beside the applicant's code,
which it tells early what will be refused, and outside, where it decides. None of the layers keeps
anything of one picture for the next (as batch normalisation does), and none runs code that is
given to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

MOST_WIDTH = 1 << 16
MOST_KERNEL = 1 << 10
MOST_NODES = 4096

Check = Callable[[Any], bool]
Arguments = Mapping[str, Any]
Shapes = dict[str, tuple[int, ...]]


def whole(least: int, most: int) -> Check:
    """Return a check for whole numbers."""
    return lambda value: type(value) is int and least <= value <= most


def number(least: float, most: float) -> Check:
    """Return a check for finite numbers."""
    return lambda value: (
        type(value) in (int, float) and math.isfinite(value) and least <= value <= most
    )


def flag(value: Any) -> bool:
    """Whether it is true or false."""
    return type(value) is bool


def word(*words: str) -> Check:
    """Return a check for one of these words."""
    return lambda value: type(value) is str and value in words


def pair(least: int, most: int) -> Check:
    """Return a check for two whole numbers, or one for both."""
    one = whole(least, most)
    return lambda value: (
        one(value) or (type(value) is list and len(value) == 2 and all(map(one, value)))
    )


def numbers(one: Check, most: int) -> Check:
    """Return a check for a list, not empty, of at most so many."""
    return lambda value: type(value) is list and 1 <= len(value) <= most and all(map(one, value))


def either(*checks: Check) -> Check:
    """Return a check that one of these holds."""
    return lambda value: any(check(value) for check in checks)


def nothing(value: Any) -> bool:
    """Whether it is None."""
    return value is None


def both(value: Any) -> tuple[int, int]:
    """Return a pair of what is one number or two."""
    return (value, value) if type(value) is int else (value[0], value[1])


WIDTH = whole(1, MOST_WIDTH)
KERNEL = pair(1, MOST_KERNEL)
PAD = pair(0, MOST_KERNEL)
AXIS = whole(-8, 7)
RATIO = number(0.0, 0.999)
EPS = number(1e-12, 1.0)


@dataclass(frozen=True)
class Layer:
    """A layer: its arguments by the name that torch gives them, and its parameters' shapes."""

    arguments: Mapping[str, Check] = field(default_factory=dict)
    parameters: Callable[[Arguments], Shapes] = lambda _given: {}


def _with_bias(shapes: Shapes, given: Arguments, width: int) -> Shapes:
    return shapes | ({"bias": (width,)} if given["bias"] else {})


def _linear(given: Arguments) -> Shapes:
    out = given["out_features"]
    return _with_bias({"weight": (out, given["in_features"])}, given, out)


def _convolution(given: Arguments) -> Shapes:
    out = given["out_channels"]
    shape = (out, given["in_channels"] // given["groups"], *both(given["kernel_size"]))
    return _with_bias({"weight": shape}, given, out)


def _transposed(given: Arguments) -> Shapes:
    out = given["out_channels"]
    shape = (given["in_channels"], out // given["groups"], *both(given["kernel_size"]))
    return _with_bias({"weight": shape}, given, out)


def _groups(given: Arguments) -> Shapes:
    wide = (given["num_channels"],)
    return {"weight": wide, "bias": wide} if given["affine"] else {}


def _instances(given: Arguments) -> Shapes:
    wide = (given["num_features"],)
    return {"weight": wide, "bias": wide} if given["affine"] else {}


def _layer_norm(given: Arguments) -> Shapes:
    shape = tuple(given["normalized_shape"])
    if not given["elementwise_affine"]:
        return {}
    return {"weight": shape} | ({"bias": shape} if given["bias"] else {})


_POOL: Mapping[str, Check] = {
    "kernel_size": KERNEL,
    "stride": KERNEL,
    "padding": PAD,
    "ceil_mode": flag,
}
_TARGET: Mapping[str, Check] = {"output_size": pair(1, 2048)}
_CONVOLUTION: Mapping[str, Check] = {
    "in_channels": WIDTH,
    "out_channels": WIDTH,
    "kernel_size": KERNEL,
    "stride": KERNEL,
    "dilation": KERNEL,
    "groups": WIDTH,
    "bias": flag,
}

LAYERS: Mapping[str, Layer] = {
    "Linear": Layer({"in_features": WIDTH, "out_features": WIDTH, "bias": flag}, _linear),
    "Conv2d": Layer(
        {
            **_CONVOLUTION,
            "padding": either(PAD, word("same", "valid")),
            "padding_mode": word("zeros", "reflect", "replicate", "circular"),
        },
        _convolution,
    ),
    "ConvTranspose2d": Layer({**_CONVOLUTION, "padding": PAD, "output_padding": PAD}, _transposed),
    "GroupNorm": Layer(
        {"num_groups": WIDTH, "num_channels": WIDTH, "eps": EPS, "affine": flag}, _groups
    ),
    "InstanceNorm2d": Layer({"num_features": WIDTH, "eps": EPS, "affine": flag}, _instances),
    "LayerNorm": Layer(
        {
            "normalized_shape": numbers(WIDTH, 3),
            "eps": EPS,
            "elementwise_affine": flag,
            "bias": flag,
        },
        _layer_norm,
    ),
    "ReLU": Layer(),
    "LeakyReLU": Layer({"negative_slope": number(0.0, 1.0)}),
    "ELU": Layer({"alpha": number(0.0, 10.0)}),
    "GELU": Layer({"approximate": word("none", "tanh")}),
    "SiLU": Layer(),
    "Tanh": Layer(),
    "Sigmoid": Layer(),
    "Softplus": Layer(),
    "Hardswish": Layer(),
    "Softmax": Layer({"dim": AXIS}),
    "Identity": Layer(),
    "Dropout": Layer({"p": RATIO}),
    "Dropout2d": Layer({"p": RATIO}),
    "MaxPool2d": Layer({**_POOL, "dilation": KERNEL}),
    "AvgPool2d": Layer({**_POOL, "count_include_pad": flag}),
    "AdaptiveAvgPool2d": Layer(_TARGET),
    "AdaptiveMaxPool2d": Layer(_TARGET),
    "Flatten": Layer({"start_dim": AXIS, "end_dim": AXIS}),
    "Unflatten": Layer({"dim": AXIS, "unflattened_size": numbers(whole(1, MOST_WIDTH), 4)}),
    "Upsample": Layer(
        {
            "size": either(nothing, pair(1, 2048)),
            "scale_factor": either(nothing, number(1.0, 16.0)),
            "mode": word("nearest", "bilinear"),
        }
    ),
    "PixelShuffle": Layer({"upscale_factor": whole(1, 16)}),
}


@dataclass(frozen=True)
class Call:
    """A call between layers: how many of its inputs are answers of others, and its arguments."""

    least: int
    most: int
    arguments: Mapping[str, Check] = field(default_factory=dict)


_OTHER: Mapping[str, Check] = {"other": either(nothing, number(-1e6, 1e6))}

CALLS: Mapping[str, Call] = {
    "add": Call(1, 2, _OTHER),
    "sub": Call(1, 2, _OTHER),
    "mul": Call(1, 2, _OTHER),
    "div": Call(1, 2, _OTHER),
    "matmul": Call(2, 2),
    "cat": Call(1, 64, {"dim": AXIS}),
    "relu": Call(1, 1),
    "gelu": Call(1, 1),
    "silu": Call(1, 1),
    "sigmoid": Call(1, 1),
    "tanh": Call(1, 1),
    "softmax": Call(1, 1, {"dim": AXIS}),
    "flatten": Call(1, 1, {"start_dim": AXIS, "end_dim": AXIS}),
    "reshape": Call(1, 1, {"shape": numbers(whole(-1, 1 << 24), 8)}),
    "permute": Call(1, 1, {"dims": numbers(AXIS, 8)}),
    "transpose": Call(1, 1, {"dim0": AXIS, "dim1": AXIS}),
    "unsqueeze": Call(1, 1, {"dim": AXIS}),
    "squeeze": Call(1, 1, {"dim": AXIS}),
    "mean": Call(1, 1, {"dim": numbers(AXIS, 4), "keepdim": flag}),
    "amax": Call(1, 1, {"dim": numbers(AXIS, 4), "keepdim": flag}),
}
