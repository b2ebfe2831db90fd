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
#: Rows and small tensors that are drawn, with replacement, and as many columns and small tensors: a
#: dead row is crossed by live columns. If a thirtieth of the bytes is in dead rows, all questions
#: miss it in one inspection of forty.
QUESTIONS: Final = 108
#: Fewer than this of either are too few.
ENOUGH: Final = 36
#: No further part is asked after so long, or after so many bytes were sent.
SECONDS: Final = 60.0
SENT_BYTES: Final = 2 * 1024**3
#: Where at least this share is dead, by the lower end of its interval, it must be set to zero.
BLOCK_SHARE: Final = 0.3
#: Less than this, 11 of 108 questions, is what pruning leaves, and only told.
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
    # In turns: where time ends them, both have been asked about.
    rows, columns = (_drawn(others, alive, axis) for axis in (0, 1))
    drawn = list(zip(rows, columns, strict=True))
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


def _drawn(tensors: list[Tensor], alive: Collection[str], axis: int) -> list[Part]:
    """Return parts drawn by their bytes: small tensors, and rows (0) or columns (1) of live ones.

    Of a tensor that has only one axis it is that one.
    """
    # Unpredictable: what would be asked must not be known to who writes the weights.
    rng = np.random.default_rng()
    sizes = np.array([t.count * SIZES[t.dtype] for t in tensors], dtype=np.float64)
    if not len(tensors):
        return []
    parts = []
    for number in rng.choice(len(tensors), size=QUESTIONS, p=sizes / sizes.sum()).tolist():
        tensor = tensors[number]
        axes = [each for each in (axis, 1 - axis) if _sides(tensor, each) > 1]
        if tensor.name not in alive or not axes:
            parts.append(Part(tensor))
            continue
        start = int(rng.integers(tensor.shape[axes[0]]))
        parts.append(Part(tensor, axes[0], start, start + 1))
    return parts


def _sides(tensor: Tensor, axis: int) -> int:
    return tensor.shape[axis] if axis < len(tensor.shape) else 1


def _parts(
    oracle: Oracle,
    path: Path,
    header: Header,
    drawn: list[tuple[Part, Part]],
    pictures: NDArray[np.float32],
    before: NDArray[np.float32],
    artefact: str,
) -> list[Finding]:
    """Ask about each part; return a finding where some change nothing and are not constant.

    ``drawn`` are rows with columns; the larger of their dead shares counts.
    """
    until, sent, asked = time.monotonic() + SECONDS, 0, 0
    dead: tuple[list[Part], list[Part]] = ([], [])
    answers: dict[Part, bool] = {}
    for pair in drawn:
        if time.monotonic() > until or sent > SENT_BYTES:
            break
        asked += 1
        for part, of_them in zip(pair, dead, strict=True):
            if part not in answers:
                whole = stored(path, header, part.tensor).reshape(part.tensor.shape)
                answers[part], bytes_sent = _lives(oracle, part, whole, pictures, before)
                sent += bytes_sent
            if not answers[part]:
                of_them.append(part)
    most = max(dead, key=len)
    if not most and asked >= min(ENOUGH, len(drawn)):
        return []
    if not most:
        return [
            Finding(
                "tensors.parts-unasked",
                "review",
                artefact,
                "The network answers too slowly to ask about enough rows and columns.",
                {"asked": asked, "of": len(drawn)},
            )
        ]
    least = _least_share(len(most), asked)
    whole_bytes = sum(t.count * SIZES[t.dtype] for t in header.tensors)
    blocks = least > BLOCK_SHARE and least * whole_bytes > BLOCK_BYTES
    return [
        Finding(
            "tensors.dead-parts",
            "block" if blocks else "review" if least > REVIEW_SHARE else "info",
            artefact,
            "Rows or columns of tensors, or small tensors, do not influence what the network "
            "answers: leave them out, or set them to 0.",
            {"asked": asked, "dead": len(most), "least_share": round(least, 2)},
            {
                "parts": [
                    {"tensor": p.tensor.name, "axis": p.axis, "start": p.start} for p in most[:20]
                ]
            },
        )
    ]


def _lives(
    oracle: Oracle,
    part: Part,
    whole: NDArray[Any],
    pictures: NDArray[np.float32],
    before: NDArray[np.float32],
) -> tuple[bool, int]:
    """Return whether a part changes an answer, or holds nothing; and the bytes sent to ask."""
    own, sent = np.array(part.of(whole)), 0
    # Zeros and ones hold nothing; another number, be it the same everywhere, does.
    if own.size > 1 and holds_nothing(own, part.tensor.dtype):
        return True, sent
    live = False
    for changed in _variants(own, part.tensor.dtype, _size(whole, part.tensor.dtype)):
        oracle.put(_fact(part.tensor), changed, part.place)
        sent += own.nbytes
        live = _changed(oracle, pictures, before)
        if live:
            break
    oracle.put(_fact(part.tensor), own, part.place)
    return live, sent


def _least_share(hits: int, asked: int) -> float:
    """Return the lower end of Wilson's interval (95 %, one-sided) of a share."""
    z, share = 1.645, hits / asked
    middle = share + z * z / (2 * asked)
    spread = z * math.sqrt(share * (1 - share) / asked + z * z / (4 * asked * asked))
    return max(0.0, (middle - spread) / (1 + z * z / asked))
