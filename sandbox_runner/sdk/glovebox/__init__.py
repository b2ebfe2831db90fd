"""What a submission may use: datasets, its configuration, progress, weights and metrics.

The same calls work in the sandbox and at home. Four variables say where things are:
``GLOVEBOX_DATA`` (datasets by slug, default ``data``), ``GLOVEBOX_CODE`` (the submission, default
the working directory), ``GLOVEBOX_OUTPUT`` (default ``output``) and ``GLOVEBOX_PROGRESS_FD``.
Only numpy is needed to import this; pydicom, Pillow, torch and onnx are used where the image has
them.
"""

from .datasets import Dataset, dataset
from .onnx_export import save_onnx
from .outputs import (
    checkpoint,
    config,
    keep,
    log,
    manifest,
    output,
    save_config,
    save_metrics,
    save_weights,
)

__all__ = [
    "Dataset",
    "checkpoint",
    "config",
    "dataset",
    "keep",
    "log",
    "manifest",
    "output",
    "save_config",
    "save_metrics",
    "save_onnx",
    "save_weights",
]
