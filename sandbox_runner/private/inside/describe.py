"""Draw the submission's network as a closed graph, in a sealed process without any data.

Runs as ``python describe.py`` with the submission in ``/code``; writes ``graph.json`` and
``initial.safetensors``. The submission shares this process and may write both as it likes:
whoever reads them (sandbox_runner/private/graph.py) takes them for a stranger's data, and the
network that is trained is built of our own layers. What is refused here is refused early, and by
name; nothing depends on that.
"""

# Plain strings for paths, as in all that runs beside a submission.

from __future__ import annotations

import importlib
import json
import operator
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import closed_list  # type: ignore[import-not-found]  # beside this program
import glovebox
import torch
from torch import fx, nn
from torch.nn import functional


class Refused(Exception):
    """The network is not of the closed list: ``why`` is a word, ``name`` what it is about."""

    def __init__(self, why: str, name: str, kind: str = "") -> None:
        super().__init__(why)
        self.said = {"why": why, "name": name[:200], "kind": kind[:100]}


LAYERS: Mapping[type, str] = {getattr(nn, name): name for name in closed_list.LAYERS}
HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)


def plain(value: Any) -> Any:
    """Return torch's own forms of sizes as JSON has them."""
    if isinstance(value, torch.Size | tuple | list):
        return [plain(item) for item in value]
    return value


def arguments_of(layer: nn.Module, kind: str) -> dict[str, Any]:
    """Return a layer's arguments by name, as JSON."""
    found = {}
    for name in closed_list.LAYERS[kind].arguments:
        value = getattr(layer, name)
        found[name] = value is not None if name == "bias" else plain(value)
    return found


class Tracer(fx.Tracer):
    """Goes into every module that is not of the list, and remembers where it is."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = [""]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in LAYERS

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        path = self.path_of_module(m)
        self.inside.append(path)
        answer = super().call_module(m, forward, args, kwargs)
        self.inside.pop()
        return answer


# How each call is written in a forward(): its node inputs, then its arguments.
def _two(x: Any, other: Any, **_alpha: Any) -> tuple[list[Any], dict[str, Any]]:
    if isinstance(other, fx.Node):
        return [x, other], {"other": None}
    return [x], {"other": other}


def _two_only(x: Any, other: Any) -> tuple[list[Any], dict[str, Any]]:
    return [x, other], {}


def _one(x: Any, inplace: bool = False) -> tuple[list[Any], dict[str, Any]]:
    return [x], {}


def _cat(tensors: Any, dim: int = 0) -> tuple[list[Any], dict[str, Any]]:
    return list(tensors), {"dim": dim}


def _softmax(x: Any, dim: Any = None, **_ignored: Any) -> tuple[list[Any], dict[str, Any]]:
    return [x], {"dim": dim}


def _flatten(x: Any, start_dim: int = 0, end_dim: int = -1) -> tuple[list[Any], dict[str, Any]]:
    return [x], {"start_dim": start_dim, "end_dim": end_dim}


def _reshape(x: Any, *shape: Any) -> tuple[list[Any], dict[str, Any]]:
    return [x], {"shape": plain(shape[0] if isinstance(shape[0], tuple | list) else shape)}


def _permute(x: Any, *dims: Any) -> tuple[list[Any], dict[str, Any]]:
    return [x], {"dims": plain(dims[0] if isinstance(dims[0], tuple | list) else dims)}


def _transpose(x: Any, dim0: int, dim1: int) -> tuple[list[Any], dict[str, Any]]:
    return [x], {"dim0": dim0, "dim1": dim1}


def _axis(x: Any, dim: int) -> tuple[list[Any], dict[str, Any]]:
    return [x], {"dim": dim}


def _over(x: Any, dim: Any, keepdim: bool = False) -> tuple[list[Any], dict[str, Any]]:
    return [x], {"dim": [dim] if isinstance(dim, int) else plain(dim), "keepdim": keepdim}


Reader = Callable[..., tuple[list[Any], dict[str, Any]]]
READERS: Mapping[str, Reader] = {
    **dict.fromkeys(("add", "sub", "mul", "div"), _two),
    "matmul": _two_only,
    "cat": _cat,
    **dict.fromkeys(("relu", "gelu", "silu", "sigmoid", "tanh"), _one),
    "softmax": _softmax,
    "flatten": _flatten,
    "reshape": _reshape,
    "permute": _permute,
    "transpose": _transpose,
    "unsqueeze": _axis,
    "squeeze": _axis,
    "mean": _over,
    "amax": _over,
}
FUNCTIONS: Mapping[Any, str] = {
    operator.add: "add",
    operator.iadd: "add",
    operator.sub: "sub",
    operator.mul: "mul",
    operator.imul: "mul",
    operator.truediv: "div",
    operator.matmul: "matmul",
    functional.relu: "relu",
    functional.gelu: "gelu",
    functional.silu: "silu",
    functional.softmax: "softmax",
    **{
        getattr(torch, name): name
        for name in READERS
        if name not in ("gelu", "silu") and hasattr(torch, name)
    },
}
METHODS: Mapping[str, str] = {
    **{name: name for name in READERS if hasattr(torch.Tensor, name)},
    "view": "reshape",
}


def draw(network: nn.Module) -> dict[str, Any]:
    """Return the graph of a network, or raise :class:`Refused`."""
    modules = dict(network.named_modules(remove_duplicate=False))
    if len(modules) > closed_list.MOST_NODES:
        raise Refused("size", "build()")
    for path, module in modules.items():
        if "forward" in vars(module) or any(getattr(module, hooks, None) for hooks in HOOKS):
            raise Refused("hook", path or "build()", type(module).__name__)
        # Buffers are what a layer keeps of one picture for the next.
        if (
            type(module) not in LAYERS
            and not list(module.children())
            and (list(module.parameters(recurse=False)) or list(module.buffers(recurse=False)))
        ):
            raise Refused("layer", path or "build()", type(module).__name__)
    tracer = Tracer()
    try:
        traced = tracer.trace(network)
    except Exception as error:
        raise Refused("python", tracer.inside[-1] or "build()", type(error).__name__) from error
    nodes: list[dict[str, Any]] = []
    numbers: dict[fx.Node, int] = {}
    layers: dict[str, Any] = {}
    output = -1
    for node in traced.nodes:
        if node.op == "output":
            if not isinstance(node.args[0], fx.Node):
                raise Refused("output", "forward()")
            output = numbers[node.args[0]]
            continue
        nodes.append(_node(node, modules, numbers, layers))
        numbers[node] = len(nodes) - 1
    return {"layers": layers, "nodes": nodes, "output": output}


def _node(
    node: fx.Node,
    modules: Mapping[str, nn.Module],
    numbers: Mapping[fx.Node, int],
    layers: dict[str, Any],
) -> dict[str, Any]:
    if node.op == "placeholder":
        if numbers:
            raise Refused("input", str(node.target))
        return {"do": "input"}
    if node.op == "call_module":
        path = str(node.target)
        kind = LAYERS[type(modules[path])]
        if node.kwargs or len(node.args) != 1 or not isinstance(node.args[0], fx.Node):
            raise Refused("argument", path, kind)
        given = arguments_of(modules[path], kind)
        for name, check in closed_list.LAYERS[kind].arguments.items():
            if not check(given[name]):
                raise Refused("argument", path, name)
        if kind == "InstanceNorm2d" and modules[path].track_running_stats:
            raise Refused("layer", path, "InstanceNorm2d with track_running_stats")
        layers[path] = {"kind": kind, "arguments": given}
        return {"do": "layer", "layer": path, "inputs": [numbers[node.args[0]]]}
    known: Mapping[Any, str] = METHODS if node.op == "call_method" else FUNCTIONS
    if node.op == "get_attr":
        raise Refused("tensor", str(node.target))
    if node.target not in known:
        target = node.target
        raise Refused("call", target if isinstance(target, str) else target.__name__)
    do = known[node.target]
    try:
        inputs, arguments = READERS[do](*node.args, **node.kwargs)
        places = [numbers[each] for each in inputs]
    except (TypeError, KeyError):
        raise Refused("argument", do) from None
    for name, check in closed_list.CALLS[do].arguments.items():
        if not check(arguments.get(name)):
            raise Refused("argument", do, name)
    return {"do": do, "inputs": places, "arguments": arguments}


def check_state(network: nn.Module, layers: Mapping[str, Any]) -> None:
    """Raise :class:`Refused` for a tensor that is of no layer of the graph, or no float32."""
    for name, value in network.state_dict().items():
        layer, _, tensor = name.rpartition(".")
        given = layers.get(layer)
        if given is None or tensor not in closed_list.LAYERS[given["kind"]].parameters(
            given["arguments"]
        ):
            raise Refused("tensor", name)
        if value.dtype != torch.float32:
            raise Refused("type", name, str(value.dtype))


def main() -> None:
    """Build the network as the inspection does, and write what it is."""
    torch.manual_seed(0)
    manifest = glovebox.manifest()
    module, _, function = manifest["model"]["build"].partition(":")
    sys.path.insert(0, os.environ.get("GLOVEBOX_CODE", "/code"))
    network = getattr(importlib.import_module(module), function)(dict(glovebox.config()))
    try:
        graph = draw(network)
        check_state(network, graph["layers"])
        graph["frozen"] = sorted(
            name for name, value in network.named_parameters() if not value.requires_grad
        )
        glovebox.save_weights(network, "initial.safetensors")
        said: dict[str, Any] = {"graph": graph}
    except Refused as refused:
        said = {"refused": refused.said}
    glovebox.output("graph.json").write_text(json.dumps(said, allow_nan=False), encoding="utf-8")


if __name__ == "__main__":
    main()
