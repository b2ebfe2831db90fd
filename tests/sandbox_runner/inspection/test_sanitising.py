"""What the findings on rewritten weights say, and that choosing noise believes no network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from policies.document import default_policy
from policies.tensors import TensorFact
from sandbox_runner.inspection import rewriting, sanitising
from sandbox_runner.inspection.safetensors_file import read_header
from sandbox_runner.oracle import OracleFault

FACTS: dict[str, Any] = {
    "capacity_bits": 1000,
    "read_back_bits": 900,
    "numbers": 400,
    "stored_bits": 12800,
    "noise": 0.25,
    "compared": 100_000,
    "agree": [0.5, 0.501, 0.499, 0.5],
}


def rules(findings: Sequence[Any]) -> dict[str, str]:
    return {found.rule: found.severity for found in findings}


def test_a_bound_that_holds_is_said_and_asks_nothing() -> None:
    assert rules(sanitising.check(FACTS, "m")) == {"sanitise.capacity": "info"}


@pytest.mark.parametrize(
    "change", [{"read_back_bits": 1001}, {"agree": [0.5, 0.6, 0.5, 0.5]}, {"agree": [1.0]}]
)
def test_a_bound_that_does_not_hold_or_a_bit_that_stays_blocks_for_good(
    change: dict[str, Any],
) -> None:
    found = {f.rule: f for f in sanitising.check(FACTS | change, "m")}
    assert found["sanitise.check"].hard


def area(value: float | None) -> dict[str, Any]:
    return {"image": {"auc": None if value is None else {"value": value, "low": 0, "high": 1}}}


@pytest.mark.parametrize(
    ("before", "after", "rule"),
    [
        (area(0.95), area(0.945), None),
        (area(0.95), area(0.96), None),
        (area(0.95), area(0.944), "sanitise.loss"),
        (area(None), area(None), "sanitise.unmeasured"),
        (area(0.95), area(None), "sanitise.unmeasured"),
        (area(0.95), {}, "sanitise.unmeasured"),
        ({}, {}, "sanitise.unmeasured"),
        ({"classes": {"0": area(0.9), "1": area(0.9)}},
         {"classes": {"0": area(0.9), "1": area(0.89)}}, "sanitise.loss"),
    ],
)  # fmt: skip
def test_a_loss_or_an_unknown_one_goes_to_review_without_a_figure(
    before: dict[str, Any], after: dict[str, Any], rule: str | None
) -> None:
    found = sanitising.check_loss(before, after, 0.005, "m")
    assert [f.rule for f in found] == ([rule] if rule else [])
    assert all(f.severity == "review" for f in found)
    assert all(set(f.evidence) <= {"most"} for f in found)


class Network:
    """A network of one product, asked as an oracle is; ``says`` may spoil its answers."""

    def __init__(self, says: str = "") -> None:
        self.weights = np.zeros((1, 64), np.float32)
        self._says = says

    def put(self, fact: TensorFact, array: NDArray[Any]) -> None:
        if fact.name == "w":
            flat = np.asarray(array).reshape(-1)
            self.weights = rewriting.as_floats(flat, fact.dtype).reshape(1, 64)

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._says == "nothing":
            raise OracleFault("not-finite")
        if self._says == "the same":
            return np.ones((len(batch), 1), np.float32)
        if self._says == "anything":
            drawn: NDArray[np.float32] = np.random.default_rng().normal(size=(len(batch), 1))
            return drawn.astype(np.float32)
        return batch.reshape(len(batch), -1) @ self.weights.T


def choose(network: Network, folder: Path) -> tuple[sanitising.Chosen, dict[str, Any]]:
    tensors = {"w": torch.randn(1, 64), "count": torch.tensor(77), "spare": torch.randn(40, 40)}
    path = folder / "m.safetensors"
    save_file(tensors, path)
    header = read_header(path, default_policy().release)
    network.weights = tensors["w"].numpy()

    def write(noise: float, draws: int, zero: Mapping[str, Sequence[str]]) -> sanitising.Drafts:
        place = folder / f"{noise}-{len(list(folder.iterdir()))}"
        account: dict[str, Any] = {}
        for draft in range(draws):
            target = place / str(draft) / path.name
            account = rewriting.rewrite(
                path, header, target, zero=zero[path.name], scale=noise, bits=4
            ).as_mapping()
        new = read_header(place / "0" / path.name, default_policy().release)
        folders = tuple(place / str(draft) for draft in range(draws))
        zeroed = account | {"zeroed": len(zero[path.name])}
        return sanitising.Drafts(folders, {path.name: new}, {path.name: zeroed})

    pictures = np.random.default_rng(0).normal(size=(40, 1, 8, 8)).astype(np.float32)
    tuning = sanitising.Tuning(
        network,  # type: ignore[arg-type]
        {path.name: (path, header)}, pictures, write, folder / "out", lambda _s, _n: None,
    )  # fmt: skip
    chosen = tuning.choose()
    return chosen, sanitising.account(chosen, {path.name: header}, 4)


def test_the_draft_is_kept_that_moves_the_answers_least(tmp_path: Path) -> None:
    network = Network()
    chosen, facts = choose(network, tmp_path)
    after = load_file(chosen.directory / "m.safetensors")
    # What does nothing is zero, whatever it was.
    assert not after["count"].any()
    assert not after["spare"].any()
    assert facts["zeroed"] == 2
    assert chosen.noise in sanitising.NOISES
    # Without choosing, noise of a thirty-second moves these answers by 0.001 and dither by as much.
    assert chosen.drift < 0.02
    # Choosing says something, too, and it is in the bound.
    plain = sum(row["capacity"] for row in chosen.drafts.accounts.values())
    assert facts["capacity_bits"] >= plain + 3 * math.log2(chosen.choices)


def test_a_network_without_finite_answers_is_not_rewritten(tmp_path: Path) -> None:
    with pytest.raises(sanitising.NotRewritten):
        choose(Network("nothing"), tmp_path)


def test_a_network_that_says_always_the_same_gets_the_most_noise(tmp_path: Path) -> None:
    chosen, facts = choose(Network("the same"), tmp_path)
    assert chosen.noise == max(sanitising.NOISES)
    assert facts["zeroed"] == 3  # and by its own word it needs no weights


def test_a_network_that_answers_anything_gets_the_least_noise_and_no_less(tmp_path: Path) -> None:
    chosen, facts = choose(Network("anything"), tmp_path)
    assert chosen.noise == min(sanitising.NOISES) > 0
    assert facts["drafts"] == sanitising.DRAFTS * sanitising.ROUNDS
