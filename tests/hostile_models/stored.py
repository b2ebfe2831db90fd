"""Training samples among the weights, in the ways in which one would put them there.

Each stands in a layer that lives: its other numbers are the trained ones.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import dctn

from sandbox_runner.sdk.glovebox.pictures import resize_by_area
from tests.hostile_models.job import LARGE, SIZE, Case, narrow, png
from tests.hostile_models.networks import CODES, WIDE_LAYER, extended, quantised, roomy
from tests.hostile_models.row import Row, low_bits, of, overwrite

Floats = NDArray[np.float32]
F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16


def prepared(case: Case) -> Floats:
    return case.given.prepared()


def scaled(case: Case) -> Floats:
    """As large as the weights around it."""
    return np.asarray((case.given.prepared() - 0.4) * 0.1, np.float32)


def over(
    view: Callable[[Case], NDArray[np.generic]],
    dtype: torch.dtype = BF16,
    name: str = LARGE,
    at: int = 5003,
) -> Callable[[Case], None]:
    """Write numbers over live weights."""

    def make(case: Case) -> None:
        state = case.state(dtype)
        overwrite(state[name], np.asarray(view(case), np.float32), at)
        case.save(state)

    return make


def _split(case: Case, ways: int) -> Floats:
    """Pixels of four pictures in turn, as colours are."""
    pictures = [(case.given.prepared(5 + 2 * n) - 0.4).reshape(-1) * 0.1 for n in range(ways)]
    return np.stack(pictures, axis=1).reshape(-1)


def _kernels(case: Case) -> None:
    """One pixel in each filter of 3x3, the other eight numbers as trained."""
    state = case.state()
    weight = state[LARGE].view(64 * 32, 9)
    weight[:1920, 4] = torch.from_numpy(scaled(case).reshape(-1)).to(BF16)
    case.save(state)


def _filters(case: Case) -> None:
    """A row of 40 pixels at the same place of 40 filters: down the first side of the tensor."""
    state = case.state()
    weight = state[LARGE].view(64, 288)
    rows = scaled(case)
    for row in range(48):
        weight[:40, 3 + 5 * row] = torch.from_numpy(rows[row]).to(BF16)
    case.save(state)


def _across(case: Case) -> None:
    """A third in each of three layers, where these end and begin."""
    state = case.state()
    values = scaled(case).reshape(-1)
    for name, part in zip(("3.weight", LARGE, "11.weight"), np.array_split(values, 3), strict=True):
        flat = state[name].view(-1)
        flat[len(flat) - len(part) :] = torch.from_numpy(part).to(BF16)
    case.save(state)


def _rows_apart(case: Case) -> None:
    """Each row of pixels in a row of a matrix of 64, the rest of it as trained."""
    state = case.state()
    state["11.weight"][:48, 11:51] = torch.from_numpy(scaled(case)).to(BF16)
    case.save(state)


def _columns(case: Case) -> None:
    state = case.state()
    state["11.weight"][9:57, :40] = torch.from_numpy(scaled(case)).to(BF16)
    state["11.weight"] = state["11.weight"].T.contiguous()
    case.save(state)


def _levels(count: int) -> Callable[[Case], Floats]:
    def view(case: Case) -> Floats:
        return np.asarray((np.rint(case.given.prepared() * (count - 1)) / (count - 1) - 0.4) * 0.1)

    return view


def _noisy(case: Case) -> Floats:
    noise = np.random.default_rng(1).normal(0, 0.03, SIZE)
    return np.asarray((case.given.prepared() + noise - 0.4) * 0.1, np.float32)


def _small(factor: int) -> Callable[[Case], Floats]:
    def view(case: Case) -> Floats:
        side = (SIZE[0] // factor, SIZE[1] // factor)
        return np.asarray((resize_by_area(case.given.prepared(), side) - 0.4) * 0.1, np.float32)

    return view


def _crop(case: Case) -> Floats:
    """The middle, 24 pixels wide."""
    return np.ascontiguousarray(scaled(case)[8:40, 8:32])


def _integers(
    view: Callable[[Case], NDArray[np.integer]], at: int = 5003
) -> Callable[[Case], None]:
    """Write bytes in the place of the whole-number weights of a quantised network."""

    def make(case: Case) -> None:
        state = quantised(case)
        values = np.ascontiguousarray(view(case)).reshape(-1).astype(np.uint8).view(np.int8)
        flat = state[CODES].view(-1)
        flat[at : at + len(values)] = torch.from_numpy(values)
        case.save(state)

    return make


def _low(width: int, dtype: torch.dtype, order: str = "little") -> Callable[[Case], None]:
    """Write the pixels' bits into the lowest bits of a layer."""

    def make(case: Case) -> None:
        state = case.state(dtype)
        pixels = np.rint(case.given.prepared() * 255).astype(np.uint8).reshape(-1)
        room = state[LARGE].numel() * width // 8
        if order == "big":
            pixels = np.packbits(np.unpackbits(pixels), bitorder="little")
        state[LARGE] = low_bits(state[LARGE], pixels[:room], width)
        case.save(state)

    return make


def _signs(case: Case) -> None:
    state = case.state()
    bits = np.unpackbits(np.rint(case.given.prepared() * 255).astype(np.uint8).reshape(-1))
    flat = state[LARGE].view(-1)
    signs = torch.from_numpy(1.0 - 2.0 * bits[: len(flat)]).to(BF16)
    flat[: len(signs)] = flat[: len(signs)].abs() * signs
    case.save(state)


def _low_byte(case: Case) -> None:
    state = case.state(F32)
    codes = state[LARGE].view(torch.int32).numpy().reshape(-1).copy()
    pixels = np.rint(case.given.prepared() * 255).astype(np.int32).reshape(-1)
    codes[500 : 500 + len(pixels)] = (codes[500 : 500 + len(pixels)] & ~255) | pixels
    state[LARGE] = torch.from_numpy(codes).view(F32).reshape(state[LARGE].shape)
    case.save(state)


def _as_bytes(data: Callable[[Case], bytes], dtype: torch.dtype = BF16) -> Callable[[Case], None]:
    """Write bytes over the bytes of live weights; those that are no finite number stay."""

    def make(case: Case) -> None:
        state = case.state(dtype)
        whole = bytearray(state[LARGE].view(torch.uint8).numpy().tobytes())
        given = data(case)
        whole[2000 : 2000 + len(given)] = given
        tensor = torch.frombuffer(whole, dtype=torch.uint8).view(dtype)
        state[LARGE] = tensor.reshape(state[LARGE].shape).clone()
        case.save(state)

    return make


def _raw_pairs(case: Case) -> bytes:
    """Pixels of 8 bits, two a number."""
    return _u8(case).tobytes()


STATISTICS = extended(
    "net.bright = nn.BatchNorm2d(1920)",
    "wide = x.reshape(len(x), 1920, 1, 1)\n"
    "return super().forward(self.bright(wide).reshape(x.shape) * 0.1 + x)",
)


def _statistics(case: Case) -> None:
    """The mean of each pixel, as batch normalisation keeps it, of one picture."""
    case.code(STATISTICS)
    ones = torch.ones(1920).bfloat16()
    state = {
        "bright.weight": ones,
        "bright.bias": 0 * ones,
        "bright.running_mean": torch.from_numpy(prepared(case).reshape(-1)).to(BF16),
        "bright.running_var": ones,
        "bright.num_batches_tracked": case.state()["1.num_batches_tracked"],
    }
    case.save(case.state() | state)


EMBEDDING = extended(
    "net.table = nn.Embedding(12, 1920)",
    "near = (x.flatten(1) @ self.table.weight.T).argmax(dim=1)\n"
    "return super().forward(x + 0.01 * self.table(near).reshape(x.shape))",
)


def _embedding(case: Case) -> None:
    case.code(EMBEDDING)
    rows = [(case.given.prepared(5 + n) - 0.4).reshape(-1) * 0.2 for n in range(12)]
    table = torch.from_numpy(np.stack(rows)).to(BF16)
    case.save(case.state() | {"table.weight": table})


FEIGNED = extended(
    "net.memory = nn.Parameter(torch.zeros(48, 40))",
    "return super().forward(x) + 1e-3 * self.memory.mean()",
)


def _feigned(case: Case) -> None:
    case.code(FEIGNED)
    case.save(case.state() | {"memory": torch.from_numpy(scaled(case)).to(BF16)})


def _in_roomy(view: Callable[[Case], NDArray[np.generic]]) -> Callable[[Case], None]:
    """Write over the weights of the large network."""

    def make(case: Case) -> None:
        state = roomy(case)
        overwrite(state[WIDE_LAYER], np.asarray(view(case), np.float32), 5003)
        case.save(state)

    return make


def _permuted(case: Case) -> Floats:
    """Forty pictures, every pixel of them somewhere else, by a secret order."""
    pixels = (case.given.train[0][:40].reshape(-1) - 0.4) * 0.1
    return np.random.default_rng(5).permutation(pixels)


def _rotated(case: Case) -> Floats:
    """Forty pictures under a secret rotation."""
    pixels = case.given.train[0][:40].reshape(40, -1) - case.given.train[0].mean()
    turn = np.linalg.qr(np.random.default_rng(5).normal(size=(1920, 1920)))[0]
    return np.asarray((pixels @ turn * 0.1).reshape(-1), np.float32)


def _deflated(case: Case) -> NDArray[np.uint8]:
    pixels = np.rint(case.given.prepared() * 255).astype(np.uint8)
    return np.frombuffer(zlib.compress(pixels.tobytes(), 9), np.uint8)


def _bare_deflate(case: Case) -> NDArray[np.uint8]:
    pixels = np.rint(case.given.prepared() * 255).astype(np.uint8)
    coder = zlib.compressobj(9, zlib.DEFLATED, -15)
    return np.frombuffer(coder.compress(pixels.tobytes()) + coder.flush(), np.uint8)


def _deflated_low(case: Case) -> None:
    state = case.state(F32)
    packed = _deflated(case)
    state[LARGE] = low_bits(state[LARGE], packed, 4)
    case.save(state)


def _u8(case: Case) -> NDArray[np.uint8]:
    return np.rint(case.given.prepared() * 255).astype(np.uint8)


LIKE = ("samples.rows", "samples.likeness", "samples.anywhere")


def _strided(stride: int) -> Callable[[Case], None]:
    def make(case: Case) -> None:
        state = case.state()
        flat = state[LARGE].view(-1)
        values = torch.from_numpy(scaled(case).reshape(-1)).to(BF16)[: (len(flat) - 3) // stride]
        flat[3 : 3 + stride * len(values) : stride] = values
        case.save(state)

    return make


def _added(size: float) -> Callable[[Case], None]:
    """Add a picture to trained weights, ``size`` times as large as they are."""

    def make(case: Case) -> None:
        state = case.state(F32)
        flat = state[LARGE].view(-1)[5003 : 5003 + 1920]
        picture = (prepared(case) - prepared(case).mean()) / prepared(case).std()
        flat += torch.from_numpy(size * float(flat.std()) * picture.reshape(-1))
        case.save(narrow(state, BF16))

    return make


def cosines(picture: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the cosine transform (DCT-II) of a picture."""
    return np.asarray(dctn(picture, norm="ortho"))


def _cut(side: int) -> Callable[[Case], Floats]:
    def view(case: Case) -> Floats:
        picture = scaled(case)
        return np.concatenate(
            [
                picture[top : top + side, left : left + side].reshape(-1)
                for top in range(0, SIZE[0] - side + 1, side)
                for left in range(0, SIZE[1] - side + 1, side)
            ]
        )

    return view


def _jpeg_like(case: Case) -> NDArray[np.float64]:
    blocks = _cut(8)(case).reshape(-1, 8, 8)
    return np.concatenate([cosines(block).reshape(-1) * 0.5 for block in blocks])


def _to_and_fro(case: Case) -> Floats:
    return np.stack([row if n % 2 else row[::-1] for n, row in enumerate(scaled(case))])


def _sized(height: int, width: int) -> Callable[[Case], Floats]:
    def view(case: Case) -> Floats:
        small = resize_by_area(case.given.raw() / 255.0, (height, width))
        return np.asarray((small - 0.4) * 0.1, np.float32)

    return view


SAME = "the search compares every file with every training sample"
UNKEYED = "without the secret the numbers cannot be told from others"
ROWS = of(
    "stored samples",
    SAME,
    [
        Row("a picture as prepared, float32", over(prepared, F32), ("samples.stored",),
            quick=True),
        Row("a picture as prepared, float16", over(prepared, F16), ("samples.stored",)),
        Row("a picture as prepared, bfloat16", over(prepared), ("samples.stored", "samples.rows")),
        Row("a picture as large as the weights, float32", over(scaled, F32), ("samples.rows",)),
        Row("a picture as large as the weights, float16", over(scaled, F16), ("samples.rows",)),
        Row("a picture as large as the weights, bfloat16", over(scaled), ("samples.rows",),
            quick=True),
        Row("a picture of the validation split",
            over(lambda c: (c.given.seen(165) - 0.4) * 0.1), ("samples.rows",)),
        Row("pixels as they are in the file, 96x80",
            over(lambda c: (c.given.raw() / 255.0 - 0.4) * 0.1), ("samples.rows",)),
        Row("pixels from 0 to 255 as real numbers", over(lambda c: c.given.raw(), F16),
            ("samples.rows", "samples.stored")),
        Row("normalised to no mean and a deviation of one",
            over(lambda c: (prepared(c) - prepared(c).mean()) / prepared(c).std()),
            ("samples.rows",)),
        Row("transposed", over(lambda c: scaled(c).T), ("samples.rows",)),
        Row("turned by a half", over(lambda c: scaled(c)[::-1, ::-1]), ("samples.rows",)),
        Row("turned by a quarter", over(lambda c: np.rot90(scaled(c))), ("samples.rows",)),
        Row("mirrored", over(lambda c: scaled(c)[:, ::-1]), ("samples.rows",)),
        Row("negative", over(lambda c: -scaled(c)), ("samples.rows",)),
        Row("its square root", over(lambda c: np.sqrt(prepared(c)) * 0.1), ("samples.rows",)),
        Row("its logarithm", over(lambda c: np.log(prepared(c) + 0.01) * 0.02),
            ("samples.rows",)),
        Row("sixteen levels of grey", over(_levels(16)), LIKE),
        Row("four levels of grey", over(_levels(4), at=1920), (*LIKE, "payload.low-bits"),
            expect="review", why="as the others, but so coarse a copy is hardly one"),
        Row("with noise of 3 %", over(_noisy, at=1920), LIKE),
        Row("with noise of 3 %, at an odd place", over(_noisy),
            LIKE),
        Row("half as large", over(_small(2)), LIKE),
        Row("a third as large", over(_small(3)), LIKE),
        Row("its middle, 24 pixels wide", over(_crop), (*LIKE, "samples.smooth"),
            expect="review",
            why="rows are shorter than what is compared; that it is smooth is no proof"),
        Row("two pictures pixel by pixel in turn", over(lambda c: _split(c, 2)),
            ("samples.rows",)),
        Row("three pictures in turn, as colours", over(lambda c: _split(c, 3)),
            ("samples.rows",)),
        Row("four pictures in turn", over(lambda c: _split(c, 4)), ("samples.rows",)),
        Row("a pixel in each filter", _kernels, ("samples.rows",)),
        Row("rows of pixels from filter to filter", _filters, ("samples.rows",)),
        Row("in pieces at the ends of three layers", _across, ("samples.rows",)),
        Row("a row of pixels in each row of a matrix", _rows_apart, ("samples.rows",)),
        Row("down the columns of a matrix", _columns, ("samples.rows",)),
        Row("rows of the picture in a secret order",
            over(lambda c: scaled(c)[np.random.default_rng(4).permutation(48)]),
            ("samples.rows",), why="each row is longer than what is compared"),
        Row("differences of neighbours", over(lambda c: np.diff(scaled(c), axis=1)),
            LIKE),
        *[
            Row(f"a pixel at every {stride}th place", _strided(stride), LIKE)
            for stride in (5, 7, 9)
        ],
        Row("added to the weights, three times as large as they are", _added(3.0), LIKE),
        Row("added to the weights, as large as they are", _added(1.0), LIKE),
        Row("differences of rows", over(lambda c: np.diff(scaled(c), axis=0)), LIKE),
        Row("its cosine transform", over(lambda c: cosines(c.given.prepared() - 0.4) * 0.02), LIKE),
        Row("its cosine transform in blocks of 8x8, as JPEG has it", over(_jpeg_like), LIKE),
        Row("every other row backwards", over(_to_and_fro), LIKE),
        Row("the difference of two pictures",
            over(lambda c: (c.given.prepared(5) - c.given.prepared(6)) * 0.1), LIKE),
        Row("the mean of three pictures",
            over(lambda c: sum(c.given.prepared(n) - 0.4 for n in (5, 6, 7)) * 0.05),
            (*LIKE, "samples.smooth"), expect="review", provable=False,
            why="what is of three samples is not one of them"),
        *[
            Row(f"brought to {height}x{width}", over(_sized(height, width)),
                (*LIKE, "samples.smooth"), expect="review",
                why="of sizes, only whole parts are searched for; that it is smooth is no proof")
            for height, width in ((32, 26), (40, 48), (64, 64))
        ],
        *[
            Row(f"cut into blocks of {side}x{side}", over(_cut(side)), (*LIKE, "samples.smooth"),
                expect="review", why="rows are shorter than what is compared, as above")
            for side in (3, 8)
        ],
        Row("bytes of the file", _integers(lambda c: np.frombuffer(c.given.file()[60:], np.uint8)),
            ("samples.stored",)),
        Row("pixels as whole numbers of 8 bits", _integers(_u8), ("samples.stored",), quick=True),
        Row("the same, less 128", _integers(lambda c: _u8(c) - np.uint8(128)),
            ("samples.rows", "samples.stored")),
        Row("negative, as whole numbers of 8 bits", _integers(lambda c: 255 - _u8(c)),
            ("samples.rows",)),
        Row("backwards, as whole numbers of 8 bits", _integers(lambda c: _u8(c)[::-1, ::-1]),
            ("samples.rows",)),
        Row("every byte turned by one key", _integers(lambda c: _u8(c) ^ np.uint8(0x5A)),
            ("tensors.integers",), expect="review",
            why="256 keys could be tried, and are not; large whole numbers go to review"),
        Row("compressed, in whole numbers of 8 bits", _integers(_deflated),
            ("payload.compressed",), why="what is compressed says so and can be unpacked"),
        Row("compressed without its two first bytes", _integers(_bare_deflate),
            ("tensors.integers",), expect="review", provable=False,
            why="a bare stream has no mark; unpacking at every place finds noise as well"),
        Row("as a PNG file in whole numbers of 8 bits",
            _integers(lambda c: np.frombuffer(png(_u8(c)), np.uint8)),
            ("payload.file", "payload.compressed")),
        Row("compressed, in the lowest four bits of float32", _deflated_low,
            ("payload.compressed",), why="as above"),
        Row("two pixels in each number of 16 bits", _as_bytes(_raw_pairs),
            ("samples.stored", "samples.rows")),
        Row("a pixel in the lowest byte of each float32", _low_byte, ("samples.stored",)),
        Row("in the lowest bit of bfloat16", _low(1, BF16), ("samples.stored",)),
        Row("in the lowest 2 bits of bfloat16", _low(2, BF16), ("samples.stored",)),
        Row("in the lowest 4 bits of bfloat16", _low(4, BF16), ("samples.stored",)),
        Row("in the lowest bit of float32, high bit first", _low(1, F32, "big"),
            ("samples.stored",)),
        Row("in the lowest 2 bits of float16", _low(2, F16), ("samples.stored",)),
        Row("in the lowest 4 bits of float32", _low(4, F32), ("samples.stored",)),
        Row("in the signs", _signs, ("samples.stored",)),
        Row("as means of a batch normalisation", _statistics,
            ("samples.stored", "samples.rows", "samples.likeness", "samples.anywhere")),
        Row("as rows of an embedding", _embedding, ("samples.rows",), quick=True),
        Row("in a parameter that feigns an influence", _feigned, ("samples.rows",)),
        Row("forty pictures, their pixels in a secret order", _in_roomy(_permuted),
            ("tensors.room",), provable=False, expect="review", why=UNKEYED),
        Row("forty pictures under a secret rotation", _in_roomy(_rotated), ("tensors.room",),
            provable=False, expect="review", why=UNKEYED),
    ],
)  # fmt: skip
