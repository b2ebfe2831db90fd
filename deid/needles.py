"""Looking for many values in any bytes at once, in the encodings that files use."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from deid import spellings
from deid.dicom import text as free_text

ENCODINGS = ("utf-8", "utf-16-le", "utf-16-be", "cp949", "iso2022_kr", "latin-1", "shift_jis",
             "gb18030")  # fmt: skip
SHORTEST_WORD = 4
# Of pixels and compressed data any few bytes occur by chance; of headers, texts and names not.
SHORTEST_IN_HEADERS, SHORTEST_ANYWHERE = 5, 7
# Runs like 00000 and 11111111 are numbers of pixels in any picture, whoever's it is.
MEANINGFUL = 4
HITS = 16
BATCH = 30_000
"""Values looked for in one pass; so many take about 60 MB."""

_BITS = 22
_MULTIPLIER = np.uint32(0x9E3779B1)
_WORD_BYTES = re.compile(rb"[A-Za-z0-9 _.-]*")
_SHIFT_OUT = re.compile(rb"\x1b\$\)C|[\x0e\x0f]")


def proves(value: str) -> bool:
    """Whether a value is long and mixed enough that finding it says anything."""
    if not value.isascii():
        return spellings.is_telling(value)
    return len(value) >= SHORTEST_WORD and len(set(value)) >= MEANINGFUL


class Needles:
    """Values with their kinds, ready to be looked for; it never says which value it found."""

    def __init__(self, found: Mapping[str, str]) -> None:
        self.values = {value: kind for value, kind in found.items() if proves(value)}
        self._kinds: dict[bytes, str] = {}
        lengths: dict[int, set[int]] = {}
        for value, kind in self.values.items():
            for raw in _encoded(value, kind):
                self._kinds.setdefault(raw, kind)
                lengths.setdefault(struct.unpack_from("<I", raw)[0], set()).add(len(raw))
        self._lengths = lengths
        self._table = np.zeros(1 << _BITS, dtype=bool)
        self._table[_slots(np.array(sorted(lengths), dtype="<u4"))] = True
        self._words = {value.lower(): kind for value, kind in self.values.items()}

    def found(self, data: bytes, least: int = SHORTEST_IN_HEADERS) -> Iterator[tuple[int, str]]:
        """Offset and kind of the values in some bytes, the first few of them."""
        hits = 0
        if not self._kinds or len(data) < 4:
            return
        for start in range(4):
            windows = np.frombuffer(data, "<u4", count=(len(data) - start) // 4, offset=start)
            for hit in np.flatnonzero(self._table[_slots(windows)]):
                offset = int(hit) * 4 + start
                for length in self._lengths.get(int(windows[hit]), ()):
                    raw = data[offset : offset + length]
                    kind = self._kinds.get(raw, "")
                    if kind and length >= least and _stands_alone(data, offset, raw):
                        yield offset, kind
                        hits += 1
                        if hits >= HITS:
                            return

    def words(self, text: str) -> list[str]:
        """The kinds of the words of a text that are a value."""
        return [self._words[word] for word in free_text.words_of(text) if word in self._words]


def batches(found: Mapping[str, str]) -> Iterator[Needles]:
    """All values, in so many passes that memory stays bounded; at least one."""
    items = sorted(found.items())
    for start in range(0, max(1, len(items)), BATCH):
        yield Needles(dict(items[start : start + BATCH]))


def _encoded(value: str, kind: str) -> Iterable[bytes]:
    for spelling in (value,) if kind == "UID" else spellings.written(value):
        for encoding in ENCODINGS:
            try:
                raw = spelling.encode(encoding)
            except UnicodeEncodeError:
                continue
            if encoding == "iso2022_kr":
                # Between its shifts; what a writer puts around them differs.
                raw = _SHIFT_OUT.sub(b"", raw)
            wide = encoding.startswith("utf-16")
            if len(raw) >= SHORTEST_IN_HEADERS and (not wide or len(set(spelling)) > MEANINGFUL):
                yield raw


def _slots(
    words: np.ndarray[tuple[int, ...], np.dtype[np.uint32]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint32]]:
    return (words * _MULTIPLIER) >> np.uint32(32 - _BITS)


def _stands_alone(data: bytes, offset: int, raw: bytes) -> bool:
    """Whether a hit is a value, not part of a longer number or of a known word.

    Among the long random numbers of pseudonymous UIDs any eight digits are found by chance.
    """
    before, after = (
        data[offset - 1 : offset] if offset else b"",
        data[offset + len(raw) : offset + len(raw) + 1],
    )
    if raw.isdigit():
        return not before.isdigit() and not after.isdigit()
    if not raw.isascii() or b"\0" in raw:
        return True
    if len(raw) < SHORTEST_ANYWHERE and (before.isalnum() or after.isalnum()):
        return False
    following = _WORD_BYTES.match(data, offset + len(raw), offset + len(raw) + 80)
    rest = following[0] if following else b""
    if not rest[:1].isalnum():
        return True
    # The beginning of a text of known words: a maker's name cut short.
    found = free_text.words_of((raw + rest).decode("ascii"))
    return not all(free_text.is_known_word(word) for word in found)
