"""Only networks of the closed list become a graph, and only such graphs are read, whoever wrote."""

from __future__ import annotations

import copy
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import parametrizations

from policies.document import default_policy
from policies.errors import Invalid
from policies.submission import parse_manifest
from sandbox_runner.inspection.safetensors_file import read_header
from sandbox_runner.private import graph as graphs
from sandbox_runner.private.inside import closed_list
from sandbox_runner.private.network import CALLED, ClosedNetwork

ROOM = Path(graphs.__file__).parent
RELEASE = default_policy().release


@pytest.fixture(scope="module")
def describe() -> Any:
    """The program that draws, imported as the sandbox runs it: beside nothing but the SDK."""
    places = [str(ROOM / "inside"), str(ROOM.parent / "sdk")]
    sys.path[:0] = places
    try:
        spec = importlib.util.spec_from_file_location("describe", ROOM / "inside" / "describe.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        for place in places:
            sys.path.remove(place)
    return module


def drawn(describe: Any, network: nn.Module, folder: Path) -> Path:
    """Write what the drawing program writes of a network."""
    try:
        said = describe.draw(network)
        describe.check_state(network, said["layers"])
        frozen = [name for name, value in network.named_parameters() if not value.requires_grad]
        said = {"graph": said | {"frozen": sorted(frozen)}}
        save_file({k: v.contiguous() for k, v in network.state_dict().items()},
                  folder / graphs.INITIAL)  # fmt: skip
    except describe.Refused as refused:
        said = {"refused": refused.said}
    (folder / graphs.GRAPH).write_text(json.dumps(said))
    return folder


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.GroupNorm(2, width)
        self.two = nn.Conv2d(width, width, 3, padding="same", bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.two(nn.functional.gelu(self.norm(self.one(x)))))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 16, 4, stride=4)
        self.norm = nn.LayerNorm(16)
        self.query, self.key, self.value = (nn.Linear(16, 16) for _ in range(3))
        self.head = nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        y = self.norm(x)
        weights = torch.softmax(self.query(y) @ self.key(y).transpose(1, 2) / 4.0, dim=-1)
        return self.head((x + weights @ self.value(y)).mean(dim=1))


class Unet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.SiLU())
        self.deep = nn.Sequential(nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.InstanceNorm2d(8))
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.last = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(8, 1, 1), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one = self.down(x)
        return self.last(torch.cat([one, self.up(self.deep(one))], dim=1))


class Shared(nn.Module):
    """One layer, used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.last = nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.again(self.again(self.first(x)).relu())
        return self.last(x.amax(dim=(2, 3)))


def plain(*more: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(inplace=True), *more, nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(4, 1),
    )  # fmt: skip


@pytest.mark.parametrize(
    "make",
    [
        plain,
        lambda: plain(Residual(4), Residual(4)),
        lambda: plain(nn.MaxPool2d(2), nn.Dropout2d(0.1), nn.LeakyReLU(0.2), nn.Identity()),
        Attention,
        Unet,
        Shared,
    ],
)
def test_a_network_of_the_closed_list_is_built_again_and_answers_the_same(
    describe: Any, make: Callable[[], nn.Module], tmp_path: Path
) -> None:
    torch.manual_seed(1)
    network = make().eval()
    graph = graphs.read(drawn(describe, network, tmp_path), RELEASE)
    rebuilt = ClosedNetwork(graph).eval()
    initial = tmp_path / graphs.INITIAL
    rebuilt.load(initial, read_header(initial, RELEASE))
    pictures = torch.rand(5, 1, 16, 16)
    assert torch.allclose(rebuilt(pictures), network(pictures), atol=1e-6)
    assert set(rebuilt.named) == set(network.state_dict())


def test_the_example_is_a_closed_graph_with_four_numbers_to_train(
    describe: Any, tmp_path: Path
) -> None:
    place = ROOM.parents[1] / "examples" / "private-cnn"
    manifest = parse_manifest((place / "glovebox.toml").read_text(), default_policy())
    assert manifest.private is not None
    assert manifest.private.epsilon == 2.0
    code: dict[str, Any] = {}
    exec((place / "model.py").read_text(), code)
    graph = graphs.read(drawn(describe, code["build"](manifest.config), tmp_path), RELEASE)
    trained = [value for value in ClosedNetwork(graph).parameters() if value.requires_grad]
    assert sum(value.numel() for value in trained) == 4


def test_frozen_tensors_are_said_and_kept(describe: Any, tmp_path: Path) -> None:
    network = plain()
    network[0].requires_grad_(False)
    graph = graphs.read(drawn(describe, network, tmp_path), RELEASE)
    rebuilt = ClosedNetwork(graph)
    assert {name for name, value in rebuilt.named.items() if not value.requires_grad} == {
        "0.weight",
        "0.bias",
    }


class OwnParameter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


class Branches(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.mean() > 0.5 else -x


class Loops(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for each in x:
            x = x + each
        return x


class Pretends(nn.Module):
    """Says that it is a layer of the list."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = nn.Parameter(torch.zeros(4))

    @property
    def __class__(self) -> type:  # type: ignore[override]
        return nn.ReLU

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.seen.reshape(1, 4, 1, 1)


class Own(nn.Conv2d):
    """A layer of the list, with another forward."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x * x.detach().max().item())


class Answers(nn.Module):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            return super().__getattr__(name)
        raise RuntimeError("hostile")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.anything(x)


class Keeps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kept", torch.zeros(4, 7, 7))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.kept.copy_(x[0])
        return x


def hooked(network: nn.Module) -> nn.Module:
    network.register_forward_hook(lambda module, given, out: out * 2)
    return network


def replaced(network: nn.Module) -> nn.Module:
    network.forward = lambda x: x * 2
    return network


REFUSED: list[tuple[Callable[[], nn.Module], str, str]] = [
    (lambda: plain(nn.BatchNorm2d(4)), "2", "BatchNorm2d"),
    (lambda: plain(nn.Sequential(nn.BatchNorm2d(4))), "2.0", "GroupNorm"),
    (lambda: plain(nn.InstanceNorm2d(4, track_running_stats=True)), "2", "track_running_stats"),
    (lambda: plain(nn.PReLU()), "2", "PReLU"),
    (lambda: plain(OwnParameter()), "2", "OwnParameter"),
    (lambda: plain(Keeps()), "2", "Keeps"),
    (lambda: plain(Pretends()), "2", "Pretends"),
    (lambda: plain(Branches()), "2", "TraceError"),
    (lambda: plain(Loops()), "2", "TraceError"),
    (lambda: plain(Own(4, 4, 1)), "2", "Own"),
    (lambda: plain(Answers()), "2", "RuntimeError"),
    (lambda: plain(hooked(nn.Tanh())), "2", "hook"),
    (lambda: plain(replaced(nn.Tanh())), "2", "hook"),
    (lambda: parametrizations.weight_norm(nn.Linear(4, 4)), "parametrizations", "no layer"),
    (lambda: plain(nn.LSTM(4, 4)), "2", "LSTM"),
    (lambda: plain(nn.Conv2d(4, 4, 1).double()), "2.weight", "float64"),
    (lambda: nn.Sequential(nn.Flatten(), nn.Embedding(10, 4)), "1", "Embedding"),
    (lambda: plain(nn.Upsample(scale_factor=1000.0)), "2", "scale_factor"),
]


@pytest.mark.parametrize(("make", "place", "word"), REFUSED)
def test_anything_else_is_refused_by_name(
    describe: Any, make: Callable[[], nn.Module], place: str, word: str, tmp_path: Path
) -> None:
    with pytest.raises(Invalid) as caught:
        graphs.read(drawn(describe, make(), tmp_path), RELEASE)
    assert caught.value.field == "model.build"
    assert word in str(caught.value)
    assert str(caught.value).startswith((place, f"The forward() of {place}", f"The tensor {place}"))


def test_a_call_that_is_not_on_the_list_is_refused_by_name(describe: Any, tmp_path: Path) -> None:
    class Calls(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.fft.fft(x).real

    with pytest.raises(Invalid, match="fft_fft"):
        graphs.read(drawn(describe, plain(Calls()), tmp_path), RELEASE)


def test_every_call_of_the_list_has_an_implementation_and_a_reader(describe: Any) -> None:
    assert set(CALLED) == set(closed_list.CALLS) == set(describe.READERS)


# What a submission could write instead of what our program writes: it shares its process.
def spoil(change: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    def spoiled(said: dict[str, Any]) -> Any:
        copied = copy.deepcopy(said)
        found = change(copied["graph"])
        return copied if found is None else found

    return spoiled


def _set(*path: Any) -> Callable[[dict[str, Any]], None]:
    *way, last, value = path

    def change(graph: dict[str, Any]) -> None:
        place: Any = graph
        for step in way:
            place = place[step]
        place[last] = value

    return change


def _huge(graph: dict[str, Any]) -> None:
    step = {"do": "relu", "inputs": [0], "arguments": {}}
    graph["nodes"] += [step] * closed_list.MOST_NODES


def _wide(graph: dict[str, Any]) -> None:
    graph["layers"]["4"]["arguments"] |= {"in_features": 65536, "out_features": 65536}


FORGED = [
    spoil(_set("layers", "0", "kind", "BatchNorm2d")),
    spoil(_set("layers", "0", "kind", "__import__('os').system")),
    spoil(_set("layers", "0", "kind", ["Conv2d"])),
    spoil(_set("layers", "0", "arguments", {})),
    spoil(_set("layers", "0", "arguments", "groups", 0)),
    spoil(_set("layers", "0", "arguments", "groups", 3)),
    spoil(_set("layers", "0", "arguments", "bias", 1)),
    spoil(_set("layers", "0", "arguments", "padding", [10**9, 0])),
    spoil(_set("layers", "0", "arguments", "device", "cuda")),
    spoil(_set("layers", "0", "arguments", "kernel_size", [3, 3, 3])),
    spoil(_set("layers", "0", "arguments", "in_channels", True)),
    spoil(_set("layers", "../0", {"kind": "ReLU", "arguments": {}})),
    spoil(_set("layers", "unused", {"kind": "ReLU", "arguments": {}})),
    spoil(_set("nodes", 1, "inputs", [1])),
    spoil(_set("nodes", 1, "inputs", [-1])),
    spoil(_set("nodes", 1, "inputs", [0, 0])),
    spoil(_set("nodes", 1, "layer", "9")),
    spoil(_set("nodes", 1, "layer", ["0"])),
    spoil(_set("nodes", 1, {"do": "input"})),
    spoil(_set("nodes", 0, {"do": "relu", "inputs": [], "arguments": {}})),
    spoil(_set("nodes", 2, {"do": "__getattr__", "inputs": [1], "arguments": {}})),
    spoil(_set("nodes", 2, {"do": "add", "inputs": [1], "arguments": {"other": None}})),
    spoil(_set("nodes", 2, {"do": "add", "inputs": [1, 1], "arguments": {"other": 1.0}})),
    spoil(_set("nodes", 2, {"do": "reshape", "inputs": [1], "arguments": {"shape": [2**40]}})),
    spoil(_set("output", 0)),
    spoil(_set("output", 99)),
    spoil(_set("output", True)),
    spoil(_set("frozen", ["nobody"])),
    spoil(_set("frozen", ["0.weight", "0.bias", "4.weight", "4.bias"])),
    spoil(_set("frozen", "0.weight")),
    spoil(_set("program", "import os")),
    spoil(_huge),
    spoil(_wide),
    lambda said: {"graph": None},
    lambda said: {"graph": [1]},
    lambda said: {},
    lambda said: {"refused": "nonsense"},
    lambda said: {"refused": {"why": ["layer"], "name": 3}},
    lambda said: [said],
]


@pytest.mark.parametrize("forge", FORGED)
def test_a_forged_graph_is_refused(
    describe: Any, forge: Callable[[dict[str, Any]], Any], tmp_path: Path
) -> None:
    place = drawn(describe, plain(), tmp_path) / graphs.GRAPH
    said = json.loads(place.read_text())
    assert graphs.read(tmp_path, RELEASE)
    place.write_text(json.dumps(forge(said)))
    with pytest.raises(Invalid) as caught:
        graphs.read(tmp_path, RELEASE)
    assert caught.value.code == "private.graph"


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t | {"extra": torch.zeros(3)},
        lambda t: {name: value for name, value in t.items() if name != "0.bias"},
        lambda t: t | {"0.bias": torch.zeros(5)},
        lambda t: t | {"0.bias": torch.zeros(4).half()},
    ],
)
def test_other_initial_values_are_refused(
    describe: Any, change: Callable[[dict[str, Any]], dict[str, Any]], tmp_path: Path
) -> None:
    network = plain()
    drawn(describe, network, tmp_path)
    save_file(change(dict(network.state_dict())), tmp_path / graphs.INITIAL)
    with pytest.raises(Invalid, match="initial values"):
        graphs.read(tmp_path, RELEASE)


def test_what_is_told_of_a_refusal_is_inert(tmp_path: Path) -> None:
    said = {"why": "layer", "name": "\x1b[31m<b>{field}</b>" + "x" * 5000, "kind": "{0.__class__}"}
    (tmp_path / graphs.GRAPH).write_text(json.dumps({"refused": said}))
    with pytest.raises(Invalid) as caught:
        graphs.read(tmp_path, RELEASE)
    text = str(caught.value)
    assert not set("\x1b<>{}") & set(text)
    assert len(text) < 1000


def test_a_graph_that_is_no_json_or_endless_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"{", b"[" * 100_000, b'{"graph": NaN}', b" " * (graphs.GRAPH_BYTES + 1)):
        (tmp_path / graphs.GRAPH).write_bytes(content)
        with pytest.raises(Invalid):
            graphs.read(tmp_path, RELEASE)


def test_the_digest_is_of_the_graph(describe: Any, tmp_path: Path) -> None:
    one = graphs.read(drawn(describe, plain(), tmp_path), RELEASE)
    same = graphs.read(drawn(describe, plain(), tmp_path), RELEASE)
    other = graphs.read(drawn(describe, plain(nn.Tanh()), tmp_path), RELEASE)
    assert one.digest() == same.digest() != other.digest()
