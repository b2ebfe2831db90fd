"""Signs of bytes in tensors that no training puts there, and the streams in which bytes may hide.

Encrypted bytes in the low bits of float32 cannot be told from noise; only a smaller type and a
budget meet those. What is told here is the careless rest.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from policies.findings import Finding

LEAST_ELEMENTS: Final = 4096
#: Chi-square by degree of freedom of the lowest byte; 1 is expected, with a spread of 0.09.
UNEVEN: Final = 4.0
ONE_VALUE_SHARE: Final = 0.3
TEXT_RUN: Final = 64

# Long enough that noise of a gigabyte does not hold one by chance.
_MAGIC = {
    "a PNG picture": b"\x89PNG\r\n\x1a\n",
    "a JPEG picture": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00",
    "a DICOM file": bytes(16) + b"DICM\x02\x00",
    "a zip archive": b"PK\x03\x04\x14\x00\x00\x00",
    "an HDF5 file": b"\x89HDF\r\n\x1a\n",
    "a pickle of torch": b"ctorch._utils\n_rebuild",
}
_TEXT = re.compile(rb"[\x20-\x7e\r\n\t]{%d,}" % TEXT_RUN)
_UNSIGNED = {8: "<u8", 4: "<u4", 2: "<u2"}


def hidden_streams(array: NDArray[Any]) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Give, of a floating tensor's stored elements, the byte streams of its lowest bits."""
    width = array.dtype.itemsize
    if width not in _UNSIGNED:
        return
    bits = np.ascontiguousarray(array).reshape(-1).view(_UNSIGNED[width])
    if width >= 4:
        yield "lowest byte", (bits & 0xFF).astype(np.uint8)
        yield "lowest two bytes", (bits & 0xFFFF).astype("<u2").view(np.uint8)
    planes = [("lowest", bits & (2**k - 1), k) for k in (1, 2, 4)]
    planes.append(("sign", bits >> (8 * width - 1), 1))
    for name, values, k in planes:
        each = 8 // k
        groups = values[: len(values) // each * each].astype(np.uint8).reshape(-1, each)
        little, big = (np.zeros(len(groups), np.uint8) for _ in range(2))
        for position in range(each):
            little |= groups[:, position] << np.uint8(k * position)
            big |= groups[:, position] << np.uint8(8 - k * (position + 1))
        yield f"{name} {k} bits", little
        yield f"{name} {k} bits, first high", big


def _like_language(run: bytes) -> bool:
    """Whether letters change from place to place, as a counter's or a table's bytes do not."""
    different = sum(a != b for a, b in itertools.pairwise(run))
    return len(set(run)) >= 8 and different >= len(run) // 2


def check_bytes(stream: NDArray[np.uint8], artefact: str, where: str) -> list[Finding]:
    """Return findings on file headers and readable text among the bytes of tensors."""
    findings: list[Finding] = []
    whole: Any = stream  # searched in place: re takes any buffer
    magic = [words for words, start in _MAGIC.items() if re.search(re.escape(start), whole)]
    if magic:
        findings.append(
            Finding(
                "payload.file",
                "block",
                artefact,
                "The weights hold the beginning of another file.",
                {"kind": magic[0]},
                {"where": where},
                hard=True,
            )
        )
    texts = [match for match in _TEXT.finditer(whole) if _like_language(match.group())]
    if texts:
        findings.append(
            Finding(
                "payload.text",
                "block",
                artefact,
                "The weights hold readable text.",
                {"runs": len(texts), "longest": max(len(match.group()) for match in texts)},
                {"where": where},
            )
        )
    return findings


def check_numbers(dtype: str, array: NDArray[Any], artefact: str, name: str) -> list[Finding]:
    """Return findings on one tensor's distribution; ``array`` are its stored elements."""
    if array.size < LEAST_ELEMENTS or dtype not in ("F32", "F64"):
        return []
    findings: list[Finding] = []
    flat = np.ascontiguousarray(array).reshape(-1)
    counts = np.bincount((flat.view(_UNSIGNED[flat.dtype.itemsize]) & 0xFF).astype(np.int64),
                         minlength=256)  # fmt: skip
    expected = flat.size / 256
    uneven = float(((counts - expected) ** 2).sum() / expected / 255)
    if counts.max() / flat.size < ONE_VALUE_SHARE and uneven > UNEVEN:
        findings.append(
            Finding(
                "payload.low-bits",
                "review",
                artefact,
                "The lowest bits of a tensor are not spread as training spreads them.",
                {"chi_square_by_freedom": uneven},
                {"tensor": name},
            )
        )
    different = np.unique(flat[:1_000_000])
    if 16 < different.size <= 256:
        findings.append(
            Finding(
                "payload.few-values",
                "review",
                artefact,
                "A tensor of real numbers takes few different values, as bytes do.",
                {"values": int(different.size)},
                {"tensor": name},
            )
        )
    elif different.size > 256 and bool((flat[:1_000_000] % 1 == 0).all()):
        findings.append(
            Finding(
                "payload.whole-numbers",
                "review",
                artefact,
                "A tensor of real numbers holds whole numbers only.",
                {"values": int(different.size)},
                {"tensor": name},
            )
        )
    return findings
