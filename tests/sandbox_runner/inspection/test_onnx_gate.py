"""The whole inspection of ONNX models in the real sandbox."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox_runner.inspection import Report

from .conftest import MANIFEST, ROOT, Case

pytestmark = pytest.mark.sandbox

WRITE = """
import sys, torch, glovebox
from safetensors.torch import load_file
sys.path.insert(0, sys.argv[1])
import model
network = model.build({})
network.load_state_dict(load_file(sys.argv[2]))
glovebox.save_onnx(network, torch.zeros(1, 1, 48, 40), dtype=sys.argv[3] or None)
"""


def as_onnx(case: Case, dtype: str = "") -> Path:
    """Make the honest job one that leaves an ONNX model; return its path."""
    manifest = MANIFEST + '[outputs]\nweights = ["model.onnx"]\n'
    (case.submission / "glovebox.toml").write_text(manifest)
    weights = case.output / "model.safetensors"
    subprocess.run(
        [sys.executable, "-c", WRITE, case.submission, weights, dtype],
        env=os.environ
        | {
            "PYTHONPATH": str(ROOT / "sandbox_runner" / "sdk"),
            "GLOVEBOX_CODE": str(case.submission),
            "GLOVEBOX_OUTPUT": str(case.output),
            "OMP_NUM_THREADS": "1",
        },
        check=True,
        cwd=case.submission,
    )
    weights.unlink()
    return case.output / "model.onnx"


def rules(report: Report, severity: str) -> set[str]:
    return {found.rule for found in report.findings if found.severity == severity}


def test_an_honest_model_passes_like_its_safetensors(case: Case) -> None:
    plain = case.inspect()
    as_onnx(case)
    report = case.inspect()
    assert report.verdict == plain.verdict == "review"
    assert rules(report, "review") - {"membership.auc"} == {
        "tensors.precision",
        "membership.unmeasured",
    }
    # Measured on the graph itself, by other kernels: the same figures to the last digit shown.
    assert report.official == plain.official
    graph = next(found for found in report.findings if found.rule == "onnx.graph")
    assert 0 < graph.evidence["bytes"] < 4096
    budget = [
        next(f for f in each.findings if f.rule == "tensors.budget").evidence["bits"]
        for each in (report, plain)
    ]
    # Three counters of batches are not in it, its graph is.
    assert budget[0] == budget[1] - 3 * 64 + 8 * graph.evidence["bytes"]
