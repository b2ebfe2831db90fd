"""Seconds of what ``make fuzz`` does to the gate's readers, and that it would say what it found."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from sandbox_runner.inspection import json_file, onnx_file, safetensors_file
from tests.fuzz import gate
from tests.fuzz.mutations import explore
from tests.fuzz.promises import CANARY
from tests.sandbox_runner.inspection import test_onnx_file


@pytest.mark.parametrize("path", sorted(gate.PROMISES))
def test_the_seeds_and_their_changes_keep_every_promise(path: str):
    seeds = list(gate.SEEDS[path]())
    assert any(CANARY in seed for seed in seeds)
    accepted = sum(gate.PROMISES[path](seed) for seed in seeds)
    assert len(seeds) // 3 <= accepted < len(seeds)
    tried, _accepted = explore(seeds, gate.PROMISES[path], seconds=4, failed=lambda data: None)
    assert tried > 50


def test_a_reader_that_lets_bytes_trail_breaks_the_promise(monkeypatch: pytest.MonkeyPatch):
    def lax(entries, data_bytes, policy):
        ends = [entry["data_offsets"][1] for entry in entries.values()]
        return strict(entries, max(ends), policy)

    strict = safetensors_file._read_tensors
    monkeypatch.setattr(safetensors_file, "_read_tensors", lax)
    seed = next(gate.weights_seeds())
    assert gate.weights(seed)
    with pytest.raises(Exception, match="not fully covered"):
        gate.weights(seed + b"hidden")


def test_a_reader_that_takes_any_spelling_breaks_the_promise(monkeypatch: pytest.MonkeyPatch):
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    text = json.dumps({"w": entry}).encode()
    data = len(text).to_bytes(8, "little") + text + bytes(8)
    assert not gate.weights(data)
    # The reader alone believes that this is how the header is spelled.
    lax = SimpleNamespace(loads=json.loads, dumps=lambda *_args, **_options: text.decode())
    monkeypatch.setattr(safetensors_file, "json", lax)
    with pytest.raises(AssertionError):
        gate._weights(data)


@pytest.mark.parametrize(
    "name",
    [name for name, (_, rule, _) in test_onnx_file.HOSTILE.items() if rule == "spelling"],
)
def test_a_reader_that_takes_any_spelling_of_a_graph_breaks_the_promise(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    data = test_onnx_file.HOSTILE[name][0]
    assert not gate.onnx(data)
    monkeypatch.setattr(onnx_file._Reader, "_compare", lambda reader, _graph: bytes(reader._data))
    with pytest.raises(AssertionError):
        gate._onnx(data)


OUTSIDE = {
    "text", "metadata", "model-version", "training", "functions", "devices", "node-name",
    "value-info", "quantisation", "sparse", "external", "segment", "typed-data", "subgraph",
    "denotation", "value-type",
}  # fmt: skip
"""Rules against fields that no model needs."""


@pytest.mark.parametrize(
    "name", [name for name, (_, rule, _) in test_onnx_file.HOSTILE.items() if rule in OUTSIDE]
)
def test_the_promise_knows_every_field_that_no_model_needs(name: str):
    with pytest.raises(AssertionError):
        gate._only_known(gate._understood(test_onnx_file.HOSTILE[name][0]))


def test_a_reader_that_breaks_on_its_file_is_found(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(json_file, "_check_depth", lambda value, _left: value["auc"])
    kept: list[bytes] = []
    with pytest.raises(KeyError):
        explore([b'{"auc": 0.5}'], gate.metrics, seconds=30, failed=kept.append)
    assert b'"auc"' not in kept[-1]
