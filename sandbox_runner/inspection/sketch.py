"""A short projection of weights, from which distances between models are read, and nothing else.

A sketch in the sense of Alon, Matias and Szegedy (1996): every number is added, with a sign drawn
from a fixed stream, to one of 256 sums. Sketches are linear, so that of a difference is the
difference of the sketches, and its length is that of the weights' to within about 9 %.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from policies.document import ReleasePolicy
from sandbox_runner.inspection.safetensors_file import Malformed, values
from sandbox_runner.inspection.weights_file import read_header

SUMS: Final = 256
MOST_TOLD: Final = 200
_BLOCK: Final = 1 << 20  # numbers at once; a multiple of SUMS and of 8


@dataclass(frozen=True)
class Sketch:
    """``architecture`` is a digest of the tensors' names and shapes; ``sums`` the projection.

    ``tensors`` are file, name, type and shape of each.
    """

    architecture: str = ""
    sums: tuple[float, ...] = ()
    tensors: tuple[tuple[str, str, str, tuple[int, ...]], ...] = ()

    def as_mapping(self) -> dict[str, Any]:
        """Return plain values: the projection, and what reviewers are told of the network."""
        return {
            "architecture": self.architecture,
            "sums": list(self.sums),
            "parameters": sum(math.prod(shape) for _file, _name, _type, shape in self.tensors),
            "count": len(self.tensors),
            "tensors": [[f, n, t, list(shape)] for f, n, t, shape in self.tensors[:MOST_TOLD]],
        }


def sketch(files: Mapping[str, Path], policy: ReleasePolicy) -> Sketch:
    """Return the sketch of the weights in ``files`` (name to file), in name order.

    Empty where there are none, or where one is not as it must be: then it does not leave either.
    """
    sums, shapes, position = np.zeros(SUMS), [], 0
    tensors: list[tuple[str, str, str, tuple[int, ...]]] = []
    try:
        for name in sorted(files):
            header = read_header(files[name], policy)
            for tensor in sorted(header.tensors, key=lambda tensor: tensor.name):
                shapes.append([name, tensor.name, list(tensor.shape)])
                tensors.append((name, tensor.name, tensor.dtype, tensor.shape))
                flat = np.ravel(values(files[name], header, tensor))
                for start in range(0, flat.size, _BLOCK):
                    sums += _add(flat[start : start + _BLOCK], position)
                    position += 1
    except (Malformed, OSError, ValueError):
        return Sketch()
    if not shapes:
        return Sketch()
    digest = hashlib.sha256(json.dumps(shapes).encode()).hexdigest()
    return Sketch(digest, tuple(float(f"{value:.6g}") for value in sums), tuple(tensors))


def _add(numbers: np.ndarray, position: int) -> np.ndarray:
    """Return the signed sums of one block; its signs depend on its place alone."""
    stream = np.random.Generator(np.random.PCG64(position))
    signs = np.unpackbits(np.frombuffer(stream.bytes(_BLOCK // 8), np.uint8))[: numbers.size]
    finite = np.nan_to_num(numbers.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    signed = np.where(signs == 1, finite, -finite)
    whole = np.zeros(-(-numbers.size // SUMS) * SUMS)
    whole[: signed.size] = signed
    sums: np.ndarray = whole.reshape(-1, SUMS).sum(axis=0)
    return sums
