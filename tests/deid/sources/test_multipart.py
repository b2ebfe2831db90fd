"""The one part of a multipart answer, however the bytes are cut; everything odd is refused."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deid.sources import multipart
from deid.sources.originals import Refused

HEAD = b"Content-Type: application/dicom\r\n\r\n"


def whole(body: bytes, *, before: bytes = b"", head: bytes = HEAD, end: bytes = b"--") -> bytes:
    return before + b"--B0\r\n" + head + body + b"\r\n--B0" + end


def body_of(data: bytes, *cuts: int) -> bytes:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    pieces = [data[a:b] for a, b in itertools.pairwise(places)]
    return b"".join(multipart.only_part(pieces, b"B0", "application/dicom"))


ODD = st.lists(
    st.sampled_from([b"\r\n", b"\r\n--", b"--B0", b"\r\n--B", b"\r", b"\0", b"x", b"\r\n\r\n"])
).map(b"".join)


@given(ODD, st.lists(st.integers(0, 500), max_size=12))
def test_a_body_comes_back_wherever_the_pieces_are_cut(body: bytes, cuts: list[int]) -> None:
    if b"\r\n--B0" in b"\r\n" + body + b"\r\n--B":
        body = body.replace(b"--B0", b"--B1")
    assert body_of(whole(body), *cuts) == body
    assert body_of(whole(body, before=b"preamble\r\n"), *cuts) == body


@given(ODD, st.integers(0, 10_000))
def test_an_answer_cut_anywhere_is_never_whole(body: bytes, cut: int) -> None:
    data = whole(body.replace(b"--B0", b"--B1"))
    with pytest.raises(Refused):
        body_of(data[: cut % len(data)])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (whole(b"x").replace(b"B0", b"B1"), "truncated"),
        (whole(b"x", before=b"y" * 70_000 + b"\r\n"), "bad-boundary"),
        (b"--B0--", "no-part"),
        (whole(b"x", end=b"\r\n" + HEAD + b"y\r\n--B0--"), "several-parts"),
        (whole(b"x", end=b"more\r\n"), "bad-boundary"),
        (whole(b"a\r\n--B0rder b"), "bad-boundary"),
        (whole(b"x", head=b"Content-Type: text/html\r\n\r\n"), "wrong-type"),
        (whole(b"x", head=b"\r\n"), "wrong-type"),
        (whole(b"x", head=b"A: " + b"b" * 20_000 + b"\r\n\r\n"), "bad-part"),
        (whole(b"x", head=b"Content-Length: 9\r\n" + HEAD), "truncated"),
        (whole(b"x", head=b"Content-Length: -1\r\n" + HEAD), "bad-part"),
        (whole(b"x", head=b"Content-Type: application/dicom\r\n" + HEAD), "bad-part"),
        (whole(b"x", head=b"Content-Transfer-Encoding: base64\r\n" + HEAD), "bad-part"),
        (whole(b"x", head=b"no colon\r\n" + HEAD), "bad-part"),
        (b"", "truncated"),
    ],
)
def test_what_is_not_one_whole_part_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        body_of(data)
    assert caught.value.reason == reason


def test_an_endless_preamble_or_header_is_not_read_to_its_end() -> None:
    def endless(start: bytes) -> Iterator[bytes]:
        yield start
        for _piece in range(100):
            yield b"y" * 1000
        raise AssertionError("read on")

    for start in (b"", b"--B0\r\nA: ", b"--B0 "):
        with pytest.raises(Refused):
            list(multipart.only_part(endless(start), b"B0", "application/dicom"))


@pytest.mark.parametrize(
    ("header", "boundary"),
    [
        ('multipart/related; type="application/dicom"; boundary=B0', b"B0"),
        ('Multipart/Related; boundary="a b:c"; type=application/dicom', b"a b:c"),
        ("multipart/related; type=application/dicom", None),
        ("multipart/related; boundary=", None),
        (f"multipart/related; boundary={'x' * 71}", None),
        ('multipart/related; boundary="a\\"b"', None),
        ('multipart/related; boundary="ends "', None),
        ("multipart/related; boundary=é", None),
        ("multipart/mixed; boundary=B0", None),
        ("application/dicom", None),
        ("", None),
    ],
)
def test_a_boundary_is_only_what_the_standard_allows(header: str, boundary: bytes | None) -> None:
    if boundary is None:
        with pytest.raises(Refused):
            multipart.boundary_of(header)
    else:
        assert multipart.boundary_of(header) == boundary
