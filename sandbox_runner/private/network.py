"""Build the network of a closed graph from our own table of layers. Needs torch.

Nothing of the submission runs here: its layers are names of the closed list and numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional

from sandbox_runner.inspection.safetensors_file import Header, values
from sandbox_runner.private.graph import Graph
from sandbox_runner.private.inside.closed_list import LAYERS

Tensor = torch.Tensor
KINDS: Final[Mapping[str, type[nn.Module]]] = {name: getattr(nn, name) for name in LAYERS}


def _other(inputs: list[Tensor], given: Mapping[str, Any]) -> Any:
    return inputs[1] if len(inputs) == 2 else given["other"]


CALLED: Final[Mapping[str, Callable[[list[Tensor], Mapping[str, Any]], Tensor]]] = {
    "add": lambda x, given: x[0] + _other(x, given),
    "sub": lambda x, given: x[0] - _other(x, given),
    "mul": lambda x, given: x[0] * _other(x, given),
    "div": lambda x, given: x[0] / _other(x, given),
    "matmul": lambda x, given: x[0] @ x[1],
    "cat": lambda x, given: torch.cat(x, given["dim"]),
    "relu": lambda x, given: torch.relu(x[0]),
    "gelu": lambda x, given: functional.gelu(x[0]),
    "silu": lambda x, given: functional.silu(x[0]),
    "sigmoid": lambda x, given: torch.sigmoid(x[0]),
    "tanh": lambda x, given: torch.tanh(x[0]),
    "softmax": lambda x, given: torch.softmax(x[0], given["dim"]),
    "flatten": lambda x, given: torch.flatten(x[0], given["start_dim"], given["end_dim"]),
    "reshape": lambda x, given: x[0].reshape(given["shape"]),
    "permute": lambda x, given: x[0].permute(given["dims"]),
    "transpose": lambda x, given: x[0].transpose(given["dim0"], given["dim1"]),
    "unsqueeze": lambda x, given: x[0].unsqueeze(given["dim"]),
    "squeeze": lambda x, given: x[0].squeeze(given["dim"]),
    "mean": lambda x, given: x[0].mean(dim=given["dim"], keepdim=given["keepdim"]),
    "amax": lambda x, given: x[0].amax(dim=given["dim"], keepdim=given["keepdim"]),
}


class ClosedNetwork(nn.Module):
    """The network of a graph; ``named`` are its parameters by the names of the submission."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self.places = {path: index for index, path in enumerate(graph.layers)}
        self.parts = nn.ModuleList(_built(kind, given) for kind, given in graph.layers.values())
        self.named: dict[str, nn.Parameter] = {}
        for path, index in self.places.items():
            for name, value in self.parts[index].named_parameters():
                self.named[f"{path}.{name}"] = value
                value.requires_grad_(f"{path}.{name}" not in graph.frozen)
        if {name: tuple(value.shape) for name, value in self.named.items()} != graph.shapes():
            raise ValueError("the closed list and torch disagree about the shapes of a layer")
        if list(self.buffers()):
            raise ValueError("a layer of the closed list has buffers")

    def forward(self, pictures: Tensor) -> Tensor:
        """Return the answer to pictures [n, 1, H, W]."""
        answers: list[Tensor] = []
        for node in self.graph.nodes:
            inputs = [answers[index] for index in node.inputs]
            if node.do == "input":
                answers.append(pictures)
            elif node.do == "layer":
                answers.append(self.parts[self.places[node.layer]](inputs[0]))
            else:
                answers.append(CALLED[node.do](inputs, node.arguments or {}))
        return answers[self.graph.output]

    def load(self, place: Path, header: Header) -> None:
        """Take the initial values of a file that fits the graph."""
        with torch.no_grad():
            for tensor in header.tensors:
                self.named[tensor.name].copy_(torch.from_numpy(values(place, header, tensor)))


def _built(kind: str, given: Mapping[str, Any]) -> nn.Module:
    arguments = {
        name: tuple(value) if isinstance(value, list) else value for name, value in given.items()
    }
    return KINDS[kind](**arguments)
