"""Rewritten weights: what stays of a payload, what the bound says, what the file looks like."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from policies.document import default_policy
from sandbox_runner.inspection import capacity, noise, rewriting
from sandbox_runner.inspection.safetensors_file import read_header

from . import decoders

POLICY = default_policy().release
NOISES = (0.0, 0.03125, 0.125, 0.5)


def rewrite(
    tensors: dict[str, torch.Tensor],
    folder: Path,
    *,
    scale: float = 0.0625,
    bits: int = 4,
    zero: tuple[str, ...] = (),
) -> tuple[dict[str, torch.Tensor], rewriting.Account]:
    source, target = folder / "before.safetensors", folder / "after.safetensors"
    target.unlink(missing_ok=True)
    save_file(tensors, source)
    header = read_header(source, POLICY)
    account = rewriting.rewrite(source, header, target, zero=zero, scale=scale, bits=bits)
    read_header(target, POLICY)
    return load_file(target), account


def blahut_arimoto(channel: NDArray[np.float64]) -> float:
    """The capacity in bits of a small channel, inputs by outputs (Blahut 1972)."""
    share = np.full(len(channel), 1 / len(channel))
    for _ in range(300):
        out = share @ channel
        with np.errstate(divide="ignore", invalid="ignore"):
            each = np.where(channel > 0, channel * np.log2(channel / out), 0).sum(axis=1)
        share *= np.exp2(each)
        share /= share.sum()
    return float(each.max())


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_the_bound_of_dither_is_no_less_than_the_channels_capacity(bits: int) -> None:
    codes, steps = 40, 1 << bits
    channel = np.zeros((codes, codes + steps - 1))
    for code in range(codes):
        channel[code, code : code + steps] = 1 / steps
    exact = blahut_arimoto(channel)
    assert exact <= capacity.dithered_bits(1, codes, bits, signed=False) + 1e-3
    assert exact > capacity.dithered_bits(1, codes, bits, signed=False) - 0.2


@pytest.mark.parametrize("scale", NOISES)
@pytest.mark.parametrize("name", decoders.ALL)
def test_no_decoder_reads_more_than_the_capacity_that_is_shown(
    name: str, scale: float, tmp_path: Path
) -> None:
    sent, read = decoders.ALL[name](np.random.default_rng(5))
    # Whole as it is written: without noise each of these reads what it wrote.
    assert read(sent) > 0.5 * min(decoders.ROWS, sent.size)
    after, account = rewrite({"w": torch.from_numpy(sent.copy())}, tmp_path, scale=scale)
    got = read(after["w"].float().numpy())
    print(f"{name}, noise {scale}: {got:.0f} of at most {account.capacity:.0f} bits")
    assert got <= account.capacity
    assert account.read_back <= account.capacity
    if name.startswith("lowest"):
        # Hard reading of what was written into the type's own lowest bits: a fair coin.
        assert got < 60
    # The bound says something: without it a number of the type holds 16 bits.
    assert account.capacity < sent.size * 9


def test_the_bound_is_near_what_the_best_decoder_gets(tmp_path: Path) -> None:
    """A bound that is far above what anybody gets would say nothing."""
    best = 0.0
    for name in ("4 levels", "8 levels"):
        sent, read = decoders.ALL[name](np.random.default_rng(5))
        after, account = rewrite({"w": torch.from_numpy(sent.copy())}, tmp_path, scale=0.25)
        best = max(best, read(after["w"].float().numpy()))
    assert best > account.capacity / 2


@pytest.mark.parametrize("bits", [1, 2, 4, 6])
def test_the_lowest_bits_are_a_fair_coin_whatever_was_there(bits: int, tmp_path: Path) -> None:
    codes = np.full((64, 1024), 0x3D7F, np.int32)  # one number, just below a power of two
    sent = torch.from_numpy(decoders.numbers_of(codes))
    after, account = rewrite({"w": sent, "b": sent[0, :].clone()}, tmp_path, scale=0.0, bits=bits)
    got = decoders.codes_of(after["w"].float().numpy())
    for plane in range(bits):
        assert abs(float(((got >> plane) & 1).mean()) - 0.5) < 4 * 0.5 / math.sqrt(got.size)
    assert all(abs(each / account.compared - 0.5) < 0.02 for each in account.agree)


def test_signed_bytes_lose_their_lowest_bits_within_their_type(tmp_path: Path) -> None:
    payload = np.random.default_rng(1).integers(-127, 128, (256, 256)).astype(np.int8)
    after, account = rewrite({"q": torch.from_numpy(payload)}, tmp_path, scale=0.0)
    assert after["q"].dtype == torch.int8
    assert int(after["q"].int().abs().max()) <= 127
    for plane in range(4):
        same = float((((after["q"].numpy() ^ payload) >> plane) & 1 == 0).mean())
        assert abs(same - 0.5) < 0.02
    assert account.capacity < 4.2 * payload.size


def test_two_rewritings_have_nothing_in_common(tmp_path: Path) -> None:
    sent = {"w": torch.randn(64, 64)}
    first, _ = rewrite(sent, tmp_path)
    second, _ = rewrite(sent, tmp_path)
    noise_of = [(each["w"].float() - sent["w"]).reshape(-1) for each in (first, second)]
    assert abs(float(torch.corrcoef(torch.stack(noise_of))[0, 1])) < 0.1


def test_noise_is_normal_and_steps_are_uniform() -> None:
    drawn = noise.gaussian(400_001)
    assert len(drawn) == 400_001
    assert np.isfinite(drawn).all()
    assert abs(float(drawn.mean())) < 0.01
    assert abs(float(drawn.std()) - 1) < 0.01
    assert abs(float((np.abs(drawn) < 1).mean()) - 0.6827) < 0.005
    counts = np.bincount(noise.steps(160_000, 4) + 8, minlength=16)
    assert len(counts) == 16
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 50


def test_order_names_and_metadata_have_one_spelling(tmp_path: Path) -> None:
    tensors = {"b.weight": torch.randn(8, 8), "a.weight": torch.randn(8, 8), "n": torch.tensor(3)}
    heads = []
    for metadata in ({"format": "pt"}, {"format": "np"}, None):
        source = tmp_path / "source.safetensors"
        save_file(tensors, source, metadata=metadata)
        target = tmp_path / f"{len(heads)}.safetensors"
        header = read_header(source, POLICY)
        rewriting.rewrite(source, header, target, zero=(), scale=0.1, bits=4)
        raw = target.read_bytes()
        heads.append(raw[: 8 + int.from_bytes(raw[:8], "little")])
    assert len(set(heads)) == 1
    assert list(json.loads(heads[0][8:])) == ["__metadata__", "n", "a.weight", "b.weight"]


def test_what_does_nothing_becomes_zero_and_says_nothing(tmp_path: Path) -> None:
    tensors = {
        "n": torch.tensor(2**40),
        "memory": torch.randn(300, 300),
        "empty": torch.zeros(9, 9),
        "w": torch.randn(9, 9),
    }
    tensors["w"][3] = 0
    after, account = rewrite(tensors, tmp_path, zero=("n", "memory"))
    assert not after["n"].any()
    assert not after["memory"].any()
    assert not after["empty"].any()
    # A row of zeros is one of the scales that a row may have.
    assert not after["w"][3].any()
    assert after["w"][2].all()
    said = {name: bits for name, _, bits in account.tensors}
    assert said["n"] == said["memory"] == 0
    assert said["empty"] == capacity.TENSOR_BITS
    assert said["w"] >= 9 * capacity.scale_bits()


def test_whole_numbers_stay_and_are_counted_in_full(tmp_path: Path) -> None:
    tensors = {"index": torch.arange(100), "mask": torch.ones(50, dtype=torch.bool)}
    after, account = rewrite(tensors, tmp_path)
    assert torch.equal(after["index"], tensors["index"])
    assert account.capacity == account.kept == 100 * 64 + 50


def test_statistics_stay_positive_and_tiny_or_huge_numbers_stay_finite(tmp_path: Path) -> None:
    tensors = {
        "variance": torch.logspace(-6, 2, 300),
        "huge": torch.full((4, 40), 3e38),
        "tiny": torch.full((4, 40), 1e-38),
        "half": torch.randn(8, 8).half(),
    }
    after, _ = rewrite(tensors, tmp_path, scale=0.5)
    assert (after["variance"][60:] > 0).all()
    assert (after["variance"] >= 0).all()
    for value in after.values():
        assert torch.isfinite(value.float()).all()
        assert value.dtype == torch.bfloat16


@pytest.mark.parametrize("shape", [(3, 70_000), (1, 5, 7), (200_001,), (5, 1, 3, 3), (1,), ()])
def test_every_shape_is_written_whole(shape: tuple[int, ...], tmp_path: Path) -> None:
    sent = torch.randn(shape) + 3
    after, account = rewrite({"w": sent}, tmp_path, scale=0.03125)
    assert after["w"].shape == sent.shape
    if sent.numel() > 100:  # each number in its own place
        both = torch.stack([after["w"].float().reshape(-1), sent.reshape(-1)])
        assert torch.corrcoef(both)[0, 1] > 0.98
    assert float((after["w"].float() - sent).abs().max()) < 1.5
    assert account.capacity > 0
