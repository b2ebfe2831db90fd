"""Parts of tensors that change nothing are found by few questions, and live ones are left alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from policies.document import default_policy
from policies.findings import Finding, verdict
from sandbox_runner.inspection import influence
from sandbox_runner.inspection.safetensors_file import Header, read_header, values
from sandbox_runner.oracle import OracleFault

PICTURES = np.random.default_rng(0).random((8, 1, 12, 12), dtype=np.float32)


class InThisProcess:
    """An oracle without a sandbox around it: the same questions to the same network."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network.eval()
        self.asked = 0

    def put(self, fact, array, part=None) -> None:
        target = self.network.state_dict()[fact.name]
        if part is not None:
            target = target.narrow(*part)
        bits = np.ascontiguousarray(array).reshape(-1).tobytes()
        stored = torch.frombuffer(bytearray(bits), dtype=target.dtype)
        target.copy_(stored.reshape(target.shape))

    def predict(self, batch):
        self.asked += 1
        with torch.no_grad():
            answer = self.network(torch.from_numpy(batch)).float().numpy()
        if not np.isfinite(answer).all():
            raise OracleFault("not-finite")
        return answer


def examine(network: nn.Module, folder: Path) -> list[Finding]:
    path = folder / "model.safetensors"
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, path)
    header: Header = read_header(path, default_policy().release)
    arrays = {t.name: values(path, header, t) for t in header.tensors}
    constants = {name for name, a in arrays.items() if (a == a.reshape(-1)[0]).all()}
    oracle = InThisProcess(network)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = influence.check(oracle, path, header, constants, PICTURES, "m")  # type: ignore[arg-type]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert oracle.asked <= 1 + len(header.tensors) + 6 * influence.QUESTIONS
    return found


def convolutions() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 24, 3), nn.BatchNorm2d(24), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(24, 2),
    )  # fmt: skip


def layers() -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(144, 64), nn.ReLU(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 2)
    )


def trained(build: Callable[[], nn.Sequential], decay: float = 0.0, steps: int = 60) -> nn.Module:
    torch.manual_seed(0)
    network = build()
    optimiser = torch.optim.Adam(network.parameters(), 3e-3, weight_decay=decay)
    for _step in range(steps):
        x = torch.rand(32, 1, 12, 12)
        y = (x[:, 0, :6].mean((1, 2)) > x[:, 0, 6:].mean((1, 2))).long()
        loss = nn.functional.cross_entropy(network(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network


def pruned() -> nn.Module:
    network = trained(layers)
    for parameter in network.parameters():
        parameter.data[parameter.abs() < parameter.abs().median()] = 0
    return network


BENIGN: dict[str, Callable[[], nn.Module]] = {
    "convolutions": lambda: trained(convolutions),
    "layers": lambda: trained(layers),
    "hardly trained": lambda: trained(convolutions, steps=1),
    "decayed": lambda: trained(layers, decay=0.02),
    "pruned": pruned,
    "bfloat16": lambda: trained(layers).to(torch.bfloat16),
}


class InBfloat16(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.inner = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x.to(torch.bfloat16))


@pytest.mark.parametrize("name", BENIGN)
def test_a_trained_network_has_no_dead_parts(name: str, tmp_path: Path) -> None:
    network = BENIGN[name]()
    if name == "bfloat16":
        network = InBfloat16(network)
    found = examine(network, tmp_path)
    if name == "pruned":  # some units lost all of their inputs: told, and at worst reviewed
        assert {f.rule for f in found} <= {"tensors.dead-parts"}
        assert verdict(found) != "block"
    elif name == "hardly trained":  # five of its last units are never above zero, and few are asked
        assert {f.rule for f in found} <= {"tensors.dead-parts"}
        assert verdict(found) == "pass"
    else:
        assert found == []


class Narrow(nn.Module):
    """Uses only so many columns of its first layer; the others could hold anything."""

    def __init__(self, used: int, rows: bool) -> None:
        super().__init__()
        self.used, self.rows = used, rows
        self.first = nn.Linear(144, 144)
        self.last = nn.Linear(144, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, x = self.first.weight, x.flatten(1)
        if self.rows:
            hidden = nn.functional.linear(x, weight[: self.used], self.first.bias[: self.used])
            return nn.functional.linear(hidden, self.last.weight[:, : self.used], self.last.bias)
        return self.last(nn.functional.linear(x[:, : self.used], weight[:, : self.used]))


@pytest.mark.parametrize("rows", [True, False], ids=["rows", "columns"])
def test_dead_rows_and_columns_are_found_and_zeros_are_not(rows: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Narrow(20, rows)
    found = {f.rule: f for f in examine(network, tmp_path)}
    assert found["tensors.dead-parts"].evidence["dead"] > 10
    assert found["tensors.dead-parts"].severity in ("review", "block")
    with torch.no_grad():
        network.first.weight[network.used :] = 0
        network.first.weight[:, network.used :] = 0
        network.first.bias[:] = 0
        network.last.weight[:, network.used :] = 0
    assert examine(network, tmp_path) == []


@pytest.mark.parametrize("rows", [True, False], ids=["rows", "columns"])
def test_a_fifth_in_dead_rows_that_live_columns_cross_goes_to_review(
    rows: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    found = {f.rule: f for f in examine(Narrow(112, rows), tmp_path)}
    assert found["tensors.dead-parts"].severity == "review"


def test_a_network_of_mostly_dead_parts_is_blocked(tmp_path: Path) -> None:
    torch.manual_seed(0)

    class Corner(Narrow):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            weight = self.first.weight[:20, :20]
            hidden = nn.functional.linear(x.flatten(1)[:, :20], weight)
            return nn.functional.linear(hidden, self.last.weight[:, :20], self.last.bias)

    (found,) = [f for f in examine(Corner(20, True), tmp_path) if f.rule == "tensors.dead-parts"]
    assert found.severity == "block"


def test_whole_numbers_that_nobody_reads_are_found_and_an_index_is_not(tmp_path: Path) -> None:
    class Indexed(nn.Module):
        def __init__(self, read: bool) -> None:
            super().__init__()
            self.inner, self.read = layers(), read
            order = torch.randperm(144, generator=torch.Generator().manual_seed(0))
            self.register_buffer("order", order.repeat(40 if not read else 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.read:
                x = x.flatten(1)[:, self.order]
            return self.inner(x)

    torch.manual_seed(0)
    assert examine(Indexed(True), tmp_path) == []
    found = examine(Indexed(False), tmp_path)
    assert [f.rule for f in found] == ["tensors.dead-parts"]
    assert found[0].internal["parts"][0]["tensor"] == "order"


def test_counters_that_differ_are_told(tmp_path: Path) -> None:
    class Counting(nn.Module):
        def __init__(self, values: list[int]) -> None:
            super().__init__()
            self.inner = layers()
            for number, value in enumerate(values):
                self.register_buffer(f"count{number}", torch.tensor(value))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)

    torch.manual_seed(0)
    assert examine(Counting([300] * 12), tmp_path) == []
    data = np.frombuffer(b"Hong Gildong, born on 3 May 1980", "<i8").tolist() * 2
    assert examine(Counting([*data, 1, 2]), tmp_path)[0].rule == "tensors.counters"


def test_small_quantised_layers_are_weights_and_no_counters(tmp_path: Path) -> None:
    class Quantised(nn.Module):
        def __init__(self, read: bool) -> None:
            super().__init__()
            self.inner, self.read = layers(), read
            for number in range(40):
                kept = torch.randint(-120, 120, (1 + number % 24,), dtype=torch.int8)
                self.register_buffer(f"layer{number}", kept)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            answers = self.inner(x)
            if self.read:
                for name, kept in self.named_buffers():
                    if name.startswith("layer"):
                        places = torch.arange(1, len(kept) + 1) / 1000
                        answers = answers + (kept.float() * places).sum()
            return answers

    torch.manual_seed(0)
    assert examine(Quantised(True), tmp_path) == []
    found = examine(Quantised(False), tmp_path)
    assert [each.rule for each in found] == ["tensors.dead-parts"]


def test_a_network_that_answers_too_slowly_goes_to_review(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(influence, "SECONDS", 0.0)
    assert [f.rule for f in examine(trained(layers, steps=5), tmp_path)] == [
        "tensors.parts-unasked"
    ]
