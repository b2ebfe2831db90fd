"""Running the shipped networks: one place for how a session is set up."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

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


def open_session(model: Path | bytes, threads: int) -> onnxruntime.InferenceSession:
    """A CPU session with exactly ``threads`` threads; parallel work is done over files instead."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Idle threads of a pool otherwise spin and take the cores of the other workers.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(
        source, sess_options=options, providers=["CPUExecutionProvider"]
    )
