"""Read the closed graph that a sealed process drew: a stranger's data, held to the closed list."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from policies.document import ReleasePolicy
from policies.errors import Invalid, _
from policies.names import shown
from sandbox_runner.inspection.json_file import BadJson, read_object
from sandbox_runner.inspection.safetensors_file import Header, Malformed, read_header
from sandbox_runner.private.inside.closed_list import CALLS, LAYERS, MOST_NODES

GRAPH: Final = "graph.json"
INITIAL: Final = "initial.safetensors"
GRAPH_BYTES: Final = 2 * 1024 * 1024
_DEPTH: Final = 8
_PATH = re.compile(r"(?:[A-Za-z0-9_]{1,80}(?:\.[A-Za-z0-9_]{1,80}){0,15})?", re.ASCII)


@dataclass(frozen=True)
class Node:
    """One step: the input, a layer by its path, or a call; ``inputs`` are earlier nodes."""

    do: str
    inputs: tuple[int, ...] = ()
    layer: str = ""
    arguments: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Graph:
    """Layers by path as (kind, arguments), the nodes in order, and which node is the answer."""

    layers: Mapping[str, tuple[str, Mapping[str, Any]]]
    nodes: tuple[Node, ...]
    output: int
    frozen: frozenset[str]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return every parameter's shape by the name under which it is stored."""
        return {
            f"{path}.{name}": shape
            for path, (kind, given) in self.layers.items()
            for name, shape in LAYERS[kind].parameters(given).items()
        }

    def digest(self) -> str:
        """Return the SHA-256 of the graph, without its initial values."""
        whole = {
            "layers": {path: [kind, dict(given)] for path, (kind, given) in self.layers.items()},
            "nodes": [
                [node.do, list(node.inputs), node.layer, dict(node.arguments or {})]
                for node in self.nodes
            ],
            "output": self.output,
            "frozen": sorted(self.frozen),
        }
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


class _Bad(ValueError):
    """The graph is not one of the closed list; the text is ours."""


# By the word of inside/describe.py; ``name`` and ``kind`` are the submission's and shown inertly.
_REFUSALS: Final[Mapping[str, str]] = {
    "layer": _(
        "{name} is a {kind}, which is not on the closed list of private training. Batch "
        "normalisation mixes subjects: take GroupNorm. The list: {known}."
    ),
    "hook": _("{name} has a hook or a forward of its own; the private trainer runs no such code."),
    "python": _(
        "The forward() of {name} cannot be drawn as a graph ({kind}): it must not decide by what "
        "it is given."
    ),
    "call": _(
        "The network calls {name}, which is not on the closed list of private training. The list: "
        "{known}."
    ),
    "argument": _("{name} has an argument that the closed list does not allow: {kind}."),
    "tensor": _("The tensor {name} belongs to no layer of the closed list."),
    "type": _("The tensor {name} is of type {kind}; a private training takes float32."),
    "input": _("The network takes a second input, {name}; it is given pictures only."),
    "output": _("The network must answer with one tensor."),
    "size": _("The network has too many layers for the private trainer."),
}


def refusal(said: Mapping[str, Any]) -> Invalid:
    """Return the error for what the drawing process refused, or for what it wrote instead."""
    why = said.get("why")
    sentence = _REFUSALS.get(why) if isinstance(why, str) else None
    if sentence is None:
        return _unreadable("it has another form")
    known = CALLS if why == "call" else LAYERS
    return Invalid(
        sentence,
        field="model.build",
        code="private.graph",
        name=shown(said.get("name"), 80),
        kind=shown(said.get("kind"), 48),
        known=", ".join(known),
    )


def _unreadable(why: str) -> Invalid:
    return Invalid(
        _("The network could not be read as a closed graph: {why}."),
        field="model.build",
        code="private.graph",
        why=why,
    )


def read(folder: Path, policy: ReleasePolicy) -> Graph:
    """Return the graph in ``folder``, whose initial values fit it. Raises Invalid by name."""
    try:
        said = read_object(folder / GRAPH, GRAPH_BYTES, _DEPTH)
    except (BadJson, OSError) as error:
        why = str(error) if isinstance(error, BadJson) else "build() left none"
        raise _unreadable(why.rstrip(".")) from None
    if "refused" in said:
        refused = said["refused"]
        raise refusal(refused if isinstance(refused, dict) else {})
    try:
        graph = _graph(said.get("graph"))
        _check_initial(graph, folder / INITIAL, policy)
    except _Bad as bad:
        raise _unreadable(str(bad)) from None
    return graph


def _graph(value: Any) -> Graph:
    if not isinstance(value, dict) or set(value) != {"layers", "nodes", "output", "frozen"}:
        raise _Bad("it has another form")
    if not isinstance(value["layers"], dict) or not isinstance(value["nodes"], list):
        raise _Bad("it has another form")
    if len(value["layers"]) > MOST_NODES or not 2 <= len(value["nodes"]) <= MOST_NODES:
        raise _Bad("it has too many or too few layers")
    layers = {path: _layer(path, row) for path, row in value["layers"].items()}
    nodes = tuple(_node(row, index, layers) for index, row in enumerate(value["nodes"]))
    used = {node.layer for node in nodes if node.do == "layer"}
    if used != set(layers):
        raise _Bad("a layer is never used")
    output = value["output"]
    if type(output) is not int or not 1 <= output < len(nodes):
        raise _Bad("it has no output")
    frozen = value["frozen"]
    if not isinstance(frozen, list) or not all(isinstance(name, str) for name in frozen):
        raise _Bad("it has another form")
    graph = Graph(layers, nodes, output, frozenset(frozen))
    if not graph.frozen <= set(graph.shapes()):
        raise _Bad("it keeps a tensor that it does not have")
    if graph.frozen == set(graph.shapes()):
        raise _Bad("there is nothing to train in it")
    return graph


def _layer(path: str, row: Any) -> tuple[str, Mapping[str, Any]]:
    if not _PATH.fullmatch(path):
        raise _Bad("a layer's path is not names joined by dots")
    if not isinstance(row, dict) or set(row) != {"kind", "arguments"}:
        raise _Bad("it has another form")
    kind, given = row["kind"], row["arguments"]
    if not isinstance(kind, str) or kind not in LAYERS:
        raise _Bad(f"{shown(path)} is a {shown(kind)}, which is not on the closed list")
    _check_arguments(given, LAYERS[kind].arguments, shown(path))
    if kind in ("Conv2d", "ConvTranspose2d") and (
        given["in_channels"] % given["groups"] or given["out_channels"] % given["groups"]
    ):
        raise _Bad(f"the groups of {shown(path)} do not divide its channels")
    return kind, given


def _check_arguments(given: Any, known: Mapping[str, Any], where: str) -> None:
    if not isinstance(given, dict) or set(given) != set(known):
        raise _Bad(f"{where} has not the arguments of its kind")
    for name, check in known.items():
        if not check(given[name]):
            raise _Bad(f"{where} has an argument out of range: {name}")


def _node(row: Any, index: int, layers: Mapping[str, Any]) -> Node:
    if not isinstance(row, dict):
        raise _Bad("it has another form")
    if (row == {"do": "input"}) != (index == 0):
        raise _Bad("it has not one input, first of all")
    if index == 0:
        return Node("input")
    do, inputs = row.get("do"), row.get("inputs")
    if not isinstance(inputs, list) or not all(
        type(each) is int and 0 <= each < index for each in inputs
    ):
        raise _Bad("a step takes what is not there yet")
    if do == "layer":
        layer = row.get("layer")
        if set(row) != {"do", "layer", "inputs"} or not isinstance(layer, str):
            raise _Bad("a step names no layer")
        if layer not in layers or len(inputs) != 1:
            raise _Bad("a step names no layer")
        return Node("layer", tuple(inputs), layer)
    if not isinstance(do, str) or do not in CALLS or set(row) != {"do", "inputs", "arguments"}:
        raise _Bad(f"{shown(do)} is not on the closed list")
    call = CALLS[do]
    if not call.least <= len(inputs) <= call.most:
        raise _Bad(f"{do} takes another number of inputs")
    _check_arguments(row["arguments"], call.arguments, do)
    if "other" in call.arguments and (len(inputs) == 2) != (row["arguments"]["other"] is None):
        raise _Bad(f"{do} takes another number of inputs")
    return Node(do, tuple(inputs), arguments=row["arguments"])


def _check_initial(graph: Graph, place: Path, policy: ReleasePolicy) -> None:
    shapes = graph.shapes()
    if 4 * sum(math.prod(shape) for shape in shapes.values()) > policy.weights_bytes:
        raise _Bad("its weights are larger than the policy allows")
    try:
        header = read_header(place, policy)
    except (Malformed, OSError):
        raise _Bad("its initial values are not there, or not safetensors") from None
    check_fit(header, shapes)


def check_fit(header: Header, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ``ValueError`` unless the file has exactly these tensors, as float32."""
    found = {tensor.name: tensor.shape for tensor in header.tensors}
    if found != dict(shapes) or any(tensor.dtype != "F32" for tensor in header.tensors):
        raise _Bad("its initial values have other names, shapes or types than its layers")
