"""The configuration in, and the few things out: progress, weights, metrics."""

from __future__ import annotations

import functools
import json
import math
import os
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

# The names of the safetensors format for the types that a model may leave with.
SAFETENSORS_TYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
# A line longer than this is cut by the reader of the progress pipe; PIPE_BUF keeps it whole.
PROGRESS_LINE_BYTES = 4096


@functools.cache
def _read_manifest(path: Path) -> Mapping[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def manifest() -> Mapping[str, Any]:
    """Return the submission's ``glovebox.toml``, as written; empty where there is none."""
    return _read_manifest(Path(os.environ.get("GLOVEBOX_CODE", ".")) / "glovebox.toml")


def config() -> Mapping[str, Any]:
    """Return ``[config]`` of the submission's ``glovebox.toml``."""
    section: Mapping[str, Any] = manifest().get("config", {})
    return section


def output(name: str) -> Path:
    """Return where to write an output that ``glovebox.toml`` declares.

    Raises ``ValueError`` for a name that is not a plain relative path.
    """
    parts = name.split("/")
    if name.startswith("/") or any(part in ("", ".", "..") for part in parts):
        raise ValueError("an output has a plain relative name")
    path = Path(os.environ.get("GLOVEBOX_OUTPUT", "output")) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def checkpoint() -> Path | None:
    """Return the folder of the earlier job's checkpoint that ``[checkpoint] from`` names.

    Read-only. None where the manifest names none, and at home.
    """
    place = os.environ.get("GLOVEBOX_CHECKPOINT")
    return Path(place) if place else None


def keep(name: str) -> Path:
    """Return where to write a file of this job's own checkpoint (``[checkpoint] keep = true``).

    It stays inside, for later jobs of the same grant.
    """
    return output(f"checkpoint/{name}")


def declared_output(key: str, default: str) -> str:
    """Return the first name that ``[outputs]`` declares for a kind of file."""
    value = manifest().get("outputs", {}).get(key, default)
    return str(value[0] if isinstance(value, list) else value)


def log(step: int, **metrics: float) -> None:
    """Report progress: numbers of declared names. In the sandbox they are rounded and rare.

    Raises ``ValueError`` for a value that is not a finite number.
    """
    numbers = {name: float(value) for name, value in metrics.items()}
    if not all(math.isfinite(value) for value in numbers.values()):
        raise ValueError("progress is finite numbers")
    line = json.dumps({"step": int(step), "metrics": numbers}) + "\n"
    descriptor = os.environ.get("GLOVEBOX_PROGRESS_FD")
    if descriptor is None:
        shown = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        sys.stdout.write(f"step {int(step)}: {shown}\n")
        return
    if len(line) > PROGRESS_LINE_BYTES:
        raise ValueError("too many metrics in one step")
    try:
        os.write(int(descriptor), line.encode())
    except (BlockingIOError, BrokenPipeError):
        return  # a full or closed pipe must never stop the training


def as_numpy(value: Any) -> tuple[np.ndarray[Any, Any], str]:
    """Return a tensor as an array (bfloat16 as its 16 bits), and the name of its type."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().contiguous()
        kind = str(value.dtype).removeprefix("torch.")
        if kind == "bfloat16":
            import torch

            return value.view(torch.int16).numpy(), kind
        return value.numpy(), kind
    array = np.asarray(value)
    return array, array.dtype.name


def save_weights(model: Any, name: str | None = None) -> Path:
    """Write a torch module's (or a mapping's) tensors as safetensors; return the path.

    The name defaults to the first of ``[outputs] weights``. Tensors stand largest type first and
    then by name, without gaps, with no metadata: what the inspection accepts.

    Raises ``TypeError`` for a type that safetensors does not have.
    """
    state = model.state_dict() if hasattr(model, "state_dict") else model
    tensors = {str(key): as_numpy(value) for key, value in state.items()}
    for key, (_, kind) in tensors.items():
        if kind not in SAFETENSORS_TYPES:
            raise TypeError(f"{key}: {kind} cannot be stored as safetensors")
    order = sorted(tensors, key=lambda key: (-tensors[key][0].dtype.itemsize, key))
    header: dict[str, Any] = {}
    offset = 0
    for key in order:
        array, kind = tensors[key]
        header[key] = {
            "dtype": SAFETENSORS_TYPES[kind],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path = output(name or declared_output("weights", "model.safetensors"))
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little"))
        stream.write(text)
        for key in order:
            stream.write(np.ascontiguousarray(tensors[key][0]).tobytes())
    return path


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not a number or a list of numbers")


def _save_json(values: Mapping[str, Any], key: str, default: str) -> Path:
    text = json.dumps(values, allow_nan=False, indent=1, sort_keys=True, default=_plain)
    path = output(declared_output(key, default))
    path.write_text(text + "\n", encoding="utf-8")
    return path


def save_metrics(**metrics: Any) -> Path:
    """Write ``metrics.json``: numbers, curves and matrices of declared names.

    Raises ``ValueError`` for NaN and infinity, ``TypeError`` for anything but numbers.
    """
    return _save_json(metrics, "metrics", "metrics.json")


def save_config(**values: Any) -> Path:
    """Write ``config.json``: what is needed, beside the weights, to build the network again."""
    return _save_json(values, "config", "config.json")
