"""Write a network as an ONNX file that the inspection accepts.

PyTorch's own exporter draws the graph; it needs the package ``onnx``. What it draws is brought into
the one form that may leave (onnx_graph.py), and the values come from ``state_dict()``: the exporter
never sees them, so it cannot fold them into others.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from . import onnx_graph
from .onnx_graph import Constant, Graph, GraphError, Node, Stored
from .onnx_operators import OPERATORS, OPSET
from .outputs import as_numpy, declared_output, output

#: Types in which weights may be stored narrower than the network computes.
NARROW = {"float16": "F16", "bfloat16": "BF16"}
_TORCH_TYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64",
    "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
#: How far answers may lie apart, as a share of the largest: bfloat16 keeps eight bits.
NEAR = 0.1
_CAST_TO = frozenset(OPERATORS["Cast"].attributes["to"].allowed)


def save_onnx(
    model: Any, example: Any, name: str | None = None, *, dtype: str | None = None
) -> Path:
    """Write a torch module as an ONNX file that may leave; return the path.

    ``example`` is a batch as the module takes it, such as ``torch.zeros(1, 1, 96, 80)``; how many
    there are in a batch stays open, every other side is fixed. The module takes one float32 tensor
    and answers one. ``dtype`` ("float16" or "bfloat16") stores weights in fewer bits, and computes
    as before. The name defaults to the first of ``[outputs] weights``. The module is left in
    evaluation mode.

    Raises ``ValueError`` for a network that the closed list of operators cannot say, with the
    operator's name, and for one that is written otherwise than it answers; ``ImportError`` without
    the packages onnx and onnxruntime.
    """
    state = {str(key): value for key, value in model.state_dict().items()}
    try:
        graph = narrow(traced(model, example, state), dtype)
        onnx_graph.check(graph)
        graph = onnx_graph.canonical(graph)
    except GraphError as error:
        raise ValueError(f"{error}{f' ({error.what})' if error.what else ''}") from error
    path = output(name or declared_output("weights", "model.onnx"))
    with path.open("wb") as stream:
        for part in onnx_graph.parts(graph):
            stream.write(part if isinstance(part, bytes) else _values(state[part.name], part))
    _check_answers(model, example, path)
    return path


def _check_answers(model: Any, example: Any, path: Path) -> None:
    """Hold what was written against the network, for another number of pictures than was drawn."""
    # At home it would tell its maker that it runs.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    # Its version 1.31 ends the process where it rearranges some networks of float16.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    pictures = torch.rand(2 * len(example) + 1, *example.shape[1:], device=example.device)
    with torch.no_grad():
        torch_answer = model(pictures).to("cpu", torch.float32).numpy()
    try:
        session = onnxruntime.InferenceSession(
            str(path), sess_options=options, providers=["CPUExecutionProvider"]
        )
        (answer,) = session.run(["output"], {"input": pictures.cpu().numpy()})
    # Its exceptions have no class of their own that could be named here.
    except Exception as error:
        raise ValueError(
            "onnxruntime does not run the graph for another number of pictures than the example's; "
            "in forward() write x.shape[0] for their number, not len(x)"
        ) from error
    far = float(np.abs(answer - torch_answer).max()) if answer.shape == torch_answer.shape else None
    if far is None or not far <= NEAR * max(1e-6, float(np.abs(torch_answer).max())):
        raise ValueError(
            "the graph answers otherwise than the network: forward() does something that depends "
            "on its input and that cannot be drawn"
        )


def traced(model: Any, example: Any, state: Mapping[str, Any]) -> Graph:
    """Return the graph that PyTorch's exporter draws of a module. Its values are not in it."""
    import onnx
    import torch

    model.eval()
    axes = {"input": {0: "batch"}, "output": {0: "batch"}}
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        tempfile.TemporaryDirectory() as folder,
    ):
        warnings.simplefilter("ignore")
        place = Path(folder, "drawn")
        torch.onnx.export(
            model,
            (example,),
            str(place),
            dynamo=False,  # the other exporter needs onnxscript and folds weights into others
            opset_version=OPSET,
            export_params=False,
            keep_initializers_as_inputs=True,
            do_constant_folding=False,
            # BatchNorm stays what it is instead of being folded into the weights before it.
            training=torch.onnx.TrainingMode.PRESERVE,
            input_names=["input"],
            output_names=["output"],
            dynamic_axes=axes,
        )
        drawn = onnx.load_model_from_string(place.read_bytes()).graph
    if len(drawn.output) != 1:
        raise GraphError("onnx.outputs", "The network answers more than one tensor.")
    with torch.no_grad():
        answer = model(example)
    types = {key: _type(value) for key, value in state.items()}
    tensors = {
        each.name: Stored(each.name, onnx_graph.TYPES[types[each.name]], _sides(state[each.name]))
        for each in drawn.input
        if each.name in state
    }
    others = [each.name for each in drawn.input if each.name not in state]
    if others != ["input"]:
        raise GraphError("onnx.inputs", "The network takes more than one tensor.")
    nodes, constants = _read(drawn.node, onnx)
    return Graph(
        "input", _sides(example)[1:], drawn.output[0].name, _sides(answer)[1:], nodes, constants,
        tensors,
    )  # fmt: skip


def _sides(tensor: Any) -> tuple[int, ...]:
    return tuple(int(side) for side in tensor.shape)


def _type(value: Any) -> str:
    kind = str(value.dtype).removeprefix("torch.")
    if kind not in _TORCH_TYPES:
        raise GraphError("onnx.dtype", "A tensor's type may not leave.", kind)
    return _TORCH_TYPES[kind]


def _read(drawn: Any, onnx: Any) -> tuple[tuple[Node, ...], dict[str, Constant]]:
    """Return the nodes and constants of a drawn graph; copies of values are taken out."""
    nodes: list[Node] = []
    constants: dict[str, Constant] = {}
    copies: dict[str, str] = {}
    for each in drawn:
        inputs = tuple(copies.get(name, name) for name in each.input)
        if each.domain:
            raise GraphError("onnx.domain", "An operator is not of the standard.", each.op_type)
        if each.op_type in ("Identity", "Dropout"):
            copies[each.output[0]] = inputs[0]
            continue
        given = {a.name: _attribute(a, onnx) for a in each.attribute}
        if each.op_type == "Constant":
            constants[each.output[0]] = given["value"]
            continue
        nodes.append(Node(each.op_type, inputs, tuple(each.output), given))
    return tuple(nodes), constants


def _attribute(given: Any, onnx: Any) -> Any:
    value = onnx.helper.get_attribute_value(given)
    if isinstance(value, bytes):
        return value.decode("ascii")
    if isinstance(value, onnx.TensorProto):
        array = onnx.numpy_helper.to_array(value)
        data = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()
        return Constant(int(value.data_type), tuple(int(side) for side in value.dims), data)
    if isinstance(value, int | float):
        return value
    if isinstance(value, list | tuple) and all(isinstance(each, int) for each in value):
        return tuple(value)
    raise GraphError("onnx.attribute", "An attribute is of a kind that may not leave.", given.name)


def narrow(graph: Graph, dtype: str | None) -> Graph:
    """Return a graph that stores its real numbers in a narrower type and casts them when used."""
    if dtype is None:
        return graph
    if dtype not in NARROW:
        raise GraphError("onnx.dtype", "dtype is float16 or bfloat16.", dtype)
    return stored_as(graph, NARROW[dtype], lambda stored: stored.dtype == onnx_graph.TYPES["F32"])


def stored_as(graph: Graph, kind: str, wanted: Callable[[Stored], bool]) -> Graph:
    """Return a graph whose tensors that are ``wanted`` stand in another type.

    Each is cast to the type that it had where it is used, unless it is cast there already.
    """
    changed = {name: each for name, each in graph.tensors.items() if wanted(each)}
    taken = {graph.input_name, *graph.tensors, *graph.constants}
    taken |= {name for node in graph.nodes for name in node.outputs}
    cast: dict[str, str] = {}
    casts: list[Node] = []
    nodes: list[Node] = []
    for node in graph.nodes:
        inputs = list(node.inputs)
        for place, name in enumerate(inputs):
            if name not in changed or node.operator == "Cast":
                continue
            if changed[name].dtype not in _CAST_TO:
                raise GraphError("onnx.dtype", "A tensor's type cannot be cast to.", name)
            if name not in cast:
                cast[name] = f"cast of {name}"
                while cast[name] in taken:
                    cast[name] += "'"
                to = {"to": changed[name].dtype}
                casts.append(Node("Cast", (name,), (cast[name],), to))
            inputs[place] = cast[name]
        nodes.append(replace(node, inputs=tuple(inputs)))
    number = onnx_graph.TYPES[kind]
    tensors = {
        name: replace(each, dtype=number) if name in changed else each
        for name, each in graph.tensors.items()
    }
    return replace(graph, nodes=(*casts, *nodes), tensors=tensors)


def _values(value: Any, stored: Stored) -> bytes:
    """Return a tensor's values as they are stored."""
    if hasattr(value, "detach"):
        import torch

        kinds = {number: name for name, number in onnx_graph.TYPES.items()}
        names = {code: name for name, code in _TORCH_TYPES.items()}
        value = value.detach().to(getattr(torch, names[kinds[stored.dtype]]))
    array, _ = as_numpy(value)
    if array.nbytes != math.prod(stored.shape) * onnx_graph.SIZES[stored.dtype]:
        raise ValueError(f"{stored.name} changed while it was written")
    return np.ascontiguousarray(array).tobytes()
