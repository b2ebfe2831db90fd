"""A network's graph and the one way in which it is written as an ONNX file.

The format (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3) is Protocol Buffers. They leave
freedoms that a network does not need: names of nodes and values, the order of nodes and fields,
texts, copies of constants, attributes with their default value. Here all of them are decided: what
is written follows from what is computed, and a reader can ask for exactly these bytes. Of names
only those of the tensors are left, as ``state_dict()`` has them.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .onnx_operators import IR_VERSION, OPERATORS, OPSET, Attribute

#: Type of elements in safetensors' words -> TensorProto.DataType.
TYPES: Mapping[str, int] = {
    "F32": 1, "U8": 2, "I8": 3, "I16": 5, "I32": 6, "I64": 7, "BOOL": 9, "F16": 10, "F64": 11,
    "BF16": 16,
}  # fmt: skip
#: Bytes of one element by TensorProto.DataType.
SIZES: Mapping[int, int] = {1: 4, 2: 1, 3: 1, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 16: 2}

INPUT, OUTPUT, BATCH, NAME = "input", "output", "batch", "graph"
#: No tensor's name has a slash, so that no other value is called like one.
_VALUE = "/"

#: Numbers that one constant may hold, and bytes of all different ones together.
CONSTANT_NUMBERS = 64
CONSTANT_BYTES = 8 * 1024
#: Sides of the input and output, without that of the batch.
SIDES = 7
LARGEST = 2**31
_FLOATS = {1: "f", 10: "e", 11: "d"}
#: Types of constants: those of which every value is known.
CONSTANT_TYPES = frozenset({1, 6, 7, 9, 10, 11})

TENSOR_NAME = re.compile(r"[A-Za-z0-9_]+(?:[.-][A-Za-z0-9_]+)*", re.ASCII)


class GraphError(Exception):
    """The graph may not leave. ``what`` is the name at fault, which the text does not quote."""

    def __init__(self, rule: str, message: str, what: str = "") -> None:
        super().__init__(message)
        self.rule, self.what = rule, what


@dataclass(frozen=True)
class Constant:
    """A few numbers as little-endian bytes; ``dtype`` is TensorProto's number."""

    dtype: int
    shape: tuple[int, ...]
    data: bytes


@dataclass(frozen=True)
class Stored:
    """A tensor of the network: where its values stand is the file's matter."""

    name: str
    dtype: int
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """The number of bytes of its values."""
        return math.prod(self.shape) * SIZES[self.dtype]


@dataclass(frozen=True)
class Node:
    """One operator. An input is the name of a value, "" for one left out."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class Graph:
    """What is computed. ``input_shape`` and ``output_shape`` are of one picture, without the batch.

    ``constants`` are by the name of their value, ``tensors`` by their own.
    """

    input_name: str
    input_shape: tuple[int, ...]
    output_name: str
    output_shape: tuple[int, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[str, Constant]
    tensors: Mapping[str, Stored]


def check(graph: Graph) -> None:
    """Raise :class:`GraphError` for anything that is not on the closed list."""
    for shape in (graph.input_shape, graph.output_shape):
        if len(shape) > SIDES or not all(0 < side < LARGEST for side in shape):
            raise GraphError("onnx.shape", "The input or output has sides that no picture has.")
    for tensor in graph.tensors.values():
        if not TENSOR_NAME.fullmatch(tensor.name) or tensor.name in (INPUT, OUTPUT):
            raise GraphError(
                "onnx.name",
                "A tensor's name is not words joined by dots, or is that of the input or output.",
                tensor.name,
            )
    for constant in graph.constants.values():
        check_constant(constant)
    if sum(len(each.data) for each in set(graph.constants.values())) > CONSTANT_BYTES:
        raise GraphError(
            "onnx.constants", "The graph holds more constants than a network's shapes need."
        )
    for node in graph.nodes:
        _check_node(node)


def check_constant(constant: Constant) -> None:
    """Raise :class:`GraphError` for a constant that is large, or holds what is no number."""
    if constant.dtype not in CONSTANT_TYPES:
        raise GraphError("onnx.constant-type", "A constant is of a type that none may have.")
    if len(constant.shape) > SIDES or not all(0 <= side < LARGEST for side in constant.shape):
        raise GraphError("onnx.constant-shape", "A constant has a shape that none needs.")
    count = math.prod(constant.shape)
    if count > CONSTANT_NUMBERS:
        raise GraphError(
            "onnx.constant-size",
            f"A constant holds more than {CONSTANT_NUMBERS} numbers. Numbers that the network "
            "needs are parameters, or buffers of register_buffer().",
        )
    if len(constant.data) != count * SIZES[constant.dtype]:
        raise GraphError("onnx.constant-bytes", "A constant's bytes do not fit its shape.")
    if constant.dtype in _FLOATS:
        numbers = struct.unpack(f"<{count}{_FLOATS[constant.dtype]}", constant.data)
        if any(math.isnan(number) for number in numbers):
            raise GraphError("onnx.constant-nan", "A constant holds what is no number.")
    elif constant.dtype == 9 and not set(constant.data) <= {0, 1}:
        raise GraphError("onnx.constant-bool", "A truth value is neither 0 nor 1.")


def _check_node(node: Node) -> None:
    operator = OPERATORS.get(node.operator)
    if operator is None:
        raise GraphError(
            "onnx.operator",
            "The graph uses an operator that is not on the closed list.",
            node.operator,
        )
    if not operator.least <= len(node.inputs) <= operator.most:
        raise GraphError(
            "onnx.operator-inputs",
            "An operator has more or fewer inputs than it takes.",
            node.operator,
        )
    if not 1 <= len(node.outputs) <= operator.outputs or "" in node.outputs:
        raise GraphError(
            "onnx.operator-outputs",
            "An operator has more or fewer outputs than it may give.",
            node.operator,
        )
    for name, value in node.attributes.items():
        known = operator.attributes.get(name)
        if known is None:
            raise GraphError(
                "onnx.attribute",
                "An operator has an attribute that is not on the closed list.",
                f"{node.operator}.{name}",
            )
        if not _fits(known, value):
            raise GraphError(
                "onnx.attribute-value",
                "An operator's attribute has a value that is not on the closed list.",
                f"{node.operator}.{name}",
            )
        if known.kind == "tensor":
            check_constant(value)
            if math.prod(value.shape) != 1:
                raise GraphError(
                    "onnx.attribute-tensor", "An attribute that is one number holds several."
                )
    for name, known in operator.attributes.items():
        if known.required and name not in node.attributes:
            raise GraphError(
                "onnx.attribute-missing",
                "An operator lacks an attribute that must be written.",
                f"{node.operator}.{name}",
            )


def _whole(value: Any) -> bool:
    return type(value) is int and -LARGEST < value < LARGEST


def _fits(known: Attribute, value: Any) -> bool:
    if known.allowed and value not in known.allowed:
        return False
    if known.kind == "int":
        # Slices and ends of shapes are written with the largest number that there is.
        return _whole(value) or value == 2**63 - 1
    if known.kind == "ints":
        return isinstance(value, tuple) and len(value) <= 2 * SIDES and all(map(_whole, value))
    if known.kind == "float":
        return type(value) is float and math.isfinite(value)
    if known.kind == "word":
        return isinstance(value, str)
    return isinstance(value, Constant)


def _single(number: float) -> bytes:
    try:
        return struct.pack("<f", number)
    except OverflowError as error:
        raise GraphError("onnx.attribute-value", "An attribute is too large a number.") from error


def _is_default(known: Attribute, value: Any) -> bool:
    if known.default is None or known.required:
        return False
    if known.kind == "float":
        return _single(value) == _single(known.default)
    if known.kind == "ints":
        return all(number == known.default for number in value)
    return bool(value == known.default)


def canonical(graph: Graph) -> Graph:
    """Return what the output needs of the graph, in the one order and with the one set of names.

    Nodes stand in the order in which the output, asking each input in turn, first needs them done;
    equal constants are one. Raises :class:`GraphError` for values that nobody makes, that two make,
    and for circles.
    """
    makers: dict[str, Node | Constant | None] = {graph.input_name: None}
    given = [
        *((name, None) for name in graph.tensors),
        *graph.constants.items(),
        *((name, node) for node in graph.nodes for name in node.outputs),
    ]
    for name, maker in given:
        if name in makers or not name:
            raise GraphError("onnx.twice", "A value of the graph is made twice.", name)
        makers[name] = maker
    if not isinstance(makers.get(graph.output_name), Node):
        raise GraphError("onnx.output", "The output is not what an operator answers.")
    names = {graph.input_name: INPUT} | {name: name for name in graph.tensors}
    shared: dict[Constant, str] = {}
    nodes: list[Node] = []
    constants: dict[str, Constant] = {}
    tensors: dict[str, Stored] = {}
    count = 0
    for name in _needed(graph.output_name, makers):
        maker = makers[name]
        if maker is None:
            if name in graph.tensors:
                tensors[name] = graph.tensors[name]
            continue
        if isinstance(maker, Constant):
            if maker not in shared:
                shared[maker] = f"{_VALUE}{count}"
                count += 1
                constants[shared[maker]] = maker
                nodes.append(Node("Constant", (), (shared[maker],), {}))
            names[name] = shared[maker]
            continue
        if maker.outputs[0] in names:
            continue  # another output of a node that was written already
        for made in maker.outputs:
            names[made] = OUTPUT if made == graph.output_name else f"{_VALUE}{count}"
            count += 1
        nodes.append(_written(maker, names))
    return Graph(
        INPUT,
        graph.input_shape,
        OUTPUT,
        graph.output_shape,
        tuple(nodes),
        constants,
        {name: tensors[name] for name in sorted(tensors)},
    )


def _written(node: Node, names: Mapping[str, str]) -> Node:
    """Return a node with its new names and without what goes without saying."""
    inputs = list(node.inputs)
    while inputs and not inputs[-1]:
        inputs.pop()
    known = OPERATORS[node.operator].attributes
    return replace(
        node,
        inputs=tuple(names[name] if name else "" for name in inputs),
        outputs=tuple(names[name] for name in node.outputs),
        attributes={
            name: node.attributes[name]
            for name in sorted(node.attributes)
            if not _is_default(known[name], node.attributes[name])
        },
    )


def _needed(output: str, makers: Mapping[str, Node | Constant | None]) -> Iterator[str]:
    """Give every value that the output needs, each after those that it needs itself."""
    done: set[str] = set()
    open_: set[str] = set()
    waiting: list[tuple[str, bool]] = [(output, False)]
    while waiting:
        name, ready = waiting.pop()
        if name in done:
            continue
        if name not in makers:
            raise GraphError("onnx.undefined", "An operator needs a value that nobody makes.", name)
        maker = makers[name]
        if ready or not isinstance(maker, Node):
            open_.discard(name)
            done.add(name)
            yield name
            continue
        if name in open_:
            raise GraphError("onnx.circle", "The graph runs in a circle.", name)
        open_.add(name)
        waiting.append((name, True))
        waiting += [(each, False) for each in reversed(maker.inputs) if each and each not in done]


def parts(graph: Graph, *, stored: bool = True) -> list[bytes | Stored]:
    """Return the file of a canonical graph: bytes, and tensors where their values stand.

    Without ``stored`` the tensors are inputs of the graph, and the file holds none of their values.
    """
    body: list[bytes | Stored] = [_message(1, _node(node, graph)) for node in graph.nodes]
    body.append(_text(2, NAME))
    if stored:
        for tensor in graph.tensors.values():
            body += [_tensor_head(tensor), tensor]
    body.append(_message(11, _value(INPUT, 1, (None, *graph.input_shape))))
    if not stored:
        for tensor in graph.tensors.values():
            body.append(_message(11, _value(tensor.name, tensor.dtype, tensor.shape)))
    body.append(_message(12, _value(OUTPUT, 1, (None, *graph.output_shape))))
    size = sum(each.bytes if isinstance(each, Stored) else len(each) for each in body)
    start = _number(1, IR_VERSION) + _tag(7, 2) + varint(size)
    return _joined([start, *body, _message(8, _number(2, OPSET))])


def _joined(pieces: list[bytes | Stored]) -> list[bytes | Stored]:
    """Return the pieces with neighbouring bytes put together."""
    found: list[bytes | Stored] = []
    held: list[bytes] = []
    for piece in pieces:
        if isinstance(piece, Stored):
            found += [b"".join(held), piece]
            held = []
        else:
            held.append(piece)
    return [*found, b"".join(held)]


def varint(number: int) -> bytes:
    """Return a whole number as Protocol Buffers write it; negative ones as 64 bits."""
    left = number & (2**64 - 1)
    out = bytearray()
    while left > 127:
        out.append(left & 127 | 128)
        left >>= 7
    out.append(left)
    return bytes(out)


def _tag(field: int, wire: int) -> bytes:
    return varint(field << 3 | wire)


def _number(field: int, value: int) -> bytes:
    return _tag(field, 0) + varint(value)


def _message(field: int, data: bytes) -> bytes:
    return _tag(field, 2) + varint(len(data)) + data


def _text(field: int, text: str) -> bytes:
    return _message(field, text.encode("ascii"))


def _node(node: Node, graph: Graph) -> bytes:
    if node.operator == "Constant":
        value: Mapping[str, Any] = {"value": graph.constants[node.outputs[0]]}
    else:
        value = node.attributes
    return (
        b"".join(_text(1, name) for name in node.inputs)
        + b"".join(_text(2, name) for name in node.outputs)
        + _text(4, node.operator)
        + b"".join(_message(5, _attribute(name, each)) for name, each in value.items())
    )


def _attribute(name: str, value: Any) -> bytes:
    """Return AttributeProto; its type stands in field 20."""
    if isinstance(value, int):
        return _text(1, name) + _number(3, value) + _number(20, 2)
    if isinstance(value, float):
        return _text(1, name) + _tag(2, 5) + _single(value) + _number(20, 1)
    if isinstance(value, str):
        return _text(1, name) + _text(4, value) + _number(20, 3)
    if isinstance(value, tuple):
        numbers = b"".join(_number(8, number) for number in value)
        return _text(1, name) + numbers + _number(20, 7)
    dims = b"".join(_number(1, side) for side in value.shape)
    tensor = dims + _number(2, value.dtype) + _message(9, value.data)
    return _text(1, name) + _message(5, tensor) + _number(20, 4)


def _tensor_head(tensor: Stored) -> bytes:
    """Return everything of an initializer before its values."""
    dims = b"".join(_number(1, side) for side in tensor.shape)
    head = dims + _number(2, tensor.dtype) + _text(8, tensor.name)
    head += _tag(9, 2) + varint(tensor.bytes)
    return _tag(5, 2) + varint(len(head) + tensor.bytes) + head


def _value(name: str, dtype: int, shape: tuple[int | None, ...]) -> bytes:
    """Return ValueInfoProto; a side of None is that of the batch."""
    sides = b"".join(
        _message(1, _text(2, BATCH) if side is None else _number(1, side)) for side in shape
    )
    tensor = _number(1, dtype) + _message(2, sides)
    return _text(1, name) + _message(2, _message(1, tensor))
