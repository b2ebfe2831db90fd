"""What a row of the table is, and how it is judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from tests.hostile_models.job import LARGE, Case

Outcome = Literal["block", "review", "clean"]


@dataclass(frozen=True)
class Row:
    """One hostile output.

    ``make`` spoils a copy of the honest job. ``provable`` says, written before it was measured,
    whether a scan of the files and of the network's answers can prove what is wrong; ``why`` is
    the reason. ``rules`` are the rules of which at least one must say so. ``expect`` is the least
    that must come of it: "clean" means that what leaves was made anew and ``gone`` shows that
    the payload is not in it. ``static`` rows are judged by the files alone: the network of the
    submission is not asked, or no other than the honest one. ``bare`` attacks the inspection's
    process and is first shown to take effect where there is no sandbox.
    ``light`` rows are found before the attacks on the network begin: these, which would only add
    findings and take most of the time, are left out. ``patience`` is how long one answer is waited
    for, in seconds.
    """

    name: str
    make: Callable[[Case], Any]
    rules: tuple[str, ...]
    provable: bool = True
    why: str = ""
    expect: Outcome = "block"
    static: bool = True
    quick: bool = False
    light: bool = False
    patience: float = 60.0
    group: str = ""
    policy: Mapping[str, Any] = field(default_factory=dict)
    gone: Callable[[Case, Any], bool] | None = None
    bare: Callable[..., Any] | None = None

    def spoil(self, case: Case) -> Case:
        """Make the row out of a copy of the honest job."""
        case = replace(case, policy=dict(self.policy))
        self.make(case)
        return case


def of(group: str, why: str, rows: Iterable[Row]) -> list[Row]:
    """Return the rows as belonging to a group; ``why`` is the reason of those that give none."""
    return [replace(row, group=group, why=row.why or why) for row in rows]


def encrypted(count: int, seed: int = 11) -> NDArray[np.uint8]:
    """Return bytes that nobody can tell from noise, as of an encrypted file."""
    return np.random.default_rng(seed).integers(0, 256, count, dtype=np.uint8)


def text(count: int) -> NDArray[np.uint8]:
    """Return so many bytes of a table in plain words."""
    lines = (f"subject {n:04d} of site {n % 7}, born 19{n % 60 + 30}, a lesion on the left; "
             for n in range(10**9))  # fmt: skip
    whole = b""
    while len(whole) < count:
        whole += next(lines).encode()
    return np.frombuffer(whole[:count], np.uint8)


BITS = {torch.float32: torch.int32, torch.float16: torch.int16, torch.bfloat16: torch.int16,
        torch.int8: torch.int8}  # fmt: skip


def low_bits(tensor: torch.Tensor, payload: NDArray[np.uint8], width: int) -> torch.Tensor:
    """Return the tensor with the payload in the lowest ``width`` bits, from its start on."""
    codes = tensor.contiguous().view(BITS[tensor.dtype]).numpy().reshape(-1).copy()
    bits = np.unpackbits(payload, bitorder="little").reshape(-1, width)
    values = (bits << np.arange(width)).sum(axis=1)[: len(codes)].astype(codes.dtype)
    mask = codes.dtype.type((1 << width) - 1)
    codes[: len(values)] = (codes[: len(values)] & ~mask) | values
    return torch.from_numpy(codes).view(tensor.dtype).reshape(tensor.shape)


def put(
    values: NDArray[Any], *, dtype: torch.dtype = torch.bfloat16, name: str = LARGE, at: int = 5003
) -> Callable[[Case], None]:
    """Return what writes numbers over live weights, from one place on."""

    def make(case: Case) -> None:
        state = case.state(dtype)
        overwrite(state[name], values, at)
        case.save(state)

    return make


def overwrite(tensor: torch.Tensor, values: NDArray[Any] | Sequence[float], at: int) -> None:
    """Write numbers over a tensor's, in their order."""
    flat = tensor.view(-1)
    given = torch.from_numpy(np.ascontiguousarray(np.asarray(values).reshape(-1), np.float32))
    assert at + len(given) <= len(flat), "the payload fits"
    flat[at : at + len(given)] = given.to(tensor.dtype)
