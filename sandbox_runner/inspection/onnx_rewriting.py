"""Rewrite the weights of an ONNX model with noise; runs in the worker.

The values are rewritten as those of any file (rewriting.py). The graph stays; where it used a
tensor of another type it now casts the new one, and the whole is written in its one spelling again.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Final

from policies.document import ReleasePolicy
from sandbox_runner.inspection import rewriting, safetensors_file
from sandbox_runner.inspection.onnx_file import Model
from sandbox_runner.inspection.rewriting import Account
from sandbox_runner.sdk.glovebox import onnx_export, onnx_graph
from sandbox_runner.sdk.glovebox.onnx_graph import Graph, Stored

_NARROWED: Final = frozenset(onnx_graph.TYPES[name] for name in ("F64", "F32", "F16"))


def narrowed(graph: Graph) -> Graph:
    """Return a canonical graph with its real numbers stored in the type that rewriting gives."""
    plain = Graph(
        graph.input_name,
        graph.input_shape,
        graph.output_name,
        graph.output_shape,
        tuple(node for node in graph.nodes if node.operator != "Constant"),
        graph.constants,
        graph.tensors,
    )
    stored = onnx_export.stored_as(plain, rewriting.TYPE, lambda tensor: tensor.dtype in _NARROWED)
    onnx_graph.check(stored)
    return onnx_graph.canonical(stored)


def rewrite(
    model: Model,
    policy: ReleasePolicy,
    source: Path,
    target: Path,
    *,
    zero: Collection[str],
    scale: float,
    bits: int,
) -> Account:
    """Write ``target`` anew from the model in ``source``; as :func:`rewriting.rewrite`.

    What the graph itself can carry is in the account, too.
    """
    values = target.with_name(f"{target.name}.values")
    account = rewriting.rewrite(source, model.header, values, zero=zero, scale=scale, bits=bits)
    header = safetensors_file.read_header(values, policy)
    places = {tensor.name: tensor for tensor in header.tensors}
    with target.open("xb") as out, values.open("rb") as given:
        for part in onnx_graph.parts(narrowed(model.graph)):
            if not isinstance(part, Stored):
                out.write(part)
                account.beside += 8.0 * len(part)
                continue
            given.seek(header.data_start + places[part.name].start)
            left = part.bytes
            while left:
                data = given.read(min(left, rewriting.BLOCK))
                out.write(data)
                left -= len(data)
    values.unlink()
    return account
