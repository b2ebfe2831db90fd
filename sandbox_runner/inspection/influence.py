"""Find what changes nothing: a place where data could lie and the network not notice.

Each large tensor in turn is disturbed and the answers compared. Then rows, columns and small
tensors are, drawn by chance in proportion to their bytes: of so few questions it is known how large
a share can have been missed, and nobody knows before which are asked. Units that real pictures do
not wake are common in trained networks, so strange pictures are asked as well, and a small share of
dead parts is only told. A network that was written to feign an influence is not caught by this; the
search and the budget are there for it as well.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from policies.findings import Finding
from policies.tensors import TensorFact
from sandbox_runner.inspection.safetensors_file import (
    NUMPY,
    SIZES,
    Header,
    Tensor,
    stored,
    values,
    widened,
)
from sandbox_runner.oracle import Oracle, OracleFault

PICTURES: Final = 8
#: Only the largest are tried one by one; together, the rest could hold little.
MOST_TENSORS: Final = 200
LEAST_ELEMENTS: Final = 32
#: Unused parts smaller than this are looked at by reviewers; larger ones must be removed.
BLOCK_BYTES: Final = 16 * 1024
#: Rows, columns and small tensors that are drawn, with replacement. If a twentieth of the bytes is
#: dead, all questions miss it in one inspection of forty.
QUESTIONS: Final = 72
#: Fewer than this are too few.
ENOUGH: Final = 36
#: No further part is asked after so long, or after so many bytes were sent.
SECONDS: Final = 60.0
SENT_BYTES: Final = 2 * 1024**3
#: Where at least this share is dead, by the lower end of its interval, it must be set to zero.
BLOCK_SHARE: Final = 0.3
#: Less than this, eight of 72 questions, is what pruning leaves, and only told.
REVIEW_SHARE: Final = 0.06
#: So many counters that differ are a place for data; those of BatchNorm agree.
COUNTERS: Final = 4
#: And they are no larger than a training counts: four of 2^24 batches.
COUNTER_BITS: Final = 96
_FLOATS: Final = ("F64", "F32", "F16", "BF16")
_QUANTISED: Final = ("I8", "U8")


@dataclass(frozen=True)
class Part:
    """A whole tensor (``axis`` None), or the rows or columns of one from ``start`` to ``end``."""

    tensor: Tensor
    axis: int | None = None
    start: int = 0
    end: int = 0

    @property
    def place(self) -> tuple[int, int, int] | None:
        """Axis, start and length, or None for the whole."""
        return None if self.axis is None else (self.axis, self.start, self.end - self.start)

    def of(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the part's view of the whole tensor's array."""
        if self.axis is None:
            return array
        return array[(slice(None),) * self.axis + (slice(self.start, self.end),)]


def _disturbed(array: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    """Return the numbers with noise of their own size, in the stored type."""
    rng = np.random.default_rng(array.size)
    finite = np.nan_to_num(array, nan=0.0, posinf=0.0, neginf=0.0)
    size = float(finite.std()) or 1.0
    return _narrowed(finite + rng.normal(0.0, size, finite.shape).astype(np.float32), dtype)


def _narrowed(array: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    if dtype == "BF16":
        return (np.ascontiguousarray(array).view(np.uint32) >> 16).astype(np.uint16)
    with np.errstate(over="ignore"):
        return array.astype(NUMPY[dtype])


def _variants(own: NDArray[Any], dtype: str, size: float) -> Iterator[NDArray[Any]]:
    """Give a part disturbed: by noise of ``size``, upwards and downwards.

    Whole numbers change places, so that none is outside of what the network was given; where all
    are the same, each becomes its neighbour.
    """
    rng = np.random.default_rng()
    if dtype not in _FLOATS:
        same = bool((own == own.reshape(-1)[0]).all())
        yield own ^ 1 if same else rng.permutation(own.reshape(-1)).reshape(own.shape)
        return
    numbers = np.nan_to_num(widened(own, dtype))
    for shift in (rng.normal(0.0, size, own.shape), size, -size):
        yield _narrowed(np.asarray(numbers + shift, dtype=np.float32), dtype)


def holds_nothing(own: NDArray[Any], dtype: str) -> bool:
    """Whether all stored numbers are zero, or all are one."""
    first = own.reshape(-1)[0]
    return bool(widened(first.reshape(1), dtype)[0] in (0.0, 1.0) and (own == first).all())


def _size(whole: NDArray[Any], dtype: str) -> float:
    """Return three times the deviation of some numbers of a tensor."""
    flat = whole.reshape(-1)
    some = np.nan_to_num(widened(flat[:: max(1, len(flat) // 65536)], dtype))
    return 3 * (float(some.std()) or 1.0)


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
    """Return findings where tensors, or parts of them, have no influence on the network's answers.

    ``constants`` are tensors of zeros or of ones, which hold nothing and are left out. Raises
    OracleFault.
    """
    settle(oracle, path, header)
    before = oracle.predict(pictures)
    wanted = [
        t
        for t in header.tensors
        if t.dtype in _FLOATS and t.count >= LEAST_ELEMENTS and t.name not in constants
    ]
    wanted = sorted(wanted, key=lambda t: -t.count)[:MOST_TENSORS]
    dead: list[Tensor] = []
    for tensor in wanted:
        oracle.put(_fact(tensor), _disturbed(values(path, header, tensor), tensor.dtype))
        changed = _changed(oracle, pictures, before)
        oracle.put(_fact(tensor), np.asarray(stored(path, header, tensor)))
        if not changed:
            dead.append(tensor)
    alive = {t.name for t in wanted} - {t.name for t in dead}
    told = {t.name for t in dead} | set(constants)
    others = [t for t in header.tensors if t.name not in told and not _counts(t)]
    findings = _whole(dead, artefact)
    findings += _counters(path, header, artefact)
    drawn = _drawn(others, alive)
    more = np.concatenate([pictures, strange(pictures)])
    try:
        answers = oracle.predict(more)
    except OracleFault as fault:
        if fault.reason != "not-finite":
            raise
        more, answers = pictures, before
    return findings + _parts(oracle, path, header, drawn, more, answers, artefact)


def settle(oracle: Oracle, path: Path, header: Header) -> None:
    """Put a tensor in its own place: from then on, the same numbers give the same bits.

    A graph whose tensors may be replaced adds them up in another order than before.
    """
    tensor = min(header.tensors, key=lambda each: each.count)
    oracle.put(_fact(tensor), np.asarray(stored(path, header, tensor)))


def _fact(tensor: Tensor) -> TensorFact:
    return TensorFact(tensor.name, tensor.shape, tensor.dtype)


def strange(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return pictures outside of what a network was trained on: inverted, stretched and noise."""
    noise = np.random.default_rng().normal(0.0, 2.0, pictures.shape)
    return np.concatenate([-2 * pictures, 4 * pictures - 2, noise.astype(np.float32)])


def _whole(dead: list[Tensor], artefact: str) -> list[Finding]:
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


def _counts(tensor: Tensor) -> bool:
    """Whether it is a few whole numbers, as BatchNorm's counters, which no answer depends on.

    Those of eight bits are weights of a small layer: the network is asked about them.
    """
    return tensor.dtype not in (*_FLOATS, *_QUANTISED) and tensor.count < LEAST_ELEMENTS


def _counters(path: Path, header: Header, artefact: str) -> list[Finding]:
    """Return a finding where small whole numbers, which only count batches, are of many values."""
    small = [t for t in header.tensors if _counts(t)]
    different = {
        int(number) for t in small for number in stored(path, header, t).reshape(-1).tolist()
    }
    bits = sum(number.bit_length() for number in different)
    if len(different) <= COUNTERS and bits <= COUNTER_BITS and min(different, default=0) >= 0:
        return []
    return [
        Finding(
            "tensors.counters",
            "review",
            artefact,
            "Counters beside the weights have many different values, or such as nothing counts to; "
            "those of one training agree.",
            {"values": len(different), "bits": bits, "tensors": len(small)},
            {"names": [t.name for t in small[:20]]},
        )
    ]


def _drawn(tensors: list[Tensor], alive: Collection[str]) -> list[Part]:
    """Return parts drawn by their bytes: rows or columns of live tensors, and small tensors."""
    # Unpredictable: what would be asked must not be known to who writes the weights.
    rng = np.random.default_rng()
    sizes = np.array([t.count * SIZES[t.dtype] for t in tensors], dtype=np.float64)
    if not len(tensors):
        return []
    parts = []
    for number in rng.choice(len(tensors), size=QUESTIONS, p=sizes / sizes.sum()).tolist():
        tensor = tensors[number]
        axes = [axis for axis in (0, 1) if axis < len(tensor.shape) and tensor.shape[axis] > 1]
        if tensor.name not in alive or not axes:
            parts.append(Part(tensor))
            continue
        axis = int(rng.choice(axes))
        start = int(rng.integers(tensor.shape[axis]))
        parts.append(Part(tensor, axis, start, start + 1))
    return parts


def _parts(
    oracle: Oracle,
    path: Path,
    header: Header,
    drawn: list[Part],
    pictures: NDArray[np.float32],
    before: NDArray[np.float32],
    artefact: str,
) -> list[Finding]:
    """Ask about each part; return a finding where some change nothing and are not constant."""
    until, sent, asked = time.monotonic() + SECONDS, 0, 0
    dead: list[Part] = []
    answers: dict[Part, bool] = {}
    for part in drawn:
        if time.monotonic() > until or sent > SENT_BYTES:
            break
        asked += 1
        if part not in answers:
            whole = stored(path, header, part.tensor).reshape(part.tensor.shape)
            own = np.array(part.of(whole))
            # Zeros and ones hold nothing; another number, be it the same everywhere, does.
            if own.size > 1 and holds_nothing(own, part.tensor.dtype):
                answers[part] = True
                continue
            live = False
            for changed in _variants(own, part.tensor.dtype, _size(whole, part.tensor.dtype)):
                oracle.put(_fact(part.tensor), changed, part.place)
                sent += own.nbytes
                live = _changed(oracle, pictures, before)
                if live:
                    break
            oracle.put(_fact(part.tensor), own, part.place)
            answers[part] = live
        if not answers[part]:
            dead.append(part)
    if not dead and asked >= min(ENOUGH, len(drawn)):
        return []
    if not dead:
        return [
            Finding(
                "tensors.parts-unasked",
                "review",
                artefact,
                "The network answers too slowly to ask about enough rows and columns.",
                {"asked": asked, "of": len(drawn)},
            )
        ]
    least = _least_share(len(dead), asked)
    whole_bytes = sum(t.count * SIZES[t.dtype] for t in header.tensors)
    blocks = least > BLOCK_SHARE and least * whole_bytes > BLOCK_BYTES
    return [
        Finding(
            "tensors.dead-parts",
            "block" if blocks else "review" if least > REVIEW_SHARE else "info",
            artefact,
            "Rows or columns of tensors, or small tensors, do not influence what the network "
            "answers: leave them out, or set them to 0.",
            {"asked": asked, "dead": len(dead), "least_share": round(least, 2)},
            {
                "parts": [
                    {"tensor": p.tensor.name, "axis": p.axis, "start": p.start} for p in dead[:20]
                ]
            },
        )
    ]


def _least_share(hits: int, asked: int) -> float:
    """Return the lower end of Wilson's interval (95 %, one-sided) of a share."""
    z, share = 1.645, hits / asked
    middle = share + z * z / (2 * asked)
    spread = z * math.sqrt(share * (1 - share) / asked + z * z / (4 * asked * asked))
    return max(0.0, (middle - spread) / (1 + z * z / asked))
