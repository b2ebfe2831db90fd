"""Search everything that a job left for training samples, and say what was found.

Three ways: pieces byte for byte (chunks), rows in any scale and type (rows), whole pictures by
likeness. None proves absence: compressed or encrypted copies are found by no search.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from policies.findings import Finding
from sandbox_runner.inspection import anywhere, payloads, samples
from sandbox_runner.inspection.anywhere import MOST_NUMBERS, AnywhereIndex
from sandbox_runner.inspection.chunks import ChunkIndex, Match
from sandbox_runner.inspection.distributions import Distribution
from sandbox_runner.inspection.likeness import LikenessIndex
from sandbox_runner.inspection.rows import STEPS, WINDOWS_A_SAMPLE, RowIndex, RowMatch
from sandbox_runner.inspection.safetensors_file import Header, Tensor, stored, widened
from sandbox_runner.inspection.streams import (
    ELEMENTS,
    PACKED,
    Stream,
    Strided,
    Together,
    byte_streams,
)

#: One window of 33 pixels may be chance of a smooth tensor; so many of one sample are not.
BLOCK_WINDOWS: Final = 3
BLOCK_LIKENESS: Final = 0.95
REVIEW_LIKENESS: Final = 0.85
#: Pictures that were interleaved, as colours are or to hide them.
STRIDES: Final = (2, 3, 4)
#: In files that are small enough to pass by their size, farther apart as well.
SHORT_STRIDES: Final = tuple(range(2, 17))
#: Of the time that a file takes, what its lines and bytes take; its matrices' columns the rest.
_FLAT_SHARE: Final = 0.8
_OTHER_BYTES: Final = 256 * 1024 * 1024
#: As which numbers a file of no known kind is read, from each of their bytes on; and how many bytes
#: at once, a multiple of the widest.
_ANY_NUMBERS: Final = ("<f4", "<f8", "<f2", "|u1", "<u2")
_WIDEST: Final = 8
_OTHER_BLOCK: Final = 1 << 20
_SHOWN: Final = 20
#: So many curves of so many points are a picture; fewer are a training.
LEAST_CURVES: Final = 20
_LARGEST: Final = 1e30
_MANY_SAMPLES: Final = 500
_FLOATS: Final = ("F64", "F32", "F16", "BF16")


@dataclass
class _Hits:
    """What one way of searching found in one artefact."""

    samples: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    total: int = 0
    best: float = 0.0

    def add(self, sample: int, count: int, value: float = 0.0, **where: Any) -> None:
        self.samples.setdefault(sample, []).append({**where, "count": count})
        self.total += count
        self.best = max(self.best, value)

    def add_chunks(self, matches: Sequence[Match], where: str) -> None:
        for match in matches:
            self.add(
                match.sample,
                match.chunks,
                where=where,
                encoding=match.encoding,
                offset=match.first_offset,
            )

    def add_rows(self, matches: Sequence[RowMatch]) -> None:
        for match in matches:
            self.add(match.sample, match.windows, match.correlation, offset=match.first_offset)


class _Reading:
    """One weights file on its way through the searches, as lines of bytes and of numbers.

    The lines go on from tensor to tensor: a picture cut at tensors' ends stays one picture.
    """

    def __init__(self, chunks: ChunkIndex, rows: RowIndex, together: Together, short: bool) -> None:
        self._chunks, self._rows, self._together = chunks, rows, together
        self._bytes: dict[str, Stream] = {}
        self._lines = [self._line()]
        self._strided = [
            Strided(self._line(), start, stride)
            for stride in (SHORT_STRIDES if short else STRIDES)
            for start in range(stride)
        ]

    def _line(self) -> Stream:
        return Stream(self._together, self._rows.hits, STEPS)

    def _of_bytes(self, name: str, text: bool) -> Stream:
        if name not in self._bytes:

            def search(block: NDArray[np.uint8], start: int) -> list[Any]:
                marks = payloads.marks(block, start, text, not name.startswith(PACKED))
                return [*self._chunks.hits(block, start), *marks]

            self._bytes[name] = Stream(self._together, search, payloads.OVERLAP)
        return self._bytes[name]

    def feed(self, tensor: Tensor, block: NDArray[Any]) -> None:
        """Take the next stored elements of a tensor."""
        self._of_bytes("data", True).feed(block.view(np.uint8))
        if tensor.dtype in (*_FLOATS, "I8", "U8"):
            for name, part in byte_streams(block):
                # The signs and exponents of positive numbers run like letters.
                top = name == f"byte {block.itemsize - 1}"
                self._of_bytes(f"{name} of {block.itemsize}", not top).feed(part)
        if not self._rows.empty:
            numbers = widened(block, tensor.dtype)
            self._lines[0].feed(numbers)
            for each in self._strided:
                each.feed(numbers)

    def turned(self, path: Path, header: Header, progress: Callable[[float], None]) -> None:
        """Read the columns of matrices: pictures may stand there, those of one width together.

        Filters are matrices, too: of all their numbers, and of those of each kernel.
        """
        lines: dict[int, Stream] = {}
        matrices = [(t, sides) for t in header.tensors for sides in _matrices(t.shape)]
        whole, done = max(1, sum(t.count for t, _ in matrices)), 0
        for tensor, sides in matrices if not self._rows.empty else ():
            line = lines.setdefault(sides[1], self._line())
            matrix = stored(path, header, tensor).reshape(sides)
            # At least a few cache lines of each row at once.
            step = max(64, ELEMENTS // sides[0])
            for first in range(0, sides[1], step):
                part = np.ascontiguousarray(matrix[:, first : first + step].T)
                for start in range(0, part.size, ELEMENTS):
                    flat = part.reshape(-1)[start : start + ELEMENTS]
                    line.feed(widened(flat, tensor.dtype))
                done += part.size
                progress(_FLAT_SHARE + (1 - _FLAT_SHARE) * done / whole)
        self._lines += lines.values()

    def end(self, artefact: str, chunks: _Hits, rows: _Hits) -> list[Finding]:
        """Finish every line; put the samples into ``chunks`` and ``rows``, return the rest."""
        lines = [*self._lines, *(each.stream for each in self._strided)]
        for stream in (*self._bytes.values(), *lines):
            stream.end()
        self._together.wait()
        findings: list[Finding] = []
        for name, stream in self._bytes.items():
            chunks.add_chunks(
                self._chunks.matches(hit for hit in stream.found if len(hit) == 2), name
            )
            marks = [hit for hit in stream.found if len(hit) == 3]
            findings += payloads.check_marks(marks, artefact, name)
        for stream in lines:
            rows.add_rows(self._rows.matches(stream.found))
        return findings


def _arrays(value: Any) -> list[NDArray[np.float32]]:
    """Return the lists of numbers and the matrices that a metric is made of."""
    if isinstance(value, Mapping):
        return [array for column in value.values() for array in _arrays(column)]
    if not isinstance(value, list) or not value:
        return []
    if isinstance(value[0], Mapping):
        names = sorted({str(name) for row in value if isinstance(row, Mapping) for name in row})
        columns = [[row.get(name) for row in value if isinstance(row, Mapping)] for name in names]
        return [array for column in columns for array in _arrays(column)]
    if isinstance(value[0], list):
        rows = [_line(row) for row in value if isinstance(row, list)]
        if len(rows) == len(value) and len({len(row) for row in rows}) == 1 and len(rows[0]):
            return [np.stack(rows)]
        return [row for row in rows if len(row)]
    return [_line(value)]


def _line(values: list[Any]) -> NDArray[np.float32]:
    numbers = [
        float(v) if isinstance(v, int | float) and abs(v) < _LARGEST else 0.0 for v in values
    ]
    return np.array(numbers, dtype=np.float32)


def _as_numbers(data: NDArray[np.uint8], kind: str) -> NDArray[np.float32]:
    width = np.dtype(kind).itemsize
    with np.errstate(over="ignore", invalid="ignore"):
        line = data[: len(data) // width * width].view(kind).astype(np.float32)
    return np.nan_to_num(line, copy=False, nan=0.0, posinf=0.0, neginf=0.0)


def _is_short(header: Header) -> bool:
    return sum(tensor.count for tensor in header.tensors) <= MOST_NUMBERS


def _matrices(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return the rows and columns of a tensor as one matrix, and as one of its kernels."""
    whole = math.prod(shape)
    each = {whole // math.prod(shape[at:]) for at in (1, 2) if at < len(shape)}
    return [(rows, whole // rows) for rows in sorted(each) if 1 < rows < whole]


class Search:
    """The index of the training samples, and the search of each file against it."""

    def __init__(self, datasets: Mapping[str, Path], size: tuple[int, int]) -> None:
        training = samples.choose(datasets)
        self.total, self.members, self.unreadable = training.total, training.members, 0
        # Fewer windows of each of very many samples, so that the index has a bound.
        windows = WINDOWS_A_SAMPLE if len(training.rows) <= _MANY_SAMPLES else WINDOWS_A_SAMPLE // 4
        self._chunks, self._rows = ChunkIndex(), RowIndex(windows_a_sample=windows)
        self._likeness = LikenessIndex()
        self._anywhere = AnywhereIndex()
        self._places: list[str] = []
        for sample in samples.read(training, size):
            if sample is None:
                self.unreadable += 1
                continue
            number = len(self._places)
            self._places.append(sample.place)
            self._chunks.add(number, sample)
            self._rows.add(number, sample)
            self._likeness.add(number, sample)
            self._anywhere.add(number, sample)
        self._chunks.close()
        self._rows.close()
        self._likeness.close()
        self._anywhere.close()

    def summary(self) -> Finding:
        """Return how much was searched; not readable samples could not be looked for."""
        severity = "review" if self.unreadable or not self._places else "info"
        return Finding(
            "samples.search",
            "review" if severity == "review" else "info",
            "",
            "Training samples were searched for in every file. No search proves that none is "
            "there: compressed or encrypted copies are not found.",
            {"searched": len(self._places), "of": self.total, "unreadable": self.unreadable},
        )

    def weights(
        self,
        path: Path,
        header: Header,
        artefact: str,
        progress: Callable[[float], None] = lambda _share: None,
    ) -> list[Finding]:
        """Return the findings on one weights file that the strict reader has accepted.

        ``progress`` is told the share done. The file is read in blocks, its bytes twice where it
        has matrices (their columns), so that its size costs time and no memory.
        """
        with Together() as together:
            reading = _Reading(self._chunks, self._rows, together, _is_short(header))
            findings: list[Finding] = []
            pictures: list[tuple[str, int, float]] = []
            whole: list[NDArray[np.float32]] | None = [] if _is_short(header) else None
            for tensor in header.tensors:
                kept = Distribution(tensor.dtype)
                flat = stored(path, header, tensor).reshape(-1)
                for start in range(0, len(flat), ELEMENTS):
                    block = np.array(flat[start : start + ELEMENTS])
                    kept.feed(block)
                    reading.feed(tensor, block)
                    if whole is not None and tensor.dtype in (*_FLOATS, "I8", "U8"):
                        numbers = widened(block, tensor.dtype)
                        whole.append(np.nan_to_num(numbers, posinf=0.0, neginf=0.0))
                    at = tensor.start + start * flat.itemsize
                    progress(_FLAT_SHARE * at / max(1, header.data_bytes))
                del flat
                findings += kept.findings(artefact, tensor.name)
                likeness = self._likeness.search(
                    stored(path, header, tensor), partial(widened, dtype=tensor.dtype)
                )
                if likeness is not None and likeness.correlation >= REVIEW_LIKENESS:
                    pictures.append((tensor.name, likeness.sample, likeness.correlation))
            if whole:
                findings += self._found_anywhere(artefact, np.concatenate(whole))
            reading.turned(path, header, progress)
            chunks, rows = _Hits(), _Hits()
            findings += reading.end(artefact, chunks, rows)
        return [*findings, *self._judge(artefact, chunks, rows, pictures)]

    def _found_anywhere(self, artefact: str, line: NDArray[np.float32]) -> list[Finding]:
        found = self._anywhere.search(line)
        if not found or anywhere.is_common(found, len(self._anywhere)):
            return []
        sure = found[0].correlation >= anywhere.BLOCK
        return [
            Finding(
                "samples.anywhere",
                "block" if sure else "review",
                artefact,
                "Numbers of the file follow a training sample, noisy or coarse as they may be."
                if sure
                else "Numbers of the file follow a training sample a little.",
                {"samples": len(found), "correlation": round(found[0].correlation, 2)},
                {
                    "pairs": [
                        {
                            "offset": place.offset,
                            "sample": self._places[place.sample],
                            "correlation": place.correlation,
                        }
                        for place in found[:_SHOWN]
                    ]
                },
                hard=sure,
            )
        ]

    def other(self, path: Path, artefact: str, shown: str) -> list[Finding]:
        """Return the findings on any other file, searched as bytes and as numbers."""
        size = min(path.stat().st_size, _OTHER_BYTES)
        if size == 0:
            return []
        data = np.memmap(path, dtype=np.uint8, mode="r", shape=(size,))
        return self.other_bytes(data, artefact, shown)

    def other_bytes(self, data: NDArray[np.uint8], artefact: str, shown: str) -> list[Finding]:
        """Return the findings on bytes that are no weights, as on another file."""
        chunks, rows = _Hits(), _Hits()
        with Together() as together:
            as_bytes = Stream(together, self._chunks.hits, payloads.OVERLAP)
            as_numbers = {
                (kind, start): Stream(together, self._rows.hits, STEPS)
                for kind in _ANY_NUMBERS
                for start in range(np.dtype(kind).itemsize)
            }
            for at in range(0, len(data), _OTHER_BLOCK):
                block = np.array(data[at : at + _OTHER_BLOCK + _WIDEST - 1])
                as_bytes.feed(block[:_OTHER_BLOCK])
                for (kind, start), line in as_numbers.items():
                    line.feed(_as_numbers(block[start : start + _OTHER_BLOCK], kind))
            for stream in (as_bytes, *as_numbers.values()):
                stream.end()
            together.wait()
            chunks.add_chunks(self._chunks.matches(as_bytes.found), shown)
            for line in as_numbers.values():
                rows.add_rows(self._rows.matches(line.found))
        return self._judge(artefact, chunks, rows, [])

    def numbers(self, metrics: Mapping[str, Any], artefact: str) -> list[Finding]:
        """Return the findings on metrics: their lists as lines, their matrices as pictures.

        Curves of one length beside each other are a matrix, too.
        """
        rows = _Hits()
        pictures: list[tuple[str, int, float]] = []
        curves: dict[int, list[NDArray[np.float32]]] = {}
        for name, value in metrics.items():
            for array in _arrays(value):
                self._search_rows(array.reshape(-1), rows)
                if array.ndim == 1:
                    curves.setdefault(len(array), []).append(array)
                else:
                    self._look_at(name, array, pictures)
        for same in curves.values():
            if len(same) >= LEAST_CURVES and len(same[0]) >= LEAST_CURVES:
                self._look_at("curves", np.stack(same), pictures)
        return self._judge(artefact, _Hits(), rows, pictures)

    def _look_at(
        self, name: str, array: NDArray[np.float32], pictures: list[tuple[str, int, float]]
    ) -> None:
        likeness = self._likeness.search(array)
        if likeness is not None and likeness.correlation >= REVIEW_LIKENESS:
            pictures.append((name, likeness.sample, likeness.correlation))

    def _search_rows(self, line: NDArray[np.float32], hits: _Hits) -> None:
        hits.add_rows(self._rows.search(line))

    def _judge(
        self,
        artefact: str,
        chunks: _Hits,
        rows: _Hits,
        pictures: Sequence[tuple[str, int, float]],
    ) -> list[Finding]:
        findings: list[Finding] = []
        if chunks.samples:
            findings.append(
                Finding(
                    "samples.stored",
                    "block",
                    artefact,
                    "Pieces of training samples are stored in the file, byte for byte.",
                    {"samples": len(chunks.samples), "pieces": chunks.total},
                    self._internal(chunks),
                    hard=True,
                )
            )
        if rows.samples:
            most = max(sum(hit["count"] for hit in hits) for hits in rows.samples.values())
            sure = most >= BLOCK_WINDOWS
            findings.append(
                Finding(
                    "samples.rows",
                    "block" if sure else "review",
                    artefact,
                    "Rows of training samples stand in the file, rescaled or in another type."
                    if sure
                    else "A few numbers of the file run like a row of a training sample.",
                    {
                        "samples": len(rows.samples),
                        "rows": rows.total,
                        "correlation": round(rows.best, 2),
                    },
                    self._internal(rows),
                    hard=sure,
                )
            )
        if pictures:
            best = max(value for _, _, value in pictures)
            sure = best >= BLOCK_LIKENESS
            findings.append(
                Finding(
                    "samples.likeness",
                    "block" if sure else "review",
                    artefact,
                    "A tensor, viewed as a picture, is a training sample."
                    if sure
                    else "A tensor, viewed as a picture, is like a training sample.",
                    {"tensors": len({name for name, _, _ in pictures}),
                     "correlation": round(best, 2)},
                    {
                        "pairs": [
                            {"tensor": name, "sample": self._places[number], "correlation": value}
                            for name, number, value in pictures[:_SHOWN]
                        ]
                    },
                    hard=sure,
                )
            )  # fmt: skip
        return findings

    def _internal(self, hits: _Hits) -> dict[str, Any]:
        shown = sorted(hits.samples.items(), key=lambda item: -item[1][0]["count"])[:_SHOWN]
        return {"samples": [{"sample": self._places[n], "hits": h[:5]} for n, h in shown]}
