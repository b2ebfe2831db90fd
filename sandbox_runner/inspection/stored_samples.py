"""Search everything that a job left for training samples, and say what was found.

Three ways: pieces byte for byte (chunks), rows in any scale and type (rows), whole pictures by
likeness. None proves absence: compressed or encrypted copies are found by no search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from policies.findings import Finding
from sandbox_runner.inspection import payloads, samples
from sandbox_runner.inspection.chunks import ChunkIndex
from sandbox_runner.inspection.likeness import LikenessIndex
from sandbox_runner.inspection.rows import RowIndex
from sandbox_runner.inspection.safetensors_file import Header, stored, values

#: One window of 33 pixels may be chance of a smooth tensor; so many of one sample are not.
BLOCK_WINDOWS: Final = 3
BLOCK_LIKENESS: Final = 0.95
REVIEW_LIKENESS: Final = 0.85
#: Pictures that were interleaved, as colours are or to hide them.
STRIDES: Final = (2, 3, 4)
_STRIDED_ELEMENTS: Final = 1 << 26
_OTHER_BYTES: Final = 256 * 1024 * 1024
_SHOWN: Final = 20
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


class Search:
    """The index of the training samples, and the search of each file against it."""

    def __init__(self, datasets: Mapping[str, Path], size: tuple[int, int]) -> None:
        training = samples.choose(datasets)
        self.total, self.members, self.unreadable = training.total, training.members, 0
        self._chunks, self._rows, self._likeness = ChunkIndex(), RowIndex(), LikenessIndex()
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
        self._chunks.close()
        self._rows.close()
        self._likeness.close()

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

    def weights(self, path: Path, header: Header, artefact: str) -> list[Finding]:
        """Return the findings on one weights file that the strict reader has accepted."""
        chunks, rows = _Hits(), _Hits()
        pictures: list[tuple[str, int, float]] = []
        findings: list[Finding] = []
        data = np.memmap(path, dtype=np.uint8, mode="r", offset=header.data_start)
        self._search_bytes(data, "data", chunks)
        findings += payloads.check_bytes(data, artefact, "data")
        low_planes: dict[str, list[NDArray[np.uint8]]] = {}
        lines: list[NDArray[np.float32]] = []
        for tensor in header.tensors:
            array = stored(path, header, tensor)
            findings += payloads.check_numbers(tensor.dtype, array, artefact, tensor.name)
            if tensor.dtype in _FLOATS:
                for name, stream in payloads.hidden_streams(array):
                    low_planes.setdefault(name, []).append(stream)
            numbers = values(path, header, tensor)
            lines.append(numbers.reshape(-1))
            likeness = self._likeness.search(numbers)
            if likeness is not None and likeness.correlation >= REVIEW_LIKENESS:
                pictures.append((tensor.name, likeness.sample, likeness.correlation))
        for name, streams in low_planes.items():
            for stream in streams if len(streams) > 1 else ():
                self._search_bytes(stream, name, chunks)
            joined = np.concatenate(streams)
            self._search_bytes(joined, name, chunks)
            findings += payloads.check_bytes(joined, artefact, name)
        # One line of all tensors: a picture cut at tensors' ends stays one picture.
        line = np.concatenate(lines)
        self._search_rows(line, rows)
        for stride in STRIDES if len(line) <= _STRIDED_ELEMENTS else ():
            for start in range(stride):
                self._search_rows(np.ascontiguousarray(line[start::stride]), rows)
        for width in {tensor.shape[-1] for tensor in header.tensors if len(tensor.shape) == 2}:
            turned = [
                values(path, header, tensor).T.reshape(-1)
                for tensor in header.tensors
                if len(tensor.shape) == 2 and tensor.shape[-1] == width
            ]
            self._search_rows(np.ascontiguousarray(np.concatenate(turned)), rows)
        return [*findings, *self._judge(artefact, chunks, rows, pictures)]

    def other(self, path: Path, artefact: str, shown: str) -> list[Finding]:
        """Return the findings on any other file, searched as bytes and as numbers."""
        chunks, rows = _Hits(), _Hits()
        size = min(path.stat().st_size, _OTHER_BYTES)
        if size == 0:
            return []
        data = np.memmap(path, dtype=np.uint8, mode="r", shape=(size,))
        self._search_bytes(data, shown, chunks)
        for kind in ("<f4", "<f8", "<f2", "|u1", "<u2"):
            width = np.dtype(kind).itemsize
            for start in range(width):
                part = np.asarray(data[start : start + (size - start) // width * width])
                with np.errstate(over="ignore", invalid="ignore"):
                    line = part.view(kind).astype(np.float32)
                self._search_rows(np.nan_to_num(line, nan=0.0, posinf=0.0, neginf=0.0), rows)
        return self._judge(artefact, chunks, rows, [])

    def _search_bytes(self, stream: NDArray[np.uint8], where: str, hits: _Hits) -> None:
        for match in self._chunks.search(stream):
            hits.add(
                match.sample,
                match.chunks,
                where=where,
                encoding=match.encoding,
                offset=match.first_offset,
            )

    def _search_rows(self, line: NDArray[np.float32], hits: _Hits) -> None:
        for match in self._rows.search(line):
            hits.add(match.sample, match.windows, match.correlation, offset=match.first_offset)

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
