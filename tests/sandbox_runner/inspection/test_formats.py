"""A file that is no safetensors is told by name, and a safetensors is never taken for another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from policies.document import default_policy
from policies.findings import Finding, verdict
from sandbox_runner.inspection import formats
from sandbox_runner.inspection.worker import _weights

ROOT = Path(__file__).parents[3]
NETWORKS = sorted((ROOT / "deid").rglob("*.onnx"))


def refused(path: Path, name: str) -> Finding:
    """The one finding on a file under this name."""
    findings: list[Finding] = []
    assert _weights(path, name, default_policy().release, findings, {}) is None
    assert verdict(findings) == "block"
    (found,) = findings
    return found


@pytest.mark.parametrize("path", NETWORKS, ids=lambda path: path.name)
def test_an_onnx_model_is_refused_under_another_name(path: Path) -> None:
    found = refused(path, "model.safetensors")
    assert "ONNX" in found.message
    assert formats.SAVE_LINE in found.message


@pytest.mark.parametrize("path", NETWORKS, ids=lambda path: path.name)
def test_an_onnx_model_of_another_writer_is_refused_with_the_line_that_writes_one(
    path: Path,
) -> None:
    found = refused(path, "model.onnx")
    assert found.rule.startswith("onnx.")
    assert formats.SAVE_ONNX_LINE in found.message
    assert "at byte" in found.internal["place"]
    # Where it is wrong, a job chose: that could spell something.
    assert "at byte" not in str(found.public())


def test_other_files_are_told_under_the_name_of_an_onnx_model(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    save_file({"w": np.zeros((4, 4), np.float32)}, path)
    assert "a safetensors file" in refused(path, "model.onnx").message
    path.write_bytes(b"PK\x03\x04" + bytes(200))
    assert "torch.save" in refused(path, "model.onnx").message


def test_there_are_models_to_refuse() -> None:
    assert NETWORKS


def test_no_length_of_a_header_reads_like_onnx(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for length in (0x120708, 0x3A0808, 0x420A08):
        path.write_bytes(length.to_bytes(8, "little") + b'{"w":')
        assert formats.foreign_kind(path) == ""
