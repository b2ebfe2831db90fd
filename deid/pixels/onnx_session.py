"""Running the shipped networks: one place for how a session is set up."""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec
from pathlib import Path

# Since 1.31 the wheel would tell its maker that it runs, and leaves a mark in the temporary folder.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

from policies.errors import CannotRun, _


def package_file(package: str, *parts: str) -> Path:
    """A file shipped inside an installed package, found without importing the package.

    Raises :class:`CannotRun` when it is not there: pictures must not be passed as clean because
    the detector was missing.
    """
    spec = find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, *parts)
        if path.is_file():
            return path
    raise CannotRun(
        _("The detector {name} is not installed; install the package {package} again."),
        code="deid.detector-missing",
        name=parts[-1],
        package=package,
    )


@cache
def _share_memory() -> None:
    """One store of memory for all sessions, that grows by what is asked for and not by doubling."""
    place = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    as_requested = 1
    onnxruntime.create_and_register_allocator(
        place, onnxruntime.OrtArenaCfg(0, as_requested, -1, -1)
    )


def open_session(model: Path | bytes, threads: int) -> onnxruntime.InferenceSession:
    """A CPU session with exactly ``threads`` threads; parallel work is done over files instead."""
    _share_memory()
    options = onnxruntime.SessionOptions()
    # All sessions of a process take turns with one store of memory, and plan none ahead for each
    # size of picture: a quarter less memory at the same speed.
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.enable_mem_pattern = False
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Idle threads of a pool otherwise spin and take the cores of the other workers.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(
        source, sess_options=options, providers=["CPUExecutionProvider"]
    )
