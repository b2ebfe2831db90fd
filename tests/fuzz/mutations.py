"""Changes to whole files, drawn by hypothesis so that a finding is made small."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import count

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

TOKENS = (
    b"", b"\0", b"\xff", b"\xff\xff\xff\xff", b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"SQ\0\0",
    b"UN\0\0", b"\xff\xd8\xff", b"\xff\xd9", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\x01\0\0\0",
    b'"', b"{", b"}", b"[", b",", b" ", b"null", b"1e999", b"-1", b"NaN", b"\\u0000",
)  # fmt: skip
"""Bytes that mean something to a reader: delimiters, undefined and huge lengths, markers,
the signs of JSON."""

EDITS = ("replace", "insert", "remove", "repeat", "cut", "copy")
Edit = tuple[str, int, int, bytes]


def changed(data: bytes, edits: Sequence[Edit]) -> bytes:
    """The file after a few edits; places are taken modulo its length."""
    for kind, where, length, new in edits:
        at = where % (len(data) + 1)
        part = data[at : at + length]
        if kind == "replace":
            data = data[:at] + new + data[at + len(new) :]
        elif kind == "insert":
            data = data[:at] + new + data[at:]
        elif kind == "remove":
            data = data[:at] + data[at + length :]
        elif kind == "repeat":
            data = data[:at] + part + data[at:]
        elif kind == "copy":
            to = where // 7 % (len(data) + 1)
            data = data[:to] + part + data[to + length :]
        else:
            data = data[:at]
    return data


def files(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Seeds with up to six edits, most of them near the start, where structure is."""
    place = st.one_of(st.integers(0, 600), st.integers(0, 100_000))
    edit = st.tuples(
        st.sampled_from(EDITS),
        place,
        st.integers(1, 64),
        st.one_of(st.sampled_from(TOKENS), st.binary(max_size=8)),
    )
    return st.builds(changed, st.sampled_from(seeds), st.lists(edit, min_size=1, max_size=6))


def explore(
    seeds: Sequence[bytes],
    promise: Callable[[bytes], bool],
    *,
    seconds: float,
    failed: Callable[[bytes], object],
) -> tuple[int, int]:
    """Try changed seeds for ``seconds``; how many, and how many had an output.

    The exception of a broken promise is raised; ``failed`` was given the file, the smallest last.
    """
    end = time.monotonic() + seconds
    tried = written = 0

    @settings(
        max_examples=500,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(files(seeds))
    def run(data: bytes) -> None:
        nonlocal tried, written
        if time.monotonic() > end:
            return
        tried += 1
        try:
            written += promise(data)
        except BaseException:
            failed(data)
            raise

    for _round in count():
        if time.monotonic() > end:
            return tried, written
        run()
    raise AssertionError("unreachable")
