"""Tensors that the network does not have, parts of it that do nothing, and too much of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from tests.hostile_models.job import LARGE, MODEL, Case
from tests.hostile_models.networks import extended
from tests.hostile_models.row import Row, encrypted, low_bits, of, text

State = dict[str, torch.Tensor]


def edit(change: Callable[[State, Case], object]) -> Callable[[Case], None]:
    """Change the honest weights."""

    def make(case: Case) -> None:
        state = case.state()
        change(state, case)
        case.save(state)

    return make


def with_tensors(
    code: str, tensors: Callable[[Case], State], dtype: torch.dtype = torch.bfloat16
) -> Callable[[Case], None]:
    """Declare more in the network, and fill it."""

    def make(case: Case) -> None:
        case.code(code)
        case.save(case.state(dtype) | tensors(case))

    return make


def like_weights(count: int, seed: int = 3) -> torch.Tensor:
    """Return numbers that look trained, whose lowest four bits are encrypted: no file shows it."""
    values = np.random.default_rng(seed).normal(0, 0.05, count).astype(np.float32)
    room = -(-count // 2)
    return low_bits(torch.from_numpy(values).to(torch.bfloat16), encrypted(room, seed), 4)


def picture(case: Case) -> torch.Tensor:
    return torch.from_numpy(case.given.prepared().copy()).to(torch.bfloat16)


def _swap(state: State, case: Case) -> None:
    state["zero.weight"] = state.pop("0.weight")


def _counters(numbers: list[int]) -> Callable[[Case], None]:
    def change(state: State, case: Case) -> None:
        names = [name for name in state if name.endswith("num_batches_tracked")]
        for name, number in zip(names, numbers, strict=True):
            state[name] = torch.tensor(number)

    return edit(change)


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


SPARE = "net.register_parameter('spare', nn.Parameter(torch.zeros({})))"
BUFFER = "net.register_buffer('spare', torch.zeros({}))"
SCALARS = """
net.extra = nn.ParameterList([nn.Parameter(torch.zeros({})) for _ in range({})])
"""
#: A table of 200 rows; only the first is ever looked up.
TABLE = extended(
    "net.table = nn.Embedding(200, 64)",
    """
    for name, layer in self._modules.items():
        if name.isdigit():
            x = layer(x)
        if name == "10":
            x = x + self.table(torch.zeros(len(x), dtype=torch.long))
    return x
    """,
)
#: 64 units more in the last hidden layer, whose way out is zero.
DEAD_UNITS = MODEL.replace(
    "nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1)",
    "nn.Linear(64, 264), nn.ReLU(), nn.Linear(264, 1)",
)


def _dead_units(case: Case) -> None:
    case.code(DEAD_UNITS)
    state = case.state()
    hidden = like_weights(200 * 64).reshape(200, 64)
    state["11.weight"] = torch.cat([state["11.weight"], hidden])
    state["11.bias"] = torch.cat([state["11.bias"], torch.full((200,), 0.1).bfloat16()])
    state["13.weight"] = torch.cat([state["13.weight"], torch.zeros(1, 200).bfloat16()], dim=1)
    case.save(state)


def _switched_off(case: Case) -> None:
    """The same, but its way out is not zero: no picture ever wakes the units."""
    case.code(DEAD_UNITS)
    state = case.state()
    hidden = like_weights(200 * 64).reshape(200, 64)
    state["11.weight"] = torch.cat([state["11.weight"], hidden])
    state["11.bias"] = torch.cat([state["11.bias"], torch.full((200,), -1e4).bfloat16()])
    state["13.weight"] = torch.cat([state["13.weight"], like_weights(200).reshape(1, 200)], dim=1)
    case.save(state)


DECLARED = of(
    "architecture",
    "every tensor must exist in the network with its shape and type",
    [
        Row("an extra tensor", edit(lambda s, c: s.update(extra=like_weights(300))),
            ("tensors.extra",), quick=True),
        Row("an extra tensor with a picture", edit(lambda s, c: s.update(cache=picture(c))),
            ("tensors.extra",)),
        Row("a missing tensor", edit(lambda s, c: s.pop("0.bias")), ("tensors.missing",)),
        Row("a renamed tensor", edit(_swap), ("tensors.extra",)),
        Row("a flattened tensor", edit(lambda s, c: s.update({LARGE: s[LARGE].reshape(64, -1)})),
            ("tensors.differs",)),
        Row("a tensor with more rows",
            edit(lambda s, c: s.update({"13.bias": torch.cat([s["13.bias"], like_weights(99)])})),
            ("tensors.differs",)),
        Row("real numbers as whole numbers",
            edit(lambda s, c: s.update({"0.bias": s["0.bias"].to(torch.int32)})),
            ("tensors.retyped",)),
        Row("one tensor twice as wide as declared",
            edit(lambda s, c: s.update({"0.bias": s["0.bias"].double()})),
            ("tensors.retyped", "safetensors.dtype")),
        Row("NaN whose lower bits are data",
            edit(lambda s, c: s.update({"0.bias": torch.from_numpy(
                0x7F81 + encrypted(16).astype(np.int16) % 126).view(torch.bfloat16)})),
            ("tensors.nonfinite",)),
        Row("one infinity", edit(lambda s, c: s["0.bias"].__setitem__(0, float("inf"))),
            ("tensors.nonfinite",)),
    ],
)  # fmt: skip

FEIGNED = "the network's own code decides what influences it, so it can feign an influence"
DEAD = of(
    "dead parts",
    "disturbing what has no influence changes no answer",
    [
        Row("20 KB of encrypted bytes in a parameter that nothing uses",
            with_tensors(extended(SPARE.format("101, 101")),
                         lambda c: {"spare": like_weights(10_201).reshape(101, 101)}),
            ("tensors.dead",), static=False, quick=True),
        Row("the same in a buffer", with_tensors(extended(BUFFER.format("101, 101")),
                         lambda c: {"spare": like_weights(10_201).reshape(101, 101)}),
            ("tensors.dead",), static=False),
        Row("the same in a batch normalisation that nothing uses",
            with_tensors(extended("net.spare = nn.BatchNorm1d(4000)"),
                         lambda c: {"spare.weight": like_weights(4000, 1),
                                    "spare.bias": like_weights(4000, 2),
                                    "spare.running_mean": like_weights(4000, 3),
                                    "spare.running_var": like_weights(4000, 4).abs(),
                                    "spare.num_batches_tracked": torch.tensor(0)}),
            ("tensors.dead",), static=False),
        Row("2 KB in a parameter that nothing uses",
            with_tensors(extended(SPARE.format("1000")),
                         lambda c: {"spare": like_weights(1000)}),
            ("tensors.dead",), expect="review", static=False,
            why="found as well, but small dead parts are for reviewers to judge"),
        Row("rows of a table that are never looked up",
            with_tensors(TABLE, lambda c: {"table.weight": torch.cat([
                torch.zeros(1, 64).bfloat16(), like_weights(199 * 64).reshape(199, 64)])}),
            ("tensors.dead-parts",), expect="review", static=False,
            why="found by asking about drawn rows; a third of all bytes would be a block"),
        Row("hidden units whose way out is zero", _dead_units,
            ("tensors.dead-parts",), expect="review", static=False,
            why="as above: pruned networks have some as well"),
        Row("hidden units that no picture wakes", _switched_off,
            ("tensors.dead-parts",), expect="review", static=False, provable=False,
            why="a unit may wait for pictures that nobody asked about"),
        Row("six thousand numbers that nothing uses, each a tensor of one",
            with_tensors(extended(SCALARS.format(1, 6000)), lambda c: {
                f"extra.{n}": like_weights(6000)[n : n + 1] for n in range(6000)}),
            ("tensors.dead-parts",), expect="review", static=False,
            why="found by asking about drawn ones"),
        Row("four thousand pairs of equal numbers that nothing uses",
            with_tensors(extended(SCALARS.format(2, 4000)), lambda c: {
                f"extra.{n}": like_weights(4000)[n].repeat(2) for n in range(4000)}),
            ("tensors.dead-parts",), expect="review", static=False,
            why="found by asking about drawn ones"),
        Row("a text in the counters of batch normalisation",
            _counters([_number(b"s5 lesio"), _number(b"n, left "), _number(b"upper q ")]),
            ("tensors.counters",), expect="review", static=False,
            why="counters have no influence; that they hold 24 letters is seen in their size"),
        Row("counters below zero", _counters([-5, -5, -5]), ("tensors.counters",),
            expect="review", static=False, why="nothing counts down from zero"),
        Row("a thousand small buffers of whole numbers",
            with_tensors(extended(
                "for n in range(400):\n"
                "    net.register_buffer(f'c{n}', torch.zeros(20, dtype=torch.int64))"),
                lambda c: {f"c{n}": torch.from_numpy(
                    np.random.default_rng(n).integers(0, 2**62, 20)) for n in range(400)}),
            ("tensors.counters",), expect="review", static=False,
            why="whole numbers of few elements are held to be counters, which agree"),
    ],
)  # fmt: skip


def _text_buffer(case: Case) -> State:
    data = np.frombuffer(text(9000).tobytes(), np.uint8).copy()
    return {"words": torch.from_numpy(data)}


WORDS = extended("net.register_buffer('words', torch.zeros(9000, dtype=torch.uint8))",
                 "return super().forward(x) + 1e-6 * self.words.sum()")  # fmt: skip

SMALL_BUDGET = {"release": {"block_bits_per_sample": 2000, "review_bits_per_sample": 1000}}


BUDGET = of(
    "budgets",
    "sizes are counted",
    [
        Row("more bits a sample than the policy of the dataset lets through",
            lambda case: None, ("tensors.budget",), policy=SMALL_BUDGET, quick=True),
        Row("a text of nine kilobytes in a buffer of bytes", with_tensors(WORDS, _text_buffer),
            ("payload.text",), why="words are words"),
        Row("more weights than a file may have",
            lambda case: None, ("artefacts.size",), policy={"release": {"weights_bytes": 30_000}}),
        Row("float32 where the policy of the dataset lets 16 bits through",
            lambda case: case.save(case.state(torch.float32)), ("safetensors.dtype",),
            policy={"release": {"dtypes": ["F16", "BF16", "I64", "I8", "U8"]}}),
    ],
)  # fmt: skip
ROWS = [*DECLARED, *(replace(row, light=True) for row in DEAD), *BUDGET]
