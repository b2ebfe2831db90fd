"""Payloads in trained networks, written by one who knows the type: what stays, and what it costs.

Three families, really trained on phantoms. The noise is chosen as the gate chooses it, on other
pictures than those on which the loss is measured; only the sandbox around the network is left out
(test_gate.py has it).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from policies.document import default_policy
from policies.tensors import TensorFact
from sandbox_runner.inspection import rewriting, sanitising
from sandbox_runner.inspection.safetensors_file import read_header

from .small_networks import FAMILIES, Trained, phantoms, train

POLICY = default_policy().release


class InProcess:
    """The same questions as to an oracle, to a network in this process."""

    def __init__(self, network: torch.nn.Module) -> None:
        self._network = network.eval()

    def put(self, fact: TensorFact, array: NDArray[np.generic]) -> None:
        raw = np.array(array, order="C")
        value = (
            torch.from_numpy(raw.view(np.int16)).view(torch.bfloat16)
            if fact.dtype == "BF16"
            else torch.from_numpy(raw)
        )
        self._network.state_dict()[fact.name].copy_(value.reshape(fact.shape))

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.no_grad():
            answer: NDArray[np.float32] = self._network(torch.from_numpy(batch)).numpy()
        return answer


def sanitise(trained: Trained, folder: Path, pictures: NDArray[np.float32]) -> sanitising.Chosen:
    """Rewrite ``folder``/model.safetensors as the gate does."""
    path = folder / "model.safetensors"
    header = read_header(path, POLICY)
    trained.network.load_state_dict({k: v.float() for k, v in load_file(path).items()})

    def write(noise: float, draws: int, zero: Mapping[str, Sequence[str]]) -> sanitising.Drafts:
        place = folder / f"{noise}"
        shutil.rmtree(place, ignore_errors=True)
        accounts = [
            rewriting.rewrite(
                path,
                header,
                place / str(draft) / path.name,
                zero=zero[path.name],
                scale=noise,
                bits=POLICY.sanitise_bits,
            ).as_mapping()
            for draft in range(draws)
        ]
        new = read_header(place / "0" / path.name, POLICY)
        account = accounts[0] | {"zeroed": len(zero[path.name])}
        account["read_back"] = max(each["read_back"] for each in accounts)
        folders = tuple(place / str(draft) for draft in range(draws))
        return sanitising.Drafts(folders, {path.name: new}, {path.name: account})

    return sanitising.Tuning(
        InProcess(trained.network),  # type: ignore[arg-type]
        {path.name: (path, header)},
        pictures,
        write,
        folder / "sanitised",
        lambda _step, _share: None,
    ).choose()


def hide(state: dict[str, torch.Tensor], bits: int, seed: int) -> dict[str, torch.Tensor]:
    """Return the weights with random bits in the lowest bits of every real number's bfloat16."""
    rng = np.random.default_rng(seed)
    spoiled = dict(state)
    for name, value in state.items():
        if value.is_floating_point():
            codes = value.to(torch.bfloat16).view(torch.int16).numpy().copy()
            drawn = rng.integers(0, 1 << bits, codes.shape, dtype=np.int16)
            codes = (codes & ~np.int16((1 << bits) - 1)) | drawn
            spoiled[name] = torch.from_numpy(codes).view(torch.bfloat16).float()
    return spoiled


def errors(
    before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor], bits: int
) -> tuple[list[float], int]:
    """Return the share of wrong bits by plane, lowest first, and how many bits a plane has."""
    wrong, count = np.zeros(bits), 0
    for name, value in before.items():
        if value.is_floating_point():
            old, new = (
                each.to(torch.bfloat16).view(torch.int16).numpy() for each in (value, after[name])
            )
            wrong += [(((old ^ new) >> plane) & 1).sum() for plane in range(bits)]
            count += value.numel()
    return [float(each / count) for each in wrong], count


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_bits_do_not_survive_and_the_network_does(family: str, tmp_path: Path) -> None:
    trained = train(family)
    state = {name: value.clone() for name, value in trained.network.state_dict().items()}
    plain = trained.area()
    pictures = phantoms(sanitising.PICTURES, seed=3)[0].numpy()
    print(f"\n{family}: AUC {plain:.4f} on {len(trained.labels)} unseen pictures")
    for bits in (0, 1, 2, 4):  # none: an honest network
        folder = tmp_path / str(bits)
        folder.mkdir()
        spoiled = hide(state, bits, seed=bits)
        save_file(spoiled, folder / "model.safetensors")
        # A payload costs something by itself; what rewriting costs is counted from there.
        with_payload = trained.area(spoiled)
        chosen = sanitise(trained, folder, pictures)
        after = load_file(chosen.directory / "model.safetensors")
        lost = with_payload - trained.area(after)
        wrong, count = errors(spoiled, after, bits)
        header = read_header(folder / "model.safetensors", POLICY)
        facts = sanitising.account(chosen, {"model.safetensors": header}, POLICY.sanitise_bits)
        numbers = facts["numbers"]
        print(
            f"  lowest {bits} bits: errors {[round(each, 4) for each in wrong]}, noise "
            f"{facts['noise']:.4g}, drift {facts['drift']}, AUC {with_payload:.4f} before, "
            f"{lost:.4f} lost, capacity "
            f"{facts['capacity_bits'] / numbers:.2f} bits a number, read back "
            f"{facts['read_back_bits'] / numbers:.2f}"
        )
        assert all(abs(each - 0.5) < 2.5 / np.sqrt(count) for each in wrong)  # five deviations
        assert lost < 0.005
        assert facts["read_back_bits"] <= facts["capacity_bits"]
        assert [found.severity for found in sanitising.check(facts, "")] == ["info"]
