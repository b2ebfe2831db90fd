"""One spelling of a safetensors file is accepted; every freedom of the format is closed."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from policies.document import default_policy
from sandbox_runner.inspection.safetensors_file import Malformed, read_header, stored, values

POLICY = default_policy().release


def pack(header: Any, data: bytes = b"", pad: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(
        header, separators=(",", ":")
    ).encode()  # fmt: skip
    return struct.pack("<Q", len(text + pad)) + text + pad + data


def entry(dtype: str, shape: list[int], start: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


GOOD = {"a.weight": entry("F32", [2, 2], 0, 16), "b": entry("U8", [3], 16, 19)}


def changed(change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    header = json.loads(json.dumps(GOOD))
    change(header)
    return header


def spelled(old: bytes, new: bytes) -> bytes:
    text = json.dumps(GOOD, separators=(",", ":")).encode()
    assert old in text
    return text.replace(old, new)


DATA = bytes(range(19))

HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "truncated"),
    "shorter than a length": (b"\0" * 7, "truncated"),
    "header longer than the file": (struct.pack("<Q", 999) + b"{}", "truncated"),
    "header of a terabyte": (struct.pack("<Q", 2**40) + b"{}", "header-size"),
    "no JSON": (pack(b"{nope}"), "header"),
    "a list": (pack([]), "header"),
    "no tensor": (pack({}), "empty"),
    "spaces before": (pack(b" " + json.dumps(GOOD).encode(), DATA), "header"),
    "spaces inside": (pack(json.dumps(GOOD).encode(), DATA), "header"),
    "long padding": (pack(GOOD, DATA, b" " * 8), "header"),
    "padding of tabs": (pack(GOOD, DATA, b"\t"), "header"),
    "padding of zeros": (pack(GOOD, DATA, b"\0"), "header"),
    "an escaped letter": (pack(spelled(b'"b"', b'"\\u0062"'), DATA), "header"),
    "a float where a whole number is meant": (
        pack(spelled(b"[2,2]", b"[2.0,2]"), DATA),
        "shape",
    ),
    "true as a side": (pack(spelled(b"[2,2]", b"[true,4]"), DATA), "shape"),
    "minus zero": (pack(spelled(b"[0,16]", b"[-0,16]"), DATA), "header"),
    "NaN": (pack(spelled(b"[0,16]", b"[NaN,16]"), DATA), "header"),
    "deep nesting": (pack(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "header"),
    "a duplicate tensor": (pack(spelled(b'"b"', b'"a.weight"'), DATA), "duplicate"),
    "a duplicate key": (
        pack(spelled(b'"dtype":"U8"', b'"dtype":"U8","dtype":"U8"'), DATA),
        "duplicate",
    ),
    "a key more": (pack(changed(lambda h: h["b"].update(note="hi")), DATA), "entry"),
    "keys in another order": (
        pack(changed(lambda h: h.update(b=dict(reversed(h["b"].items())))), DATA),
        "entry",
    ),
    "a null entry": (pack(changed(lambda h: h.update(b=None)), DATA), "entry"),
    "tensors in another order": (pack(dict(reversed(GOOD.items())), DATA), "gap"),
    "overlap": (pack(changed(lambda h: h.update(b=entry("U8", [3], 13, 16))), DATA), "overlap"),
    "gap": (pack(changed(lambda h: h.update(b=entry("U8", [3], 20, 23))), DATA * 2), "gap"),
    "gap at the start": (pack({"b": entry("U8", [3], 1, 4)}, DATA), "gap"),
    "trailing byte": (pack(GOOD, DATA + b"x"), "trailing"),
    "missing byte": (pack(GOOD, DATA[:-1]), "truncated"),
    "bytes unlike the shape": (
        pack(changed(lambda h: h["b"].update(shape=[4])), DATA),
        "size",
    ),
    "negative side": (pack(changed(lambda h: h["b"].update(shape=[-3])), DATA), "shape"),
    "a side of zero": (pack(changed(lambda h: h["b"].update(shape=[0])), DATA), "shape"),
    "a product that overflows": (
        pack(changed(lambda h: h["b"].update(shape=[2**32, 2**32])), DATA),
        "size",
    ),
    "many dimensions": (pack(changed(lambda h: h["b"].update(shape=[1] * 9)), DATA), "shape"),
    "unknown type": (pack(changed(lambda h: h["b"].update(dtype="F8_E4M3")), DATA), "dtype"),
    "a type that is a list": (pack(changed(lambda h: h["b"].update(dtype=["U8"])), DATA), "dtype"),
    "a type that the policy leaves out": (
        pack({"b": entry("F64", [2], 0, 16)}, DATA[:16]),
        "dtype",
    ),
    "metadata with text": (
        pack({"__metadata__": {"note": "patient 7"}, **GOOD}, DATA),
        "metadata",
    ),
    "format with text": (
        pack({"__metadata__": {"format": "patient 7"}, **GOOD}, DATA),
        "metadata",
    ),
    "format that is a list": (
        pack({"__metadata__": {"format": ["pt"]}, **GOOD}, DATA),
        "metadata",
    ),
    "metadata no table": (pack({"__metadata__": [], **GOOD}, DATA), "metadata"),
    "a name of text": (pack({"Patient 7, born 1980": GOOD["b"]}, DATA), "name"),
    "a name with Korean": (pack({"\u1100": entry("U8", [3], 0, 3)}, DATA[:3]), "name"),
    "an endless name": (pack({"a" * 300: entry("U8", [3], 0, 3)}, DATA[:3]), "name"),
    "an empty name": (pack({"": entry("U8", [3], 0, 3)}, DATA[:3]), "name"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_header_trick_is_refused_by_its_own_rule(tmp_path: Path, name: str) -> None:
    data, rule = HOSTILE[name]
    path = tmp_path / "m.safetensors"
    path.write_bytes(data)
    with pytest.raises(Malformed) as caught:
        read_header(path, POLICY)
    assert caught.value.rule == f"safetensors.{rule}"


def test_more_tensors_than_the_policy_allows(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(pack({f"t{i}": entry("U8", [1], i, i + 1) for i in range(5)}, bytes(5)))
    assert len(read_header(path, replace(POLICY, tensors=5)).tensors) == 5
    with pytest.raises(Malformed, match="more tensors"):
        read_header(path, replace(POLICY, tensors=4))


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
)
def test_what_the_reference_library_writes_is_read_equal(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    given_values = (torch.arange(12).reshape(3, 4) % 2 + 1).to(dtype)
    path = tmp_path / "m.safetensors"
    save_file({"x.weight": given_values, "s": torch.tensor(3)}, path, {"format": "pt"})
    header = read_header(path, POLICY)
    tensor = next(t for t in header.tensors if t.name == "x.weight")
    assert np.array_equal(values(path, header, tensor), given_values.float().numpy())
    assert stored(path, header, tensor).nbytes == given_values.nbytes


@settings(max_examples=200, deadline=None)
@given(position=st.integers(0, 200), value=st.integers(0, 255))
def test_no_changed_byte_makes_the_reader_crash(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int
) -> None:
    data = bytearray(pack(GOOD, DATA))
    data[position % len(data)] = value
    path = tmp_path_factory.getbasetemp() / "fuzzed.safetensors"
    path.write_bytes(bytes(data))
    try:
        header = read_header(path, POLICY)
    except Malformed:
        return
    assert sum(t.end - t.start for t in header.tensors) == header.data_bytes
