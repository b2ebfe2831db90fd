"""What the gate's readers promise of any bytes whatever, and the files to start from.

The readers are called as the sealed worker calls them, without its sandbox: no exception, no hang,
and where a second reader (the libraries of safetensors and ONNX, Python's json) or a second writing
of the same content disagrees, the verdict is block.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from onnx import ModelProto
from onnx.checker import check_model
from onnx.defs import get_schema
from onnx.helper import get_attribute_value

from policies.document import default_policy
from policies.findings import Finding, finding_from_mapping, verdict
from policies.metric_values import AXES, COLUMN_NAMES, check_metrics
from policies.release import check_config
from policies.submission import Manifest, parse_manifest
from sandbox_runner.inspection.onnx_file import GRAPH_BYTES
from sandbox_runner.inspection.safetensors_file import SIZES
from sandbox_runner.inspection.stored_samples import Search
from sandbox_runner.inspection.worker import read_files
from sandbox_runner.sdk.glovebox import onnx_graph
from sandbox_runner.sdk.glovebox.onnx_operators import OPERATORS, OPSET
from tests.fuzz.promises import CANARY, in_time
from tests.sandbox_runner.inspection import test_onnx_file

MANIFEST = """
[job]
name = "fuzz"
recipe = "classification"
[model]
build = "model:build"
[datasets]
spots = "1"
[metrics]
loss = "curve"
auc = { kind = "number", min = 0, max = 1, digits = 3 }
confusion = "matrix"
stopped = { kind = "choice", values = ["early", "late"] }
[config]
size = [48, 40]
positive_label = "lésion"
lr = 0.01
layers = [8, 16, { width = 3, gate = true }]
"""


@lru_cache(maxsize=1)
def _manifest() -> Manifest:
    return parse_manifest(MANIFEST, default_policy())


@lru_cache(maxsize=1)
def _search() -> Search:
    return Search({}, (48, 40))


def _read(data: bytes, kind: str, suffix: str = "") -> tuple[dict[str, Any], list[Finding]]:
    """Return the worker's answer on one file of these bytes, and its findings."""
    # A new one each time: what still maps the last one must not see it change.
    file = os.memfd_create("artefact")
    try:
        os.write(file, data)
        with TemporaryDirectory() as folder, in_time():
            Path(folder, f"file{suffix}").symlink_to(f"/proc/self/fd/{file}")
            answer = read_files(
                Path(folder), {f"file{suffix}": kind}, default_policy().release, _search()
            )
    finally:
        os.close(file)
    json.dumps(answer, allow_nan=False)
    findings = [finding_from_mapping(row) for row in answer["findings"]]
    # Only the empty search asks for a review by itself.
    return answer, [found for found in findings if found.rule != "samples.search"]


def weights(data: bytes) -> bool:
    """Read bytes as weights, as they are and with the length of their header put right."""
    end = data.rfind(b"}") + 1
    framed = max(0, end - 8).to_bytes(8, "little") + data[8:end] + data[end:]
    accepted = [_weights(each) for each in {data, framed}]
    return any(accepted)


def _weights(data: bytes) -> bool:
    answer, findings = _read(data, "weights")
    assert CANARY.decode() not in json.dumps([found.public() for found in findings])
    if not answer["headers"]:
        assert verdict(findings) == "block"
        assert any(found.hard for found in findings)
        return False
    (header,) = answer["headers"].values()
    # The library reads the same file, and the same tensors of the same bytes from it.
    stored = dict(safetensors.deserialize(data))
    assert stored.keys() == {row["name"] for row in header["tensors"]}
    again: dict[str, Any] = {}
    length = int.from_bytes(data[:8], "little")
    if data[8:].startswith(b'{"__metadata__"'):
        again["__metadata__"] = json.loads(data[8 : 8 + length])["__metadata__"]
        assert again["__metadata__"] in ({"format": "pt"}, {"format": "np"})
    body = b""
    for row in header["tensors"]:
        part = bytes(stored[row["name"]]["data"])
        assert len(part) == math.prod(row["shape"]) * SIZES[row["dtype"]]
        again[row["name"]] = {
            "dtype": row["dtype"],
            "shape": row["shape"],
            "data_offsets": [len(body), len(body) + len(part)],
        }
        assert row["start"] == len(body)
        body += part
    # Whatever says the same in another way does not leave.
    text = json.dumps(again, separators=(",", ":"))
    free = length - len(text)
    assert 0 <= free <= 7, "a header with more in it than its tensors"
    assert data == length.to_bytes(8, "little") + text.encode() + b" " * free + body
    return True


def _plain(data: bytes) -> dict[str, Any] | None:
    """Return what Python's json reads from it, or None if that is no object."""
    try:
        value = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def metrics(data: bytes) -> bool:
    """Read bytes as metrics; whether all of them may leave."""
    answer, findings = _read(data, "metrics")
    document = answer["documents"].get("metrics")
    if document is None:
        assert verdict(findings) == "block"
        return False
    assert _plain(data) is not None, "Python does not read what was accepted"
    specs = _manifest().metrics
    with in_time():
        leaving, checked = check_metrics(specs, document, default_policy())
    findings += checked
    assert leaving.keys() <= specs.keys()
    for name, value in leaving.items():
        if specs[name].kind == "choice":
            assert value in specs[name].values
        else:
            _only_numbers(value)
    said = json.dumps(leaving, allow_nan=False) + json.dumps([f.public() for f in findings])
    assert CANARY.decode() not in said, "a canary leaves"
    if verdict(findings) != "block":
        assert set(document) <= set(specs), "a metric of another name did not block"
    return verdict(findings) == "pass"


def _only_numbers(value: Any) -> None:
    if isinstance(value, dict):
        for name, part in value.items():
            known = name in COLUMN_NAMES | AXES | set(_manifest().metrics)
            assert known or name.removeprefix("column_").isdigit(), "a column's name leaves"
            _only_numbers(part)
    elif isinstance(value, list | tuple):
        assert len(value) <= 101
        for part in value:
            _only_numbers(part)
    else:
        assert value is None or (
            type(value) in (int, float) and float(f"{value:.4g}") == float(value)
        ), "more digits than the policy's"


def config(data: bytes) -> bool:
    """Read bytes as a configuration; what passes must be one of the spellings of json.dump."""
    answer, findings = _read(data, "config")
    document = answer["documents"].get("config")
    if document is None:
        assert verdict(findings) == "block"
        return False
    with in_time():
        findings += check_config(_manifest().config, document, data, "config.json")
    assert (verdict(findings) == "pass") == (data in set(spellings()))
    return verdict(findings) == "pass"


def spellings() -> Iterator[bytes]:
    """The forty files that json.dump writes of the manifest's configuration."""
    value = json.loads(json.dumps(dict(_manifest().config)))
    for sort in (False, True):
        for ascii_only in (True, False):
            for options in ({}, {"separators": (",", ":")}, {"indent": 1}, {"indent": 2},
                            {"indent": 4}):  # fmt: skip
                text = json.dumps(value, sort_keys=sort, ensure_ascii=ascii_only, **options)
                yield text.encode()
                yield text.encode() + b"\n"


def weights_seeds() -> Iterator[bytes]:
    """Small files of every type, as the library writes them, and with a canary where text fits."""
    rng = np.random.default_rng(0)
    floats = rng.normal(0, 0.05, (16, 8)).astype(np.float32)
    yield safetensors.numpy.save({"w": floats})
    yield safetensors.numpy.save({"w": floats, "b": floats[0]}, {"format": "pt"})
    for dtype in (np.float16, np.int64, np.int32, np.int16, np.int8, np.uint8, np.bool_):
        yield safetensors.numpy.save({"first.weight": (floats * 100).astype(dtype)})
    yield safetensors.numpy.save({f"layer.{i}": floats[: i + 1] for i in range(12)})
    yield safetensors.numpy.save({"one": np.array(1, np.float32), "nan": floats * np.nan})
    yield _file({"w": {"dtype": "BF16", "shape": [4, 2], "data_offsets": [0, 16]}}, bytes(16))
    yield safetensors.numpy.save({"w": floats}, {"format": CANARY.decode()})
    yield safetensors.numpy.save({f"w{CANARY.decode()}": floats.astype(np.float64)})
    entry = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    for change in (
        {"shape": [2**40, 2**40]}, {"shape": [-4]}, {"shape": [[4]]}, {"dtype": "F8_E4M3"},
        {"data_offsets": [0, 2**63]}, {"data_offsets": [16, 0]}, {"shape": []}, {"more": 1},
    ):  # fmt: skip
        yield _file({"w": entry | change}, bytes(16))
    yield _file({"w": entry, "v": entry}, bytes(16))


def _file(entries: Mapping[str, Any], body: bytes) -> bytes:
    text = json.dumps(entries, separators=(",", ":")).encode()
    return len(text).to_bytes(8, "little") + text + body


def metrics_seeds() -> Iterator[bytes]:
    """Metrics as they are declared, and of every other form."""
    good = {
        "loss": [0.5, 0.25, 0.125],
        "auc": 0.91234567,
        "confusion": [[120, 14], [30, None]],
        "stopped": "early",
    }
    canary = CANARY.decode()
    for change in (
        {}, {"loss": {"step": [1, 2], "loss": [0.1, 0.2]}}, {"loss": [{"x": 1, "y": 2.5}] * 3},
        {"loss": {canary: [1, 2]}}, {"stopped": canary}, {"auc": canary}, {canary: 1},
        {"confusion": [[3, 1], [2, 4]]}, {"auc": None}, {"auc": True}, {"auc": 1e300},
        {"loss": [[[[[1]]]]]}, {"loss": list(range(200))},
    ):  # fmt: skip
        yield json.dumps(good | change).encode()
    yield json.dumps({"auc": 0.5}, indent=2).encode() + b"\n"
    yield b'{"auc": NaN}'
    yield b'{"auc": 0.5, "auc": 0.6}'
    yield b'{"auc": 1e999, "loss": [' + b"9" * 40 + b"]}"
    yield b'{"loss": ' + b"[" * 3000 + b"]" * 3000 + b"}"


def config_seeds() -> Iterator[bytes]:
    """Every spelling that may leave, and some that may not."""
    yield from spellings()
    value = json.loads(json.dumps(dict(_manifest().config)))
    yield json.dumps(value | {"lr": 0.02}).encode()
    yield json.dumps(value | {"note": CANARY.decode()}).encode()
    yield json.dumps(value).replace("0.01", "1e-2").encode()
    yield json.dumps(value, indent=3).encode()
    yield b"\xef\xbb\xbf" + json.dumps(value).encode()


def onnx(data: bytes) -> bool:
    """Read bytes as an ONNX model, as they are and as the library writes what it understands."""
    variants = {data}
    with suppress(DecodeError, ValueError):
        variants.add(_understood(data).SerializeToString(deterministic=True))
    accepted = [_onnx(each) for each in variants]
    return any(accepted)


def _understood(data: bytes) -> Any:
    model = ModelProto()
    model.ParseFromString(data)
    return model


def _onnx(data: bytes) -> bool:
    answer, findings = _read(data, "weights", ".onnx")
    assert CANARY.decode() not in json.dumps([found.public() for found in findings])
    if not answer["headers"]:
        assert verdict(findings) == "block"
        assert any(found.hard for found in findings)
        return False
    # The library understands all of it, and writes the same bytes.
    model = _understood(data)
    assert model.SerializeToString(deterministic=True) == data
    _only_known(model)
    _one_spelling(model.graph)
    check_model(model)
    (header,) = answer["headers"].values()
    assert [row["name"] for row in header["tensors"]] == [t.name for t in model.graph.initializer]
    for row, tensor in zip(header["tensors"], model.graph.initializer, strict=True):
        assert row["shape"] == list(tensor.dims)
        assert onnx_graph.TYPES[row["dtype"]] == tensor.data_type
        assert data[row["start"] : row["end"]] == tensor.raw_data
        assert len(tensor.raw_data) == math.prod(row["shape"]) * SIZES[row["dtype"]]
    beside = len(data) - sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    (graph,) = answer["graphs"].values()
    assert graph["bytes"] == beside <= GRAPH_BYTES
    small = [a.t for n in model.graph.node for a in n.attribute if a.type == a.TENSOR]
    assert all(len(tensor.raw_data) <= 8 * onnx_graph.CONSTANT_NUMBERS for tensor in small)
    for node in model.graph.node:
        assert node.op_type == "Constant" or node.op_type in OPERATORS
    return True


def _one_spelling(graph: Any) -> None:
    """Hold a graph to the one order and the one set of names, worked out once more by recursion."""
    makers = {name: node for node in graph.node for name in node.output}
    tensors = [tensor.name for tensor in graph.initializer]
    assert tensors == sorted(set(tensors))
    order: list[Any] = []
    used: set[str] = set()

    def need(name: str) -> None:
        used.add(name)
        node = makers.get(name)
        if node is None or any(node is each for each in order):
            return
        for each in node.input:
            need(each)
        order.append(node)

    need("output")
    assert [id(node) for node in order] == [id(node) for node in graph.node]
    assert set(tensors) <= used
    made = [name for node in order for name in node.output]
    numbers = iter(range(len(made)))
    assert made == [f"/{n}" if made[n] != "output" else "output" for n in numbers]
    constants = [n.SerializeToString() for node in order if node.op_type == "Constant"
                 for n in node.attribute]  # fmt: skip
    assert len(constants) == len(set(constants)), "a constant twice"
    for node in order:
        names = [attribute.name for attribute in node.attribute]
        assert names == sorted(set(names))
        assert not node.input or node.input[-1], "an input that is left out at the end"
        defaults = get_schema(node.op_type, OPSET).attributes
        for attribute in node.attribute:
            default = defaults[attribute.name].default_value
            assert defaults[attribute.name].required or get_value(attribute) != get_value(default)


def get_value(attribute: Any) -> Any:
    """The value of an attribute, None for none."""
    return get_attribute_value(attribute) if attribute.type else None


#: Every text that may stand in a model, but for the names of tensors.
WORDS = frozenset(
    {"Constant", "value", "input", "output", "batch", "graph", *OPERATORS}
    | {name for each in OPERATORS.values() for name in each.attributes}
    | {
        word
        for each in OPERATORS.values()
        for attribute in each.attributes.values()
        if attribute.kind == "word"
        for word in attribute.allowed
    }
)


#: The fields that a model is made of.
FIELDS: Mapping[str, frozenset[str]] = {
    name: frozenset(fields.split())
    for name, fields in {
        "ModelProto": "ir_version graph opset_import",
        "OperatorSetIdProto": "version",
        "GraphProto": "node name initializer input output",
        "NodeProto": "input output op_type attribute",
        "AttributeProto": "name f i s t ints type",
        "TensorProto": "dims data_type name raw_data",
        "ValueInfoProto": "name type",
        "TypeProto": "tensor_type",
        "Tensor": "elem_type shape",
        "TensorShapeProto": "dim",
        "Dimension": "dim_value dim_param",
    }.items()
}


def _only_known(message: Any) -> None:
    """Hold a message to fields that the library knows and texts that anybody writes."""
    assert len(UnknownFieldSet(message)) == 0, "a field that nobody knows"
    known = FIELDS[message.DESCRIPTOR.name]
    for field, value in message.ListFields():
        assert field.name in known, "a field that no model needs"
        values = value if field.is_repeated else [value]
        if field.message_type is not None:
            for each in values:
                _only_known(each)
        elif field.cpp_type == field.CPPTYPE_STRING and field.name != "raw_data":
            for each in values:
                text = each.decode() if isinstance(each, bytes) else each
                named = re.fullmatch(r"/\d+|", text) or onnx_graph.TENSOR_NAME.fullmatch(text)
                assert text in WORDS or named, "a text of somebody's choice"


REFUSED = (
    "bytes after it", "a producer", "metadata", "a function", "an operator of another domain",
    "a loop", "a large constant", "values in another file", "a tensor of strings",
    "a tensor that nobody uses", "a default that is written", "an input of lists",
)  # fmt: skip
"""Hostile models to start from."""


def onnx_seeds() -> Iterator[bytes]:
    """Small models of many operators and types, and what is refused, with a canary in each text."""
    first = test_onnx_file.good()
    yield first
    yield onnx_written("Conv", {"kernel_shape": (1, 1), "pads": (0, 1, 0, 1)}, (2, 1, 1, 1))
    yield onnx_written("Gather", {"axis": 1}, (3,), dtype=7)
    yield onnx_written("MatMul", {}, (5, 4))
    yield onnx_written("Where", {}, (3, 5), before=("input",), dtype=9)
    yield onnx_written("Resize", {"mode": "linear"}, (4,), before=("",))
    yield onnx_written("Pad", {"mode": "reflect"}, (8,), dtype=7)
    yield onnx_written("Split", {"axis": 1, "num_outputs": 3}, (2,), outputs=3)
    for name in REFUSED:
        yield test_onnx_file.HOSTILE[name][0]
    model = _understood(first)
    canary = CANARY.decode()
    model.graph.initializer[0].name = canary
    for node in model.graph.node:
        node.input[:] = [canary if name == "first.bias" else name for name in node.input]
    yield model.SerializeToString(deterministic=True)
    model.doc_string = canary
    yield model.SerializeToString(deterministic=True)


def onnx_written(
    operator: str,
    attributes: Mapping[str, Any],
    shape: tuple[int, ...],
    *,
    before: tuple[str, ...] = (),
    outputs: int = 1,
    dtype: int = 1,
) -> bytes:
    """A model of one operator on the input and one tensor, its bytes ones."""
    graph = onnx_graph.Graph(
        "input", (1, 4, 5), "y0", (3,),
        (onnx_graph.Node(operator, ("input", *before, "w"),
                         tuple(f"y{i}" for i in range(outputs)), attributes),),
        {}, {"w": onnx_graph.Stored("w", dtype, shape)},
    )  # fmt: skip
    onnx_graph.check(graph)
    parts = onnx_graph.parts(onnx_graph.canonical(graph))
    return b"".join(p if isinstance(p, bytes) else b"\1" * p.bytes for p in parts)


PROMISES: Mapping[str, Callable[[bytes], bool]] = {
    "weights": weights,
    "onnx": onnx,
    "metrics": metrics,
    "config": config,
}
SEEDS = {
    "weights": weights_seeds,
    "onnx": onnx_seeds,
    "metrics": metrics_seeds,
    "config": config_seeds,
}
