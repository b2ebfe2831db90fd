"""Read an ONNX file, and accept one spelling of it only.

The file is walked field by field; every field of onnx.proto that is not needed is refused by a
sentence of its own. What is left is written again by the one writer that there is
(sdk/glovebox/onnx_graph.py) and must be the same bytes: nothing can be said by how a graph is
spelled. The values of tensors are not touched here; they stand in the file as in safetensors, and
every check of tensors reads them in place.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from policies.document import ReleasePolicy
from sandbox_runner.inspection.protobuf import FIXED32, VARINT, Field, Known, Walk, signed
from sandbox_runner.inspection.safetensors_file import Header, Malformed, Tensor
from sandbox_runner.sdk.glovebox import onnx_graph
from sandbox_runner.sdk.glovebox.onnx_graph import Constant, Graph, GraphError, Node, Stored
from sandbox_runner.sdk.glovebox.onnx_operators import IR_VERSION, MANY, OPSET

#: Bytes of a file beside the values of its tensors.
GRAPH_BYTES: Final = 256 * 1024
#: Letters of the names of operators, attributes and values.
_WORD: Final = 40
_DTYPES: Final = {number: name for name, number in onnx_graph.TYPES.items()}
_CALLED: Final = ("input", "output")


def _no(rule: str, message: str) -> Known:
    return Known(refused=(rule, message))


def _no_texts(what: str, *numbers: int) -> dict[int, Known]:
    return dict.fromkeys(numbers, _no("text", f"{what} holds a text, and no text may leave."))


_METADATA: Final = _no("metadata", "There are metadata, which are texts of anybody's choice.")

_MODEL: Final = {
    1: Known(VARINT),
    **_no_texts("The model (its producer, domain or description)", 2, 3, 4, 6),
    5: _no("model-version", "The model has a version number, which says nothing of a network."),
    7: Known(),
    8: Known(repeated=True),
    14: _METADATA,
    20: _no("training", "The model holds a training, which is a second graph."),
    25: _no("functions", "The model defines functions of its own."),
    26: _no("devices", "The model is laid out for devices."),
}
_OPSET: Final = {
    1: _no("domain", "Operators of another domain are asked for; only the standard's may be."),
    2: Known(VARINT),
}
_GRAPH: Final = {
    1: Known(repeated=True),
    2: Known(),
    5: Known(repeated=True),
    **_no_texts("The graph's description", 10),
    11: Known(repeated=True),
    12: Known(repeated=True),
    13: _no("value-info", "Shapes are noted for values inside of the graph; they follow from it."),
    14: _no("quantisation", "There are notes on quantisation; it must be computed in the graph."),
    15: _no("sparse", "There are sparse tensors; write them dense."),
    16: _METADATA,
}
_NODE: Final = {
    1: Known(repeated=True),
    2: Known(repeated=True),
    3: _no("node-name", "An operator has a name of its own, which says nothing of a network."),
    4: Known(),
    5: Known(repeated=True),
    **_no_texts("An operator's description", 6),
    7: _no("domain", "An operator is of another domain; only the standard's may be used."),
    8: _no("functions", "An operator calls a function of the model's own."),
    9: _METADATA,
    10: _no("devices", "An operator is laid out for devices."),
}
_SUBGRAPH: Final = _no("subgraph", "An operator holds a graph (If, Loop, Scan): no control flow.")
_STRINGS: Final = _no("strings", "There are strings, and only numbers may leave.")
_ATTRIBUTE: Final = {
    1: Known(),
    2: Known(FIXED32),
    3: Known(VARINT),
    4: Known(),
    5: Known(),
    6: _SUBGRAPH,
    7: _no("attribute-kind", "An attribute is a list of real numbers, which none needs."),
    8: Known(VARINT, repeated=True),
    9: _STRINGS,
    10: _no("attribute-kind", "An attribute is a list of tensors, which none needs."),
    11: _SUBGRAPH,
    **_no_texts("An attribute's description", 13),
    14: _no("attribute-kind", "An attribute is a type, which none needs."),
    15: _no("attribute-kind", "An attribute is a list of types, which none needs."),
    20: Known(VARINT),
    21: _no("functions", "An attribute refers to one of a function."),
    22: _no("sparse", "An attribute is a sparse tensor; write it dense."),
    23: _no("sparse", "An attribute is a list of sparse tensors; write them dense."),
}
_TYPED: Final = _no("typed-data", "A tensor's values are not written as raw_data.")
_TENSOR: Final = {
    1: Known(VARINT, repeated=True),
    2: Known(VARINT),
    3: _no("segment", "A tensor is cut into segments."),
    **dict.fromkeys((4, 5, 7, 10, 11), _TYPED),
    6: _STRINGS,
    8: Known(),
    9: Known(),
    **_no_texts("A tensor's description", 12),
    13: _no("external", "A tensor's values are said to lie in another file."),
    14: _no("external", "A tensor says where its values lie; they must lie here."),
    16: _METADATA,
}
_VALUE: Final = {
    1: Known(),
    2: Known(),
    **_no_texts("The input's or output's description", 3),
    4: _METADATA,
}
_NO_TYPE: Final = _no("value-type", "The input or output is a list, a map or another container.")
_TYPE: Final = {
    1: Known(),
    **dict.fromkeys((4, 5, 7, 8, 9), _NO_TYPE),
    6: _no("denotation", "A type has a denotation, which is a text."),
}
_TENSOR_TYPE: Final = {1: Known(VARINT), 2: Known()}
_SHAPE: Final = {1: Known(repeated=True)}
_SIDE: Final = {
    1: Known(VARINT),
    2: Known(),
    3: _no("denotation", "A side has a denotation, which is a text."),
}


@dataclass(frozen=True)
class Model:
    """A file that was accepted: its tensors where they stand, its graph, and the rest of its bytes.

    ``half`` says whether it computes in 16 bits anywhere, rather than only storing in them.
    """

    header: Header
    graph: Graph
    skeleton: bytes
    half: bool

    @property
    def facts(self) -> dict[str, int]:
        """What the graph holds beside the tensors, in plain figures."""
        return {
            "bytes": len(self.skeleton),
            "operators": sum(node.operator != "Constant" for node in self.graph.nodes),
            "constant_bytes": sum(len(each.data) for each in self.graph.constants.values()),
        }


@dataclass
class _Found:
    """What was read of a graph so far."""

    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, Constant] = field(default_factory=dict)
    tensors: list[tuple[Stored, int]] = field(default_factory=list)
    ends: dict[int, list[tuple[int, ...]]] = field(default_factory=lambda: {11: [], 12: []})


def read_model(path: Path, policy: ReleasePolicy) -> Model:
    """Return the model in a file that is exactly as it must be; raises :class:`Malformed`."""
    size = path.stat().st_size
    if size == 0:
        raise Malformed("onnx.empty", "The file is empty.")
    with (
        path.open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ) as mapped,
        memoryview(mapped) as data,
    ):
        try:
            return _Reader(data, policy).read()
        except GraphError as error:
            raise Malformed(error.rule, str(error), error.what) from error


class _Reader:
    """Reads one file; each method takes one message of onnx.proto."""

    def __init__(self, data: memoryview, policy: ReleasePolicy) -> None:
        self._data, self._policy = data, policy
        self._walk = Walk(data, "onnx")
        self._left = GRAPH_BYTES

    def _bad(self, rule: str, message: str, at: int = 0) -> Malformed:
        return self._walk.bad(rule, message, at)

    def _spend(self, count: int, at: int) -> None:
        """Count bytes that are no tensor's values, before they are read."""
        self._left -= count
        if self._left < 0:
            raise self._bad(
                "graph-size",
                "The graph, without its tensors, is larger than any network needs.",
                at,
            )

    def read(self) -> Model:
        said = {1: 0, 7: 0, 8: 0}
        graph: Field | None = None
        for each in self._walk.fields(0, len(self._data), _MODEL):
            said[each.number] += 1
            if each.number == 1 and each.value != IR_VERSION:
                raise self._bad("ir-version", f"The model's IR version is not {IR_VERSION}.")
            if each.number == 7:
                graph = each
            if each.number == 8:
                self._opset(each, said[8])
        if graph is None or said[8] != 1 or said[1] != 1:
            raise self._bad("model", "The model lacks its version, its graph or its operator set.")
        return self._graph(graph)

    def _opset(self, said: Field, count: int) -> None:
        if count > 1:
            raise self._bad("opset-count", "The model asks for several operator sets.", said.from_)
        versions = [each.value for each in self._walk.fields(said.start, said.end, _OPSET)]
        if versions != [OPSET]:
            raise self._bad("opset", f"The model's operators are not those of opset {OPSET}.")

    def _graph(self, graph: Field) -> Model:
        found = _Found()
        self._spend(len(self._data) - (graph.end - graph.start), graph.start)
        for each in self._walk.fields(graph.start, graph.end, _GRAPH):
            if each.number == 5:
                self._spend(each.start - each.from_, each.from_)
                self._initializer(each, found)
                continue
            self._spend(each.end - each.from_, each.from_)
            if each.number == 1:
                self._node(each, found)
            elif each.number == 2:
                if self._walk.text(each, _WORD) != onnx_graph.NAME:
                    raise self._bad("graph-name", "The graph has a name of its own.", each.from_)
            else:
                self._end(each, found)
        if not found.tensors:
            raise self._bad("no-tensor", "The model holds no tensor.")
        for number, name in ((11, "input"), (12, "output")):
            if len(found.ends[number]) != 1:
                raise self._bad(f"{name}s", f"The graph has not exactly one {name}.")
        return self._accept(found)

    def _accept(self, found: _Found) -> Model:
        tensors = {stored.name: stored for stored, _ in found.tensors}
        if len(tensors) != len(found.tensors):
            raise self._bad("duplicate", "Two tensors have the same name.")
        read = Graph(
            onnx_graph.INPUT,
            found.ends[11][0],
            onnx_graph.OUTPUT,
            found.ends[12][0],
            tuple(found.nodes),
            found.constants,
            tensors,
        )
        onnx_graph.check(read)
        graph = onnx_graph.canonical(read)
        if len(graph.tensors) < len(tensors):
            raise self._bad("unused", "The graph holds tensors that its output does not need.")
        if sum(node.operator != "Constant" for node in graph.nodes) < len(found.nodes):
            raise self._bad("dead", "The graph holds operators that its output does not need.")
        skeleton = self._compare(graph)
        header = Header(
            tuple(
                Tensor(s.name, _DTYPES[s.dtype], s.shape, start, start + s.bytes)
                for s, start in found.tensors
            ),
            0,
            len(self._data),
        )
        return Model(header, graph, skeleton, _computes_in_half(graph))

    def _compare(self, graph: Graph) -> bytes:
        """Hold the file against what our writer makes of the graph; return all but the values."""
        at, kept = 0, []
        for part in onnx_graph.parts(graph):
            if isinstance(part, Stored):
                at += part.bytes
                continue
            if self._data[at : at + len(part)] != part:
                raise self._bad("spelling", "The model is not written in its one spelling.", at)
            kept.append(part)
            at += len(part)
        if at != len(self._data):
            raise self._bad("spelling", "The model is not written in its one spelling.", at)
        return b"".join(kept)

    def _node(self, message: Field, found: _Found) -> None:
        inputs: list[str] = []
        outputs: list[str] = []
        operator = ""
        attributes: dict[str, Any] = {}
        for each in self._walk.fields(message.start, message.end, _NODE):
            if each.number == 1:
                inputs.append(self._walk.text(each, self._policy.tensor_name_length))
            elif each.number == 2:
                outputs.append(self._walk.text(each, _WORD))
            elif each.number == 4:
                operator = self._walk.text(each, _WORD)
            else:
                name, value = self._attribute(each)
                if name in attributes:
                    raise self._bad("attribute-twice", "An attribute is given twice.", each.from_)
                attributes[name] = value
        if max(len(inputs), len(outputs)) > MANY:
            raise self._bad(
                "operator-width", "An operator has more inputs or outputs than any.", message.from_
            )
        if operator != "Constant":
            found.nodes.append(Node(operator, tuple(inputs), tuple(outputs), attributes))
            return
        value = attributes.get("value")
        if inputs or len(outputs) != 1 or set(attributes) != {"value"}:
            raise self._bad("constant", "A constant is not one tensor of numbers.", message.from_)
        if not isinstance(value, Constant):
            raise self._bad("constant", "A constant is not one tensor of numbers.", message.from_)
        if outputs[0] in found.constants:
            raise self._bad("twice", "A value of the graph is made twice.", message.from_)
        found.constants[outputs[0]] = value

    def _attribute(self, message: Field) -> tuple[str, Any]:
        name, values, numbers, kind = "", {}, [], 0
        for each in self._walk.fields(message.start, message.end, _ATTRIBUTE):
            if each.number == 1:
                name = self._walk.text(each, _WORD)
            elif each.number == 2:
                (values[1],) = struct.unpack("<f", self._data[each.start : each.end])
            elif each.number == 3:
                values[2] = signed(each.value)
            elif each.number == 4:
                values[3] = self._walk.text(each, _WORD)
            elif each.number == 5:
                values[4] = self._constant(each)
            elif each.number == 8:
                numbers.append(signed(each.value))
            else:
                kind = each.value
        if numbers or kind == 7:
            values[7] = tuple(numbers)
        if set(values) != {kind}:
            raise self._bad(
                "attribute-type", "An attribute is not one value of its type.", message.from_
            )
        return name, values[kind]

    def _tensor(self, message: Field) -> tuple[str | None, int, tuple[int, ...], Field | None]:
        """Return name, type, sides and the place of the values of a TensorProto."""
        shape: list[int] = []
        name, dtype, raw = None, 0, None
        for each in self._walk.fields(message.start, message.end, _TENSOR):
            if each.number == 1:
                shape.append(signed(each.value))
            elif each.number == 2:
                dtype = each.value
            elif each.number == 8:
                name = self._walk.text(each, self._policy.tensor_name_length)
            else:
                raw = each
        if dtype == 8:
            raise self._bad("strings", "A tensor holds strings, and only numbers may leave.")
        return name, dtype, tuple(shape), raw

    def _constant(self, message: Field) -> Constant:
        name, dtype, shape, raw = self._tensor(message)
        if name is not None:
            raise self._bad("constant-name", "A constant has a name of its own.", message.from_)
        if raw is None:
            raise self._bad("constant-data", "A constant has no values.", message.from_)
        if raw.end - raw.start > 8 * onnx_graph.CONSTANT_NUMBERS:
            raise self._bad(
                "constant-size",
                f"A constant holds more than {onnx_graph.CONSTANT_NUMBERS} numbers. Numbers that "
                "the network needs are parameters, or buffers of register_buffer().",
                message.from_,
            )
        return Constant(dtype, shape, bytes(self._data[raw.start : raw.end]))

    def _initializer(self, message: Field, found: _Found) -> None:
        policy = self._policy
        if len(found.tensors) >= policy.tensors:
            raise self._bad("count", "The model holds more tensors than the policy allows.")
        name, dtype, shape, raw = self._tensor(message)
        at = message.from_
        if name is None or not onnx_graph.TENSOR_NAME.fullmatch(name):
            raise self._bad("name", "A tensor's name is not words joined by dots.", at)
        if _DTYPES.get(dtype) not in policy.dtypes:
            raise self._bad("dtype", "A tensor's type is not one that the policy allows.", at)
        if len(shape) > policy.tensor_dimensions:
            raise self._bad("dimensions", "A tensor has more dimensions than it may.", at)
        if not all(0 < side < 2**48 for side in shape):
            raise self._bad("shape", "A tensor's shape is not made of whole numbers.", at)
        if raw is None:
            raise self._bad("no-data", "A tensor has no values.", at)
        if raw.end - raw.start != math.prod(shape) * onnx_graph.SIZES[dtype]:
            raise self._bad("size", "A tensor's bytes do not fit its shape and type.", at)
        self._spend(message.end - message.start - (raw.end - raw.start), at)
        found.tensors.append((Stored(name, dtype, shape), raw.start))

    def _end(self, message: Field, found: _Found) -> None:
        """Read the graph's input or output: pictures of float32, any number of them."""
        what = _CALLED[message.number - 11]
        at = message.from_
        name, tensor = "", None
        for each in self._walk.fields(message.start, message.end, _VALUE):
            if each.number == 1:
                name = self._walk.text(each, _WORD)
            else:
                for kind in self._walk.fields(each.start, each.end, _TYPE):
                    tensor = kind
        if name != what:
            raise self._bad("end-name", "The graph's ends are not named input and output.", at)
        if tensor is None:
            raise self._bad("end-type", f"The graph's {what} has no type.", at)
        dtype, shape = 0, None
        for each in self._walk.fields(tensor.start, tensor.end, _TENSOR_TYPE):
            if each.number == 1:
                dtype = each.value
            else:
                shape = each
        if dtype != onnx_graph.TYPES["F32"] or shape is None:
            raise self._bad("end-type", f"The graph's {what} is not of float32 and a shape.", at)
        sides = [self._side(s) for s in self._walk.fields(shape.start, shape.end, _SHAPE)]
        if not sides or sides[0] is not None or None in sides[1:]:
            raise self._bad(
                "batch", f"Of the graph's {what} exactly the first side must be the batch's.", at
            )
        found.ends[message.number].append(tuple(side for side in sides if side is not None))

    def _side(self, message: Field) -> int | None:
        given: list[int | None] = []
        for each in self._walk.fields(message.start, message.end, _SIDE):
            if each.number == 1:
                given.append(signed(each.value))
            elif self._walk.text(each, _WORD) == onnx_graph.BATCH:
                given.append(None)
            else:
                raise self._bad("side-name", "A side has a name of its own.", each.from_)
        if len(given) != 1:
            raise self._bad("side", "A side is neither a number nor the batch's.", message.from_)
        return given[0]


def _computes_in_half(graph: Graph) -> bool:
    """Whether numbers of 16 bits are more than stored: each must be cast to 32 where it is used."""
    half = {s.name for s in graph.tensors.values() if s.dtype in (10, 16)}
    half |= {name for name, each in graph.constants.items() if each.dtype == 10}
    for node in graph.nodes:
        narrow = node.operator == "Cast" and node.attributes["to"] == 10
        if narrow or (node.operator != "Cast" and half & set(node.inputs)):
            return True
    return False
