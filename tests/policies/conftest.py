"""The shipped policy, and the manifest of architecture.md, for every rule's test."""

from __future__ import annotations

from typing import Any

import pytest

from policies.document import Policy, default_policy


@pytest.fixture(scope="session")
def policy() -> Policy:
    return default_policy()


@pytest.fixture
def manifest_values() -> dict[str, Any]:
    """A complete manifest as TOML reads it; a test spoils one thing in it."""
    return {
        "job": {"name": "lesion-cnn", "entrypoint": "train.py", "image": "pytorch-cpu"},
        "model": {"build": "model:build"},
        "datasets": {"mammography": "1"},
        "resources": {
            "cpus": 2,
            "memory": "4Gi",
            "gpus": 0,
            "time": "30m",
            "output": "2Gi",
            "processes": 256,
        },
        "metrics": {
            "loss": "number",
            "auc": {"kind": "number", "min": 0, "max": 1, "digits": 3},
            "roc": "curve",
            "confusion": "matrix",
            "outcome": {"kind": "choice", "values": ["converged", "stopped"]},
        },
        "outputs": {
            "weights": ["model.safetensors"],
            "metrics": "metrics.json",
            "config": "config.json",
        },
        "config": {"lr": 0.001, "sizes": [8, 16], "augment": {"flip": True}},
    }
