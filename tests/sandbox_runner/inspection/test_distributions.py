"""Replaced bits are told from trained ones, at each width; trained ones are left alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from sandbox_runner.inspection.distributions import Distribution

TEXT = b"Hong Gildong, born 1980-05-03: mass in the upper outer quadrant, BI-RADS 4. " * 4000
KINDS = {"F32": "<u4", "F16": "<u2", "BF16": "<u2"}
MANTISSA = {"F32": 23, "F16": 10, "BF16": 7}


def narrowed(array: np.ndarray, dtype: str) -> np.ndarray:
    """The stored elements of a float32 array in another type, one-dimensional."""
    flat = np.ascontiguousarray(array, dtype=np.float32).reshape(-1)
    if dtype == "F16":
        return flat.astype("<f2")
    if dtype == "BF16":
        bits = flat.view("<u4")
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")
    if dtype == "I8":
        return np.rint(flat / np.abs(flat).max() * 127).astype(np.int8)
    return flat


def rules(dtype: str, stored: np.ndarray, block: int = 1 << 15) -> set[str]:
    kept = Distribution(dtype)
    for start in range(0, len(stored), block):
        kept.feed(stored[start : start + block])
    return {found.rule for found in kept.findings("model.safetensors", "w")}


def _trained(weight_cost: float = 0.0, decay: float = 0.0, steps: int = 120) -> nn.Sequential:
    torch.manual_seed(2)
    layers = (nn.Linear(256, 192), nn.ReLU(), nn.Linear(192, 64), nn.Tanh(), nn.Linear(64, 256))
    network = nn.Sequential(*layers)
    optimiser = torch.optim.Adam(network.parameters(), 2e-3, weight_decay=decay)
    basis = torch.randn(12, 256)
    for _step in range(steps):
        batch = torch.randn(64, 12) @ basis
        loss = ((network(batch) - batch) ** 2).mean()
        loss = loss + weight_cost * sum(p.abs().sum() for p in network.parameters())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network


def _pruned() -> nn.Sequential:
    network = _trained()
    for parameter in network.parameters():
        least = parameter.abs().quantile(0.7)
        parameter.data[parameter.abs() < least] = 0
    return network


def _noisy() -> nn.Sequential:
    network = _trained()
    for parameter in network.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    return network


BENIGN: dict[str, Callable[[], nn.Sequential]] = {
    "trained": _trained,
    "hardly trained": lambda: _trained(steps=2),
    "sparse by its loss": lambda: _trained(weight_cost=1e-3),
    "decayed": lambda: _trained(decay=0.05),
    "pruned": _pruned,
    "with noise": _noisy,
}


@pytest.fixture(scope="module")
def weights() -> np.ndarray:
    return _trained()[0].weight.detach().numpy()


@pytest.mark.parametrize("name", BENIGN)
def test_a_trained_network_is_left_alone_in_each_type(name: str) -> None:
    network = BENIGN[name]()
    for layer in (0, 2, 4):
        array = network[layer].weight.detach().numpy()
        for dtype in (*KINDS, "I8"):
            assert rules(dtype, narrowed(array, dtype)) == set(), (layer, dtype)


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_text_in_the_lowest_bits_is_told(weights: np.ndarray, dtype: str, bits: int) -> None:
    stored = narrowed(weights, dtype).view(KINDS[dtype]).copy()
    planes = np.unpackbits(np.frombuffer(TEXT, np.uint8), bitorder="little")
    values = planes[: len(stored) * bits].reshape(-1, bits) @ (1 << np.arange(bits))
    stored = (stored >> bits << bits | values).astype(KINDS[dtype])
    assert rules(dtype, stored.view("<f4") if dtype == "F32" else stored) == {"payload.low-bits"}


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("left", [0, 1])
def test_encrypted_bits_in_most_of_the_mantissa_are_told(
    weights: np.ndarray, dtype: str, left: int
) -> None:
    """With more of the first bits left, it depends on the tensor's size; with three, never."""
    bits = MANTISSA[dtype] - left
    stored = narrowed(weights, dtype).view(KINDS[dtype])
    noise = np.random.default_rng(0).integers(0, 1 << bits, len(stored))
    stored = (stored >> bits << bits | noise).astype(KINDS[dtype])
    assert rules(dtype, stored.view("<f4") if dtype == "F32" else stored) == {"payload.steps"}


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("bits", [1, 2, 3])
def test_encrypted_bits_in_exponents_are_told(weights: np.ndarray, dtype: str, bits: int) -> None:
    mantissa = MANTISSA[dtype]
    stored = narrowed(weights, dtype).view(KINDS[dtype]).astype(np.int64)
    noise = np.random.default_rng(0).integers(0, 1 << bits, len(stored))
    stored = stored & ~(((1 << bits) - 1) << mantissa) | noise << mantissa
    changed = stored.astype(KINDS[dtype])
    found = rules(dtype, changed.view("<f4") if dtype == "F32" else changed)
    assert "payload.steps" in found


def test_bytes_in_place_of_weights_of_8_bits_are_told() -> None:
    data = np.random.default_rng(0).integers(0, 256, 20_000).astype(np.uint8)
    assert rules("I8", data.view(np.int8)) == rules("U8", data) == {"payload.even"}


def test_numbers_far_below_the_others_are_told(weights: np.ndarray) -> None:
    flat = weights.reshape(-1).copy()
    flat[::30] *= 2.0**-40
    assert "payload.exponents" in rules("F32", flat)


def test_one_number_again_and_again_is_told(weights: np.ndarray) -> None:
    flat = weights.reshape(-1).copy()
    flat[::10] = 0.0123
    assert rules("F32", flat) == {"payload.repeated"}
