"""A file that is no safetensors is told by name, and a safetensors is never taken for another."""

from __future__ import annotations

from pathlib import Path

import pytest

from policies.document import default_policy
from policies.findings import Finding, verdict
from sandbox_runner.inspection import formats
from sandbox_runner.inspection.worker import _weights

ROOT = Path(__file__).parents[3]
NETWORKS = sorted((ROOT / "deid").rglob("*.onnx"))


@pytest.mark.parametrize("path", NETWORKS, ids=lambda path: path.name)
def test_an_onnx_model_is_refused_by_its_name(path: Path) -> None:
    findings: list[Finding] = []
    assert _weights(path, "model.safetensors", default_policy().release, findings) is None
    assert verdict(findings) == "block"
    assert "ONNX" in findings[0].message
    assert formats.SAVE_LINE in findings[0].message


def test_there_are_models_to_refuse() -> None:
    assert NETWORKS


def test_no_length_of_a_header_reads_like_onnx(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for length in (0x120708, 0x3A0808, 0x420A08):
        path.write_bytes(length.to_bytes(8, "little") + b'{"w":')
        assert formats.foreign_kind(path) == ""
