"""A rewritten model is a model again: the same graph, its numbers in bfloat16 with noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from policies.document import default_policy
from sandbox_runner.inspection import onnx_rewriting
from sandbox_runner.inspection.onnx_file import read_model
from sandbox_runner.inspection.safetensors_file import values

from .onnx_models import SIZE, Half, network, save

POLICY = default_policy().release


@pytest.mark.parametrize("form", ["", "float16", "bfloat16", "half"])
@pytest.mark.parametrize("name", ["resnet", "unet"])
def test_a_rewritten_model_is_accepted_and_answers_nearly_the_same(
    name: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = network(name)
    if form == "half":
        module = Half(module)
    path = save(module, tmp_path, monkeypatch, None if form in ("", "half") else form)
    model = read_model(path, POLICY)
    target = tmp_path / "new.onnx"
    zero = model.header.tensors[0].name
    account = onnx_rewriting.rewrite(
        model, POLICY, path, target, zero={zero}, scale=0.03, bits=POLICY.sanitise_bits
    )
    assert not (tmp_path / "new.onnx.values").exists()
    after = read_model(target, POLICY)
    assert account.beside == 8 * after.facts["bytes"]
    assert account.capacity > account.beside
    for old, new in zip(model.header.tensors, after.header.tensors, strict=True):
        assert (new.name, new.shape, new.dtype) == (old.name, old.shape, "BF16")
        before, now = values(path, model.header, old), values(target, after.header, new)
        if old.name == zero:
            assert not now.any()
        elif old.count > 32:
            assert np.corrcoef(before.reshape(-1), now.reshape(-1))[0, 1] > 0.98
            assert not np.array_equal(before, now)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        str(target), sess_options=options, providers=["CPUExecutionProvider"]
    )
    pictures = torch.randn(6, 1, *SIZE)
    (answer,) = session.run(None, {"input": pictures.numpy()})
    with torch.no_grad():
        first = module(pictures).numpy()
    assert answer.shape == first.shape
    assert np.isfinite(answer).all()
    if zero.endswith("bias"):
        assert np.corrcoef(answer.reshape(-1), first.reshape(-1))[0, 1] > 0.8
