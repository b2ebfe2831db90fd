"""One spelling of an ONNX file is accepted; every freedom of the format is closed."""

from __future__ import annotations

import copy
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from policies.document import default_policy
from policies.findings import Finding, verdict
from sandbox_runner.inspection.onnx_file import GRAPH_BYTES, read_model
from sandbox_runner.inspection.safetensors_file import Malformed, stored, widened
from sandbox_runner.inspection.worker import _weights
from sandbox_runner.sdk.glovebox import onnx_graph, save_onnx
from sandbox_runner.sdk.glovebox.onnx_graph import Constant, Graph, GraphError, Node, Stored

from .onnx_models import NETWORKS, SIZE, Half, network, save

ROOT = Path(__file__).parents[3]
POLICY = default_policy().release


def small() -> Graph:
    """A graph with a constant, an attribute and two tensors."""
    return Graph(
        "input", (4,), "y", (3,),
        (
            Node("Mul", ("input", "two"), ("a",), {}),
            Node("Gemm", ("a", "first.weight", "first.bias"), ("b",), {"transB": 1}),
            Node("LeakyRelu", ("b",), ("c",), {"alpha": 0.25}),
            Node("Transpose", ("c",), ("d",), {"perm": (1, 0)}),
            Node("Transpose", ("d",), ("e",), {"perm": (1, 0)}),
            Node("Cast", ("e",), ("y",), {"to": 1}),
        ),
        {"two": Constant(1, (1,), struct.pack("<f", 2.0))},
        {
            "first.weight": Stored("first.weight", 1, (3, 4)),
            "first.bias": Stored("first.bias", 16, (3,)),
        },
    )  # fmt: skip


def written(graph: Graph) -> bytes:
    """The file of a graph, its values counting up."""
    graph = replace(graph, tensors={n: replace(t, dtype=1) for n, t in graph.tensors.items()})
    parts = onnx_graph.parts(onnx_graph.canonical(graph))
    return b"".join(
        p if isinstance(p, bytes) else np.arange(p.bytes // 4, dtype="<f4").tobytes() for p in parts
    )


@lru_cache(maxsize=1)
def good() -> bytes:
    """A small honest file."""
    return written(small())


def read(data: bytes, folder: Path) -> Any:
    path = folder / "model.onnx"
    path.write_bytes(data)
    return read_model(path, POLICY)


Change = Callable[[onnx.ModelProto], Any]


def changed(change: Change) -> bytes:
    """The good file as the library writes it after a change."""
    model = onnx.load_model_from_string(good())
    change(model)
    return model.SerializeToString(deterministic=True)


def node(model: onnx.ModelProto, operator: str) -> Any:
    return next(each for each in model.graph.node if each.op_type == operator)


def attribute(model: onnx.ModelProto, operator: str) -> Any:
    return node(model, operator).attribute[0]


def subgraph(model: onnx.ModelProto, kind: str) -> None:
    branch = helper.make_graph([], "b", [], [])
    given = node(model, "Cast")
    given.op_type = kind
    given.attribute[0].CopyFrom(helper.make_attribute("body", branch))


def external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.external_data.add(key="location", value="../../etc/passwd")


def strings(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_type = 8
    tensor.ClearField("raw_data")
    tensor.string_data.extend([b"a text"] * 3)


def typed(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    values = numpy_helper.to_array(tensor).tolist()
    tensor.ClearField("raw_data")
    tensor.float_data.extend(values)


def large_constant(model: onnx.ModelProto) -> None:
    value = attribute(model, "Constant").t
    value.CopyFrom(numpy_helper.from_array(np.arange(65, dtype=np.float32)))
    value.ClearField("name")


def many_constants(model: onnx.ModelProto) -> None:
    for number in range(40):
        value = numpy_helper.from_array(np.full(64, number, np.float32))
        model.graph.node.add(
            op_type="Constant", output=[f"c{number}"],
            attribute=[helper.make_attribute("value", value)],
        )  # fmt: skip


def circle(model: onnx.ModelProto) -> None:
    node(model, "LeakyRelu").input[0] = node(model, "Cast").input[0]


def function(model: onnx.ModelProto) -> None:
    model.functions.add(name="f", domain="f")


def dead(model: onnx.ModelProto) -> None:
    model.graph.node.insert(3, helper.make_node("Relu", ["input"], ["/9"]))


def tensor_more(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(3, np.float32), "stowaway"))


def swapped(model: onnx.ModelProto) -> None:
    tensors = [copy.deepcopy(each) for each in model.graph.initializer]
    del model.graph.initializer[:]
    model.graph.initializer.extend(reversed(tensors))


def padded(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.raw_data += b"\0"


def default_given(model: onnx.ModelProto) -> None:
    given = node(model, "Gemm")
    given.attribute.insert(0, helper.make_attribute("alpha", 1.0))


def set_to(path: str, value: Any) -> Change:
    """Set a field of the model by its path, such as ``graph.node.0.name``."""

    def change(model: onnx.ModelProto) -> None:
        *way, last = path.split(".")
        place: Any = model
        for step in way:
            place = place[int(step)] if step.isdigit() else getattr(place, step)
        setattr(place, last, value)

    return change


def added(path: str, **values: Any) -> Change:
    """Add to a list of the model."""

    def change(model: onnx.ModelProto) -> None:
        place: Any = model
        for step in path.split("."):
            place = place[int(step)] if step.isdigit() else getattr(place, step)
        place.add(**values)

    return change


def sparse(model: onnx.ModelProto) -> None:
    values = helper.make_tensor("s", 1, [1], [1.0])
    where = helper.make_tensor("w", 7, [1], [0])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, where, [9]))


def list_type(model: onnx.ModelProto) -> None:
    kind = helper.make_tensor_type_proto(1, ["batch", 4])
    model.graph.input[0].type.CopyFrom(helper.make_sequence_type_proto(kind))


#: What is wrong -> (the file, the rule that says so, words of its sentence).
HOSTILE: dict[str, tuple[bytes, str, str]] = {
    "nothing": (b"", "empty", "is empty"),
    "cut in a tensor": (good()[:-60], "truncated", "longer than what it stands in"),
    "cut in a number": (good()[:1], "truncated", "ends inside of a number"),
    "bytes after it": (good() + b"hidden", "unknown-field", "does not know"),
    "a field of no name after it": (good() + b"\xfa\x07\x06hidden", "unknown-field", "not know"),
    "a group": (good() + b"\xfb\x07\xfc\x07", "group", "group"),
    "a second model behind it": (good() + good(), "repeated", "twice"),
    "the version behind": (good()[2:] + good()[:2], "order", "order of their numbers"),
    "a long form of a number": (b"\x08\x88\x00" + good()[2:], "varint", "shortest form"),
    "a number of 80 bits": (b"\x08" + b"\xff" * 11 + good()[2:], "varint", "shortest form"),
    "the version as text": (b"\x0a\x01\x08" + good()[2:], "wire-type", "another kind"),
    "no graph": (good()[:2] + good()[-4:], "model", "lacks its version"),
    "another IR version": (changed(set_to("ir_version", 10)), "ir-version", "IR version"),
    "another opset": (changed(set_to("opset_import.0.version", 21)), "opset", "of opset 18"),
    "a second operator set": (
        changed(added("opset_import", version=18)), "opset-count", "several operator sets"),
    "operators of another domain": (
        changed(set_to("opset_import.0.domain", "com.microsoft")), "domain", "only the standard's"),
    "a producer": (changed(set_to("producer_name", "S12 19541103")), "text", "producer"),
    "a producer's version": (changed(set_to("producer_version", "1")), "text", "producer"),
    "a domain": (changed(set_to("domain", "org.example")), "text", "domain"),
    "a version": (changed(set_to("model_version", 7)), "model-version", "version number"),
    "a description": (changed(set_to("doc_string", "hello")), "text", "description"),
    "metadata": (changed(added("metadata_props", key="a", value="b")), "metadata", "metadata"),
    "a training": (changed(added("training_info")), "training", "training"),
    "a function": (changed(function), "functions", "functions of its own"),
    "a layout for devices": (changed(added("configuration", name="x")), "devices", "laid out"),
    "a graph's name": (changed(set_to("graph.name", "patient")), "graph-name", "name of its own"),
    "a graph's description": (
        changed(set_to("graph.doc_string", "x")), "text", "The graph's description"),
    "a graph's metadata": (
        changed(added("graph.metadata_props", key="a", value="b")), "metadata", "metadata"),
    "shapes inside": (
        changed(lambda m: m.graph.value_info.append(helper.make_tensor_value_info("x", 1, [1]))),
        "value-info", "inside of the graph"),
    "notes on quantisation": (
        changed(added("graph.quantization_annotation", tensor_name="x")),
        "quantisation", "quantisation"),
    "a sparse tensor": (changed(sparse), "sparse", "sparse tensors"),
    "an operator's name": (
        changed(set_to("graph.node.1.name", "n")), "node-name", "operator has a name"),
    "an operator's description": (
        changed(set_to("graph.node.1.doc_string", "n")), "text", "An operator's description"),
    "an operator's metadata": (
        changed(added("graph.node.1.metadata_props", key="a", value="b")), "metadata", "metadata"),
    "an operator of another domain": (
        changed(set_to("graph.node.1.domain", "ai.onnx.ml")), "domain", "another domain"),
    "a choice (If)": (changed(lambda m: subgraph(m, "If")), "subgraph", "no control flow"),
    "a loop": (changed(lambda m: subgraph(m, "Loop")), "subgraph", "no control flow"),
    "an operator that is not listed": (
        changed(set_to("graph.node.1.op_type", "RandomNormalLike")), "operator", "closed list"),
    "an operator on strings": (
        changed(set_to("graph.node.1.op_type", "StringNormalizer")), "operator", "closed list"),
    "too few inputs": (
        changed(lambda m: node(m, "Mul").input.pop()), "operator-inputs", "more or fewer inputs"),
    "a tensor that lost its operator": (
        changed(lambda m: node(m, "Gemm").input.pop()), "unused", "output does not need"),
    "too many inputs": (
        changed(lambda m: node(m, "LeakyRelu").input.append("input")),
        "operator-inputs", "more or fewer inputs"),
    "too many outputs": (
        changed(lambda m: node(m, "LeakyRelu").output.append("x")),
        "operator-outputs", "more or fewer outputs"),
    "an attribute that is not listed": (
        changed(lambda m: setattr(attribute(m, "LeakyRelu"), "name", "beta")),
        "attribute", "attribute that is not on the closed list"),
    "a type to cast to that is not listed": (
        changed(lambda m: setattr(attribute(m, "Cast"), "i", 8)), "attribute-value", "a value"),
    "an infinite number": (
        changed(lambda m: setattr(attribute(m, "LeakyRelu"), "f", np.inf)),
        "attribute-value", "a value"),
    "an attribute twice": (
        changed(lambda m: node(m, "Gemm").attribute.append(attribute(m, "Gemm"))),
        "attribute-twice", "given twice"),
    "an attribute of two types": (
        changed(lambda m: setattr(attribute(m, "Gemm"), "f", 0.5)),
        "attribute-type", "not one value of its type"),
    "an attribute that must be written": (
        changed(lambda m: node(m, "Cast").ClearField("attribute")),
        "attribute-missing", "must be written"),
    "an attribute's description": (
        changed(lambda m: setattr(attribute(m, "Gemm"), "doc_string", "x")), "text", "attribute's"),
    "strings as an attribute": (
        changed(lambda m: attribute(m, "Gemm").strings.append(b"x")), "strings", "strings"),
    "a default that is written": (changed(default_given), "spelling", "one spelling"),
    "a large constant": (changed(large_constant), "constant-size", "register_buffer"),
    "many constants": (changed(many_constants), "constants", "more constants"),
    "a constant with a name": (
        changed(lambda m: setattr(attribute(m, "Constant").t, "name", "x")),
        "constant-name", "constant has a name"),
    "a constant that is no number": (
        changed(lambda m: setattr(attribute(m, "Constant").t, "raw_data",
                                  struct.pack("<I", 0x7FC12345))),
        "constant-nan", "no number"),
    "a constant of too many bytes": (
        changed(lambda m: setattr(attribute(m, "Constant").t, "raw_data", bytes(8))),
        "constant-bytes", "do not fit its shape"),
    "a constant that nobody needs": (
        changed(lambda m: m.graph.node.insert(1, copy.deepcopy(node(m, "Constant")))),
        "twice", "made twice"),
    "values in another file": (changed(external), "external", "another file"),
    "values said to be elsewhere": (
        changed(set_to("graph.initializer.0.data_location", 1)), "external", "where its values"),
    "a tensor of strings": (changed(strings), "strings", "strings"),
    "a type of strings": (
        changed(set_to("graph.initializer.0.data_type", 8)), "strings", "holds strings"),
    "values in another field": (changed(typed), "typed-data", "raw_data"),
    "a tensor's description": (
        changed(set_to("graph.initializer.0.doc_string", "x")), "text", "A tensor's description"),
    "a tensor in segments": (
        changed(lambda m: setattr(m.graph.initializer[0].segment, "begin", 1)),
        "segment", "segments"),
    "a byte more than its shape": (changed(padded), "size", "do not fit its shape and type"),
    "a type of 4 bits": (
        changed(set_to("graph.initializer.0.data_type", 22)), "dtype", "the policy allows"),
    "a side of no length": (
        changed(lambda m: m.graph.initializer[0].dims.append(0)), "shape", "whole numbers"),
    "a name of a path": (
        changed(set_to("graph.initializer.0.name", "../x")), "name", "words joined by dots"),
    "a name like that of the input": (
        changed(set_to("graph.initializer.0.name", "input")), "name", "of the input or output"),
    "a name that rings": (
        changed(set_to("graph.initializer.0.name", "a\x07")), "text", "letters that none"),
    "a name of 500 letters": (
        changed(set_to("graph.initializer.0.name", "a" * 500)), "text-length", "longer than any"),
    "two tensors of one name": (
        changed(set_to("graph.initializer.1.name", "first.bias")), "duplicate", "the same name"),
    "a tensor that nobody uses": (changed(tensor_more), "unused", "output does not need"),
    "an operator that nobody uses": (changed(dead), "dead", "operators that its output"),
    "tensors in another order": (changed(swapped), "spelling", "one spelling"),
    "a circle": (changed(circle), "circle", "in a circle"),
    "a value that nobody makes": (
        changed(lambda m: node(m, "LeakyRelu").input.__setitem__(0, "/99")),
        "undefined", "nobody makes"),
    "a value that two make": (
        changed(lambda m: node(m, "LeakyRelu").output.__setitem__(0, "/1")),
        "twice", "made twice"),
    "names of one's own for values": (
        changed(lambda m: (node(m, "LeakyRelu").output.__setitem__(0, "x"),
                           node(m, "Transpose").input.__setitem__(0, "x"))),
        "spelling", "one spelling"),
    "a second input": (
        changed(lambda m: m.graph.input.append(m.graph.input[0])),
        "inputs", "exactly one input"),
    "no output": (changed(lambda m: m.graph.ClearField("output")), "outputs", "exactly one output"),
    "an input of another name": (
        changed(set_to("graph.input.0.name", "picture")), "end-name", "not named input"),
    "an input's description": (
        changed(set_to("graph.input.0.doc_string", "x")), "text", "input's or output's"),
    "an input of lists": (changed(list_type), "value-type", "a list, a map"),
    "an input of bytes": (
        changed(set_to("graph.input.0.type.tensor_type.elem_type", 2)), "end-type", "float32"),
    "a side with a name": (
        changed(set_to("graph.input.0.type.tensor_type.shape.dim.1.dim_param", "patients")),
        "side-name", "side has a name"),
    "a fixed number of pictures": (
        changed(set_to("graph.input.0.type.tensor_type.shape.dim.0.dim_value", 1)),
        "batch", "the first side"),
    "a side's denotation": (
        changed(set_to("graph.input.0.type.tensor_type.shape.dim.1.denotation", "x")),
        "denotation", "denotation"),
    "no tensors": (
        changed(lambda m: m.graph.ClearField("initializer")), "no-tensor", "holds no tensor"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_by_its_own_sentence(name: str, tmp_path: Path) -> None:
    data, rule, words = HOSTILE[name]
    with pytest.raises(Malformed) as refused:
        read(data, tmp_path)
    assert refused.value.rule == f"onnx.{rule}"
    assert words in str(refused.value)


def test_the_good_file_is_accepted_and_each_value_found(tmp_path: Path) -> None:
    model = read(good(), tmp_path)
    assert [t.name for t in model.header.tensors] == ["first.bias", "first.weight"]
    bias, weight = (stored(tmp_path / "model.onnx", model.header, t) for t in model.header.tensors)
    assert bias.tolist() == [0, 1, 2]
    assert weight.reshape(-1).tolist() == list(range(12))
    assert model.facts["operators"] == 6
    assert model.facts["constant_bytes"] == 4
    assert len(good()) == model.facts["bytes"] + 15 * 4


def test_no_byte_beside_the_values_can_be_changed_unseen(tmp_path: Path) -> None:
    """Each accepted change is another graph, which the library reads as another one, too."""
    model = read(good(), tmp_path)
    values = {at for t in model.header.tensors for at in range(t.start, t.end)}
    before = onnx.load_model_from_string(good())
    accepted = 0
    for at in set(range(len(good()))) - values:
        for bit in range(8):
            data = bytearray(good())
            data[at] ^= 1 << bit
            try:
                read(bytes(data), tmp_path)
            except Malformed:
                continue
            accepted += 1
            after = onnx.load_model_from_string(bytes(data))
            assert after != before
            assert after.SerializeToString(deterministic=True) == bytes(data)
    # Letters of names, the slope, the constant and sides of the input are free.
    assert 0 < accepted < len(good())


def test_a_wide_graph_without_tensors_is_read_no_further_than_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    relu = onnx_graph._message(1, b"\x22\x04Relu")
    body = relu * (GRAPH_BYTES // len(relu) + 2)
    path.write_bytes(b"\x08\x08\x3a" + onnx_graph.varint(len(body)) + body + good()[-4:])
    with pytest.raises(Malformed, match="larger than any network needs"):
        read_model(path, POLICY)


def test_nodes_in_a_very_long_chain_are_no_recursion(tmp_path: Path) -> None:
    chain = tuple(Node("Relu", (f"r{i}" if i else "x",), (f"r{i + 1}",), {}) for i in range(9000))
    graph = replace(small(), nodes=(*small().nodes[:-1], Node("Relu", ("e",), ("x",), {}), *chain),
                    output_name="r9000")  # fmt: skip
    assert read(written(graph), tmp_path).facts["operators"] == 6 + 9000


def test_orders_names_and_copies_make_no_difference() -> None:
    graph = small()
    other = replace(
        graph,
        nodes=tuple(
            Node(n.operator, tuple({"a": "q", "deux": "two"}.get(i, i) for i in n.inputs),
                 tuple({"a": "q"}.get(o, o) for o in n.outputs), n.attributes)
            for n in reversed(graph.nodes)
        ),
        tensors=dict(reversed(graph.tensors.items())),
        constants={"unused": Constant(7, (), bytes(8)), **graph.constants},
    )  # fmt: skip
    assert written(other) == written(graph)


@pytest.mark.parametrize("dtype", [None, "float16", "bfloat16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_an_honest_network_is_accepted_with_its_own_values(
    name: str, dtype: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = network(name)
    path = save(module, tmp_path, monkeypatch, dtype)
    findings: list[Finding] = []
    header = _weights(path, path.name, POLICY, findings, {})
    assert verdict(findings) == "pass"
    assert header is not None
    state = module.state_dict()
    there = {t.name for t in header.tensors}
    # What counts batches, no answer needs.
    assert {n for n in state if not n.endswith("num_batches_tracked")} == there
    kept = getattr(torch, dtype or "float32")
    for tensor in header.tensors:
        numbers = widened(stored(path, header, tensor), tensor.dtype).reshape(tensor.shape)
        assert np.array_equal(numbers, state[tensor.name].to(kept).float().numpy())
    # The second reader writes what it has understood, and these are the same bytes.
    onnx.checker.check_model(str(path))
    assert onnx.load(path).SerializeToString(deterministic=True) == path.read_bytes()
    pictures = torch.randn(5, 1, *SIZE)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {"input": pictures.numpy()})
    with torch.no_grad():
        theirs = module(pictures).numpy()
    near = 1e-5 if dtype is None else 0.02
    assert np.abs(answer - theirs).max() <= near * np.abs(theirs).max()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_that_computes_in_16_bits_is_known_as_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(Half(network(name)), tmp_path, monkeypatch)
    model = read_model(path, POLICY)
    assert model.half
    assert {t.dtype for t in model.header.tensors} == {"F16"}
    assert not read_model(save(network(name), tmp_path, monkeypatch, "float16"), POLICY).half


class Sorted(nn.Module):
    """Uses an operator that is not on the list."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.topk(self.layer(x), 2).values


class Counted(nn.Module):
    """Writes the number of pictures that it was drawn with into the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.ones(1, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.token.expand(len(x), -1)], dim=1)


class Table(nn.Module):
    """Keeps many numbers that are no parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(100, 1)
        self.table = torch.randn(100)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x * self.table)


@pytest.mark.parametrize(
    ("module", "width", "words"),
    [
        (Sorted(), 4, r"closed list\. \(TopK\)"),
        (Counted(), 4, r"x\.shape\[0\]"),
        (Table(), 100, "register_buffer"),
    ],
)
def test_what_cannot_leave_is_said_where_it_is_written(
    module: nn.Module, width: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOVEBOX_OUTPUT", str(tmp_path))
    with pytest.raises(ValueError, match=words):
        save_onnx(module, torch.ones(1, width), "model.onnx")


def test_every_attribute_with_a_default_has_that_of_the_standard() -> None:
    from sandbox_runner.sdk.glovebox.onnx_operators import OPERATORS, OPSET

    for name, operator in OPERATORS.items():
        schema = onnx.defs.get_schema(name, OPSET)
        assert schema.min_input <= operator.least <= operator.most
        assert operator.most <= schema.max_input
        assert set(operator.attributes) <= set(schema.attributes)
        for key, ours in operator.attributes.items():
            theirs = schema.attributes[key].default_value
            if ours.kind == "int" and ours.default is not None:
                assert theirs.i == ours.default, (name, key)
            elif ours.kind == "float":
                assert theirs.f == np.float32(ours.default), (name, key)
            elif ours.kind == "word":
                assert theirs.s.decode() == ours.default, (name, key)


def test_a_graph_error_quotes_nothing() -> None:
    graph = replace(small(), nodes=(Node("Patient", ("input",), ("y",), {}),))
    with pytest.raises(GraphError) as refused:
        onnx_graph.check(graph)
    assert "Patient" not in str(refused.value)
    assert refused.value.what == "Patient"


LARGE = """
import resource, sys
from pathlib import Path
from policies.document import default_policy
from sandbox_runner.inspection.onnx_file import read_model
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model = read_model(Path(sys.argv[1]), default_policy().release)
print(len(model.header.tensors), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_file_of_a_gibibyte_is_read_without_holding_it(tmp_path: Path) -> None:
    side, count = 4096, 16
    graph = Graph(
        "input", (side,), f"y{count}", (side,),
        tuple(
            Node("MatMul", (f"y{i}" if i else "input", f"w{i}"), (f"y{i + 1}",), {})
            for i in range(count)
        ),
        {}, {f"w{i}": Stored(f"w{i}", 1, (side, side)) for i in range(count)},
    )  # fmt: skip
    path = tmp_path / "model.onnx"
    with path.open("wb") as out:
        for part in onnx_graph.parts(onnx_graph.canonical(graph)):
            if isinstance(part, bytes):
                out.write(part)
            else:
                out.seek(part.bytes, 1)
    assert path.stat().st_size > 2**30
    done = subprocess.run(
        [sys.executable, "-c", LARGE, path], cwd=ROOT, check=True, capture_output=True, text=True
    )
    tensors, kilobytes = map(int, done.stdout.split())
    assert tensors == count
    assert kilobytes < 16 * 1024
