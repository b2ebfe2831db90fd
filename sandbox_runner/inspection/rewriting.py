"""Rewrite weights so that bits hidden in their numbers do not survive; runs in the worker.

Each tensor of real numbers becomes bfloat16 in two steps. First Gaussian noise is added in
proportion to the root mean square of each row (of its scale). Then a random whole number of
2**bits steps is added to the stored code of each magnitude, so that its lowest bits are exactly
uniform whatever was written there. Signed bytes are treated alike within their type. Order,
names and header have one spelling. All noise comes from the kernel and is kept nowhere.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from sandbox_runner.inspection import capacity, noise
from sandbox_runner.inspection.read_back import ReadBack
from sandbox_runner.inspection.safetensors_file import SIZES, Header, Tensor, stored, widened

TYPE: Final = "BF16"
#: Numbers held at once, and the most that share one scale.
BLOCK: Final = 1 << 20
PIECE: Final = 1 << 16
#: A tensor of one side and no more numbers is a layer's bias, gain or statistics, whose numbers
#: differ in size and may have to stay positive: dither in proportion to each is all they get.
VECTOR: Final = 4096
#: Room above for noise: larger numbers than two to this are cut.
LARGEST: Final = 124

_FLOATS: Final = ("F64", "F32", "F16", "BF16")


@dataclass
class Account:
    """What became of one file: bits by tensor, and what was read back from the result.

    ``tensors`` are (name, numbers, capacity in bits) in the order of the new file. ``kept`` are
    bits of whole numbers, which cannot be changed a little and are as they were; ``beside`` those
    of an ONNX model's graph.
    """

    tensors: list[tuple[str, int, float]] = field(default_factory=list)
    kept: float = 0.0
    read_back: float = 0.0
    agree: list[int] = field(default_factory=list)
    compared: int = 0
    beside: float = 0.0

    @property
    def capacity(self) -> float:
        """Bits that the new file can carry at most for whoever chose the old one."""
        return sum(bits for _, _, bits in self.tensors) + self.beside

    def as_mapping(self) -> dict[str, Any]:
        """Return plain values for the other process."""
        return {
            "capacity": self.capacity,
            "kept": self.kept,
            "numbers": sum(count for _, count, _ in self.tensors),
            "read_back": self.read_back,
            "agree": self.agree,
            "compared": self.compared,
            "tensors": [list(row) for row in self.tensors],
        }


def new_type(dtype: str) -> str:
    """Return the type in which a tensor of this type leaves."""
    return TYPE if dtype in _FLOATS else dtype


def rewrite(
    source: Path,
    header: Header,
    target: Path,
    *,
    zero: Collection[str],
    scale: float,
    bits: int,
) -> Account:
    """Write ``target`` anew from ``source`` and return what it can carry.

    ``zero`` names tensors that do nothing and become zero. ``scale`` is the Gaussian noise's
    standard deviation in units of a row's, 0 for none; the lowest ``bits`` (1 to 6) of stored
    codes become random. Tensors are read and written in blocks.
    """
    order = sorted(header.tensors, key=lambda t: (-SIZES[new_type(t.dtype)], t.name))
    account = Account(agree=[0] * bits)
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as out:
        _write_header(out, order)
        for tensor in order:
            if tensor.name in zero:
                _write_zeros(out, tensor)
                said = 0.0
            else:
                said = _write_tensor(out, source, header, tensor, scale, bits, account)
            account.tensors.append((tensor.name, tensor.count, said))
    return account


def _write_header(out: BinaryIO, order: list[Tensor]) -> None:
    entries: dict[str, Any] = {}
    offset = 0
    for tensor in order:
        dtype = new_type(tensor.dtype)
        end = offset + tensor.count * SIZES[dtype]
        entries[tensor.name] = {
            "dtype": dtype,
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    # What the file is for is fixed, whatever stood there.
    text = json.dumps({"__metadata__": {"format": "pt"}, **entries}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    out.write(len(text).to_bytes(8, "little") + text)


def _write_zeros(out: BinaryIO, tensor: Tensor) -> None:
    left = tensor.count * SIZES[new_type(tensor.dtype)]
    while left:
        part = min(left, BLOCK)
        out.write(bytes(part))
        left -= part


def _blocks(count: int, length: int) -> Iterator[tuple[int, int, int]]:
    """Give (start, rows, length) of blocks of rows; longer rows than a piece are cut."""
    if length <= PIECE:
        rows = max(1, BLOCK // length)
        for first in range(0, count // length, rows):
            yield first * length, min(rows, count // length - first), length
        return
    for start in range(0, count, length):
        for piece in range(0, length, PIECE):
            yield start + piece, 1, min(PIECE, length - piece)


def _row_length(shape: tuple[int, ...], count: int) -> int:
    """Return how many numbers share a scale: those of one output, or of the last side."""
    if len(shape) < 2:
        return count
    return count // shape[0] if shape[0] > 1 else shape[-1]


def as_floats(flat: NDArray[Any], dtype: str) -> NDArray[np.float32]:
    """Return stored numbers as finite float32."""
    return np.nan_to_num(widened(flat, dtype), copy=False)


def as_codes(numbers: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return bfloat16 codes, rounded to nearest with ties to even; numbers are finite."""
    words = numbers.view(np.uint32)
    rounded = (words + np.uint32(0x7FFF) + ((words >> 16) & np.uint32(1))) >> 16
    codes = rounded.astype(np.uint16)
    magnitude = np.minimum(codes & np.uint16(0x7FFF), np.uint16(0x7F7F))
    signed: NDArray[np.uint16] = (codes & np.uint16(0x8000)) | magnitude
    return signed


def _write_tensor(
    out: BinaryIO,
    source: Path,
    header: Header,
    tensor: Tensor,
    scale: float,
    bits: int,
    account: Account,
) -> float:
    """Write one tensor and return the bits that it can carry."""
    flat = stored(source, header, tensor).reshape(-1)
    if tensor.dtype in _FLOATS:
        return _write_floats(out, flat, tensor, scale, bits, account)
    if tensor.dtype == "I8":
        return _write_bytes(out, flat, tensor, scale, bits, account)
    for start in range(0, tensor.count, BLOCK):
        out.write(np.ascontiguousarray(flat[start : start + BLOCK]).tobytes())
    kept = tensor.count * (1.0 if tensor.dtype == "BOOL" else 8.0 * SIZES[tensor.dtype])
    account.kept += kept
    return kept


def _octave(flat: NDArray[Any], dtype: str) -> int | None:
    """Return the power of two at or above the largest magnitude, None for zeros only."""
    largest = 0.0
    for start in range(0, len(flat), BLOCK):
        largest = max(largest, float(np.abs(as_floats(flat[start : start + BLOCK], dtype)).max()))
    return int(np.ceil(np.log2(largest))) if largest > 0 else None


def _scales(rows: NDArray[np.float32], octave: int) -> NDArray[np.float64]:
    """Return each row's scale: its root mean square rounded up to a step, 0 for zeros only."""
    power = np.sqrt(np.mean(np.square(rows, dtype=np.float64), axis=1))
    steps = np.ceil(capacity.SCALES * np.log2(np.maximum(power, 2.0**-400)))
    lowest = capacity.SCALES * (octave - capacity.OCTAVES)
    chosen = np.clip(steps, lowest, capacity.SCALES * octave)
    return np.where(power > 0, np.exp2(chosen / capacity.SCALES), 0.0)


def _noisy(rows: NDArray[np.float32], scales: NDArray[np.float64], scale: float) -> NDArray[Any]:
    if scale <= 0:
        return rows
    drawn = noise.gaussian(rows.size).reshape(rows.shape)
    with np.errstate(over="ignore"):  # the largest numbers of the type stay the largest
        return rows + drawn * np.minimum(scale * scales, 1e38).astype(np.float32)[:, None]


def _write_floats(
    out: BinaryIO,
    flat: NDArray[Any],
    tensor: Tensor,
    scale: float,
    bits: int,
    account: Account,
) -> float:
    octave = _octave(flat, tensor.dtype)
    if octave is None:
        _write_zeros(out, tensor)
        return capacity.TENSOR_BITS
    length = _row_length(tensor.shape, tensor.count)
    vector = length == 1 or (len(tensor.shape) < 2 and tensor.count <= VECTOR)
    if vector:
        length = tensor.count
    said = capacity.TENSOR_BITS
    check = ReadBack(tensor.count)
    clipped, octave = octave > LARGEST, min(octave, LARGEST)
    floor = int(np.clip(octave - capacity.OCTAVES + 127, 1, 254)) << 7
    top = int(np.clip(octave + capacity.ABOVE + 127, 1, 254)) << 7
    for start, rows, width in _blocks(tensor.count, length):
        part = as_floats(flat[start : start + rows * width], tensor.dtype).reshape(rows, width)
        if clipped:
            part = np.clip(part, -(2.0**LARGEST), 2.0**LARGEST)
        if vector:
            moved, sizes = part, np.full(rows, 2.0**octave)
            said += capacity.bf16_bits(rows * width, bits)
        else:
            sizes = _scales(part, octave)
            moved = _noisy(part, sizes, scale)
            said += rows * capacity.piece_bits(width, scale, capacity.bf16_bits(width, bits))
        codes = _dithered(as_codes(np.ascontiguousarray(moved)), floor, top, bits)
        out.write(codes.astype("<u2").tobytes())
        _compare(as_codes(np.ascontiguousarray(part)), codes, floor, bits, account)
        check.add(part, (codes.astype(np.uint32) << 16).view(np.float32), sizes)
    account.read_back += check.bits()
    return said


def _dithered(codes: NDArray[np.uint16], floor: int, top: int, bits: int) -> NDArray[np.uint16]:
    """Return codes whose magnitude moved by a random step; what falls below the floor is zero."""
    magnitude = np.minimum((codes & np.uint16(0x7FFF)).astype(np.int32), top - 1)
    moved = magnitude + noise.steps(codes.size, bits).reshape(codes.shape)
    alive = (magnitude >= floor) & (moved >= floor)
    signed = (codes & np.uint16(0x8000)) | moved.astype(np.uint16)
    return np.where(alive, signed, np.uint16(0))


def _compare(
    before: NDArray[np.uint16], after: NDArray[np.uint16], floor: int, bits: int, account: Account
) -> None:
    """Count how often the lowest bits are as they were in the released type: half is none."""
    alive = ((before & np.uint16(0x7FFF)) >= floor) & (after != 0)
    same = ~(before ^ after)[alive]
    account.compared += int(alive.sum())
    for plane in range(bits):
        account.agree[plane] += int(((same >> plane) & 1).sum())


def _write_bytes(
    out: BinaryIO,
    flat: NDArray[Any],
    tensor: Tensor,
    scale: float,
    bits: int,
    account: Account,
) -> float:
    """Write signed bytes, as quantised weights are: noise and dither within -127 to 127."""
    length = _row_length(tensor.shape, tensor.count)
    said = capacity.TENSOR_BITS
    check = ReadBack(tensor.count)
    for start, rows, width in _blocks(tensor.count, length):
        part = flat[start : start + rows * width].astype(np.float32).reshape(rows, width)
        sizes = _scales(part, 7)
        moved = np.clip(np.rint(_noisy(part, sizes, scale)), -127, 127).astype(np.int32)
        moved = np.clip(moved + noise.steps(moved.size, bits).reshape(moved.shape), -127, 127)
        moved[sizes == 0] = 0
        out.write(moved.astype(np.int8).tobytes())
        stored_bits = capacity.dithered_bits(width, 255, bits, signed=False)
        said += rows * capacity.piece_bits(width, scale, stored_bits)
        same = ~(part.astype(np.int32) ^ moved)[sizes > 0]
        account.compared += same.size
        for plane in range(bits):
            account.agree[plane] += int(((same >> plane) & 1).sum())
        check.add(part, moved.astype(np.float32), sizes)
    account.read_back += check.bits()
    return said
