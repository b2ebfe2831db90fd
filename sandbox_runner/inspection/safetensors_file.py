"""Read a safetensors file, and accept one spelling of it only.

The format (https://huggingface.co/docs/safetensors) is an 8-byte little-endian length, a JSON
header and the data. The format leaves freedoms that a model does not need (spaces, the order of
keys, escapes, gaps); each is a place to hide something, so each is closed here. Both
``glovebox.save_weights`` and the safetensors library write files that are accepted.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from policies.document import ReleasePolicy

HEADER_BYTES: Final = 8 * 1024 * 1024
#: Bytes of one element by the format's name for its type.
SIZES: Final = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}
NUMPY: Final = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U8": "|u1",
    "BOOL": "|u1",
}
METADATA_VALUES: Final = frozenset({"pt", "np"})
_NAME = re.compile(r"[A-Za-z0-9_]+(?:[.-][A-Za-z0-9_]+)*", re.ASCII)
_KEYS = ["dtype", "shape", "data_offsets"]


class Malformed(Exception):
    """The file is not one that may leave. ``rule`` names why; the text quotes nothing of it.

    ``place`` says where, for reviewers: a job could spell data with it.
    """

    def __init__(self, rule: str, message: str, place: str = "") -> None:
        super().__init__(message)
        self.rule, self.place = rule, place


@dataclass(frozen=True)
class Tensor:
    """One tensor of the header; ``start`` and ``end`` are offsets in the data, in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def count(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """The tensors in the order of their data, and where in the file the data starts."""

    tensors: tuple[Tensor, ...]
    data_start: int
    data_bytes: int


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise Malformed("safetensors.duplicate", "The header names something twice.")
    return values


def _constant(_text: str) -> Any:
    raise Malformed("safetensors.header", "The header is not JSON.")


def read_header(path: Path, policy: ReleasePolicy) -> Header:
    """Return the header of a file that is exactly as it must be; raises :class:`Malformed`."""
    total = path.stat().st_size
    with path.open("rb") as stream:
        if total < 8:
            raise Malformed("safetensors.truncated", "The file is too short for a header.")
        length = int.from_bytes(stream.read(8), "little")
        if length > HEADER_BYTES:
            raise Malformed("safetensors.header-size", "The header is larger than it may be.")
        if 8 + length > total:
            raise Malformed("safetensors.truncated", "The file ends inside of its header.")
        raw = stream.read(length)
    text = raw.rstrip(b" ")
    if len(raw) - len(text) > 7 or not text.startswith(b"{"):
        raise Malformed("safetensors.header", "The header has spaces where none belong.")
    try:
        value = json.loads(text.decode("ascii"), object_pairs_hook=_pairs, parse_constant=_constant)
        respelled = json.dumps(value, separators=(",", ":")).encode()
    except (ValueError, RecursionError) as error:
        raise Malformed("safetensors.header", "The header is not plain ASCII JSON.") from error
    if not isinstance(value, dict):
        raise Malformed("safetensors.header", "The header is not a JSON object.")
    if respelled != text:
        raise Malformed("safetensors.header", "The header is not in its one spelling.")
    _check_metadata(value.pop("__metadata__", None), policy)
    data_bytes = total - 8 - length
    return Header(_read_tensors(value, data_bytes, policy), 8 + length, data_bytes)


def _check_metadata(metadata: Any, policy: ReleasePolicy) -> None:
    if metadata is None:
        return
    rule = "safetensors.metadata"
    if not isinstance(metadata, dict) or not metadata:
        raise Malformed(rule, "The metadata are not a list of names and values.")
    for key, value in metadata.items():
        if key not in policy.metadata_keys:
            raise Malformed(rule, "The metadata hold a key that the policy does not allow.")
        if not isinstance(value, str) or value not in METADATA_VALUES:
            raise Malformed(rule, 'Of metadata only format = "pt" or "np" may leave.')


def _read_tensors(
    entries: dict[str, Any], data_bytes: int, policy: ReleasePolicy
) -> tuple[Tensor, ...]:
    if not entries:
        raise Malformed("safetensors.empty", "The file holds no tensor.")
    if len(entries) > policy.tensors:
        raise Malformed("safetensors.count", "The file holds more tensors than the policy allows.")
    tensors: list[Tensor] = []
    position = 0
    for name, entry in entries.items():
        tensor = _read_tensor(name, entry, policy)
        if tensor.start < position:
            raise Malformed(
                "safetensors.overlap", "Tensors overlap, or do not stand in the header's order."
            )
        if tensor.start > position:
            raise Malformed("safetensors.gap", "There are bytes between tensors.")
        if tensor.end - tensor.start != tensor.count * SIZES[tensor.dtype]:
            raise Malformed("safetensors.size", "A tensor's bytes do not fit its shape and type.")
        position = tensor.end
        tensors.append(tensor)
    if position > data_bytes:
        raise Malformed("safetensors.truncated", "The data end before the last tensor does.")
    if position < data_bytes:
        raise Malformed("safetensors.trailing", "There are bytes after the last tensor.")
    return tuple(tensors)


def _whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**48


def _read_tensor(name: str, entry: Any, policy: ReleasePolicy) -> Tensor:
    if len(name) > policy.tensor_name_length or not _NAME.fullmatch(name):
        raise Malformed(
            "safetensors.name", "A tensor's name is too long, or not words joined by dots."
        )
    if not isinstance(entry, dict) or list(entry) != _KEYS:
        raise Malformed("safetensors.entry", "A tensor has not dtype, shape and data_offsets.")
    dtype, shape, offsets = (entry[key] for key in _KEYS)
    if not isinstance(dtype, str) or dtype not in SIZES or dtype not in policy.dtypes:
        raise Malformed("safetensors.dtype", "A tensor's type is not one that the policy allows.")
    if not isinstance(shape, list) or len(shape) > policy.tensor_dimensions:
        raise Malformed("safetensors.shape", "A tensor has more dimensions than it may.")
    if not all(_whole(side) and side > 0 for side in shape):
        raise Malformed("safetensors.shape", "A tensor's shape is not made of whole numbers.")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_whole, offsets)):
        raise Malformed("safetensors.entry", "A tensor's offsets are not two whole numbers.")
    return Tensor(name, dtype, tuple(shape), offsets[0], offsets[1])


def stored(path: Path, header: Header, tensor: Tensor) -> NDArray[Any]:
    """Return the stored numbers, read-only and not yet in memory; bfloat16 as its 16 bits."""
    return np.memmap(
        path,
        dtype=NUMPY[tensor.dtype],
        mode="r",
        offset=header.data_start + tensor.start,
        shape=tensor.shape if tensor.shape else (1,),
    )


def values(path: Path, header: Header, tensor: Tensor) -> NDArray[np.float32]:
    """Return the tensor's numbers as float32 of its shape (F64 and I64 lose precision)."""
    return widened(stored(path, header, tensor), tensor.dtype)


def widened(array: NDArray[Any], dtype: str) -> NDArray[np.float32]:
    """Return stored numbers of a type as float32."""
    if dtype == "BF16":
        return (np.asarray(array).astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):
        return np.asarray(array).astype(np.float32)
