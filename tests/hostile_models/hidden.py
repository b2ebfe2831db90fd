"""Payloads in the bits of live weights, which the network bears."""

from __future__ import annotations

import base64
import lzma
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sandbox_runner.inspection import Report
from tests.hostile_models.job import LARGE, Case
from tests.hostile_models.networks import CODES, WIDE_LAYER, quantised, roomy
from tests.hostile_models.row import Row, encrypted, low_bits, of, text

F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
NAMES = {F32: "float32", F16: "float16", BF16: "bfloat16"}
Bytes = NDArray[np.uint8]


def everywhere(
    width: int, dtype: torch.dtype, payload: Callable[[int], Bytes], large: bool = False
) -> Callable[[Case], None]:
    """Write into the lowest bits of every number of every layer."""

    def make(case: Case) -> None:
        state = roomy(case, dtype) if large else case.state(dtype)
        for name, value in state.items():
            if value.dtype == dtype and value.numel() >= 64:
                room = value.numel() // 8 * width
                state[name] = low_bits(value, payload(room), width)
        case.save(state)

    return make


def _zlib(count: int) -> Bytes:
    """A part of a long compressed stream: of numbers, which deflate badly."""
    words = " ".join(map(str, np.random.default_rng(2).integers(0, 10**9, count // 3)))
    return np.frombuffer(zlib.compress(words.encode(), 9)[:count], np.uint8)


def _xz(count: int) -> Bytes:
    words = " ".join(map(str, np.random.default_rng(2).integers(0, 10**9, count // 3)))
    return np.frombuffer(lzma.compress(words.encode())[:count], np.uint8)


def _signs(case: Case) -> None:
    """Encrypted bits as signs, in the large network."""
    state = roomy(case)
    for name, value in state.items():
        if value.dtype == BF16 and value.dim() > 1:
            bits = np.unpackbits(encrypted(value.numel() // 8 + 1))[: value.numel()]
            signs = torch.from_numpy(1.0 - 2.0 * bits).to(BF16).reshape(value.shape)
            state[name] = value.abs() * signs
    case.save(state)


def _text_signs(case: Case) -> None:
    state = case.state()
    value = state[LARGE]
    bits = np.unpackbits(text(value.numel() // 8), bitorder="little")
    signs = torch.from_numpy(1.0 - 2.0 * bits).to(BF16).reshape(value.shape)
    state[LARGE] = value.abs() * signs
    case.save(state)


def _exponents(width: int) -> Callable[[Case], None]:
    """Encrypted bits in the lowest bits of the exponents of a large layer."""

    def make(case: Case) -> None:
        state = roomy(case)
        codes = state[WIDE_LAYER].view(torch.int16).numpy().reshape(-1).copy()
        values = encrypted(len(codes)).astype(np.int16) & ((1 << width) - 1)
        mask = np.int16(((1 << width) - 1) << 7)
        codes = (codes & ~mask) | (values << 7)
        state[WIDE_LAYER] = torch.from_numpy(codes).view(BF16).reshape(state[WIDE_LAYER].shape)
        case.save(state)

    return make


def _mantissas(case: Case) -> None:
    """Encrypted bytes in whole mantissas."""
    state = case.state()
    state[LARGE] = low_bits(state[LARGE], encrypted(state[LARGE].numel() // 8 * 7), 7)
    case.save(state)


def _codes(payload: Callable[[int], Bytes], width: int = 8) -> Callable[[Case], None]:
    """Write into the whole numbers of a quantised network."""

    def make(case: Case) -> None:
        state = quantised(case)
        codes = state[CODES]
        room = codes.numel() // 8 * width
        if width == 8:
            state[CODES] = torch.from_numpy(payload(room).view(np.int8).copy()).reshape(codes.shape)
        else:
            state[CODES] = low_bits(codes, payload(room), width)
        case.save(state)

    return make


def _numbers(values: Callable[[int], NDArray[np.float32]], dtype: torch.dtype) -> Any:
    """Write numbers over a whole layer."""

    def make(case: Case) -> None:
        state = case.state(dtype)
        given = values(state[LARGE].numel()).astype(np.float32)
        state[LARGE] = torch.from_numpy(given).to(dtype).reshape(state[LARGE].shape)
        case.save(state)

    return make


def _repeated(case: Case) -> None:
    """One number in every place where the payload has a one."""
    state = case.state(F32)
    flat = state[LARGE].view(-1)
    flat[torch.from_numpy(np.unpackbits(encrypted(len(flat) // 8)).astype(bool))] = 0.03125
    case.save(state)


def _magic(data: bytes) -> Callable[[Case], None]:
    """Put the beginning of another file into the bytes of a layer."""

    def make(case: Case) -> None:
        state = case.state()
        whole = bytearray(state[LARGE].view(torch.uint8).numpy().tobytes())
        whole[5001 : 5001 + len(data)] = data
        tensor = torch.frombuffer(whole, dtype=torch.uint8).view(BF16)
        state[LARGE] = tensor.reshape(state[LARGE].shape).clone()
        case.save(state)

    return make


def _gone(width: int) -> Callable[[Case, Report], bool]:
    """Whether of the bits that were written only chance is left in what leaves."""

    def check(case: Case, report: Report) -> bool:
        from safetensors.torch import load_file

        assert report.sanitised is not None
        before = load_file(case.weights)[LARGE].view(torch.int16).numpy().reshape(-1)
        after = load_file(report.sanitised / "model.safetensors")[LARGE]
        wrong = (before ^ after.view(torch.int16).numpy().reshape(-1)) & ((1 << width) - 1)
        share = np.unpackbits(wrong.astype(">u2").view(np.uint8)).sum() / (width * len(wrong))
        return bool(abs(share - 0.5) < 0.02)

    return check


REWRITE = {"release": {"sanitise": True}}
NOISE = "encrypted bits in live mantissas are what training leaves there as well"
WORDS = "words are words, in whatever bits they stand"
EVEN = "numbers of a trained layer are not spread like that"

TEXTS = [
    Row(f"a text in the lowest {width} bits of {NAMES[dtype]}", everywhere(width, dtype, text),
        ("payload.text",), why=WORDS, quick=(width, dtype) == (2, BF16))
    for dtype in (F32, F16, BF16) for width in (1, 2, 4)
]  # fmt: skip
WIDE = [
    Row(f"encrypted bytes in the lowest {width} bits of float32",
        everywhere(width, F32, encrypted), ("tensors.precision",),
        provable=False, why=NOISE, expect="review")
    for width in (1, 2, 4, 16)
]  # fmt: skip
NARROW = [
    Row(f"encrypted bytes in the lowest {width} bits of a large network in {NAMES[dtype]}",
        everywhere(width, dtype, encrypted, large=True), ("tensors.room",),
        provable=False, why=NOISE, expect="review")
    for dtype in (F16, BF16) for width in (1, 2, 4)
]  # fmt: skip
REWRITTEN = [
    Row(f"encrypted bytes in the lowest {width} bits of bfloat16, where weights are rewritten",
        everywhere(width, BF16, encrypted), (), provable=False, why=NOISE, expect="clean",
        static=False, policy=REWRITE, gone=_gone(width), light=True)
    for width in (1, 2, 4)
]  # fmt: skip

ROWS = of(
    "hidden payloads",
    "",
    [
        *TEXTS,
        *WIDE,
        *NARROW,
        *REWRITTEN,
        Row("compressed bytes in the lowest 4 bits of bfloat16", everywhere(4, BF16, _zlib),
            ("payload.compressed",), why="what is compressed says so and can be unpacked"),
        Row("the same by another program", everywhere(4, BF16, _xz),
            ("payload.file", "payload.compressed"), why="such a file begins like no other"),
        Row("encrypted bytes as signs of a large network", _signs, ("tensors.room",),
            provable=False, expect="review",
            why="long weight decay orders signs more than that"),
        Row("a text as signs", _text_signs, ("payload.text",), why=WORDS),
        Row("encrypted bits in the lowest bit of exponents", _exponents(1), ("payload.steps",),
            expect="review", provable=False, why="the density of numbers jumps; that is no proof"),
        Row("encrypted bits in the lowest 3 bits of exponents", _exponents(3),
            ("payload.steps", "payload.exponents"), expect="review", provable=False,
            why="as above"),
        Row("encrypted bytes in whole mantissas", _mantissas, ("payload.steps",),
            expect="review", provable=False, why="as above"),
        Row("encrypted bytes in place of whole-number weights", _codes(encrypted),
            ("payload.even",), expect="review", provable=False, quick=True,
            why=f"{EVEN}; what it is cannot be said"),
        Row("compressed bytes in place of whole-number weights", _codes(_zlib),
            ("payload.compressed",), why="what is compressed says so and can be unpacked"),
        Row("a text in place of whole-number weights", _codes(text), ("payload.text",),
            why=WORDS),
        Row("a text in the lowest 2 bits of whole-number weights", _codes(text, 2),
            ("payload.text",), why=WORDS),
        Row("bytes as real numbers from 0 to 255",
            _numbers(lambda n: encrypted(n).astype(np.float32), F16),
            ("payload.few-values",), expect="review", provable=False, why=EVEN),
        Row("bytes as small real numbers, bfloat16",
            _numbers(lambda n: (encrypted(n).astype(np.float32) - 127.5) / 2000, BF16),
            ("payload.few-values", "payload.steps"), expect="review", provable=False, why=EVEN),
        Row("whole numbers of 16 bits as float32",
            _numbers(lambda n: encrypted(2 * n).view(np.uint16).astype(np.float32), F32),
            ("payload.whole-numbers",), expect="review", provable=False, why=EVEN),
        Row("one number wherever the payload has a one", _repeated, ("payload.repeated",),
            expect="review", provable=False, why=EVEN),
        Row("the beginning of a PNG file", _magic(b"\x89PNG\r\n\x1a\n" + bytes(24)),
            ("payload.file",), why="files begin like nothing else"),
        Row("the beginning of a DICOM file", _magic(bytes(128) + b"DICM\x02\x00\x00\x00UL"),
            ("payload.file",), why="files begin like nothing else"),
        Row("a table of names in the bytes of a layer", _magic(text(600).tobytes()),
            ("payload.text",), why=WORDS),
        Row("the same in code of 64 letters", _magic(
            base64.b64encode(encrypted(450).tobytes())),
            ("payload.text",), why="such a code is letters and digits alone", quick=True),
    ],
)  # fmt: skip
