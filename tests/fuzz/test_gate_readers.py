"""Seconds of what ``make fuzz`` does to the gate's readers, and that it would say what it found."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from sandbox_runner.inspection import json_file, safetensors_file
from tests.fuzz import gate
from tests.fuzz.mutations import explore
from tests.fuzz.promises import CANARY


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


def test_a_reader_that_breaks_on_its_file_is_found(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(json_file, "_check_depth", lambda value, _left: value["auc"])
    kept: list[bytes] = []
    with pytest.raises(KeyError):
        explore([b'{"auc": 0.5}'], gate.metrics, seconds=30, failed=kept.append)
    assert b'"auc"' not in kept[-1]
