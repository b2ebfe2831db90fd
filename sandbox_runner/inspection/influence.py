"""Find tensors that change nothing: a place where data could lie and the network not notice.

Each tensor in turn is disturbed and the answers compared. A network that was written to feign an
influence is not caught by this; the search and the budget are there for it as well.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from policies.findings import Finding
from policies.tensors import TensorFact
from sandbox_runner.inspection.safetensors_file import SIZES, Header, Tensor, stored, values
from sandbox_runner.oracle import Oracle, OracleFault

PICTURES: Final = 8
#: Only the largest are tried one by one; together, the rest could hold little.
MOST_TENSORS: Final = 200
LEAST_ELEMENTS: Final = 32
#: Unused parts smaller than this are looked at by reviewers; larger ones must be removed.
BLOCK_BYTES: Final = 16 * 1024
_FLOATS: Final = ("F64", "F32", "F16", "BF16")


def _disturbed(array: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    """Return the numbers with noise of their own size, in the stored type."""
    rng = np.random.default_rng(array.size)
    finite = np.nan_to_num(array, nan=0.0, posinf=0.0, neginf=0.0)
    size = float(finite.std()) or 1.0
    noisy = (finite + rng.normal(0.0, size, finite.shape)).astype(np.float32)
    if dtype == "BF16":
        return (noisy.view(np.uint32) >> 16).astype(np.uint16)
    return noisy


def _changed(oracle: Oracle, pictures: NDArray[np.float32], before: NDArray[np.float32]) -> bool:
    try:
        after = oracle.predict(pictures)
    except OracleFault as fault:
        # A disturbed variance below zero gives NaN: that is an influence, too.
        if fault.reason == "not-finite":
            return True
        raise
    return not np.array_equal(after, before)


def check(
    oracle: Oracle,
    path: Path,
    header: Header,
    constants: Collection[str],
    pictures: NDArray[np.float32],
    artefact: str,
) -> list[Finding]:
    """Return a finding where tensors of the loaded network have no influence on its answers.

    Tensors of one single value hold nothing and are left out. Raises OracleFault.
    """
    before = oracle.predict(pictures)
    wanted = [
        t
        for t in header.tensors
        if t.dtype in _FLOATS and t.count >= LEAST_ELEMENTS and t.name not in constants
    ]
    wanted = sorted(wanted, key=lambda t: -t.count)[:MOST_TENSORS]
    dead: list[Tensor] = []
    for tensor in wanted:
        fact = TensorFact(tensor.name, tensor.shape, tensor.dtype)
        oracle.put(fact, _disturbed(values(path, header, tensor), tensor.dtype))
        changed = _changed(oracle, pictures, before)
        oracle.put(fact, np.asarray(stored(path, header, tensor)))
        if not changed:
            dead.append(tensor)
    if not dead:
        return []
    size = sum(t.count * SIZES[t.dtype] for t in dead)
    return [
        Finding(
            "tensors.dead",
            "block" if size > BLOCK_BYTES else "review",
            artefact,
            "Tensors do not influence what the network answers: leave them out, or set them to 0.",
            {"tensors": len(dead), "bytes": size},
            {"names": [t.name for t in dead[:20]]},
        )
    ]
