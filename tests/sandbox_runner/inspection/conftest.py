"""A small dataset, a submission and a network really trained on it, made once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from policies.document import Policy, default_policy
from policies.submission import Manifest, parse_manifest
from sandbox_runner.inspection import Report, inspect

ROOT = Path(__file__).parents[3]
SIZE = (48, 40)

MANIFEST = """
[job]
name = "spots"
recipe = "classification"
[model]
build = "model:build"
[datasets]
spots = "1"
[metrics]
loss = "curve"
auc = "number"
[config]
size = [48, 40]
positive_label = "lesion"
epochs = 14
batch_size = 16
lr = 0.01
"""

MODEL = """
import torch
from torch import nn

def build(config):
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2, padding=2), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 24, 3, stride=2, padding=1), nn.BatchNorm2d(24), nn.ReLU(),
        nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(24, 1),
    )
"""


def picture(rng: np.random.Generator, lesion: bool) -> np.ndarray:
    """A textured 8-bit picture of 96x80, with or without a bright spot."""
    noise = rng.normal(0, 1, (96, 80))
    field = np.fft.ifft2(
        np.fft.fft2(noise) / (1 + 60 * np.hypot(*np.meshgrid(
            np.fft.fftfreq(80), np.fft.fftfreq(96))))
    ).real  # fmt: skip
    field = 90 + 22 * field / field.std()
    if lesion:
        y, x = rng.uniform(16, 80), rng.uniform(16, 64)
        yy, xx = np.mgrid[:96, :80]
        field += 75 * np.exp(-((yy - y) ** 2 + (xx - x) ** 2) / (2 * 4.0**2))
    return np.clip(field, 0, 255).astype(np.uint8)


def write_dataset(root: Path, subjects: int = 90) -> None:
    rng = np.random.default_rng(7)
    root.mkdir(parents=True)
    lines = ["file,subject,label,split"]
    for number in range(subjects):
        split = ("train", "validation", "sealed")[(number % 6 > 2) + (number % 6 > 3)]
        for side in range(2):
            lesion = (number // 6) % 2 == 1 and side == 0
            name = f"s{number}/{side}.png"
            (root / f"s{number}").mkdir(exist_ok=True)
            Image.fromarray(picture(rng, lesion)).save(root / name)
            lines.append(f"{name},s{number},{'lesion' if lesion else 'normal'},{split}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")


@dataclass(frozen=True)
class Case:
    """Where everything of one inspection lies."""

    dataset: Path
    submission: Path
    output: Path
    work: Path

    @property
    def manifest(self) -> Manifest:
        return parse_manifest((self.submission / "glovebox.toml").read_text(), default_policy())

    def inspect(self, policy: Policy | None = None) -> Report:
        return inspect(
            self.output,
            submission=self.submission,
            manifest=self.manifest,
            datasets={"spots": self.dataset},
            policy=policy or default_policy(),
            workdir=self.work,
            backend="bubblewrap",
        )


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """The honest job: trained by the recipe, as a job would be, outside of the sandbox."""
    home = tmp_path_factory.mktemp("spots")
    write_dataset(home / "data" / "spots")
    code = home / "code"
    code.mkdir()
    (code / "glovebox.toml").write_text(MANIFEST)
    (code / "model.py").write_text(MODEL)
    subprocess.run(
        [sys.executable, ROOT / "sandbox_runner" / "recipes" / "classification.py"],
        env=os.environ
        | {
            "PYTHONPATH": str(ROOT / "sandbox_runner" / "sdk"),
            "GLOVEBOX_DATA": str(home / "data"),
            "GLOVEBOX_CODE": str(code),
            "GLOVEBOX_OUTPUT": str(home / "output"),
            "OMP_NUM_THREADS": "1",
        },
        check=True,
        capture_output=True,
    )
    assert json.loads((home / "output" / "metrics.json").read_text())["auc"] > 0.8
    return Case(home / "data" / "spots", code, home / "output", home / "work")


@pytest.fixture
def case(trained: Case, tmp_path: Path) -> Case:
    """A copy of the honest job that a test may spoil."""
    shutil.copytree(trained.submission, tmp_path / "code")
    shutil.copytree(trained.output, tmp_path / "output")
    return Case(trained.dataset, tmp_path / "code", tmp_path / "output", tmp_path / "work")
