"""A file of weights in either form that may leave; its name says which."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from policies.document import ReleasePolicy
from sandbox_runner.inspection import onnx_file, safetensors_file
from sandbox_runner.inspection.safetensors_file import Header

ONNX: Final = ".onnx"


def is_onnx(name: str) -> bool:
    """Whether a file of this name must be an ONNX model; any other must be safetensors."""
    return name.endswith(ONNX)


def read_header(path: Path, policy: ReleasePolicy) -> Header:
    """Return which tensors stand where in the file; raises Malformed for one that may not leave."""
    if is_onnx(path.name):
        return onnx_file.read_model(path, policy).header
    return safetensors_file.read_header(path, policy)
